//! Virtual time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use deployer_testkit::{World, simulate};

#[test]
fn sleepers_wake_in_order_and_a_day_takes_no_time() {
    let world = World::new();
    let start = world.now();
    let woken = Arc::new(Mutex::new(Vec::new()));
    simulate(async {
        let mut tasks = Vec::new();
        for (name, every, times) in [("heartbeat", 5, 17_280), ("poll", 3, 28_800)] {
            let (clock, woken) = (world.clock(), Arc::clone(&woken));
            tasks.push(tokio::spawn(async move {
                for _ in 0..times {
                    clock.sleep(Duration::from_secs(every)).await;
                    woken.lock().unwrap().push((clock.now().since(start).as_secs(), name));
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    let woken = woken.lock().unwrap();
    assert_eq!(woken[..6], [(3, "poll"), (5, "heartbeat"), (6, "poll"), (9, "poll"), (10, "heartbeat"), (12, "poll")]);
    assert!(woken.is_sorted_by_key(|(at, _)| *at));
    assert_eq!(world.now().since(start), Duration::from_secs(86_400));
}

#[test]
fn time_goes_on_in_another_runtime_from_where_it_was() {
    let world = World::new();
    let start = world.now();
    for _ in 0..2 {
        simulate(async { world.clock().sleep(Duration::from_secs(60)).await });
    }
    assert_eq!(world.now().since(start), Duration::from_secs(120));
}

#[test]
fn outside_of_a_runtime_time_stands_still_until_it_is_advanced() {
    let world = World::new();
    let start = world.now();
    assert_eq!(world.now(), start);
    world.advance(Duration::from_millis(1_500));
    assert_eq!(world.now().since(start), Duration::from_millis(1_500));
}

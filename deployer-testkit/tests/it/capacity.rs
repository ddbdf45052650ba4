//! The watch over serving capacity.

use deployer_testkit::{World, simulate};

use crate::fixture::{Driver, spec};

#[test]
fn a_dip_is_seen_however_short_it_is() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        assert_eq!(driver.world.least_capacity("shop", "web"), None);
        let release = driver.serve("shop:v1", 3).await;
        driver.world.assert_capacity_at_least("shop", "web", 3);
        driver.register(&release, 1).await.unwrap();
        driver.register(&release, 3).await.unwrap();
        assert_eq!(driver.world.least_capacity("shop", "web"), Some((1, driver.world.now())));
        driver.world.watch_capacity();
        driver.world.assert_capacity_at_least("shop", "web", 3);
    });
}

#[test]
fn a_crash_is_a_dip_and_an_idle_pool_is_no_capacity() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        driver.serve("shop:v1", 2).await;
        let second = driver.release(spec("shop:v2")).await;
        driver.launch(&second, 2).await.unwrap();
        driver.sleep(2).await;
        driver.register(&second, 2).await.unwrap();
        driver.world.kill_instance("shop", "web", 1);
        driver.sleep(5).await;
        assert_eq!(driver.world.least_capacity("shop", "web").map(|(least, _)| least), Some(1));
    });
}

#[test]
#[should_panic(expected = "should never have less than 2 serving instances, but had 1 at")]
fn the_assertion_says_what_was_missing() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        driver.serve("shop:v1", 1).await;
        driver.world.assert_capacity_at_least("shop", "web", 2);
    });
}

#[test]
#[should_panic(expected = "should be served by 2 of shop:v2, but 0 serve")]
fn serving_is_asserted_with_a_table() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        driver.serve("shop:v1", 2).await;
        driver.world.assert_serving("shop", "web", "shop:v2", 2);
    });
}

#[test]
#[should_panic(expected = "there are 1 instances, 0 tasks, 1 entries, 1 sets of networks and 1 definitions")]
fn leftovers_are_counted() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        driver.serve("shop:v1", 1).await;
        driver.world.assert_nothing_left("shop");
    });
}

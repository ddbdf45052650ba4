//! The whole backend on a simulated AWS behind the SDK's own clients, in virtual time.

#[path = "../cloud/mod.rs"]
mod cloud;

use cloud::play::Stage;
use cloud::scenarios;

#[test]
fn undisturbed_every_story_ends_as_it_should() {
    for scenario in scenarios::all() {
        let name = scenario.name;
        let began = std::time::Instant::now();
        let (stage, played) = Stage::set(scenario);
        println!(
            "{name}: {} requests, {} changes, {} s, really {:?}",
            played.requests, played.changes, stage.undisturbed.seconds, began.elapsed()
        );
        assert!(played.what.is_empty(), "{name}: {:#?}", played.what);
    }
}

//! The whole backend on a simulated AWS behind the SDK's own clients, in virtual time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod balancing;
#[expect(dead_code, reason = "the published suites use what is not used here")]
#[path = "../cloud/mod.rs"]
mod cloud;
mod crowds;
mod gates;
mod images;
mod prune;
mod records;

use cloud::http::Wire;
use cloud::proof::Proof;
use cloud::strike::Strikes;
use cloud::{Cloud, scenarios};
use deployer_core::AppName;
use deployer_testkit::World;

/// A simulated AWS with the image of the scenarios, in a world of its own, and the application that is deployed to it.
fn simulated_aws() -> (World, AppName, Wire) {
    let (world, name): (World, AppName) = (World::new(), scenarios::APP.parse().unwrap());
    world.add_image("web:v1");
    let wire = Wire::new(&world, &name, Cloud::default(), &Strikes::default());
    (world, name, wire)
}

/// How many runs are played here; `scripts/proof-aws` plays them all.
const RUNS: u64 = 250;

#[test]
fn whatever_strikes_at_a_request_changes_nothing_but_the_time() {
    let scenarios = scenarios::all();
    let seed = std::env::var("DEPLOYER_PROOF_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let report = Proof { scenarios, seed, runs: RUNS, fault: String::new() }.run();
    report.tables();
    assert!(report.violations.is_empty(), "{report}");
    assert_eq!(report.runs, RUNS);
}

/// What was found once. The numbers of requests may come to lie elsewhere; the whole loop strikes everywhere.
#[test]
fn what_has_broken_before_does_not_break_again() {
    let found = [
        // The target groups of a rule that was deleted were never found again.
        "first | CreateTargetGroup 2: away for 60000 ms",
        "first/failing | DeleteTargetGroup 1: throttled, each time",
        "first/failing | DeleteTargetGroup 1: crash",
        "first/failing | DeleteTargetGroup 2: pause of 40000 ms",
        // A rule that was made by an attempt of which nobody had heard was made again with another priority.
        "first/failing | CreateRule 1: made twice",
        "first/failing | CreateRule 1: reply lost",
        // Weights that somebody moved back were not seen for five seconds, and the old instances stopped under traffic.
        "blue-green/draining-counts | call 36: weights moved by hand",
        "blue-green/draining-counts | call 38: weights moved by hand",
        // Answers that were seconds old: weights seemed to be somebody else's, nothing seemed to be left to be stopped, and
        // a slot seemed not to be there.
        "canary | call 46: stale answer",
        "blue-green/exits | call 70: stale answer",
        "blue-green/never-ready | call 140: stale answer",
        // A slot that was taken from scaling by a request that was lost stayed with it, which brought back what was stopped.
        "scaled/destroy | call 14: request lost, each time; call 55: hangs",
        // Of two rules of a service only one was looked at: the other one still sent requests to what was stopped.
        "published/canary | call 47: permission-denied",
        "published/canary | call 47: away for 60000 ms",
        "published/canary | call 90: weights moved by hand",
        // With pauses after looks that took long, the SDK's clients never learnt that they may ask again as often as before.
        "rollback/warm | call 2: throttled, each time; call 21: away for 60000 ms; call 35: unavailable",
        // A rollback moved the traffic while routes were made ready at other ports, and both waited for the same look.
        "port/rollback | call 16: throttled, each time",
        "port/rollback | call 15: hangs",
        // A route that only the older release had was missed by a shift that was cancelled.
        "port/second | call 42: cancelled",
    ];
    let proof = Proof { scenarios: scenarios::all(), seed: 1, runs: 0, fault: String::new() };
    for line in found {
        let (scenario, strikes) = line.split_once(" | ").unwrap();
        let broken = proof.replay(scenario, &strikes.parse().unwrap());
        assert!(broken.is_empty(), "{line}: {broken:#?}");
    }
}

//! What ECS has of revisions that are not kept.

use deployer_core::{DeployOptions, Deployer, Retention, Strategy};
use deployer_testkit::simulate;

use crate::cloud::scenarios::{APP, app, web};
use crate::simulated_aws;

#[test]
fn task_definitions_are_deregistered_with_their_releases() {
    let (world, name, wire) = simulated_aws();
    // Those that are active, without what comes before their families.
    let active = || wire.cloud(|cloud| cloud.definitions_of(APP).map(|one| one.arn.clone()).collect::<Vec<_>>());
    simulate(async {
        let deployer = Deployer::builder(wire.backend(&wire.process())).clock(world.clock()).owner("test").build();
        let deploy = async |version: &str| {
            let spec = app([("web", web(version, Strategy::default()))]);
            let record = deployer.deploy(spec, DeployOptions::default()).finished().await.unwrap();
            assert!(record.verdict.as_ref().unwrap().is_promoted(), "{record:?}");
        };
        for version in ["v1", "v2", "v3"] {
            deploy(version).await;
        }
        let all = active();
        assert_eq!(all.len(), 3);
        let pruned = deployer.prune(&name, Retention::releases(1)).await.unwrap();
        let left = active();
        let gone: Vec<&String> = all.iter().filter(|arn| !left.contains(arn)).collect();
        // The release that serves is kept, and the one that a rollback goes to.
        assert_eq!((pruned.releases.len(), gone.len(), left.len()), (1, 1, 2), "{pruned:?}");
        assert!(gone[0].ends_with(&format!("{}:1", pruned.definitions[0])), "{gone:?} {pruned:?}");
        assert_eq!(deployer.prune(&name, Retention::releases(1)).await.unwrap().definitions, Vec::<String>::new());
        // What comes back is registered again.
        deploy("v1").await;
        let again = format!("{}:2", gone[0].strip_suffix(":1").unwrap());
        assert!(active().contains(&again), "{again} {:?}", active());
        deployer.destroy(&name, false).finished().await.unwrap();
        assert_eq!(active(), Vec::<String>::new());
    });
    assert_eq!(wire.cloud(|cloud| cloud.broken.clone()), Vec::<String>::new());
}

//! The release store where DynamoDB is busy.

use std::sync::Arc;
use std::time::Duration;

use deployer_aws::DynamoStore;
use deployer_core::{AcquireLease, AppName, DeployOptions, Deployer, ErrorKind, ReleaseStore, Strategy};
use deployer_testkit::{World, simulate};

use crate::cloud::http::Wire;
use crate::cloud::records_api::TABLE;
use crate::cloud::scenarios::{APP, app, in_ecr, web};
use crate::cloud::strike::Strikes;
use crate::cloud::{Cloud, Profile};

/// Runs something with a store on a new table.
fn with_store<T>(strikes: &str, act: impl AsyncFn(&World, &Wire, Arc<DynamoStore>) -> T) -> T {
    let (world, name): (World, AppName) = (World::new(), APP.parse().unwrap());
    let mut cloud = Cloud::with_profile(Profile { whole: true, ..Profile::default() });
    cloud.stock();
    let wire = Wire::new(&world, &name, cloud, &strikes.parse::<Strikes>().unwrap());
    let done = simulate(async {
        let store = Arc::new(DynamoStore::new(&wire.config(&wire.process()), TABLE));
        act(&world, &wire, store).await
    });
    assert_eq!(wire.cloud(|cloud| cloud.broken.clone()), Vec::<String>::new());
    done
}

fn request(world: &World) -> AcquireLease {
    AcquireLease::new(APP.parse().unwrap(), "owner", "owner-1", Duration::from_secs(15), world.clock().now())
}

#[test]
fn a_new_table_is_waited_for_until_it_can_be_restored() {
    with_store("", async |_, wire, store| {
        store.ensure_table().await.unwrap();
        assert!(wire.cloud(|cloud| cloud.restores()));
        store.ensure_table().await.unwrap();
    });
}

#[test]
fn a_throttled_transaction_is_tried_again_and_said_to_be_throttled_at_last() {
    with_store("", async |world, wire, store| {
        let lease = store.acquire_lease(request(world)).await.unwrap();
        let write = async || store.forget_app(&lease.app, lease.fence).await;
        wire.cloud(|cloud| cloud.records.throttled = 2);
        write().await.unwrap();
        wire.cloud(|cloud| cloud.records.throttled = u32::MAX);
        let error = write().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled);
        assert!(!format!("{error:?}").contains("others"));
    });
}

#[test]
fn a_lease_is_renewed_while_transactions_check_it() {
    with_store("", async |world, wire, store| {
        let lease = store.acquire_lease(request(world)).await.unwrap();
        let renewing = async {
            for _ in 0..200 {
                store.renew_lease(&lease, world.clock().now()).await.unwrap();
            }
        };
        let writing = async {
            for _ in 0..200 {
                store.forget_app(&lease.app, lease.fence).await.unwrap();
            }
        };
        tokio::join!(renewing, writing);
        let met = wire.requests().iter().filter(|request| request.outcome.contains("Transaction")).count();
        assert!(met > 0, "they never met");
    });
}

#[test]
fn an_application_that_was_half_forgotten_is_forgotten_the_next_time() {
    with_store("BatchWriteItem 2: unavailable, each time", async |world, wire, store| {
        for version in ["v1", "v2", "v3"] {
            let spec = in_ecr(app([("web", web(version, Strategy::default()))]));
            let process = wire.process();
            let deployer = Deployer::builder(wire.backend(&process)).secrets(wire.secrets(&process));
            let deployer = deployer.clock(world.clock()).build();
            let done = deployer.deploy(spec, DeployOptions::default()).finished().await.unwrap();
            assert!(done.verdict.is_some_and(|verdict| verdict.is_promoted()));
        }
        let left = || wire.cloud(|cloud| cloud.records.items.keys().cloned().collect::<Vec<_>>());
        let before = left().len();
        let lease = store.acquire_lease(request(world)).await.unwrap();
        store.forget_app(&lease.app, lease.fence).await.unwrap_err();
        let half = left();
        assert!(half.len() < before && half.len() > 2, "it was not stopped half-way: {half:?}");
        // What leads to the rest is still there.
        assert_eq!(store.apps().await.unwrap(), std::slice::from_ref(&lease.app));
        store.forget_app(&lease.app, lease.fence).await.unwrap();
        assert_eq!(left(), [("app#shop".to_owned(), "head".to_owned())]);
    });
}

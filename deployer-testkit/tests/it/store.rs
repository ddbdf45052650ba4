//! The rules of the release store.

use std::time::Duration;

use deployer_core::{
    AcquireLease, Append, DeploymentId, DeploymentKind, DeploymentQuery, DeploymentRecord, Entry, ErrorKind,
    JournalEvent, ReleaseNumber, ReleaseQuery, ReleaseStore, Retry, SendSignal, Signal, Timestamp,
};
use deployer_testkit::{MemoryStore, World, simulate};

use crate::fixture::{Driver, app, spec};

const TTL: Duration = Duration::from_secs(30);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn ask(owner: &str, now: Timestamp) -> AcquireLease {
    AcquireLease::new(app(), format!("{owner} in words"), owner, TTL, now)
}

fn record(id: &str, last_seq: u64) -> DeploymentRecord {
    let kind = serde_json::to_value(DeploymentKind::Deploy).unwrap();
    serde_json::from_value(serde_json::json!({
        "id": id, "app": "shop", "kind": kind, "owner": "a test", "started_at": 0, "last_seq": last_seq,
        "target": null, "baseline": null, "finished_at": null, "verdict": null,
    }))
    .unwrap()
}

fn entry(seq: u64) -> Entry {
    Entry::new(seq, at(0), 1, JournalEvent::Resumed { owner: format!("owner {seq}") })
}

#[test]
fn a_lease_is_for_one_until_it_expires_or_its_owner_is_dead() {
    simulate(async {
        let store = MemoryStore::new();
        let first = store.acquire_lease(ask("a", at(0))).await.unwrap();
        let busy = store.acquire_lease(ask("b", at(10))).await.unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Busy);
        assert!(busy.to_string().contains("held by: a in words, for at most: 20s"), "{busy}");
        let again = store.acquire_lease(ask("a", at(10))).await.unwrap();
        assert!(again.fence > first.fence);
        let second = store.acquire_lease(ask("b", at(40))).await.unwrap();
        assert!(second.fence > again.fence);
        assert_eq!(store.renew_lease(&again, at(41)).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert!(store.declare_holder_dead("shop"));
        assert!(store.lease_holder(&app()).await.unwrap().unwrap().dead);
        let third = store.acquire_lease(ask("c", at(41))).await.unwrap();
        store.release_lease(&second).await.unwrap();
        assert_eq!(store.lease_holder(&app()).await.unwrap().unwrap().owner, "c in words");
        store.release_lease(&third).await.unwrap();
        assert_eq!(store.lease_holder(&app()).await.unwrap(), None);
        assert_eq!(store.renew_lease(&third, at(42)).await.unwrap_err().kind(), ErrorKind::Conflict);
    });
}

#[test]
fn renewing_extends_even_an_expired_lease_that_nobody_took() {
    simulate(async {
        let store = MemoryStore::new();
        let lease = store.acquire_lease(ask("a", at(0))).await.unwrap();
        let renewed = store.renew_lease(&lease, at(100)).await.unwrap();
        assert_eq!((renewed.fence, renewed.expires_at), (lease.fence, at(130)));
        assert_eq!(store.acquire_lease(ask("b", at(120))).await.unwrap_err().kind(), ErrorKind::Busy);
    });
}

#[test]
fn a_lower_fence_never_writes_again() {
    simulate(async {
        let store = MemoryStore::new();
        let old = store.acquire_lease(ask("a", at(0))).await.unwrap();
        store.append(Append::new(record("d1", 1), old.fence, vec![entry(1)])).await.unwrap();
        let new = store.acquire_lease(ask("b", at(31))).await.unwrap();
        let refused = store.append(Append::new(record("d1", 2), old.fence, vec![entry(2)])).await.unwrap_err();
        assert_eq!((refused.kind(), refused.retry()), (ErrorKind::Conflict, Retry::Never));
        store.append(Append::new(record("d1", 2), new.fence, vec![entry(2)])).await.unwrap();
        for refused in [
            store.remove_releases(&app(), &[], old.fence).await.unwrap_err(),
            store.forget_app(&app(), old.fence).await.unwrap_err(),
        ] {
            assert_eq!(refused.kind(), ErrorKind::Conflict);
        }
    });
}

#[test]
fn appending_compares_and_keeps_both_or_neither() {
    simulate(async {
        let store = MemoryStore::new();
        let fence = store.acquire_lease(ask("a", at(0))).await.unwrap().fence;
        let deployment = DeploymentId::new("d1").unwrap();
        store.append(Append::new(record("d1", 2), fence, vec![entry(1), entry(2)])).await.unwrap();
        for (entries, last, kind) in [
            (vec![entry(2)], 2, ErrorKind::Conflict),
            (vec![entry(4)], 4, ErrorKind::Conflict),
            (vec![entry(3), entry(5)], 5, ErrorKind::InvalidInput),
            (vec![entry(3)], 7, ErrorKind::InvalidInput),
        ] {
            let refused = store.append(Append::new(record("d1", last), fence, entries)).await.unwrap_err();
            assert_eq!(refused.kind(), kind, "{refused}");
        }
        assert_eq!(store.journal(&deployment, 1).await.unwrap(), [entry(1), entry(2)]);
        assert_eq!(store.journal(&deployment, 2).await.unwrap(), [entry(2)]);
        let records = store.deployments(DeploymentQuery::new(app(), 9)).await.unwrap();
        assert_eq!(records, [record("d1", 2)]);
    });
}

#[test]
fn releases_are_numbered_once_and_for_all() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let (store, fence) = (driver.world.store(), driver.lease.fence);
        let first = driver.release(spec("shop:v1")).await;
        assert_eq!(driver.release(spec("shop:v1")).await, first);
        let second = driver.release(spec("shop:v2")).await;
        let third = driver.release(spec("shop:v1")).await;
        assert_eq!([first.number, second.number, third.number], [1, 2, 3].map(ReleaseNumber));
        store.remove_releases(&app(), &[second.number, third.number], fence).await.unwrap();
        assert_eq!(store.release(&app(), second.number).await.unwrap(), None);
        assert_eq!(driver.release(spec("shop:v3")).await.number, ReleaseNumber(4));
        let query = ReleaseQuery::new(app(), 9).before(ReleaseNumber(4));
        assert_eq!(store.releases(query).await.unwrap(), [(*first).clone()]);
        let stale = store.put_release((*first).clone(), fence - 1).await.unwrap_err();
        assert_eq!(stale.kind(), ErrorKind::Conflict);
    });
}

#[test]
fn signals_are_kept_once_and_in_order() {
    simulate(async {
        let store = MemoryStore::new();
        let deployment = DeploymentId::new("d1").unwrap();
        let cancel = Signal::Cancel { by: "ann".into() };
        let promote = Signal::Promote { by: "ben".into() };
        let send = |signal: &Signal| store.send_signal(SendSignal::new(deployment.clone(), signal.clone(), at(1)));
        assert_eq!(send(&cancel).await.unwrap_err().kind(), ErrorKind::NotFound);
        let fence = store.acquire_lease(ask("a", at(0))).await.unwrap().fence;
        store.append(Append::new(record("d1", 1), fence, vec![entry(1)])).await.unwrap();
        for signal in [&promote, &cancel, &promote] {
            send(signal).await.unwrap();
        }
        assert_eq!(store.signals(&deployment).await.unwrap(), [promote, cancel]);
    });
}

#[test]
fn a_forgotten_application_keeps_its_fence() {
    simulate(async {
        let driver = Driver::new(World::new()).await;
        let store = driver.world.store();
        driver.release(spec("shop:v1")).await;
        assert_eq!(store.apps().await.unwrap(), [app()]);
        store.forget_app(&app(), driver.lease.fence).await.unwrap();
        assert!(store.apps().await.unwrap().is_empty());
        let lease = store.acquire_lease(AcquireLease::new(app(), "a test", "test", TTL, at(0))).await.unwrap();
        assert!(lease.fence > driver.lease.fence);
    });
}

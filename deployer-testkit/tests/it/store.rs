//! What the release store in memory has beyond the rules of its trait, which the conformance suite checks.

use std::time::Duration;

use deployer_core::{
    AcquireLease, Append, DeploymentKind, DeploymentRecord, Entry, ErrorKind, JournalEvent, ReleaseStore, Timestamp,
};
use deployer_testkit::{MemoryStore, simulate};

use crate::fixture::app;

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
fn a_holder_that_is_declared_dead_is_replaced_at_once() {
    simulate(async {
        let store = MemoryStore::new();
        assert!(!store.declare_holder_dead("shop"));
        let first = store.acquire_lease(ask("a", at(0))).await.unwrap();
        assert!(store.declare_holder_dead("shop"));
        assert!(store.lease_holder(&app()).await.unwrap().unwrap().dead);
        assert!(store.acquire_lease(ask("b", at(1))).await.unwrap().fence > first.fence);
    });
}

#[test]
fn a_record_names_its_journals_last_entry() {
    simulate(async {
        let store = MemoryStore::new();
        let fence = store.acquire_lease(ask("a", at(0))).await.unwrap().fence;
        let refused = store.append(Append::new(record("d1", 7), fence, vec![entry(1)])).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    });
}

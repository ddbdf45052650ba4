//! What `SqliteStore` has beyond the rules of its trait, which the conformance suite checks.

use std::time::Duration;

use deployer_core::{
    AcquireLease, AppName, Append, DeploymentId, DeploymentRecord, Entry, ErrorKind, JournalEvent, Release,
    ReleaseNumber, ReleaseStore, Timestamp,
};
use deployer_local::SqliteStore;
use serde_json::json;
use tempfile::TempDir;

const TTL: Duration = Duration::from_secs(30);

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn app(name: &str) -> AppName {
    AppName::new(name).unwrap()
}

fn deployment(id: &str) -> DeploymentId {
    DeploymentId::new(id).unwrap()
}

fn lease_of(app: &AppName, owner: &str, now: i64) -> AcquireLease {
    AcquireLease::new(app.clone(), format!("{owner} on a test"), owner, TTL, at(now))
}

fn record(app: &AppName, id: &str, last_seq: u64) -> DeploymentRecord {
    serde_json::from_value(json!({
        "id": id, "app": app, "kind": {"kind": "deploy"}, "target": 1, "baseline": null, "owner": "a test",
        "started_at": 1, "finished_at": null, "verdict": null, "last_seq": last_seq,
    }))
    .unwrap()
}

fn entry(seq: u64, fence: u64, owner: &str) -> Entry {
    Entry::new(seq, at(5), fence, JournalEvent::Resumed { owner: owner.to_owned() })
}

fn release(app: &AppName, image: &str) -> Release {
    serde_json::from_value(json!({
        "format": 1, "app": app, "number": 0, "networks": {}, "volumes": {}, "provenance": {"message": image},
        "services": {"web": {"replicas": 1, "image": {
            "reference": image,
            "location": image,
            "digest": format!("sha256:{}", "a".repeat(64)),
        }}},
    }))
    .unwrap()
}

struct Bench {
    store: SqliteStore,
    app: AppName,
    directory: TempDir,
}

async fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("sub/deployer.db")).unwrap();
    let app = app("shop");
    store.acquire_lease(lease_of(&app, "first", 0)).await.unwrap();
    Bench { store, app, directory }
}

impl Bench {
    fn another_handle(&self) -> SqliteStore {
        SqliteStore::open(self.directory.path().join("sub/deployer.db")).unwrap()
    }

    /// A connection of a program that is not ours.
    fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.directory.path().join("sub/deployer.db")).unwrap()
    }

    async fn append(&self, id: &str, fence: u64, entries: Vec<Entry>) -> deployer_core::Result<()> {
        let last = entries.last().map_or(0, |entry| entry.seq);
        self.store.append(Append::new(record(&self.app, id, last), fence, entries)).await
    }
}

#[tokio::test]
async fn a_dropped_handle_is_a_dead_owner() {
    let bench = bench().await;
    let other = bench.another_handle();
    let second = app("second-app");
    other.acquire_lease(lease_of(&second, "gone", 0)).await.unwrap();
    assert!(bench.store.acquire_lease(lease_of(&second, "heir", 1)).await.is_err());
    drop(other);
    assert!(bench.store.lease_holder(&second).await.unwrap().unwrap().dead);
    assert_eq!(bench.store.acquire_lease(lease_of(&second, "heir", 1)).await.unwrap().fence, 2);
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let bench = bench().await;
    bench.append("d1", 1, vec![entry(1, 1, "a"), entry(2, 1, "b"), entry(3, 1, "c")]).await.unwrap();
    bench.store.put_release(release(&bench.app, "a"), 1).await.unwrap();
    let raw = bench.raw();
    raw.execute("UPDATE entries SET json = replace(json, '\"format\":1', '\"format\":2') WHERE seq = 2", []).unwrap();
    raw.execute("UPDATE entries SET json = 'nonsense' WHERE seq = 3", []).unwrap();
    raw.execute("UPDATE releases SET json = replace(json, '\"format\":1', '\"format\":900')", []).unwrap();
    let error = bench.store.journal(&deployment("d1"), 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("entry 2 of deployment d1: it was written in format 2"), "{error}");
    let error = bench.store.journal(&deployment("d1"), 3).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("entry 3 of deployment d1"), "{error}");
    let error = bench.store.release(&bench.app, ReleaseNumber(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("release v1 of shop: it was written in format 900"), "{error}");
}

#[tokio::test]
async fn files_that_are_not_ours_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let open = |name: &str| SqliteStore::open(directory.path().join(name)).unwrap_err();

    std::fs::write(directory.path().join("text"), "this is no database, and it is long enough to be read as one")
        .unwrap();
    assert_eq!(open("text").kind(), ErrorKind::Corrupt);

    let foreign = rusqlite::Connection::open(directory.path().join("foreign")).unwrap();
    foreign.execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert_eq!(open("foreign").kind(), ErrorKind::InvalidInput);
    let tables: i64 = foreign.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1);

    drop(SqliteStore::open(directory.path().join("ours")).unwrap());
    let ours = rusqlite::Connection::open(directory.path().join("ours")).unwrap();
    ours.pragma_update(None, "user_version", 1_000).unwrap();
    let error = open("ours");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("version 1000") && error.help().is_some(), "{error}");

    std::fs::create_dir(directory.path().join("directory")).unwrap();
    assert_eq!(open("directory").kind(), ErrorKind::Unavailable);
}

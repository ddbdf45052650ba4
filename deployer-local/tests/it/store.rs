//! The rules of `ReleaseStore`, kept by `SqliteStore`.

use std::time::Duration;

use deployer_core::{
    AcquireLease, AppName, Append, DeploymentId, DeploymentQuery, DeploymentRecord, Entry, ErrorKind, JournalEvent,
    Lease, Release, ReleaseNumber, ReleaseQuery, ReleaseStore, SendSignal, Signal, Timestamp,
};
use deployer_local::SqliteStore;
use serde_json::json;
use tempfile::TempDir;

pub(crate) const TTL: Duration = Duration::from_secs(30);

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn app(name: &str) -> AppName {
    AppName::new(name).unwrap()
}

pub(crate) fn deployment(id: &str) -> DeploymentId {
    DeploymentId::new(id).unwrap()
}

pub(crate) fn lease_of(app: &AppName, owner: &str, now: i64) -> AcquireLease {
    AcquireLease::new(app.clone(), format!("{owner} on a test"), owner, TTL, at(now))
}

pub(crate) fn record(app: &AppName, id: &str, last_seq: u64) -> DeploymentRecord {
    serde_json::from_value(json!({
        "id": id, "app": app, "kind": {"kind": "deploy"}, "target": 1, "baseline": null, "owner": "a test",
        "started_at": 1, "finished_at": null, "verdict": null, "last_seq": last_seq,
    }))
    .unwrap()
}

pub(crate) fn entry(seq: u64, fence: u64, owner: &str) -> Entry {
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
    lease: Lease,
    directory: TempDir,
}

async fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("sub/deployer.db")).unwrap();
    let app = app("shop");
    let lease = store.acquire_lease(lease_of(&app, "first", 0)).await.unwrap();
    Bench { store, app, lease, directory }
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

    async fn numbers(&self, query: ReleaseQuery) -> Vec<u64> {
        self.store.releases(query).await.unwrap().iter().map(|release| release.number.0).collect()
    }
}

#[tokio::test]
async fn a_held_lease_is_busy_and_says_who_holds_it() {
    let bench = bench().await;
    assert_eq!(bench.lease.fence, 1);
    assert_eq!(bench.lease.expires_at, at(30_000));
    let other = bench.another_handle();
    for store in [&bench.store, &other] {
        let error = store.acquire_lease(lease_of(&bench.app, "second", 29_999)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("first on a test"), "{error}");
        assert!(error.to_string().contains("1ms"), "{error}");
    }
    let holder = other.lease_holder(&bench.app).await.unwrap().unwrap();
    assert_eq!((holder.owner.as_str(), holder.fence, holder.dead), ("first on a test", 1, false));
    assert_eq!(holder.expires_at, at(30_000));
    assert_eq!(other.lease_holder(&app("other")).await.unwrap(), None);
    assert_eq!(other.acquire_lease(lease_of(&app("other"), "second", 0)).await.unwrap().fence, 1);
}

#[tokio::test]
async fn its_owner_may_take_a_lease_again_with_a_higher_fence() {
    let bench = bench().await;
    let again = bench.store.acquire_lease(lease_of(&bench.app, "first", 10)).await.unwrap();
    assert_eq!((again.fence, again.expires_at), (2, at(30_010)));
    let error = bench.store.renew_lease(&bench.lease, at(20)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    bench.store.release_lease(&bench.lease).await.unwrap();
    assert_eq!(
        bench.store.lease_holder(&bench.app).await.unwrap().unwrap().fence,
        2,
        "a stale lease is not given back"
    );
}

#[tokio::test]
async fn a_lease_ends_when_it_expires_or_is_given_back_and_not_when_it_is_renewed() {
    let bench = bench().await;
    let renewed = bench.store.renew_lease(&bench.lease, at(20_000)).await.unwrap();
    assert_eq!((renewed.fence, renewed.expires_at), (1, at(50_000)));
    assert!(bench.store.acquire_lease(lease_of(&bench.app, "second", 49_999)).await.is_err());
    let taken = bench.store.acquire_lease(lease_of(&bench.app, "second", 50_000)).await.unwrap();
    assert_eq!(taken.fence, 2);
    assert_eq!(bench.store.renew_lease(&renewed, at(50_001)).await.unwrap_err().kind(), ErrorKind::Conflict);
    bench.store.release_lease(&renewed).await.unwrap();
    bench.store.release_lease(&taken).await.unwrap();
    assert_eq!(bench.store.lease_holder(&bench.app).await.unwrap(), None);
    assert_eq!(bench.store.renew_lease(&taken, at(50_001)).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(bench.store.acquire_lease(lease_of(&bench.app, "third", 50_002)).await.unwrap().fence, 3);
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
async fn only_the_last_fence_writes() {
    let bench = bench().await;
    let second = bench.store.acquire_lease(lease_of(&bench.app, "second", 30_000)).await.unwrap();
    bench.append("d1", second.fence, vec![entry(1, 2, "x")]).await.unwrap();
    bench.store.put_release(release(&bench.app, "a"), second.fence).await.unwrap();
    for fence in [0, bench.lease.fence, second.fence + 1, u64::MAX] {
        let conflicts = [
            bench.append("d1", fence, vec![entry(2, fence, "x")]).await.unwrap_err(),
            bench.store.put_release(release(&bench.app, "b"), fence).await.unwrap_err(),
            bench.store.remove_releases(&bench.app, &[ReleaseNumber(1)], fence).await.unwrap_err(),
            bench.store.forget_app(&bench.app, fence).await.unwrap_err(),
        ];
        for error in conflicts {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            assert!(error.to_string().contains("last granted: 2"), "{error}");
        }
    }
    assert_eq!(bench.numbers(ReleaseQuery::new(bench.app.clone(), 9)).await, [1]);
    assert_eq!(bench.store.journal(&deployment("d1"), 0).await.unwrap().len(), 1);
    let never_leased = app("never-leased");
    let error = bench.store.put_release(release(&never_leased, "a"), 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "nothing is allowed where no lease was ever granted");
}

#[tokio::test]
async fn a_fence_still_writes_after_its_lease_was_given_back() {
    let bench = bench().await;
    bench.store.release_lease(&bench.lease).await.unwrap();
    bench.append("d1", bench.lease.fence, vec![entry(1, 1, "x")]).await.unwrap();
}

#[tokio::test]
async fn journals_have_no_gaps_and_keep_their_record_in_step() {
    let bench = bench().await;
    bench.append("d1", 1, vec![entry(1, 1, "a"), entry(2, 1, "b")]).await.unwrap();
    for wrong in [vec![entry(2, 1, "x")], vec![entry(4, 1, "x")], vec![entry(3, 1, "x"), entry(5, 1, "x")]] {
        let error = bench.append("d1", 1, wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    let records = |limit| bench.store.deployments(DeploymentQuery::new(bench.app.clone(), limit));
    assert_eq!(records(9).await.unwrap(), [record(&bench.app, "d1", 2)], "refused appends leave the record alone");
    bench.append("d1", 1, vec![entry(3, 1, "c")]).await.unwrap();
    assert_eq!(records(9).await.unwrap(), [record(&bench.app, "d1", 3)]);
    let entries = bench.store.journal(&deployment("d1"), 2).await.unwrap();
    assert_eq!(entries, [entry(2, 1, "b"), entry(3, 1, "c")]);
    assert_eq!(bench.store.journal(&deployment("d1"), u64::MAX).await.unwrap(), []);
    assert_eq!(bench.store.journal(&deployment("unknown"), 0).await.unwrap(), []);
}

#[tokio::test]
async fn a_deployment_belongs_to_one_application() {
    let bench = bench().await;
    bench.append("d1", 1, vec![entry(1, 1, "a")]).await.unwrap();
    let other = app("other");
    bench.store.acquire_lease(lease_of(&other, "second", 0)).await.unwrap();
    let error = bench.store.append(Append::new(record(&other, "d1", 2), 1, vec![entry(2, 1, "b")])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn deployments_are_listed_newest_first() {
    let bench = bench().await;
    for id in ["d2", "d1", "d3"] {
        bench.append(id, 1, vec![entry(1, 1, "a")]).await.unwrap();
    }
    let ids = async |query| -> Vec<String> {
        let records = bench.store.deployments(query).await.unwrap();
        records.into_iter().map(|record| record.id.into()).collect()
    };
    let query = |limit| DeploymentQuery::new(bench.app.clone(), limit);
    assert_eq!(ids(query(9)).await, ["d3", "d2", "d1"]);
    assert_eq!(ids(query(2)).await, ["d3", "d2"]);
    assert_eq!(ids(query(9).before(deployment("d2"))).await, ["d1"]);
    assert_eq!(ids(DeploymentQuery::new(app("other"), 9)).await, Vec::<String>::new());
}

#[tokio::test]
async fn releases_are_numbered_and_the_newest_content_is_kept_once() {
    let bench = bench().await;
    let first = bench.store.put_release(release(&bench.app, "a"), 1).await.unwrap();
    assert_eq!(first.number, ReleaseNumber(1));
    let mut again = release(&bench.app, "a");
    again.provenance.message = Some("another message".to_owned());
    assert_eq!(bench.store.put_release(again, 1).await.unwrap(), first, "answered as it is kept");
    assert_eq!(bench.store.put_release(release(&bench.app, "b"), 1).await.unwrap().number, ReleaseNumber(2));
    assert_eq!(bench.store.put_release(release(&bench.app, "a"), 1).await.unwrap().number, ReleaseNumber(3));
    assert_eq!(bench.store.release(&bench.app, ReleaseNumber(1)).await.unwrap(), Some(first));
    assert_eq!(bench.store.release(&bench.app, ReleaseNumber(9)).await.unwrap(), None);
    assert_eq!(bench.store.release(&bench.app, ReleaseNumber(u64::MAX)).await.unwrap(), None);
    let query = |limit| ReleaseQuery::new(bench.app.clone(), limit);
    assert_eq!(bench.numbers(query(2)).await, [3, 2]);
    assert_eq!(bench.numbers(query(9).before(ReleaseNumber(3))).await, [2, 1]);
}

#[tokio::test]
async fn numbers_are_never_given_again() {
    let bench = bench().await;
    for image in ["a", "b"] {
        bench.store.put_release(release(&bench.app, image), 1).await.unwrap();
    }
    let both = [ReleaseNumber(2), ReleaseNumber(1), ReleaseNumber(77)];
    bench.store.remove_releases(&bench.app, &both, 1).await.unwrap();
    assert!(bench.numbers(ReleaseQuery::new(bench.app.clone(), 9)).await.is_empty());
    let next = bench.store.put_release(release(&bench.app, "b"), 1).await.unwrap();
    assert_eq!(next.number, ReleaseNumber(3));
}

#[tokio::test]
async fn signals_are_kept_once_and_in_order() {
    let bench = bench().await;
    let id = deployment("d1");
    let cancel = Signal::Cancel { by: "ann".to_owned() };
    let promote = Signal::Promote { by: "bob".to_owned() };
    let send = |signal: &Signal| bench.store.send_signal(SendSignal::new(id.clone(), signal.clone(), at(1)));
    assert_eq!(send(&cancel).await.unwrap_err().kind(), ErrorKind::NotFound);
    bench.append("d1", 1, vec![entry(1, 1, "a")]).await.unwrap();
    for signal in [&promote, &cancel, &promote, &cancel] {
        send(signal).await.unwrap();
    }
    assert_eq!(bench.store.signals(&id).await.unwrap(), [promote, cancel]);
    assert_eq!(bench.store.signals(&deployment("d2")).await.unwrap(), []);
}

#[tokio::test]
async fn a_forgotten_application_leaves_its_fence_and_nothing_else() {
    let bench = bench().await;
    bench.store.put_release(release(&bench.app, "a"), 1).await.unwrap();
    bench.append("d1", 1, vec![entry(1, 1, "a")]).await.unwrap();
    let signal = SendSignal::new(deployment("d1"), Signal::Cancel { by: "ann".to_owned() }, at(1));
    bench.store.send_signal(signal).await.unwrap();
    let other = app("other");
    let fence = bench.store.acquire_lease(lease_of(&other, "second", 0)).await.unwrap().fence;
    bench.store.put_release(release(&other, "a"), fence).await.unwrap();
    assert_eq!(bench.store.apps().await.unwrap(), [other.clone(), bench.app.clone()]);

    bench.store.forget_app(&bench.app, 1).await.unwrap();
    assert_eq!(bench.store.apps().await.unwrap(), [other]);
    assert!(bench.numbers(ReleaseQuery::new(bench.app.clone(), 9)).await.is_empty());
    assert_eq!(bench.store.deployments(DeploymentQuery::new(bench.app.clone(), 9)).await.unwrap(), []);
    assert_eq!(bench.store.journal(&deployment("d1"), 0).await.unwrap(), []);
    assert_eq!(bench.store.signals(&deployment("d1")).await.unwrap(), []);
    bench.store.release_lease(&bench.lease).await.unwrap();
    assert_eq!(bench.store.acquire_lease(lease_of(&bench.app, "third", 1)).await.unwrap().fence, 2);
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

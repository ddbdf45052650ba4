//! Several processes on one `SqliteStore`, and processes that are killed.
//!
//! The processes are this test binary again, told by environment variables which test to run, on what, and how much.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use deployer_core::{Append, Entry, ErrorKind, JournalEvent, Lease, ReleaseStore};
use deployer_local::SqliteStore;

use super::store::{app, at, deployment, entry, lease_of, record};

const DATABASE: &str = "DEPLOYER_TEST_DATABASE";
const OWNER: &str = "DEPLOYER_TEST_OWNER";
const LEASES: &str = "DEPLOYER_TEST_LEASES";
const ENTRIES: &str = "DEPLOYER_TEST_ENTRIES";

/// A process that takes the lease so many times and appends so many entries each time.
fn writer(database: &Path, owner: &str, leases: u64, entries: u64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "store_processes::a_writer_finds_what_it_wrote", "--nocapture"])
        .env(DATABASE, database)
        .env(OWNER, owner)
        .env(LEASES, leases.to_string())
        .env(ENTRIES, entries.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The numbers of the entries that a writer says were acknowledged.
fn acknowledged(process: &mut Child) -> impl Iterator<Item = u64> + use<> {
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).filter_map(|line| line.split_once("acknowledged: ")?.1.parse().ok())
}

async fn journal(store: &SqliteStore) -> Vec<Entry> {
    store.journal(&deployment("d1"), 1).await.unwrap()
}

async fn append(store: &SqliteStore, lease: &Lease, seq: u64) -> deployer_core::Result<()> {
    let entry = entry(seq, lease.fence, &lease.owner_id);
    store.append(Append::new(record(&lease.app, "d1", seq), lease.fence, vec![entry])).await
}

fn owner_of(entry: &Entry) -> &str {
    match &entry.event {
        JournalEvent::Resumed { owner } => owner,
        other => panic!("nobody wrote {other:?}"),
    }
}

/// What each process does. On its own it is a test of one process.
#[tokio::test]
async fn a_writer_finds_what_it_wrote() {
    let own_directory = tempfile::tempdir().unwrap();
    let database = env::var_os(DATABASE).map_or_else(|| own_directory.path().join("db"), PathBuf::from);
    let number = |name, default| env::var(name).map_or(default, |text| text.parse::<u64>().unwrap());
    let owner = env::var(OWNER).unwrap_or_else(|_| "alone".to_owned());
    let (leases, entries) = (number(LEASES, 3), number(ENTRIES, 4));
    let store = SqliteStore::open(database).unwrap();
    let mut wrote = 0;
    for _ in 0..leases {
        let lease = loop {
            match store.acquire_lease(lease_of(&app("shop"), &owner, 0)).await {
                Ok(lease) => break lease,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
            }
        };
        for _ in 0..entries {
            let next = journal(&store).await.len() as u64 + 1;
            append(&store, &lease, next).await.unwrap();
            println!("acknowledged: {next}");
            wrote += 1;
        }
        store.release_lease(&lease).await.unwrap();
    }
    let found = journal(&store).await.iter().filter(|entry| owner_of(entry) == owner).count();
    assert_eq!(found, wrote);
}

#[tokio::test]
async fn processes_at_once_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("db");
    let owners = ["a", "b", "c", "d"];
    // None is there before the others: they also make the file at once.
    let mut processes = owners.map(|owner| writer(&database, owner, 8, 2));
    let acknowledged: Vec<Vec<u64>> = processes.iter_mut().map(|process| acknowledged(process).collect()).collect();
    for process in &mut processes {
        assert!(process.wait().unwrap().success());
    }
    let store = SqliteStore::open(&database).unwrap();
    let journal = journal(&store).await;
    assert_eq!(journal.len(), 64);
    for (owner, acknowledged) in owners.into_iter().zip(acknowledged) {
        let kept: Vec<u64> = journal.iter().filter(|entry| owner_of(entry) == owner).map(|entry| entry.seq).collect();
        assert_eq!(kept, acknowledged, "{owner}");
        assert_eq!(kept.len(), 16, "{owner}");
    }
    for pair in journal.windows(2) {
        assert!(pair[0].fence <= pair[1].fence, "{pair:?}");
        assert!(pair[0].fence < pair[1].fence || owner_of(&pair[0]) == owner_of(&pair[1]), "{pair:?}");
    }
    let next = store.acquire_lease(lease_of(&app("shop"), "last", 0)).await.unwrap();
    assert_eq!(next.fence, 33, "each of the 32 leases had its own fence");
}

#[tokio::test]
async fn a_killed_writer_loses_nothing_it_was_promised_and_is_replaced_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("db");
    let mut promised = Vec::new();
    for (round, kill_after) in [1, 2, 7, 20].into_iter().enumerate() {
        let mut process = writer(&database, &format!("victim-{round}"), 1, 1_000_000);
        let mut lines = acknowledged(&mut process);
        promised.extend(lines.by_ref().take(kill_after));
        process.kill().unwrap();
        process.wait().unwrap();
        promised.extend(lines);

        let raw = rusqlite::Connection::open(&database).unwrap();
        let check: String = raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        drop(raw);

        let store = SqliteStore::open(&database).unwrap();
        let kept = journal(&store).await;
        let numbers: Vec<u64> = kept.iter().map(|entry| entry.seq).collect();
        assert!(promised.iter().all(|seq| numbers.contains(seq)), "{promised:?} of {numbers:?}");
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());

        let holder = store.lease_holder(&app("shop")).await.unwrap().unwrap();
        assert!(holder.dead, "{holder:?}");
        assert!(holder.expires_at > at(0), "it has not expired: {holder:?}");
        let heir = store.acquire_lease(lease_of(&app("shop"), "heir", 0)).await.unwrap();
        assert_eq!(heir.fence, holder.fence + 1);
        let next = numbers.len() as u64 + 1;
        let victims = Lease::new(app("shop"), "victim".to_owned(), holder.fence, heir.ttl, holder.expires_at);
        assert_eq!(append(&store, &victims, next).await.unwrap_err().kind(), ErrorKind::Conflict);
        append(&store, &heir, next).await.unwrap();
        promised.push(next);
        store.release_lease(&heir).await.unwrap();
    }
}

#[tokio::test]
async fn a_living_process_keeps_its_lease() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("db");
    let mut process = writer(&database, "living", 1, 1_000_000);
    let mut lines = acknowledged(&mut process);
    assert_eq!(lines.next(), Some(1));
    let store = SqliteStore::open(&database).unwrap();
    let error = store.acquire_lease(lease_of(&app("shop"), "thief", 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(!store.lease_holder(&app("shop")).await.unwrap().unwrap().dead);
    process.kill().unwrap();
    process.wait().unwrap();
    store.acquire_lease(lease_of(&app("shop"), "thief", 1)).await.unwrap();
}

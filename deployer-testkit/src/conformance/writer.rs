//! Another process that writes to a store: this test program again, told by its environment what to do.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use deployer_core::{
    AcquireLease, AppName, Append, DeploymentId, DeploymentKind, DeploymentRecord, Entry, ErrorKind, JournalEvent,
    Timestamp,
};
use serde::{Deserialize, Serialize};

use super::bench::StoreBench;
use super::case::{CaseFailure, CaseResult};
use super::runner::cannot;

/// Tells the process its errand.
const ERRAND: &str = "DEPLOYER_CONFORMANCE_WRITER";
/// Begins what it says about an entry that the store has acknowledged.
const PROMISED: &str = "promised: ";

/// What the process does: take the lease so many times, and append so many entries each time.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Errand {
    pub(super) bench: String,
    pub(super) place: String,
    pub(super) app: AppName,
    pub(super) deployment: DeploymentId,
    pub(super) owner: String,
    pub(super) leases: u64,
    pub(super) entries: u64,
}

/// The process, seen from the one that started it. It is killed when it is dropped.
pub(super) struct Writer {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Writer {
    pub(super) fn start(errand: &Errand) -> CaseResult<Self> {
        let errand = serde_json::to_string(errand).map_err(|error| cannot("the errand", error))?;
        let mut process = Command::new(std::env::current_exe()?)
            .env(ERRAND, errand)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| cannot("the other process", error))?;
        let output = process.stdout.take().ok_or_else(|| CaseFailure::new("the other process has no output"))?;
        Ok(Self { process, lines: BufReader::new(output).lines() })
    }

    fn promise(&mut self) -> Option<u64> {
        self.lines.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix(PROMISED)?.parse().ok())
    }

    /// Waits for so many entries to be acknowledged.
    pub(super) fn promises(&mut self, count: usize) -> CaseResult<Vec<u64>> {
        let promised: Vec<u64> = std::iter::from_fn(|| self.promise()).take(count).collect();
        if promised.len() == count { Ok(promised) } else { Err("the other process ended too early".into()) }
    }

    /// Kills it, and answers what was acknowledged until then.
    pub(super) fn kill(mut self) -> CaseResult<Vec<u64>> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(std::iter::from_fn(|| self.promise()).collect())
    }

    /// Waits until it has ended well, and answers what was acknowledged.
    pub(super) fn finish(mut self) -> CaseResult<Vec<u64>> {
        let promised = std::iter::from_fn(|| self.promise()).collect();
        let status = self.process.wait()?;
        if status.success() { Ok(promised) } else { Err(cannot("the other process", status)) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // One that has ended cannot be killed any more, and that is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Does the errand of this process, if it was started for one.
pub(super) fn given(benches: &[Arc<dyn StoreBench>]) -> Option<ExitCode> {
    let errand = std::env::var(ERRAND).ok()?;
    let done = serde_json::from_str(&errand).map_err(|error| cannot("the errand", error)).and_then(|errand| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(write(benches, &errand))
    });
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    })
}

async fn write(benches: &[Arc<dyn StoreBench>], errand: &Errand) -> CaseResult {
    let bench = benches.iter().find(|bench| bench.profile().name == errand.bench);
    let bench = bench.ok_or_else(|| CaseFailure::new(format!("there is no bench {}", errand.bench)))?;
    let store = bench.open(&errand.place).await?;
    let start = Timestamp::from_millis(1_767_225_600_000);
    for _ in 0..errand.leases {
        let lease = loop {
            let ttl = Duration::from_secs(30);
            let request = AcquireLease::new(errand.app.clone(), &errand.owner, &errand.owner, ttl, start);
            match store.acquire_lease(request).await {
                Ok(lease) => break lease,
                // Nobody keeps it for long. There is no pause, so that the processes get in each other's way.
                Err(error) if error.kind() == ErrorKind::Busy => tokio::task::yield_now().await,
                Err(error) => return Err(error.into()),
            }
        };
        for _ in 0..errand.entries {
            let seq = store.journal(&errand.deployment, 1).await?.len() as u64 + 1;
            let event = JournalEvent::Resumed { owner: errand.owner.clone() };
            let entry = Entry::new(seq, start, lease.fence, event);
            store.append(Append::new(record(errand, seq), lease.fence, vec![entry])).await?;
            println!("{PROMISED}{seq}");
        }
        store.release_lease(&lease).await?;
    }
    Ok(())
}

fn record(errand: &Errand, last_seq: u64) -> DeploymentRecord {
    let record = serde_json::json!({
        "id": errand.deployment, "app": errand.app, "kind": DeploymentKind::Deploy, "target": 1, "baseline": null,
        "owner": errand.owner, "started_at": 0, "finished_at": null, "verdict": null, "last_seq": last_seq,
    });
    serde_json::from_value(record).unwrap_or_else(|error| unreachable!("{error}"))
}

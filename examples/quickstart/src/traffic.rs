//! Visitors who come all the while, and what became of each of them.

use std::net::SocketAddr;
use std::time::Duration;

use deployer_testkit::load::{Load, Mode, Report, Running};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Result;
use crate::shop::HOST;

/// Visitors per second. Half of them keep their connections, half open new ones.
const PER_SECOND: u32 = 400;

/// So many answers are awaited before something is done, and after it.
const SETTLED: u64 = 200;

/// How often is looked whether they are there.
const LOOK: Duration = Duration::from_millis(10);

/// Visitors, since when they come, and when something was done to what they visit.
pub(crate) struct Traffic {
    running: Running,
    began: Duration,
}

impl Traffic {
    /// Lets visitors come, and returns when they are served.
    pub(crate) async fn start(ingress: SocketAddr) -> Result<Self> {
        let running = Load::new(ingress, HOST).path("/").rate(PER_SECOND).mode(Mode::Mixed).start();
        answered(&running, SETTLED).await?;
        let began = running.started().elapsed();
        Ok(Self { running, began })
    }

    /// Lets some more visitors come, then none, and says what became of all.
    pub(crate) async fn finish(self) -> Result<Seen> {
        let ended = self.running.started().elapsed();
        answered(&self.running, self.running.snapshot().answered + SETTLED).await?;
        let report = self.running.stop().await;
        if report.lost > 0 || report.unsent > 0 {
            println!("\n{report}");
        }
        Ok(Seen { report, began: self.began, ended })
    }
}

/// Waits until so many visitors were served; losing as many is an error, so that this ends.
async fn answered(running: &Running, wanted: u64) -> Result<()> {
    let lost_before = running.snapshot().lost;
    loop {
        let report = running.snapshot();
        if report.answered >= wanted {
            return Ok(());
        }
        if report.lost >= lost_before + SETTLED {
            return Err(format!("the shop does not answer:\n{report}").into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What became of the visitors.
pub(crate) struct Seen {
    report: Report,
    began: Duration,
    ended: Duration,
}

/// What a step meant for the visitors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    /// From the call until the first visitor was served by the other version; none, if there is no other.
    pub(crate) first: Option<Duration>,
    /// From the call until the last visitor was served by the version before.
    pub(crate) all: Option<Duration>,
    /// Visitors who came.
    pub(crate) sent: u64,
    /// Visitors who were not served.
    pub(crate) lost: u64,
}

impl Seen {
    /// All visitors have to be served by this version.
    pub(crate) fn stayed(&self, version: &str) -> Result<()> {
        let versions: Vec<&str> = self.report.by_version.keys().map(String::as_str).collect();
        if versions == [version] {
            return Ok(());
        }
        Err(format!("only {version} should have answered, but so did others: {}", versions.join(", ")).into())
    }

    /// What it meant if traffic moved from one version to the other, and to no third one.
    pub(crate) fn moved(&self, from: &str, to: &str) -> Result<Moved> {
        let versions = &self.report.by_version;
        match (versions.get(from), versions.get(to), versions.len()) {
            (Some(before), Some(after), 2) if before.last_seen <= self.ended => Ok(Moved {
                first: Some(after.first_seen.saturating_sub(self.began)),
                all: Some(before.last_seen.saturating_sub(self.began)),
                ..self.untouched()
            }),
            _ => Err(format!("traffic should have moved from {from} to {to}:\n{}", self.report).into()),
        }
    }

    /// What it meant if no traffic moved.
    pub(crate) fn untouched(&self) -> Moved {
        Moved { first: None, all: None, sent: self.report.sent, lost: self.report.lost }
    }
}

/// The body of one page.
pub(crate) async fn get(ingress: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(ingress).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(format!("{path} was answered with {answer:?}").into()),
    }
}

//! This machine as the place: containers on its Docker Engine, and visitors who come over the network.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use deployer_core::{AppName, Deployer};
use deployer_local::{IngressOptions, LocalBackend, LocalOptions};
use deployer_testkit::load::{Load, Mode, Report, Running};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Result;
use crate::shop::HOST;
use crate::stage::{PER_SECOND, Place, Stage, Visitors};
use crate::traffic::Account;

pub(crate) struct Docker {
    /// Where visitors come in.
    ingress: SocketAddr,
    state: TempDir,
    interrupt: Signal,
    terminate: Signal,
}

impl Docker {
    /// Nothing here has a name that somebody else's could have, so that several can play at once.
    pub(crate) async fn stage() -> Result<Stage<Self>> {
        // Before anything is made, so that nothing is left behind.
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let app = AppName::new(format!("quickstart-{}", std::process::id()))?;
        let state = tempfile::Builder::new().prefix("quickstart-").tempdir()?;
        let ingress = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let options = LocalOptions::new(state.path())
            .with_ingress(IngressOptions::named(format!("{app}-ingress")).with_http(ingress));
        let deployer = Deployer::new(LocalBackend::connect(options).await?);
        Ok(Stage { deployer, app, place: Self { ingress, state, interrupt, terminate } })
    }

    /// The body of one page.
    async fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.ingress).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
            _ => Err(format!("{path} was answered with {answer:?}").into()),
        }
    }
}

impl Place for Docker {
    type Visitors = Running;

    const REMARK: Option<&'static str> = None;

    /// Half of the visitors keep their connections, half open new ones.
    fn open(&self) -> Running {
        Load::new(self.ingress, HOST).path("/").rate(PER_SECOND).mode(Mode::Mixed).start()
    }

    async fn migrations(&self) -> Result<String> {
        self.get("/migrations").await
    }

    async fn interrupted(&mut self) {
        let wanted = tokio::select! { it = self.interrupt.recv() => it, it = self.terminate.recv() => it };
        if wanted.is_none() {
            // No more signals can come.
            std::future::pending().await
        }
    }

    async fn leave(self) -> Result<()> {
        Ok(self.state.close()?)
    }
}

impl Visitors for Running {
    fn elapsed(&self) -> Duration {
        self.started().elapsed()
    }

    async fn account(&self) -> Result<Account> {
        Ok(account(&self.snapshot()))
    }

    async fn stop(self) -> Result<Account> {
        let report = Running::stop(self).await;
        if report.lost > 0 || report.unsent > 0 {
            println!("\n{report}");
        }
        Ok(account(&report))
    }
}

fn account(report: &Report) -> Account {
    let by_version = report.by_version.iter();
    Account {
        sent: report.sent,
        answered: report.answered,
        lost: report.lost,
        by_version: by_version.map(|(name, seen)| (name.clone(), (seen.first_seen, seen.last_seen))).collect(),
    }
}

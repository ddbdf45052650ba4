//! What the story is played on: a deployer with a state and an ingress of its own, and the clearing away of it all.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use deployer_core::{AppName, Deployer, Deployment, DeploymentRecord, Retention, Verdict};
use deployer_local::{IngressOptions, LocalBackend, LocalOptions};
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Result;
use crate::print::Progress;

pub(crate) struct Stage {
    pub(crate) deployer: Deployer,
    /// The application's name.
    pub(crate) app: AppName,
    /// Where visitors come in.
    pub(crate) ingress: SocketAddr,
    state: TempDir,
    interrupt: Signal,
    terminate: Signal,
}

impl Stage {
    /// Nothing here has a name that somebody else's could have, so that several can play at once.
    pub(crate) async fn set_up() -> Result<Self> {
        // Before anything is made, so that nothing is left behind.
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let app = AppName::new(format!("quickstart-{}", std::process::id()))?;
        let state = tempfile::Builder::new().prefix("quickstart-").tempdir()?;
        let ingress = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let options = LocalOptions::new(state.path())
            .with_ingress(IngressOptions::named(format!("{app}-ingress")).with_http(ingress));
        let deployer = Deployer::new(LocalBackend::connect(options).await?);
        Ok(Self { deployer, app, ingress, state, interrupt, terminate })
    }

    /// Follows a deployment to its verdict. Ctrl-C cancels it, which brings back what was there before.
    pub(crate) async fn run(&mut self, mut deployment: Deployment) -> Result<DeploymentRecord> {
        let mut progress = Progress::default();
        loop {
            tokio::select! {
                biased;
                event = deployment.next_event() => {
                    let Some(event) = event else { break };
                    progress.event(&event);
                }
                Some(()) = async { tokio::select! { it = self.interrupt.recv() => it, it = self.terminate.recv() => it } } => {
                    println!("  interrupted: bringing back what was there before");
                    deployment.cancel("Ctrl-C");
                }
            }
        }
        Ok(deployment.finished().await?)
    }

    /// Removes what was deployed, with its volumes, its images and its history.
    pub(crate) async fn clear(mut self) -> Result<()> {
        println!("\nClearing away.");
        let deployment = self.deployer.destroy(&self.app.clone(), true);
        let record = self.run(deployment).await?;
        match &record.verdict {
            Some(Verdict::Promoted { leftovers }) if leftovers.is_empty() => {}
            Some(verdict) => return Err(format!("clearing away: {verdict}").into()),
            None => return Err("clearing away has no verdict".into()),
        }
        self.deployer.prune(&self.app, Retention::releases(0)).await?;
        // The deployer has files open in it.
        drop(self.deployer);
        Ok(self.state.close()?)
    }
}

//! What the story is played on: a deployer, and a place with visitors.

use std::time::Duration;

use deployer_core::{AppName, Deployer, Deployment, DeploymentRecord, Retention, Verdict};

use crate::Result;
use crate::print::Progress;
use crate::traffic::Account;

/// Visitors per second.
pub(crate) const PER_SECOND: u32 = 400;

/// Where the story is played: this machine, or a simulated world.
pub(crate) trait Place: Sized {
    /// Those who visit it.
    type Visitors: Visitors;

    /// What the audience should know of it, if anything.
    const REMARK: Option<&'static str>;

    /// Lets [so many](PER_SECOND) visitors come to the shop's front page.
    fn open(&self) -> Self::Visitors;

    /// The shop's list of migrations: one line `VERSION RUNS` per version.
    async fn migrations(&self) -> Result<String>;

    /// Returns when somebody wants the story to end. Cancel safe.
    async fn interrupted(&mut self);

    /// Removes what the place itself needed, after everything that was deployed.
    async fn leave(self) -> Result<()>;
}

/// Visitors who come all the while.
pub(crate) trait Visitors {
    /// For how long they have been coming.
    fn elapsed(&self) -> Duration;

    /// What has become of those who came so far.
    async fn account(&self) -> Result<Account>;

    /// Lets no more come, and says what has become of all of them.
    async fn stop(self) -> Result<Account>;
}

pub(crate) struct Stage<P> {
    pub(crate) deployer: Deployer,
    /// The application's name.
    pub(crate) app: AppName,
    pub(crate) place: P,
}

impl<P: Place> Stage<P> {
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
                () = self.place.interrupted() => {
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
        // The deployer has files open in the place.
        drop(self.deployer);
        self.place.leave().await
    }
}

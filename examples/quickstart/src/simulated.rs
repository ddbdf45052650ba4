//! A simulated world as the place, for machines without Docker: the same engine, the same story, and time that is not
//! waited for.

use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use deployer_core::{Action, AppName, Deployer, ImageSource, JournalEvent, RevisionId, Timestamp};
use deployer_testkit::{Behaviour, Traffic, World};

use crate::Result;
use crate::shop;
use crate::stage::{PER_SECOND, Place, Stage, Visitors};
use crate::traffic::Account;

/// How many releases the story has at the most.
const RELEASES: u32 = 10;

/// How long the simulated shop works on a request.
const ANSWER: Duration = Duration::from_millis(5);

pub(crate) struct Simulated {
    world: World,
    deployer: Deployer,
    app: AppName,
}

impl Simulated {
    /// A world of its own.
    pub(crate) fn stage() -> Result<Stage<Self>> {
        let world = World::new();
        let app = AppName::new("quickstart")?;
        for service in shop::version(&app, "v1", None)?.services.values() {
            if let ImageSource::Reference(reference) = &service.image {
                world.add_image(reference);
            }
        }
        // As the programs in `app` do.
        let quick = Duration::from_millis(300);
        world.on_service("web", Behaviour::slow_start(quick).finishing_requests());
        world.on_env("BROKEN", "exit", Behaviour::crash_loop(3).with_log("FATAL: DATABASE_URL has no scheme"));
        world.on_command("migrate", Behaviour::task(quick, 0));
        let deployer = world.deployer();
        Ok(Stage { deployer: deployer.clone(), app: app.clone(), place: Self { world, deployer, app } })
    }
}

impl Place for Simulated {
    type Visitors = Requests;

    const REMARK: Option<&'static str> = Some("The world is simulated, and so are all times.");

    fn open(&self) -> Requests {
        self.world.watch_traffic();
        self.world.start_traffic(Traffic::to_route(Some(shop::HOST), "/").per_second(PER_SECOND).taking(ANSWER));
        Requests {
            world: self.world.clone(),
            deployer: self.deployer.clone(),
            app: self.app.clone(),
            began: self.world.now(),
        }
    }

    async fn migrations(&self) -> Result<String> {
        let mut runs = BTreeMap::new();
        for deployment in self.deployer.history(&self.app).await? {
            for entry in self.deployer.journal(&deployment.id).await? {
                let JournalEvent::Opened { plan, .. } = &entry.event else { continue };
                for step in &plan.steps {
                    if let Action::RunHook { release, task, .. } = &step.action {
                        *runs.entry(*release).or_default() += self.world.executions(self.app.as_str(), task);
                    }
                }
            }
        }
        Ok(runs.iter().map(|(release, runs): (_, &u32)| format!("{release} {runs}\n")).collect())
    }

    async fn interrupted(&mut self) {
        // It is over before anybody could.
        pending().await
    }

    async fn leave(self) -> Result<()> {
        match self.world.violations().as_slice() {
            [] => Ok(()),
            [first, ..] => Err(format!("a rule of the simulated world was broken: {first}").into()),
        }
    }
}

/// Simulated visitors.
pub(crate) struct Requests {
    world: World,
    deployer: Deployer,
    app: AppName,
    began: Timestamp,
}

impl Visitors for Requests {
    fn elapsed(&self) -> Duration {
        self.world.now().since(self.began)
    }

    async fn account(&self) -> Result<Account> {
        let report = self.world.traffic_report();
        // The real shop says with each answer which version it is.
        let mut versions = BTreeMap::new();
        for release in self.deployer.releases(&self.app, RELEASES).await? {
            for (name, service) in &release.services {
                let revision: RevisionId = service.revision(name);
                versions.insert(revision, release.number.to_string());
            }
        }
        let seen = report.seen.iter().map(|(revision, (first, last))| {
            let version = versions.get(revision).cloned().unwrap_or_else(|| revision.to_string());
            (version, (first.since(self.began), last.since(self.began)))
        });
        Ok(Account {
            sent: report.sent,
            answered: report.answered(),
            lost: report.lost.len() as u64,
            by_version: seen.collect(),
        })
    }

    async fn stop(self) -> Result<Account> {
        self.world.stop_traffic();
        tokio::time::sleep(ANSWER).await;
        for lost in self.world.traffic_report().lost.iter().take(10) {
            println!("  {lost}");
        }
        self.account().await
    }
}

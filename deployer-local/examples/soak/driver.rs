//! The process that deploys and that is killed for it: this program again.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use deployer_core::{
    AppSpec, CanaryStep, DeployOptions, Deployment, EnvValue, EventKind, ReleaseNumber, Strategy as Plan,
};
use serde::{Deserialize, Serialize};

use crate::script::{Broken, Strategy, Wish};
use crate::site::{Place, Site, service};

/// What the process shall do, as JSON.
const TASK: &str = "DEPLOYER_SOAK_TASK";

/// What one process shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Carry out a wish that names a version.
    Deploy(Wish),
    /// Roll back, to this release if one is named.
    Rollback(Option<u64>),
    /// Go on with what another process left.
    Resume,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deploy(wish) => wish.fmt(f),
            Self::Rollback(None) => f.write_str("roll back"),
            Self::Rollback(Some(number)) => write!(f, "roll back to release {number}"),
            Self::Resume => f.write_str("resume"),
        }
    }
}

/// Does what this process was told to do, and tells of every event on standard output.
pub(crate) async fn drive(place: Place) -> ExitCode {
    let task: Task = serde_json::from_str(&std::env::var(TASK).unwrap()).unwrap();
    let deployer = place.deployer().await.build();
    let mut deployment = match task {
        Task::Deploy(wish) => {
            let mut options = DeployOptions::default();
            options.supersede = matches!(wish, Wish::Deploy { supersede: true, .. });
            deployer.deploy(spec(&place, &wish), options)
        }
        Task::Rollback(number) => deployer.rollback(&place.app, number.map(ReleaseNumber)),
        Task::Resume => match deployer.resume(&place.app).await.unwrap() {
            Some(deployment) => deployment,
            None => return ExitCode::SUCCESS,
        },
    };
    tell(&mut deployment).await;
    match deployment.finished().await {
        Ok(record) => {
            println!("ended: {}", record.verdict.map_or_else(String::new, |verdict| verdict.to_string()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

async fn tell(deployment: &mut Deployment) {
    println!("deployment {}", deployment.id());
    while let Some(event) = deployment.next_event().await {
        if !matches!(event.kind, EventKind::Preparing { .. }) {
            println!("{} {}", event.at, event.kind);
        }
    }
}

/// The shop as a wish wants it. A version is told by its environment, so that few images have to be built.
pub(crate) fn spec(place: &Place, wish: &Wish) -> AppSpec {
    let Wish::Deploy { version, image, broken, strategy, .. } = wish else { panic!("{wish} names no version") };
    let word = match broken {
        Broken::Nothing | Broken::Command => "",
        Broken::Exit => "exit",
        Broken::Unhealthy => "unhealthy",
        Broken::Migrate => "migrate",
        Broken::Crash => "crash",
    };
    let image = format!("v{image}");
    let mut spec = place.shop(&[("VERSION", &image), ("BROKEN", word), ("DELAY_MS", "20-80")]);
    let web = service(&mut spec, "web");
    let mut set = |name: &str, value: &str| web.workload.env.insert(name.to_owned(), EnvValue::Plain(value.to_owned()));
    set("VERSION", version);
    set("CRASH_AFTER_MS", "700");
    match broken {
        Broken::Unhealthy => web.readiness.deadline = Duration::from_secs(2),
        Broken::Command => web.workload.command = Some(vec!["/nope".to_owned()]),
        _ => {}
    }
    let hold = Duration::from_millis(400);
    match strategy {
        // As the file says.
        Strategy::BlueGreen => {}
        Strategy::Rolling => web.strategy = Plan::Rolling { surge: 1, unavailable: 0 },
        Strategy::Canary => {
            let steps = [20, 60].map(|weight| CanaryStep { weight, hold });
            web.strategy = Plan::Canary { steps: steps.to_vec() };
        }
    }
    spec
}

/// Such a process. It goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) task: Task,
    pub(crate) killed: bool,
    child: Child,
    log: PathBuf,
}

impl Driver {
    /// Starts one.
    pub(crate) fn start(site: &Site, task: Task, number: usize) -> Self {
        let log = site.state().join(format!("driver-{number}.log"));
        let output = File::create(&log).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let told = site.place.tell(&mut command).env(TASK, serde_json::to_string(&task).unwrap());
        let child = told.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        Self { task, killed: false, child, log }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<bool> {
        self.child.try_wait().unwrap().map(|status| status.success())
    }

    /// Kills it as nothing else is killed. Answers whether it still ran.
    pub(crate) fn kill(&mut self) -> bool {
        if self.ended().is_some() {
            return false;
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.killed = true;
        true
    }

    /// The last lines that it wrote.
    pub(crate) fn last_lines(&self, count: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].iter().map(|line| format!("      | {line}\n")).collect()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It may have ended; there is nobody to tell otherwise.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

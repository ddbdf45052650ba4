//! One keeper for each instance and task: a small process that starts the program, writes down what it says, starts it
//! again when it crashes, and stops it when it is told to. It is not the deployer's process, so programs go on when that
//! ends, however it ends.
//!
//! Keeper and deployers know each other by files in the directory of the instance:
//!
//! ```text
//! keep.json        what to run and how; written once, by the deployer
//! status.json      what the program does; written by the keeper
//! keeper.json      which process the keeper is
//! keeper.lock      held by the keeper: there is one at most
//! keeper.log       what the keeper itself has to complain about
//! stdout, stderr   pipes with names: a keeper that takes over from a killed one goes on reading
//! output.jsonl     what the program wrote, line by line with the time
//! root/            what the program sees as its working directory: a copy of the image
//! ```
//!
//! A keeper that is killed leaves the program running. The next keeper finds the program by `status.json` and goes on
//! with it, except that the exit code of a program is told to its parent only.

mod check;
mod output;
mod run;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use deployer_core::{ContainerCheck, Error, ErrorKind, ExitDetail, Restart, Result, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

pub(crate) use output::Written;
pub(crate) use run::run;

use crate::failure::io;
use crate::files;
use crate::process::ProcessId;

/// The first argument of the helper program when it is to keep a program running.
pub(crate) const KEEP: &str = "keep";
/// The first argument of the helper program when it is to stop a program whose keeper is gone.
pub(crate) const STOP: &str = "stop";

/// What to run, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Keep {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// Its environment, but for secrets: those are handed to the keeper and written nowhere.
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) working_dir: PathBuf,
    /// The numbers of user and group.
    pub(crate) user: Option<(u32, Option<u32>)>,
    pub(crate) stop_signal: String,
    pub(crate) stop_grace: Duration,
    pub(crate) restart: Restart,
    pub(crate) check: Option<ContainerCheck>,
    /// The program and all that it starts are killed when they have more than this in use.
    pub(crate) memory_bytes: Option<u64>,
}

/// What a program does.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) phase: Phase,
    pub(crate) program: Option<ProcessId>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) crashes: u32,
    pub(crate) exit: Option<ExitDetail>,
    pub(crate) check: Option<Checked>,
}

impl Status {
    /// Whether the program does not run, and nobody is about to start it.
    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Exited || (self.phase == Phase::Pending && self.exit.is_some())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Not started yet, or impossible to start; `exit` says why.
    #[default]
    Pending,
    Running,
    Restarting,
    Exited,
}

/// What the check inside the instance said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Checked {
    NotYet(String),
    Passes,
    Fails(String),
}

/// What came of starting a keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    /// The program runs.
    Running,
    /// The program cannot be started; the status says why.
    Failed,
}

/// A directory with a kept program, seen from outside.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    directory: PathBuf,
}

impl Kept {
    pub(crate) fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The program's working directory.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn write_keep(&self, keep: &Keep) -> io::Result<()> {
        files::replace(&self.file("keep.json"), keep, files::Durable::No)
    }

    fn read_keep(&self) -> io::Result<Keep> {
        let keep = files::read(&self.file("keep.json"))?;
        keep.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is nothing to keep"))
    }

    fn write_status(&self, status: &Status) -> io::Result<()> {
        files::replace(&self.file("status.json"), status, files::Durable::No)
    }

    fn read_status(&self) -> io::Result<Status> {
        Ok(files::read(&self.file("status.json"))?.unwrap_or_default())
    }

    fn keeper(&self) -> io::Result<Option<ProcessId>> {
        files::read(&self.file("keeper.json"))
    }

    fn is_kept(&self) -> io::Result<bool> {
        self.keeper()?.map_or(Ok(false), |keeper| keeper.is_alive())
    }

    /// What the program does now: what the keeper wrote, and if there is no keeper any more, what is left of it.
    pub(crate) fn status(&self) -> io::Result<Status> {
        // In this order: a keeper that ends in between has written its last word before.
        let kept = self.is_kept()?;
        let mut status = self.read_status()?;
        let alive = status.program.as_ref().map_or(Ok(false), ProcessId::is_alive)?;
        let running = matches!(status.phase, Phase::Running | Phase::Restarting);
        if running && !alive && !kept {
            status.phase = Phase::Exited;
            let mut exit = ExitDetail::default();
            exit.error = Some("it ended together with its keeper, so that nobody saw how".to_owned());
            status.exit = Some(exit);
        }
        Ok(status)
    }

    /// Whether anything of it is left to be stopped: the keeper, or the program without its keeper.
    pub(crate) fn is_alive(&self) -> io::Result<bool> {
        let program = self.read_status()?.program;
        Ok(self.is_kept()? || program.map_or(Ok(false), |program| program.is_alive())?)
    }

    /// Starts a keeper unless there is one. Returns when the program has been started, or could not be.
    ///
    /// Cancel safe: a keeper that has been started goes on by itself, and the next call finds it.
    pub(crate) async fn start(&self, helper: &Path, secrets: &BTreeMap<String, String>) -> Result<Started> {
        if self.is_kept().map_err(io("look for the keeper"))? {
            return Ok(Started::Running);
        }
        let mut keeper = self
            .helper(helper, KEEP)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(io(format!("start {} as a keeper", helper.display())))?;
        let told = async {
            if let Some(mut stdin) = keeper.stdin.take() {
                stdin.write_all(&serde_json::to_vec(secrets)?).await?;
            }
            let mut line = String::new();
            if let Some(stdout) = keeper.stdout.take() {
                BufReader::new(stdout).read_line(&mut line).await?;
            }
            io::Result::Ok(line)
        };
        let told = told.await.map_err(io("talk with the keeper"))?;
        match told.trim_end() {
            run::STARTED => Ok(Started::Running),
            run::FAILED => Ok(Started::Failed),
            _ => {
                let log = fs::read_to_string(self.file("keeper.log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it said nothing").to_owned();
                Err(Error::new(ErrorKind::Internal, "the keeper ended before it started anything")
                    .with_context("keeper", last)
                    .with_help("the helper program must call `processes_backend::run_if_helper` first of all"))
            }
        }
    }

    /// Stops the program as its stop signal and grace say, and returns when it has ended.
    ///
    /// Cancel safe: what has been told to stop goes on stopping, and the next call waits for it.
    pub(crate) async fn stop(&self, helper: &Path) -> Result<()> {
        if let Some(keeper) = self.keeper().map_err(io("look for the keeper"))?
            && let Some(keeper) = keeper.open().map_err(io("look for the keeper"))?
        {
            keeper.signal(rustix::process::Signal::TERM).map_err(io("tell the keeper to stop"))?;
            keeper.ended().await.map_err(io("wait for the keeper"))?;
        }
        if self.is_alive().map_err(io("look for the program"))? {
            let mut stopper = self
                .helper(helper, STOP)?
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .map_err(io(format!("start {} to stop a program", helper.display())))?;
            stopper.wait().await.map_err(io("wait for the program's end"))?;
        }
        Ok(())
    }

    fn helper(&self, helper: &Path, what: &str) -> Result<Command> {
        let log = OpenOptions::new().create(true).append(true).open(self.file("keeper.log"));
        let mut command = Command::new(helper);
        command.arg(what).arg(&self.directory).stderr(log.map_err(io("open the keeper's log"))?);
        Ok(command)
    }

    /// What the program wrote at or after this time, oldest first.
    pub(crate) fn output(&self) -> io::Result<Vec<Written>> {
        output::read(&self.directory)
    }
}

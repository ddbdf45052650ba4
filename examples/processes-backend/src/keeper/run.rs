//! The keeper's own process.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use deployer_core::{ExitDetail, OutputStream, Restart, Timestamp};
use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};
use tokio::time::{Instant, sleep, sleep_until};

use super::check::Checks;
use super::output::Output;
use super::{KEEP, Keep, Kept, Phase, Status};
use crate::files::{self, Durable};
use crate::process::{Process, ProcessId, signal_named};

/// What the keeper says on its standard output, once.
pub(super) const STARTED: &str = "started";
pub(super) const FAILED: &str = "failed";

/// The pause before the first restart; it doubles with each, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A program that ran for so long is not in a crash loop.
const SETTLED: Duration = Duration::from_secs(10);
const LOOK_AT_MEMORY: Duration = Duration::from_millis(200);
/// A keeper that has been killed lets go of its lock when the system gets round to it.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Keeps the program of a directory running, or stops one whose keeper is gone.
pub(crate) async fn run(what: &str, directory: PathBuf) -> io::Result<()> {
    // Away from the deployer's terminal: neither its Ctrl-C nor its end concerns this process.
    let _ = rustix::process::setsid();
    let kept = Kept::new(directory);
    // Before anything else: a deployer that was killed before it had said everything has not started a keeper.
    let secrets = if what == KEEP { serde_json::from_reader(io::stdin())? } else { BTreeMap::new() };
    let begun = Instant::now();
    let _lock = loop {
        if let Some(lock) = files::try_lock(&kept.file("keeper.lock"))? {
            break lock;
        }
        if what == KEEP && kept.is_kept()? {
            // Two deployers came at the same time. The other one's keeper does what this one would.
            tell(STARTED);
            return Ok(());
        }
        if begun.elapsed() > LOCK_PATIENCE {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "another keeper does not let go"));
        }
        sleep(Duration::from_millis(10)).await;
    };
    let terminate = unix::signal(SignalKind::terminate())?;
    // From here on this process can be told to stop.
    let own_id = ProcessId::of(std::process::id())?;
    files::replace(&kept.file("keeper.json"), &own_id, Durable::No)?;
    let (keep, status, output) = (kept.read_keep()?, kept.read_status()?, Output::open(&kept.directory)?);
    let mut keeper = Keeper { kept, keep, secrets, status, output, terminate, stopping: None };
    if what == KEEP {
        keeper.keep_running().await
    } else {
        keeper.stopping = Some(Instant::now());
        match keeper.orphan()? {
            Some(program) => keeper.watch(program, None).await.map(|_| ()),
            None => Ok(()),
        }?;
        keeper.settle(Phase::Exited)
    }
}

/// Says something to the deployer, which may be gone.
fn tell(word: &str) {
    let _ = writeln!(io::stdout(), "{word}");
}

struct Keeper {
    kept: Kept,
    keep: Keep,
    secrets: BTreeMap<String, String>,
    status: Status,
    output: Output,
    terminate: unix::Signal,
    /// Since when the program is being stopped.
    stopping: Option<Instant>,
}

impl Keeper {
    async fn keep_running(mut self) -> io::Result<()> {
        let (mut told, mut pause) = (false, FIRST_PAUSE);
        if self.orphan()?.is_none() {
            // Somebody starts it anew: what it did before is not held against it.
            self.status = Status::default();
        }
        loop {
            let begun = Instant::now();
            let exit = if let Some(program) = self.orphan()? {
                tell(STARTED);
                self.watch(program, None).await?
            } else {
                match self.spawn() {
                    Ok((program, child)) => {
                        if !told {
                            tell(STARTED);
                        }
                        self.watch(program, Some(child)).await?
                    }
                    Err(error) => {
                        self.status.exit = Some(self.cannot_start(&error));
                        self.settle(Phase::Pending)?;
                        if !told {
                            tell(FAILED);
                        }
                        return Ok(());
                    }
                }
            };
            told = true;
            let restart = self.stopping.is_none() && self.restarts(&exit);
            if self.stopping.is_none() {
                self.status.crashes += 1;
            }
            self.status.exit = Some(exit);
            if !restart {
                return self.settle(Phase::Exited);
            }
            if begun.elapsed() >= SETTLED {
                pause = FIRST_PAUSE;
            }
            self.settle(Phase::Restarting)?;
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                _ = self.terminate.recv() => return self.settle(Phase::Exited),
            }
        }
    }

    /// The program that the keeper before this one started, if it still runs.
    fn orphan(&self) -> io::Result<Option<Process>> {
        self.status.program.as_ref().map_or(Ok(None), ProcessId::open)
    }

    fn spawn(&mut self) -> io::Result<(Process, Child)> {
        let writer = |stream| Output::writer(&self.kept.directory, stream);
        let (stdout, stderr) = (writer(OutputStream::Stdout)?, writer(OutputStream::Stderr)?);
        let mut command = command(&self.keep, &self.secrets, &self.kept.root(), &self.keep.command);
        // Written before: whoever comes after a keeper that is killed right here takes it for started, not for waiting.
        (self.status.phase, self.status.program, self.status.check) = (Phase::Running, None, None);
        self.status.started_at = Some(Timestamp::from_system(SystemTime::now()));
        self.kept.write_status(&self.status)?;
        // A group of its own, so that what it starts can be stopped with it.
        let child = command.process_group(0).stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn()?;
        // It cannot be gone altogether before it is fetched by `wait`.
        let program = ProcessId::of(child.id().unwrap_or_default())?.ok_or(io::ErrorKind::NotFound)?;
        self.status.program = Some(program.clone());
        self.kept.write_status(&self.status)?;
        let process = program.handle()?;
        Ok((process, child))
    }

    /// Follows the program to its end.
    async fn watch(&mut self, program: Process, child: Option<Child>) -> io::Result<ExitDetail> {
        let surroundings = (self.keep.clone(), self.secrets.clone(), self.kept.root());
        let check = self.keep.check.as_ref().filter(|_| self.stopping.is_none());
        let mut checks = Checks::begin(check, move |line| {
            let (keep, secrets, root) = &surroundings;
            command(keep, secrets, root, line)
        });
        let mut look_at_memory = tokio::time::interval(LOOK_AT_MEMORY);
        let mut out_of_memory = false;
        let signal = signal_named(&self.keep.stop_signal).unwrap_or(Signal::TERM);
        if self.stopping.is_some() {
            program.signal_group(signal)?;
        }
        loop {
            let kill_at = self.stopping.map(|since| since + self.keep.stop_grace);
            let limit = self.keep.memory_bytes;
            tokio::select! {
                ended = program.ended() => {
                    ended?;
                    break;
                }
                pumped = self.output.pump() => pumped?,
                answer = checks.next() => {
                    self.status.check = Some(answer);
                    self.kept.write_status(&self.status)?;
                }
                Some(()) = self.terminate.recv(), if self.stopping.is_none() => {
                    self.stopping = Some(Instant::now());
                    program.signal_group(signal)?;
                }
                () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                    program.signal_group(Signal::KILL)?;
                    program.ended().await?;
                    break;
                }
                _ = look_at_memory.tick(), if limit.is_some() => {
                    if limit.is_some_and(|limit| program.memory_bytes().is_ok_and(|used| used > limit)) {
                        out_of_memory = true;
                        program.signal_group(Signal::KILL)?;
                    }
                }
            }
        }
        drop(checks);
        // What it started and left behind. Its number is still taken, so the group is nobody else's.
        program.signal_group(Signal::KILL)?;
        let status = match child {
            Some(mut child) => Some(child.wait().await?),
            None => None,
        };
        self.output.drain()?;
        Ok(exit(status, out_of_memory))
    }

    fn restarts(&self, exit: &ExitDetail) -> bool {
        match self.keep.restart {
            Restart::UnlessStopped | Restart::Always => true,
            Restart::OnFailure { max_retries } => {
                exit.code != Some(0) && max_retries.is_none_or(|most| self.status.crashes < most)
            }
            Restart::No => false,
        }
    }

    fn settle(&mut self, phase: Phase) -> io::Result<()> {
        self.status.phase = phase;
        self.status.program = None;
        self.status.check = None;
        self.kept.write_status(&self.status)
    }

    fn cannot_start(&self, error: &io::Error) -> ExitDetail {
        let program = self.keep.command.first().map_or("", String::as_str);
        let mut exit = ExitDetail::default();
        exit.error = Some(format!("cannot start {program:?}: {error}"));
        exit.unrecoverable = true;
        exit.at = Some(Timestamp::from_system(SystemTime::now()));
        exit
    }
}

/// A command with the program's surroundings.
fn command(keep: &Keep, secrets: &BTreeMap<String, String>, root: &std::path::Path, line: &[String]) -> Command {
    let program = line.first().map_or("", String::as_str);
    // What the image has of that name comes before what the host has. Names without a slash are looked up in `PATH`.
    let own = root.join(program.trim_start_matches('/'));
    let mut command = if program.contains('/') && own.exists() { Command::new(own) } else { Command::new(program) };
    command.args(line.get(1..).unwrap_or_default());
    command.env_clear().envs(&keep.env).envs(secrets).current_dir(&keep.working_dir);
    if let Some((user, group)) = keep.user {
        command.uid(user);
        if let Some(group) = group {
            command.gid(group);
        }
    }
    command
}

/// How a program ended; one that was not this process's child does not tell.
fn exit(status: Option<ExitStatus>, out_of_memory: bool) -> ExitDetail {
    let mut exit = ExitDetail::default();
    // As shells say it: 128 and the number of the signal.
    exit.code = status.and_then(|status| status.code().or(status.signal().map(|signal| 128 + signal))).map(i64::from);
    exit.out_of_memory = out_of_memory;
    if status.is_none() {
        exit.error = Some("its keeper had been killed before, so that nobody was told how it ended".to_owned());
    }
    exit.unrecoverable = out_of_memory || matches!(exit.code, Some(126 | 127));
    exit.at = Some(Timestamp::from_system(SystemTime::now()));
    exit
}

//! HAProxy: its configuration, its runtime API, its container, and the three together.

mod config;
mod container;
mod control;
mod runtime;
mod sync;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deployer_core::{Effect, Error, ErrorKind, Result, Retry};

use crate::engine::Engine;
use crate::reach::Relay;

pub(crate) use config::{Backend, Config, Entry, EntryKind, RouteRule, Server};
use config::{CERTIFICATES, HOME};
pub(crate) use container::{Addresses, ContainerSpec, EngineChooses, Place, Reservation};
pub(crate) use runtime::{Live, LiveServer};

use container::{Condition, Container};
use control::Control;
use runtime::{Processes, parse_live, parse_processes, parse_sessions, show_live};

const APPLY: &str = "proxy.apply";

/// How long a proxy may take until it answers with a new configuration. It takes a tenth of a second when idle.
const PATIENCE: Duration = Duration::from_secs(15);

/// Turns register so often; the wait is for another process, not for the world.
const PAUSE: Duration = Duration::from_millis(10);

/// One HAProxy: a directory shared with its container, or that holds what was last sent to it, and the container.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    engine: Engine,
    spec: ContainerSpec,
    directory: PathBuf,
    control: Control,
}

impl Proxy {
    /// The proxy with this container and directory, whether they exist or not.
    pub(crate) fn new(engine: Engine, spec: ContainerSpec, directory: PathBuf) -> Self {
        let control = match spec.relayed {
            true => Control::Relayed(Relay::new(engine.clone(), spec.name.clone())),
            false => Control::Sockets(directory.clone()),
        };
        Self { engine, spec, directory, control }
    }

    fn container<'a>(&'a self, addresses: &'a dyn Addresses) -> Container<'a> {
        Container { engine: &self.engine, spec: &self.spec, addresses, directory: &self.directory }
    }

    /// What it says of itself, and the requests that workers of earlier configurations still work on, by backend and
    /// server; none if there is no such proxy or it does not run.
    ///
    /// # Errors
    /// `Unavailable` if it runs and does not answer. That no requests are left is never guessed: instances are stopped
    /// for it.
    pub(crate) async fn look(&self) -> Result<Option<(Live, InFlight)>> {
        match self.ask_all().await {
            Ok(found) => Ok(Some(found)),
            Err(error) => match self.container(&EngineChooses).condition().await? {
                Condition::Running | Condition::Restarting => Err(self.silent(error)),
                Condition::Missing | Condition::Stopped => Ok(None),
            },
        }
    }

    async fn ask_live(&self) -> io::Result<Live> {
        read_live(&self.control.ask(&show_live()).await?)
    }

    async fn ask_all(&self) -> io::Result<(Live, InFlight)> {
        let (live, processes) = self.control.ask_both(&show_live(), SHOW_PROCESSES).await?;
        let live = read_live(&live)?;
        let mut in_flight = InFlight::new();
        for pid in read_processes(&processes)?.leaving {
            for (server, count) in parse_sessions(&self.control.ask_master(&format!("@!{pid} show sess")).await?) {
                *in_flight.entry(server).or_default() += count;
            }
        }
        Ok((live, in_flight))
    }

    fn silent(&self, error: io::Error) -> Error {
        Error::new(ErrorKind::Unavailable, "the proxy does not answer")
            .with_resource(self.spec.name.as_str())
            .with_source(error)
    }

    async fn processes(&self) -> io::Result<Processes> {
        read_processes(&self.control.ask_master(SHOW_PROCESSES).await?)
    }

    /// Makes it run with this configuration. Answers whether anything had to be changed.
    ///
    /// Weights that somebody changed by hand stay as they are where `before` wanted what is wanted now.
    ///
    /// # Errors
    /// `Exhausted` if it cannot listen on an address, `NotFound` if its image or network is missing. What ran before
    /// goes on as it was.
    pub(crate) async fn apply(
        &self,
        wanted: &Config,
        before: Option<&Config>,
        addresses: &dyn Addresses,
    ) -> Result<bool> {
        let result = self.try_apply(wanted, before, addresses).await;
        result.map_err(|error| error.with_operation(APPLY).with_resource(self.spec.name.as_str()))
    }

    async fn try_apply(&self, wanted: &Config, before: Option<&Config>, addresses: &dyn Addresses) -> Result<bool> {
        let container = self.container(addresses);
        // A new container needs the files before it starts. A running one is asked first, because that is the answer
        // almost always.
        let Ok(live) = self.ask_live().await else {
            return match container.condition().await? {
                Condition::Running | Condition::Restarting => {
                    // It was started a moment ago, or is restarting.
                    let live = self.wait_until(&container, |_| true).await?;
                    self.converge(&container, live, wanted, before).await?;
                    Ok(true)
                }
                Condition::Missing | Condition::Stopped => {
                    self.begin(&container, wanted).await?;
                    Ok(true)
                }
            };
        };
        self.converge(&container, live, wanted, before).await
    }

    /// Starts it with this configuration.
    async fn begin(&self, container: &Container<'_>, wanted: &Config) -> Result<()> {
        if matches!(self.spec.place, Place::Host) {
            for bind in wanted.binds() {
                self.expect_free(bind)?;
            }
        }
        if container.is_outgrown().await? {
            container.retire().await?;
        }
        if self.spec.relayed {
            container.make().await?;
            container.attach().await?;
        }
        self.write_files(container, wanted, "haproxy.cfg", true).await?;
        if let Err(error) = container.start().await {
            if self.spec.relayed {
                // Its addresses may be taken, and what cannot be started is not to be taken for what runs.
                container.remove().await?;
            }
            return Err(error);
        }
        let layout = wanted.layout();
        let live = match self.wait_until(container, |live| live.layout == layout).await {
            Ok(live) => live,
            Err(error) => {
                // Else the engine would start it again and again.
                container.remove().await?;
                return Err(error);
            }
        };
        // The file cannot say that a server drains.
        self.say(&live, wanted, None).await?;
        Ok(())
    }

    /// Leads a running proxy to the wanted configuration.
    async fn converge(
        &self,
        container: &Container<'_>,
        live: Live,
        wanted: &Config,
        before: Option<&Config>,
    ) -> Result<bool> {
        if container.is_outgrown().await? {
            self.begin(container, wanted).await?;
            return Ok(true);
        }
        let attached = container.attach().await?;
        if live.layout != wanted.layout() {
            let live = self.reload(container, wanted).await?;
            self.say(&live, wanted, None).await?;
            return Ok(true);
        }
        self.write_files(container, wanted, "haproxy.cfg", false).await?;
        Ok(self.say(&live, wanted, before).await? || attached)
    }

    /// Changes servers at run time, and looks whether it worked.
    async fn say(&self, live: &Live, wanted: &Config, before: Option<&Config>) -> Result<bool> {
        let commands = sync::commands(live, wanted, before);
        if commands.is_empty() {
            return Ok(false);
        }
        // Told and looked at in one go.
        let said = self.control.ask(&[commands, show_live()].concat()).await.map_err(|error| self.silent(error))?;
        let now = read_live(&said).map_err(|error| self.silent(error))?;
        let answer = said.split("Name: HAProxy").next().unwrap_or_default();
        match sync::difference(&now, wanted, before) {
            None => Ok(true),
            Some(command) => Err(Error::new(ErrorKind::Internal, "the proxy did not do what it was told")
                .with_effect(Effect::Unknown)
                .with_retry(Retry::Soon)
                .with_context("command", command)
                .with_context("answer", answer.split_whitespace().collect::<Vec<_>>().join(" "))),
        }
    }

    async fn reload(&self, container: &Container<'_>, wanted: &Config) -> Result<Live> {
        let current = std::fs::read_to_string(self.directory.join("haproxy.cfg")).unwrap_or_default();
        if matches!(self.spec.place, Place::Host) {
            let held = Config::binds_in(&current);
            for bind in wanted.binds().difference(&held) {
                self.expect_free(bind)?;
            }
        }
        self.write_files(container, wanted, "haproxy.cfg.new", false).await?;
        container.check("haproxy.cfg.new").await?;
        if self.spec.relayed {
            self.write_files(container, wanted, "haproxy.cfg", false).await?;
        } else {
            let renamed = std::fs::rename(self.directory.join("haproxy.cfg.new"), self.directory.join("haproxy.cfg"));
            renamed.map_err(|error| self.unwritable(error))?;
        }
        match self.control.ask_master("reload").await {
            // The master begins anew and may cut the connection over it; whether it worked is looked at below.
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => return Err(self.silent(error)),
            _ => {}
        }
        let layout = wanted.layout();
        match self.wait_until(container, |live| live.layout == layout).await {
            Ok(live) => {
                self.remove_stale_maps(&layout);
                Ok(live)
            }
            Err(error) => {
                // The old worker goes on; a restart must find what it runs.
                self.put(container, vec![("haproxy.cfg".to_owned(), current)], false).await?;
                Err(error)
            }
        }
    }

    /// Waits until the worker that takes new connections is as it shall be.
    async fn wait_until(&self, container: &Container<'_>, good: impl Fn(&Live) -> bool) -> Result<Live> {
        let started = Instant::now();
        let mut round = 0_u32;
        loop {
            let error = match self.ask_live().await {
                // The master answers a little later than the new worker.
                Ok(live) if good(&live) => match self.processes().await {
                    Ok(_) => return Ok(live),
                    Err(error) => error,
                },
                Ok(_) => io::Error::new(io::ErrorKind::TimedOut, "it still runs its old configuration"),
                Err(error) => error,
            };
            round += 1;
            if round.is_multiple_of(5) {
                let failed = self.processes().await.is_ok_and(|processes| processes.failed_reloads > 0);
                let ended = match container.condition().await? {
                    Condition::Running => false,
                    Condition::Restarting => self.is_hopeless(&container.last_lines().await),
                    Condition::Missing | Condition::Stopped => true,
                };
                if failed || ended {
                    return Err(refused(&container.last_lines().await));
                }
            }
            if started.elapsed() > PATIENCE {
                return Err(self.silent(error));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether starting it again would not help. In networks of the engine its name server listens on an address of the
    /// container too, on a port that it chooses anew with every start and that may by chance be one of ours.
    fn is_hopeless(&self, lines: &str) -> bool {
        let by_chance = !matches!(self.spec.place, Place::Host) && container::refused_bind(lines).is_some();
        !by_chance && !container::faults(lines).is_empty()
    }

    /// Fails if another program listens on an address that the proxy is to listen on: found out here, the running proxy
    /// need not pause its listeners to find it out.
    fn expect_free(&self, bind: &str) -> Result<()> {
        let Ok(address) = bind.parse::<SocketAddr>() else { return Ok(()) };
        match TcpListener::bind(address) {
            // The proxy may be allowed what we are not.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(taken(bind).with_source(error)),
            _ => Ok(()),
        }
    }

    /// Removes container and directory. Answers whether there was a container.
    pub(crate) async fn remove(&self) -> Result<bool> {
        let existed = self.container(&EngineChooses).remove().await?;
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.unwritable(error)),
            _ => Ok(existed),
        }
    }

    /// Removes the container and leaves the directory. Answers whether there was one.
    pub(crate) async fn remove_container(&self) -> Result<bool> {
        self.container(&EngineChooses).remove().await
    }

    async fn write_files(&self, container: &Container<'_>, wanted: &Config, name: &str, fresh: bool) -> Result<()> {
        create_private(&self.directory).map_err(|error| self.unwritable(error))?;
        let mut files = vec![("hold.lua".to_owned(), include_str!("hold.lua").to_owned())];
        files.extend(wanted.maps());
        files.push((name.to_owned(), wanted.render()));
        if self.spec.relayed && fresh {
            let certificates = self.certificates()?;
            if !certificates.is_empty() {
                container.upload(CERTIFICATES, &certificates).await?;
            }
        }
        self.put(container, files, fresh).await
    }

    /// Replaces those files that are different; all of them if the container is a fresh one.
    async fn put(&self, container: &Container<'_>, files: Vec<(String, String)>, fresh: bool) -> Result<()> {
        if self.spec.relayed {
            // What is here is what was sent: it is written only afterwards.
            let new = |(name, text): &&(String, String)| {
                fresh || !std::fs::read(self.directory.join(name)).is_ok_and(|present| present == text.as_bytes())
            };
            let sent: Vec<_> =
                files.iter().filter(new).map(|(name, text)| (name.clone(), text.clone().into())).collect();
            if !sent.is_empty() {
                container.upload(HOME, &sent).await?;
            }
        }
        files.iter().try_for_each(|(name, text)| self.write(name, text))
    }

    /// The files with certificates, to be sent.
    fn certificates(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        let Some(directory) = &self.spec.certificates else { return Ok(files) };
        let unreadable = |error: io::Error| {
            Error::new(ErrorKind::InvalidInput, "the certificates cannot be read")
                .with_resource(directory.display().to_string())
                .with_source(error)
        };
        for entry in std::fs::read_dir(directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if let (true, Some(name)) = (path.is_file(), path.file_name().and_then(|name| name.to_str())) {
                files.push((name.to_owned(), std::fs::read(&path).map_err(unreadable)?));
            }
        }
        Ok(files)
    }

    /// Replaces a file in one step, if it has to be.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        if std::fs::read(&path).is_ok_and(|present| present == text.as_bytes()) {
            return Ok(());
        }
        let fresh = self.directory.join(format!("{name}.tmp"));
        let written = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &path));
        written.map_err(|error| self.unwritable(error))
    }

    fn remove_stale_maps(&self, layout: &str) {
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if config::is_stale_map(&entry.path(), layout)
                && let Err(error) = std::fs::remove_file(entry.path())
            {
                tracing::debug!(%error, path = %entry.path().display(), "an old map stays");
            }
        }
    }

    fn unwritable(&self, error: io::Error) -> Error {
        Error::new(ErrorKind::Internal, "the proxy's directory cannot be written")
            .with_resource(self.directory.display().to_string())
            .with_source(error)
    }
}

/// The requests in work, by backend and server.
pub(crate) type InFlight = BTreeMap<(String, String), u64>;

const SHOW_PROCESSES: &str = "show proc";

fn read_live(text: &str) -> io::Result<Live> {
    let live = parse_live(text);
    if live.layout.is_empty() { Err(senseless()) } else { Ok(live) }
}

fn read_processes(text: &str) -> io::Result<Processes> {
    parse_processes(text).ok_or_else(senseless)
}

fn senseless() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the proxy's answer makes no sense")
}

/// Whether a proxy does other things than it shall, weights aside: those somebody may have changed by hand.
pub(crate) fn differs(live: &Live, wanted: &Config) -> bool {
    live.layout != wanted.layout() || sync::difference(live, wanted, Some(wanted)).is_some()
}

/// Why a proxy did not take its configuration, from what it wrote.
fn refused(lines: &str) -> Error {
    match container::refused_bind(lines) {
        Some(address) => taken(address),
        None => Error::new(ErrorKind::Internal, "the proxy does not start with its configuration")
            .with_context("haproxy", container::faults(lines)),
    }
}

fn taken(address: &str) -> Error {
    Error::new(ErrorKind::Exhausted, format!("{address} is taken by another program"))
        .with_help("stop what listens there, or choose another address")
}

/// Makes a directory that only our own user may enter.
pub(crate) fn create_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

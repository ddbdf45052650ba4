//! The load balancer: a client of the proxy, which is a process of its own so that traffic goes on without a deployer.

pub(crate) mod table;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use deployer_core::{
    AppName, AppProtocol, BalancerCapabilities, Effect, EnsureRoutes, Error, ErrorKind, LoadBalancer, ObservedRouting,
    Outcome, Release, Restart, Result, RetainRoutes, ServiceName, SetTargets, SetWeights, TargetRegistration,
};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use self::wire::{Answer, Entrances, Listener, Reply, Request, TargetRow};
use crate::addresses::Addresses;
use crate::failure::io as io_error;
use crate::keeper::{Keep, Kept};
use crate::layout::Layout;
use crate::proxy;

/// How long a proxy may take to start. It has a few files to read.
const STARTING: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// Brings traffic to instances through the proxy of a state directory.
#[derive(Clone, Debug)]
pub(crate) struct ProxyBalancer {
    layout: Layout,
    addresses: Addresses,
    helper: PathBuf,
    ingress: SocketAddr,
    /// Where published ports are that do not name an address.
    publish: IpAddr,
}

impl ProxyBalancer {
    pub(crate) fn new(layout: Layout, helper: PathBuf, ingress: SocketAddr, publish: IpAddr) -> Self {
        let addresses = Addresses::new(layout.clone());
        Self { layout, addresses, helper, ingress, publish }
    }

    /// What a release wants of the proxy, by service.
    fn entrances(&self, release: &Release) -> Result<BTreeMap<ServiceName, Entrances>> {
        let mut all = BTreeMap::new();
        for (name, service) in release.services.iter().filter(|(_, service)| service.listens()) {
            let address = self.addresses.of_service(&release.app, name).map_err(io_error("find an address"))?;
            let mut listeners = Vec::new();
            for port in service.listening_ports() {
                let http = port.protocol == AppProtocol::Http;
                let inside = (IpAddr::from(address), port.target);
                let outside = port.published.map(|published| (published.ip.unwrap_or(self.publish), published.port));
                for at in [Some(inside), outside].into_iter().flatten() {
                    listeners.push(Listener { at: at.into(), port: port.target, http });
                }
            }
            all.insert(name.clone(), Entrances { routes: service.routes.clone(), listeners });
        }
        Ok(all)
    }

    /// Asks the proxy, which is started if it does not run.
    async fn ask(&self, request: &Request) -> Result<Answer> {
        let began = Instant::now();
        let stream = loop {
            match UnixStream::connect(proxy::socket(&self.layout.proxy())).await {
                Ok(stream) => break stream,
                Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    return Err(io_error("reach the proxy")(error));
                }
                Err(error) if began.elapsed() > STARTING => {
                    return Err(io_error("reach the proxy, which does not start")(error));
                }
                Err(_) => {
                    self.start().await?;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        let reply = exchange(stream, request).await.map_err(|error| {
            // It may have been killed before it did what it was asked, or after.
            io_error("hear from the proxy")(error).with_effect(Effect::Unknown)
        })?;
        Ok(reply?)
    }

    async fn done(&self, request: Request) -> Result<Outcome> {
        match self.ask(&request).await? {
            Answer::Done(outcome) => Ok(outcome),
            Answer::Observed(_) => Err(Error::new(ErrorKind::Internal, "the proxy answered another question")),
        }
    }

    /// Starts the proxy as a kept program, so that it is started again should it crash.
    async fn start(&self) -> Result<()> {
        let kept = Kept::new(self.layout.proxy());
        let command = [self.helper.display().to_string(), proxy::PROXY.to_owned()];
        let keep = Keep {
            command: command
                .into_iter()
                .chain([kept.directory().display().to_string(), self.ingress.to_string()])
                .collect(),
            env: std::env::vars().collect(),
            working_dir: kept.directory().to_owned(),
            user: None,
            stop_signal: "SIGTERM".to_owned(),
            stop_grace: Duration::from_secs(1),
            // One that has nothing left to do ends, and that is no failure.
            restart: Restart::OnFailure { max_retries: None },
            check: None,
            memory_bytes: None,
        };
        kept.write_keep(&keep).map_err(io_error("prepare the proxy"))?;
        kept.start(&self.helper, &BTreeMap::new()).await.map(|_| ())
    }

    /// Whether there can be anything that a proxy would have to be asked about.
    fn is_untouched(&self) -> bool {
        !proxy::table_file(&self.layout.proxy()).exists() && !proxy::socket(&self.layout.proxy()).exists()
    }
}

async fn exchange(stream: UnixStream, request: &Request) -> io::Result<Reply> {
    let mut stream = BufReader::new(stream);
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    line.clear();
    stream.read_until(b'\n', &mut line).await?;
    Ok(serde_json::from_slice(&line)?)
}

#[async_trait]
impl LoadBalancer for ProxyBalancer {
    fn capabilities(&self) -> BalancerCapabilities {
        BalancerCapabilities::new(TargetRegistration::Engine)
    }

    async fn ensure(&self, request: EnsureRoutes) -> Result<Outcome> {
        let entries = self.entrances(&request.release)?;
        if entries.is_empty() {
            return Ok(Outcome::AlreadyThere);
        }
        self.done(Request::Ensure { app: request.release.app.clone(), entries }).await
    }

    async fn observe(&self, app: &AppName) -> Result<Vec<ObservedRouting>> {
        if self.is_untouched() {
            return Ok(Vec::new());
        }
        match self.ask(&Request::Observe { app: app.clone() }).await? {
            Answer::Observed(routing) => Ok(routing),
            Answer::Done(_) => Err(Error::new(ErrorKind::Internal, "the proxy answered another question")),
        }
    }

    async fn set_targets(&self, request: SetTargets) -> Result<Outcome> {
        let SetTargets { app, revision, service, targets, .. } = request;
        let routed = service.routes.first().map(|route| route.port);
        let port = routed.or_else(|| service.listening_ports().first().map(|port| port.target)).unwrap_or_default();
        let row = |target: deployer_core::Target| {
            let address = target.address.parse().map_err(|_| {
                Error::new(ErrorKind::InvalidInput, "the target's address is not one of this host")
                    .with_context("address", target.address.clone())
            })?;
            Ok(TargetRow { instance: target.instance, address, draining: target.draining })
        };
        let targets = targets.into_iter().map(row).collect::<Result<Vec<_>>>()?;
        self.done(Request::SetTargets { app, revision, port, targets }).await
    }

    async fn set_weights(&self, request: SetWeights) -> Result<Outcome> {
        let SetWeights { app, service, weights, expected, .. } = request;
        self.done(Request::SetWeights { app, service, weights, expected }).await
    }

    async fn retain(&self, request: RetainRoutes) -> Result<Outcome> {
        let RetainRoutes { app, release, pools, .. } = request;
        let entries = release.as_ref().map_or_else(|| Ok(BTreeMap::new()), |release| self.entrances(release))?;
        let services: Vec<ServiceName> = entries.keys().cloned().collect();
        let outcome = match self.is_untouched() {
            true => Outcome::AlreadyThere,
            false => self.done(Request::Retain { app: app.clone(), entries, pools }).await?,
        };
        // Last: as long as the proxy listens on an address, it is not free.
        self.addresses.retain_services(&app, services.iter()).map_err(io_error("give addresses back"))?;
        Ok(outcome)
    }
}

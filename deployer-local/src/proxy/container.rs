//! The container in which one HAProxy runs.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bollard::body_full;
use bollard::errors::Error as DockerError;
use bollard::exec::StartExecResults;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, EndpointIpamConfig, EndpointSettings, ExecConfig, HostConfig,
    HostConfigLogConfig, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest, NetworkingConfig,
    PortBinding, PortMap, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use deployer_core::{Error, ErrorKind, Result};
use futures_util::StreamExt as _;

use super::config::{CERTIFICATES, HOME, MASTER_PORT};
use crate::engine::{Engine, classify};

/// An address that is kept for a container, and what keeps it: dropped once the container has it.
pub(crate) type Reservation = (Ipv4Addr, Box<dyn Any + Send>);

/// Gives out addresses that a container keeps when it is started again.
#[async_trait]
pub(crate) trait Addresses: Debug + Send + Sync {
    /// Reserves one in this network; none if the engine shall choose.
    async fn reserve(&self, network: &str) -> Result<Option<Reservation>>;
}

/// Leaves all addresses to the engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineChooses;

#[async_trait]
impl Addresses for EngineChooses {
    async fn reserve(&self, _network: &str) -> Result<Option<Reservation>> {
        Ok(None)
    }
}

/// What a proxy's container shall be like.
#[derive(Clone, Debug)]
pub(crate) struct ContainerSpec {
    /// Its name.
    pub(crate) name: String,
    /// Its image.
    pub(crate) image: String,
    /// Its labels.
    pub(crate) labels: HashMap<String, String>,
    /// Where it is found.
    pub(crate) place: Place,
    /// The directory with certificates, if it needs any: the engine's, or ours if it is relayed.
    pub(crate) certificates: Option<PathBuf>,
    /// Whether it shares no directory with this process.
    pub(crate) relayed: bool,
}

/// Where a proxy's container is found.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In the host's own network: it reaches every network and listens on the host's addresses.
    Host,
    /// In these networks under these names.
    Networks(BTreeMap<String, Vec<String>>),
    /// In a network of its own, where these addresses of the host lead to it, and in others from where it is not called.
    Published {
        /// The network of its own.
        own: String,
        /// The others.
        joined: BTreeSet<String>,
        /// The host's addresses; each leads to the port of the same number.
        addresses: BTreeSet<SocketAddr>,
    },
}

/// Who a relayed proxy runs as, and whose its files are: nobody.
const NOBODY: u64 = 65_534;

/// How many seconds what is in work has before a container is made anew.
const GRACE: i32 = 5;

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// There is none.
    Missing,
    /// It does not run, and the engine will not start it by itself.
    Stopped,
    /// It ended, and the engine starts it again.
    Restarting,
    /// It runs.
    Running,
}

/// A proxy's container, whether it exists or not.
#[derive(Debug)]
pub(crate) struct Container<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) addresses: &'a dyn Addresses,
    pub(crate) directory: &'a Path,
}

impl Container<'_> {
    fn fail(&self, error: DockerError) -> Error {
        classify("proxy.container", self.spec.name.as_str(), error)
    }

    async fn inspect(&self) -> Result<Option<ContainerInspectResponse>> {
        let docker = self.engine.docker();
        match docker.inspect_container(&self.spec.name, None::<InspectContainerOptions>).await {
            Ok(found) => Ok(Some(found)),
            Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// What it is doing.
    pub(crate) async fn condition(&self) -> Result<Condition> {
        let Some(found) = self.inspect().await? else { return Ok(Condition::Missing) };
        let state = found.state.unwrap_or_default();
        Ok(match (state.restarting, state.running) {
            (Some(true), _) => Condition::Restarting,
            (_, Some(true)) => Condition::Running,
            _ => Condition::Stopped,
        })
    }

    /// Makes it exist and starts it if it does not run. Answers whether it had to.
    pub(crate) async fn start(&self) -> Result<bool> {
        let condition = self.condition().await?;
        if matches!(condition, Condition::Running | Condition::Restarting) {
            return Ok(false);
        }
        // Held until the container has been created with them.
        let mut reservations = Vec::new();
        if condition == Condition::Missing {
            self.create(&mut reservations).await?;
        }
        let started = self.engine.docker().start_container(&self.spec.name, None::<StartContainerOptions>).await;
        started.map_err(|error| self.fail(error))?;
        Ok(true)
    }

    async fn create(&self, reservations: &mut Vec<Reservation>) -> Result<()> {
        let mut endpoints = Vec::new();
        match &self.spec.place {
            Place::Host => {}
            Place::Networks(networks) => {
                for (network, aliases) in networks {
                    endpoints.push((network.clone(), self.endpoint(network, aliases, reservations).await?));
                }
            }
            Place::Published { own, .. } => {
                self.make_network(own).await?;
                endpoints.push((own.clone(), EndpointSettings::default()));
            }
        }
        let mut rest = endpoints.split_off(endpoints.len().min(1));
        let body = self.body(endpoints.pop())?;
        let options = CreateContainerOptionsBuilder::default().name(&self.spec.name).build();
        let created = self.engine.docker().create_container(Some(options), body).await;
        created.map_err(|error| {
            let missing = matches!(&error, DockerError::DockerResponseServerError { status_code: 404, .. });
            let classified = self.fail(error);
            if !missing {
                return classified;
            }
            let help = format!("pull or build the proxy's image first: {}", self.spec.image);
            classified.with_context("image", self.spec.image.clone()).with_help(help)
        })?;
        for (network, endpoint) in rest.drain(..) {
            self.connect(&network, endpoint).await?;
        }
        if let Place::Published { joined, .. } = &self.spec.place {
            for network in joined {
                self.join(network).await?;
            }
        }
        Ok(())
    }

    /// Makes the proxy's own network exist.
    async fn make_network(&self, name: &str) -> Result<()> {
        let docker = self.engine.docker();
        match docker.inspect_network(name, None::<InspectNetworkOptions>).await {
            Ok(_) => return Ok(()),
            Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(error) => return Err(self.fail(error)),
        }
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            labels: Some(self.spec.labels.clone()),
            ..NetworkCreateRequest::default()
        };
        docker.create_network(request).await.map(drop).map_err(|error| self.fail(error))
    }

    /// Joins an application's network. One that is gone leads nowhere, and keeps nobody else's traffic from its way.
    async fn join(&self, network: &str) -> Result<()> {
        let request = NetworkConnectRequest {
            container: self.spec.name.clone(),
            endpoint_config: Some(EndpointSettings::default()),
        };
        match self.engine.docker().connect_network(network, request).await {
            Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => {
                tracing::warn!(network, proxy = self.spec.name, "the network to an application is gone");
                Ok(())
            }
            joined => joined.map_err(|error| self.fail(error)),
        }
    }

    async fn endpoint(
        &self,
        network: &str,
        aliases: &[String],
        reservations: &mut Vec<Reservation>,
    ) -> Result<EndpointSettings> {
        let reserved = self.addresses.reserve(network).await?;
        let ipam_config = reserved.as_ref().map(|(address, _)| EndpointIpamConfig {
            ipv4_address: Some(address.to_string()),
            ..EndpointIpamConfig::default()
        });
        reservations.extend(reserved);
        Ok(EndpointSettings { aliases: Some(aliases.to_vec()), ipam_config, ..EndpointSettings::default() })
    }

    async fn connect(&self, network: &str, endpoint: EndpointSettings) -> Result<()> {
        let request = NetworkConnectRequest { container: self.spec.name.clone(), endpoint_config: Some(endpoint) };
        self.engine.docker().connect_network(network, request).await.map_err(|error| self.fail(error))
    }

    fn body(&self, endpoint: Option<(String, EndpointSettings)>) -> Result<ContainerCreateBody> {
        let (user, binds, volumes, master) = if self.spec.relayed {
            // Volumes and not the container's own files, which are read-only for us too.
            let volumes = vec![HOME.to_owned(), CERTIFICATES.to_owned()];
            (format!("{NOBODY}:{NOBODY}"), None, Some(volumes), format!("127.0.0.1:{MASTER_PORT}"))
        } else {
            let owner = std::fs::metadata(self.directory).map_err(|error| {
                Error::new(ErrorKind::Internal, "the proxy's directory cannot be read")
                    .with_resource(self.directory.display().to_string())
                    .with_source(error)
            })?;
            let mut binds = vec![format!("{}:{HOME}", self.directory.display())];
            binds.extend(self.spec.certificates.iter().map(|path| format!("{}:{CERTIFICATES}:ro", path.display())));
            // Our own user, so that we may open its sockets and it may read its files.
            (format!("{}:{}", owner.uid(), owner.gid()), Some(binds), None, format!("{HOME}/master.sock,mode,600"))
        };
        let ports = match &self.spec.place {
            Place::Published { addresses, .. } => Some(bindings(addresses)),
            Place::Host | Place::Networks(_) => None,
        };
        let network = endpoint.as_ref().map_or("host", |(network, _)| network.as_str()).to_owned();
        let host = HostConfig {
            binds,
            port_bindings: ports.clone(),
            network_mode: Some(network),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                maximum_retry_count: None,
            }),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(vec!["NET_BIND_SERVICE".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), "2m".to_owned()),
                    ("max-file".to_owned(), "2".to_owned()),
                ])),
            }),
            ..HostConfig::default()
        };
        let command = ["-W", "-db", "-S", &master, "-f", &format!("{HOME}/haproxy.cfg")].map(str::to_owned);
        Ok(ContainerCreateBody {
            image: Some(self.spec.image.clone()),
            entrypoint: Some(vec!["haproxy".to_owned()]),
            cmd: Some(command.to_vec()),
            user: Some(user),
            volumes,
            exposed_ports: ports.map(|ports| ports.into_keys().collect()),
            labels: Some(self.spec.labels.clone()),
            // Finish what is in work. It must be explicit: without it, the engine takes a signal sent for a reload as a
            // wish to stop, and never starts the container again by itself.
            stop_signal: Some("SIGUSR1".to_owned()),
            networking_config: endpoint.map(|(network, endpoint)| NetworkingConfig {
                endpoints_config: Some(HashMap::from([(network, endpoint)])),
            }),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        })
    }

    /// Joins networks and takes names that a running container does not have yet. Answers whether it had to.
    pub(crate) async fn attach(&self) -> Result<bool> {
        if let Place::Published { own, joined, .. } = &self.spec.place {
            return self.attach_published(own, joined).await;
        }
        let Place::Networks(wanted) = &self.spec.place else { return Ok(false) };
        let found = self.inspect().await?.and_then(|found| found.network_settings?.networks).unwrap_or_default();
        let mut changed = false;
        for (network, aliases) in wanted {
            let present = found.get(network);
            if let Some(endpoint) = present {
                let names = endpoint.aliases.as_deref().unwrap_or_default();
                if aliases.iter().all(|alias| names.contains(alias)) {
                    continue;
                }
                let request = NetworkDisconnectRequest { container: self.spec.name.clone(), force: None };
                let left = self.engine.docker().disconnect_network(network, request).await;
                left.map_err(|error| self.fail(error))?;
            }
            let mut reservations = Vec::new();
            let endpoint = self.endpoint(network, aliases, &mut reservations).await?;
            self.connect(network, endpoint).await?;
            changed = true;
        }
        Ok(changed)
    }

    async fn attach_published(&self, own: &str, joined: &BTreeSet<String>) -> Result<bool> {
        let found = self.inspect().await?.and_then(|found| found.network_settings?.networks).unwrap_or_default();
        let mut changed = false;
        for network in joined.iter().filter(|network| !found.contains_key(*network)) {
            self.join(network).await?;
            changed = true;
        }
        for network in found.keys().filter(|network| *network != own && !joined.contains(*network)) {
            let request = NetworkDisconnectRequest { container: self.spec.name.clone(), force: None };
            let left = self.engine.docker().disconnect_network(network, request).await;
            left.map_err(|error| self.fail(error))?;
            changed = true;
        }
        Ok(changed)
    }

    /// Whether it lacks one of the addresses that are to lead to it: they are fixed when it is made.
    pub(crate) async fn is_outgrown(&self) -> Result<bool> {
        let Place::Published { addresses, .. } = &self.spec.place else { return Ok(false) };
        let Some(found) = self.inspect().await? else { return Ok(false) };
        let present = found.host_config.and_then(|config| config.port_bindings).unwrap_or_default();
        Ok(bindings(addresses).iter().any(|(port, binding)| present.get(port) != Some(binding)))
    }

    /// Lets it finish what is in work, for a while, and removes it.
    pub(crate) async fn retire(&self) -> Result<()> {
        let options = StopContainerOptionsBuilder::default().t(GRACE).build();
        if let Err(error) = self.engine.docker().stop_container(&self.spec.name, Some(options)).await {
            tracing::debug!(%error, proxy = self.spec.name, "the proxy is removed without having been stopped");
        }
        self.remove_container().await.map(drop)
    }

    /// Makes it exist without starting it.
    pub(crate) async fn make(&self) -> Result<()> {
        match self.condition().await? {
            Condition::Missing => self.create(&mut Vec::new()).await,
            _ => Ok(()),
        }
    }

    /// Puts files into one of its directories. They are readable for the proxy only, which may not change them.
    pub(crate) async fn upload(&self, directory: &str, files: &[(String, Vec<u8>)]) -> Result<()> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o400);
            header.set_uid(NOBODY);
            header.set_gid(NOBODY);
            archive.append_data(&mut header, name, content.as_slice()).map_err(|error| self.unpackable(error))?;
        }
        let archive = archive.into_inner().map_err(|error| self.unpackable(error))?;
        let options = UploadToContainerOptionsBuilder::default().path(directory).build();
        let put = self.engine.docker().upload_to_container(&self.spec.name, Some(options), body_full(archive.into()));
        put.await.map_err(|error| self.fail(error))
    }

    fn unpackable(&self, error: io::Error) -> Error {
        Error::new(ErrorKind::Internal, "the proxy's files cannot be sent")
            .with_resource(self.spec.name.as_str())
            .with_source(error)
    }

    /// Removes it, whatever it is doing, and the network of its own. Answers whether it existed.
    pub(crate) async fn remove(&self) -> Result<bool> {
        let existed = self.remove_container().await?;
        if let Place::Published { own, .. } = &self.spec.place {
            match self.engine.docker().remove_network(own).await {
                Err(DockerError::DockerResponseServerError { status_code: 403 | 404, .. }) | Ok(()) => {}
                Err(error) => return Err(self.fail(error)),
            }
        }
        Ok(existed)
    }

    async fn remove_container(&self) -> Result<bool> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.engine.docker().remove_container(&self.spec.name, Some(options)).await {
            Ok(()) => Ok(true),
            Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            // Somebody else removes it at this moment.
            Err(DockerError::DockerResponseServerError { status_code: 409, .. }) => Ok(true),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Runs the proxy's own check of a file in its directory.
    ///
    /// # Errors
    /// `Internal` with what it found, if it found fault.
    pub(crate) async fn check(&self, file: &str) -> Result<()> {
        let docker = self.engine.docker();
        let command = ["haproxy", "-c", "-q", "-f", &format!("{HOME}/{file}")].map(str::to_owned).to_vec();
        let exec = ExecConfig {
            cmd: Some(command),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let id = docker.create_exec(&self.spec.name, exec).await.map_err(|error| self.fail(error))?.id;
        let mut text = String::new();
        if let StartExecResults::Attached { mut output, .. } =
            docker.start_exec(&id, None).await.map_err(|error| self.fail(error))?
        {
            while let Some(chunk) = output.next().await {
                text.push_str(&chunk.map_err(|error| self.fail(error))?.to_string());
            }
        }
        let code = docker.inspect_exec(&id).await.map_err(|error| self.fail(error))?.exit_code;
        if code == Some(0) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Internal, "the proxy refuses its configuration")
            .with_resource(self.spec.name.as_str())
            .with_context("haproxy", faults(&text)))
    }

    /// The latest lines that it wrote.
    pub(crate) async fn last_lines(&self) -> String {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("20").build();
        let mut logs = std::pin::pin!(self.engine.docker().logs(&self.spec.name, Some(options)));
        let mut text = String::new();
        while let Some(Ok(line)) = logs.next().await {
            text.push_str(&line.to_string());
        }
        text
    }
}

/// What leads to a container: by port, with the host's address.
fn bindings(addresses: &BTreeSet<SocketAddr>) -> PortMap {
    let binding = |address: &SocketAddr| PortBinding {
        host_ip: Some(address.ip().to_string()),
        host_port: Some(address.port().to_string()),
    };
    addresses.iter().map(|address| (format!("{}/tcp", address.port()), Some(vec![binding(address)]))).collect()
}

/// What was written since the last start or reload that went well.
fn latest(text: &str) -> &str {
    text.rsplit("Loading success").next().unwrap_or_default()
}

/// The lines that say what is wrong, as one.
pub(crate) fn faults(text: &str) -> String {
    let alerts = latest(text).lines().filter(|line| line.contains("[ALERT]"));
    let texts: Vec<&str> = alerts.filter_map(|line| line.split_once(" : ")).map(|(_, rest)| rest.trim()).collect();
    texts.join("; ")
}

/// The address that could not be listened on, if that is what the lines say.
pub(crate) fn refused_bind(text: &str) -> Option<&str> {
    let line = latest(text).lines().rev().find(|line| line.contains("cannot bind socket"))?;
    Some(line.rsplit_once("for [")?.1.trim_end().trim_end_matches(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_found() {
        let text = "[NOTICE]   (1) : Reloading HAProxy\n[ALERT]    (1) : Binding [/x:25] for frontend in:http: cannot \
                    bind socket (Address already in use) for [127.0.0.1:18490]\n[WARNING]  (1) : Loading failure!\n";
        assert_eq!(refused_bind(text), Some("127.0.0.1:18490"));
        assert!(faults(text).starts_with("Binding [/x:25]"));
        assert_eq!(refused_bind("all is well"), None);
        assert_eq!(refused_bind(&format!("{text}[NOTICE]   (1) : Loading success.\n")), None, "it went well later");
    }
}

//! The five parts put together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use deployer_core::{Backend, Digest, Error, ErrorKind, NoSecrets, Result, Secrets};

use crate::balancer::ProxyBalancer;
use crate::failure::io;
use crate::images::{DirectoryBuilder, DirectoryRegistry, ImageConfig};
use crate::layout::Layout;
use crate::orchestrator::ProcessOrchestrator;
use crate::proxy;
use crate::store::FileStore;

/// The longest path that a socket can have.
const SOCKET_PATH: usize = 107;

/// Where this backend keeps what it has, and how it is reached.
#[derive(Clone, Debug)]
#[must_use]
pub struct ProcessesOptions {
    state: PathBuf,
    helper: PathBuf,
    ingress: SocketAddr,
    publish: IpAddr,
    secrets: Arc<dyn Secrets>,
}

impl ProcessesOptions {
    /// Keeps everything in this directory; routes are served on 127.0.0.1:8080.
    ///
    /// The helper is a program that calls [`run_if_helper`](crate::run_if_helper) first of all, such as the calling one:
    /// instances and the proxy are looked after by processes of it.
    pub fn new(state: impl Into<PathBuf>, helper: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
            helper: helper.into(),
            ingress: (Ipv4Addr::LOCALHOST, 8080).into(),
            publish: Ipv4Addr::LOCALHOST.into(),
            secrets: Arc::new(NoSecrets),
        }
    }

    /// Sets where routes are served.
    pub fn with_ingress(mut self, address: SocketAddr) -> Self {
        self.ingress = address;
        self
    }

    /// Sets on which address ports are published that do not name one. Without it, only this host reaches them.
    pub fn with_publish_address(mut self, address: IpAddr) -> Self {
        self.publish = address;
        self
    }

    /// Sets where the values of secrets in the environment are found.
    pub fn with_secrets(mut self, secrets: Arc<dyn Secrets>) -> Self {
        self.secrets = secrets;
        self
    }
}

/// Applications as processes of this host.
#[derive(Clone, Debug)]
pub struct Processes {
    layout: Layout,
    options: ProcessesOptions,
}

impl Processes {
    /// Opens a state directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the directory's path is too long for a socket in it, or the helper is
    /// no file; [`PermissionDenied`](ErrorKind::PermissionDenied) if it may not be written.
    pub fn open(mut options: ProcessesOptions) -> Result<Self> {
        std::fs::create_dir_all(&options.state).map_err(io("make the state directory"))?;
        // Processes of it begin elsewhere.
        options.state = options.state.canonicalize().map_err(io("find the state directory"))?;
        options.helper = options.helper.canonicalize().map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "the helper program is not there")
                .with_resource(options.helper.display().to_string())
                .with_source(error)
        })?;
        let layout = Layout::new(&options.state);
        let socket = proxy::socket(&layout.proxy());
        if socket.as_os_str().len() > SOCKET_PATH {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the path of the state directory is too long for a socket",
            )
            .with_resource(socket.display().to_string()));
        }
        Ok(Self { layout, options })
    }

    /// The backend, for a [`Deployer`](deployer_core::Deployer).
    #[must_use]
    pub fn backend(&self) -> Backend {
        let Self { layout, options } = self;
        let (helper, layout) = (options.helper.clone(), layout.clone());
        Backend::new(
            format!("processes of this host, in {}", layout.root().display()),
            Arc::new(DirectoryBuilder::new(layout.clone())),
            Arc::new(DirectoryRegistry::new(layout.clone())),
            Arc::new(ProcessOrchestrator::new(layout.clone(), helper.clone(), Arc::clone(&options.secrets))),
            Arc::new(ProxyBalancer::new(layout.clone(), helper, options.ingress, options.publish)),
            Arc::new(FileStore::new(layout.store())),
        )
    }

    /// Takes a directory in as the image of this name, with the command that runs in it unless a service has its own.
    ///
    /// # Errors
    /// What reading the directory and writing the state directory can fail with.
    pub fn import(&self, name: &str, directory: &Path, command: &[&str]) -> Result<Digest> {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let config = ImageConfig { command, ..ImageConfig::default() };
        DirectoryRegistry::new(self.layout.clone()).import(name, directory, &config)
    }
}

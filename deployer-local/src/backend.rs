//! The parts of the local backend, put together.

use std::path::PathBuf;
use std::sync::Arc;

use deployer_core::{Backend, NoSecrets, ReleaseStore, Result, Secrets};

use crate::balancer::{HaproxyBalancer, IngressOptions, Placement};
use crate::builder::DockerBuilder;
use crate::engine::Engine;
use crate::network::Networks;
use crate::orchestrator::DockerOrchestrator;
use crate::reach::Reach;
use crate::registry::EngineRegistry;

/// How the local backend is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LocalOptions {
    /// Where the release store and the proxies' files are kept. An engine on this host must see it under the same path.
    pub state_dir: PathBuf,
    /// The proxy through which traffic from outside enters.
    pub ingress: IngressOptions,
    /// Where the values of secrets are found.
    pub secrets: Arc<dyn Secrets>,
    /// Where releases, journals and leases are kept; none means `deployer.db` in the state directory.
    pub store: Option<Arc<dyn ReleaseStore>>,
}

impl LocalOptions {
    /// Keeps everything in this directory; no secrets.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            ingress: IngressOptions::default(),
            secrets: Arc::new(NoSecrets),
            store: None,
        }
    }

    /// Sets the proxy through which traffic from outside enters.
    #[must_use]
    pub fn with_ingress(mut self, ingress: IngressOptions) -> Self {
        self.ingress = ingress;
        self
    }

    /// Sets where the values of secrets are found.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Arc<dyn Secrets>) -> Self {
        self.secrets = secrets;
        self
    }

    /// Sets where releases, journals and leases are kept.
    #[must_use]
    pub fn with_store(mut self, store: Arc<dyn ReleaseStore>) -> Self {
        self.store = Some(store);
        self
    }
}

/// One host, this one or that of an engine elsewhere: Docker Engine, HAProxy and SQLite.
#[derive(Clone, Copy, Debug)]
pub struct LocalBackend;

impl LocalBackend {
    /// Connects to the engine that `DOCKER_HOST` names, or to the one on the default socket.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](deployer_core::ErrorKind::Unavailable) if no engine answers;
    /// [`ErrorKind::InvalidInput`](deployer_core::ErrorKind::InvalidInput) if the state directory cannot be used.
    pub async fn connect(options: LocalOptions) -> Result<Backend> {
        Self::on(Engine::connect().await?, options)
    }

    /// The backend on an engine that is connected already. Blocks for a moment when it opens its own store.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](deployer_core::ErrorKind::InvalidInput) if the state directory cannot be used.
    pub fn on(engine: Engine, options: LocalOptions) -> Result<Backend> {
        let store = match options.store {
            Some(store) => store,
            None => own_store(&options.state_dir)?,
        };
        let networks = Networks::new(engine.clone());
        let addresses = Arc::new(networks.clone());
        let placement = options.ingress.placement.unwrap_or_else(|| Placement::of(&engine));
        let (reach, place) = match placement {
            Placement::HostNetwork => (Reach::Direct, "on this host"),
            Placement::Relayed => (Reach::Relayed(engine.clone()), "reached through its API"),
        };
        let balancer = HaproxyBalancer::with_addresses(engine.clone(), &options.state_dir, options.ingress, addresses)?;
        let orchestrator = DockerOrchestrator::new(engine.clone(), networks, reach, options.secrets);
        Ok(Backend::new(
            format!("Docker {} {place}", engine.version()),
            Arc::new(DockerBuilder::new(engine.clone())),
            Arc::new(EngineRegistry::new(engine)),
            Arc::new(orchestrator),
            Arc::new(balancer),
            store,
        ))
    }
}

#[cfg(feature = "sqlite")]
fn own_store(state_dir: &std::path::Path) -> Result<Arc<dyn ReleaseStore>> {
    Ok(Arc::new(crate::store::SqliteStore::open(state_dir.join("deployer.db"))?))
}

#[cfg(not(feature = "sqlite"))]
fn own_store(_state_dir: &std::path::Path) -> Result<Arc<dyn ReleaseStore>> {
    Err(deployer_core::Error::new(deployer_core::ErrorKind::InvalidInput, "there is no release store")
        .with_help("hand one in with `LocalOptions::with_store`, or enable the feature `sqlite`"))
}

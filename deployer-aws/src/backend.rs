//! The parts of the AWS backend, put together.

use std::sync::Arc;

use aws_config::SdkConfig;
use deployer_core::{Backend, ImageBuilder, Registry, ReleaseStore};

use crate::alb::AlbBalancer;
use crate::ecs::EcsOrchestrator;
use crate::options::AwsOptions;
use crate::site::Site;

/// One cluster of one account and region: ECS and an Application Load Balancer.
#[derive(Clone, Copy, Debug)]
pub struct AwsBackend;

impl AwsBackend {
    /// The backend with the host program's configuration; several of them, with other regions and accounts, can be in one
    /// process. Asks nothing yet.
    ///
    /// Images are built by whatever the host program builds them with, and kept where ECS finds them.
    #[must_use]
    pub fn on(
        config: &SdkConfig,
        options: AwsOptions,
        builder: Arc<dyn ImageBuilder>,
        registry: Arc<dyn Registry>,
        store: Arc<dyn ReleaseStore>,
    ) -> Backend {
        let region = config.region().map_or("no region", |region| region.as_ref()).to_owned();
        let name = format!("cluster {} in {region}", options.cluster);
        let site = Arc::new(Site::new(config, options));
        let orchestrator = Arc::new(EcsOrchestrator::new(Arc::clone(&site)));
        let balancer = Arc::new(AlbBalancer::new(site));
        Backend::new(name, builder, registry, orchestrator, balancer, store)
    }
}

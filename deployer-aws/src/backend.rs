//! The parts of the AWS backend, put together.

use std::sync::Arc;

use aws_config::{BehaviorVersion, SdkConfig};
use deployer_core::{Backend, ImageBuilder, Registry, ReleaseStore, Result};

use crate::ecr::{EcrOptions, EcrRegistry};
use crate::ecs::EcsOrchestrator;
use crate::elb::ElbBalancer;
use crate::environment::Environment;
use crate::options::AwsOptions;
use crate::site::Site;
use crate::store::DynamoStore;

/// The configuration that AWS's own programs would have here: `AWS_REGION`, `AWS_PROFILE`, `AWS_ENDPOINT_URL` and the other
/// variables of the environment, the shared configuration files with their profiles, IAM Identity Center (if the program has
/// `aws-config` with its feature `sso`), web identities, and the roles of containers and machines, in
/// [this order](https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html).
pub async fn config_from_env() -> SdkConfig {
    aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await
}

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
        let region = config.region().map_or("no region", |region| region.as_ref());
        let account = options.account().map(|account| format!(" of account {account}")).unwrap_or_default();
        let name = format!("cluster {} in {region}{account}", options.cluster);
        let site = Arc::new(Site::new(config, options));
        let orchestrator = Arc::new(EcsOrchestrator::new(Arc::clone(&site)));
        let balancer = Arc::new(ElbBalancer::new(site));
        Backend::new(name, builder, registry, orchestrator, balancer, store)
    }

    /// The backend in an [`Environment`], with images in repositories `deployer/NAME/app/service` of the account's
    /// [`EcrRegistry`] and releases in the environment's table. Images are pushed through the Docker Engine that
    /// `DOCKER_HOST` names, or the one on the default socket.
    ///
    /// # Errors
    /// [`NotFound`](deployer_core::ErrorKind::NotFound) if there is no such environment,
    /// [`Conflict`](deployer_core::ErrorKind::Conflict) if it is not complete; what asking CloudFormation can fail with.
    pub async fn in_environment(config: &SdkConfig, name: &str, builder: Arc<dyn ImageBuilder>) -> Result<Backend> {
        let there = Environment::new(config).options(name).await?;
        // What one environment prunes another one may need.
        let images = EcrOptions::default();
        let prefix = format!("{}/{}", images.prefix, name.to_ascii_lowercase());
        let images = images.with_prefix(prefix).with_architecture(there.options.architecture);
        let registry = Arc::new(EcrRegistry::new(config, images)?);
        let store = Arc::new(DynamoStore::new(config, there.table));
        Ok(Self::on(config, there.options, builder, registry, store))
    }

    /// The same with the [configuration](config_from_env) that AWS's own programs would have here.
    ///
    /// ```no_run
    /// # async fn deployer(builder: std::sync::Arc<dyn deployer_core::ImageBuilder>) -> deployer_core::Result<()> {
    /// let backend = deployer_aws::AwsBackend::from_env("staging", builder).await?;
    /// let deployer = deployer_core::Deployer::new(backend);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`in_environment`](Self::in_environment).
    pub async fn from_env(environment: &str, builder: Arc<dyn ImageBuilder>) -> Result<Backend> {
        Self::in_environment(&config_from_env().await, environment, builder).await
    }
}

//! A cluster, a load balancer and an image on the AWS emulator, for whoever tests or measures there. Nobody's account is
//! ever touched: the credentials are good for nothing.

use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, FixedResponseActionConfig, LoadBalancerTypeEnum, ProtocolEnum,
};
use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::{
    BuildImageOptionsBuilder, PushImageOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use deployer_aws::{AwsBackend, AwsOptions, EcrOptions, EcrRegistry};
use deployer_core::{Backend, BuildImage, BuiltImage, ErrorKind, ImageBuilder, ReleaseStore};
use futures_util::StreamExt as _;
use tokio::sync::OnceCell;

/// Whatever went wrong.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The emulator's registry.
pub(crate) const REGISTRY: &str = "127.0.0.1:4566";
/// What every stage pushes to its own repository.
const IMAGE: &str = "deployer-aws/stage:shop";
/// The emulator's own network.
pub(crate) const VPC: &str = "vpc-00000001";
const SUBNETS: [&str; 2] = ["subnet-00000001", "subnet-00000002"];
const SECURITY_GROUP: &str = "sg-00000001";
const LOG_GROUP: &str = "/deployer/stage";

/// The emulator's configuration.
pub(crate) fn config() -> SdkConfig {
    let endpoint = std::env::var("DEPLOYER_AWS_EMULATOR").unwrap_or_else(|_| "http://127.0.0.1:4566".to_owned());
    let credentials = Credentials::new("test", "test", None, None, "the emulator's");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// Says what failed, with all causes.
pub(crate) fn broken<E: Error>(what: &str) -> impl Fn(E) -> Box<dyn Error + Send + Sync> {
    move |error| {
        let words = aws_sdk_ecs::error::DisplayErrorContext(error).to_string();
        format!("{what} (scripts/aws-emulator starts the emulator): {words}").into()
    }
}

/// A cluster and a load balancer with a listener.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) docker: Docker,
    pub(crate) ecs: aws_sdk_ecs::Client,
    pub(crate) elb: aws_sdk_elasticloadbalancingv2::Client,
    pub(crate) ecr: aws_sdk_ecr::Client,
    /// The cluster's name, and that of everything else.
    pub(crate) name: String,
    balancer: String,
    /// The ARN of a Network Load Balancer.
    pub(crate) network: String,
    /// The listener's ARN.
    pub(crate) listener: String,
    /// The port of this machine on which the listener listens.
    pub(crate) port: u16,
    /// The image of the shop in the emulator's registry.
    pub(crate) image: String,
}

impl Stage {
    /// Makes everything; the image is pushed to a repository of its own.
    pub(crate) async fn new(name: &str) -> Result<Self> {
        prepare().await?;
        let config = config();
        let docker = Docker::connect_with_defaults().map_err(broken("a Docker Engine must run: scripts/setup"))?;
        let ecs = aws_sdk_ecs::Client::new(&config);
        let elb = aws_sdk_elasticloadbalancingv2::Client::new(&config);
        let ecr = aws_sdk_ecr::Client::new(&config);
        ecs.create_cluster().cluster_name(name).send().await.map_err(broken("the cluster"))?;
        let subnets = || Some(SUBNETS.map(str::to_owned).to_vec());
        let made = elb.create_load_balancer().name(name).set_subnets(subnets()).send().await;
        let made = made.map_err(broken("the load balancer"))?;
        let balancer = made.load_balancers().first().and_then(|one| one.load_balancer_arn()).unwrap_or_default();
        let (listener, port) = listen(&elb, balancer).await?;
        let call = elb.create_load_balancer().name(format!("{name}-ports")).r#type(LoadBalancerTypeEnum::Network);
        let network = call.set_subnets(subnets()).send().await.map_err(broken("the load balancer"))?;
        let network = network.load_balancers().first().and_then(|one| one.load_balancer_arn()).unwrap_or_default();
        let (balancer, network) = (balancer.to_owned(), network.to_owned());
        let (name, image) = (name.to_owned(), format!("{REGISTRY}/{name}:shop"));
        let stage = Self { docker, ecs, elb, ecr, name, balancer, network, listener, port, image };
        if let Err(failure) = stage.push_image().await {
            stage.clear().await?;
            return Err(failure);
        }
        Ok(stage)
    }

    /// How a backend uses it, without the Network Load Balancer: as quick as the emulator is.
    pub(crate) fn options(&self) -> AwsOptions {
        AwsOptions::new(&self.name, VPC, "arn:aws:iam::123456789012:role/execution")
            .with_subnets(SUBNETS)
            .with_security_groups([SECURITY_GROUP])
            .with_listener(&self.listener)
            .with_log_group(LOG_GROUP)
            .with_propagation(Duration::ZERO)
            .with_poll(Duration::from_millis(250))
    }

    /// A backend on it, with its requests made as the configuration says.
    pub(crate) fn backend(
        &self,
        config: &SdkConfig,
        options: AwsOptions,
        store: Arc<dyn ReleaseStore>,
    ) -> Result<Backend> {
        let registry = EcrRegistry::new(config, EcrOptions::default().with_host(REGISTRY))?;
        Ok(AwsBackend::on(config, options, Arc::new(NoBuilder), Arc::new(registry), store))
    }

    async fn push_image(&self) -> Result<()> {
        let (name, tag) = self.image.rsplit_once(':').unwrap_or_default();
        let options = TagImageOptionsBuilder::new().repo(name).tag(tag).build();
        self.docker.tag_image(IMAGE, Some(options)).await.map_err(broken("the image"))?;
        self.ecr.create_repository().repository_name(&self.name).send().await.map_err(broken("the repository"))?;
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        let (username, password) = (Some("AWS".to_owned()), Some("test".to_owned()));
        let credentials = DockerCredentials { username, password, ..DockerCredentials::default() };
        let mut pushed = self.docker.push_image(name, Some(options), Some(credentials));
        while let Some(item) = pushed.next().await {
            if let Some(error) = item.map_err(broken("the push"))?.error_detail {
                return Err(format!("the push: {error:?}").into());
            }
        }
        Ok(())
    }

    /// Removes everything. What is gone already is none of its business.
    pub(crate) async fn clear(&self) -> Result<()> {
        let rules = self.elb.describe_rules().listener_arn(&self.listener).send().await.map_err(broken("the rules"))?;
        let mut groups = Vec::new();
        for rule in rules.rules().iter().filter(|rule| rule.is_default() != Some(true)) {
            let forwards = rule.actions().iter().filter_map(|action| action.forward_config());
            let of_rule = forwards.flat_map(|config| config.target_groups());
            groups.extend(of_rule.filter_map(|group| group.target_group_arn()).map(str::to_owned));
            let _gone = self.elb.delete_rule().rule_arn(rule.rule_arn().unwrap_or_default()).send().await;
        }
        let services = self.ecs.list_services().cluster(&self.name).max_results(100).send().await;
        for service in services.map_err(broken("the services"))?.service_arns() {
            let _gone = self.ecs.delete_service().cluster(&self.name).service(service).force(true).send().await;
        }
        let tasks = self.ecs.list_tasks().cluster(&self.name).send().await.map_err(broken("the tasks"))?;
        for task in tasks.task_arns() {
            let _gone = self.ecs.stop_task().cluster(&self.name).task(task).send().await;
        }
        let _gone = self.elb.delete_listener().listener_arn(&self.listener).send().await;
        for balancer in [&self.balancer, &self.network] {
            let _gone = self.elb.delete_load_balancer().load_balancer_arn(balancer).send().await;
        }
        for group in groups {
            let _gone = self.elb.delete_target_group().target_group_arn(group).send().await;
        }
        let _gone = self.ecr.delete_repository().repository_name(&self.name).force(true).send().await;
        let force = RemoveImageOptionsBuilder::default().force(true).build();
        let _gone = self.docker.remove_image(&self.image, Some(force), None).await;
        // A cluster in which something still ends cannot be deleted; the emulator forgets it with everything else.
        let _gone = self.ecs.delete_cluster().cluster(&self.name).send().await;
        Ok(())
    }
}

/// What all stages share: the log group and the image.
async fn prepare() -> Result<()> {
    static PREPARED: OnceCell<()> = OnceCell::const_new();
    let prepare = async || {
        make_shop()?;
        let logs = aws_sdk_cloudwatchlogs::Client::new(&config());
        // It may be there already.
        let _made = logs.create_log_group().log_group_name(LOG_GROUP).send().await;
        make_image().await
    };
    PREPARED.get_or_try_init(prepare).await.copied()
}

/// Where all packages are.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compiles the shop unless that is done.
fn make_shop() -> Result<()> {
    static MADE: OnceLock<bool> = OnceLock::new();
    let made = MADE.get_or_init(|| Command::new(root().join("scripts/shop")).status().is_ok_and(|s| s.success()));
    if *made { Ok(()) } else { Err("scripts/shop cannot compile the shop".into()) }
}

/// Builds the image of all stages.
async fn make_image() -> Result<()> {
    let docker = Docker::connect_with_defaults().map_err(broken("a Docker Engine must run: scripts/setup"))?;
    let shop = std::fs::read(root().join("examples/quickstart/app/shop"))?;
    let dockerfile = b"FROM busybox:1.36\nCOPY shop /shop\n".to_vec();
    let mut files = tar::Builder::new(Vec::new());
    for (name, mode, content) in [("shop", 0o755, shop), ("Dockerfile", 0o644, dockerfile)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        files.append_data(&mut header, name, &*content)?;
    }
    let options = BuildImageOptionsBuilder::default().t(IMAGE).build();
    let body = bollard::body_full(files.into_inner()?.into());
    let mut built = docker.build_image(options, None, Some(body));
    while let Some(item) = built.next().await {
        if let Some(error) = item.map_err(broken("the image"))?.error_detail {
            return Err(format!("the image: {error:?}").into());
        }
    }
    Ok(())
}

/// A listener on a port that nobody has.
async fn listen(elb: &aws_sdk_elasticloadbalancingv2::Client, balancer: &str) -> Result<(String, u16)> {
    let response = FixedResponseActionConfig::builder().status_code("404").build();
    let action = Action::builder().r#type(ActionTypeEnum::FixedResponse).fixed_response_config(response).build();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let made = elb
        .create_listener()
        .load_balancer_arn(balancer)
        .protocol(ProtocolEnum::Http)
        .port(port.into())
        .default_actions(action);
    let made = made.send().await.map_err(broken("the listener"))?;
    let listener = made.listeners().first().and_then(|one| one.listener_arn()).unwrap_or_default();
    Ok((listener.to_owned(), port))
}

/// Builds nothing: the images are there.
#[derive(Debug)]
struct NoBuilder;

#[async_trait]
impl ImageBuilder for NoBuilder {
    async fn build(&self, _: BuildImage) -> deployer_core::Result<BuiltImage> {
        Err(deployer_core::Error::new(ErrorKind::Unsupported, "nothing is built here"))
    }
}

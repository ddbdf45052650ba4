//! The AWS emulator as a site: ECS tasks are containers of this machine's Docker Engine, and load balancers listen on its
//! ports. The oracle asks the emulator past the backend, and sends real requests.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_ecr::types::ImageIdentifier;
use aws_sdk_ecs::types::{DesiredStatus, ServiceField, Task, TaskField};
use aws_sdk_elasticloadbalancingv2::types::{Action, ActionTypeEnum, FixedResponseActionConfig, ProtocolEnum};
use bollard::Docker;
use bollard::query_parameters::{
    BuildImageOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder, PushImageOptionsBuilder,
    RemoveImageOptionsBuilder,
    TagImageOptionsBuilder,
};
use deployer_aws::{AwsBackend, AwsOptions, DynamoStore, EcrOptions, EcrRegistry};
use deployer_core::{
    AppName, Backend, BuildImage, BuildSpec, BuiltImage, Clock, DeploymentId, Error, ErrorKind, ImageBuilder, InstanceId,
    PinnedImage, Route, ServiceSpec, SystemClock,
};
use deployer_testkit::conformance::{
    Build, CaseFailure, CaseResult, Entrance, Need, Pace, Profile, Program, Scope, Seen, SeenInstance, SeenTask, Site,
    TaskProgram,
};
use deployer_core::TargetRegistration;
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::config;

/// Where the shop listens.
const PORT: u16 = 8080;
/// How long it works on a slow request.
const SLOW_MILLIS: &str = "1500";
/// The emulator's registry.
const REGISTRY: &str = "127.0.0.1:4566";
/// What every scope pushes to its own repository.
const IMAGE: &str = "deployer-aws/conformance:shop";
const TABLE: &str = "deployer-conformance";
const LOG_GROUP: &str = "/deployer/conformance";

/// The emulator that `scripts/aws-emulator` starts.
#[derive(Debug)]
pub(crate) struct Emulator;

#[async_trait]
impl Site for Emulator {
    fn profile(&self) -> Profile {
        Profile::new("ecs")
            .with_targets(TargetRegistration::Orchestrator)
            .draining()
            .lacking(Need::Builds, "images are built by whatever the host program builds them with")
            .lacking(Need::InternalNames, "calls between services do not pass the load balancer")
            .lacking(Need::PublishedPorts, "an Application Load Balancer serves routes")
            .lacking(Need::Volumes, "volumes are kept on EFS, which is not the application's")
            .lacking(Need::Counters, "CloudWatch counts, and only after a minute")
            .known_gap("orchestrator/launch-starts-what-has-exited", "ECS replaces whatever exits, whatever the restart policy")
            .known_gap("orchestrator/logs-can-be-narrowed", "what crashes is replaced by a task with an id and lines of its own")
    }

    async fn scope(&self) -> CaseResult<Arc<dyn Scope>> {
        make_shop()?;
        prepare_account().await?;
        // The end of it is random, and its beginning the time.
        let unique = DeploymentId::fresh().as_str()[20..].to_owned();
        let plot = Plot::new(format!("conf-{unique}")).await;
        Ok(Arc::new(plot?))
    }
}

/// What all scopes share: the table and the log group.
async fn prepare_account() -> CaseResult {
    static PREPARED: OnceCell<()> = OnceCell::const_new();
    let prepare = async || {
        DynamoStore::new(&config(), TABLE).ensure_table().await?;
        let logs = aws_sdk_cloudwatchlogs::Client::new(&config());
        // It may be there already.
        let _made = logs.create_log_group().log_group_name(LOG_GROUP).send().await;
        make_image().await?;
        Ok::<_, CaseFailure>(())
    };
    PREPARED.get_or_try_init(prepare).await.copied()
}

/// Says what failed.
fn broken<E: std::error::Error>(what: &str) -> impl Fn(E) -> CaseFailure {
    move |error| {
        let words = aws_sdk_ecs::error::DisplayErrorContext(error).to_string();
        CaseFailure::new(format!("{what} (scripts/aws-emulator starts the emulator): {words}"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compiles the shop unless that is done.
fn make_shop() -> CaseResult {
    static MADE: OnceLock<bool> = OnceLock::new();
    let made = MADE.get_or_init(|| Command::new(root().join("scripts/shop")).status().is_ok_and(|s| s.success()));
    if *made { Ok(()) } else { Err("scripts/shop cannot compile the shop".into()) }
}

fn free_port() -> CaseResult<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Builds the image of all scopes.
async fn make_image() -> CaseResult {
    let docker = Docker::connect_with_defaults().map_err(broken("a Docker Engine must run: scripts/setup"))?;
    let shop = std::fs::read(root().join("examples/quickstart/app/shop"))?;
    let dockerfile = "FROM busybox:1.36\nCOPY shop /shop\n".to_owned();
    let mut files = tar::Builder::new(Vec::new());
    for (name, mode, content) in [("shop", 0o755, shop), ("Dockerfile", 0o644, dockerfile.into_bytes())] {
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
            return Err(CaseFailure::new(format!("the image: {error:?}")));
        }
    }
    Ok(())
}

/// Builds nothing: the profile says so.
#[derive(Debug)]
struct NoBuilder;

#[async_trait]
impl ImageBuilder for NoBuilder {
    async fn build(&self, _: BuildImage) -> deployer_core::Result<BuiltImage> {
        Err(Error::new(ErrorKind::Unsupported, "nothing is built here"))
    }
}

/// A cluster and a load balancer of one case's own.
#[derive(Debug)]
struct Plot {
    backend: Backend,
    docker: Docker,
    config: SdkConfig,
    ecs: aws_sdk_ecs::Client,
    elb: aws_sdk_elasticloadbalancingv2::Client,
    ecr: aws_sdk_ecr::Client,
    app: AppName,
    cluster: String,
    balancer: String,
    listener: String,
    port: u16,
    image: String,
}

impl Plot {
    async fn new(name: String) -> CaseResult<Self> {
        let config = config();
        let docker = Docker::connect_with_defaults().map_err(broken("a Docker Engine must run: scripts/setup"))?;
        let ecs = aws_sdk_ecs::Client::new(&config);
        let elb = aws_sdk_elasticloadbalancingv2::Client::new(&config);
        let ecr = aws_sdk_ecr::Client::new(&config);
        ecs.create_cluster().cluster_name(&name).send().await.map_err(broken("the cluster"))?;
        let made = elb.create_load_balancer().name(&name).subnets("subnet-1").subnets("subnet-2").send().await;
        let made = made.map_err(broken("the load balancer"))?;
        let balancer = made.load_balancers()[0].load_balancer_arn().unwrap().to_owned();
        let (listener, port) = listen(&elb, &balancer).await?;
        let options = AwsOptions::new(&name, "vpc-1", "arn:aws:iam::123456789012:role/execution")
            .with_subnets(["subnet-1", "subnet-2"])
            .with_security_groups(["sg-1"])
            .with_listener(&listener)
            .with_log_group(LOG_GROUP)
            .with_propagation(Duration::ZERO)
            .with_poll(Duration::from_millis(250));
        let registry = EcrRegistry::new(&config, EcrOptions::default().with_host(REGISTRY))?;
        let store = DynamoStore::new(&config, TABLE);
        let backend =
            AwsBackend::new(&config, options, Arc::new(NoBuilder), Arc::new(registry), Arc::new(store));
        let app = AppName::new(name.clone())?;
        let image = format!("{REGISTRY}/{name}:shop");
        let plot = Self { backend, docker, config, ecs, elb, ecr, app, cluster: name, balancer, listener, port, image };
        if let Err(failure) = plot.push_image().await {
            plot.clean_up().await?;
            return Err(failure);
        }
        Ok(plot)
    }

    /// Pushes the image to a repository of the scope's own: what one case takes away, no other may use.
    async fn push_image(&self) -> CaseResult {
        let (name, tag) = self.image.rsplit_once(':').unwrap();
        let options = TagImageOptionsBuilder::new().repo(name).tag(tag).build();
        self.docker.tag_image(IMAGE, Some(options)).await.map_err(broken("the scope's image"))?;
        let repository = self.cluster.as_str();
        self.ecr.create_repository().repository_name(repository).send().await.map_err(broken("the repository"))?;
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        let credentials = bollard::auth::DockerCredentials {
            username: Some("AWS".to_owned()),
            password: Some("test".to_owned()),
            ..Default::default()
        };
        let mut pushed = self.docker.push_image(name, Some(options), Some(credentials));
        while let Some(item) = pushed.next().await {
            let item = item.map_err(broken("the push"))?;
            if let Some(error) = item.error_detail {
                return Err(CaseFailure::new(format!("the push: {error:?}")));
            }
        }
        Ok(())
    }

    /// All tasks of the cluster, running or not.
    async fn tasks(&self) -> CaseResult<Vec<Task>> {
        let mut arns = Vec::new();
        for desired in [DesiredStatus::Running, DesiredStatus::Stopped] {
            let listed = self.ecs.list_tasks().cluster(&self.cluster).desired_status(desired).send().await;
            arns.extend(listed.map_err(broken("the tasks"))?.task_arns.unwrap_or_default());
        }
        if arns.is_empty() {
            return Ok(Vec::new());
        }
        let described = self.ecs.describe_tasks().cluster(&self.cluster).set_tasks(Some(arns)).include(TaskField::Tags);
        Ok(described.send().await.map_err(broken("the tasks"))?.tasks.unwrap_or_default())
    }

    async fn services(&self) -> CaseResult<Vec<aws_sdk_ecs::types::Service>> {
        let listed = self.ecs.list_services().cluster(&self.cluster).max_results(100).send().await;
        let arns = listed.map_err(broken("the services"))?.service_arns.unwrap_or_default();
        let mut services = Vec::new();
        for arns in arns.chunks(10) {
            let described =
                self.ecs.describe_services().cluster(&self.cluster).set_services(Some(arns.to_vec()));
            let described = described.include(ServiceField::Tags).send().await;
            services.extend(described.map_err(broken("the services"))?.services.unwrap_or_default());
        }
        Ok(services)
    }

    async fn rules(&self) -> CaseResult<Vec<aws_sdk_elasticloadbalancingv2::types::Rule>> {
        let rules = self.elb.describe_rules().listener_arn(&self.listener).send().await;
        let rules = rules.map_err(broken("the rules"))?.rules.unwrap_or_default();
        Ok(rules.into_iter().filter(|rule| rule.is_default() != Some(true)).collect())
    }

    /// The target groups of an application, or of anybody.
    async fn groups(&self, app: Option<&AppName>) -> CaseResult<Vec<String>> {
        let all = self.elb.describe_target_groups().send().await.map_err(broken("the target groups"))?;
        let mut found = Vec::new();
        for group in all.target_groups() {
            let arn = group.target_group_arn().unwrap_or_default();
            // Another scope's may go meanwhile.
            let Ok(tags) = self.elb.describe_tags().resource_arns(arn).send().await else { continue };
            let tags = tags.tag_descriptions().iter().flat_map(|description| description.tags());
            let owner = tags.filter(|tag| tag.key() == Some("deployer:app")).find_map(|tag| tag.value());
            let ours = match app {
                Some(app) => owner == Some(app.as_str()),
                None => owner.is_some_and(|owner| [self.app.clone(), self.neighbour()].iter().any(|app| app.as_str() == owner)),
            };
            if ours {
                found.push(arn.to_owned());
            }
        }
        Ok(found)
    }
}

/// A listener on a port that nobody has.
async fn listen(elb: &aws_sdk_elasticloadbalancingv2::Client, balancer: &str) -> CaseResult<(String, u16)> {
    let response = FixedResponseActionConfig::builder().status_code("404").build();
    let action = Action::builder().r#type(ActionTypeEnum::FixedResponse).fixed_response_config(response).build();
    let port = free_port()?;
    let made = elb
        .create_listener()
        .load_balancer_arn(balancer)
        .protocol(ProtocolEnum::Http)
        .port(port.into())
        .default_actions(action);
    let made = made.send().await.map_err(broken("the listener"))?;
    Ok((made.listeners()[0].listener_arn().unwrap().to_owned(), port))
}

/// A request on a connection of its own; the body, if it was answered with 200.
async fn get(port: u16, host: &str, path: &str) -> CaseResult<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the connection ended without an answer")?;
    if head.starts_with("HTTP/1.1 200 ") { Ok(body.trim().to_owned()) } else { Err(CaseFailure::new(head)) }
}

/// The last part of an ARN.
fn last(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

#[async_trait]
impl Scope for Plot {
    fn backend(&self) -> Backend {
        self.backend.clone()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    fn app(&self) -> AppName {
        self.app.clone()
    }

    fn neighbour(&self) -> AppName {
        AppName::new(format!("{}-beside", self.app)).unwrap()
    }

    fn service(&self, program: Program, version: &str) -> ServiceSpec {
        let command = if program == Program::CannotStart { vec!["/nope"] } else { vec!["/shop", "web"] };
        let service = ServiceSpec::image(&self.image)
            .with_command(command)
            .with_env("VERSION", version)
            .with_env("DELAY_MS", SLOW_MILLIS)
            .with_route(Route::new(PORT))
            .with_drain(Duration::from_secs(3))
            .with_http_probe("/healthz", PORT);
        match program {
            Program::Exits => service.with_env("BROKEN", "exit"),
            Program::NeverReady => service.with_env("BROKEN", "unhealthy"),
            Program::IgnoresStop => service.with_env("BROKEN", "ignore-term"),
            _ => service,
        }
    }

    fn task(&self, task: TaskProgram) -> Vec<String> {
        let script = match task {
            TaskProgram::Succeeds => "echo done",
            TaskProgram::Fails => "echo 'FATAL: no database'; exit 7",
            _ => "exec sleep 600",
        };
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    fn image(&self) -> String {
        self.image.clone()
    }

    fn missing_image(&self) -> String {
        format!("{REGISTRY}/{}:missing", self.cluster)
    }

    fn build(&self, _: Build<'_>) -> BuildSpec {
        BuildSpec::default()
    }

    fn free_port(&self) -> u16 {
        free_port().unwrap()
    }

    async fn has_image(&self, image: &PinnedImage) -> CaseResult<bool> {
        let id = ImageIdentifier::builder().image_digest(image.digest.as_str()).build();
        let found = self.ecr.batch_get_image().repository_name(&self.cluster).image_ids(id).send().await;
        Ok(!found.map_err(broken("the image"))?.images().is_empty())
    }

    async fn lose_image(&self, image: &PinnedImage) -> CaseResult {
        let id = ImageIdentifier::builder().image_digest(image.digest.as_str()).build();
        let lost = self.ecr.batch_delete_image().repository_name(&self.cluster).image_ids(id).send().await;
        lost.map_err(broken("the image"))?;
        // What the engine has pulled or built it need not pull.
        let force = RemoveImageOptionsBuilder::default().force(true).build();
        let _gone = self.docker.remove_image(&self.image, Some(force.clone()), None).await;
        let _gone = self.docker.remove_image(&image.location, Some(force), None).await;
        Ok(())
    }

    async fn request(&self, _app: &AppName, entrance: &Entrance, pace: Pace) -> Result<String, String> {
        let path = match pace {
            Pace::Quick => "/version",
            Pace::Slow => "/slow",
        };
        let answer = match entrance {
            Entrance::Route(route) => get(self.port, route.host.as_deref().unwrap_or("localhost"), path).await,
            other => Err(CaseFailure::new(format!("{other:?} is not known here"))),
        };
        answer.map_err(|failure| failure.to_string())
    }

    async fn seen(&self, app: &AppName) -> CaseResult<Seen> {
        let mut seen = Seen::nothing();
        let mut services = self.services().await?;
        services.retain(|service| service.status() == Some("ACTIVE"));
        let tag = |service: &aws_sdk_ecs::types::Service, key: &str| {
            service.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value()).map(str::to_owned)
        };
        let ours = services.iter().filter(|service| tag(service, "deployer:app").as_deref() == Some(app.as_str()));
        let ours: HashMap<String, String> = ours
            .map(|service| (service.service_name().unwrap().to_owned(), tag(service, "deployer:service").unwrap()))
            .collect();
        // A slot in which something runs is where that runs; one in which nothing does is left over, or waits.
        let idle = |name: &&String| {
            let service = services.iter().find(|service| service.service_name() == Some(name.as_str()));
            service.is_some_and(|service| service.desired_count() == 0)
        };
        seen.shared.extend(ours.keys().filter(idle).cloned());
        seen.shared.extend(self.groups(Some(app)).await?);
        let mut tasks = self.tasks().await?;
        tasks.sort_by_key(|task| (task.created_at().copied(), task.task_arn().map(str::to_owned)));
        let mut ordinals: HashMap<String, u32> = HashMap::new();
        for task in &tasks {
            let running = task.desired_status() == Some("RUNNING");
            let id = InstanceId::new(last(task.task_arn().unwrap()))?;
            // What is started again is another task.
            let start = format!("{:?}", task.created_at());
            let owner = task.tags().iter().find(|tag| tag.key() == Some("deployer:app")).and_then(|tag| tag.value());
            match task.group().and_then(|group| group.strip_prefix("service:")) {
                Some(name) => {
                    let Some(service) = ours.get(name) else { continue };
                    // What has ended is gone, for all that it is told of.
                    if task.last_status() == Some("STOPPED") {
                        continue;
                    }
                    let family = last(task.task_definition_arn().unwrap());
                    let family = family.split_once(':').unwrap().0;
                    let revision = format!("{service}@{}", family.rsplit_once('-').unwrap().1);
                    let ordinal = ordinals.entry(revision.clone()).or_default();
                    *ordinal += 1;
                    let (revision, ordinal) = (revision.parse()?, *ordinal);
                    seen.instances.push(SeenInstance { revision, ordinal, id, running, start });
                }
                // ECS tells for an hour of what has ended, and nobody can make it forget that.
                None if owner == Some(app.as_str()) && running => seen.tasks.push(SeenTask { id, running, start }),
                None => {}
            }
        }
        Ok(seen)
    }

    async fn kill(&self, instance: &InstanceId) -> CaseResult {
        let label = format!("com.amazonaws.ecs.task-arn=arn:aws:ecs:us-east-1:123456789012:task/{}/{instance}", self.cluster);
        let filter = HashMap::from([("label".to_owned(), vec![label])]);
        let containers = ListContainersOptionsBuilder::default().filters(&filter).build();
        let containers = self.docker.list_containers(Some(containers)).await.map_err(broken("the engine"))?;
        for container in containers {
            let signal = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
            let _gone = self.docker.kill_container(&container.id.unwrap_or_default(), Some(signal)).await;
        }
        Ok(())
    }

    async fn clean_up(&self) -> CaseResult {
        for rule in self.rules().await? {
            let _gone = self.elb.delete_rule().rule_arn(rule.rule_arn().unwrap_or_default()).send().await;
        }
        for service in self.services().await? {
            let name = service.service_name().unwrap_or_default();
            let _gone = self.ecs.delete_service().cluster(&self.cluster).service(name).force(true).send().await;
        }
        for task in self.tasks().await? {
            let arn = task.task_arn().unwrap_or_default();
            let _gone = self.ecs.stop_task().cluster(&self.cluster).task(arn).send().await;
        }
        let _gone = self.elb.delete_listener().listener_arn(&self.listener).send().await;
        let _gone = self.elb.delete_load_balancer().load_balancer_arn(&self.balancer).send().await;
        for group in self.groups(None).await? {
            let _gone = self.elb.delete_target_group().target_group_arn(group).send().await;
        }
        let _gone = self.ecr.delete_repository().repository_name(&self.cluster).force(true).send().await;
        let _gone = self.ecs.delete_cluster().cluster(&self.cluster).send().await;
        let force = RemoveImageOptionsBuilder::default().force(true).build();
        let _gone = self.docker.remove_image(&self.image, Some(force), None).await;
        let _ = &self.config;
        Ok(())
    }
}

//! The AWS emulator as a site: ECS tasks are containers of this machine's Docker Engine, and load balancers listen on its
//! ports. The oracle asks the emulator past the backend, and sends real requests.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ecr::types::ImageIdentifier;
use aws_sdk_ecs::types::{DesiredStatus, Service, ServiceField, Task, TaskField};
use bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
};
use deployer_aws::DynamoStore;
use deployer_core::{
    AppName, Backend, BuildSpec, Clock, DeploymentId, InstanceId, PinnedImage, Route, ServiceSpec, SystemClock,
    TargetRegistration,
};
use deployer_local::{DockerBuilder, Engine};
use deployer_testkit::conformance::{
    Build, CaseFailure, CaseResult, Entrance, Need, Pace, Profile, Program, Scope, Seen, SeenInstance, SeenTask, Site,
    TaskProgram,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::stage::{REGISTRY, Stage, broken, config, root};

/// Where the shop listens.
const PORT: u16 = 8080;
/// How long it works on a slow request.
const SLOW_MILLIS: &str = "1500";
const TABLE: &str = "deployer-conformance";
/// The label of images that are built here: the application of the scope.
const LABEL: &str = "conformance";

/// The emulator that `scripts/aws-emulator` starts.
#[derive(Debug)]
pub(crate) struct Emulator;

#[async_trait]
impl Site for Emulator {
    fn profile(&self) -> Profile {
        Profile::new("ecs")
            .with_targets(TargetRegistration::Orchestrator)
            .draining()
            .lacking(Need::InternalNames, "calls between services do not pass the load balancer")
            .lacking(Need::Volumes, "volumes are kept on EFS, which is not the application's")
            .lacking(Need::Counters, "CloudWatch counts, and only after a minute")
            .known_gap(
                "registry/prune-leaves-what-is-used",
                "ECR does not know what runs: the engine names the images of what does, to be kept",
            )
            .known_gap(
                "orchestrator/launch-starts-what-has-exited",
                "ECS replaces whatever exits, whatever the restart policy",
            )
            .known_gap(
                "orchestrator/logs-can-be-narrowed",
                "what crashes is replaced by a task with an id and lines of its own",
            )
    }

    async fn scope(&self) -> CaseResult<Arc<dyn Scope>> {
        // The end of it is random, and its beginning the time.
        let unique = DeploymentId::fresh().as_str()[20..].to_owned();
        Ok(Arc::new(Plot::new(&format!("conf-{unique}")).await?))
    }
}

/// The table of all scopes.
async fn make_table() -> CaseResult {
    static MADE: OnceCell<()> = OnceCell::const_new();
    let make = async || Ok::<_, CaseFailure>(DynamoStore::new(&config(), TABLE).ensure_table().await?);
    MADE.get_or_try_init(make).await.copied()
}

/// A stage of one case's own.
#[derive(Debug)]
struct Plot {
    stage: Stage,
    backend: Backend,
    app: AppName,
}

impl Plot {
    async fn new(name: &str) -> CaseResult<Self> {
        make_table().await?;
        let stage = Stage::new(name).await?;
        let store = DynamoStore::new(&config(), TABLE);
        let options = stage.options().with_network_balancer(&stage.network);
        let mut backend = stage.backend(&config(), options, Arc::new(store))?;
        backend.builder = Arc::new(DockerBuilder::new(Engine::connect().await?));
        Ok(Self { stage, backend, app: AppName::new(name)? })
    }

    /// All tasks of the cluster, running or not.
    async fn tasks(&self) -> CaseResult<Vec<Task>> {
        let mut arns = Vec::new();
        for desired in [DesiredStatus::Running, DesiredStatus::Stopped] {
            let listed = self.stage.ecs.list_tasks().cluster(&self.stage.name).desired_status(desired).send().await;
            arns.extend(listed.map_err(broken("the tasks"))?.task_arns.unwrap_or_default());
        }
        if arns.is_empty() {
            return Ok(Vec::new());
        }
        let described =
            self.stage.ecs.describe_tasks().cluster(&self.stage.name).set_tasks(Some(arns)).include(TaskField::Tags);
        Ok(described.send().await.map_err(broken("the tasks"))?.tasks.unwrap_or_default())
    }

    async fn services(&self) -> CaseResult<Vec<Service>> {
        let listed = self.stage.ecs.list_services().cluster(&self.stage.name).max_results(100).send().await;
        let arns = listed.map_err(broken("the services"))?.service_arns.unwrap_or_default();
        let mut services = Vec::new();
        for arns in arns.chunks(10) {
            let described =
                self.stage.ecs.describe_services().cluster(&self.stage.name).set_services(Some(arns.to_vec()));
            let described = described.include(ServiceField::Tags).send().await;
            services.extend(described.map_err(broken("the services"))?.services.unwrap_or_default());
        }
        Ok(services)
    }

    /// The target groups of an application, or of both.
    async fn groups(&self, app: Option<&AppName>) -> CaseResult<Vec<String>> {
        let all = self.stage.elb.describe_target_groups().send().await.map_err(broken("the target groups"))?;
        let mut found = Vec::new();
        for group in all.target_groups() {
            let arn = group.target_group_arn().unwrap_or_default();
            // Another scope's may go meanwhile.
            let Ok(tags) = self.stage.elb.describe_tags().resource_arns(arn).send().await else { continue };
            let tags = tags.tag_descriptions().iter().flat_map(|description| description.tags());
            let owner = tags.filter(|tag| tag.key() == Some("deployer:app")).find_map(|tag| tag.value());
            let ours = match app {
                Some(app) => owner == Some(app.as_str()),
                None => owner
                    .is_some_and(|owner| [self.app.clone(), self.neighbour()].iter().any(|app| app.as_str() == owner)),
            };
            if ours {
                found.push(arn.to_owned());
            }
        }
        Ok(found)
    }
}

/// The repository that an image is in.
fn repository_of(image: &PinnedImage) -> &str {
    let name = image.location.split_once('@').map_or(image.location.as_str(), |(name, _)| name);
    name.split_once('/').map_or(name, |(_, repository)| repository)
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
        let service = ServiceSpec::image(&self.stage.image)
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
        self.stage.image.clone()
    }

    fn missing_image(&self) -> String {
        format!("{REGISTRY}/{}:missing", self.stage.name)
    }

    fn build(&self, build: Build<'_>) -> BuildSpec {
        let mut spec = BuildSpec::new(root().join("examples/quickstart/app"));
        // Equal builds of two scopes would be one image.
        spec.labels.insert(LABEL.to_owned(), self.app.to_string());
        match build {
            Build::Version(version) => spec.with_arg("VERSION", version),
            Build::Fails => {
                let failing = "FROM busybox:1.36\nRUN echo 'FATAL: no compiler' && false\n";
                spec.dockerfile_inline = Some(failing.to_owned());
                spec
            }
            _ => {
                spec.context = root().join("no-such-directory");
                spec
            }
        }
    }

    fn free_port(&self) -> u16 {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
    }

    async fn has_image(&self, image: &PinnedImage) -> CaseResult<bool> {
        let id = ImageIdentifier::builder().image_digest(image.digest.as_str()).build();
        let found = self.stage.ecr.batch_get_image().repository_name(repository_of(image)).image_ids(id).send().await;
        Ok(!found.map_err(broken("the image"))?.images().is_empty())
    }

    async fn lose_image(&self, image: &PinnedImage) -> CaseResult {
        let id = ImageIdentifier::builder().image_digest(image.digest.as_str()).build();
        let lost = self.stage.ecr.batch_delete_image().repository_name(repository_of(image)).image_ids(id).send().await;
        lost.map_err(broken("the image"))?;
        // What the engine has pulled or built it need not pull.
        let force = RemoveImageOptionsBuilder::default().force(true).build();
        let _gone = self.stage.docker.remove_image(&self.stage.image, Some(force.clone()), None).await;
        let _gone = self.stage.docker.remove_image(&image.location, Some(force), None).await;
        Ok(())
    }

    async fn request(&self, _app: &AppName, entrance: &Entrance, pace: Pace) -> Result<String, String> {
        let path = match pace {
            Pace::Quick => "/version",
            Pace::Slow => "/slow",
        };
        let answer = match entrance {
            Entrance::Route(route) => get(self.stage.port, route.host.as_deref().unwrap_or("localhost"), path).await,
            Entrance::Published(port) => get(*port, "localhost", path).await,
            other => Err(CaseFailure::new(format!("{other:?} is not known here"))),
        };
        answer.map_err(|failure| failure.to_string())
    }

    async fn seen(&self, app: &AppName) -> CaseResult<Seen> {
        let mut seen = Seen::nothing();
        let mut services = self.services().await?;
        services.retain(|service| service.status() == Some("ACTIVE"));
        let tag = |service: &Service, key: &str| {
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
        let label = format!(
            "com.amazonaws.ecs.task-arn=arn:aws:ecs:us-east-1:123456789012:task/{}/{instance}",
            self.stage.name
        );
        let filter = HashMap::from([("label".to_owned(), vec![label])]);
        let containers = ListContainersOptionsBuilder::default().filters(&filter).build();
        let containers = self.stage.docker.list_containers(Some(containers)).await.map_err(broken("the engine"))?;
        for container in containers {
            let signal = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
            let _gone = self.stage.docker.kill_container(&container.id.unwrap_or_default(), Some(signal)).await;
        }
        Ok(())
    }

    async fn clean_up(&self) -> CaseResult {
        let groups = self.groups(None).await?;
        self.stage.clear().await?;
        for app in [self.app.clone(), self.neighbour()] {
            let repository = format!("deployer/{app}/web");
            let _gone = self.stage.ecr.delete_repository().repository_name(repository).force(true).send().await;
        }
        let ours = HashMap::from([("label".to_owned(), vec![format!("{LABEL}={}", self.app)])]);
        let options = ListImagesOptionsBuilder::default().filters(&ours).build();
        let images = self.stage.docker.list_images(Some(options)).await.map_err(broken("the engine"))?;
        for image in images {
            let force = RemoveImageOptionsBuilder::default().force(true).build();
            let _gone = self.stage.docker.remove_image(&image.id, Some(force), None).await;
        }
        for group in groups {
            let _gone = self.stage.elb.delete_target_group().target_group_arn(group).send().await;
        }
        Ok(())
    }
}

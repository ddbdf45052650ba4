//! The Docker Engine of this machine as a site. The oracle is the engine itself, asked past the backend, and real
//! requests.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{ContainerConfig, ContainerCreateBody, ContainerInspectResponse, HostConfig};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptions, RemoveImageOptionsBuilder,
    StartContainerOptions, UploadToContainerOptionsBuilder, WaitContainerOptions,
};
use deployer_core::{
    AppName, Backend, BuildSpec, Clock, DeploymentId, InstanceId, PinnedImage, Route, ServiceSpec, SystemClock,
};
use deployer_local::{IngressOptions, LocalBackend, LocalOptions};
use deployer_testkit::conformance::{
    Build, CaseFailure, CaseResult, Entrance, Pace, Profile, Program, Scope, Seen, SeenInstance, SeenTask, Site,
    TaskProgram,
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::left::Left;

/// Where the shop listens.
const PORT: u16 = 8080;
/// How long it works on a slow request.
const SLOW_MILLIS: &str = "1500";

/// This machine.
#[derive(Debug)]
pub(crate) struct Host;

#[async_trait]
impl Site for Host {
    fn profile(&self) -> Profile {
        Profile::new("docker")
    }

    async fn scope(&self) -> CaseResult<Arc<dyn Scope>> {
        make_shop()?;
        let docker = Docker::connect_with_defaults().map_err(broken("a Docker Engine must run: scripts/setup"))?;
        let docker = docker.negotiate_version().await.map_err(broken("a Docker Engine must run: scripts/setup"))?;
        for image in ["haproxy:2.6-alpine", "busybox:1.36"] {
            docker.inspect_image(image).await.map_err(broken("run scripts/images first"))?;
        }
        // The end of it is random, and its beginning the time.
        let unique = DeploymentId::fresh().as_str()[20..].to_owned();
        let app = AppName::new(format!("conf-{unique}"))?;
        let neighbour = AppName::new(format!("conf-{unique}-b"))?;
        let state = tempfile::tempdir()?;
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let ingress = IngressOptions::named(format!("{app}-ingress")).with_http(http);
        let backend = LocalBackend::connect(LocalOptions::new(state.path()).with_ingress(ingress)).await?;
        let image = format!("conformance/{app}:shop");
        let plot = Plot { backend, docker, app, neighbour, http, image, caller: Mutex::default(), _state: state };
        if let Err(failure) = plot.make_image().await {
            plot.clean_up().await?;
            return Err(failure);
        }
        Ok(Arc::new(plot))
    }
}

/// One application, its neighbour, and an ingress for both.
#[derive(Debug)]
struct Plot {
    backend: Backend,
    docker: Docker,
    app: AppName,
    neighbour: AppName,
    http: SocketAddr,
    image: String,
    /// The container from which requests inside the application come, once there was one.
    caller: Mutex<Option<String>>,
    _state: TempDir,
}

/// Says what failed.
fn broken<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> CaseFailure {
    move |error| CaseFailure::new(format!("{what}: {error}"))
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

/// Nothing, if it is gone meanwhile.
fn unless_gone<T>(answer: Result<T, DockerError>) -> CaseResult<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(DockerError::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(None),
        Err(error) => Err(broken("the engine")(error)),
    }
}

impl Plot {
    /// An image of the scope's own: what one case takes away, no other may use. It is committed and not built, because
    /// builds share images between their first and their last, and a scope that goes would take those away from others.
    async fn make_image(&self) -> CaseResult {
        let shop = std::fs::read(root().join("examples/quickstart/app/shop"))?;
        let mut files = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(shop.len() as u64);
        header.set_mode(0o755);
        files.append_data(&mut header, "shop", &*shop)?;
        let id = self.create("image", &["true"], HostConfig::default()).await?;
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        let body = bollard::body_full(files.into_inner()?.into());
        self.docker.upload_to_container(&id, Some(options), body).await.map_err(broken("the scope's image"))?;
        let (name, tag) = self.image.split_once(':').unwrap();
        let options = CommitContainerOptionsBuilder::default().container(&id).repo(name).tag(tag).build();
        let labels = Some([("conformance".to_owned(), self.app.to_string())].into());
        let config = ContainerConfig { labels, ..ContainerConfig::default() };
        self.docker.commit_container(options, config).await.map_err(broken("the scope's image"))?;
        let force = RemoveContainerOptionsBuilder::default().force(true).build();
        self.docker.remove_container(&id, Some(force)).await.map_err(broken("the scope's image"))
    }

    /// Runs a helper to its end.
    async fn run(&self, name: &str, command: &[&str], host: HostConfig) -> CaseResult<i64> {
        let id = self.start(name, command, host).await?;
        let mut ended = self.docker.wait_container(&id, None::<WaitContainerOptions>);
        let code = match ended.next().await {
            Some(Ok(end)) => end.status_code,
            Some(Err(DockerError::DockerContainerWaitError { code, .. })) => code,
            other => return Err(CaseFailure::new(format!("a helper: {other:?}"))),
        };
        let force = RemoveContainerOptionsBuilder::default().force(true).build();
        self.docker.remove_container(&id, Some(force)).await.map_err(broken("a helper"))?;
        Ok(code)
    }

    async fn start(&self, name: &str, command: &[&str], host: HostConfig) -> CaseResult<String> {
        let id = self.create(name, command, host).await?;
        self.docker.start_container(&id, None::<StartContainerOptions>).await.map_err(broken("a helper"))?;
        Ok(id)
    }

    /// Makes a helper, which the cleaner finds by its label, and which is no part of the application.
    async fn create(&self, name: &str, command: &[&str], host: HostConfig) -> CaseResult<String> {
        let body = ContainerCreateBody {
            image: Some("busybox:1.36".to_owned()),
            cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
            labels: Some([("conformance".to_owned(), self.app.to_string())].into()),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&format!("{}-{name}", self.app)).build();
        Ok(self.docker.create_container(Some(options), body).await.map_err(broken("a helper"))?.id)
    }

    async fn inspect(&self, id: &str) -> CaseResult<Option<ContainerInspectResponse>> {
        unless_gone(self.docker.inspect_container(id, None::<InspectContainerOptions>).await)
    }

    /// A request from inside the application, by a service's name.
    async fn request_inside(&self, service: &str, path: &str) -> CaseResult<String> {
        let mut caller = self.caller.lock().await;
        let id = match &*caller {
            Some(id) => id.clone(),
            None => {
                let network = Some(format!("{}_default", self.app));
                let host = HostConfig { network_mode: network, ..HostConfig::default() };
                let id = self.start("caller", &["sleep", "600"], host).await?;
                caller.insert(id).clone()
            }
        };
        let url = format!("http://{service}:{PORT}{path}");
        let command = ["wget", "-q", "-O", "-", &url].map(str::to_owned).to_vec();
        let options = CreateExecOptions {
            cmd: Some(command),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let exec = self.docker.create_exec(&id, options).await.map_err(broken("a request from inside"))?.id;
        let started = self.docker.start_exec(&exec, None).await.map_err(broken("a request from inside"))?;
        let StartExecResults::Attached { output, .. } = started else { return Err("it has no output".into()) };
        let lines: Vec<_> = output.try_collect().await.map_err(broken("a request from inside"))?;
        let text: String = lines.iter().map(ToString::to_string).collect();
        let code = self.docker.inspect_exec(&exec).await.map_err(broken("a request from inside"))?.exit_code;
        if code == Some(0) { Ok(text.trim().to_owned()) } else { Err(CaseFailure::new(format!("{code:?}: {text}"))) }
    }
}

/// A request on a connection of its own; the body, if it was answered with 200.
async fn get(address: SocketAddr, host: &str, path: &str) -> CaseResult<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the connection ended without an answer")?;
    if head.starts_with("HTTP/1.1 200 ") { Ok(body.trim().to_owned()) } else { Err(CaseFailure::new(head)) }
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
        self.neighbour.clone()
    }

    fn service(&self, program: Program, version: &str) -> ServiceSpec {
        let command = if program == Program::CannotStart { vec!["/nope"] } else { vec!["/shop", "web"] };
        let service = ServiceSpec::image(&self.image)
            .with_command(command)
            .with_env("VERSION", version)
            .with_env("DELAY_MS", SLOW_MILLIS)
            .with_route(Route::new(PORT))
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
        format!("conformance/{}:missing", self.app)
    }

    fn build(&self, build: Build<'_>) -> BuildSpec {
        let mut spec = BuildSpec::new(root().join("examples/quickstart/app"));
        // Equal builds of two scopes would be one image.
        spec.labels.insert("conformance".to_owned(), self.app.to_string());
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
        free_port().unwrap()
    }

    async fn has_image(&self, image: &PinnedImage) -> CaseResult<bool> {
        Ok(unless_gone(self.docker.inspect_image(image.digest.as_str()).await)?.is_some())
    }

    async fn lose_image(&self, image: &PinnedImage) -> CaseResult {
        let force = RemoveImageOptionsBuilder::default().force(true).build();
        let removed = self.docker.remove_image(image.digest.as_str(), Some(force), None).await;
        removed.map(drop).map_err(broken("the image cannot be removed"))
    }

    async fn request(&self, _app: &AppName, entrance: &Entrance, pace: Pace) -> Result<String, String> {
        let path = match pace {
            Pace::Quick => "/version",
            Pace::Slow => "/slow",
        };
        let answer = match entrance {
            Entrance::Route(route) => get(self.http, route.host.as_deref().unwrap_or("localhost"), path).await,
            Entrance::Published(port) => get((Ipv4Addr::LOCALHOST, *port).into(), "localhost", path).await,
            Entrance::Name(service) => self.request_inside(service.as_str(), path).await,
            other => Err(CaseFailure::new(format!("{other:?} is not known here"))),
        };
        answer.map_err(|failure| failure.to_string())
    }

    async fn seen(&self, app: &AppName) -> CaseResult<Seen> {
        let filter = HashMap::from([("label".to_owned(), vec![format!("deployer.app={app}")])]);
        let all = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
        let containers = self.docker.list_containers(Some(all)).await.map_err(broken("the engine"))?;
        let mut seen = Seen::nothing();
        for container in containers {
            let id = container.id.unwrap_or_default();
            let Some(found) = self.inspect(&id).await? else { continue };
            let state = found.state.unwrap_or_default();
            let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
            let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
            let (running, start) = (state.running == Some(true), state.started_at.unwrap_or_default());
            let id = InstanceId::new(id)?;
            match label("deployer.role").as_str() {
                "instance" => seen.instances.push(SeenInstance {
                    revision: label("deployer.revision").parse()?,
                    ordinal: label("deployer.ordinal").parse().map_err(broken("an ordinal"))?,
                    id,
                    running,
                    start,
                }),
                "task" => seen.tasks.push(SeenTask { id, running, start }),
                _ => seen.shared.push(found.name.unwrap_or_default()),
            }
        }
        let left = Left::of(&self.docker, app.as_str(), "no-ingress").await;
        seen.shared.extend(left.networks);
        seen.volumes = left.volumes;
        Ok(seen)
    }

    async fn kill(&self, instance: &InstanceId) -> CaseResult {
        let pid = self.inspect(instance.as_str()).await?.and_then(|found| found.state?.pid).filter(|pid| *pid > 0);
        let Some(pid) = pid else { return Ok(()) };
        // What the engine is asked to kill it takes for stopped, and does not start again; what dies by itself it does.
        let host = HostConfig { pid_mode: Some("host".to_owned()), ..HostConfig::default() };
        let name = format!("killer-{}", DeploymentId::fresh());
        // One that has ended meanwhile cannot be killed, and somebody else who has its number by now must not be.
        let kill = "grep -q \"$1\" \"/proc/$2/cgroup\" && kill -9 \"$2\"";
        let command = ["sh", "-c", kill, "kill", instance.as_str(), &pid.to_string()];
        self.run(&name, &command, host).await.map(drop)
    }

    async fn clean_up(&self) -> CaseResult {
        let force = || Some(RemoveContainerOptionsBuilder::default().force(true).v(true).build());
        let filter = HashMap::from([("label".to_owned(), vec![format!("conformance={}", self.app)])]);
        let helpers = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
        let helpers = self.docker.list_containers(Some(helpers)).await.map_err(broken("the engine"))?;
        for helper in helpers {
            let removed = self.docker.remove_container(&helper.id.unwrap_or_default(), force()).await;
            unless_gone(removed)?;
        }
        for app in [&self.app, &self.neighbour] {
            let ingress = format!("{}-ingress", self.app);
            Left::of(&self.docker, app.as_str(), &ingress).await.remove(&self.docker).await;
            let left = Left::of(&self.docker, app.as_str(), &ingress).await.names();
            if !left.is_empty() {
                return Err(CaseFailure::new(format!("it is still there: {left:?}")));
            }
        }
        unless_gone(self.docker.remove_image(&self.image, None::<RemoveImageOptions>, None).await).map(drop)
    }
}

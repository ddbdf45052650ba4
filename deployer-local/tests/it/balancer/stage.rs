//! What the balancer's tests need around them: an application of its own, targets, a client, and a clean end.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, EndpointSettings, HostConfig, NetworkCreateRequest, NetworkingConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions,
};
use deployer_core::{
    AppName, Call, Digest, EnsureRoutes, InstanceId, LoadBalancer, ObservedRouting, PinnedImage, Release, RetainRoutes,
    RevisionId, ServiceName, ServiceRelease, ServiceSpec, SetTargets, SetWeights, Target, Timestamp,
};
use deployer_local::{Engine, HaproxyBalancer, IngressOptions, Placement};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, Semaphore};

/// A number that no other stage has, on this host and at this time.
fn unique() -> (String, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    static RUN: OnceLock<u128> = OnceLock::new();
    let run = RUN.get_or_init(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() % 1_000_000_000);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    (format!("{run}p{}n{number}", std::process::id()), number)
}

/// A free TCP port of the host.
pub(super) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// One ingress and one application, both removed in the end.
pub(super) struct Stage {
    pub(super) app: AppName,
    pub(super) balancer: HaproxyBalancer,
    pub(super) options: IngressOptions,
    pub(super) state_dir: PathBuf,
    pub(super) engine: Engine,
    pub(super) docker: Docker,
    _directory: tempfile::TempDir,
    apps: Vec<AppName>,
}

impl Stage {
    pub(super) async fn new() -> Self {
        Self::placed(None).await
    }

    pub(super) async fn placed(placement: Option<Placement>) -> Self {
        let (unique, _) = unique();
        let engine = Engine::connect().await.expect("these tests need a Docker Engine");
        let docker = Docker::connect_with_defaults().unwrap().negotiate_version().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut options = IngressOptions::named(format!("ingress-{unique}"))
            .with_http(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        options.placement = placement;
        let state_dir = directory.path().to_owned();
        let balancer = HaproxyBalancer::new(engine.clone(), &state_dir, options.clone()).unwrap();
        let app = AppName::new(format!("bal{unique}")).unwrap();
        let mut stage = Self {
            app: app.clone(),
            balancer,
            options,
            state_dir,
            engine,
            docker,
            _directory: directory,
            apps: vec![],
        };
        stage.add_app(&app).await;
        stage
    }

    /// Another application's name, with its network.
    pub(super) async fn other_app(&mut self) -> AppName {
        let app = AppName::new(format!("{}b", self.app)).unwrap();
        self.add_app(&app).await;
        app
    }

    async fn add_app(&mut self, app: &AppName) {
        self.apps.push(app.clone());
        let labels = [("deployer.app".to_owned(), app.to_string())].into();
        let network = NetworkCreateRequest { name: network(app), labels: Some(labels), ..Default::default() };
        self.docker.create_network(network).await.unwrap();
    }

    /// Another balancer on the same ingress, as another process would have it.
    pub(super) fn second(&self) -> HaproxyBalancer {
        HaproxyBalancer::new(self.engine.clone(), &self.state_dir, self.options.clone()).unwrap()
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.state_dir.join("proxy").join(&self.options.name)
    }

    pub(super) async fn ensure(&self, services: &[(&str, &ServiceRelease)]) {
        self.balancer.ensure(EnsureRoutes::new(call(), release(&self.app, services))).await.unwrap();
    }

    pub(super) async fn set_targets(&self, service: &ServiceRelease, targets: &[(&str, IpAddr, bool)]) -> RevisionId {
        let revision = revision(service);
        let targets = targets.iter().map(|(instance, address, draining)| Target {
            instance: InstanceId::new(*instance).unwrap(),
            address: address.to_string(),
            draining: *draining,
        });
        let request =
            SetTargets::new(call(), self.app.clone(), revision.clone(), Arc::new(service.clone()), targets.collect());
        self.balancer.set_targets(request).await.unwrap();
        revision
    }

    pub(super) async fn observe(&self) -> ObservedRouting {
        let mut all = self.balancer.observe(&self.app).await.unwrap();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    /// Waits for the proxies' answers: a master process answers a little later than its worker serves.
    pub(super) async fn answers(&self) {
        eventually("an answer", async || self.balancer.observe(&self.app).await.is_ok()).await;
    }

    pub(super) fn weights(&self, version: &ObservedRouting, weights: &[(&RevisionId, u8)]) -> SetWeights {
        let weights = weights.iter().map(|(revision, weight)| ((*revision).clone(), *weight)).collect();
        SetWeights::new(call(), self.app.clone(), ServiceName::new("web").unwrap(), weights, version.version.clone())
    }

    pub(super) async fn set_weights(&self, weights: &[(&RevisionId, u8)]) {
        let observed = self.observe().await;
        self.balancer.set_weights(self.weights(&observed, weights)).await.unwrap();
    }

    pub(super) async fn retain(&self, release: Option<Arc<Release>>, pools: Vec<RevisionId>) {
        self.balancer.retain(RetainRoutes::new(call(), self.app.clone(), release, pools)).await.unwrap();
    }

    pub(super) async fn get(&self, host: &str, path: &str) -> Answer {
        get(self.options.http, host, path).await.unwrap()
    }

    /// Says something to the ingress as an operator would.
    pub(super) async fn by_hand(&self, command: &str) -> String {
        by_hand(&self.directory(), command).await
    }

    /// Whether there is a container of this name.
    pub(super) async fn exists(&self, container: &str) -> bool {
        self.docker.inspect_container(container, None::<InspectContainerOptions>).await.is_ok()
    }

    /// Starts a container in the application's network and answers its id and address.
    pub(super) async fn container(&self, name: &str, command: &str) -> (String, IpAddr) {
        let network = network(&self.app);
        let endpoints = [(network.clone(), EndpointSettings::default())].into();
        let body = ContainerCreateBody {
            image: Some("busybox:1.36".into()),
            cmd: Some(["sh", "-c", command].map(str::to_owned).to_vec()),
            labels: Some([("deployer.app".to_owned(), self.app.to_string())].into()),
            host_config: Some(HostConfig { network_mode: Some(network.clone()), ..Default::default() }),
            networking_config: Some(NetworkingConfig { endpoints_config: Some(endpoints) }),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&format!("{}-{name}", self.app)).build();
        let id = self.docker.create_container(Some(options), body).await.unwrap().id;
        self.docker.start_container(&id, None::<StartContainerOptions>).await.unwrap();
        let found = self.docker.inspect_container(&id, None::<InspectContainerOptions>).await.unwrap();
        let networks = found.network_settings.unwrap().networks.unwrap();
        let address = networks[&network].ip_address.clone().unwrap();
        // One that has ended by now has none, and nobody asks for it.
        (id, address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }

    /// What a command that ends writes when it runs in the application's network.
    pub(super) async fn output(&self, name: &str, command: &str) -> String {
        let (id, _) = self.container(name, command).await;
        let mut waiting = self.docker.wait_container(&id, None::<WaitContainerOptions>);
        while let Some(Ok(_)) = waiting.next().await {}
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
        let lines = self.docker.logs(&id, Some(options)).map(|line| line.unwrap().to_string());
        lines.collect::<Vec<_>>().await.concat()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let (apps, ingress) = (self.apps.clone(), self.options.name.clone());
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(clean(&apps, &ingress));
        });
        let _ = cleaner.join();
    }
}

async fn clean(apps: &[AppName], ingress: &str) {
    let docker = Docker::connect_with_defaults().unwrap().negotiate_version().await.unwrap();
    let remove = || Some(RemoveContainerOptionsBuilder::default().force(true).v(true).build());
    let _ = docker.remove_container(ingress, remove()).await;
    for app in apps {
        let label: std::collections::HashMap<_, _> = [("label".to_owned(), vec![format!("deployer.app={app}")])].into();
        let all = ListContainersOptionsBuilder::default().all(true).filters(&label).build();
        for container in docker.list_containers(Some(all)).await.unwrap() {
            let _ = docker.remove_container(&container.id.unwrap(), remove()).await;
        }
        let all = ListNetworksOptionsBuilder::default().filters(&label).build();
        for network in docker.list_networks(Some(all)).await.unwrap() {
            let _ = docker.remove_network(&network.id.unwrap()).await;
        }
    }
    // That of a relayed ingress, if it was one.
    let _ = docker.remove_network(&format!("0-{ingress}")).await;
}

pub(super) fn call() -> Call {
    Call::new("test", Timestamp::default())
}

fn network(app: &AppName) -> String {
    format!("{app}_default")
}

/// A service that differs from others by its image.
pub(super) fn service(image: &str, set: impl FnOnce(ServiceSpec) -> ServiceSpec) -> ServiceRelease {
    set(ServiceSpec::image(image)).with_image(PinnedImage::new(image, image, Digest::of(image.as_bytes())))
}

pub(super) fn revision(service: &ServiceRelease) -> RevisionId {
    service.revision(&ServiceName::new("web").unwrap())
}

pub(super) fn release(app: &AppName, services: &[(&str, &ServiceRelease)]) -> Arc<Release> {
    let services: BTreeMap<&str, &ServiceRelease> = services.iter().copied().collect();
    let release = json!({
        "format": Release::FORMAT, "app": app, "number": 1, "services": services, "provenance": {},
    });
    Arc::new(serde_json::from_value(release).unwrap())
}

/// A service with one route for every host.
pub(super) fn web(image: &str, port: u16) -> ServiceRelease {
    service(image, |spec| spec.with_route(deployer_core::Route::new(port)))
}

/// An address of the loopback network that nobody else in this process uses.
pub(super) fn address(last: u8) -> IpAddr {
    let (_, number) = unique();
    let [high, low] = number.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, high.wrapping_add(1), low, last))
}

/// An HTTP server in this process.
pub(super) struct App {
    /// How many requests for `/slow` have come in.
    pub(super) slow: Arc<Semaphore>,
    /// Lets a request for `/slow` finish.
    pub(super) finish: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl App {
    /// Answers every request with its name.
    pub(super) async fn start(address: IpAddr, port: u16, name: &'static str) -> Self {
        let listener = TcpListener::bind((address, port)).await.unwrap();
        let (slow, finish) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
        let (coming, finishing) = (Arc::clone(&slow), Arc::clone(&finish));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, name, Arc::clone(&coming), Arc::clone(&finishing)));
            }
        });
        Self { slow, finish, task }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, name: &str, slow: Arc<Semaphore>, finish: Arc<Notify>) {
    let mut buffer = Vec::new();
    loop {
        while !buffer.windows(4).any(|window| window == b"\r\n\r\n") {
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        if buffer.starts_with(b"GET /slow") {
            slow.add_permits(1);
            finish.notified().await;
        }
        let last = String::from_utf8_lossy(&buffer).to_ascii_lowercase().contains("connection: close");
        buffer.clear();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        if stream.write_all(answer.as_bytes()).await.is_err() || last {
            return;
        }
    }
}

/// The answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Sends a request on a connection of its own.
pub(super) async fn get(address: SocketAddr, host: &str, path: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (status, body) = status.zip(text.split_once("\r\n\r\n")).ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok(Answer { status, body: body.1.trim_end().to_owned() })
}

/// Says something to the proxy with this directory.
pub(super) async fn by_hand(directory: &std::path::Path, command: &str) -> String {
    let mut stream = UnixStream::connect(directory.join("admin.sock")).await.unwrap();
    stream.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Asks until the answer is yes; fails after a generous time.
pub(super) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let asking = async {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        while !ask().await {
            pace.tick().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), asking).await.is_ok(), "{what} did not come about");
}

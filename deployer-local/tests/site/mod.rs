//! A site for the quickstart's shop, for tests and examples alike: an application, an ingress and a state directory of
//! its own on this machine's engine. All of it goes when the site goes, also after a panic.

mod left;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use bollard::Docker;
use bollard::models::ContainerSummary;
use bollard::query_parameters::ListContainersOptionsBuilder;
use deployer_core::compose::ComposeReader;
use deployer_core::{
    AppName, AppSpec, DeployOptions, Deployer, DeployerBuilder, Deployment, DeploymentKind, DeploymentRecord, Secrets,
    ServiceName, ServiceSpec, Verdict,
};
use deployer_local::{HostSecrets, IngressOptions, LocalBackend, LocalOptions};
use deployer_testkit::load::{Load, Mode, Report};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use left::Left;

/// The host name under which the shop is routed.
pub(crate) const HOST: &str = "shop.localhost";

/// Where a site is: what another process needs to know to deploy to it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) app: AppName,
    pub(crate) http: SocketAddr,
    state: PathBuf,
}

impl Place {
    const APP: &str = "DEPLOYER_SITE_APP";
    const HTTP: &str = "DEPLOYER_SITE_HTTP";
    const STATE: &str = "DEPLOYER_SITE_STATE";

    /// The place that the process was told about that started this one; none, if this is nobody's helper.
    pub(crate) fn given() -> Option<Self> {
        let variable = |name| std::env::var(name).ok();
        Some(Self {
            app: AppName::new(variable(Self::APP)?).unwrap(),
            http: variable(Self::HTTP)?.parse().unwrap(),
            state: variable(Self::STATE)?.into(),
        })
    }

    /// Tells a process that is about to be started.
    pub(crate) fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env(Self::APP, self.app.as_str()).env(Self::HTTP, self.http.to_string()).env(Self::STATE, &self.state)
    }

    pub(crate) fn ingress(&self) -> String {
        format!("{}-ingress", self.app)
    }

    /// A deployer on a connection and a store of its own.
    pub(crate) async fn deployer(&self) -> DeployerBuilder {
        self.deployer_with(HostSecrets::new()).await
    }

    /// A deployer that knows these secrets.
    pub(crate) async fn deployer_with(&self, secrets: HostSecrets) -> DeployerBuilder {
        let ingress = IngressOptions::named(self.ingress()).with_http(self.http);
        let secrets: Arc<dyn Secrets> = Arc::new(secrets);
        let options = LocalOptions::new(&self.state).with_ingress(ingress).with_secrets(Arc::clone(&secrets));
        let backend = LocalBackend::connect(options).await.expect("a Docker Engine must run: scripts/setup");
        Deployer::builder(backend).secrets(secrets)
    }

    /// The shop as its Compose file describes it, with these variables set.
    pub(crate) fn shop(&self, variables: &[(&str, &str)]) -> AppSpec {
        self.read("examples/quickstart/app/compose.yaml", variables)
    }

    /// The application of this Compose file of the repository, with these variables set.
    pub(crate) fn read(&self, file: &str, variables: &[(&str, &str)]) -> AppSpec {
        let mut reader = ComposeReader::new().with_project_name(self.app.as_str());
        for (name, value) in variables {
            reader = reader.with_env(*name, *value);
        }
        let read = reader.read_file(root().join(file));
        read.unwrap_or_else(|problems| panic!("{problems}")).spec
    }
}

/// A place and what runs there.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) place: Place,
    pub(crate) deployer: Deployer,
    pub(crate) docker: Docker,
    state: TempDir,
}

impl Site {
    /// A site on which nothing runs yet.
    pub(crate) async fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        make_shop();
        let docker = docker().await;
        assert_images(&docker, &["haproxy:2.6-alpine", "busybox:1.36", "redis:7-alpine"], "scripts/images").await;
        let state = tempfile::tempdir().unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let app = AppName::new(format!("{name}-{}-{number}", std::process::id())).unwrap();
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let place = Place { app, http, state: state.path().to_owned() };
        let deployer = place.deployer().await.build();
        Self { place, deployer, docker, state }
    }

    pub(crate) fn app(&self) -> &AppName {
        &self.place.app
    }

    /// The directory in which everything about the site is kept.
    pub(crate) fn state(&self) -> &Path {
        self.state.path()
    }

    /// The shop in this version.
    pub(crate) fn version(&self, version: &str) -> AppSpec {
        self.place.shop(&[("VERSION", version)])
    }

    pub(crate) fn deploy(&self, spec: AppSpec) -> Deployment {
        self.deployer.deploy(spec, DeployOptions::default())
    }

    /// Deploys what must be promoted, with nothing left over.
    pub(crate) async fn deploy_well(&self, spec: AppSpec) -> DeploymentRecord {
        promoted(self.deploy(spec)).await
    }

    /// Mixed requests for this path through the ingress.
    pub(crate) fn load(&self, path: &str, per_second: u32) -> Load {
        Load::new(self.place.http, HOST).path(path).rate(per_second).mode(Mode::Mixed)
    }

    /// The answer's status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        get(self.place.http, path).await.unwrap()
    }

    /// All containers of the application, in any state.
    pub(crate) async fn containers(&self) -> Vec<ContainerSummary> {
        let filter = HashMap::from([("label".to_owned(), vec![format!("deployer.app={}", self.app())])]);
        let all = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
        self.docker.list_containers(Some(all)).await.unwrap()
    }

    /// The ids of a service's containers by revision.
    pub(crate) async fn instances(&self, service: &str) -> BTreeMap<String, BTreeSet<String>> {
        let mut instances: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for container in self.containers().await {
            let label = |name| container.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
            let of_service = label("com.docker.compose.service").is_some_and(|name| name == service);
            if let (true, Some(revision)) = (of_service, label("deployer.revision")) {
                instances.entry(revision).or_default().insert(container.id.unwrap());
            }
        }
        instances
    }

    /// What of the application runs and should not, or should and does not: it shall have the instances of the release
    /// that serves, those that stand by since the last deployment, a proxy for each service that listens, and nothing
    /// else in any state.
    pub(crate) async fn strays(&self) -> Vec<String> {
        let (strays, absent) = self.strays_and_absent().await;
        [strays, absent].concat()
    }

    /// The same, apart from it what should stand by and does not: there may be less of it where a deployment that
    /// replaces a few at a time was superseded.
    pub(crate) async fn strays_and_absent(&self) -> (Vec<String>, Vec<String>) {
        let status = self.deployer.status(self.app()).await.unwrap();
        let mut strays = status.drift;
        strays.extend(status.open.map(|open| format!("{} has no verdict", open.id)));
        let history = self.deployer.history(self.app()).await.unwrap();
        let promotion = history.iter().find(|record| record.verdict.as_ref().is_some_and(Verdict::is_promoted));
        // What somebody went back from does not stand by.
        let deployed = promotion.filter(|record| record.kind == DeploymentKind::Deploy);
        let standby = deployed.and_then(|record| record.baseline);
        let (mut missing, mut standing_by) = (BTreeSet::new(), BTreeSet::new());
        let releases = self.deployer.releases(self.app(), 100).await.unwrap();
        // How long the version before stays up is a matter of the one that took its place.
        let serving = releases.iter().find(|release| status.serving == Some(release.number));
        let warm = |name| {
            let service = serving.and_then(|release| release.services.get(name));
            service.is_some_and(|service| !service.strategy.keep_warm().is_zero())
        };
        for release in &releases {
            let serves = status.serving == Some(release.number);
            for (name, service) in &release.services {
                if serves && service.listens() {
                    missing.insert(format!("{}-{name}-proxy", self.app()));
                }
                let revision = service.revision(name);
                let instances = (1..=service.replicas).map(|number| format!("{revision} {number}"));
                if serves {
                    missing.extend(instances);
                } else if standby == Some(release.number) && warm(name) {
                    standing_by.extend(instances);
                }
            }
        }
        // Both have what has not changed between them.
        standing_by.retain(|instance| !missing.contains(instance));
        for container in self.containers().await {
            let labels = container.labels.unwrap_or_default();
            let is = match (labels.get("deployer.revision"), labels.get("deployer.ordinal")) {
                (Some(revision), Some(number)) => format!("{revision} {number}"),
                _ => container.names.unwrap_or_default().concat().trim_start_matches('/').to_owned(),
            };
            if !missing.remove(&is) && !standing_by.remove(&is) {
                strays.push(format!("{is} should not be there"));
            }
        }
        let absent = |instance: String| format!("{instance} is missing");
        strays.extend(missing.into_iter().map(absent));
        (strays, standing_by.into_iter().map(absent).collect())
    }

    /// Checks that what runs is what shall.
    pub(crate) async fn assert_no_strays(&self) {
        assert_eq!(self.strays().await, Vec::<String>::new());
    }

    /// Everything on the engine that belongs to the application or its ingress, by name.
    pub(crate) async fn everything(&self) -> Vec<String> {
        Left::of(&self.docker, self.app().as_str(), &self.place.ingress()).await.names()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let (app, ingress) = (self.app().to_string(), self.place.ingress());
        // Within a runtime no other can be waited for, so the cleaner has a thread of its own.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let docker = docker().await;
                // The engine may still be making what a process asked for that was killed over it.
                for _ in 0..5 {
                    let left = Left::of(&docker, &app, &ingress).await;
                    if left.names().is_empty() {
                        break;
                    }
                    left.remove(&docker).await;
                }
            });
        });
        if cleaner.join().is_err() {
            eprintln!("{}: could not clean up", self.app());
        }
    }
}

/// Waits for the end of a deployment that must be promoted, with nothing left over.
pub(crate) async fn promoted(deployment: Deployment) -> DeploymentRecord {
    let record = deployment.finished().await.unwrap();
    assert_eq!(record.verdict, Some(Verdict::Promoted { leftovers: Vec::new() }), "{:?}", record.verdict);
    record
}

/// A service of a spec.
pub(crate) fn service<'a>(spec: &'a mut AppSpec, name: &str) -> &'a mut ServiceSpec {
    spec.services.get_mut(&ServiceName::new(name).unwrap()).unwrap()
}

/// Checks that every request was sent, and answered with 200 by one of these versions, each of which answered some.
pub(crate) fn assert_none_lost(report: &Report, versions: &[&str]) {
    assert_eq!((report.lost, report.unsent), (0, 0), "{report}");
    let seen: BTreeSet<&str> = report.by_version.keys().map(String::as_str).collect();
    assert_eq!(seen, versions.iter().copied().collect(), "{report}");
    assert!(report.by_version.values().all(|count| count.by_status.keys().eq([&200])), "{report}");
}

async fn docker() -> Docker {
    let docker = Docker::connect_with_defaults().expect("a Docker Engine must run: scripts/setup");
    docker.negotiate_version().await.expect("a Docker Engine must run: scripts/setup")
}

/// Checks that the engine has these images, which this script provides.
pub(crate) async fn assert_images(docker: &Docker, images: &[&str], script: &str) {
    for image in images {
        let found = docker.inspect_image(image).await;
        assert!(found.is_ok(), "the image {image} is missing: run {script} first");
    }
}

/// A free TCP port of the host.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Compiles the shop unless that is done.
fn make_shop() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let status = Command::new(root().join("scripts/shop")).status();
        assert!(status.is_ok_and(|status| status.success()), "scripts/shop cannot compile the shop");
    });
}

/// The status and body that the shop answers through an ingress.
pub(crate) async fn get(ingress: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(ingress).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    match (status, answer.split_once("\r\n\r\n")) {
        (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
        _ => Err(io::Error::other(format!("{path} was answered with {answer:?}"))),
    }
}

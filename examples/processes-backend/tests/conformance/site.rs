//! State directories of their own on this host, and programs that behave as a case asks.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use async_trait::async_trait;
use deployer_core::{AppName, Backend, BuildSpec, Clock, InstanceId, PinnedImage, Route, ServiceSpec, SystemClock};
use deployer_testkit::conformance::{
    Build, CaseFailure, CaseResult, Entrance, Pace, Profile, Program, Scope, Seen, Site, TaskProgram,
};
use processes_backend::{Processes, ProcessesOptions};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::oracle::Oracle;

/// This host.
#[derive(Debug)]
pub(crate) struct ThisHost;

#[async_trait]
impl Site for ThisHost {
    fn profile(&self) -> Profile {
        Profile::new("processes")
    }

    async fn scope(&self) -> CaseResult<Arc<dyn Scope>> {
        let state = tempfile::Builder::new().prefix("processes-").tempdir()?;
        let context = tempfile::Builder::new().prefix("context-").tempdir()?;
        std::os::unix::fs::symlink(PROGRAM, context.path().join("demo"))?;
        let address = own_address();
        let options = ProcessesOptions::new(state.path(), PROGRAM)
            .with_ingress(SocketAddr::new(address.into(), 8080))
            .with_publish_address(address.into());
        let processes = Processes::open(options)?;
        processes.import(IMAGE, context.path(), &[])?;
        let root = state.path().canonicalize()?;
        let (backend, oracle) = (processes.backend(), Oracle::new(&root));
        Ok(Arc::new(Directory { state, root, context, address, backend, oracle, ports: AtomicU16::new(20_000) }))
    }
}

/// Helper and workload at once.
const PROGRAM: &str = env!("CARGO_BIN_EXE_deployer-processes");
const IMAGE: &str = "conformance/demo:1";
/// Where programs listen.
const PORT: u16 = 8080;

/// A loopback address that no other scope has: not in this process, and not in one that runs at the same time.
fn own_address() -> Ipv4Addr {
    static SCOPES: AtomicU16 = AtomicU16::new(0);
    let [high, low] = std::process::id().to_be_bytes()[2..] else { unreachable!("four bytes less two") };
    let scope = SCOPES.fetch_add(1, Ordering::Relaxed).to_be_bytes()[1];
    Ipv4Addr::new(127, 128 | (high & 0x7f), low, scope.max(1))
}

/// One state directory.
#[derive(Debug)]
struct Directory {
    state: TempDir,
    root: PathBuf,
    context: TempDir,
    address: Ipv4Addr,
    backend: Backend,
    oracle: Oracle,
    ports: AtomicU16,
}

impl Directory {
    fn image(&self, image: &PinnedImage) -> PathBuf {
        self.root.join("images").join(image.digest.as_str().trim_start_matches("sha256:"))
    }
}

fn app(name: &str) -> AppName {
    AppName::new(name).unwrap_or_else(|error| unreachable!("{error}"))
}

#[async_trait]
impl Scope for Directory {
    fn backend(&self) -> Backend {
        self.backend.clone()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    fn app(&self) -> AppName {
        app("shop")
    }

    fn neighbour(&self) -> AppName {
        app("neighbour")
    }

    fn service(&self, program: Program, version: &str) -> ServiceSpec {
        let (file, word) = match program {
            Program::Serves => ("./demo", "serve"),
            Program::Exits => ("./demo", "exits"),
            Program::NeverReady => ("./demo", "never-ready"),
            Program::IgnoresStop => ("./demo", "ignores-stop"),
            Program::CannotStart => ("./no-such-program", "serve"),
            other => unreachable!("{other:?} is not known here"),
        };
        ServiceSpec::image(IMAGE)
            .with_command([file, "app", word])
            .with_env("VERSION", version)
            .with_route(Route::new(PORT))
            .with_http_probe("/healthz", PORT)
    }

    fn task(&self, task: TaskProgram) -> Vec<String> {
        let name = match task {
            TaskProgram::Succeeds => "succeeds",
            TaskProgram::Fails => "fails",
            TaskProgram::Lasts => "lasts",
            other => unreachable!("{other:?} is not known here"),
        };
        ["./demo", "app", name].map(str::to_owned).to_vec()
    }

    fn image(&self) -> String {
        IMAGE.to_owned()
    }

    fn missing_image(&self) -> String {
        "conformance/unknown:1".to_owned()
    }

    fn build(&self, build: Build<'_>) -> BuildSpec {
        let recipe = |line: &str| Some(format!("{{\"run\": [{line:?}]}}"));
        let mut spec = BuildSpec::new(self.context.path());
        match build {
            Build::Version(version) => {
                spec = spec.with_arg("VERSION", version);
                spec.dockerfile_inline = recipe("echo $VERSION > version");
            }
            Build::Fails => spec.dockerfile_inline = recipe("echo FATAL: no compiler; exit 1"),
            Build::Unreadable => spec.context = self.context.path().join("nowhere"),
            other => unreachable!("{other:?} is not known here"),
        }
        spec
    }

    fn free_port(&self) -> u16 {
        self.ports.fetch_add(1, Ordering::Relaxed)
    }

    async fn has_image(&self, image: &PinnedImage) -> CaseResult<bool> {
        Ok(self.image(image).join("image.json").exists())
    }

    async fn lose_image(&self, image: &PinnedImage) -> CaseResult {
        Ok(std::fs::remove_dir_all(self.image(image))?)
    }

    async fn request(&self, app: &AppName, entrance: &Entrance, pace: Pace) -> Result<String, String> {
        let (at, host, path) = match entrance {
            Entrance::Route(route) => ((self.address, 8080), route.host.as_deref(), route.path.as_str()),
            Entrance::Published(port) => ((self.address, *port), None, "/"),
            Entrance::Name(service) => {
                let address = self.oracle.address_of(app, service.as_str()).ok_or("nobody is told where it is")?;
                let address: Ipv4Addr = address.parse().map_err(|error| format!("{address}: {error}"))?;
                ((address, PORT), None, "/")
            }
            other => unreachable!("{other:?} is not known here"),
        };
        let path = match pace {
            Pace::Quick => path.to_owned(),
            Pace::Slow => format!("{}/slow", path.trim_end_matches('/')),
        };
        get(at.into(), host.unwrap_or("localhost"), &path).await
    }

    async fn seen(&self, app: &AppName) -> CaseResult<Seen> {
        self.oracle.seen(app)
    }

    async fn kill(&self, instance: &InstanceId) -> CaseResult {
        self.oracle.kill(&self.app(), instance)
    }

    async fn clean_up(&self) -> CaseResult {
        self.oracle.kill_all()?;
        // Each process of a directory that is gone for good was found: whoever is left would make it anew.
        match std::fs::remove_dir_all(Path::new(self.state.path())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CaseFailure::new(error.to_string())),
            _ => Ok(()),
        }
    }
}

/// The body of an answer with status 200, or what came instead.
async fn get(at: SocketAddr, host: &str, path: &str) -> Result<String, String> {
    let exchange = async {
        let mut stream = TcpStream::connect(at).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = exchange.await.map_err(|error| error.to_string())?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(format!("{answer:?}")),
    }
}

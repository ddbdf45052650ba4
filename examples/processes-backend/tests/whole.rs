//! What the published suites do not ask for: what outlives whom, and what only this backend says of itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deployer_core::{
    AppName, AppSpec, Call, CheckCommand, ContainerCheck, DeployOptions, Deployer, ErrorKind, Launch, LogQuery,
    ObserveApp, ObservedInstance, Port, Result, SecretRef, SecretValue, Secrets, ServiceName, ServiceSpec, Timestamp,
    Verdict,
};
use futures_util::TryStreamExt as _;
use processes_backend::{Processes, ProcessesOptions};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PROGRAM: &str = env!("CARGO_BIN_EXE_deployer-processes");

/// A state directory of its own. Whatever still runs for it in the end is killed.
struct Stage {
    directory: TempDir,
    address: Ipv4Addr,
}

impl Stage {
    /// Nobody else has the last number, and nobody else's process the two before.
    fn new(last: u8) -> Self {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let directory = tempfile::Builder::new().prefix("whole-").tempdir().unwrap();
        Self { directory, address: Ipv4Addr::new(127, 128 | (high & 0x7f), low, last) }
    }

    fn state(&self) -> std::path::PathBuf {
        self.directory.path().canonicalize().unwrap().join("state")
    }

    fn options(&self) -> ProcessesOptions {
        let http = SocketAddr::new(self.address.into(), 8080);
        ProcessesOptions::new(self.state(), PROGRAM).with_ingress(http).with_publish_address(self.address.into())
    }

    /// A deployer, and an image with this program in it.
    fn deployer(&self, options: ProcessesOptions) -> Deployer {
        let image = self.directory.path().join("image");
        std::fs::create_dir(&image).unwrap();
        std::os::unix::fs::symlink(PROGRAM, image.join("shop")).unwrap();
        let processes = Processes::open(options).unwrap();
        processes.import("shop:1", &image, &["./shop", "app", "serve"]).unwrap();
        Deployer::new(processes.backend())
    }

    /// The numbers of the processes whose command holds these words and the state directory.
    fn processes(&self, words: &str) -> Vec<i32> {
        let state = self.state().display().to_string();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let entry = entry.unwrap();
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(words) && command.contains(&state) {
                found.push(pid);
            }
        }
        found
    }

    fn kill(&self, words: &str) {
        let found = self.processes(words);
        assert!(!found.is_empty(), "there is no {words}");
        for pid in found {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env("DEPLOYER_STATE", self.state());
        command.env("DEPLOYER_HTTP", format!("{}:8080", self.address)).output().unwrap()
    }
}

/// Asks again and again until there is an answer; a test that waits for ever is ended from outside.
async fn eventually<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::task::yield_now().await;
    }
}

async fn get(at: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
}

fn app() -> AppName {
    AppName::new("shop").unwrap()
}

async fn deploy(deployer: &Deployer, service: ServiceSpec) -> Verdict {
    let spec = AppSpec::new("shop").unwrap().with_service("web", service).unwrap();
    let record = deployer.deploy(spec, DeployOptions::default()).finished().await.unwrap();
    record.verdict.unwrap()
}

async fn destroy(deployer: &Deployer) {
    let record = deployer.destroy(&app(), true).finished().await.unwrap();
    assert_eq!(record.verdict.unwrap().word(), "promoted");
}

fn shell(line: &str) -> ServiceSpec {
    ServiceSpec::image("shop:1").with_command(["/bin/sh", "-c", line])
}

fn serving() -> ServiceSpec {
    let service = ServiceSpec::image("shop:1").with_env("VERSION", "v1").with_http_probe("/healthz", 8080);
    service.with_ports(Port::published(8080, 9090))
}

#[tokio::test]
async fn traffic_goes_on_when_the_deployer_has_ended_and_when_the_proxy_is_killed() {
    let stage = Stage::new(1);
    let context = stage.directory.path().join("context");
    std::fs::create_dir(&context).unwrap();
    let recipe = r#"{"run": ["ln -s \"$PROGRAM\" shop", "echo $VERSION > version"],
                     "image": {"command": ["./shop", "app", "serve"], "ports": [8080]}}"#;
    std::fs::write(context.join("image.json"), recipe).unwrap();
    let compose = format!(
        "name: shop\nservices:\n  web:\n    build:\n      context: context\n      args: {{ PROGRAM: {PROGRAM}, VERSION: v7 }}\n    \
         x-deployer:\n      route: {{ host: shop.localhost, path: /, port: 8080 }}\n"
    );
    let file = stage.directory.path().join("compose.yaml");
    std::fs::write(&file, compose).unwrap();
    let deployed = stage.run(&["deploy", file.to_str().unwrap()]);
    assert!(deployed.status.success(), "{deployed:?}");

    let at = SocketAddr::new(stage.address.into(), 8080);
    assert_eq!(get(at).await.unwrap(), "v7");
    stage.kill(" proxy ");
    eventually(async || get(at).await.ok().filter(|answer| answer == "v7")).await;

    let destroyed = stage.run(&["destroy", "shop"]);
    assert!(destroyed.status.success(), "{destroyed:?}");
    assert!(get(at).await.is_err());
    eventually(async || stage.processes("").is_empty().then_some(())).await;
}

async fn only_instance(stage: &Stage) -> ObservedInstance {
    let backend = Processes::open(stage.options()).unwrap().backend();
    backend.orchestrator.observe(ObserveApp::new(app())).await.unwrap().instances.remove(0)
}

#[tokio::test]
async fn a_program_outlives_its_keeper_and_the_next_keeper_takes_it_over() {
    let stage = Stage::new(2);
    let deployer = stage.deployer(stage.options());
    assert_eq!(deploy(&deployer, serving()).await.word(), "promoted");
    let before = only_instance(&stage).await;
    let at = SocketAddr::new(stage.address.into(), 9090);

    stage.kill(" keep /");
    eventually(async || stage.processes(" keep /").is_empty().then_some(())).await;
    assert_eq!(get(at).await.unwrap(), "v1", "the proxy's keeper was killed as well");
    let orphan = only_instance(&stage).await;
    assert_eq!((orphan.phase, orphan.started_at), (before.phase, before.started_at));

    let release = Arc::new(deployer.releases(&app(), 1).await.unwrap().remove(0));
    let (web, backend) = (ServiceName::new("web").unwrap(), Processes::open(stage.options()).unwrap().backend());
    let revision = release.revisions().remove(&web).unwrap();
    let launch = Launch::new(Call::new("again", Timestamp::default()), release, web, revision, 1);
    backend.orchestrator.launch(launch).await.unwrap();
    let adopted = only_instance(&stage).await;
    assert_eq!((adopted.id, adopted.started_at), (before.id, before.started_at), "it was left alone");

    // Whose child it is, it tells nobody how it ends; but it is started again.
    let status = stage.state().join("apps/shop/instances").join(orphan.id.as_str()).join("status.json");
    let status: serde_json::Value = serde_json::from_slice(&std::fs::read(status).unwrap()).unwrap();
    let pid = i32::try_from(status["program"]["pid"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let again = eventually(async || {
        let found = only_instance(&stage).await;
        (found.crashes == 1 && found.started_at > before.started_at).then_some(found)
    })
    .await;
    assert!(again.exit.unwrap().error.unwrap().contains("keeper"));
    destroy(&deployer).await;
}

#[tokio::test]
async fn a_program_that_wants_more_memory_than_it_may_have_is_killed_and_says_so() {
    let stage = Stage::new(3);
    let deployer = stage.deployer(stage.options());
    let mut greedy = shell("x=$(head -c 100000000 /dev/zero | tr '\\0' x); exec sleep 600");
    greedy.workload.resources.memory_bytes = Some(20 << 20);
    greedy.readiness.min_healthy = Some(Duration::from_secs(60));
    let Verdict::RolledBack { cause } = deploy(&deployer, greedy).await else { panic!("it must fail") };
    assert!(cause.to_string().contains("killed for want of memory"), "{cause}");
    destroy(&deployer).await;
}

#[tokio::test]
async fn a_check_inside_the_instance_decides_when_it_is_ready() {
    let stage = Stage::new(4);
    let deployer = stage.deployer(stage.options());
    let checked = |line: &str, check: &str| {
        let check = ContainerCheck::new(CheckCommand::Shell(check.to_owned()));
        shell(line).with_check(check.with_interval(Duration::from_millis(50)))
    };
    let good = checked("touch ready; exec sleep 600", "test -e ready");
    assert_eq!(deploy(&deployer, good).await.word(), "promoted");
    let bad = checked("exec sleep 600", "echo no database; exit 9").with_ready_deadline(Duration::from_millis(500));
    let Verdict::RolledBack { cause } = deploy(&deployer, bad).await else { panic!("it must fail") };
    assert!(cause.to_string().contains("the check ended with code 9: no database"), "{cause}");
    destroy(&deployer).await;
}

#[derive(Debug)]
struct OneSecret;

const VALUE: &str = "correct horse battery staple";

#[async_trait]
impl Secrets for OneSecret {
    async fn pin(&self, reference: &SecretRef) -> Result<SecretRef> {
        Ok(reference.clone())
    }

    async fn reveal(&self, _reference: &SecretRef) -> Result<SecretValue> {
        Ok(SecretValue::new(VALUE))
    }
}

#[tokio::test]
async fn a_secret_reaches_the_program_and_no_file() {
    let stage = Stage::new(5);
    let processes = stage.options().with_secrets(Arc::new(OneSecret));
    let deployer = stage.deployer(processes.clone());
    let deployer_with = Deployer::builder(Processes::open(processes).unwrap().backend()).secrets(Arc::new(OneSecret));
    let service = shell("echo it has ${#TOKEN} letters; exec sleep 600").with_secret_env("TOKEN", SecretRef::new("t"));
    assert_eq!(deploy(&deployer_with.build(), service).await.word(), "promoted");
    let words = format!("it has {} letters", VALUE.len());
    eventually(async || {
        let lines: Vec<_> = deployer.logs(LogQuery::new(app())).await.unwrap().try_collect().await.unwrap();
        lines.iter().any(|line| line.text == words).then_some(())
    })
    .await;
    let mut read = 0;
    assert_nowhere(&stage.state(), &mut read);
    assert!(read > 10, "{read} files were read");
    destroy(&deployer).await;
}

fn assert_nowhere(directory: &Path, read: &mut u32) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            assert_nowhere(&entry.path(), read);
        } else if kind.is_file() {
            let text = std::fs::read(entry.path()).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&text).contains(VALUE), "{}", entry.path().display());
            *read += 1;
        }
    }
}

#[tokio::test]
async fn what_processes_cannot_do_is_refused_by_name() {
    let stage = Stage::new(6);
    let deployer = stage.deployer(stage.options());
    let mut limited = serving();
    limited.workload.resources.cpu_millis = Some(500);
    limited.workload.hostname = Some("web-1".into());
    let spec = AppSpec::new("shop").unwrap().with_service("web", limited).unwrap();
    let error = deployer.deploy(spec, DeployOptions::default()).finished().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let text = error.report().to_string();
    assert!(text.contains("services.web: processes of this host have no limit of processor time"), "{text}");
    assert!(text.contains("host name of their own"), "{text}");
    assert!(deployer.history(&AppName::new("shop").unwrap()).await.unwrap().is_empty());
}

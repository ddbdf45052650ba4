//! Counts the requests that deployments make to AWS, by operation: `scripts/aws-requests`.
//!
//! On the emulator that `scripts/aws-emulator` starts, with two instances and the release store in memory; how often is
//! looked depends on how long the emulator takes, as on AWS. The last line is for machines.

#[path = "../tests/stage/mod.rs"]
#[expect(dead_code, reason = "tests use more of it")]
mod stage;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use deployer_core::{AppName, AppSpec, DeployOptions, Deployer, DeploymentId, Route, ServiceSpec, Strategy};
use deployer_testkit::MemoryStore;

use stage::{Result, Stage};

/// Operations and how often they were asked for.
type Counts = BTreeMap<String, u32>;

/// Counts requests on their way.
#[derive(Clone, Debug)]
struct Counter {
    counts: Arc<Mutex<Counts>>,
    http: Arc<aws_smithy_http_client::Connector>,
}

impl Counter {
    fn new() -> Self {
        let http = aws_smithy_http_client::Connector::builder().build_http();
        Self { counts: Arc::default(), http: Arc::new(http) }
    }

    fn taken(&self) -> Counts {
        std::mem::take(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HttpClient for Counter {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Counter {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(operation(&request)).or_default() += 1;
        self.http.call(request)
    }
}

/// The operation that a request asks for: in a header with JSON, in the body with forms.
fn operation(request: &HttpRequest) -> String {
    if let Some(target) = request.headers().get("x-amz-target") {
        return target.split('.').next_back().unwrap_or(target).to_owned();
    }
    let body = request.body().bytes().map(String::from_utf8_lossy).unwrap_or_default();
    let action = body.split('&').find_map(|pair| pair.strip_prefix("Action=")).unwrap_or("unknown");
    action.to_owned()
}

fn is_read(operation: &str) -> bool {
    ["Describe", "List", "Get", "BatchGet", "Filter"].iter().any(|word| operation.starts_with(word))
}

#[tokio::main]
async fn main() -> ExitCode {
    let name = format!("count-{}", DeploymentId::fresh().as_str().get(20..).unwrap_or_default());
    let stage = match Stage::new(&name).await {
        Ok(stage) => stage,
        Err(error) => {
            eprintln!("requests: {error}");
            return ExitCode::FAILURE;
        }
    };
    let measured = measure(&stage).await;
    let cleared = stage.clear().await;
    for error in measured.as_ref().err().into_iter().chain(cleared.as_ref().err()) {
        eprintln!("requests: {error}");
    }
    if measured.is_ok() && cleared.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure(stage: &Stage) -> Result<()> {
    let counter = Counter::new();
    let config = stage::config().into_builder().http_client(counter.clone()).build();
    let options = stage.options().with_poll(Duration::from_secs(2));
    let ours = Deployer::new(stage.backend(&config, options, Arc::new(MemoryStore::new()))?);
    let app = AppName::new(&stage.name)?;
    let mut totals = BTreeMap::new();
    let mut tell = |what: &'static str, began: Instant| {
        let counts = counter.taken();
        let (reads, changes): (Counts, Counts) = counts.into_iter().partition(|(operation, _)| is_read(operation));
        let list = |counts: &Counts| {
            counts.iter().map(|(operation, count)| format!("{operation} {count}")).collect::<Vec<_>>().join(", ")
        };
        let (read, changed): (u32, u32) = (reads.values().sum(), changes.values().sum());
        println!("{what}: {changed} changes, {read} reads, {:.1} s", began.elapsed().as_secs_f64());
        println!("  {}\n  {}", list(&changes), list(&reads));
        totals.insert(what, (changed, read));
    };
    for (what, version, broken, warm) in [
        ("first deployment", "v1", None, 0),
        ("blue/green, slots made", "v2", None, 0),
        ("blue/green", "v3", None, 0),
        ("unchanged", "v3", None, 0),
        ("a release that crashes", "v4", Some("exit"), 0),
        ("blue/green, kept warm", "v5", None, 600),
    ] {
        // What was answered a moment ago is asked for again.
        tokio::time::sleep(Duration::from_secs(11)).await;
        let began = Instant::now();
        let spec = spec(stage, version, broken, Duration::from_secs(warm))?;
        let record = ours.deploy(spec, DeployOptions::default()).finished().await?;
        println!("{}", record.verdict.as_ref().map_or_else(|| "no verdict".to_owned(), |verdict| verdict.to_string()));
        tell(what, began);
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    let began = Instant::now();
    ours.rollback(&app, None).finished().await?;
    tell("warm rollback", began);
    let line: Vec<String> = totals.iter().map(|(what, (changes, reads))| format!("{what}={changes}+{reads}")).collect();
    println!("aws-requests: {}", line.join(" "));
    Ok(())
}

fn spec(
    stage: &Stage,
    version: &str,
    broken: Option<&str>,
    keep_warm: Duration,
) -> std::result::Result<AppSpec, Box<dyn Error + Send + Sync>> {
    let mut service = ServiceSpec::image(&stage.image)
        .with_command(["/shop", "web"])
        .with_env("VERSION", version)
        .with_replicas(2)
        .with_route(Route::new(8080))
        .with_drain(Duration::from_secs(1))
        .with_strategy(Strategy::BlueGreen { bake: Duration::ZERO, keep_warm })
        .with_http_probe("/healthz", 8080);
    if let Some(broken) = broken {
        service = service.with_env("BROKEN", broken);
    }
    Ok(AppSpec::new(&stage.name)?.with_service("web", service)?)
}

//! The requests that deployments make to AWS, by operation, beside what others make for the same. All go through one proxy that
//! counts them on their way to the emulator.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use deployer_aws::DynamoStore;
use deployer_core::{
    AppName, AppSpec, DeployOptions, Deployer, DeploymentId, DeploymentRecord, Route, ServiceSpec, Strategy,
};
use deployer_testkit::MemoryStore;
use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::figures::{Section, table};
use crate::machine;
use crate::stage::{self, REGISTRY, Stage};

/// After so long, a backend asks again for what it was answered before.
const FORGOTTEN: Duration = Duration::from_secs(11);
/// How long a backend waits between two looks, unless it is told otherwise.
const POLL: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(20);
/// How long a tool may take to say that a release crashes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Operations and how often they were asked for.
type Counts = BTreeMap<String, u32>;

/// What was asked for, and how long it took.
struct Asked {
    what: String,
    counts: Counts,
    took: Duration,
    /// How it ended, in a few words.
    end: String,
}

impl Asked {
    /// The requests that change something, and those that do not.
    fn sums(&self) -> (u32, u32) {
        let sum =
            |reads: bool| self.counts.iter().filter(|(name, _)| is_read(name) == reads).map(|(_, count)| count).sum();
        (sum(false), sum(true))
    }

    fn list(&self, reads: bool) -> String {
        let list = self.counts.iter().filter(|(name, _)| is_read(name) == reads);
        list.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    }
}

fn is_read(operation: &str) -> bool {
    ["Describe", "List", "Get", "BatchGet", "Filter", "Query"].iter().any(|word| operation.starts_with(word))
}

pub(crate) async fn measure(tools: Option<&Path>) -> Section {
    let counter = Counter::start().await;
    let name = format!("bench-{}", DeploymentId::fresh().as_str().get(20..).unwrap_or_default());
    let stage = Stage::new(&name).await.unwrap_or_else(|error| panic!("{error}"));
    let measured = AssertUnwindSafe(async {
        let ours = ours(&stage, &counter).await;
        let others = match tools {
            Some(tools) => others(&stage, &counter, tools).await,
            None => Vec::new(),
        };
        section(&ours, &others)
    });
    let measured = measured.catch_unwind().await;
    stage.clear().await.unwrap_or_else(|error| panic!("{error}"));
    measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn section(ours: &[Asked], others: &[Asked]) -> Section {
    let mut text = format!(
        "## Requests to AWS\n\n`scripts/bench aws` on {}, on the emulator: one service with two instances; ours behind a load balancer \
         with its traffic moved by blue/green, a look every 2 s, the records \
         on this machine but in the row that says so; the others' without any, revision 1 \
         at first, with ECS's circuit breaker. What changes something + what does not.\n\n",
        machine::describe()
    );
    let mut figures = "aws:".to_owned();
    let mut rows = Vec::new();
    for asked in ours.iter().chain(others) {
        let (changes, reads) = asked.sums();
        println!("{}: {changes} + {reads} in {:.1} s: {}", asked.what, asked.took.as_secs_f64(), asked.end);
        println!("  {}\n  {}", asked.list(false), asked.list(true));
        rows.push(vec![
            asked.what.clone(),
            format!("{changes} + {reads}"),
            format!("{:.1} s", asked.took.as_secs_f64()),
            asked.end.clone(),
            [asked.list(false), asked.list(true)]
                .into_iter()
                .filter(|list| !list.is_empty())
                .collect::<Vec<_>>()
                .join("; "),
        ]);
        let words: Vec<&str> =
            asked.what.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        write!(figures, " {}={changes}+{reads}", words.join("_").to_lowercase()).unwrap();
    }
    text.push_str(&table(&["what", "requests", "took", "ended", "operations"], &rows));
    if others.is_empty() {
        text.push_str("\nNot measured in this run: `ecs-deploy` and the AWS CLI (`--tools`).\n");
    }
    Section { name: "aws".to_owned(), text, figures, picture: None }
}

async fn ours(stage: &Stage, counter: &Counter) -> Vec<Asked> {
    let config = stage::config().into_builder().endpoint_url(format!("http://{}", counter.address)).build();
    let options = stage.options().with_poll(POLL);
    let backend =
        stage.backend(&config, options, Arc::new(MemoryStore::new())).unwrap_or_else(|error| panic!("{error}"));
    let deployer = Deployer::new(backend);
    let app = AppName::new(&stage.name).unwrap();
    let mut all = Vec::new();
    for (what, version, broken, warm) in [
        ("the first deployment", "v1", None, 0),
        ("blue/green for the first time", "v2", None, 0),
        ("blue/green", "v3", None, 0),
        ("nothing has changed", "v3", None, 0),
        ("a release that crashes", "v4", Some("exit"), 0),
        ("blue/green, kept warm", "v5", None, 600),
    ] {
        tokio::time::sleep(FORGOTTEN).await;
        counter.taken();
        let began = Instant::now();
        let spec = spec(stage, version, broken, Duration::from_secs(warm));
        let record = deployer.deploy(spec, DeployOptions::default()).finished().await.unwrap();
        all.push(Asked {
            what: format!("Deployer: {what}"),
            counts: counter.taken(),
            took: began.elapsed(),
            end: word(&record),
        });
    }
    tokio::time::sleep(FORGOTTEN).await;
    counter.taken();
    let began = Instant::now();
    let record = deployer.rollback(&app, None).finished().await.unwrap();
    let end = word(&record);
    all.push(Asked {
        what: "Deployer: back to what is warm".to_owned(),
        counts: counter.taken(),
        took: began.elapsed(),
        end,
    });
    tokio::time::sleep(IDLE).await;
    let (counts, end) = (counter.taken(), "-".to_owned());
    all.push(Asked { what: format!("Deployer: {} s of nothing to do", IDLE.as_secs()), counts, took: IDLE, end });
    all.push(with_records(stage, counter, &config).await);
    all
}

/// Another application, whose records are in DynamoDB: its second blue/green deployment.
async fn with_records(stage: &Stage, counter: &Counter, config: &SdkConfig) -> Asked {
    let store = DynamoStore::new(config, &stage.name);
    store.ensure_table().await.unwrap();
    let options = stage.options().with_poll(POLL);
    let backend = stage.backend(config, options, Arc::new(store)).unwrap_or_else(|error| panic!("{error}"));
    let deployer = Deployer::new(backend);
    let mut asked = None;
    for version in ["v1", "v2", "v3"] {
        tokio::time::sleep(FORGOTTEN).await;
        counter.taken();
        let began = Instant::now();
        let mut spec = spec(stage, version, None, Duration::ZERO);
        spec.name = AppName::new(format!("{}-records", stage.name)).unwrap();
        for service in spec.services.values_mut() {
            service.routes = vec![Route::new(8080).with_host("records.example")];
        }
        let record = deployer.deploy(spec, DeployOptions::default()).finished().await.unwrap();
        let what = "Deployer: blue/green, its records in DynamoDB".to_owned();
        asked = Some(Asked { what, counts: counter.taken(), took: began.elapsed(), end: word(&record) });
    }
    let client = aws_sdk_dynamodb::Client::new(config);
    client.delete_table().table_name(&stage.name).send().await.unwrap();
    asked.unwrap()
}

/// How a deployment has ended, without the reasons.
fn word(record: &DeploymentRecord) -> String {
    let verdict = record.verdict.as_ref().unwrap().to_string();
    verdict.split(':').next().unwrap_or_default().to_owned()
}

fn spec(stage: &Stage, version: &str, broken: Option<&str>, keep_warm: Duration) -> AppSpec {
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
    AppSpec::new(&stage.name).unwrap().with_service("web", service).unwrap()
}

/// The same service by hand: a rolling update by each of the others, which cannot move traffic.
async fn others(stage: &Stage, counter: &Counter, tools: &Path) -> Vec<Asked> {
    let aws = |endpoint: SocketAddr, arguments: &[&str]| {
        let mut command = Command::new(tools.join("aws"));
        command.args(["ecs", "--output", "json"]).args(arguments);
        configure(&mut command, endpoint);
        command
    };
    let emulator: SocketAddr = REGISTRY.parse().unwrap();
    let ended = |output: &Output| if output.status.success() { "done" } else { "failed" }.to_owned();
    let mut all = Vec::new();
    for tool in ["AWS CLI", "ecs-deploy"] {
        let service = format!("{}-{}", stage.name, tool.to_lowercase().replace(' ', "-"));
        let register = |version: &str, broken: &str| definition(stage, &service, version, broken);
        must(aws(emulator, &["register-task-definition", "--cli-input-json", &register("v1", "")])).await;
        let breaker = "deploymentCircuitBreaker={enable=true,rollback=true}";
        let network = "awsvpcConfiguration={subnets=[subnet-1,subnet-2],securityGroups=[sg-1],assignPublicIp=DISABLED}";
        must(aws(
            emulator,
            &[
                "create-service",
                "--cluster",
                &stage.name,
                "--service-name",
                &service,
                "--task-definition",
                &service,
                "--desired-count",
                "2",
                "--launch-type",
                "FARGATE",
                "--network-configuration",
                network,
                "--deployment-configuration",
                breaker,
            ],
        ))
        .await;
        must(aws(emulator, &["wait", "services-stable", "--cluster", &stage.name, "--services", &service])).await;
        for (what, version, broken) in [("an update", "v2", ""), ("a release that crashes", "v3", "exit")] {
            counter.taken();
            let began = Instant::now();
            let end = async {
                if tool == "ecs-deploy" {
                    let mut command = Command::new(tools.join("ecs"));
                    command.args(["deploy", &stage.name, &service]);
                    command.args(["-e", "web", "VERSION", version, "-e", "web", "BROKEN", broken]);
                    configure(&mut command, counter.address);
                    return ended(&command.output().await.unwrap());
                }
                let input = register(version, broken);
                must(aws(counter.address, &["register-task-definition", "--cli-input-json", &input])).await;
                let of = ["--cluster", &stage.name];
                let update = ["--service", &service, "--task-definition", &service];
                must(aws(counter.address, &[&["update-service"], &of[..], &update].concat())).await;
                let wait = ["wait", "services-stable", "--cluster", &stage.name, "--services", &service];
                ended(&aws(counter.address, &wait).output().await.unwrap())
            };
            let end = tokio::time::timeout(PATIENCE, end).await;
            let end = end.unwrap_or_else(|_| format!("had not said anything after {} s", PATIENCE.as_secs()));
            let (counts, took) = (counter.taken(), began.elapsed());
            // ECS brings back by itself what was there before.
            tokio::time::sleep(FORGOTTEN).await;
            let query = ["--query", "services[0].taskDefinition", "--cluster", &stage.name, "--services", &service];
            let described = aws(emulator, &[&["describe-services"], &query[..]].concat()).output().await.unwrap();
            let described = String::from_utf8_lossy(&described.stdout).trim().trim_matches('"').to_owned();
            let revision = described.rsplit(':').next().unwrap_or_default().to_owned();
            all.push(Asked {
                what: format!("{tool}: {what}"),
                counts,
                took,
                end: format!("{end}, revision {revision} serves"),
            });
        }
    }
    all
}

/// The task definition of the others, as the AWS CLI takes it.
fn definition(stage: &Stage, family: &str, version: &str, broken: &str) -> String {
    let image = &stage.image;
    format!(
        r#"{{"family": "{family}", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512",
            "containerDefinitions": [{{"name": "web", "image": "{image}", "command": ["/shop", "web"], "essential": true,
            "portMappings": [{{"containerPort": 8080}}],
            "healthCheck": {{"command": ["CMD", "/shop", "healthcheck"], "interval": 5, "timeout": 2, "retries": 3}},
            "environment": [{{"name": "VERSION", "value": "{version}"}}, {{"name": "BROKEN", "value": "{broken}"}}]}}]}}"#
    )
}

fn configure(command: &mut Command, endpoint: SocketAddr) {
    command.env("AWS_ENDPOINT_URL", format!("http://{endpoint}")).env("AWS_DEFAULT_REGION", "us-east-1");
    command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").env("AWS_PAGER", "");
    // What is over its time is ended with the measurement.
    command.kill_on_drop(true);
}

async fn must(mut command: Command) {
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Counts requests on their way.
struct Counter {
    address: SocketAddr,
    counts: Arc<Mutex<Counts>>,
}

impl Counter {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let counter = Self { address: listener.local_addr().unwrap(), counts: Arc::default() };
        let counts = Arc::clone(&counter.counts);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let counts = Arc::clone(&counts);
                // A connection that breaks is the client's to notice.
                tokio::spawn(async move { pass(client, &counts).await.ok() });
            }
        });
        counter
    }

    fn taken(&self) -> Counts {
        std::mem::take(&mut self.counts.lock().unwrap())
    }
}

/// Passes requests on one by one, and answers as they come.
async fn pass(client: TcpStream, counts: &Mutex<Counts>) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(REGISTRY).await?.into_split();
    let answers = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut waiting = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = waiting.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if from_client.read_buf(&mut waiting).await? == 0 {
                drop(to_server);
                answers.await.ok();
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&waiting[..head]).into_owned();
        let header = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while waiting.len() < head + length {
            if from_client.read_buf(&mut waiting).await? == 0 {
                return Ok(());
            }
        }
        // In a header with JSON, in the body with forms.
        let body = String::from_utf8_lossy(&waiting[head..head + length]).into_owned();
        let action = || body.split('&').find_map(|pair| pair.strip_prefix("Action=")).map(str::to_owned);
        let target = header("x-amz-target").and_then(|target| target.split('.').next_back().map(str::to_owned));
        let operation = target.or_else(action).unwrap_or_else(|| text.lines().next().unwrap_or_default().to_owned());
        *counts.lock().unwrap().entry(operation).or_default() += 1;
        to_server.write_all(&waiting[..head + length]).await?;
        waiting.drain(..head + length);
    }
}

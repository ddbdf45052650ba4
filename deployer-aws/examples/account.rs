//! Proves the backend in an account of AWS: `scripts/account --account ID [--yes]`.
//!
//! It makes an environment with a name that nobody has, deploys to it, updates, cancels, breaks and rolls back under requests,
//! and removes all of it, also after a failure. It touches nothing else, and nothing at all if the credentials are of another
//! account than the one that is named. The last line is `account: STEPS steps, SENT requests, LOST lost`.

use std::error::Error;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use deployer_aws::{
    Architecture, AwsBackend, Environment, EnvironmentOutputs, EnvironmentSpec, KeptResource, config_from_env,
};
use deployer_core::{
    AppName, AppSpec, BuildSpec, CanaryStep, DeployOptions, Deployer, Deployment, DeploymentId, ErrorKind, EventKind,
    JournalEvent, Port, Progress, ProgressSink, Retention, Route, ServiceSpec, Strategy, Verdict,
};
use deployer_local::{DockerBuilder, Engine};
use deployer_testkit::load::{Load, Mode, Report};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};

const USAGE: &str = "usage: scripts/account --account ID [--yes]";
const APP: &str = "proof";
const HOST: &str = "proof.example";
/// The port that is published.
const PUBLISHED: u16 = 9080;
const SECOND: Duration = Duration::from_secs(1);
/// What images are built for: this machine's processors, as the program in them.
const ARCHITECTURE: Architecture =
    if cfg!(target_arch = "aarch64") { Architecture::Arm64 } else { Architecture::X86_64 };

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> ExitCode {
    let (account, yes) = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("account: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&account, yes).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("account: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The account that is meant, and whether it may cost something.
fn options(mut arguments: impl Iterator<Item = String>) -> Result<(String, bool), String> {
    let (mut account, mut yes) = (None, false);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--account" => account = Some(arguments.next().ok_or("--account needs the account's id")?),
            "--yes" => yes = true,
            other => return Err(format!("there is no option {other}")),
        }
    }
    Ok((account.ok_or("the account must be named, so that it is no other one")?, yes))
}

async fn run(account: &str, yes: bool) -> Result<()> {
    let config = config_from_env().await;
    let region = config.region().ok_or("no region is set: name one in AWS_REGION")?.to_string();
    let caller = aws_sdk_sts::Client::new(&config).get_caller_identity().send().await.map_err(aws)?;
    let found = caller.account().unwrap_or_default();
    if found != account {
        return Err(format!("the credentials are of account {found}, not {account}: nothing was touched").into());
    }
    let id = DeploymentId::fresh().to_string();
    let name = format!("deployer-{}", &id[id.len() - 8..]);
    println!("environment {name} in {region} of account {account}");
    if !yes {
        println!(
            "it would have a VPC, two load balancers and a few Fargate tasks for about half an hour, which costs some cents"
        );
        println!("nothing was touched; go on with --yes");
        return Ok(());
    }
    let mut proof = Proof::new(config, name).await?;
    let played = proof.play().await;
    if let Err(error) = &played {
        eprintln!("account: {error}; removing what was made");
    }
    let cleared = proof.clear().await;
    let report = played?;
    cleared?;
    println!("{report}");
    println!("account: {} steps, {} requests, {} lost", proof.steps, report.sent, report.lost);
    if report.lost == 0 { Ok(()) } else { Err("requests were lost".into()) }
}

/// An environment that is made, used and removed.
struct Proof {
    config: SdkConfig,
    name: String,
    app: AppName,
    environments: Environment,
    context: PathBuf,
    deployer: Option<Deployer>,
    steps: u32,
    began: Instant,
}

impl Proof {
    async fn new(config: SdkConfig, name: String) -> Result<Self> {
        let environments = Environment::new(&config);
        match environments.options(&name).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(format!("there is an environment {name} already: nothing was touched").into()),
        }
        let context = image_context()?;
        let (app, began) = (AppName::new(APP)?, Instant::now());
        Ok(Self { config, name, app, environments, context, deployer: None, steps: 0, began })
    }

    /// Says what was done and how long that took.
    fn done(&mut self, what: impl Display) {
        println!("{:>8.1} s  {what}", self.began.elapsed().as_secs_f64());
        self.steps += 1;
        self.began = Instant::now();
    }

    async fn play(&mut self) -> Result<Report> {
        let spec = EnvironmentSpec::new(&self.name)
            .with_architecture(ARCHITECTURE)
            .with_published_ports([PUBLISHED])
            .with_log_retention_days(1)
            .with_keep_logs(false);
        self.environments.apply(&spec, &Told).await?;
        self.done("the environment is made");
        let drift = self.environments.drift(&self.name).await?;
        self.done(format!("its drift: {drift}"));

        let builder = Arc::new(DockerBuilder::new(Engine::connect().await?));
        let backend = AwsBackend::in_environment(&self.config, &self.name, builder).await?;
        let deployer = Deployer::builder(backend).build();
        self.deployer = Some(deployer.clone());
        let there = self.environments.options(&self.name).await?;
        let warm = Strategy::BlueGreen { bake: 5 * SECOND, keep_warm: 600 * SECOND };
        let canary = Strategy::Canary { steps: vec![CanaryStep { weight: 20, hold: 30 * SECOND }] };
        let deploy = |spec: AppSpec| deployer.deploy(spec, DeployOptions::default());

        let preview = deployer.plan(&self.spec("v1", "", &warm)?, &DeployOptions::default()).await?;
        self.done(format!("a plan of {} steps", preview.plan.steps.len()));
        self.ends("v1 is deployed", deploy(self.spec("v1", "", &warm)?), "promoted").await?;
        let address = self.address(&there).await?;
        self.answers(address, "v1").await?;
        let load = Load::new(address, HOST).path("/version").rate(50).mode(Mode::Mixed).start();

        self.ends("v2 is deployed blue/green", deploy(self.spec("v2", "", &warm)?), "promoted").await?;
        let back = deployer.rollback(&self.app, None);
        self.ends("v1 is back, which was kept warm", back, "promoted").await?;
        let cancelled = cancelled_at_20_percent(deploy(self.spec("v3", "", &canary)?)).await?;
        self.is("v3 is cancelled with a fifth of the traffic", &cancelled, "cancelled")?;
        self.ends("v4 crashes", deploy(self.spec("v4", "exit", &warm)?), "rolled-back").await?;
        self.ends("v5 is deployed in steps", deploy(self.spec("v5", "", &canary)?), "promoted").await?;
        self.answers(address, "v5").await?;
        let published = self.published(&there).await?;
        self.answers(published, "v5").await?;
        let report = load.stop().await;

        let pruned = deployer.prune(&self.app, Retention::releases(1)).await?;
        self.done(format!(
            "pruned {} releases, {} images and {} task definitions",
            pruned.releases.len(),
            pruned.images.len(),
            pruned.definitions.len()
        ));
        Ok(report)
    }

    fn spec(&self, version: &str, broken: &str, strategy: &Strategy) -> Result<AppSpec> {
        let web = ServiceSpec::build(BuildSpec::new(&self.context))
            .with_env("VERSION", version)
            .with_env("BROKEN", broken)
            .with_replicas(2)
            .with_route(Route::new(8080).with_host(HOST))
            .with_ports(Port::published(8080, PUBLISHED))
            .with_http_probe("/healthz", 8080)
            .with_ready_deadline(300 * SECOND)
            .with_drain(10 * SECOND)
            .with_strategy(strategy.clone());
        Ok(AppSpec::new(APP)?.with_service("web", web)?)
    }

    async fn ends(&mut self, what: &str, deployment: Deployment, word: &str) -> Result<()> {
        let verdict = deployment.finished().await?.verdict.ok_or("a deployment without a verdict")?;
        self.is(what, &verdict, word)
    }

    fn is(&mut self, what: &str, verdict: &Verdict, word: &str) -> Result<()> {
        let found = match verdict {
            Verdict::Promoted { .. } => "promoted",
            Verdict::RolledBack { .. } => "rolled-back",
            Verdict::Cancelled { .. } => "cancelled",
            _ => "needs-attention",
        };
        if found != word {
            return Err(format!("{what}: {word} was expected, not\n{verdict}").into());
        }
        self.done(format!("{what}: {verdict}"));
        Ok(())
    }

    /// Where the load balancer answers. An emulator says where it listens for a listener.
    async fn address(&self, there: &EnvironmentOutputs) -> Result<SocketAddr> {
        if let Some(emulator) = self.config.endpoint_url() {
            let host = emulator.trim_start_matches("http://");
            let listeners: serde_json::Value = serde_json::from_str(&get(host, host, "/_lab").await?)?;
            let listener = there.options.listener.as_deref().unwrap_or_default();
            let address = listeners["listeners"][listener].as_str().ok_or("nobody listens for the listener")?;
            return Ok(address.parse()?);
        }
        found(&there.address, 80).await
    }

    /// Where the published port answers. An emulator listens at the same port of this machine.
    async fn published(&self, there: &EnvironmentOutputs) -> Result<SocketAddr> {
        if self.config.endpoint_url().is_some() {
            return Ok(([127, 0, 0, 1], PUBLISHED).into());
        }
        found(there.published_address.as_deref().ok_or("the environment publishes nothing")?, PUBLISHED).await
    }

    /// Waits until this version answers: a load balancer may not listen at once.
    async fn answers(&mut self, address: SocketAddr, version: &str) -> Result<()> {
        let mut last = String::new();
        for _ in 0..60 {
            match get(&address.to_string(), HOST, "/version").await {
                Ok(answer) if answer.trim() == version => {
                    self.done(format!("{version} answers at {address}"));
                    return Ok(());
                }
                Ok(answer) => last = answer,
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(SECOND).await;
        }
        Err(format!("{version} does not answer at {address}, but {last}").into())
    }

    /// Removes everything of the environment, as far as it was made, and says what is left.
    async fn clear(&mut self) -> Result<()> {
        let mut left = Vec::new();
        if let Some(deployer) = self.deployer.take() {
            match deployer.destroy(&self.app, true).finished().await {
                Ok(record) if matches!(record.verdict, Some(Verdict::Promoted { .. })) => {}
                Ok(record) => left.push(format!("the application: {:?}", record.verdict)),
                Err(error) => left.push(format!("the application: {error}")),
            }
            self.done("the application is destroyed");
        }
        match self.environments.delete(&self.name, &Told).await {
            Ok(kept) => {
                for one in kept {
                    if let Err(error) = self.delete_kept(&one).await {
                        left.push(format!("{one}: {error}"));
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => left.push(format!("the environment: {error}")),
        }
        let repository = format!("deployer/{}/{APP}/web", self.name);
        let images = aws_sdk_ecr::Client::new(&self.config);
        match images.delete_repository().repository_name(&repository).force(true).send().await {
            Ok(_) => {}
            Err(error) if error.as_service_error().is_some_and(|error| error.is_repository_not_found_exception()) => {}
            Err(error) => left.push(format!("the repository {repository}: {}", aws(error))),
        }
        self.done("the environment is removed");
        if left.is_empty() { Ok(()) } else { Err(format!("this is left of {}: {}", self.name, left.join("; ")).into()) }
    }

    /// Deletes what an environment keeps because it may be worth something.
    async fn delete_kept(&self, kept: &KeptResource) -> Result<()> {
        if kept.physical_id != self.name {
            return Err("it does not have the environment's name, and stays".into());
        }
        match kept.kind.as_str() {
            "AWS::DynamoDB::Table" => {
                let call = aws_sdk_dynamodb::Client::new(&self.config).delete_table().table_name(&kept.physical_id);
                call.send().await.map(drop).map_err(aws)
            }
            kind => Err(format!("nobody knows how to delete {kind}").into()),
        }
    }
}

/// An address of a name. That of a load balancer which was just made is not known everywhere at once.
async fn found(name: &str, port: u16) -> Result<SocketAddr> {
    for _ in 0..60 {
        if let Ok(mut found) = lookup_host((name, port)).await
            && let Some(address) = found.find(SocketAddr::is_ipv4)
        {
            return Ok(address);
        }
        tokio::time::sleep(5 * SECOND).await;
    }
    Err(format!("nobody knows the name {name}").into())
}

/// Cancels a deployment as soon as the new version has a part of the traffic.
async fn cancelled_at_20_percent(mut deployment: Deployment) -> Result<Verdict> {
    let mut shifted = 0;
    while let Some(event) = deployment.next_event().await {
        let EventKind::Journal { entry } = &event.kind else { continue };
        match &entry.event {
            JournalEvent::Opened { plan, .. } => {
                let shift =
                    plan.steps.iter().position(|step| matches!(step.action, deployer_core::Action::Shift { .. }));
                shifted = shift.ok_or("the plan moves no traffic")?;
            }
            JournalEvent::StepFinished { step, .. } if step.0 as usize == shifted => deployment.cancel("account"),
            _ => {}
        }
    }
    Ok(deployment.finished().await?.verdict.ok_or("a deployment without a verdict")?)
}

/// A directory from which the image is built: one static program, which takes its version from the environment.
fn image_context() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !Command::new(root.join("scripts/shop")).status()?.success() {
        return Err("scripts/shop cannot compile the program".into());
    }
    let context = root.join("target/account");
    std::fs::create_dir_all(&context)?;
    std::fs::copy(root.join("examples/quickstart/app/shop"), context.join("shop"))?;
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY shop /shop\nCMD [\"/shop\", \"web\"]\n")?;
    Ok(context)
}

/// The body of an answer to a request on a connection of its own.
async fn get(address: &str, host: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").ok_or("the connection ended without an answer")?.1.to_owned())
}

/// What AWS says, with all causes.
fn aws<E: Error>(error: E) -> Box<dyn Error + Send + Sync> {
    aws_sdk_ecs::error::DisplayErrorContext(error).to_string().into()
}

/// Tells what CloudFormation does.
struct Told;

impl ProgressSink for Told {
    fn progress(&self, step: Progress) {
        println!("            {}: {}", step.item, step.message);
    }
}

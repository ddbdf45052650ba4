//! The tools that are compared. Each brings the same service up, moves it to another version, and back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{ExitCode, Output};
use std::time::Duration;

use deployer_core::{AppSpec, CanaryStep, DeployOptions, EnvValue, ImageSource, Strategy};
use tokio::process::Command;

use crate::Choice;
use crate::site::{Place, Site, service};

const STRATEGY: &str = "DEPLOYER_BENCH_STRATEGY";
const REPLICAS: &str = "DEPLOYER_BENCH_REPLICAS";
const VERSION: &str = "DEPLOYER_BENCH_VERSION";
const BROKEN: &str = "DEPLOYER_BENCH_BROKEN";
/// The version of Deployer's own rollback.
const BACK: &str = "back";

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Deployer, with this strategy.
    Deployer(&'static str),
    /// `docker-compose up -d`.
    Compose,
    /// docker-rollout, whose script is there.
    Rollout(PathBuf),
}

impl Tool {
    /// All that are wanted.
    pub(crate) fn all(choice: &Choice) -> Vec<Self> {
        let strategies = ["blue-green", "blue-green, standby kept", "rolling", "canary", "recreate"];
        let mut tools: Vec<Self> = strategies.map(Self::Deployer).to_vec();
        tools.push(Self::Compose);
        tools.extend(choice.rollout.as_deref().map(|path| Self::Rollout(std::path::absolute(path).unwrap())));
        tools.retain(|tool| choice.only.as_ref().is_none_or(|only| tool.name().contains(only)));
        tools
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Deployer(strategy) => format!("Deployer, {strategy}"),
            Self::Compose => "docker-compose up".to_owned(),
            Self::Rollout(_) => "docker-rollout".to_owned(),
        }
    }

    /// Its file for the machine.
    pub(crate) fn key(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        self.name().to_lowercase().replace(", ", "-").chars().map(plain).collect()
    }
}

/// A tool with a service of its own that runs.
#[derive(Debug)]
pub(crate) struct Stand {
    tool: Tool,
    replicas: u32,
    pub(crate) site: Site,
}

impl Stand {
    /// Brings the service up in version `v1`.
    pub(crate) async fn new(tool: &Tool, replicas: u32) -> Self {
        let site = Site::new("bench").await;
        let stand = Self { tool: tool.clone(), replicas, site };
        if !matches!(tool, Tool::Deployer(_)) {
            stand.write_files();
        }
        match tool {
            Tool::Deployer(_) => stand.run("v1").await,
            Tool::Compose | Tool::Rollout(_) => {
                let up = stand.compose("v1", "", &["up", "-d", "--scale", &format!("web={replicas}")]);
                succeeded(up).await;
                stand.start_front().await;
            }
        }
        stand.serves("v1").await;
        stand
    }

    /// What a user types to get this version.
    pub(crate) fn command(&self, version: &str, broken: &str) -> Command {
        let scale = format!("web={}", self.replicas);
        match &self.tool {
            Tool::Deployer(strategy) => {
                let mut command = std::process::Command::new(std::env::current_exe().unwrap());
                self.site.place.tell(&mut command).env(STRATEGY, strategy).env(VERSION, version).env(BROKEN, broken);
                command.env(REPLICAS, self.replicas.to_string());
                command.into()
            }
            Tool::Compose => self.compose(version, broken, &["up", "-d", "--scale", &scale]),
            Tool::Rollout(script) => {
                let mut command = Command::new("sh");
                command.arg(script).args(["rollout", "web"]);
                self.in_project(&mut command, version, broken);
                command
            }
        }
    }

    /// The same for what was there before.
    pub(crate) fn way_back(&self) -> Command {
        match self.tool {
            Tool::Deployer(_) => self.command(BACK, ""),
            // They know no other way back than forward.
            Tool::Compose | Tool::Rollout(_) => self.command("v1", ""),
        }
    }

    /// Deploys a version that must work.
    async fn run(&self, version: &str) {
        succeeded(self.command(version, "")).await;
    }

    /// Waits until this version answers.
    async fn serves(&self, version: &str) {
        for _ in 0..600 {
            let answer = crate::site::get(self.site.place.http, "/version").await;
            if answer.is_ok_and(|answer| answer == (200, version.to_owned())) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{}: {version} does not answer", self.tool.name());
    }

    fn compose(&self, version: &str, broken: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker-compose");
        command.args(["--ansi", "never"]).args(arguments);
        self.in_project(&mut command, version, broken);
        command
    }

    fn in_project(&self, command: &mut Command, version: &str, broken: &str) {
        command.current_dir(self.site.state()).env("COMPOSE_PROJECT_NAME", self.site.app().as_str());
        command.env("VERSION", version).env("BROKEN", broken);
    }

    /// The Compose file, and the proxy's, which has the rules of Deployer's own.
    fn write_files(&self) {
        let directory = self.site.state();
        // As long as each of the tools allows a version to become healthy.
        let file = "version: '3.8'\nservices:\n  web:\n    image: shop:${VERSION}\n    command: [/shop, web]\n    \
                    environment: { VERSION: \"${VERSION}\", BROKEN: \"${BROKEN}\" }\n    \
                    healthcheck: { test: [CMD, /shop, healthcheck], interval: 1s, timeout: 2s, retries: 3 }\n    \
                    stop_grace_period: 10s\n    restart: unless-stopped\n    \
                    deploy: { resources: { limits: { cpus: '0.50', memory: 64M } } }\n";
        std::fs::write(directory.join("docker-compose.yml"), file).unwrap();
        let mut proxy = include_str!("front.cfg").to_owned();
        writeln!(proxy, "  server-template web {} web:8080 {CHECK}", 2 * self.replicas + 4).unwrap();
        let front = directory.join("front");
        std::fs::create_dir(&front).unwrap();
        std::fs::write(front.join("haproxy.cfg"), proxy).unwrap();
        let hold = include_str!("../../deployer-local/src/proxy/hold.lua");
        std::fs::write(front.join("hold.lua"), hold).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        for path in [directory.to_owned(), front] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    async fn start_front(&self) {
        let mut command = Command::new("docker");
        let (place, app) = (&self.site.place, self.site.app());
        command.args(["run", "-d", "--name", &place.ingress(), "--network", &format!("{app}_default")]);
        command.args(["-p", &format!("{}:8080", place.http)]);
        command.args(["-v", &format!("{}:/run/deployer:ro", self.site.state().join("front").display())]);
        command.args(["haproxy:2.6-alpine", "haproxy", "-f", "/run/deployer/haproxy.cfg"]);
        succeeded(command).await;
    }
}

/// How Deployer's proxy checks a server, with the name server of the engine to find them.
const CHECK: &str = "check inter 1s fastinter 100ms downinter 100ms fall 2 rise 1 observe layer4 error-limit 1 \
                     on-error mark-down resolvers engine init-addr none";

async fn succeeded(mut command: Command) {
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(status.success(), "{command:?}: {text}");
}

/// What this program does when a measurement has started it as the deployer: so its own processor time can be told.
pub(crate) async fn act_as_deployer(place: Place) -> ExitCode {
    let variable = |name: &str| std::env::var(name).unwrap();
    let deployer = place.deployer().await.build();
    let version = variable(VERSION);
    let deployment = if version == BACK {
        deployer.rollback(&place.app, None)
    } else {
        let spec = shop(&place, &version, &variable(BROKEN), &variable(STRATEGY), variable(REPLICAS).parse().unwrap());
        deployer.deploy(spec, DeployOptions::default())
    };
    match deployment.finished().await {
        Ok(record) => {
            let verdict = record.verdict.unwrap();
            if verdict.is_promoted() {
                return ExitCode::SUCCESS;
            }
            eprintln!("{verdict}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The web service of the shop alone, of images that are there.
fn shop(place: &Place, version: &str, broken: &str, strategy: &str, replicas: u32) -> AppSpec {
    let mut spec = place.shop(&[("VERSION", version)]);
    spec.services.retain(|name, _| name.as_str() == "web");
    spec.volumes.clear();
    let web = service(&mut spec, "web");
    web.image = ImageSource::Reference(format!("shop:{version}"));
    web.replicas = replicas;
    web.depends_on.clear();
    web.hooks.clear();
    let variables = [("VERSION", version), ("BROKEN", broken)];
    let variables = variables.map(|(name, value)| (name.to_owned(), EnvValue::Plain(value.to_owned())));
    web.workload.env = BTreeMap::from(variables);
    let (none, kept) = (Duration::ZERO, Duration::from_secs(600));
    web.strategy = match strategy {
        "blue-green" => Strategy::BlueGreen { bake: none, keep_warm: none },
        "blue-green, standby kept" => Strategy::BlueGreen { bake: none, keep_warm: kept },
        "rolling" => Strategy::Rolling { surge: 1, unavailable: 0 },
        "canary" => Strategy::Canary { steps: vec![CanaryStep { weight: 20, hold: Duration::from_secs(1) }] },
        "recreate" => Strategy::Recreate,
        other => panic!("{other} is no strategy"),
    };
    spec
}

/// Builds the images of the shop that all of them use.
pub(crate) async fn build_images() {
    let site = Site::new("bench-images").await;
    for version in ["v1", "v2"] {
        site.deploy_well(site.version(version)).await;
    }
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

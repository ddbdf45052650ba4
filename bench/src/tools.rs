//! The tools that are compared. Each brings the same service up, moves it to another version, and back.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{ExitCode, Output};
use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::ListContainersOptionsBuilder;
use deployer_core::{AppSpec, CanaryStep, DeployOptions, EnvValue, ImageSource, Strategy};
use tokio::process::Command;

use crate::Choice;
use crate::site::{Place, Site, service};
use crate::swarm::{ADDRESS, NETWORK, Swarm};

const STRATEGY: &str = "DEPLOYER_BENCH_STRATEGY";
const REPLICAS: &str = "DEPLOYER_BENCH_REPLICAS";
const VERSION: &str = "DEPLOYER_BENCH_VERSION";
const BROKEN: &str = "DEPLOYER_BENCH_BROKEN";
/// The version of Deployer's own rollback.
const BACK: &str = "back";

/// What is compared.
#[derive(Clone, Debug)]
pub(crate) enum Tool {
    /// Deployer, with this strategy.
    Deployer(&'static str),
    /// `docker-compose up -d`.
    Compose,
    /// docker-rollout, whose script is there.
    Rollout(PathBuf),
    /// `docker service update` on a swarm, the new tasks first and all at once.
    Swarm(Arc<Swarm>),
}

impl Tool {
    /// All that are wanted.
    pub(crate) fn all(choice: &Choice) -> Vec<Self> {
        let strategies = ["blue-green", "blue-green, standby kept", "rolling", "canary", "recreate"];
        let mut tools: Vec<Self> = strategies.map(Self::Deployer).to_vec();
        tools.push(Self::Compose);
        tools.extend(choice.rollout.as_deref().map(|path| Self::Rollout(std::path::absolute(path).unwrap())));
        let wanted = |name: &str| choice.only.as_ref().is_none_or(|only| name.contains(only));
        tools.retain(|tool| wanted(&tool.name()));
        if choice.swarm && wanted(SWARM) {
            tools.push(Self::Swarm(Arc::new(Swarm::start(&["shop:v1", "shop:v2", PROXY]))));
        }
        tools
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Deployer(strategy) => format!("Deployer, {strategy}"),
            Self::Compose => "docker-compose up".to_owned(),
            Self::Rollout(_) => "docker-rollout".to_owned(),
            Self::Swarm(_) => SWARM.to_owned(),
        }
    }

    /// Its name for machines.
    pub(crate) fn key(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        self.name().to_lowercase().replace(", ", "_").chars().map(plain).collect()
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
        let mut site = Site::new("bench").await;
        if let Tool::Swarm(_) = tool {
            site.place.http.set_ip(ADDRESS.parse().unwrap());
        }
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
            Tool::Swarm(swarm) => {
                succeeded(swarm_create(swarm, stand.site.app().as_str(), replicas)).await;
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
            Tool::Swarm(swarm) => {
                let mut command = swarm.docker();
                command.args(["service", "update", "--quiet", "--no-resolve-image"]);
                command.args(["--image", &format!("shop:{version}"), "--env-add", &format!("VERSION={version}")]);
                command.args(["--env-add", &format!("BROKEN={broken}"), self.site.app().as_str()]);
                command.into()
            }
        }
    }

    /// The same for what was there before.
    pub(crate) fn way_back(&self) -> Command {
        match self.tool {
            Tool::Deployer(_) => self.command(BACK, ""),
            // They know no other way back than forward.
            Tool::Compose | Tool::Rollout(_) => self.command("v1", ""),
            Tool::Swarm(ref swarm) => {
                let mut command = swarm.docker();
                command.args(["service", "rollback", "--quiet", self.site.app().as_str()]);
                command.into()
            }
        }
    }

    /// Deploys a version that must work.
    async fn run(&self, version: &str) {
        succeeded(self.command(version, "")).await;
    }

    /// How many containers of the service there are, running or not.
    pub(crate) async fn containers(&self) -> usize {
        let app = self.site.app();
        if let Tool::Swarm(swarm) = &self.tool {
            let mut list = swarm.docker();
            list.args(["ps", "-aq", "--filter", &format!("label=com.docker.swarm.service.name={app}")]);
            let output = Command::from(list).output().await.unwrap();
            return String::from_utf8_lossy(&output.stdout).lines().count();
        }
        let labels = [
            format!("com.docker.compose.project={app}"),
            "com.docker.compose.service=web".to_owned(),
            "com.docker.compose.oneoff=False".to_owned(),
        ];
        let filter = HashMap::from([("label".to_owned(), labels.to_vec())]);
        let all = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
        self.site.docker.list_containers(Some(all)).await.unwrap().len()
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
        // Each of the name servers has a name of its own for all that answers.
        let name = if let Tool::Swarm(_) = self.tool { format!("tasks.{}", self.site.app()) } else { "web".to_owned() };
        writeln!(proxy, "  server-template web {} {name}:8080 {CHECK}", 2 * self.replicas + 4).unwrap();
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
        let (place, app) = (&self.site.place, self.site.app());
        let (mut command, network) = match &self.tool {
            Tool::Swarm(swarm) => (swarm.docker().into(), NETWORK.to_owned()),
            _ => (Command::new("docker"), format!("{app}_default")),
        };
        command.args(["run", "-d", "--name", &place.ingress(), "--network", &network]);
        command.args(["-p", &format!("{}:8080", place.http)]);
        command.args(["-v", &format!("{}:/run/deployer:ro", self.site.state().join("front").display())]);
        command.args([PROXY, "haproxy", "-f", "/run/deployer/haproxy.cfg"]);
        succeeded(command).await;
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if let Tool::Swarm(swarm) = &self.tool {
            // The site clears the usual engine only.
            let _gone = swarm.docker().args(["rm", "--force", &self.site.place.ingress()]).output();
            let _gone = swarm.docker().args(["service", "rm", self.site.app().as_str()]).output();
        }
    }
}

/// The service with the best settings for what is measured: no pause, new tasks first and all at once, watched for the shortest
/// time that is longer than a check, and brought back by itself.
fn swarm_create(swarm: &Swarm, name: &str, replicas: u32) -> Command {
    let mut command = swarm.docker();
    command.args(["service", "create", "--quiet", "--name", name, "--network", NETWORK, "--no-resolve-image"]);
    command.args(["--endpoint-mode", "dnsrr", "--replicas", &replicas.to_string()]);
    command.args(["--env", "VERSION=v1", "--env", "BROKEN=", "--stop-grace-period", "10s"]);
    command.args(["--health-cmd", "/shop healthcheck", "--health-interval", "1s", "--health-timeout", "2s"]);
    command.args(["--health-retries", "3", "--limit-cpu", "0.5", "--limit-memory", "64M"]);
    command.args(["--update-failure-action", "rollback"]);
    for way in ["update", "rollback"] {
        command.arg(format!("--{way}-order=start-first")).arg(format!("--{way}-parallelism=0"));
        command.arg(format!("--{way}-delay=0s")).arg(format!("--{way}-monitor=2s"));
    }
    command.args(["shop:v1", "/shop", "web"]);
    command.into()
}

const SWARM: &str = "Docker Swarm, start-first";
const PROXY: &str = "haproxy:2.6-alpine";

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

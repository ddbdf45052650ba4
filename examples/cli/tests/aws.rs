//! The program on an environment of the AWS emulator (`scripts/aws-emulator`), under requests: deployed, killed and gone
//! on with, broken, rolled back, destroyed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use deployer_core::DeploymentId;
use deployer_testkit::load::{Load, Mode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const EMULATOR: &str = "127.0.0.1:4566";
const HOST: &str = "shop.example";

const COMPOSE: &str = "
services:
  web:
    build: { context: ., args: { VERSION: $VERSION } }
    environment: { BROKEN: \"${BROKEN:-}\", VERSION: $VERSION }
    deploy: { replicas: 2 }
    stop_grace_period: 5s
    x-deployer:
      route: { host: shop.example, port: 8080 }
      health: { http: { path: /healthz, port: 8080 }, interval: 5s, deadline: 60s }
      strategy: { type: blue-green, bake: 1s, keep-warm: 10m }
";

/// How a program says that it is about to move the traffic: of a blue/green deployment's steps, that is the fourth.
const SHIFT: &str = r#""event":"step-started","step":3"#;

/// An environment, and a directory with the application.
struct Shop {
    environment: String,
    directory: tempfile::TempDir,
}

impl Shop {
    /// The program with these arguments, in the emulator's account.
    fn deployer(&self, version: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deployer"));
        command.args(["--on", &format!("aws:{}", self.environment), "-p", &self.environment]).args(args);
        command.current_dir(self.directory.path()).env("VERSION", version);
        for (name, value) in account() {
            command.env(name, value);
        }
        command
    }

    /// Runs it to its end.
    async fn run(&self, version: &str, args: &[&str]) -> Output {
        let mut command = self.deployer(version, args);
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    }

    async fn ends_with(&self, code: i32, version: &str, args: &[&str]) -> String {
        let output = self.run(version, args).await;
        let (told, words) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{version} {args:?}: {told}{words}");
        told
    }

    /// Starts to deploy, and kills the program at the first event that has this in it.
    async fn killed_at(&self, version: &str, event: &'static str) {
        let mut command = self.deployer(version, &["deploy", "--json"]);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let killed = tokio::task::spawn_blocking(move || {
            let lines = BufReader::new(process.stdout.take().unwrap()).lines();
            let found = lines.map_while(Result::ok).find(|line| line.contains(event));
            process.kill().unwrap();
            process.wait().unwrap();
            found
        });
        assert!(killed.await.unwrap().is_some(), "nothing said {event:?}");
    }
}

fn account() -> [(&'static str, String); 4] {
    let word = |text: &str| text.to_owned();
    [
        ("AWS_ENDPOINT_URL", format!("http://{EMULATOR}")),
        ("AWS_REGION", word("us-east-1")),
        ("AWS_ACCESS_KEY_ID", word("test")),
        ("AWS_SECRET_ACCESS_KEY", word("test")),
    ]
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn get(address: &str, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The task definition of the only ECS service in a cluster.
async fn task_definition(cluster: &str) -> serde_json::Value {
    let listed = ecs("ListServices", &json!({ "cluster": cluster })).await;
    assert_eq!(listed["serviceArns"].as_array().map(Vec::len), Some(1), "{listed}");
    let found = ecs("DescribeServices", &json!({ "cluster": cluster, "services": listed["serviceArns"] })).await;
    let definition = &found["services"][0]["taskDefinition"];
    ecs("DescribeTaskDefinition", &json!({ "taskDefinition": definition })).await["taskDefinition"].take()
}

/// Asks the emulator, as anybody may.
async fn ecs(operation: &str, body: &serde_json::Value) -> serde_json::Value {
    ask(&format!("AmazonEC2ContainerServiceV20141113.{operation}"), body).await
}

async fn ask(target: &str, body: &serde_json::Value) -> serde_json::Value {
    let body = body.to_string();
    let mut stream = TcpStream::connect(EMULATOR).await.unwrap();
    let request = format!(
        "POST / HTTP/1.0\r\nHost: {EMULATOR}\r\nX-Amz-Target: {target}\r\n\
         Content-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// Where the emulator listens for an environment's listener, which takes it a moment.
async fn address(listener: &str) -> SocketAddr {
    for _ in 0..100 {
        let listeners: serde_json::Value = serde_json::from_str(&get(EMULATOR, EMULATOR, "/_lab").await).unwrap();
        if let Some(address) = listeners["listeners"][listener].as_str() {
            return address.parse().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nobody listens for {listener}");
}

/// Pushes an image of this machine to a repository of the emulator, and answers by which name ECS finds it there.
async fn pushed(image: &str, repository: &str) -> String {
    ask("AmazonEC2ContainerRegistry_V20150921.CreateRepository", &json!({ "repositoryName": repository })).await;
    let there = format!("{EMULATOR}/{repository}:stage");
    for args in [["tag", image, &there].as_slice(), &["push", "-q", &there], &["rmi", &there]] {
        let done = Command::new("docker").args(args).output().unwrap();
        assert!(done.status.success(), "docker {args:?}: {}", text(&done.stderr));
    }
    there
}

fn application() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    assert!(Command::new(root.join("scripts/shop")).status().unwrap().success());
    std::fs::copy(root.join("examples/quickstart/app/shop"), directory.path().join("shop")).unwrap();
    let dockerfile = "FROM busybox:1.36\nARG VERSION\nCOPY shop /shop\nCMD [\"/shop\", \"web\"]\nHEALTHCHECK --interval=5s CMD true\n";
    std::fs::write(directory.path().join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(directory.path().join("compose.yaml"), COMPOSE).unwrap();
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_lives_on_aws_under_requests() {
    let id = DeploymentId::fresh().to_string();
    let shop = Shop { environment: format!("cli-{}", &id[id.len() - 8..]), directory: application() };
    let name = shop.environment.as_str();
    let template = shop.ends_with(0, "v1", &["environment", "template", name]).await;
    assert!(template.contains("AWS::ElasticLoadBalancingV2::LoadBalancer"), "{template}");
    shop.ends_with(0, "v1", &["environment", "apply", name]).await;
    let there = shop.ends_with(0, "v1", &["environment", "show", name, "--json"]).await;
    let there: serde_json::Value = serde_json::from_str(&there).unwrap();
    let address = address(there["listener"].as_str().unwrap()).await;

    let plan = shop.ends_with(0, "v1", &["plan"]).await;
    assert!(plan.contains(&format!("cluster {name} in us-east-1 of account ")), "{plan}");
    // Roles, subnets and security groups of an environment are as instances need them.
    assert!(!plan.contains("warning: environment") && !plan.contains("load balancer"), "{plan}");
    shop.ends_with(0, "v1", &["deploy"]).await;
    // ECS would not heed the image's own check.
    let definition = task_definition(name).await;
    let check = &definition["containerDefinitions"][0]["healthCheck"];
    assert_eq!((&check["command"], &check["interval"]), (&json!(["CMD-SHELL", "true"]), &json!(5)), "{definition}");
    let load = Load::new(address, HOST).path("/version").rate(100).mode(Mode::Mixed).start();

    // Its process dies as the traffic moves; another goes on.
    shop.killed_at("v2", SHIFT).await;
    let told = shop.ends_with(0, "v2", &["resume"]).await;
    assert_eq!(get(&address.to_string(), HOST, "/version").await.trim(), "v2", "{told}");

    let mut broken = shop.deployer("v3", &["deploy"]);
    broken.env("BROKEN", "exit");
    let broken = tokio::task::spawn_blocking(move || broken.output()).await.unwrap().unwrap();
    assert_eq!(broken.status.code(), Some(3), "{}{}", text(&broken.stdout), text(&broken.stderr));
    shop.ends_with(0, "v2", &["rollback"]).await;
    assert_eq!(get(&address.to_string(), HOST, "/version").await.trim(), "v1");
    tokio::time::sleep(Duration::from_secs(1)).await;

    let report = load.stop().await;
    assert!(report.lost == 0 && report.sent > 500, "{report}");
    let versions: Vec<&str> = report.by_version.keys().map(String::as_str).collect();
    assert_eq!(versions, ["v1", "v2"], "{report}");

    let history = shop.ends_with(0, "v1", &["history"]).await;
    assert_eq!(history.matches("promoted").count(), 3, "{history}");
    shop.ends_with(0, "v1", &["destroy", "--yes"]).await;
    let told = shop.ends_with(0, "v1", &["environment", "delete", name]).await;
    assert!(told.contains(&format!("kept: {name} (AWS::DynamoDB::Table)")), "{told}");
}

/// Two services and the cache that both find by its name, from the quickstart's Compose file and what is different on ECS.
#[tokio::test(flavor = "multi_thread")]
async fn the_application_of_the_quickstart_runs_on_aws() {
    let id = DeploymentId::fresh().to_string();
    let environment = format!("shop-{}", &id[id.len() - 8..]);
    let directory = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    assert!(Command::new(root.join("scripts/shop")).status().unwrap().success());
    for file in ["compose.yaml", "compose.aws.yaml", "shop.env", "shop", "Dockerfile"] {
        std::fs::copy(root.join("examples/quickstart/app").join(file), directory.path().join(file)).unwrap();
    }
    let cache = pushed("redis:7-alpine", &format!("{environment}/redis")).await;
    let variables = format!("ENVIRONMENT={environment}\nHOST={HOST}\nCACHE_IMAGE={cache}\n");
    std::fs::write(directory.path().join(".env"), variables).unwrap();
    let shop = Shop { environment, directory };
    let name = shop.environment.as_str();
    shop.ends_with(0, "v1", &["environment", "apply", name]).await;
    let there = shop.ends_with(0, "v1", &["environment", "show", name, "--json"]).await;
    let there: serde_json::Value = serde_json::from_str(&there).unwrap();
    let address = address(there["listener"].as_str().unwrap()).await.to_string();
    let files = ["-f", "compose.yaml", "-f", "compose.aws.yaml"];
    let with = |words: &'static [&'static str]| [files.as_slice(), words].concat();

    for version in ["v1", "v2"] {
        shop.ends_with(0, version, &with(&["deploy"])).await;
        assert_eq!(get(&address, HOST, "/version").await.trim(), version);
        // The web service has asked the cache.
        let front = get(&address, HOST, "/").await;
        assert!(front.contains(version), "{front}");
    }
    assert_eq!(get(&address, HOST, "/migrations").await, "v1 1\nv2 1\n");
    shop.ends_with(0, "v2", &with(&["destroy", "--yes"])).await;
    shop.ends_with(0, "v2", &["environment", "delete", name]).await;
}

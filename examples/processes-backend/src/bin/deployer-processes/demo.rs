//! A whole story: a shop is deployed, updated while visitors come, broken, and brought back.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;

use deployer_core::{
    AppName, AppSpec, BuildSpec, DeployOptions, Deployer, Hook, HookPoint, Retention, Route, ServiceSpec, Strategy,
};
use processes_backend::{Processes, ProcessesOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{Result, show};

const HOST: &str = "shop.localhost";
const PORT: u16 = 8080;

pub(crate) async fn run() -> Result<ExitCode> {
    let directory = tempfile::Builder::new().prefix("deployer-processes-").tempdir()?;
    let (state, context) = (directory.path().join("state"), directory.path().join("shop"));
    std::fs::create_dir(&context)?;
    let ingress = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let options = ProcessesOptions::new(&state, std::env::current_exe()?).with_ingress(ingress);
    let deployer = Deployer::new(Processes::open(options)?.backend());
    let app = AppName::new("shop")?;
    println!("Everything is in {}, and served on http://{HOST}:{}/\n", directory.path().display(), ingress.port());
    let told = tell(&deployer, &app, &context, ingress).await;

    println!("\nClearing away");
    let cleared = show::deployment(deployer.destroy(&app, true)).await;
    deployer.prune(&app, Retention::releases(0)).await?;
    told?;
    cleared
}

async fn tell(deployer: &Deployer, app: &AppName, context: &Path, ingress: SocketAddr) -> Result<()> {
    let deploy =
        |version, word| Result::Ok(deployer.deploy(shop(app, context, version, word)?, DeployOptions::default()));
    println!("Deploying v1");
    show::deployment(deploy("v1", "serve")?).await?;

    println!("\nDeploying v2 while visitors come");
    let visitors = Visitors::let_in(ingress);
    show::deployment(deploy("v2", "serve")?).await?;
    visitors.leave().await?;

    println!("\nDeploying a version that does not start, while visitors come");
    let visitors = Visitors::let_in(ingress);
    show::deployment(deploy("v3", "exits")?).await?;
    visitors.leave().await?;

    println!("\nRolling back to v1 while visitors come");
    let visitors = Visitors::let_in(ingress);
    show::deployment(deployer.rollback(app, None)).await?;
    visitors.leave().await?;

    println!();
    show::status(&deployer.status(app).await?);
    Ok(())
}

/// A version of the shop. What it is made of is this program.
fn shop(app: &AppName, context: &Path, version: &str, word: &str) -> Result<AppSpec> {
    let mut build = BuildSpec::new(context).with_arg("VERSION", version);
    build = build.with_arg("PROGRAM", std::env::current_exe()?.display().to_string());
    build.dockerfile_inline = Some(format!(
        r#"{{
            "run": ["ln -s \"$PROGRAM\" shop", "echo \"$VERSION\" > version"],
            "image": {{ "entrypoint": ["./shop", "app"], "command": ["{word}"], "ports": [{PORT}] }}
        }}"#
    ));
    let web = ServiceSpec::build(build)
        .with_replicas(3)
        .with_route(Route::new(PORT).with_host(HOST))
        .with_http_probe("/healthz", PORT)
        .with_hook(Hook::new("migrate", HookPoint::PreDeploy, ["succeeds"]))
        .with_strategy(Strategy::Rolling { surge: 1, unavailable: 0 });
    Ok(AppSpec::new(app.as_str())?.with_service("web", web)?)
}

/// Visitors who come one after the other, and what became of each.
struct Visitors {
    stop: watch::Sender<bool>,
    coming: JoinHandle<BTreeMap<String, u64>>,
}

impl Visitors {
    fn let_in(ingress: SocketAddr) -> Self {
        let (stop, stopped) = watch::channel(false);
        let coming = tokio::spawn(async move {
            let mut answers = BTreeMap::new();
            while !*stopped.borrow() {
                let answer = visit(ingress).await.unwrap_or_else(|error| format!("nobody ({error})"));
                *answers.entry(answer).or_default() += 1;
            }
            answers
        });
        Self { stop, coming }
    }

    async fn leave(self) -> Result<()> {
        self.stop.send_replace(true);
        let answers = self.coming.await?;
        let list: Vec<String> = answers.iter().map(|(who, visitors)| format!("{visitors} by {who}")).collect();
        println!("  visitors were served: {}", list.join(", "));
        Ok(())
    }
}

async fn visit(ingress: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(ingress).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(format!("{:?}", answer.lines().next().unwrap_or_default()).into()),
    }
}

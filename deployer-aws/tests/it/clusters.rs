//! Applications of one name in two clusters of an account have nothing to do with each other: on the emulator that
//! `scripts/aws-emulator` starts.

use std::net::Ipv4Addr;
use std::sync::Arc;

use deployer_core::{
    AppName, AppSpec, DeployOptions, Deployer, Deployment, DeploymentId, Retention, Route, ServiceSpec, Verdict,
};
use deployer_testkit::MemoryStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::stage::{Stage, config};

fn app(stage: &Stage, name: &AppName, version: &str) -> AppSpec {
    let web = ServiceSpec::image(&stage.image)
        .with_command(["/shop", "web"])
        .with_env("VERSION", version)
        .with_replicas(1)
        .with_route(Route::new(8080))
        .with_http_probe("/healthz", 8080);
    AppSpec::new(name.as_str()).unwrap().with_service("web", web).unwrap()
}

async fn promoted(deployment: Deployment) {
    let verdict = deployment.finished().await.unwrap().verdict.unwrap();
    assert!(matches!(verdict, Verdict::Promoted { .. }), "{verdict}");
}

/// The version that answers through the load balancer.
async fn version(stage: &Stage) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, stage.port)).await.unwrap();
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_of_one_name_in_two_clusters_do_not_meet() {
    let unique = DeploymentId::fresh().as_str().get(24..).unwrap().to_owned();
    let name = AppName::new(format!("twin-{unique}")).unwrap();
    let stages =
        [Stage::new(&format!("one-{unique}")).await.unwrap(), Stage::new(&format!("two-{unique}")).await.unwrap()];
    let [one, two] = stages
        .each_ref()
        .map(|stage| Deployer::new(stage.backend(&config(), stage.options(), Arc::new(MemoryStore::new())).unwrap()));
    let deploy = async |deployer: &Deployer, stage: &Stage, version: &str| {
        promoted(deployer.deploy(app(stage, &name, version), DeployOptions::default())).await;
    };
    // What they have in common is all that could be: the same revision as well.
    futures_util::future::join(deploy(&one, &stages[0], "v1"), deploy(&two, &stages[1], "v1")).await;
    deploy(&two, &stages[1], "v2").await;
    assert_eq!((version(&stages[0]).await, version(&stages[1]).await), ("v1".to_owned(), "v2".to_owned()));
    deploy(&one, &stages[0], "v3").await;
    one.prune(&name, Retention::releases(0)).await.unwrap();
    promoted(one.destroy(&name, false)).await;
    assert_eq!(version(&stages[1]).await, "v2");
    let status = two.status(&name).await.unwrap();
    assert_eq!(status.drift, Vec::<String>::new());
    promoted(two.rollback(&name, None)).await;
    assert_eq!(version(&stages[1]).await, "v1");
    promoted(two.destroy(&name, false)).await;
    for stage in stages {
        stage.clear().await.unwrap();
    }
}

use std::sync::Arc;

use async_trait::async_trait;
use deployer_core::{Error, ErrorKind, Result, SecretRef, SecretValue, Secrets};
use deployer_local::{DockerOrchestrator, Engine};

use crate::engine::TestApp;

const VALUE: &str = "correct-horse-battery-staple";

#[derive(Debug)]
struct OneSecret;

#[async_trait]
impl Secrets for OneSecret {
    async fn pin(&self, reference: &SecretRef) -> Result<SecretRef> {
        Ok(reference.clone())
    }

    async fn reveal(&self, reference: &SecretRef) -> Result<SecretValue> {
        match reference.name.as_str() {
            "password" => Ok(SecretValue::new(VALUE)),
            _ => Err(Error::new(ErrorKind::NotFound, "no such secret").with_resource(reference.name.clone())),
        }
    }
}

async fn app(name: &str) -> TestApp {
    let engine = Engine::connect().await.expect("a Docker Engine must run");
    TestApp::with(name, DockerOrchestrator::on_engine(engine, Arc::new(OneSecret))).await
}

#[tokio::test]
async fn a_secret_reaches_the_process_and_nothing_else() {
    let app = app("secret").await;
    let script = "test ${#PASSWORD} = 28 && echo has it; exec sleep 600";
    let release = app.release([("web", app.shell(script).with_secret_env("PASSWORD", SecretRef::new("password")))]);
    app.run(&release, "web", 1).await;
    let lines = crate::engine::until(async || Some(super::logs::texts(&app).await).filter(|lines| !lines.is_empty()));
    assert_eq!(lines.await, ["has it"]);
    let web = app.instances().await.remove(0);
    let inspected = app.inspect(web.id.as_str()).await;
    let mut config = inspected.config.unwrap();
    assert_eq!(config.env.take().unwrap().iter().filter(|line| line.contains(VALUE)).count(), 1);
    assert!(!format!("{config:?} {:?} {web:?} {:?}", inspected.host_config, app.orchestrator).contains(VALUE));
}

#[tokio::test]
async fn errors_do_not_show_secrets() {
    let app = app("secreterr").await;
    let mut service = app.idle().with_secret_env("PASSWORD", SecretRef::new("password"));
    service.workload.entrypoint = Some(vec!["/nope".into()]);
    let release = app.release([("web", service)]);
    app.ensure(&release).await.unwrap();
    let error = app.launch(&release, "web", 1).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains(VALUE));
}

#[tokio::test]
async fn a_missing_secret_is_not_found_and_nothing_is_started() {
    let app = app("secretless").await;
    let release = app.release([("web", app.idle().with_secret_env("X", SecretRef::new("other")))]);
    app.ensure(&release).await.unwrap();
    let error = app.launch(&release, "web", 1).await.unwrap_err();
    assert_eq!((error.kind(), error.resource()), (ErrorKind::NotFound, Some("other")));
    assert_eq!(app.instances().await, []);
}

//! Secrets and parameters on the emulator that `scripts/aws-emulator` starts. They fail where there is none.

use std::net::Ipv4Addr;
use std::sync::Arc;

use aws_sdk_ssm::types::ParameterType;
use deployer_aws::AwsSecrets;
use deployer_core::{
    AppName, AppSpec, DeployOptions, Deployer, DeploymentId, ErrorKind, Route, SecretRef, Secrets as _, ServiceSpec,
};
use deployer_testkit::MemoryStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::stage::{Stage, config};

/// A name that no other test has.
fn name(of: &str) -> String {
    format!("it/{of}/{}", DeploymentId::fresh())
}

#[tokio::test]
async fn a_secret_is_pinned_to_the_version_that_is_current() {
    let (client, secrets) = (aws_sdk_secretsmanager::Client::new(&config()), AwsSecrets::new(&config()));
    let name = name("secret");
    client.create_secret().name(&name).secret_string(r#"{"password": "first"}"#).send().await.unwrap();

    let first = secrets.pin(&SecretRef::new(format!("{name}#password"))).await.unwrap();
    assert!(first.name.starts_with("arn:aws:secretsmanager:") && first.name.ends_with("#password"), "{first:?}");
    client.put_secret_value().secret_id(&name).secret_string(r#"{"password": "second"}"#).send().await.unwrap();
    let second = secrets.pin(&SecretRef::new(format!("{name}#password"))).await.unwrap();
    assert_ne!(first.version, second.version);
    assert_eq!(secrets.reveal(&first).await.unwrap().expose(), "first");
    assert_eq!(secrets.reveal(&second).await.unwrap().expose(), "second");

    // What is pinned stays as it is, and is known to be there.
    assert_eq!(secrets.pin(&first).await.unwrap(), first);
    let never = SecretRef { version: Some("11111111-2222-3333-4444-555555555555".to_owned()), ..first };
    assert_eq!(secrets.pin(&never).await.unwrap_err().kind(), ErrorKind::NotFound);

    client.delete_secret().secret_id(&name).recovery_window_in_days(7).send().await.unwrap();
    let error = secrets.pin(&SecretRef::new(&name)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    client.delete_secret().secret_id(&name).force_delete_without_recovery(true).send().await.unwrap();
}

#[tokio::test]
async fn a_parameter_is_pinned_to_its_newest_version() {
    let (client, secrets) = (aws_sdk_ssm::Client::new(&config()), AwsSecrets::new(&config()));
    let name = format!("/{}", name("parameter"));
    let put = async |value: &str| {
        let call = client.put_parameter().name(&name).r#type(ParameterType::SecureString).value(value);
        call.overwrite(true).send().await.unwrap().version()
    };
    let version = put("first").await;
    let first = secrets.pin(&SecretRef::new(format!("ssm:{name}"))).await.unwrap();
    assert_eq!(first.version, Some(version.to_string()));
    assert!(first.name.starts_with("arn:aws:ssm:"), "{first:?}");
    put("second").await;
    let second = secrets.pin(&SecretRef::new(&first.name)).await.unwrap();
    assert_ne!(first.version, second.version);
    assert_eq!(secrets.reveal(&second).await.unwrap().expose(), "second");
    assert_eq!(secrets.reveal(&first).await.unwrap().expose(), "first");
    client.delete_parameter().name(&name).send().await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_told_before_anything_is_touched() {
    let secrets = AwsSecrets::new(&config());
    for name in [name("nothing"), format!("ssm:/{}", name("nothing"))] {
        let error = secrets.pin(&SecretRef::new(&name)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.help().unwrap().contains("ssm:NAME"), "{error}");
    }
}

/// What the service says of itself through the load balancer.
async fn version(stage: &Stage) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, stage.port)).await.unwrap();
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_value_is_a_new_revision_and_a_rollback_brings_the_old_one_back() {
    let stage = Stage::new(&format!("secret-{}", DeploymentId::fresh().as_str().get(24..).unwrap())).await.unwrap();
    let client = aws_sdk_secretsmanager::Client::new(&config());
    let secret = name("version");
    client.create_secret().name(&secret).secret_string(r#"{"version": "first"}"#).send().await.unwrap();
    let backend = stage.backend(&config(), stage.options(), Arc::new(MemoryStore::new())).unwrap();
    let deployer = Deployer::builder(backend).secrets(Arc::new(AwsSecrets::new(&config()))).build();
    let web = ServiceSpec::image(&stage.image)
        .with_command(["/shop", "web"])
        .with_secret_env("VERSION", SecretRef::new(format!("{secret}#version")))
        .with_route(Route::new(8080))
        .with_http_probe("/healthz", 8080);
    let app = AppSpec::new("shop").unwrap().with_service("web", web).unwrap();
    let deploy = async || {
        let record = deployer.deploy(app.clone(), DeployOptions::default()).finished().await.unwrap();
        assert!(record.verdict.as_ref().unwrap().is_promoted(), "{record:?}");
    };
    deploy().await;
    assert_eq!(version(&stage).await, "first");
    // Nobody is told, and nothing starts again: the value comes with the next release.
    client.put_secret_value().secret_id(&secret).secret_string(r#"{"version": "second"}"#).send().await.unwrap();
    assert_eq!(version(&stage).await, "first");
    deploy().await;
    assert_eq!(version(&stage).await, "second");
    let back = deployer.rollback(&AppName::new("shop").unwrap(), None).finished().await.unwrap();
    assert!(back.verdict.as_ref().unwrap().is_promoted(), "{back:?}");
    assert_eq!(version(&stage).await, "first");
    client.delete_secret().secret_id(&secret).force_delete_without_recovery(true).send().await.unwrap();
    stage.clear().await.unwrap();
}

//! Secrets and parameters on the emulator that `scripts/aws-emulator` starts. They fail where there is none.

use aws_sdk_ssm::types::ParameterType;
use deployer_aws::AwsSecrets;
use deployer_core::{DeploymentId, ErrorKind, SecretRef, Secrets as _};

use crate::stage::config;

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

//! Secrets in Secrets Manager and in the Parameter Store.

use std::fmt;

use async_trait::async_trait;
use aws_config::SdkConfig;
use deployer_core::{Error, ErrorKind, Result, SecretRef, SecretValue, Secrets};
use serde_json::Value;

use crate::failure::{failed, is};
use crate::site::patient;

/// What the names of parameters begin with.
const PARAMETER: &str = "ssm:";

/// The staging label of the version that is current.
const CURRENT: &str = "AWSCURRENT";

/// Secrets in AWS Secrets Manager, and parameters of Systems Manager.
///
/// | name of the secret | what it is |
/// | --- | --- |
/// | `shop/db`, or an ARN of Secrets Manager | a secret |
/// | `shop/db#password`, or such an ARN | the value of a key of a secret that is a JSON object |
/// | `ssm:/shop/db`, or an ARN of Systems Manager | a parameter, encrypted or not |
///
/// A release pins ARN and version, so that instances of it get the same value for ever, also after a rollback. ECS hands
/// values to instances itself: the execution role must be allowed to read them (see
/// [`EnvironmentSpec::secrets`](crate::EnvironmentSpec)), and this program needs no more than to know that they are there.
/// It reads values for images that are built with them only; that of a parameter which is not encrypted comes with its
/// version, and is dropped.
#[derive(Clone)]
pub struct AwsSecrets {
    manager: aws_sdk_secretsmanager::Client,
    parameter_store: aws_sdk_ssm::Client,
}

impl fmt::Debug for AwsSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsSecrets").finish_non_exhaustive()
    }
}

/// Where a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place<'a> {
    /// In Secrets Manager: its name or ARN, and the key in its JSON object.
    Secret(&'a str, Option<&'a str>),
    /// In the Parameter Store: its name or ARN.
    Parameter(&'a str),
}

impl<'a> Place<'a> {
    fn of(name: &'a str) -> Self {
        if let Some(name) = name.strip_prefix(PARAMETER) {
            return Self::Parameter(name);
        }
        if name.starts_with("arn:") && name.contains(":ssm:") {
            return Self::Parameter(name);
        }
        match name.split_once('#') {
            Some((name, key)) => Self::Secret(name, Some(key)),
            None => Self::Secret(name, None),
        }
    }
}

/// Where ECS finds a secret when an instance starts. An ARN of Secrets Manager takes key and version behind colons:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html>. Of a parameter ECS always
/// takes the newest version, and refuses names with one
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-ssm-paramstore.html>).
pub(crate) fn value_from(secret: &SecretRef) -> String {
    match (Place::of(&secret.name), &secret.version) {
        (Place::Secret(name, None), None) | (Place::Parameter(name), _) => name.to_owned(),
        (Place::Secret(name, key), version) => {
            format!("{name}:{}::{}", key.unwrap_or_default(), version.as_deref().unwrap_or_default())
        }
    }
}

/// Whether ECS takes the newest value of a secret, whatever version a release has pinned.
pub(crate) fn is_unversioned(secret: &SecretRef) -> bool {
    matches!(Place::of(&secret.name), Place::Parameter(_))
}

impl AwsSecrets {
    /// The secrets of the account and region of this configuration. Asks nothing yet.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        let config = patient(config);
        Self {
            manager: aws_sdk_secretsmanager::Client::new(&config),
            parameter_store: aws_sdk_ssm::Client::new(&config),
        }
    }

    async fn pin_secret(&self, id: &str, key: Option<&str>, version: Option<&str>) -> Result<SecretRef> {
        let found = match self.manager.describe_secret().secret_id(id).send().await {
            Ok(found) if found.deleted_date().is_none() => found,
            Ok(_) => return Err(missing(id, "the secret is about to be deleted")),
            Err(error) if is(&error, &["ResourceNotFoundException"]) => {
                return Err(missing(id, "Secrets Manager has no such secret"));
            }
            Err(error) => return Err(failed("secretsmanager:DescribeSecret", id, error)),
        };
        let arn = found.arn().unwrap_or(id);
        let versions = found.version_ids_to_stages().into_iter().flatten();
        let mut current = versions.filter(|(_, stages)| stages.iter().any(|stage| stage == CURRENT));
        let version = match version {
            Some(version) if self.has_version(arn, version).await? => version.to_owned(),
            Some(version) => return Err(missing(id, "the secret has no such version").with_context("version", version)),
            None => {
                current.next().map(|(id, _)| id.clone()).ok_or_else(|| missing(id, "the secret has no value yet"))?
            }
        };
        let name = key.map_or_else(|| arn.to_owned(), |key| format!("{arn}#{key}"));
        Ok(SecretRef { name, version: Some(version) })
    }

    async fn has_version(&self, arn: &str, version: &str) -> Result<bool> {
        let call = self.manager.list_secret_version_ids().secret_id(arn).include_deprecated(true);
        let mut pages = call.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("secretsmanager:ListSecretVersionIds", arn, error))?;
            if page.versions().iter().any(|known| known.version_id() == Some(version)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A parameter, at its newest version or at this one.
    async fn parameter(
        &self,
        name: &str,
        version: Option<&str>,
        reveal: bool,
    ) -> Result<aws_sdk_ssm::types::Parameter> {
        let selected = version.map_or_else(|| name.to_owned(), |version| format!("{name}:{version}"));
        let call = self.parameter_store.get_parameter().name(selected).with_decryption(reveal);
        match call.send().await {
            Ok(found) => found.parameter.ok_or_else(|| missing(name, "Systems Manager has no such parameter")),
            Err(error) if is(&error, &["ParameterNotFound", "ParameterVersionNotFound"]) => {
                let missing = missing(name, "Systems Manager has no such parameter");
                Err(version.iter().fold(missing, |error, version| error.with_context("version", (*version).to_owned())))
            }
            Err(error) => Err(failed("ssm:GetParameter", name, error)),
        }
    }

    async fn secret(&self, id: &str, key: Option<&str>, version: Option<&str>) -> Result<SecretValue> {
        let call = self.manager.get_secret_value().secret_id(id).set_version_id(version.map(str::to_owned));
        let found = match call.send().await {
            Ok(found) => found,
            Err(error) if is(&error, &["ResourceNotFoundException"]) => {
                return Err(missing(id, "Secrets Manager has no such secret, or not in that version"));
            }
            Err(error) => return Err(failed("secretsmanager:GetSecretValue", id, error)),
        };
        let text = found.secret_string().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the secret is no text")
                .with_resource(id)
                .with_operation("secrets.reveal")
        })?;
        key.map_or_else(|| Ok(SecretValue::new(text)), |key| value_of(id, text, key))
    }
}

#[async_trait]
impl Secrets for AwsSecrets {
    async fn pin(&self, reference: &SecretRef) -> Result<SecretRef> {
        let version = reference.version.as_deref();
        match Place::of(&reference.name) {
            Place::Secret(id, key) => self.pin_secret(id, key, version).await,
            Place::Parameter(name) => {
                let found = self.parameter(name, version, false).await?;
                let name = found.arn().unwrap_or(&reference.name).to_owned();
                Ok(SecretRef { name, version: Some(found.version().to_string()) })
            }
        }
    }

    async fn reveal(&self, reference: &SecretRef) -> Result<SecretValue> {
        let version = reference.version.as_deref();
        match Place::of(&reference.name) {
            Place::Secret(id, key) => self.secret(id, key, version).await,
            Place::Parameter(name) => {
                Ok(SecretValue::new(self.parameter(name, version, true).await?.value().unwrap_or_default()))
            }
        }
    }
}

/// The value of a key of a JSON object. Nothing of the object is in the error.
fn value_of(id: &str, text: &str, key: &str) -> Result<SecretValue> {
    let object: Option<Value> = serde_json::from_str(text).ok();
    match object.as_ref().and_then(|object| object.get(key)) {
        Some(Value::String(value)) => Ok(SecretValue::new(value)),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(SecretValue::new(value.to_string())),
        _ => Err(missing(id, "the secret is no JSON object with a text of that key").with_context("key", key)),
    }
}

fn missing(name: &str, message: &'static str) -> Error {
    Error::new(ErrorKind::NotFound, message).with_resource(name).with_help(
        "check name, account and region; `ssm:NAME` is a parameter, any other name a secret of Secrets Manager",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str, version: Option<&str>) -> String {
        value_from(&SecretRef { name: name.to_owned(), version: version.map(str::to_owned) })
    }

    #[test]
    fn ecs_is_told_where_a_secret_is() {
        let arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/db-a1b2c3";
        assert_eq!(place(arn, None), arn);
        assert_eq!(place(arn, Some("v-1")), format!("{arn}:::v-1"));
        assert_eq!(place(&format!("{arn}#password"), None), format!("{arn}:password::"));
        assert_eq!(place(&format!("{arn}#password"), Some("v-1")), format!("{arn}:password::v-1"));
        let parameter = "arn:aws:ssm:eu-central-1:123456789012:parameter/shop/db";
        assert_eq!(place(parameter, None), parameter);
        // ECS refuses the name of a parameter with a version.
        assert_eq!(place("ssm:/shop/db", Some("3")), "/shop/db");
    }

    #[test]
    fn keys_are_read_and_nothing_of_the_rest_is_told() {
        let text = r#"{"password": "hunter2", "port": 5432, "tags": ["private"]}"#;
        let value = |key: &str| value_of("shop/db", text, key).map(|value| value.expose().to_owned());
        assert_eq!((value("password").unwrap(), value("port").unwrap()), ("hunter2".to_owned(), "5432".to_owned()));
        for key in ["tags", "user"] {
            let error = value(key).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(!format!("{error:?} {error}").contains("hunter2") && !format!("{error:?}").contains("private"));
        }
        assert!(
            value_of("shop/db", "hunter2", "password").is_err_and(|error| !format!("{error:?}").contains("hunter2"))
        );
    }
}

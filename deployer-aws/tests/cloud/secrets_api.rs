//! The operations of Secrets Manager and of Systems Manager on values that are there.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Cloud, Refusal, arn};

type Answer = Result<Value, Refusal>;

/// Secrets and parameters by name: their versions with their values, the newest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vault {
    secrets: BTreeMap<String, Vec<String>>,
    parameters: BTreeMap<String, Vec<String>>,
}

impl Vault {
    /// Gives a secret a value, which is a new version of it.
    pub(crate) fn set_secret(&mut self, name: &str, value: &str) {
        self.secrets.entry(name.to_owned()).or_default().push(value.to_owned());
    }

    /// Gives a parameter a value.
    pub(crate) fn set_parameter(&mut self, name: &str, value: &str) {
        self.parameters.entry(name.to_owned()).or_default().push(value.to_owned());
    }

    fn secret(&self, id: &str) -> Result<(&String, &Vec<String>), Refusal> {
        let found = self.secrets.iter().find(|(name, _)| *name == id || secret_arn(name) == id);
        found.ok_or_else(|| Refusal::fair("ResourceNotFoundException", "Secrets Manager can't find the secret."))
    }

    /// Whether ECS could hand out what is named so: an ARN with key, stage and version behind it.
    fn hands_out(&self, from: &str) -> bool {
        if from.contains(":secret:") {
            let parts: Vec<&str> = from.splitn(10, ':').collect();
            let secret = parts.get(..7).map(|parts| parts.join(":")).unwrap_or_default();
            let Ok((_, versions)) = self.secret(&secret) else { return false };
            let version = parts.get(9).copied().unwrap_or_default();
            return version.is_empty() || (1..=versions.len()).any(|number| version_id(number) == version);
        }
        let name = from.rsplit_once(":parameter").map_or(from, |(_, name)| name);
        self.parameters.contains_key(name)
    }
}

fn secret_arn(name: &str) -> String {
    arn("secretsmanager", &format!("secret:{name}-a1b2c3"))
}

fn version_id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

impl Cloud {
    /// Puts there what the applications of the scenarios need.
    pub(crate) fn stock(&mut self) {
        for image in ["web", "worker"] {
            self.push_image(image, "v1");
        }
        self.vault.set_secret("shop/db", r#"{"password": "hunter2"}"#);
        self.vault.set_parameter("/shop/key", "hunter3");
    }

    pub(super) fn secretsmanager(&self, operation: &str, request: &Value) -> Option<Answer> {
        Some(match operation {
            "DescribeSecret" => self.describe_secret(request),
            "ListSecretVersionIds" => self.list_versions(request),
            "GetSecretValue" => Err(Refusal::rude("AccessDeniedException", "nobody needs the value")),
            _ => return None,
        })
    }

    pub(super) fn parameter_store(&self, operation: &str, request: &Value) -> Option<Answer> {
        (operation == "GetParameter").then(|| self.get_parameter(request))
    }

    fn describe_secret(&self, request: &Value) -> Answer {
        let (name, versions) = self.vault.secret(request["SecretId"].as_str().unwrap_or_default())?;
        let stages = (1..=versions.len()).map(|number| {
            let stage = if number == versions.len() { "AWSCURRENT" } else { "AWSPREVIOUS" };
            (version_id(number), json!([stage]))
        });
        let stages: serde_json::Map<String, Value> = stages.collect();
        Ok(json!({"ARN": secret_arn(name), "Name": name, "VersionIdsToStages": stages}))
    }

    fn list_versions(&self, request: &Value) -> Answer {
        let (name, versions) = self.vault.secret(request["SecretId"].as_str().unwrap_or_default())?;
        let all: Vec<Value> = (1..=versions.len()).map(|number| json!({"VersionId": version_id(number)})).collect();
        Ok(json!({"ARN": secret_arn(name), "Name": name, "Versions": all}))
    }

    fn get_parameter(&self, request: &Value) -> Answer {
        let asked = request["Name"].as_str().unwrap_or_default();
        let asked = asked.rsplit_once(":parameter").map_or(asked, |(_, name)| name);
        let (name, version) = asked.split_once(':').map_or((asked, None), |(name, version)| (name, Some(version)));
        let missing = || Refusal::fair("ParameterNotFound", "there is no such parameter");
        let values = self.vault.parameters.get(name).ok_or_else(missing)?;
        let number = version.map_or(Ok(values.len()), str::parse).map_err(|_| missing())?;
        if number == 0 || number > values.len() {
            return Err(Refusal::fair("ParameterVersionNotFound", "there is no such version"));
        }
        // Who does not ask for the text of an encrypted one gets something else.
        let parameter = json!({"ARN": arn("ssm", &format!("parameter{name}")), "Name": name, "Version": number,
                               "Type": "SecureString", "Value": "encrypted"});
        Ok(json!({"Parameter": parameter}))
    }

    /// Why ECS could not start a container, if it could not: its image is there, and all that is handed to it.
    pub(super) fn start_trouble(&self, container: &Value) -> Option<String> {
        let image = container["image"].as_str().unwrap_or_default();
        if !self.has_image(image) {
            return Some(format!(
                "CannotPullContainerError: pull image manifest has been retried 1 time(s): {image}: not found"
            ));
        }
        let secrets = container["secrets"].as_array().into_iter().flatten();
        let mut places = secrets.filter_map(|secret| secret["valueFrom"].as_str());
        let missing = places.find(|place| !self.vault.hands_out(place))?;
        let why =
            "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed";
        Some(format!("{why}: ResourceNotFoundException: Secrets Manager can't find the specified secret: {missing}"))
    }
}

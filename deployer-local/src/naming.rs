//! The names and labels under which our things are found again, those of Compose among them.

use std::collections::HashMap;

use deployer_core::{AppName, Digest, NetworkSpec, RevisionId, ServiceName, TaskId, VolumeSpec};

/// Compose's own labels: <https://github.com/docker/compose/blob/main/pkg/api/labels.go>.
pub(crate) mod compose {
    pub(crate) const PROJECT: &str = "com.docker.compose.project";
    pub(crate) const SERVICE: &str = "com.docker.compose.service";
    pub(crate) const NUMBER: &str = "com.docker.compose.container-number";
    pub(crate) const ONEOFF: &str = "com.docker.compose.oneoff";
    pub(crate) const CONFIG_HASH: &str = "com.docker.compose.config-hash";
    pub(crate) const VERSION: &str = "com.docker.compose.version";
    pub(crate) const NETWORK: &str = "com.docker.compose.network";
    pub(crate) const VOLUME: &str = "com.docker.compose.volume";
}

/// Our labels.
pub(crate) mod ours {
    /// The application.
    pub(crate) const APP: &str = "deployer.app";
    /// What a container is: one of the `ROLE_` values.
    pub(crate) const ROLE: &str = "deployer.role";
    /// The revision, as `service@hash`.
    pub(crate) const REVISION: &str = "deployer.revision";
    /// The number of the release with which the revision came.
    pub(crate) const RELEASE: &str = "deployer.release";
    /// The instance's number within its revision.
    pub(crate) const ORDINAL: &str = "deployer.ordinal";
    /// The id of a one-off task.
    pub(crate) const TASK: &str = "deployer.task";
    /// A hash of everything a container was created with that its revision does not already say.
    pub(crate) const CONFIG: &str = "deployer.config";

    pub(crate) const ROLE_INSTANCE: &str = "instance";
    pub(crate) const ROLE_TASK: &str = "task";
    /// The proxy that answers to a service's name inside its application.
    pub(crate) const ROLE_SERVICE_PROXY: &str = "service-proxy";
    /// The proxy through which traffic from outside enters.
    pub(crate) const ROLE_INGRESS: &str = "ingress";
}

/// The engine's name of an application's network; `default` is the one that every service is in unless it says otherwise.
pub(crate) fn network(app: &AppName, key: &str, spec: Option<&NetworkSpec>) -> String {
    match spec {
        Some(NetworkSpec { name: Some(name), .. }) => name.clone(),
        Some(NetworkSpec { external: true, .. }) => key.to_owned(),
        _ => format!("{app}_{key}"),
    }
}

/// The engine's name of an application's volume.
pub(crate) fn volume(app: &AppName, key: &str, spec: Option<&VolumeSpec>) -> String {
    match spec {
        Some(VolumeSpec { name: Some(name), .. }) => name.clone(),
        Some(VolumeSpec { external: true, .. }) => key.to_owned(),
        _ => format!("{app}_{key}"),
    }
}

/// The name of an instance's container.
pub(crate) fn instance(app: &AppName, revision: &RevisionId, ordinal: u32) -> String {
    format!("{app}-{}-{}-{ordinal}", revision.service(), &revision.hash()[..6])
}

/// The name of a task's container. An id that is no part of a container's name is told apart by its hash.
pub(crate) fn task(app: &AppName, service: &ServiceName, task: &TaskId) -> String {
    let allowed = |byte: char| byte.is_ascii_alphanumeric() || matches!(byte, '-' | '_' | '.');
    let clean: String = task.0.chars().map(|byte| if allowed(byte) { byte } else { '-' }).collect();
    if clean == task.0 && clean.len() <= 80 {
        return format!("{app}-{service}-{clean}");
    }
    let clean: String = clean.chars().take(80).collect();
    format!("{app}-{service}-{clean}-{}", &Digest::of(task.0.as_bytes()).short()[..6])
}

/// The name of the container that answers to a service's name.
pub(crate) fn service_proxy(app: &AppName, service: &ServiceName) -> String {
    format!("{app}-{service}-proxy")
}

/// A filter for containers, networks or volumes that have all of these labels.
pub(crate) fn label_filter(labels: &[(&str, &str)]) -> HashMap<String, Vec<String>> {
    let labels = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    HashMap::from([("label".to_owned(), labels)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_names_are_container_names_and_never_the_same_for_two_ids() {
        let (app, service) = (AppName::new("shop").unwrap(), ServiceName::new("web").unwrap());
        let name = |id: &str| task(&app, &service, &TaskId(id.to_owned()));
        assert_eq!(name("01f-migrate"), "shop-web-01f-migrate");
        assert!(name("d1/migrate").starts_with("shop-web-d1-migrate-"));
        assert_ne!(name("d1/migrate"), name("d1:migrate"));
        assert!(name(&"x".repeat(500)).len() < 120);
    }
}

//! Puts a `Deployer` together: for this machine's Docker Engine, or for an environment on AWS.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use deployer_aws::{AwsBackend, AwsSecrets, config_from_env};
use deployer_core::{BuildImage, BuiltImage, Deployer, Error, ErrorKind, ImageBuilder, Result, Secrets};
use deployer_local::{DockerBuilder, Engine, HostSecrets, IngressOptions, LocalBackend, LocalOptions};

use crate::args::{Global, Place};
use crate::compose;

/// Environment variables that begin with this are secrets: `DEPLOYER_SECRET_DB` is the secret `DB`.
const SECRET_PREFIX: &str = "DEPLOYER_SECRET_";

/// The deployer that these arguments describe.
pub(crate) async fn deployer(global: &Global) -> Result<Deployer> {
    match &global.on {
        Place::Docker => on_docker(global).await,
        Place::Aws(environment) => on_aws(environment).await,
    }
}

/// Docker, HAProxy and SQLite on this machine, secrets from the environment and from where the Compose file says.
async fn on_docker(global: &Global) -> Result<Deployer> {
    let state_dir = match &global.state_dir {
        Some(dir) => dir.clone(),
        None => default_state_dir(|name| std::env::var_os(name).map(PathBuf::from), is_root())?,
    };
    let mut secrets = HostSecrets::new().with_env_prefix(SECRET_PREFIX);
    // What is wrong with a Compose file is said by the commands that need one.
    if let Ok(app) = compose::read(global) {
        secrets = secrets.with_compose(&app.secrets);
    }
    let secrets: Arc<dyn Secrets> = Arc::new(secrets);
    let options = LocalOptions::new(state_dir)
        .with_ingress(IngressOptions::default().with_http(global.http))
        .with_secrets(Arc::clone(&secrets));
    let backend = LocalBackend::connect(options).await?;
    Ok(Deployer::builder(backend).secrets(secrets).build())
}

/// ECS, ECR, an Application Load Balancer and DynamoDB; secrets from Secrets Manager and Systems Manager.
async fn on_aws(environment: &str) -> Result<Deployer> {
    let config = config_from_env().await;
    let backend = AwsBackend::in_environment(&config, environment, Arc::new(LateBuilder)).await?;
    Ok(Deployer::builder(backend).secrets(Arc::new(AwsSecrets::new(&config))).build())
}

/// Builds with this machine's Docker Engine, which need not be there if nothing is built.
#[derive(Debug)]
struct LateBuilder;

#[async_trait]
impl ImageBuilder for LateBuilder {
    async fn build(&self, request: BuildImage) -> Result<BuiltImage> {
        DockerBuilder::new(Engine::connect().await?).build(request).await
    }
}

/// Who asks, in words for the history.
pub(crate) fn author() -> Option<String> {
    let name = |variable| std::env::var(variable).ok().filter(|name| !name.is_empty());
    name("SUDO_USER").or_else(|| name("USER")).or_else(|| name("LOGNAME"))
}

fn default_state_dir(variable: impl Fn(&str) -> Option<PathBuf>, root: bool) -> Result<PathBuf> {
    // A relative path is to be ignored, says the XDG Base Directory Specification; so is an empty one.
    let path = |name| variable(name).filter(|path: &PathBuf| path.is_absolute());
    if let Some(state) = path("XDG_STATE_HOME") {
        return Ok(state.join("deployer"));
    }
    if root {
        return Ok(PathBuf::from("/var/lib/deployer"));
    }
    path("HOME").map(|home| home.join(".local/state/deployer")).ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, "there is no place for the state: neither XDG_STATE_HOME nor HOME is set")
            .with_help("name a directory with --state-dir")
    })
}

/// Whether root runs this program. The standard library does not say; the owner of its own process does.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &[(&str, &str)], root: bool) -> Option<String> {
        let lookup = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, path)| path.into());
        default_state_dir(lookup, root).ok().map(|path| path.display().to_string())
    }

    #[test]
    fn state_is_kept_where_the_platform_says() {
        let home = [("HOME", "/home/me")];
        assert_eq!(place(&home, false).as_deref(), Some("/home/me/.local/state/deployer"));
        assert_eq!(place(&home, true).as_deref(), Some("/var/lib/deployer"));
        let xdg = [("HOME", "/home/me"), ("XDG_STATE_HOME", "/state")];
        assert_eq!(place(&xdg, false).as_deref(), Some("/state/deployer"));
        assert_eq!(place(&xdg, true).as_deref(), Some("/state/deployer"));
        assert_eq!(place(&[("XDG_STATE_HOME", "relative")], false), None);
    }
}

//! The connection to the Docker Engine, and its errors in our words.

use std::sync::Arc;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use deployer_core::{Effect, Error, ErrorKind, Result, Retry};

/// The newest Engine API that is missing nothing we need.
pub(crate) const OLDEST_API: &str = "1.41";

/// A connection to one Docker Engine, cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    docker: Docker,
    facts: Arc<Facts>,
}

/// What is known about an engine since it was connected.
#[derive(Debug)]
struct Facts {
    version: String,
    desktop: bool,
    shares_host: bool,
}

impl Engine {
    /// Connects to the engine that `DOCKER_HOST` names, or to the one on the default socket.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if none answers, [`ErrorKind::Unsupported`] if it is older than API 1.41.
    pub async fn connect() -> Result<Self> {
        let unavailable = |error: DockerError| {
            Error::new(ErrorKind::Unavailable, "no Docker Engine answers")
                .with_operation("engine.connect")
                .with_effect(Effect::None)
                .with_help("start Docker, or point DOCKER_HOST at an engine that runs")
                .with_source(error)
        };
        let docker = Docker::connect_with_defaults().map_err(unavailable)?;
        let docker = docker.negotiate_version().await.map_err(unavailable)?;
        let version = docker.version().await.map_err(unavailable)?;
        let api = version.api_version.unwrap_or_default();
        if !at_least(&api, OLDEST_API) {
            return Err(Error::new(ErrorKind::Unsupported, format!("the Docker Engine is too old: API {api}"))
                .with_operation("engine.connect")
                .with_help(format!("API {OLDEST_API} (Docker 20.10) or later is needed")));
        }
        let info = docker.info().await.map_err(unavailable)?;
        let desktop = info.operating_system.unwrap_or_default().contains("Docker Desktop");
        let rootless = info.security_options.unwrap_or_default().iter().any(|option| option.contains("rootless"));
        let host = std::env::var("DOCKER_HOST").unwrap_or_default();
        let local = host.is_empty() || host.starts_with("unix://");
        let version = version.version.unwrap_or(api);
        Ok(Self { docker, facts: Arc::new(Facts { version, desktop, shares_host: local && !desktop && !rootless }) })
    }

    /// The client for calls.
    pub(crate) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// The engine's version, such as `20.10.24`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.facts.version
    }

    /// Whether it runs in a virtual machine of Docker Desktop: containers' addresses are not reachable from here, and
    /// sockets do not cross bind mounts.
    #[must_use]
    pub fn is_desktop(&self) -> bool {
        self.facts.desktop
    }

    /// Whether its containers' addresses and files are this host's: it is no virtual machine's, no other host's, and
    /// not rootless.
    pub(crate) fn shares_host(&self) -> bool {
        self.facts.shares_host
    }
}

fn at_least(version: &str, oldest: &str) -> bool {
    let parse = |text: &str| -> (u32, u32) {
        let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    parse(version) >= parse(oldest)
}

/// Says an engine's error in our words: kind, effect and retry are what the engine of Deployer acts on.
pub(crate) fn classify(operation: &'static str, resource: impl Into<String>, error: DockerError) -> Error {
    let classified = match &error {
        DockerError::DockerResponseServerError { status_code, message } => by_status(*status_code, message),
        // An error in the middle of a stream comes without a status: the engine's words are all there is.
        DockerError::DockerStreamError { error } => by_status(500, error),
        DockerError::RequestTimeoutError => Error::new(ErrorKind::Timeout, "the Docker Engine did not answer in time"),
        DockerError::IOError { .. } | DockerError::HyperResponseError { .. } | DockerError::HttpClientError { .. } => {
            Error::new(ErrorKind::Unavailable, "the connection to the Docker Engine failed").with_source(error)
        }
        DockerError::SocketNotFoundError(_) => {
            Error::new(ErrorKind::Unavailable, "no Docker Engine answers").with_effect(Effect::None).with_source(error)
        }
        _ => Error::new(ErrorKind::Internal, "the Docker Engine's answer makes no sense").with_source(error),
    };
    classified.with_operation(operation).with_resource(resource)
}

fn by_status(status: u16, message: &str) -> Error {
    let text = message.to_ascii_lowercase();
    let has = |part: &str| text.contains(part);
    let taken = has("port is already allocated") || has("address already in use");
    let used_up = has("no space left on device") || has("could not find an available");
    let (kind, retry) = if taken || used_up {
        (ErrorKind::Exhausted, Retry::Never)
    } else if has("no such file or directory: unknown")
        || has("executable file not found")
        || has("permission denied: unknown")
        || has("failed to create shim")
        || has("oci runtime create failed")
    {
        (ErrorKind::Workload, Retry::Never)
    } else if has("no such host") || has("connection refused") || has("i/o timeout") || has("tls handshake timeout") {
        (ErrorKind::Unavailable, Retry::Soon)
    } else if has("unauthorized") || has("denied") || has("authentication required") {
        (ErrorKind::PermissionDenied, Retry::Never)
    } else {
        match status {
            400 => (ErrorKind::InvalidInput, Retry::Never),
            401 | 403 => (ErrorKind::PermissionDenied, Retry::Never),
            404 => (ErrorKind::NotFound, Retry::Never),
            409 => (ErrorKind::Conflict, Retry::Soon),
            500..=599 => (ErrorKind::Unavailable, Retry::Soon),
            _ => (ErrorKind::Internal, Retry::Never),
        }
    };
    Error::new(kind, message.trim().to_owned()).with_retry(retry).with_effect(Effect::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(at_least("1.41", "1.41") && at_least("1.100", "1.41") && at_least("2.0", "1.41"));
        assert!(!at_least("1.9", "1.41") && !at_least("", "1.41"));
    }

    #[test]
    fn known_answers_are_classified() {
        let kind = |status, message: &str| by_status(status, message).kind();
        assert_eq!(kind(500, "Bind for 127.0.0.1:80 failed: port is already allocated"), ErrorKind::Exhausted);
        assert_eq!(
            kind(400, "failed to create shim task: exec: \"/nope\": stat /nope: no such file or directory: unknown"),
            ErrorKind::Workload
        );
        assert_eq!(kind(404, "No such image: x:v9"), ErrorKind::NotFound);
        assert_eq!(kind(500, "dial tcp: lookup registry: no such host"), ErrorKind::Unavailable);
    }
}

//! Credentials of registries from the Docker client's configuration file.
//!
//! Only those that the file itself holds (`auths`) are read. Credential helpers are programs; none is run.

use std::collections::HashMap;
use std::env;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use hyper::header::HeaderValue;
use serde::Deserialize;

/// The key of Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The credentials of all registries that the file names.
#[derive(Clone, Default)]
pub(crate) struct Credentials {
    registries: HashMap<String, DockerCredentials>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: HashMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Credentials {
    /// Reads the file of the user who runs this process; none if there is none. Blocks for a moment.
    pub(crate) fn of_user() -> Self {
        let directory = match (env::var_os("DOCKER_CONFIG"), env::home_dir()) {
            (Some(directory), _) if !directory.is_empty() => PathBuf::from(directory),
            (_, Some(home)) => home.join(".docker"),
            _ => return Self::default(),
        };
        let Ok(text) = std::fs::read_to_string(directory.join("config.json")) else { return Self::default() };
        Self::parse(&text).unwrap_or_else(|| {
            tracing::warn!(
                "the Docker client's config.json is not understood; registries are asked without credentials"
            );
            Self::default()
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let file: File = serde_json::from_str(text).ok()?;
        let registries = file.auths.into_iter().filter_map(|(registry, auth)| {
            let pair = auth.auth.as_deref().filter(|auth| !auth.is_empty()).map(decode);
            let (username, password) = match pair {
                Some(pair) => pair?,
                None if auth.identitytoken.is_none() && auth.registrytoken.is_none() => return None,
                None => (None, None),
            };
            let credentials = DockerCredentials {
                username,
                password,
                serveraddress: Some(registry.clone()),
                identitytoken: auth.identitytoken,
                registrytoken: auth.registrytoken,
                ..DockerCredentials::default()
            };
            Some((registry, credentials))
        });
        Some(Self { registries: registries.collect() })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.registries.is_empty()
    }

    /// The credentials for pulling an image of this name.
    pub(crate) fn for_image(&self, reference: &str) -> Option<DockerCredentials> {
        let registry = registry_of(reference);
        let found = match registry {
            None => self.registries.get(DOCKER_HUB),
            Some(registry) => self
                .registries
                .iter()
                .find(|(key, _)| {
                    let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
                    key.split('/').next() == Some(registry)
                })
                .map(|(_, credentials)| credentials),
        };
        found.cloned()
    }

    /// All of them, by registry.
    #[cfg(feature = "build-secrets")]
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, DockerCredentials)> {
        self.registries.iter().map(|(registry, credentials)| (registry.as_str(), credentials.clone()))
    }

    /// All of them, as the header that builds take.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        if self.is_empty() {
            return None;
        }
        let json = serde_json::to_vec(&self.registries).ok()?;
        let mut header = HeaderValue::try_from(STANDARD.encode(json)).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

type Pair = (Option<String>, Option<String>);

fn decode(auth: &str) -> Option<Pair> {
    let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    // The client pads with zero bytes.
    Some((Some(user.to_owned()), Some(password.trim_end_matches('\0').to_owned())))
}

/// The registry in an image's name; none means Docker Hub.
fn registry_of(reference: &str) -> Option<&str> {
    let (first, _) = reference.split_once('/')?;
    let is_host = first.contains(['.', ':']) || first == "localhost";
    (is_host && first != "docker.io" && first != "index.docker.io").then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
        "auths": {
            "https://index.docker.io/v1/": {"auth": "aHVi"},
            "registry.example:5000": {"auth": "dXNlcjpwYTpzcw=="},
            "https://other.example/v2/": {"identitytoken": "token"},
            "helper.example": {}
        },
        "credsStore": "desktop"
    }"#;

    #[test]
    fn names_find_their_registry() {
        for (reference, registry) in [
            ("redis:7", None),
            ("library/redis", None),
            ("docker.io/library/redis", None),
            ("registry.example:5000/a/b:1", Some("registry.example:5000")),
            ("localhost/a", Some("localhost")),
            ("team/image@sha256:00", None),
        ] {
            assert_eq!(registry_of(reference), registry, "{reference}");
        }
    }

    #[test]
    fn what_the_file_holds_is_found() {
        let credentials = Credentials::parse(FILE).unwrap();
        let found = credentials.for_image("registry.example:5000/a:1").unwrap();
        assert_eq!((found.username.as_deref(), found.password.as_deref()), (Some("user"), Some("pa:ss")));
        let found = credentials.for_image("other.example/a").unwrap();
        assert_eq!((found.username, found.identitytoken.as_deref()), (None, Some("token")));
        assert!(credentials.for_image("helper.example/a").is_none(), "helpers are not run");
        assert!(credentials.for_image("redis").is_none(), "an entry that makes no sense is left out");
        assert!(credentials.header().unwrap().is_sensitive());
    }

    #[test]
    fn files_without_credentials_are_fine() {
        assert!(Credentials::parse("{}").unwrap().is_empty());
        assert!(Credentials::parse("{}").unwrap().header().is_none());
        assert!(Credentials::parse("nonsense").is_none());
    }
}

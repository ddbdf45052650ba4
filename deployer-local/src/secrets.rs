//! Secrets that this host has: in environment variables and in files.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use deployer_core::compose::SecretOrigin;
use deployer_core::{Error, ErrorKind, Result, SecretRef, SecretValue, Secrets};

/// Finds secrets in environment variables and files of this host. It knows only what it is told of.
///
/// ```
/// use deployer_local::HostSecrets;
///
/// let secrets = HostSecrets::new()
///     .with_file("database", "/etc/shop/database-password")
///     .with_env("token", "SHOP_API_TOKEN")
///     .with_dir("/run/secrets");
/// ```
///
/// A name that was given a file or a variable is looked for nowhere else. Other names are looked for in the directories
/// and then behind the prefixes, in the order in which those were given; the first that has it wins. One line end at the
/// end of a file is not part of the value. There are no versions: after a change, a rollback gets the new value.
#[derive(Clone, Default)]
pub struct HostSecrets {
    named: BTreeMap<String, Source>,
    directories: Vec<PathBuf>,
    prefixes: Vec<String>,
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Variable(String),
    Value(SecretValue),
}

impl fmt::Debug for HostSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostSecrets")
            .field("named", &self.named)
            .field("directories", &self.directories)
            .field("prefixes", &self.prefixes)
            .finish()
    }
}

impl HostSecrets {
    /// Knows no secrets yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The secret of this name is what the file holds.
    #[must_use]
    pub fn with_file(mut self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.named.insert(name.into(), Source::File(path.into()));
        self
    }

    /// The secret of this name is the value of the environment variable.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, variable: impl Into<String>) -> Self {
        self.named.insert(name.into(), Source::Variable(variable.into()));
        self
    }

    /// The secrets of a Compose file, where its top-level `secrets` says that they are.
    #[must_use]
    pub fn with_compose(mut self, secrets: &BTreeMap<String, SecretOrigin>) -> Self {
        for (name, origin) in secrets {
            let source = match origin {
                SecretOrigin::File(path) => Source::File(path.clone()),
                SecretOrigin::Value(value) => Source::Value(value.clone()),
            };
            self.named.insert(name.clone(), source);
        }
        self
    }

    /// Every file in the directory is a secret of the file's name, as in `/run/secrets`.
    #[must_use]
    pub fn with_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.directories.push(path.into());
        self
    }

    /// Every environment variable whose name begins with the prefix is a secret. After the prefix comes the secret's
    /// name in capitals, with `_` for everything but letters and digits: with `SHOP_`, the secret `db-password` is
    /// `SHOP_DB_PASSWORD`.
    #[must_use]
    pub fn with_env_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefixes.push(prefix.into());
        self
    }

    /// The value, if this host has it. Blocks.
    fn find(&self, name: &str) -> Result<Option<SecretValue>> {
        match self.named.get(name) {
            Some(Source::File(path)) => return read(path),
            Some(Source::Variable(variable)) => return from_env(variable),
            Some(Source::Value(value)) => return Ok(Some(value.clone())),
            None => {}
        }
        // Only names of files right in the directory: no paths.
        if !name.contains(['/', '\\', '\0']) && !matches!(name, "" | "." | "..") {
            for directory in &self.directories {
                if let Some(value) = read(&directory.join(name))? {
                    return Ok(Some(value));
                }
            }
        }
        let in_capitals: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        for prefix in &self.prefixes {
            if let Some(value) = from_env(&format!("{prefix}{in_capitals}"))? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    async fn get(&self, operation: &'static str, reference: &SecretRef) -> Result<SecretValue> {
        let named = |error: Error| error.with_operation(operation).with_resource(reference.name.as_str());
        if let Some(version) = &reference.version {
            return Err(named(
                Error::new(ErrorKind::NotFound, format!("secrets of this host have no versions such as {version}"))
                    .with_help("deploy again, so that the release refers to the secret as it is on this host"),
            ));
        }
        let (secrets, name) = (self.clone(), reference.name.clone());
        let found = tokio::task::spawn_blocking(move || secrets.find(&name)).await.map_err(|error| {
            named(Error::new(ErrorKind::Internal, "the work of reading a secret did not end").with_source(error))
        })?;
        found.map_err(named)?.ok_or_else(|| {
            named(
                Error::new(ErrorKind::NotFound, "this host has no such secret")
                    .with_context("looked in", self.places(&reference.name))
                    .with_help("create it in one of these places, or tell `HostSecrets` where it is"),
            )
        })
    }

    /// Where a secret of this name would be, in words.
    fn places(&self, name: &str) -> String {
        match self.named.get(name) {
            Some(Source::File(path)) => return format!("file {}", path.display()),
            Some(Source::Variable(variable)) => return format!("variable {variable}"),
            Some(Source::Value(_)) => return "what the program said".to_owned(),
            None => {}
        }
        let directories = self.directories.iter().map(|path| format!("directory {}", path.display()));
        let prefixes = self.prefixes.iter().map(|prefix| format!("variables {prefix}*"));
        let places: Vec<String> = directories.chain(prefixes).collect();
        if places.is_empty() { "nowhere, as no place is known".to_owned() } else { places.join(", ") }
    }
}

/// What a file holds; none if there is none.
fn read(path: &Path) -> Result<Option<SecretValue>> {
    // The error of `read_to_string` for bytes that are no text does not hold them.
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => return Ok(None),
        Err(error) => {
            let kind = match error.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::InvalidInput,
            };
            return Err(Error::new(kind, "the secret's file cannot be read")
                .with_context("file", path.display().to_string())
                .with_source(error));
        }
    };
    let value = text.strip_suffix('\n').map_or(text.as_str(), |rest| rest.strip_suffix('\r').unwrap_or(rest));
    Ok(Some(SecretValue::new(value)))
}

fn from_env(variable: &str) -> Result<Option<SecretValue>> {
    // `env::var` panics at such names on some systems.
    if variable.is_empty() || variable.contains(['=', '\0']) {
        return Ok(None);
    }
    match env::var(variable) {
        Ok(value) => Ok(Some(SecretValue::new(value))),
        Err(env::VarError::NotPresent) => Ok(None),
        // That error shows the value.
        Err(env::VarError::NotUnicode(_)) => {
            Err(Error::new(ErrorKind::InvalidInput, "the secret's environment variable is not UTF-8")
                .with_context("variable", variable))
        }
    }
}

#[async_trait]
impl Secrets for HostSecrets {
    async fn pin(&self, reference: &SecretRef) -> Result<SecretRef> {
        self.get("secrets.pin", reference).await.map(|_| reference.clone())
    }

    async fn reveal(&self, reference: &SecretRef) -> Result<SecretValue> {
        self.get("secrets.reveal", reference).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn value(secrets: &HostSecrets, name: &str) -> String {
        secrets.reveal(&SecretRef::new(name)).await.unwrap().expose().to_owned()
    }

    async fn error(secrets: &HostSecrets, name: &str) -> Error {
        let reference = SecretRef::new(name);
        let (pin, reveal) = (secrets.pin(&reference).await, secrets.reveal(&reference).await);
        assert_eq!(pin.unwrap_err().kind(), reveal.as_ref().unwrap_err().kind());
        reveal.unwrap_err()
    }

    #[tokio::test]
    async fn files_lose_one_line_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut secrets = HostSecrets::new();
        for (name, text, expected) in
            [("a", "x\n", "x"), ("b", "x\n\n", "x\n"), ("c", "x\r\n", "x"), ("d", " x ", " x "), ("e", "", "")]
        {
            std::fs::write(directory.path().join(name), text).unwrap();
            secrets = secrets.with_file(name, directory.path().join(name));
            assert_eq!(value(&secrets, name).await, expected, "{text:?}");
        }
        assert_eq!(secrets.pin(&SecretRef::new("a")).await.unwrap(), SecretRef::new("a"));
    }

    #[tokio::test]
    async fn variables_are_found_by_name_and_by_prefix() {
        let path = env::var("PATH").unwrap();
        let secrets = HostSecrets::new().with_env("named", "PATH").with_env_prefix("PA");
        assert_eq!(value(&secrets, "named").await, path);
        assert_eq!(value(&secrets, "th").await, path);
        let home = HostSecrets::new().with_env_prefix("CARGO_");
        assert_eq!(value(&home, "pkg-name").await, env!("CARGO_PKG_NAME"));
    }

    #[tokio::test]
    async fn directories_hold_their_files_and_nothing_beyond() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("first"), directory.path().join("second"));
        for (path, text) in [(first.join("a"), "1"), (second.join("a"), "2"), (second.join("b"), "3")] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let secrets = HostSecrets::new().with_dir(&first).with_dir(&second);
        assert_eq!(value(&secrets, "a").await, "1");
        assert_eq!(value(&secrets, "b").await, "3");
        for name in ["../second/b", "/etc/hostname", "..", "", "nope"] {
            assert_eq!(error(&secrets, name).await.kind(), ErrorKind::NotFound, "{name}");
        }
    }

    #[tokio::test]
    async fn a_name_with_a_place_of_its_own_is_looked_for_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), "general").unwrap();
        let secrets = HostSecrets::new().with_dir(directory.path()).with_file("a", directory.path().join("gone"));
        let error = error(&secrets, "a").await;
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("gone") && error.help().is_some(), "{error}");
    }

    #[tokio::test]
    async fn versions_are_refused_and_values_do_not_show() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), b"hush\xff").unwrap();
        let secrets = HostSecrets::new().with_dir(directory.path());
        let unreadable = error(&secrets, "a").await;
        assert_eq!(unreadable.kind(), ErrorKind::InvalidInput);
        assert!(!format!("{unreadable:?}{unreadable}{secrets:?}").contains("hush"));
        let mut versioned = SecretRef::new("a");
        versioned.version = Some("7".to_owned());
        assert_eq!(secrets.reveal(&versioned).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

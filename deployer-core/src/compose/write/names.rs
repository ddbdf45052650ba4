//! The names under which configs and secrets are declared.

use std::collections::{BTreeMap, BTreeSet};

use super::yaml::Map;
use crate::model::{AppSpec, FileContent, ImageSource};

/// The longest name that a declaration may have.
const MAX: usize = 128;

/// What is declared at the top because services refer to it.
pub(super) struct Names<'a> {
    /// By service and path, the name of a config and its text.
    configs: BTreeMap<&'a str, BTreeMap<&'a str, (String, &'a str)>>,
    /// By the names for [`Secrets`](crate::Secrets), those in the file.
    secrets: BTreeMap<&'a str, String>,
}

impl<'a> Names<'a> {
    pub(super) fn new(spec: &'a AppSpec) -> Self {
        let (mut configs, mut secrets): (BTreeMap<&str, BTreeMap<_, _>>, _) = (BTreeMap::new(), BTreeSet::new());
        let mut taken = BTreeSet::new();
        for (service, spec) in &spec.services {
            for file in &spec.workload.files {
                match &file.content {
                    FileContent::Text(text) => {
                        let name = free(&format!("{service}-{}", file.target), &mut taken);
                        let files = configs.entry(service.as_str()).or_default();
                        files.insert(file.target.as_str(), (name, text.as_str()));
                    }
                    FileContent::Secret(secret) => {
                        secrets.insert(secret.name.as_str());
                    }
                }
            }
            if let ImageSource::Build(build) = &spec.image {
                secrets.extend(build.secrets.values().map(|secret| secret.name.as_str()));
            }
        }
        // Those that can be called what they are called go first.
        let (plain, other): (Vec<&str>, Vec<&str>) = secrets.into_iter().partition(|name| simple(name) == **name);
        let mut taken = BTreeSet::new();
        let secrets = plain.into_iter().chain(other).map(|name| (name, free(name, &mut taken))).collect();
        Self { configs, secrets }
    }

    /// The name of the config that a service has at this path.
    pub(super) fn config(&self, service: &str, target: &str) -> &str {
        self.configs.get(service).and_then(|files| files.get(target)).map_or("", |(name, _)| name)
    }

    /// The name in the file of a secret.
    pub(super) fn secret(&self, name: &str) -> &str {
        self.secrets.get(name).map_or("", String::as_str)
    }

    /// The top-level `configs`.
    pub(super) fn configs(&self) -> Map {
        let config = |(name, text): &(String, &str)| {
            let mut config = Map::default();
            config.put("content", *text);
            (name.clone(), config)
        };
        self.configs.values().flat_map(BTreeMap::values).map(config).collect::<Map>().sorted()
    }

    /// The top-level `secrets`.
    pub(super) fn secrets(&self) -> Map {
        let secret = |(name, key): (&&str, &String)| {
            let mut secret = Map::default();
            secret.put("external", true);
            secret.put_unless("name", *name, key.as_str());
            (key.clone(), secret)
        };
        self.secrets.iter().map(secret).collect::<Map>().sorted()
    }
}

/// The text with only the characters that a name may have.
fn simple(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let name: String = text.chars().map(plain).take(MAX).collect();
    let name = name.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

/// A name like the text that none of the others has.
fn free(text: &str, taken: &mut BTreeSet<String>) -> String {
    let name = simple(text);
    let numbered = |number: usize| match number {
        1 => name.clone(),
        _ => {
            let end = format!("-{number}");
            let start = name.get(..MAX - end.len()).unwrap_or(&name);
            format!("{start}{end}")
        }
    };
    let name = (1..).map(numbered).find(|name| !taken.contains(name)).unwrap_or_default();
    taken.insert(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_unique() {
        let mut taken = BTreeSet::new();
        for (text, expected) in [
            ("web-/etc/app.conf", "web-etc-app.conf"),
            ("web-/etc-app.conf", "web-etc-app.conf-2"),
            ("web-/etc/app.conf-2", "web-etc-app.conf-2-2"),
            ("", "unnamed"),
            ("/ä/", "unnamed-2"),
        ] {
            assert_eq!(free(text, &mut taken), expected, "{text}");
        }
        let long = "x".repeat(200);
        assert_eq!(free(&long, &mut taken), "x".repeat(128));
        assert_eq!(free(&long, &mut taken), format!("{}-2", "x".repeat(126)));
    }
}

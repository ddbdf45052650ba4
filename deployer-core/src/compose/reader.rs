//! The reader: from a file to an application, stage by stage.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::cursor::{Cursor, Field, Fields};
use super::dotenv::{self, Format};
use super::interpolate::{self, Expander};
use super::node::{Node, Position, Value};
use super::report::Report;
use super::{Project, keys, load, project, resources, service, source};
use crate::model::{AppName, AppSpec, Problem, Problems, ServiceName};

/// Reads Compose files.
///
/// The process environment is never looked at: variables are what [`with_env`](Self::with_env) gives, then what the
/// `.env` file beside the Compose file holds. Programs whose users expect their shell's variables to count pass
/// `std::env::vars()` to [`with_env_map`](Self::with_env_map).
///
/// `Debug` shows the names of the variables, not their values.
#[derive(Clone, Default)]
pub struct ComposeReader {
    env: BTreeMap<String, String>,
    project_name: Option<String>,
    env_file: Option<PathBuf>,
    profiles: BTreeSet<String>,
}

impl std::fmt::Debug for ComposeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComposeReader")
            .field("env", &self.env.keys())
            .field("project_name", &self.project_name)
            .field("env_file", &self.env_file)
            .field("profiles", &self.profiles)
            .finish()
    }
}

/// A Compose file as it was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ComposeApp {
    /// The application; it has been [validated](AppSpec::validate).
    pub spec: AppSpec,
    /// What has no effect, or is probably not what was meant.
    pub warnings: Problems,
}

impl ComposeReader {
    /// A reader without variables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a variable. It wins over one of that name in `.env`.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets several variables.
    #[must_use]
    pub fn with_env_map<N: Into<String>, V: Into<String>>(mut self, env: impl IntoIterator<Item = (N, V)>) -> Self {
        self.env.extend(env.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Names the application, whatever the file says.
    #[must_use]
    pub fn with_project_name(mut self, name: impl Into<String>) -> Self {
        self.project_name = Some(name.into());
        self
    }

    /// Reads variables from this file instead of from `.env` beside the Compose file. It has to exist.
    #[must_use]
    pub fn with_env_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.env_file = Some(path.into());
        self
    }

    /// Includes the services of this profile; `*` includes those of all.
    #[must_use]
    pub fn with_profile(mut self, profile: impl Into<String>) -> Self {
        self.profiles.insert(profile.into());
        self
    }

    /// Reads a Compose file, and `.env` and the files under `env_file` that belong to it.
    ///
    /// # Errors
    /// Every problem at once, warnings among them, if one of them is an error.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<ComposeApp, Problems> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let refuse = |message: &str| Err(Problems(vec![Problem::error(name.as_str(), message)]));
        match load::text(path) {
            Ok(Some(text)) => self.read_str(&text, &name, path.parent().unwrap_or(Path::new(""))),
            Ok(None) => refuse("the file does not exist"),
            Err(why) => refuse(&why),
        }
    }

    /// Reads the text of a Compose file. `file_name` is how problems name it; relative paths, `.env` and the files
    /// under `env_file` are looked for in `project_dir`.
    ///
    /// # Errors
    /// Every problem at once, warnings among them, if one of them is an error.
    pub fn read_str(
        &self,
        text: &str,
        file_name: impl Into<String>,
        project_dir: impl AsRef<Path>,
    ) -> Result<ComposeApp, Problems> {
        let mut report = Report::default();
        report.files.push(file_name.into());
        let spec = self.read(&mut report, text, project_dir.as_ref());
        match spec {
            Some(spec) if !report.has_errors() => Ok(ComposeApp { spec, warnings: report.finish() }),
            _ => Err(report.finish()),
        }
    }

    fn read(&self, report: &mut Report, text: &str, dir: &Path) -> Option<AppSpec> {
        let start = Position { file: 0, line: 1, column: 1 };
        let mut root = match source::parse(text, 0) {
            Ok(root) => root,
            Err(faults) => {
                for fault in faults {
                    report.problem(&fault.path, fault.at, fault.message, fault.help.map(str::to_owned));
                }
                return None;
            }
        };
        let dir = match std::path::absolute(if dir.as_os_str().is_empty() { Path::new(".") } else { dir }) {
            Ok(dir) => project::tidy(&dir),
            Err(error) => {
                report.problem("", start, format!("the project's directory cannot be found: {error}"), None);
                return None;
            }
        };

        let mut variables = self.dotenv(report, &dir)?;
        variables.extend(self.env.clone());
        // The name is put in first, because all other values may refer to it.
        let name = self.name(report, &mut root, &variables, &dir);
        if let Some(name) = &name {
            variables.insert("COMPOSE_PROJECT_NAME".to_owned(), name.to_string());
        }
        let lookup = |name: &str| variables.get(name).map(String::as_str);
        let mut expander = Expander::new(&lookup);
        if let Value::Map(entries) = &mut root.value {
            for entry in entries.iter_mut().filter(|entry| entry.key != "name") {
                interpolate::apply(&mut entry.value, &entry.key, &mut expander, report);
            }
        }
        let top = report.fields(&Cursor::root(&root), &keys::TOP)?;
        let spec = self.app(report, &top, name, &dir, &lookup)?;
        let (Ok(problems) | Err(problems)) = spec.validate();
        report.adopt(problems);
        Some(spec)
    }

    /// The variables of `.env`; none if it cannot be read, because without them all values would look wrong. Its
    /// problems have no place: the line that a place shows could hold a password.
    fn dotenv(&self, report: &mut Report, dir: &Path) -> Option<BTreeMap<String, String>> {
        let path = self.env_file.clone().unwrap_or_else(|| dir.join(".env"));
        let name = if self.env_file.is_some() { path.display().to_string() } else { ".env".to_owned() };
        let mut refuse = |message: String| report.add(Problem::error(name.as_str(), message));
        let text = match load::text(&path) {
            Ok(Some(text)) => text,
            Ok(None) if self.env_file.is_none() => return Some(BTreeMap::new()),
            Ok(None) => {
                refuse("the file does not exist".to_owned());
                return None;
            }
            Err(why) => {
                refuse(why);
                return None;
            }
        };
        match dotenv::parse(&text, Format::Compose, &|name| self.env.get(name).map(String::as_str)) {
            Ok(variables) => Some(variables.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()),
            Err(faults) => {
                faults.into_iter().for_each(|fault| refuse(format!("line {}: {}", fault.line, fault.message)));
                None
            }
        }
    }

    /// The application's name: the caller's, else that of the variable `COMPOSE_PROJECT_NAME`, else the file's, else
    /// the directory's.
    fn name(
        &self,
        report: &mut Report,
        root: &mut Node,
        variables: &BTreeMap<String, String>,
        dir: &Path,
    ) -> Option<AppName> {
        let lookup = |name: &str| variables.get(name).map(String::as_str);
        let Value::Map(entries) = &mut root.value else {
            report.problem("", root.at, "a Compose file is a mapping", "begin with `services:`".to_owned());
            return None;
        };
        let mut written = None;
        let mut at = Position { file: 0, line: 1, column: 1 };
        if let Some(entry) = entries.iter_mut().find(|entry| entry.key == "name") {
            interpolate::apply(&mut entry.value, "name", &mut Expander::new(&lookup), report);
            at = entry.value.at;
            written = Some(entry.value.clone());
        }
        let written = written.as_ref().map(|node| Cursor { node, path: "name".to_owned() });
        let written = written.filter(|cursor| !cursor.is_null()).and_then(|cursor| report.text(&cursor));
        let given = || variables.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()).cloned();
        let name = self.project_name.clone().or_else(given).or(written).unwrap_or_else(|| project::name_of(dir));
        match AppName::new(name) {
            Ok(name) => Some(name),
            Err(error) => {
                report.problem("name", at, error.message(), "write `name:` at the top of the file".to_owned());
                None
            }
        }
    }

    fn app<'a>(
        &self,
        report: &mut Report,
        top: &Fields<'a>,
        name: Option<AppName>,
        dir: &'a Path,
        variables: interpolate::Lookup<'a>,
    ) -> Option<AppSpec> {
        // Without a name the rest is read all the same, because all problems are to be found at once.
        let named = name.is_some();
        let mut spec = AppSpec::new(name.map_or_else(|| "unnamed".to_owned(), String::from)).ok()?;
        if let Some(cursor) = top.get("networks") {
            spec.networks = resources::networks(report, &cursor);
        }
        if let Some(cursor) = top.get("volumes") {
            spec.volumes = resources::volumes(report, &cursor);
        }
        let secrets = top.get("secrets").map(|cursor| resources::secrets(report, &cursor)).unwrap_or_default();
        let services = top.get("services").map(|cursor| {
            report.mark("services", &cursor);
            report.entries(&cursor)
        });
        if services.is_none() {
            report.mark_at("services", "services", top.cursor.node.at);
        }
        let (services, left_out): (Vec<_>, Vec<_>) =
            services.unwrap_or_default().into_iter().partition(|field| self.enabled(report, field));
        for field in left_out {
            let message = format!("{} is left out: none of its profiles is enabled", field.key);
            report.warn_at(&field.value.path, field.key_at, message, None);
        }
        let project = Project {
            dir,
            variables,
            secrets,
            reads_left: Cell::new(project::MAX_READS),
            services: services.iter().map(|field| field.key).collect(),
        };
        let mut complete = true;
        for field in &services {
            let name = match ServiceName::new(field.key) {
                Ok(name) => name,
                Err(error) => {
                    report.problem(&field.value.path, field.key_at, error.message(), None);
                    complete = false;
                    continue;
                }
            };
            match service::read(report, &project, field) {
                Some(service) => {
                    spec.services.insert(name, service);
                }
                None => complete = false,
            }
        }
        // What is checked between services would be wrong if one is missing.
        (complete && named).then_some(spec)
    }

    /// Whether the service has no profiles, or one that is enabled.
    fn enabled(&self, report: &mut Report, field: &Field<'_>) -> bool {
        let profiles = field.value.entries().into_iter().find(|field| field.key == "profiles");
        let Some(profiles) = profiles.filter(|field| !field.value.is_null()) else { return true };
        let names = report.texts(&profiles.value);
        names.is_empty() || self.profiles.contains("*") || names.iter().any(|name| self.profiles.contains(name))
    }
}

//! What a Compose file cannot say of an application.

use std::path::Path;

use serde_json::Value;

use super::super::reader::ComposeReader;
use super::super::sources::tidy;
use crate::model::{AppSpec, EnvValue, FileContent, ImageSource, Problem, Problems, SecretRef, ServiceSpec};

/// The longest value that a message shows.
const MAX_SHOWN: usize = 80;

/// Refuses what would be read as something else for a reason that can be told.
///
/// # Errors
/// Every such thing at once.
pub(super) fn sayable(spec: &AppSpec) -> Result<(), Problems> {
    let mut problems = Problems::default();
    for (name, service) in &spec.services {
        let mut add = |path: String, message: &str, help: &str| {
            problems.push(Problem::error(format!("services.{name}.{path}"), message).with_help(help));
        };
        if let ImageSource::Build(build) = &service.image {
            if !is_fixed(&build.context) {
                let help = "make it absolute: where the file will be is not known";
                add("build.context".to_owned(), "the path is relative, not in its shortest form, or no UTF-8", help);
            }
            if build.dockerfile.to_str().is_none() {
                add("build.dockerfile".to_owned(), "the path is no UTF-8", "give it another name");
            }
        }
        for (path, _) in secrets(service).into_iter().filter(|(_, secret)| secret.version.is_some()) {
            add(path, "a Compose file names secrets without a version", "leave it to the release, which pins it");
        }
        let is_text = |content: &FileContent| matches!(content, FileContent::Text(_));
        let files = &service.workload.files;
        if !files.is_sorted_by_key(|file| !is_text(&file.content)) {
            add("files".to_owned(), "a Compose file has those with text before those with secrets", "put them so");
        }
    }
    if problems.0.is_empty() { Ok(()) } else { Err(problems) }
}

/// Whether a path means the same wherever it is written.
fn is_fixed(path: &Path) -> bool {
    path.is_absolute() && path.to_str().is_some() && tidy(path).as_os_str() == path.as_os_str()
}

/// The secrets of a service, with their paths.
fn secrets(service: &ServiceSpec) -> Vec<(String, &SecretRef)> {
    let env = service.workload.env.iter().filter_map(|(name, value)| match value {
        EnvValue::Secret(secret) => Some((format!("env.{name}"), secret)),
        EnvValue::Plain(_) => None,
    });
    let files = service.workload.files.iter().enumerate().filter_map(|(index, file)| match &file.content {
        FileContent::Secret(secret) => Some((format!("files[{index}]"), secret)),
        FileContent::Text(_) => None,
    });
    let build = match &service.image {
        ImageSource::Build(build) => Some(&build.secrets),
        ImageSource::Reference(_) => None,
    };
    let build = build.into_iter().flatten().map(|(id, secret)| (format!("build.secrets.{id}"), secret));
    env.chain(files).chain(build).collect()
}

/// Refuses what is read in another way than it was meant.
///
/// # Errors
/// What the reader refuses, or else every difference.
pub(super) fn reads_as(spec: &AppSpec, text: &str) -> Result<(), Problems> {
    // Nothing on this computer has a say.
    let reader = ComposeReader::new().with_env("COMPOSE_DISABLE_ENV_FILE", "1").with_compose_variables();
    let read = reader.read_str(text, "compose.yaml", "/").map_err(|problems| {
        let refused = |problem: &Problem| {
            let message = format!("a Compose file cannot say this: {}", problem.message);
            Problem { help: problem.help.clone(), ..Problem::error(problem.path.as_str(), message) }
        };
        Problems(problems.errors().map(refused).collect())
    })?;
    let mut problems = Problems::default();
    // By what is stored, where durations end at milliseconds.
    match (serde_json::to_value(spec), serde_json::to_value(read.spec)) {
        (Ok(meant), Ok(read)) => compare(&meant, &read, String::new(), &mut problems),
        _ => problems.push(Problem::error("", "the spec cannot be stored")),
    }
    if problems.0.is_empty() { Ok(()) } else { Err(problems) }
}

/// Reports each part that is another.
fn compare(meant: &Value, read: &Value, path: String, problems: &mut Problems) {
    match (meant, read) {
        (Value::Object(one), Value::Object(other)) => {
            let added = other.keys().filter(|key| !one.contains_key(*key));
            for key in one.keys().chain(added) {
                let dot = if path.is_empty() { "" } else { "." };
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(&of(one), &of(other), format!("{path}{dot}{key}"), problems);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                compare(one, other, format!("{path}[{index}]"), problems);
            }
        }
        _ if meant == read => {}
        _ => {
            let shown = read.to_string();
            let shown = if shown.len() > MAX_SHOWN { "something else".to_owned() } else { format!("`{shown}`") };
            problems.push(Problem::error(path, format!("a Compose file cannot say this: it would be read as {shown}")));
        }
    }
}

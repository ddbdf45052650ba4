//! Tests of the whole reader, and what the tests of the topics share.

mod agreement;
mod golden;
mod hostile;
mod merge_agreement;
mod merging;
mod origins;
mod refusals;
mod schema;
mod selection;
mod several;
mod specification;
mod specs;
mod writing;

use tempfile::TempDir;

use super::node::{Node, Value};
use super::{ComposeApp, ComposeReader};
use crate::model::{EnvValue, Problems, ServiceSpec};

/// A directory that does not exist, so that nothing on this computer has a say.
pub(super) const DIR: &str = "/nowhere/shop";

/// Reads a file with a few variables: `A=a`, `EMPTY=`, `SECRET=hunter2`.
pub(super) fn read(text: &str) -> Result<ComposeApp, Problems> {
    let env = [("A", "a"), ("EMPTY", ""), ("SECRET", "hunter2")];
    ComposeReader::new().with_env_map(env).read_str(text, "compose.yaml", DIR)
}

/// A file with a service `web` that has these keys, among declared volumes, networks and other services.
pub(super) fn file(keys: &str) -> String {
    let keys: String = keys.lines().map(|line| format!("    {line}\n")).collect();
    let image = if keys.contains("image:") || keys.contains("build:") { "" } else { "    image: web:1\n" };
    format!(
        "services:\n  web:\n{image}{keys}  db:\n    image: db:1\n  cache:\n    image: cache:1\n\
         volumes:\n  data:\n  more:\nnetworks:\n  backend:\n  front:\n"
    )
}

/// The service `web` of [`file`], which has no problems at all. What was read is also written and read again.
pub(super) fn web(keys: &str) -> ServiceSpec {
    let mut app = read(&file(keys)).unwrap_or_else(|problems| panic!("{keys}\n{problems}"));
    assert_eq!(app.warnings.to_string(), "", "{keys}");
    writing::assert_written(&app.spec);
    app.spec.services.remove("web").unwrap()
}

/// The service `web` of [`file`], and its warnings as `path: message`.
pub(super) fn web_with_warnings(keys: &str) -> (ServiceSpec, Vec<String>) {
    let mut app = read(&file(keys)).unwrap_or_else(|problems| panic!("{keys}\n{problems}"));
    writing::assert_written(&app.spec);
    (app.spec.services.remove("web").unwrap(), lines(&app.warnings))
}

/// The problems of [`file`], as `path: message` without the `services.web.` that they begin with.
pub(super) fn complaints(keys: &str) -> Vec<String> {
    match read(&file(keys)) {
        Ok(app) => panic!("no complaint about\n{keys}\n{app:#?}"),
        Err(problems) => lines(&problems),
    }
}

pub(super) fn lines(problems: &Problems) -> Vec<String> {
    let line = |problem: &crate::model::Problem| {
        let path = problem.path.strip_prefix("services.web.").unwrap_or(&problem.path);
        format!("{path}: {}", problem.message)
    };
    problems.0.iter().map(line).collect()
}

/// The tree in a compact form: `{a: [1, 2]}`, quotes around scalars, `~` for null.
pub(super) fn show(node: &Node) -> String {
    match &node.value {
        Value::Null => "~".to_owned(),
        Value::Scalar(scalar) => format!("{:?}", scalar.text),
        Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let entries = entries.iter().map(|entry| format!("{}: {}", entry.key, show(&entry.value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A directory with these files.
pub(super) fn given(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

/// The problems of files in a directory, as `place: path: message`, with files named as seen from there.
pub(super) fn told(dir: &TempDir, problems: &Problems) -> Vec<String> {
    let prefix = format!("{}/", dir.path().display());
    let line = |problem: &crate::model::Problem| {
        let place = problem.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        format!("{place}{}: {}", problem.path, problem.message).replace(&prefix, "")
    };
    problems.0.iter().map(line).collect()
}

/// The environment of a service, as `NAME=value`.
pub(super) fn env(service: &ServiceSpec) -> String {
    let one = |(name, value): (&String, &EnvValue)| match value {
        EnvValue::Plain(value) => format!("{name}={value}"),
        EnvValue::Secret(secret) => format!("{name}<{}", secret.name),
    };
    service.workload.env.iter().map(one).collect::<Vec<_>>().join(" ")
}

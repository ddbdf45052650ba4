//! What is written is read as what it was.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::{lines, read, schema, specs};
use crate::compose::budget::Budget;
use crate::compose::fates::{EXTENSION, SECTIONS};
use crate::compose::node::{Node, Value};
use crate::compose::{ComposeReader, source, write};
use crate::model::{AppSpec, BuildSpec, Condition, File, Hook, HookPoint, Mount, SecretRef, ServiceName, ServiceSpec};

const SHOP: &str = include_str!("shop.yaml");

/// Writes the spec, reads it at a place where nothing is, and writes it again. The text is answered.
pub(super) fn assert_written(spec: &AppSpec) -> String {
    let text = write(spec).unwrap_or_else(|problems| panic!("{problems}\n{spec:#?}"));
    let app = ComposeReader::new().read_str(&text, "compose.yaml", "/nowhere/else");
    let app = app.unwrap_or_else(|problems| panic!("{text}\n{problems}"));
    assert_eq!(app.spec, *spec, "{text}");
    // The spec may be one of which something is to be said. Of the text is nothing to be said.
    assert_eq!(app.warnings.0.len(), spec.validate().unwrap().0.len(), "{text}\n{}", app.warnings);
    assert_eq!(write(&app.spec).unwrap(), text);
    assert_eq!(schema::complaints(&text).0, [""; 0], "{text}");
    text
}

#[test]
fn the_shop_is_written() {
    insta::assert_snapshot!(assert_written(&read(SHOP).unwrap().spec));
}

#[test]
fn files_and_secrets_are_declared() {
    let mut web = ServiceSpec::build(BuildSpec::new("/srv/web")).with_secret_env("A", SecretRef::new("team/a"));
    let files = [
        File::text("worker_processes auto;\nhttp {\n\tserver_name $host;\n}\n", "/etc/nginx.conf"),
        File { uid: 33, mode: 0o400, ..File::text("", "/etc-nginx.conf") },
        File::secret(SecretRef::new("team/token"), "/run/secrets/token"),
        File::secret(SecretRef::new("team-token"), "/t"),
    ];
    web.workload.files = files.into();
    let crate::model::ImageSource::Build(build) = &mut web.image else { unreachable!() };
    build.secrets.insert("npm".to_owned(), SecretRef::new("npm"));
    build.secrets.insert("id".to_owned(), SecretRef::new("team/token"));
    let app = AppSpec::new("shop").unwrap().with_service("web", web).unwrap();
    insta::assert_snapshot!(assert_written(&app));
}

#[test]
fn tasks_are_written_in_the_words_of_compose_if_they_can_be() {
    let text = "services: {web: {image: x, depends_on: {migrate: {condition: service_completed_successfully}}}, \
                late: {image: x, depends_on: [migrate]}, migrate: {image: y, command: [a]}}";
    let mut spec = read(text).unwrap().spec;
    let written = assert_written(&spec);
    assert!(written.contains("condition: service_completed_successfully\n"), "{written}");
    assert!(!written.contains("replicas") && !written.contains("x-deployer"), "{written}");
    assert_eq!(written.matches("restart").count(), 2, "what is done is done: {written}");

    // With less time it is no task as Compose knows it.
    let migrate = spec.services.get_mut("migrate").unwrap();
    migrate.hooks[0].timeout /= 2;
    let written = assert_written(&spec);
    assert!(written.contains("replicas: 0\n") && written.contains("point: pre-deploy\n"), "{written}");
    assert!(written.contains("condition: service_healthy\n"), "{written}");

    // Nor if nobody waits for it.
    migrate_waits(&mut spec, Condition::Started);
    assert!(assert_written(&spec).contains("name: run\n"));
}

fn migrate_waits(spec: &mut AppSpec, condition: Condition) {
    let migrate = spec.services.get_mut("migrate").unwrap();
    migrate.hooks = vec![super::super::app::task_hook()];
    let web = spec.services.get_mut("web").unwrap();
    web.depends_on.insert(ServiceName::new("migrate").unwrap(), condition);
}

#[test]
fn what_cannot_be_said_is_named() {
    let problems = |service: ServiceSpec| {
        let app = AppSpec::new("shop").unwrap().with_service("web", service).unwrap();
        lines(&write(&app).unwrap_err())
    };
    let image = || ServiceSpec::image("x");
    let with = |change: &dyn Fn(&mut ServiceSpec)| {
        let mut service = image();
        change(&mut service);
        service
    };
    let pinned = SecretRef { version: Some("3".to_owned()), ..SecretRef::new("a") };
    for (service, expected) in [
        (
            image().with_env("A B", ""),
            "environment.A B: a Compose file cannot say this: the name before `=` is empty or has a space in it",
        ),
        (image().with_secret_env("A", pinned.clone()), "env.A: a Compose file names secrets without a version"),
        (
            ServiceSpec::build(BuildSpec::new(".")),
            "build.context: the path is relative, not in its shortest form, or no UTF-8",
        ),
        (
            image().with_mount(Mount::bind("/srv/../x", "/x")),
            "workload.mounts[0].source.bind: a Compose file cannot say this: it would be read as `\"/x\"`",
        ),
        (
            with(&|web| web.workload.files = vec![File::secret(SecretRef::new("a"), "/a"), File::text("", "/b")]),
            "files: a Compose file has those with text before those with secrets",
        ),
        (
            with(&|web| web.workload.files = vec![File::secret(pinned.clone(), "/a")]),
            "files[0]: a Compose file names secrets without a version",
        ),
        (
            with(&|web| web.workload.container.pid = Some("container:x".to_owned())),
            "pid: a Compose file cannot say this: \"container:x\" is not `host`",
        ),
        (
            with(&|web| web.workload.resources.reserved_cpu_millis = Some(0)),
            "workload.resources.reserved_cpu_millis: a Compose file cannot say this: it would be read as `null`",
        ),
        (
            with(&|web| web.workload.user = Some("\0".to_owned())),
            "user: a Compose file cannot say this: the value contains a NUL character",
        ),
        (
            image().with_hook(Hook::new("a b", HookPoint::PreStop, ["x"])),
            "hooks[0]: a hook needs a plain name of its own, \"a b\" is not",
        ),
    ] {
        assert_eq!(problems(service), [expected]);
    }
    let big =
        with(&|web| web.workload.files = (0..4).map(|n| File::text("x".repeat(500_000), format!("/{n}"))).collect());
    assert_eq!(problems(big), [": a Compose file cannot say this: the file is larger than 1 MiB"]);
}

#[test]
fn long_keys_are_written() {
    let mut web = ServiceSpec::image("x");
    web.workload.labels.insert("k".repeat(3_000), "v".to_owned());
    assert_written(&AppSpec::new("shop").unwrap().with_service("web", web).unwrap());
}

/// The paths of all keys below the node, where `*` is any name and `[]` any item.
fn paths(node: &Node, path: &str, found: &mut BTreeSet<String>) {
    let known = |path: &str| SECTIONS.iter().any(|(known, _)| *known == path) || path.contains(".x-deployer");
    match &node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::List(items) => items.iter().for_each(|item| paths(item, &format!("{path}[]"), found)),
        Value::Map(entries) => {
            let kind = entries.iter().find(|entry| entry.key == "type").and_then(|entry| entry.value.text());
            let path = match kind {
                Some(kind) if path.ends_with(".strategy") => format!("{path}.type={kind}"),
                _ => path.to_owned(),
            };
            for entry in entries {
                let dot = if path.is_empty() { "" } else { "." };
                let key = if known(&path) { &*entry.key } else { "*" };
                let path = format!("{path}{dot}{key}");
                paths(&entry.value, &path, found);
                found.insert(path);
            }
        }
    }
}

/// What is read in another form than it is written, or does not become part of the application.
#[rustfmt::skip]
const OTHER_FORMS: [&str; 39] = [
    "include",
    "include[].env_file", "include[].path", "include[].project_directory",
    "services.*.cpus", "services.*.env_file", "services.*.extends", "services.*.gpus", "services.*.label_file",
    "services.*.links", "services.*.mem_limit", "services.*.mem_reservation", "services.*.profiles", "services.*.scale",
    "services.*.tmpfs",
    "services.*.depends_on.*.required",
    "services.*.deploy.mode", "services.*.deploy.restart_policy",
    "services.*.deploy.resources.limits.pids",
    "services.*.deploy.restart_policy.condition", "services.*.deploy.restart_policy.max_attempts",
    "services.*.env_file[].format", "services.*.env_file[].path", "services.*.env_file[].required",
    "services.*.extends.file", "services.*.extends.service",
    "services.*.gpus[].capabilities", "services.*.gpus[].count", "services.*.gpus[].device_ids",
    "services.*.gpus[].driver", "services.*.gpus[].options",
    "configs.*.environment", "configs.*.file",
    "secrets.*.environment", "secrets.*.file",
    "services.*.x-deployer.route",
    "services.*.x-deployer.route.host", "services.*.x-deployer.route.path", "services.*.x-deployer.route.port",
];

#[test]
fn every_key_is_written_but_for_other_forms() {
    let mut found = BTreeSet::new();
    let mut runner = TestRunner::deterministic();
    for _ in 0..150 {
        let text = write(&specs::spec().new_tree(&mut runner).unwrap().current()).unwrap();
        paths(&source::parse(&text, 0, &mut Budget::default()).unwrap()[0], "", &mut found);
    }
    let extension = EXTENSION.iter().map(|(path, section)| (format!("services.*.x-deployer.{path}"), *section));
    let sections = SECTIONS.iter().map(|(path, section)| ((*path).to_owned(), *section)).chain(extension);
    let keys = sections.flat_map(|(path, section)| {
        section.supported().map(move |key| format!("{path}.{key}").trim_start_matches('.').replace("..", "."))
    });
    let missing: Vec<String> = keys.filter(|key| !found.contains(key)).collect();
    assert_eq!(missing, OTHER_FORMS);
}

proptest! {
    #[test]
    fn any_application_is_read_as_it_was_written(spec in specs::spec()) {
        assert_written(&spec);
    }

    #[test]
    fn any_text_is_itself(text in specs::text()) {
        let web = ServiceSpec::image("x").with_command([text.as_str()]).with_env("A", text.as_str());
        assert_written(&AppSpec::new("shop").unwrap().with_service("web", web).unwrap());
    }
}

//! `build`: the directory that an image is built from.

use std::collections::BTreeMap;

use super::cursor::{Cursor, Fields};
use super::node::Position;
use super::report::Report;
use super::{Project, container, keys, service};
use crate::model::{BuildSpec, SecretRef};

/// Reads `build` of a service that is declared at `home`, which says where a missing context is.
pub(super) fn read(
    report: &mut Report,
    project: &Project<'_>,
    cursor: &Cursor<'_>,
    home: Position,
) -> Option<BuildSpec> {
    if cursor.scalar().is_some() {
        return Some(BuildSpec::new(context(report, project, cursor)?));
    }
    let fields = report.fields(cursor, &keys::BUILD)?;
    let mut build = BuildSpec::new(&project.sources.dir(home).absolute);
    if let Some(cursor) = fields.get("context") {
        build.context = context(report, project, &cursor)?.into();
    }
    build.dockerfile_inline = fields.text(report, "dockerfile_inline");
    if let Some(dockerfile) = fields.text(report, "dockerfile") {
        build.dockerfile = dockerfile.into();
        if build.dockerfile_inline.is_some() {
            report.error(&fields.cursor, "`dockerfile` and `dockerfile_inline` exclude each other");
        }
    }
    build.args = args(report, project, &fields);
    build.target = fields.text(report, "target");
    build.extra_hosts = container::extra_hosts(report, &fields);
    build.network = fields.text(report, "network");
    build.shm_size = fields.get("shm_size").and_then(|cursor| report.bytes(&cursor));
    build.tags = fields.get("tags").map(|cursor| report.texts(&cursor)).unwrap_or_default();
    build.no_cache = fields.flag(report, "no_cache").unwrap_or_default();
    build.labels = fields.get("labels").map(|cursor| service::labels(report, &cursor)).unwrap_or_default();
    build.secrets = secrets(report, project, &fields);
    Some(build)
}

fn context(report: &mut Report, project: &Project<'_>, cursor: &Cursor<'_>) -> Option<String> {
    let text = report.text(cursor)?;
    if text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/") {
        let help = "check it out, and name the directory";
        report.error_with_help(cursor, "a build context is a directory of this computer", help);
        return None;
    }
    project.path(report, cursor, &text)
}

/// Build arguments; one without a value takes it from the variables.
fn args(report: &mut Report, project: &Project<'_>, fields: &Fields<'_>) -> BTreeMap<String, String> {
    let Some(cursor) = fields.get("args") else { return BTreeMap::new() };
    let mut args = BTreeMap::new();
    for (name, value, at) in report.pairs(&cursor) {
        match value.or_else(|| project.variable(at.node.at, &name).map(str::to_owned)) {
            Some(value) => {
                args.insert(name, value);
            }
            None => {
                args.remove(&name);
                let help = "the Dockerfile's default applies";
                report.warn(&at, format!("the variable {name} is not set; the build argument is left out"), help);
            }
        }
    }
    args
}

fn secrets(report: &mut Report, project: &Project<'_>, fields: &Fields<'_>) -> BTreeMap<String, SecretRef> {
    let mut secrets = BTreeMap::new();
    let Some(cursor) = fields.get("secrets") else { return secrets };
    for item in report.items(&cursor) {
        let (source, id) = if item.is_map() {
            let Some(fields) = report.fields(&item, &keys::BUILD_SECRET) else { continue };
            let source = fields.require(report, "source").and_then(|cursor| report.text(&cursor));
            let target = fields.text(report, "target");
            let Some(source) = source else { continue };
            (source.clone(), target.unwrap_or(source))
        } else {
            let Some(source) = report.text(&item) else { continue };
            (source.clone(), source)
        };
        let name = project.secrets.get(&source).cloned().unwrap_or(source);
        secrets.insert(id, SecretRef::new(name));
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::super::tests::{complaints, web, web_with_warnings};
    use super::*;
    use crate::model::ImageSource;

    fn build(keys: &str) -> BuildSpec {
        match web(keys).image {
            ImageSource::Build(build) => build,
            ImageSource::Reference(reference) => panic!("{keys}: {reference}"),
        }
    }

    #[test]
    fn builds_are_read_in_every_form() {
        let shop = || BuildSpec::new("/nowhere/shop");
        assert_eq!(build("build: ."), shop());
        assert_eq!(build("build: {}"), shop());
        assert_eq!(build("build: ./web"), BuildSpec::new("/nowhere/shop/web"));
        assert_eq!(build("build: {context: /srv/web}"), BuildSpec::new("/srv/web"));
        assert_eq!(build("build: .\nimage: shop:1"), BuildSpec { tag: Some("shop:1".into()), ..shop() });
        assert_eq!(build("build: {args: {V: $A, A: }}"), shop().with_arg("V", "a").with_arg("A", "a"));
        assert_eq!(build("build: {args: [V=1, A]}"), shop().with_arg("V", "1").with_arg("A", "a"));
        assert_eq!(build("build: {dockerfile: a/D, target: t}").dockerfile.to_str(), Some("a/D"));
        assert_eq!(build("build: {dockerfile_inline: \"FROM x\"}").dockerfile_inline.as_deref(), Some("FROM x"));
        assert!(build("build: {no_cache: true}").no_cache);
        assert_eq!(build("build: {labels: [a=b]}").labels["a"], "b");
        let more = build("build: {extra_hosts: [\"a:10.0.0.1\"], network: none, shm_size: 1m, tags: [a, b]}");
        assert_eq!(
            (more.extra_hosts, more.network, more.shm_size),
            (vec!["a:10.0.0.1".into()], Some("none".into()), Some(1 << 20))
        );
        assert_eq!(more.tags, ["a", "b"]);
        let secrets = build("build: {secrets: [npm, {source: pypi, target: pip}]}").secrets;
        assert_eq!((secrets["npm"].name.as_str(), secrets["pip"].name.as_str()), ("npm", "pypi"));
    }

    #[test]
    fn wrong_builds_are_refused() {
        for (keys, expected) in [
            ("build: https://example.org/x.git", "build: a build context is a directory of this computer"),
            (
                "build: {context: \"git@example.org:x\"}",
                "build.context: a build context is a directory of this computer",
            ),
            ("build: ~/x", "build: `~` depends on who deploys"),
            ("build: \"\"", "build: the path is empty"),
            ("build: [x]", "build: a mapping is needed here, not a list"),
            (
                "build: {dockerfile: x, dockerfile_inline: y}",
                "build: `dockerfile` and `dockerfile_inline` exclude each other",
            ),
            ("build: {ssh: [default]}", "build.ssh: `ssh` is not supported"),
            (
                "build: {labels: {deployer.app: x}}",
                "build.labels.deployer.app: labels that begin with `deployer.` are set by the engine",
            ),
        ] {
            assert_eq!(complaints(keys), [expected], "{keys}");
        }
        let (_, warnings) = web_with_warnings("build: {args: [NONE]}");
        assert_eq!(warnings, ["build.args[0]: the variable NONE is not set; the build argument is left out"]);
    }
}

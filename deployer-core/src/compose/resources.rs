//! The top-level `networks`, `volumes` and `secrets`.

use std::collections::BTreeMap;

use super::cursor::{Cursor, Field, Fields};
use super::report::Report;
use super::{keys, service};
use crate::model::{NetworkSpec, VolumeSpec};

pub(super) fn networks(report: &mut Report, cursor: &Cursor<'_>) -> BTreeMap<String, NetworkSpec> {
    let mut networks = BTreeMap::new();
    for field in named(report, cursor) {
        let mut network = NetworkSpec::default();
        if !field.value.is_null()
            && let Some(fields) = report.fields(&field.value, &keys::NETWORK)
        {
            network.name = fields.text(report, "name");
            network.external = external(report, &fields);
            network.internal = fields.flag(report, "internal").unwrap_or_default();
            network.driver = fields.text(report, "driver");
            network.driver_opts = texts(report, &fields, "driver_opts");
            network.labels = labels(report, &fields);
        }
        networks.insert(field.key.to_owned(), network);
    }
    networks
}

pub(super) fn volumes(report: &mut Report, cursor: &Cursor<'_>) -> BTreeMap<String, VolumeSpec> {
    let mut volumes = BTreeMap::new();
    for field in named(report, cursor) {
        let mut volume = VolumeSpec::default();
        if !field.value.is_null()
            && let Some(fields) = report.fields(&field.value, &keys::VOLUME)
        {
            volume.name = fields.text(report, "name");
            volume.external = external(report, &fields);
            volume.driver = fields.text(report, "driver");
            volume.driver_opts = texts(report, &fields, "driver_opts");
            volume.labels = labels(report, &fields);
        }
        volumes.insert(field.key.to_owned(), volume);
    }
    volumes
}

/// The names of external secrets, by the names that the file uses. Other secrets are refused: their values would come
/// from files of this computer, and a spec never holds a secret.
pub(super) fn secrets(report: &mut Report, cursor: &Cursor<'_>) -> BTreeMap<String, String> {
    let mut secrets = BTreeMap::new();
    for field in named(report, cursor) {
        let Some(fields) = report.fields(&field.value, &keys::SECRET) else { continue };
        let name = fields.text(report, "name");
        if fields.flag(report, "external") == Some(true) {
            secrets.insert(field.key.to_owned(), name.unwrap_or_else(|| field.key.to_owned()));
        } else if !["file", "environment", "driver"].iter().any(|key| fields.cursor.has(key)) {
            report.error_with_help(&field.value, "the secret is not external", "write `external: true`");
        }
    }
    secrets
}

/// The entries, with names that are reported if they break the rule of Compose.
fn named<'a>(report: &mut Report, cursor: &Cursor<'a>) -> Vec<Field<'a>> {
    let mut entries = report.entries(cursor);
    entries.retain(|field| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let good = !field.key.is_empty() && field.key.len() <= 128 && field.key.chars().all(plain);
        if !good {
            let message = "a name has letters, digits, `-`, `_` and `.`";
            report.problem(&field.value.path, field.key_at, message, None);
        }
        good
    });
    entries
}

/// `external: true`; also Compose's old form, a mapping with the name.
fn external(report: &mut Report, fields: &Fields<'_>) -> bool {
    let Some(cursor) = fields.get("external") else { return false };
    if cursor.is_map() {
        report.error_with_help(&cursor, "this form of `external` is of the past", "write `external: true` and `name`");
        return true;
    }
    report.flag(&cursor).unwrap_or_default()
}

fn texts(report: &mut Report, fields: &Fields<'_>, key: &str) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    if let Some(cursor) = fields.get(key) {
        for field in report.entries(&cursor) {
            if let Some(text) = report.text(&field.value) {
                texts.insert(field.key.to_owned(), text);
            }
        }
    }
    texts
}

fn labels(report: &mut Report, fields: &Fields<'_>) -> BTreeMap<String, String> {
    fields.get("labels").map(|cursor| service::labels(report, &cursor)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{lines, read};

    fn with(top: &str) -> String {
        format!("services: {{web: {{image: x}}}}\n{top}\n")
    }

    #[test]
    fn networks_and_volumes_are_read() {
        let text = with(
            "networks: {a: , b: {name: n, external: true}, c: {driver: bridge, internal: true, driver_opts: {mtu: 1400}, labels: [x=y]}}\n\
             volumes: {v: {driver: local, driver_opts: {type: nfs}, labels: {x: y}}, w: {external: true, name: there}}",
        );
        let spec = read(&text).unwrap().spec;
        assert_eq!(spec.networks["a"], Default::default());
        assert_eq!((spec.networks["b"].name.as_deref(), spec.networks["b"].external), (Some("n"), true));
        let c = &spec.networks["c"];
        assert_eq!((c.driver.as_deref(), c.internal), (Some("bridge"), true));
        assert_eq!((c.driver_opts["mtu"].as_str(), c.labels["x"].as_str()), ("1400", "y"));
        let v = &spec.volumes["v"];
        assert_eq!(
            (v.driver.as_deref(), v.driver_opts["type"].as_str(), v.labels["x"].as_str()),
            (Some("local"), "nfs", "y")
        );
        assert_eq!((spec.volumes["w"].name.as_deref(), spec.volumes["w"].external), (Some("there"), true));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (top, expected) in [
            ("networks: {a: {ipam: {driver: x}}}", "networks.a.ipam: `ipam` is not supported"),
            ("networks: {a: {external: {name: x}}}", "networks.a.external: this form of `external` is of the past"),
            ("networks: {a: x}", "networks.a: \"x\" is not a mapping"),
            ("networks: [a]", "networks: a mapping is needed here, not a list"),
            (
                "volumes: {v: {labels: {com.docker.compose.volume: x}}}",
                "volumes.v.labels.com.docker.compose.volume: labels that begin with `com.docker.compose` are set by the engine",
            ),
            ("secrets: {s: {environment: X}}", "secrets.s.environment: `environment` is not supported"),
            ("secrets: {s: {}}", "secrets.s: the secret is not external"),
            ("secrets: {s: }", "secrets.s: a mapping is needed here, not nothing"),
        ] {
            assert_eq!(lines(&read(&with(top)).unwrap_err()), [expected], "{top}");
        }
    }
}

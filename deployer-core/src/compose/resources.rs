//! The top-level `networks`, `volumes`, `secrets` and `configs`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::cursor::{Cursor, Field, Fields};
use super::reader::SecretOrigin;
use super::report::Report;
use super::sources::Sources;
use super::{Project, container, keys, service};
use crate::backend::SecretValue;
use crate::model::{Ipam, IpamPool, NetworkSpec, VolumeSpec};

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
            network.driver_opts = container::pairs(report, &fields, "driver_opts");
            network.labels = labels(report, &fields);
            network.attachable = fields.flag(report, "attachable").unwrap_or_default();
            network.enable_ipv6 = fields.flag(report, "enable_ipv6").unwrap_or_default();
            network.ipam = fields.get("ipam").and_then(|cursor| ipam(report, &cursor));
        }
        networks.insert(field.key.to_owned(), network);
    }
    networks
}

fn ipam(report: &mut Report, cursor: &Cursor<'_>) -> Option<Ipam> {
    let fields = report.fields(cursor, &keys::IPAM)?;
    let mut ipam = Ipam {
        driver: fields.text(report, "driver"),
        options: container::pairs(report, &fields, "options"),
        pools: Vec::new(),
    };
    if let Some(cursor) = fields.get("config") {
        for item in report.items(&cursor) {
            let Some(fields) = report.fields(&item, &keys::IPAM_CONFIG) else { continue };
            let subnet = |text: &str| is_subnet(text).then(|| text.to_owned());
            let needed = "a subnet such as `172.28.0.0/16`";
            ipam.pools.push(IpamPool {
                subnet: fields.get("subnet").and_then(|cursor| report.parsed(&cursor, needed, subnet)),
                ip_range: fields.get("ip_range").and_then(|cursor| report.parsed(&cursor, needed, subnet)),
                gateway: fields.get("gateway").and_then(|cursor| {
                    report.parsed(&cursor, "an IP address", |text| text.parse::<IpAddr>().ok().map(|ip| ip.to_string()))
                }),
                aux_addresses: container::pairs(report, &fields, "aux_addresses"),
            });
        }
    }
    (ipam != Ipam::default()).then_some(ipam)
}

/// Whether it is an address with the length of a prefix.
fn is_subnet(text: &str) -> bool {
    let parts = text.split_once('/').and_then(|(ip, length)| Some((ip.parse().ok()?, length.parse::<u8>().ok()?)));
    parts.is_some_and(|(ip, length): (IpAddr, u8)| length <= if ip.is_ipv4() { 32 } else { 128 })
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
            volume.driver_opts = container::pairs(report, &fields, "driver_opts");
            volume.labels = labels(report, &fields);
        }
        volumes.insert(field.key.to_owned(), volume);
    }
    volumes
}

/// The secrets, by the names that the file uses: what [`Secrets`](crate::Secrets) know each by, and where its value is;
/// none if that is the program's business.
pub(super) fn secrets(
    report: &mut Report,
    sources: &Sources,
    cursor: &Cursor<'_>,
) -> BTreeMap<String, (String, Option<SecretOrigin>)> {
    let mut secrets = BTreeMap::new();
    for field in named(report, cursor) {
        let Some(fields) = report.fields(&field.value, &keys::SECRET) else { continue };
        let name = fields.text(report, "name").unwrap_or_else(|| field.key.to_owned());
        let external = fields.flag(report, "external") == Some(true);
        let Some(source) = only_one(report, &fields, &["file", "environment"]) else {
            if external {
                secrets.insert(field.key.to_owned(), (name, None));
            } else if !fields.cursor.has("driver") {
                let help = "name a `file` or an `environment` variable, or write `external: true`";
                report.error_with_help(&field.value, "the secret has no value", help);
            }
            continue;
        };
        if external {
            report.error(&source.1, format!("`external` and `{}` exclude each other", source.0));
            continue;
        }
        let origin = match source {
            ("file", at) => {
                let path = report.text(&at).and_then(|text| sources.path(report, &at, &text));
                path.map(|path| SecretOrigin::File(path.into()))
            }
            (_, at) => variable(report, sources, &at).map(|value| SecretOrigin::Value(SecretValue::new(value))),
        };
        secrets.extend(origin.map(|origin| (field.key.to_owned(), (name, Some(origin)))));
    }
    secrets
}

/// What the configs hold, by their names.
pub(super) fn configs(report: &mut Report, project: &Project<'_>, cursor: &Cursor<'_>) -> BTreeMap<String, String> {
    let mut configs = BTreeMap::new();
    for field in named(report, cursor) {
        let Some(fields) = report.fields(&field.value, &keys::CONFIG) else { continue };
        let text = match only_one(report, &fields, &["file", "content", "environment"]) {
            Some(("file", at)) => report.text(&at).and_then(|path| project.file_text(report, &at, &path)),
            Some(("content", at)) => report.text(&at),
            Some((_, at)) => variable(report, project.sources, &at),
            None if fields.cursor.has("external") => None,
            None => {
                let help = "name a `file` or an `environment` variable, or write the `content`";
                report.error_with_help(&field.value, "the config has no content", help);
                None
            }
        };
        configs.extend(text.map(|text| (field.key.to_owned(), text)));
    }
    configs
}

/// The one of these keys that is there. A second one is reported.
fn only_one<'a>(report: &mut Report, fields: &Fields<'a>, keys: &[&'static str]) -> Option<(&'static str, Cursor<'a>)> {
    let mut found = keys.iter().filter_map(|key| Some((*key, fields.get(key)?)));
    let first = found.next()?;
    if let Some((other, _)) = found.next() {
        report.error(&fields.cursor, format!("`{}` and `{other}` exclude each other", first.0));
    }
    Some(first)
}

/// The value of the variable that is named there; none, reported, if it is not set.
fn variable(report: &mut Report, sources: &Sources, at: &Cursor<'_>) -> Option<String> {
    let name = report.text(at)?;
    let value = sources.variables(at.node.at).get(&name).map(str::to_owned);
    if value.is_none() {
        report.error(at, format!("the variable {name} is not set"));
    }
    value
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
    fn addresses_of_networks_are_read() {
        let text = with(
            "networks: {a: {attachable: true, enable_ipv6: true, ipam: {driver: default, options: {x: y}, config: \
             [{subnet: 172.28.0.0/16, ip_range: 172.28.5.0/24, gateway: 172.28.5.254, aux_addresses: {h: 172.28.1.5}}]}}}",
        );
        let a = read(&text).unwrap().spec.networks.remove("a").unwrap();
        assert!(a.attachable && a.enable_ipv6);
        let ipam = a.ipam.unwrap();
        assert_eq!((ipam.driver.as_deref(), ipam.options["x"].as_str()), (Some("default"), "y"));
        let pool = &ipam.pools[0];
        assert_eq!((pool.subnet.as_deref(), pool.ip_range.as_deref()), (Some("172.28.0.0/16"), Some("172.28.5.0/24")));
        assert_eq!((pool.gateway.as_deref(), pool.aux_addresses["h"].as_str()), (Some("172.28.5.254"), "172.28.1.5"));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (top, expected) in [
            (
                "networks: {a: {ipam: {config: [{subnet: 1.2.3.0/33}]}}}",
                "networks.a.ipam.config[0].subnet: \"1.2.3.0/33\" is not a subnet such as `172.28.0.0/16`",
            ),
            ("networks: {a: {external: {name: x}}}", "networks.a.external: this form of `external` is of the past"),
            ("networks: {a: x}", "networks.a: \"x\" is not a mapping"),
            ("networks: [a]", "networks: a mapping is needed here, not a list"),
            (
                "volumes: {v: {labels: {com.docker.compose.volume: x}}}",
                "volumes.v.labels.com.docker.compose.volume: labels that begin with `com.docker.compose` are set by the engine",
            ),
            ("secrets: {s: {external: true, file: x}}", "secrets.s.file: `external` and `file` exclude each other"),
            ("secrets: {s: {driver: x}}", "secrets.s.driver: `driver` is not supported"),
            ("secrets: {s: {}}", "secrets.s: the secret has no value"),
            ("secrets: {s: }", "secrets.s: a mapping is needed here, not nothing"),
        ] {
            assert_eq!(lines(&read(&with(top)).unwrap_err()), [expected], "{top}");
        }
    }
}

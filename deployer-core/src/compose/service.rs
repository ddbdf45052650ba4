//! A service: the keys that stand for themselves, and the order in which the topics are read.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::cursor::{Cursor, Field, Fields};
use super::node::Position;
use super::project::Link;
use super::report::Report;
use super::{
    Project, build, container, deploy, dotenv, environment, extension, files, health, keys, ports, volumes, words,
};
use crate::model::{Condition, ImageSource, NetworkAttachment, Restart, ServiceName, ServiceSpec};

/// Reads a service. None if it has no image; then that was reported.
pub(super) fn read(report: &mut Report, project: &Project<'_>, field: &Field<'_>) -> Option<ServiceSpec> {
    let model = format!("services.{}", field.key);
    report.mark_at(model.as_str(), &field.value.path, field.key_at);
    let service = report.fields(&field.value, &keys::SERVICE)?;
    // A service without an image is read to its end, because all problems are to be found at once.
    let image = image(report, project, &service, &model, field.key_at);
    let no_image = image.is_none();
    let mut spec = ServiceSpec::image("");
    if let Some(image) = image {
        spec.image = image;
    }

    let workload = &mut spec.workload;
    workload.entrypoint = service.get("entrypoint").and_then(|cursor| command(report, &cursor));
    workload.command = service.get("command").and_then(|cursor| command(report, &cursor));
    workload.env = environment::read(report, project, &service);
    workload.ports = ports::read(report, project, &service, &model);
    workload.mounts = volumes::read(report, project, &service, &model);
    workload.files = files::read(report, project, &service, &model);
    workload.networks = networks(report, &service, &model);
    workload.check = service.get("healthcheck").and_then(|cursor| {
        report.mark(format!("{model}.check"), &cursor);
        health::read(report, &cursor)
    });
    if let Some(signal) = service.get("stop_signal") {
        let plain =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-".contains(&b));
        workload.stop.signal =
            report.parsed(&signal, "a signal such as `SIGTERM`", |text| plain(text).then(|| text.to_owned()));
    }
    if let Some(grace) = service.duration(report, "stop_grace_period") {
        workload.stop.grace = grace;
    }
    if let Some(policy) = service.get("restart") {
        let policy =
            report.parsed(&policy, "`no`, `always`, `unless-stopped`, `on-failure` or `on-failure:3`", restart);
        workload.restart = policy.unwrap_or_default();
    }
    workload.user = service.text(report, "user");
    workload.working_dir = service.text(report, "working_dir");
    workload.hostname = service.text(report, "hostname");
    workload.init = service.flag(report, "init").unwrap_or_default();
    workload.read_only = service.flag(report, "read_only").unwrap_or_default();
    workload.labels = label_file(report, project, &service);
    workload.labels.extend(service.get("labels").map(|cursor| labels(report, &cursor)).unwrap_or_default());
    workload.container = container::read(report, project, &service);

    deploy::read(report, &service, &model, &mut spec);
    spec.depends_on = depends_on(report, project, &service, &model);
    links(report, project, &service, field.key, &model, &mut spec.depends_on);
    if let Some(cursor) = service.get("x-deployer") {
        extension::read(report, &cursor, &model, &mut spec);
    }
    if no_image { None } else { Some(spec) }
}

fn image(
    report: &mut Report,
    project: &Project<'_>,
    service: &Fields<'_>,
    model: &str,
    home: Position,
) -> Option<ImageSource> {
    let reference = service.get("image");
    if let Some(cursor) = &reference {
        report.mark(format!("{model}.image"), cursor);
    }
    let reference = reference.map(|cursor| report.text(&cursor));
    match (service.get("build"), reference) {
        (Some(cursor), reference) => {
            report.mark(format!("{model}.build"), &cursor);
            let mut build = build::read(report, project, &cursor, home)?;
            build.tag = reference.flatten();
            Some(ImageSource::Build(build))
        }
        (None, Some(reference)) => reference.map(ImageSource::Reference),
        (None, None) => {
            let help = "name an image that exists, or the directory to build one from";
            report.error_with_help(&service.cursor, "the service has neither `image` nor `build`", help);
            None
        }
    }
}

/// A command: a list of words, or a line that is split into words. No words at all replace the image's command too.
pub(super) fn command(report: &mut Report, cursor: &Cursor<'_>) -> Option<Vec<String>> {
    let Some(scalar) = cursor.scalar() else {
        return Some(report.texts(cursor));
    };
    match words::split(&scalar.text) {
        Ok(list) => {
            if let Some(word) = words::shell_only(&scalar.text) {
                let help = "no shell runs it; for one write `[\"sh\", \"-c\", \"...\"]`";
                report.warn(cursor, format!("`{word}` is passed on as an argument"), help);
            }
            Some(list)
        }
        Err(why) => {
            report.error_with_help(cursor, why, "write the command as a list");
            None
        }
    }
}

fn restart(text: &str) -> Option<Restart> {
    Some(match text {
        "no" => Restart::No,
        "always" => Restart::Always,
        "unless-stopped" => Restart::UnlessStopped,
        "on-failure" => Restart::OnFailure { max_retries: None },
        _ => Restart::OnFailure { max_retries: Some(text.strip_prefix("on-failure:")?.parse().ok()?) },
    })
}

/// The caller's labels; those that tell the engine what is whose are refused.
pub(super) fn labels(report: &mut Report, cursor: &Cursor<'_>) -> BTreeMap<String, String> {
    let pairs = report.pairs(cursor);
    for (name, _, at) in &pairs {
        refuse_own_label(report, at, name);
    }
    pairs.into_iter().map(|(name, value, _)| (name, value.unwrap_or_default())).collect()
}

fn refuse_own_label(report: &mut Report, at: &Cursor<'_>, name: &str) {
    if let Some(prefix) = ["com.docker.compose", "deployer."].iter().find(|prefix| name.starts_with(*prefix)) {
        let help = "take another name: these labels say which service a container belongs to";
        report.error_with_help(at, format!("labels that begin with `{prefix}` are set by the engine"), help);
    }
}

/// The labels of files of `NAME=value`, which `labels` win over.
fn label_file(report: &mut Report, project: &Project<'_>, service: &Fields<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let Some(cursor) = service.get("label_file") else { return all };
    for item in report.one_or_more(&cursor) {
        let Some(text) = report.text(&item).and_then(|path| project.file_text(report, &item, &path)) else { continue };
        match dotenv::parse(&text, dotenv::Format::Raw, &|_| None, &|_| None) {
            Ok(variables) => {
                let labels: Vec<_> = variables.into_iter().map(|label| (label.name, label.value)).collect();
                for (name, _) in &labels {
                    refuse_own_label(report, &item, name);
                }
                all.extend(labels.into_iter().map(|(name, value)| (name, value.unwrap_or_default())));
            }
            Err(faults) => {
                for fault in faults {
                    report.error(&item, format!("line {}: {}", fault.line, fault.message));
                }
            }
        }
    }
    all
}

fn networks(report: &mut Report, service: &Fields<'_>, model: &str) -> BTreeMap<String, NetworkAttachment> {
    let mut networks = BTreeMap::new();
    let Some(cursor) = service.get("networks") else { return networks };
    if cursor.is_map() {
        for Field { key, value, key_at } in cursor.entries() {
            report.mark_at(format!("{model}.networks.{key}"), &value.path, key_at);
            networks.insert(key.to_owned(), attachment(report, &value));
        }
        return networks;
    }
    for item in report.items(&cursor) {
        let Some(name) = report.text(&item) else { continue };
        report.mark(format!("{model}.networks.{name}"), &item);
        networks.insert(name, NetworkAttachment::default());
    }
    networks
}

fn attachment(report: &mut Report, cursor: &Cursor<'_>) -> NetworkAttachment {
    let mut attachment = NetworkAttachment::default();
    if cursor.is_null() {
        return attachment;
    }
    let Some(fields) = report.fields(cursor, &keys::SERVICE_NETWORK) else { return attachment };
    if let Some(list) = fields.get("aliases") {
        attachment.aliases = report.texts(&list);
    }
    let v4 = |text: &str| text.parse::<Ipv4Addr>().ok().map(IpAddr::from);
    let v6 = |text: &str| text.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    attachment.ipv4_address = fields.get("ipv4_address").and_then(|at| report.parsed(&at, "an IPv4 address", v4));
    attachment.ipv6_address = fields.get("ipv6_address").and_then(|at| report.parsed(&at, "an IPv6 address", v6));
    if let Some(list) = fields.get("link_local_ips") {
        let address = |item| report.parsed(item, "an IP address", |text| text.parse().ok());
        attachment.link_local_ips = list.items().iter().filter_map(address).collect();
        if !list.is_list() {
            let _: Option<()> = report.mismatch(&list, "a list");
        }
    }
    attachment.driver_opts = container::pairs(report, &fields, "driver_opts");
    attachment
}

/// `SERVICE[:ALIAS]`: a dependency, and a further name of it.
fn links(
    report: &mut Report,
    project: &Project<'_>,
    service: &Fields<'_>,
    own: &str,
    model: &str,
    dependencies: &mut BTreeMap<ServiceName, Condition>,
) {
    let Some(cursor) = service.get("links") else { return };
    for item in report.items(&cursor) {
        let Some(text) = report.text(&item) else { continue };
        let (target, alias) = text.split_once(':').unwrap_or((&text, &text));
        let (Ok(from), Ok(to)) = (ServiceName::new(own), ServiceName::new(target)) else {
            let _: Option<()> = report.mismatch(&item, "a link such as `db` or `db:database`");
            continue;
        };
        report.mark(format!("{model}.depends_on.{to}"), &item);
        dependencies.entry(to.clone()).or_insert(Condition::Started);
        project.links.borrow_mut().push(Link { from, to, alias: alias.to_owned() });
    }
}

fn depends_on(
    report: &mut Report,
    project: &Project<'_>,
    service: &Fields<'_>,
    model: &str,
) -> BTreeMap<ServiceName, Condition> {
    let mut dependencies = BTreeMap::new();
    let Some(cursor) = service.get("depends_on") else { return dependencies };
    let mut add = |report: &mut Report, name: &str, at: &Cursor<'_>, condition| {
        if let Some(profiles) = project.left_out.get(name) {
            let message = format!("{name} is left out: none of its profiles is enabled: {}", profiles.join(", "));
            report.error_with_help(at, message, "enable one, or say `required: false` of the dependency");
            return;
        }
        match ServiceName::new(name) {
            Ok(name) => {
                report.mark(format!("{model}.depends_on.{name}"), at);
                dependencies.insert(name, condition);
            }
            Err(error) => report.error(at, error.message()),
        }
    };
    if !cursor.is_map() {
        for item in report.items(&cursor) {
            let Some(name) = report.text(&item) else { continue };
            add(report, &name, &item, Condition::Started);
        }
        return dependencies;
    }
    for Field { key, value, key_at } in cursor.entries() {
        let mut condition = Condition::Started;
        if !value.is_null() {
            let Some(fields) = report.fields(&value, &keys::DEPENDENCY) else { continue };
            match self::condition(report, project, &fields, key) {
                Some(read) => condition = read,
                None => continue,
            }
            if fields.flag(report, "required") == Some(false) && !project.services.contains(key) {
                let message = match project.left_out.contains_key(key) {
                    true => format!("{key} is left out; nothing waits for it"),
                    false => format!("there is no service {key}; nothing waits for it"),
                };
                report.warn_at(&value.path, key_at, message, None);
                continue;
            }
        }
        add(report, key, &value, condition);
        if let Ok(name) = ServiceName::new(key) {
            report.mark_at(format!("{model}.depends_on.{name}"), &value.path, key_at);
        }
    }
    dependencies
}

fn condition(report: &mut Report, project: &Project<'_>, fields: &Fields<'_>, name: &str) -> Option<Condition> {
    let Some(cursor) = fields.get("condition") else { return Some(Condition::Started) };
    match report.text(&cursor)?.as_str() {
        "service_started" => Some(Condition::Started),
        "service_healthy" => Some(Condition::Healthy),
        "service_completed_successfully" => {
            project.tasks.borrow_mut().extend(ServiceName::new(name));
            Some(Condition::Healthy)
        }
        _ => report.mismatch(&cursor, "`service_started`, `service_healthy` or `service_completed_successfully`"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{complaints, given, lines, read, web, web_with_warnings};
    use super::*;
    use crate::compose::ComposeReader;

    #[test]
    fn commands_are_lists_or_lines() {
        for (command, expected) in [
            ("[a, \"b c\", 1]", Some(&["a", "b c", "1"][..])),
            ("a 'b c' d", Some(&["a", "b c", "d"][..])),
            ("[]", Some(&[][..])),
            ("\"\"", Some(&[][..])),
            ("", None),
        ] {
            let workload = web(&format!("command: {command}\nentrypoint: {command}")).workload;
            let expected = expected.map(|words| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
            assert_eq!(workload.command, expected, "{command}");
            assert_eq!(workload.entrypoint, expected, "{command}");
        }
        assert_eq!(complaints("command: a 'b"), ["command: a single quote is never closed"]);
        let (_, warnings) = web_with_warnings("command: migrate && serve");
        assert_eq!(warnings, ["command: `&&` is passed on as an argument"]);
    }

    #[test]
    fn plain_keys_are_read() {
        let web =
            web("user: 1000:1000\nworking_dir: /srv\nhostname: w\ninit: true\nread_only: yes\nstop_signal: SIGINT\n\
             stop_grace_period: 1m30s\nlabels: [a=b, c]");
        let workload = web.workload;
        assert_eq!(workload.user.as_deref(), Some("1000:1000"));
        assert_eq!(workload.working_dir.as_deref(), Some("/srv"));
        assert_eq!(workload.hostname.as_deref(), Some("w"));
        assert!(workload.init && workload.read_only);
        assert_eq!(workload.stop.signal.as_deref(), Some("SIGINT"));
        assert_eq!(workload.stop.grace, Duration::from_secs(90));
        assert_eq!(workload.labels, BTreeMap::from([("a".into(), "b".into()), ("c".into(), String::new())]));
    }

    #[test]
    fn restart_policies_are_read() {
        for (policy, expected) in [
            ("no", Restart::No),
            ("\"no\"", Restart::No),
            ("always", Restart::Always),
            ("unless-stopped", Restart::UnlessStopped),
            ("on-failure", Restart::OnFailure { max_retries: None }),
            ("on-failure:3", Restart::OnFailure { max_retries: Some(3) }),
        ] {
            assert_eq!(web(&format!("restart: {policy}")).workload.restart, expected, "{policy}");
        }
        assert_eq!(complaints("restart: sometimes").len(), 1);
        assert_eq!(complaints("restart: on-failure:x").len(), 1);
    }

    #[test]
    fn networks_and_dependencies_are_read() {
        for keys in ["networks: [backend, front]", "networks: {backend: , front: {}}"] {
            let networks = web(keys).workload.networks;
            let plain = NetworkAttachment::default();
            let expected = BTreeMap::from([("backend".into(), plain.clone()), ("front".into(), plain)]);
            assert_eq!(networks, expected, "{keys}");
        }
        assert_eq!(
            web("networks: {front: {aliases: [www, shop]}}").workload.networks["front"].aliases,
            ["www", "shop"]
        );
        let fixed = web(
            "networks: {front: {ipv4_address: 10.1.2.3, ipv6_address: \"fd00::3\", link_local_ips: [169.254.8.8], \
             driver_opts: {a: b}}}",
        );
        let front = &fixed.workload.networks["front"];
        assert_eq!(front.ipv4_address, Some("10.1.2.3".parse().unwrap()));
        assert_eq!(front.ipv6_address, Some("fd00::3".parse().unwrap()));
        assert_eq!(front.link_local_ips, ["169.254.8.8".parse::<IpAddr>().unwrap()]);
        assert_eq!(front.driver_opts["a"], "b");
        assert_eq!(web("depends_on: [db]").depends_on["db"], Condition::Started);
        assert_eq!(web("depends_on: {db: {condition: service_healthy}}").depends_on["db"], Condition::Healthy);
        assert_eq!(web("depends_on: {db: }").depends_on["db"], Condition::Started);
        let (web, warnings) = web_with_warnings("depends_on: {none: {condition: service_started, required: false}}");
        assert!(web.depends_on.is_empty());
        assert_eq!(warnings, ["depends_on.none: there is no service none; nothing waits for it"]);
    }

    #[test]
    fn links_are_dependencies_with_further_names() {
        let text = "services: {web: {image: x, links: [db, \"db:mysql\"], networks: [a, b]}, \
                    db: {image: y, networks: [b, c]}}\nnetworks: {a: , b: , c: }";
        let app = read(text).unwrap();
        assert_eq!(app.spec.services["web"].depends_on["db"], Condition::Started);
        let networks = &app.spec.services["db"].workload.networks;
        assert_eq!((networks["b"].aliases.as_slice(), networks["c"].aliases.len()), (&["mysql".to_owned()][..], 0));
        let text = "services: {web: {image: x, links: [\"db:mysql\"]}, db: {image: y}}";
        assert_eq!(read(text).unwrap().spec.services["db"].workload.networks["default"].aliases, ["mysql"]);
    }

    #[test]
    fn services_that_others_wait_for_to_complete_are_tasks() {
        let text = "services: {web: {image: x, depends_on: {migrate: {condition: service_completed_successfully}}}, \
                    migrate: {image: y, command: [a]}}";
        let app = read(text).unwrap();
        let migrate = &app.spec.services["migrate"];
        assert_eq!((migrate.replicas, migrate.hooks.len()), (0, 1));
        let hook = &migrate.hooks[0];
        assert_eq!((hook.point, hook.command.len()), (crate::model::HookPoint::PreDeploy, 0));
        assert_eq!(app.spec.services["web"].depends_on["migrate"], Condition::Healthy);
    }

    #[test]
    fn labels_are_read_from_files() {
        let text = "services: {web: {image: x, label_file: [./a, b], labels: {one: here}}}";
        let dir = given(&[("compose.yaml", text), ("a", "one=1\ntwo=2\n"), ("b", "# c\nthree=\"3\"\n")]);
        let app = ComposeReader::new().with_project_name("shop").read_dir(dir.path()).unwrap();
        let labels: Vec<String> =
            app.spec.services["web"].workload.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(labels, ["one=here", "three=\"3\"", "two=2"]);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (keys, expected) in [
            ("networks: [none]", "networks[0]: the network \"none\" is not declared"),
            (
                "networks: {front: {ipv4_address: \"::1\"}}",
                "networks.front.ipv4_address: \"::1\" is not an IPv4 address",
            ),
            (
                "scale: 2\nnetworks: {front: {ipv4_address: 1.2.3.4}}",
                "networks.front: 2 replicas cannot all have the address 1.2.3.4",
            ),
            ("networks: {front: {mac_address: x}}", "networks.front.mac_address: `mac_address` is not supported"),
            ("links: [none]", "links[0]: there is no service none"),
            ("links: [\"a b\"]", "links[0]: \"a b\" is not a link such as `db` or `db:database`"),
            ("depends_on: [none]", "depends_on[0]: there is no service none"),
            ("depends_on: {none: {condition: service_started}}", "depends_on.none: there is no service none"),
            (
                "depends_on: {db: {condition: x}}",
                "depends_on.db.condition: \"x\" is not `service_started`, `service_healthy` or `service_completed_successfully`",
            ),
            (
                "labels: {com.docker.compose.project: x}",
                "labels.com.docker.compose.project: labels that begin with `com.docker.compose` are set by the engine",
            ),
            ("labels: [deployer.app=x]", "labels[0]: labels that begin with `deployer.` are set by the engine"),
            ("stop_signal: SIG TERM", "stop_signal: \"SIG TERM\" is not a signal such as `SIGTERM`"),
            ("init: perhaps", "init: \"perhaps\" is not `true` or `false`"),
            ("image: \"\"", "image: \"\" is not an image reference"),
            ("image: [x]", "image: text is needed here, not a list"),
        ] {
            assert_eq!(complaints(keys), [expected], "{keys}");
        }
    }

    #[test]
    fn all_problems_are_found_at_once() {
        let text = "
services:
  web:
    imag: x
    ports: [x]
    init: x
    x-deployer:
      drain: x
      strategy: x
  db:
    isolation: x
volumes:
  v: {driver: [x]}
";
        let found = lines(&read(text).unwrap_err());
        assert_eq!(found.len(), 9, "{found:#?}");
    }
}

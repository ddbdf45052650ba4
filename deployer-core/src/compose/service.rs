//! A service: the keys that stand for themselves, and the order in which the topics are read.

use std::collections::BTreeMap;

use super::cursor::{Cursor, Field, Fields};
use super::report::Report;
use super::{Project, build, deploy, environment, extension, health, keys, ports, volumes, words};
use crate::model::{Condition, ImageSource, Restart, ServiceName, ServiceSpec};

/// Reads a service. None if it has no image; then that was reported.
pub(super) fn read(report: &mut Report, project: &Project<'_>, field: &Field<'_>) -> Option<ServiceSpec> {
    let model = format!("services.{}", field.key);
    report.mark_at(model.as_str(), &field.value.path, field.key_at);
    let service = report.fields(&field.value, &keys::SERVICE)?;
    // A service without an image is read to its end, because all problems are to be found at once.
    let image = image(report, project, &service, &model);
    let no_image = image.is_none();
    let mut spec = ServiceSpec::image("");
    if let Some(image) = image {
        spec.image = image;
    }

    let workload = &mut spec.workload;
    workload.entrypoint = service.get("entrypoint").and_then(|cursor| command(report, &cursor));
    workload.command = service.get("command").and_then(|cursor| command(report, &cursor));
    workload.env = environment::read(report, project, &service);
    workload.ports = ports::read(report, &service, &model);
    workload.mounts = volumes::read(report, project, &service, &model);
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
    workload.labels = service.get("labels").map(|cursor| labels(report, &cursor)).unwrap_or_default();

    deploy::read(report, &service, &model, &mut spec);
    spec.depends_on = depends_on(report, project, &service, &model);
    if let Some(cursor) = service.get("x-deployer") {
        extension::read(report, &cursor, &model, &mut spec);
    }
    if no_image { None } else { Some(spec) }
}

fn image(report: &mut Report, project: &Project<'_>, service: &Fields<'_>, model: &str) -> Option<ImageSource> {
    let reference = service.get("image");
    if let Some(cursor) = &reference {
        report.mark(format!("{model}.image"), cursor);
    }
    let reference = reference.map(|cursor| report.text(&cursor));
    match (service.get("build"), reference) {
        (Some(cursor), reference) => {
            report.mark(format!("{model}.build"), &cursor);
            let mut build = build::read(report, project, &cursor)?;
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
        if let Some(prefix) = ["com.docker.compose", "deployer."].iter().find(|prefix| name.starts_with(*prefix)) {
            let help = "take another name: these labels say which service a container belongs to";
            report.error_with_help(at, format!("labels that begin with `{prefix}` are set by the engine"), help);
        }
    }
    pairs.into_iter().map(|(name, value, _)| (name, value.unwrap_or_default())).collect()
}

fn networks(report: &mut Report, service: &Fields<'_>, model: &str) -> BTreeMap<String, Vec<String>> {
    let mut networks = BTreeMap::new();
    let Some(cursor) = service.get("networks") else { return networks };
    if cursor.is_map() {
        for Field { key, value, key_at } in cursor.entries() {
            report.mark_at(format!("{model}.networks.{key}"), &value.path, key_at);
            let mut aliases = Vec::new();
            if !value.is_null()
                && let Some(network) = report.fields(&value, &keys::SERVICE_NETWORK)
                && let Some(list) = network.get("aliases")
            {
                aliases = report.texts(&list);
            }
            networks.insert(key.to_owned(), aliases);
        }
        return networks;
    }
    for item in report.items(&cursor) {
        let Some(name) = report.text(&item) else { continue };
        report.mark(format!("{model}.networks.{name}"), &item);
        networks.insert(name, Vec::new());
    }
    networks
}

fn depends_on(
    report: &mut Report,
    project: &Project<'_>,
    service: &Fields<'_>,
    model: &str,
) -> BTreeMap<ServiceName, Condition> {
    let mut dependencies = BTreeMap::new();
    let Some(cursor) = service.get("depends_on") else { return dependencies };
    let mut add = |report: &mut Report, name: &str, at: &Cursor<'_>, condition| match ServiceName::new(name) {
        Ok(name) => {
            report.mark(format!("{model}.depends_on.{name}"), at);
            dependencies.insert(name, condition);
        }
        Err(error) => report.error(at, error.message()),
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
            match self::condition(report, &fields) {
                Some(read) => condition = read,
                None => continue,
            }
            if fields.flag(report, "required") == Some(false) && !project.services.contains(key) {
                let message = format!("there is no service {key}; nothing waits for it");
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

fn condition(report: &mut Report, fields: &Fields<'_>) -> Option<Condition> {
    let Some(cursor) = fields.get("condition") else { return Some(Condition::Started) };
    match report.text(&cursor)?.as_str() {
        "service_started" => Some(Condition::Started),
        "service_healthy" => Some(Condition::Healthy),
        "service_completed_successfully" => {
            let help = "make the task a hook of `x-deployer` at the point pre-deploy";
            report.error_with_help(&cursor, "services that end by themselves are not supported", help);
            None
        }
        _ => report.mismatch(&cursor, "`service_started` or `service_healthy`"),
    }
}

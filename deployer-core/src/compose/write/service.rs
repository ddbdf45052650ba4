//! A service: the keys that stand for themselves, and which file writes the others.

use std::collections::BTreeMap;

use super::names::Names;
use super::yaml::{Map, Yaml};
use super::{build, container, deploy, extension, formats, health, is_awaited, ports, volumes};
use crate::model::{
    AppSpec, Condition, EnvValue, File, FileContent, ImageSource, NetworkAttachment, Restart, SecretRef, Service,
    ServiceName, ServiceSpec, Stop, Workload,
};

pub(super) fn service(app: &AppSpec, names: &Names<'_>, name: &ServiceName, spec: &ServiceSpec) -> Map {
    let Service {
        image,
        workload,
        replicas,
        depends_on,
        routes,
        readiness,
        strategy,
        gates,
        hooks,
        drain,
        scaling,
        balancing,
    } = spec;
    let Workload {
        entrypoint,
        command,
        env,
        ports,
        mounts,
        files,
        networks,
        resources,
        check,
        stop,
        restart,
        user,
        working_dir,
        hostname,
        init,
        read_only,
        labels,
        container,
    } = workload;
    let awaited = is_awaited(app, name, spec);
    let mut map = Map::default();
    match image {
        ImageSource::Reference(reference) => map.put("image", reference),
        ImageSource::Build(spec) => {
            map.put("build", build::build(spec, names));
            map.put_some("image", spec.tag.as_ref());
        }
    }
    map.put_some("entrypoint", entrypoint.as_deref());
    map.put_some("command", command.as_deref());
    map.put_filled("environment", environment(env));
    ports::put(&mut map, ports);
    map.put_filled("volumes", mounts.iter().map(volumes::mount).collect::<Vec<_>>());
    put_files(&mut map, names, name, files);
    map.put_filled("networks", networks.iter().map(|(name, on)| (name, attachment(on))).collect::<Map>());
    map.put_some("healthcheck", check.as_ref().map(health::check));
    let Stop { signal, grace } = stop;
    map.put_some("stop_signal", signal.as_ref());
    map.put_unless("stop_grace_period", *grace, Stop::default().grace);
    // Elsewhere it is `no` that is taken for granted. What is awaited is not to be started again there.
    if !awaited || *restart != Restart::default() {
        map.put("restart", policy(*restart));
    }
    map.put_some("user", user.as_ref());
    map.put_some("working_dir", working_dir.as_ref());
    map.put_some("hostname", hostname.as_ref());
    map.put_unless("init", *init, false);
    map.put_unless("read_only", *read_only, false);
    map.put_filled("labels", labels);
    container::put(&mut map, container);
    // A service that is awaited has its work instead of instances.
    let replicas = if awaited { 1 } else { *replicas };
    map.put_filled("deploy", deploy::deploy(replicas, resources, &container.gpus));
    map.put_filled("depends_on", dependencies(app, depends_on));

    let hooks = if awaited { &hooks[..hooks.len() - 1] } else { hooks };
    let mut own = Map::default();
    own.put_filled("routes", routes.iter().map(extension::route).collect::<Vec<_>>());
    own.put_filled("health", extension::health(readiness));
    own.put_filled("strategy", super::strategy::strategy(strategy));
    own.put_some("drain", *drain);
    own.put_filled("balancing", extension::balancing(balancing));
    own.put_some("scaling", scaling.as_ref().map(super::scaling::scaling));
    own.put_filled("gates", gates.iter().map(super::gates::gate).collect::<Vec<_>>());
    own.put_filled("hooks", hooks.iter().map(extension::hook).collect::<Vec<_>>());
    own.put_filled("secrets", secrets(env));
    map.put_filled("x-deployer", own);
    map.sorted()
}

fn environment(env: &BTreeMap<String, EnvValue>) -> Map {
    let plain = env.iter().filter_map(|(name, value)| match value {
        EnvValue::Plain(value) => Some((name, value)),
        EnvValue::Secret(_) => None,
    });
    plain.collect()
}

/// The variables whose values are secrets, with their names.
fn secrets(env: &BTreeMap<String, EnvValue>) -> Map {
    let secrets = env.iter().filter_map(|(name, value)| match value {
        // A version was refused before.
        EnvValue::Secret(SecretRef { name: secret, version: _ }) => Some((name, secret)),
        EnvValue::Plain(_) => None,
    });
    secrets.collect()
}

fn policy(restart: Restart) -> String {
    match restart {
        Restart::No => "no".to_owned(),
        Restart::Always => "always".to_owned(),
        Restart::UnlessStopped => "unless-stopped".to_owned(),
        Restart::OnFailure { max_retries: None } => "on-failure".to_owned(),
        Restart::OnFailure { max_retries: Some(max) } => format!("on-failure:{max}"),
    }
}

fn attachment(on: &NetworkAttachment) -> Map {
    let NetworkAttachment { aliases, ipv4_address, ipv6_address, link_local_ips, driver_opts } = on;
    let mut map = Map::default();
    map.put_filled("aliases", aliases.as_slice());
    map.put_some("ipv4_address", ipv4_address.map(|ip| ip.to_string()));
    map.put_some("ipv6_address", ipv6_address.map(|ip| ip.to_string()));
    map.put_filled("link_local_ips", link_local_ips.iter().map(ToString::to_string).collect::<Vec<_>>());
    map.put_filled("driver_opts", driver_opts);
    map
}

fn dependencies(app: &AppSpec, dependencies: &BTreeMap<ServiceName, Condition>) -> Map {
    let dependency = |(name, condition): (&ServiceName, &Condition)| {
        let awaited = || app.services.get(name).is_some_and(|service| is_awaited(app, name, service));
        let condition = match condition {
            Condition::Started => "service_started",
            Condition::Healthy if awaited() => "service_completed_successfully",
            Condition::Healthy => "service_healthy",
        };
        (name.as_str().to_owned(), Map::from_iter([("condition", condition)]))
    };
    dependencies.iter().map(dependency).collect()
}

/// Puts in the files: those with text are configs, and the others secrets.
fn put_files(map: &mut Map, names: &Names<'_>, service: &ServiceName, files: &[File]) {
    let (mut configs, mut secrets): (Vec<Yaml>, Vec<Yaml>) = (Vec::new(), Vec::new());
    for File { content, target, uid, gid, mode } in files {
        let (list, source) = match content {
            FileContent::Text(_) => (&mut configs, names.config(service.as_str(), target)),
            FileContent::Secret(SecretRef { name, version: _ }) => (&mut secrets, names.secret(name)),
        };
        let default = File::text("", "");
        let mut file = Map::default();
        file.put("source", source);
        file.put("target", target);
        file.put_unless("uid", uid.to_string(), default.uid.to_string());
        file.put_unless("gid", gid.to_string(), default.gid.to_string());
        file.put_unless("mode", formats::mode(*mode), formats::mode(default.mode));
        list.push(file.into());
    }
    map.put_filled("configs", configs);
    map.put_filled("secrets", secrets);
}

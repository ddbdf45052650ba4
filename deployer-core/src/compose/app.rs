//! From the merged tree to the application.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cursor::Fields;
use super::profiles::{self, Selection};
use super::project::Link;
use super::reader::ComposeApp;
use super::report::Report;
use super::sources::Sources;
use super::{Project, project, resources, service};
use crate::model::{AppName, AppSpec, Hook, HookPoint, Problems, ServiceName, ServiceSpec};

/// How long a service may take that others wait for to complete. Compose knows no limit.
const TASK_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// What the program wants of an application.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// The profiles that are enabled.
    pub(super) profiles: BTreeSet<String>,
    /// The services that are named explicitly.
    pub(super) services: BTreeSet<String>,
}

/// Reads the application, as far as it can be. None if something is missing that other parts may refer to.
pub(super) fn read(
    report: &mut Report,
    top: &Fields<'_>,
    name: Option<AppName>,
    sources: &Sources,
    wanted: &Wanted,
) -> Option<ComposeApp> {
    // Without a name the rest is read all the same, because all problems are to be found at once.
    let named = name.is_some();
    let mut spec = AppSpec::new(name.map_or_else(|| "unnamed".to_owned(), String::from)).ok()?;
    if let Some(cursor) = top.get("networks") {
        spec.networks = resources::networks(report, &cursor);
    }
    if let Some(cursor) = top.get("volumes") {
        spec.volumes = resources::volumes(report, &cursor);
    }
    let secrets = top.get("secrets").map(|cursor| resources::secrets(report, sources, &cursor)).unwrap_or_default();
    let selection = match top.get("services") {
        Some(cursor) => {
            report.mark("services", &cursor);
            profiles::check_names(report, &cursor, &wanted.services);
            profiles::select(report, &cursor, wanted)
        }
        None => {
            report.mark_at("services", "services", top.cursor.node.at);
            Selection::default()
        }
    };
    let mut project = Project {
        sources,
        secrets: secrets.iter().map(|(key, (name, _))| (key.clone(), name.clone())).collect(),
        configs: BTreeMap::new(),
        tasks: RefCell::default(),
        links: RefCell::default(),
        reads_left: Cell::new(project::MAX_READS),
        ports_left: Cell::new(project::MAX_ALL_PORTS),
        services: selection.enabled.iter().map(|field| field.key).collect(),
        left_out: selection.left_out,
    };
    if let Some(cursor) = top.get("configs") {
        project.configs = resources::configs(report, &project, &cursor);
    }
    let mut complete = true;
    for field in &selection.enabled {
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
    link(&mut spec, &project.links.take());
    for name in project.tasks.take() {
        if let Some(service) = spec.services.get_mut(&name) {
            become_task(service);
        }
    }
    let secrets = secrets.into_values().filter_map(|(name, origin)| Some((name, origin?))).collect();
    // What is checked between services would be wrong if one is missing.
    (complete && named).then(|| ComposeApp { spec, warnings: Problems::default(), secrets })
}

/// Gives services the names by which others want to reach them.
fn link(spec: &mut AppSpec, links: &[Link]) {
    let networks = |service: &ServiceSpec| -> BTreeSet<String> {
        let networks = &service.workload.networks;
        if networks.is_empty() { BTreeSet::from(["default".to_owned()]) } else { networks.keys().cloned().collect() }
    };
    for Link { from, to, alias } in links {
        let (Some(own), Some(target)) = (spec.services.get(from).map(networks), spec.services.get_mut(to)) else {
            continue;
        };
        for network in own.intersection(&networks(target)) {
            let attachment = target.workload.networks.entry(network.clone()).or_default();
            if alias != to.as_str() && !attachment.aliases.contains(alias) {
                attachment.aliases.push(alias.clone());
            }
        }
    }
}

/// Makes a service that others wait for to complete do its work before they start, instead of having instances.
fn become_task(service: &mut ServiceSpec) {
    service.replicas = 0;
    service.hooks.push(task_hook());
}

/// The work of a service that others wait for to complete. No command: the service's own.
pub(super) fn task_hook() -> Hook {
    Hook::new("run", HookPoint::PreDeploy, [""; 0]).with_timeout(TASK_TIMEOUT)
}

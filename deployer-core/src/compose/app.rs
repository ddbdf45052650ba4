//! From the merged tree to the application.

use std::cell::Cell;
use std::collections::BTreeSet;

use super::cursor::Fields;
use super::profiles::{self, Selection};
use super::report::Report;
use super::sources::Sources;
use super::{Project, project, resources, service};
use crate::model::{AppName, AppSpec, ServiceName};

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
) -> Option<AppSpec> {
    // Without a name the rest is read all the same, because all problems are to be found at once.
    let named = name.is_some();
    let mut spec = AppSpec::new(name.map_or_else(|| "unnamed".to_owned(), String::from)).ok()?;
    if let Some(cursor) = top.get("networks") {
        spec.networks = resources::networks(report, &cursor);
    }
    if let Some(cursor) = top.get("volumes") {
        spec.volumes = resources::volumes(report, &cursor);
    }
    let secrets = top.get("secrets").map(|cursor| resources::secrets(report, &cursor)).unwrap_or_default();
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
    let project = Project {
        sources,
        secrets,
        reads_left: Cell::new(project::MAX_READS),
        ports_left: Cell::new(project::MAX_ALL_PORTS),
        services: selection.enabled.iter().map(|field| field.key).collect(),
        left_out: selection.left_out,
    };
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
    // What is checked between services would be wrong if one is missing.
    (complete && named).then_some(spec)
}

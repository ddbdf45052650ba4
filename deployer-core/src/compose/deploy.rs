//! `deploy`, and the older keys that say the same: `scale`, `cpus`, `mem_limit`, `mem_reservation`.

use super::cursor::{Cursor, Fields};
use super::keys;
use super::report::Report;
use crate::model::ServiceSpec;

pub(super) fn read(report: &mut Report, service: &Fields<'_>, model: &str, spec: &mut ServiceSpec) {
    let deploy = service.get("deploy").and_then(|cursor| report.fields(&cursor, &keys::DEPLOY));
    let resources = deploy.as_ref().and_then(|deploy| deploy.get("resources"));
    let resources = resources.and_then(|cursor| report.fields(&cursor, &keys::RESOURCES));
    let limits = resources.as_ref().and_then(|resources| resources.get("limits"));
    let limits = limits.and_then(|cursor| report.fields(&cursor, &keys::LIMITS));
    let reservations = resources.as_ref().and_then(|resources| resources.get("reservations"));
    let reservations = reservations.and_then(|cursor| report.fields(&cursor, &keys::RESERVATIONS));

    if let Some(mode) = of(&deploy, "mode") {
        report.parsed(&mode, "`replicated`: there is one engine", |text| (text == "replicated").then_some(()));
    }
    if let Some(cursor) = agreed(report, service.get("scale"), of(&deploy, "replicas")) {
        spec.replicas = report.number(&cursor).unwrap_or(1);
    }
    let entries = &mut spec.workload.resources;
    // Zero means no limit in Compose.
    let some = |number: u64| (number > 0).then_some(number);
    if let Some(cursor) = agreed(report, service.get("cpus"), of(&limits, "cpus")) {
        report.mark(format!("{model}.resources.cpu_millis"), &cursor);
        entries.cpu_millis = report.cpu_millis(&cursor).and_then(some);
    }
    if let Some(cursor) = agreed(report, service.get("mem_limit"), of(&limits, "memory")) {
        report.mark(format!("{model}.resources.memory_bytes"), &cursor);
        entries.memory_bytes = report.bytes(&cursor).and_then(some);
    }
    if let Some(cursor) = of(&reservations, "cpus") {
        entries.reserved_cpu_millis = report.cpu_millis(&cursor).and_then(some);
    }
    let reserved = of(&reservations, "memory");
    if let Some(cursor) = agreed(report, service.get("mem_reservation"), reserved) {
        report.mark(format!("{model}.resources.reserved_memory_bytes"), &cursor);
        entries.reserved_memory_bytes = report.bytes(&cursor).and_then(some);
    }
}

/// The value of a section that may be missing.
fn of<'a>(fields: &Option<Fields<'a>>, key: &str) -> Option<Cursor<'a>> {
    fields.as_ref().and_then(|fields| fields.get(key))
}

/// One of two keys that say the same; if both are there they must say the same.
fn agreed<'a>(report: &mut Report, old: Option<Cursor<'a>>, new: Option<Cursor<'a>>) -> Option<Cursor<'a>> {
    if let (Some(old), Some(new)) = (&old, &new)
        && old.scalar().map(|scalar| &scalar.text) != new.scalar().map(|scalar| &scalar.text)
    {
        report.error_with_help(old, format!("`{}` says something else", new.path), "keep one of them");
    }
    new.or(old)
}

//! `profiles`: which services are part of the application.

use std::collections::{BTreeMap, BTreeSet};

use super::app::Wanted;
use super::check;
use super::cursor::{Cursor, Field};
use super::report::Report;

/// The services, divided by their profiles.
#[derive(Debug, Default)]
pub(super) struct Selection<'a> {
    pub(super) enabled: Vec<Field<'a>>,
    /// The others, with their profiles.
    pub(super) left_out: BTreeMap<&'a str, Vec<String>>,
}

/// Selects the services that have no profiles, or one that is enabled. Services that are named explicitly enable theirs.
pub(super) fn select<'a>(report: &mut Report, services: &Cursor<'a>, wanted: &Wanted) -> Selection<'a> {
    let services: Vec<(Field<'a>, Vec<String>)> =
        report.entries(services).into_iter().map(|field| profiles(report, field)).collect();
    let mut enabled = wanted.profiles.clone();
    for name in &wanted.services {
        enabled.extend(services.iter().filter(|(field, _)| field.key == name).flat_map(|(_, own)| own.clone()));
    }
    let mut selection = Selection::default();
    for (field, own) in services {
        if own.is_empty() || enabled.contains("*") || own.iter().any(|profile| enabled.contains(profile)) {
            selection.enabled.push(field);
        } else {
            let message = format!("{} is left out: none of its profiles is enabled", field.key);
            report.warn_at(&field.value.path, field.key_at, message, None);
            selection.left_out.insert(field.key, own);
        }
    }
    selection
}

/// Reports the names that no service has.
pub(super) fn check_names(report: &mut Report, services: &Cursor<'_>, named: &BTreeSet<String>) {
    let known: Vec<&str> = services.entries().into_iter().map(|field| field.key).collect();
    for name in named.iter().filter(|name| !known.contains(&name.as_str())) {
        let message = format!("there is no service {name}, which was named explicitly");
        match check::nearest(name, known.iter().copied()) {
            Some(nearest) => report.error_with_help(services, message, format!("did you mean {nearest}?")),
            None => report.error(services, message),
        }
    }
}

fn profiles<'a>(report: &mut Report, field: Field<'a>) -> (Field<'a>, Vec<String>) {
    let found = field.value.entries().into_iter().find(|field| field.key == "profiles");
    let names = found.filter(|field| !field.value.is_null()).map(|field| report.texts(&field.value));
    (field, names.unwrap_or_default())
}

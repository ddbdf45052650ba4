//! `env_file` and `environment`: what the instances find in their environment.

use std::collections::BTreeMap;

use super::cursor::{Cursor, Fields};
use super::dotenv::{self, Format};
use super::report::Report;
use super::{Project, keys, load};
use crate::model::EnvValue;

/// The files' variables in their order, overruled by `environment`.
pub(super) fn read(report: &mut Report, project: &Project<'_>, service: &Fields<'_>) -> BTreeMap<String, EnvValue> {
    let mut env = BTreeMap::new();
    if let Some(cursor) = service.get("env_file") {
        for item in report.one_or_more(&cursor) {
            env.extend(file(report, project, &item));
        }
    }
    if let Some(cursor) = service.get("environment") {
        for (name, value, at) in report.pairs(&cursor) {
            match value.or_else(|| (project.variables)(&name).map(str::to_owned)) {
                Some(value) => {
                    env.insert(name, EnvValue::Plain(value));
                }
                None => {
                    let help = "give it a value here, or set the variable";
                    report.warn(&at, format!("the variable {name} is not set; it is left out"), help);
                }
            }
        }
    }
    env
}

fn file(report: &mut Report, project: &Project<'_>, cursor: &Cursor<'_>) -> Vec<(String, EnvValue)> {
    let (mut format, mut required, mut at) = (Format::Compose, true, cursor.clone());
    if cursor.is_map() {
        let Some(fields) = report.fields(cursor, &keys::ENV_FILE) else { return Vec::new() };
        required = fields.flag(report, "required").unwrap_or(true);
        if let Some(cursor) = fields.get("format")
            && report.parsed(&cursor, "`raw`", |text| (text == "raw").then_some(())).is_some()
        {
            format = Format::Raw;
        }
        let Some(path) = fields.require(report, "path") else { return Vec::new() };
        at = path;
    }
    let Some(path) = report.text(&at).and_then(|text| project.path(report, &at, &text)) else { return Vec::new() };
    let text = match load::text(path.as_ref()) {
        Ok(Some(text)) => text,
        Ok(None) if !required => return Vec::new(),
        Ok(None) => {
            report.error_with_help(&at, "the file does not exist", "or write `required: false`");
            return Vec::new();
        }
        Err(why) => {
            report.error(&at, why);
            return Vec::new();
        }
    };
    match dotenv::parse(&text, format, project.variables) {
        Ok(variables) => {
            let value = |(name, value): (String, Option<String>)| {
                let value = value.or_else(|| (project.variables)(&name).map(str::to_owned))?;
                Some((name, EnvValue::Plain(value)))
            };
            variables.into_iter().filter_map(value).collect()
        }
        Err(faults) => {
            for fault in faults {
                report.error(&at, format!("line {} of the file: {}", fault.line, fault.message));
            }
            Vec::new()
        }
    }
}

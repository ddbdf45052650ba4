//! `env_file` and `environment`: what the instances find in their environment.

use std::collections::BTreeMap;

use super::cursor::{Cursor, Fields};
use super::dotenv::{self, Format};
use super::node::Position;
use super::report::Report;
use super::{Project, keys, load};
use crate::model::EnvValue;

/// The files' variables in their order, overruled by `environment`.
pub(super) fn read(report: &mut Report, project: &Project<'_>, service: &Fields<'_>) -> BTreeMap<String, EnvValue> {
    let mut own = BTreeMap::new();
    if let Some(cursor) = service.get("environment") {
        for (name, value, at) in report.pairs(&cursor) {
            match value.or_else(|| project.variable(at.node.at, &name).map(str::to_owned)) {
                Some(value) => {
                    own.insert(name, value);
                }
                None => {
                    own.remove(&name);
                    let help = "give it a value here, or set the variable";
                    report.warn(&at, format!("the variable {name} is not set; it is left out"), help);
                }
            }
        }
    }
    let mut env = BTreeMap::new();
    if let Some(cursor) = service.get("env_file") {
        for item in report.one_or_more(&cursor) {
            file(report, project, &item, &own, &mut env);
        }
    }
    env.extend(own);
    env.into_iter().map(|(name, value)| (name, EnvValue::Plain(value))).collect()
}

/// The value that a variable has in the files: that of the project, else that of `environment`.
fn given<'a>(project: &'a Project<'_>, own: &'a BTreeMap<String, String>, at: Position, name: &str) -> Option<&'a str> {
    project.variable(at, name).or_else(|| own.get(name).map(String::as_str))
}

/// Adds the variables of a file to those of earlier files.
fn file(
    report: &mut Report,
    project: &Project<'_>,
    cursor: &Cursor<'_>,
    own: &BTreeMap<String, String>,
    env: &mut BTreeMap<String, String>,
) {
    let (mut format, mut required, mut at) = (Format::Compose, true, cursor.clone());
    if cursor.is_map() {
        let Some(fields) = report.fields(cursor, &keys::ENV_FILE) else { return };
        required = fields.flag(report, "required").unwrap_or(true);
        if let Some(cursor) = fields.get("format")
            && report.parsed(&cursor, "`raw`", |text| (text == "raw").then_some(())).is_some()
        {
            format = Format::Raw;
        }
        let Some(path) = fields.require(report, "path") else { return };
        at = path;
    }
    let Some(path) = report.text(&at).and_then(|text| project.path(report, &at, &text)) else { return };
    if project.may_read(report, &at).is_none() {
        return;
    }
    let text = match load::text(path.as_ref()) {
        Ok(Some(text)) => text,
        Ok(None) if !required => return,
        Ok(None) => {
            report.error_with_help(&at, "the file does not exist", "or write `required: false`");
            return;
        }
        Err(why) => {
            report.error(&at, why);
            return;
        }
    };
    let at_node = at.node.at;
    let found = dotenv::parse(&text, format, &|name| given(project, own, at_node, name), &|name| {
        env.get(name).map(String::as_str)
    });
    match found {
        Ok(variables) => {
            for dotenv::Variable { name, value, .. } in variables {
                if let Some(value) = value.or_else(|| given(project, own, at_node, &name).map(str::to_owned)) {
                    env.insert(name, value);
                }
            }
        }
        Err(faults) => {
            for fault in faults {
                report.error(&at, format!("line {} of the file: {}", fault.line, fault.message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{complaints, web, web_with_warnings};
    use super::*;

    fn show(env: &BTreeMap<String, EnvValue>) -> String {
        let one = |(name, value): (&String, &EnvValue)| match value {
            EnvValue::Plain(value) => format!("{name}={value}"),
            EnvValue::Secret(secret) => format!("{name}<{}", secret.name),
        };
        env.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn variables_are_read_in_every_form() {
        for (keys, expected) in [
            ("environment: {X: y, N: 1, B: true, E: \"\", Q: \"a b\"}", "B=true E= N=1 Q=a b X=y"),
            ("environment: [X=y, E=, A=b=c]", "A=b=c E= X=y"),
            ("environment: [A]", "A=a"),
            ("environment: {A: }", "A=a"),
            ("environment: {X: \"$A-${NONE:-n}-$$A\"}", "X=a-n-$A"),
            ("environment: [\"X=${A}\"]", "X=a"),
            ("environment:", ""),
        ] {
            assert_eq!(show(&web(keys).workload.env), expected, "{keys}");
        }
    }

    #[test]
    fn a_name_without_any_value_is_left_out() {
        for keys in ["environment: [NONE, X=y]", "environment: {NONE: , X: y}"] {
            let (web, warnings) = web_with_warnings(keys);
            assert_eq!(show(&web.workload.env), "X=y");
            assert!(warnings[0].ends_with("the variable NONE is not set; it is left out"), "{warnings:?}");
        }
    }

    #[test]
    fn wrong_environments_are_refused() {
        for (keys, expected) in [
            ("environment: [\"=x\"]", "environment[0]: the name before `=` is empty or has a space in it"),
            ("environment: [\"A B=x\"]", "environment[0]: the name before `=` is empty or has a space in it"),
            ("environment: {A: [x]}", "environment.A: text is needed here, not a list"),
            ("environment: x", "environment: \"x\" is not a list"),
            ("env_file: none.env", "env_file: the file does not exist"),
            ("env_file: [{path: none.env}]", "env_file[0].path: the file does not exist"),
            ("env_file: [{format: toml, path: none.env}]", "env_file[0].format: \"toml\" is not `raw`"),
            ("env_file: [{format: raw}]", "env_file[0]: `path` is missing"),
            ("env_file: ~/x", "env_file: `~` depends on who deploys"),
        ] {
            assert_eq!(complaints(keys)[..1], [expected], "{keys}");
        }
    }
}

//! `healthcheck`: the check that runs inside the instances.

use super::cursor::Cursor;
use super::keys;
use super::report::Report;
use crate::model::{CheckCommand, ContainerCheck};

pub(super) fn read(report: &mut Report, cursor: &Cursor<'_>) -> Option<ContainerCheck> {
    let fields = report.fields(cursor, &keys::HEALTHCHECK)?;
    let disabled = fields.flag(report, "disable").unwrap_or_default();
    let command = match fields.get("test") {
        Some(cursor) => test(report, &cursor),
        None if disabled => Some(CheckCommand::Disabled),
        None => {
            let help = "repeat the image's test here, or write `disable: true`";
            report.error_with_help(cursor, "`test` is missing", help);
            None
        }
    };
    let mut check = ContainerCheck::new(if disabled { CheckCommand::Disabled } else { command? });
    if let Some(interval) = fields.duration(report, "interval") {
        check.interval = interval;
    }
    if let Some(timeout) = fields.duration(report, "timeout") {
        check.timeout = timeout;
    }
    if let Some(retries) = fields.number(report, "retries") {
        check.retries = retries;
    }
    if let Some(start_period) = fields.duration(report, "start_period") {
        check.start_period = start_period;
    }
    Some(check)
}

/// A line for the shell, or a list that begins with `NONE`, `CMD` or `CMD-SHELL`.
fn test(report: &mut Report, cursor: &Cursor<'_>) -> Option<CheckCommand> {
    if cursor.scalar().is_some() {
        return report.text(cursor).map(CheckCommand::Shell);
    }
    let mut words = report.texts(cursor).into_iter();
    match (words.next().as_deref(), words.len()) {
        (Some("NONE"), 0) => Some(CheckCommand::Disabled),
        (Some("CMD"), 1..) => Some(CheckCommand::Exec(words.collect())),
        (Some("CMD-SHELL"), 1) => words.next().map(CheckCommand::Shell),
        _ => {
            let help = "write a line, `[NONE]`, `[CMD, program, ...]` or `[CMD-SHELL, line]`";
            report.error_with_help(cursor, "this is not a test", help);
            None
        }
    }
}

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
    // Without a test the rest is read all the same, because all problems are to be found at once.
    let missing = command.is_none();
    let mut check = ContainerCheck::new(command.filter(|_| !disabled).unwrap_or(CheckCommand::Disabled));
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
    if missing { None } else { Some(check) }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{complaints, web};
    use super::*;

    #[test]
    fn tests_are_read_in_every_form() {
        for (test, expected) in [
            ("curl -f localhost", CheckCommand::Shell("curl -f localhost".into())),
            ("[CMD, curl, -f]", CheckCommand::Exec(vec!["curl".into(), "-f".into()])),
            ("[CMD-SHELL, curl -f || exit 1]", CheckCommand::Shell("curl -f || exit 1".into())),
            ("[NONE]", CheckCommand::Disabled),
        ] {
            let check = web(&format!("healthcheck: {{test: {test}}}")).workload.check.unwrap();
            assert_eq!(check, ContainerCheck::new(expected), "{test}");
        }
        let check = web("healthcheck: {disable: true}").workload.check.unwrap();
        assert_eq!(check.command, CheckCommand::Disabled);
        let check = web("healthcheck: {test: x, interval: 1m, timeout: 200ms, retries: 7, start_period: 1m30s}");
        let check = check.workload.check.unwrap();
        let seconds = Duration::from_secs;
        assert_eq!((check.interval, check.timeout), (seconds(60), Duration::from_millis(200)));
        assert_eq!((check.retries, check.start_period), (7, seconds(90)));
    }

    #[test]
    fn wrong_checks_are_refused() {
        for (keys, expected) in [
            ("healthcheck: {interval: 1s}", "healthcheck: `test` is missing"),
            ("healthcheck: {test: []}", "healthcheck.test: this is not a test"),
            ("healthcheck: {test: [curl, -f]}", "healthcheck.test: this is not a test"),
            ("healthcheck: {test: [CMD-SHELL, a, b]}", "healthcheck.test: this is not a test"),
            ("healthcheck: {test: [CMD]}", "healthcheck.test: this is not a test"),
            (
                "healthcheck: {test: x, interval: 10}",
                "healthcheck.interval: \"10\" is not a duration such as `1m30s` or `200ms`",
            ),
            (
                "healthcheck: {test: x, interval: 0s}",
                "healthcheck.interval: interval and timeout of a check are at least 1 ms",
            ),
            ("healthcheck: {test: x, retries: -1}", "healthcheck.retries: \"-1\" is not a whole number in range"),
        ] {
            let found = complaints(keys);
            assert_eq!(found[..1], [expected], "{keys}");
        }
    }
}

//! `x-deployer.scaling`: how the platform changes the number of instances by itself.

use super::cursor::Cursor;
use super::keys;
use super::report::Report;
use crate::model::{Scaling, ScalingSchedule, ScalingTarget};

pub(super) fn read(report: &mut Report, cursor: &Cursor<'_>, model: &str) -> Option<Scaling> {
    let fields = report.fields(cursor, &keys::SCALING)?;
    for key in ["min", "max", "cpu", "memory", "requests"] {
        if let Some(cursor) = fields.get(key) {
            report.mark(format!("{model}.scaling.{key}"), &cursor);
        }
    }
    let min = fields.require(report, "min").and_then(|cursor| report.number(&cursor));
    let max = fields.require(report, "max").and_then(|cursor| report.number(&cursor));
    let mut targets: Vec<Option<ScalingTarget>> = Vec::new();
    if let Some(cursor) = fields.get("cpu") {
        targets.push(percentage(report, &cursor).map(|percent| ScalingTarget::Cpu { percent }));
    }
    if let Some(cursor) = fields.get("memory") {
        targets.push(percentage(report, &cursor).map(|percent| ScalingTarget::Memory { percent }));
    }
    if let Some(cursor) = fields.get("requests") {
        targets.push(per_minute(report, &cursor).map(|per_minute| ScalingTarget::Requests { per_minute }));
    }
    let mut schedules: Vec<Option<ScalingSchedule>> = Vec::new();
    if let Some(cursor) = fields.get("schedules") {
        for item in report.items(&cursor) {
            report.mark(format!("{model}.scaling.schedules[{}]", schedules.len()), &item);
            schedules.push(schedule(report, &item));
        }
    }
    // Without what was refused the rest would look wrong as well.
    let targets = targets.into_iter().collect::<Option<Vec<_>>>();
    let schedules = schedules.into_iter().collect::<Option<Vec<_>>>();
    let mut scaling = Scaling::new(min?, max?);
    (scaling.targets, scaling.schedules) = (targets?, schedules?);
    Some(scaling)
}

/// `60` or `60%` of what the instances have reserved.
fn percentage(report: &mut Report, cursor: &Cursor<'_>) -> Option<u8> {
    let number = |text: &str| text.strip_suffix('%').unwrap_or(text).parse().ok();
    report.parsed(cursor, "a percentage from 1 to 100", |text| {
        number(text).filter(|percentage| (1..=100).contains(percentage))
    })
}

/// `600/m`: for each instance.
fn per_minute(report: &mut Report, cursor: &Cursor<'_>) -> Option<u32> {
    let number = |text: &str| text.strip_suffix("/m")?.trim_end().parse().ok();
    report.parsed(cursor, "a number of requests in a minute such as `600/m`", |text| {
        number(text).filter(|requests| *requests > 0)
    })
}

fn schedule(report: &mut Report, cursor: &Cursor<'_>) -> Option<ScalingSchedule> {
    let fields = report.fields(cursor, &keys::SCHEDULE)?;
    let name = fields.require(report, "name").and_then(|cursor| report.text(&cursor));
    let cron = fields.require(report, "cron").and_then(|cursor| {
        report.parsed(&cursor, "a recurring time such as `30 7 * * mon-fri`", |text| text.parse().ok())
    });
    let timezone = fields.text(report, "timezone");
    let (min, max) = (fields.number(report, "min"), fields.number(report, "max"));
    let mut schedule = ScalingSchedule::new(name?, cron?);
    (schedule.timezone, schedule.min, schedule.max) = (timezone, min, max);
    Some(schedule)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{complaints, web};
    use super::*;

    fn keys(scaling: &str) -> String {
        format!("expose: [8080]\nx-deployer: {{route: {{}}, scaling: {{{scaling}}}}}")
    }

    #[test]
    fn scaling_is_read() {
        let scaling = web(&keys("min: 1, max: 6, cpu: 60%, memory: 70, requests: 600/m")).scaling.unwrap();
        let expected = Scaling::new(1, 6)
            .with_target(ScalingTarget::Cpu { percent: 60 })
            .with_target(ScalingTarget::Memory { percent: 70 })
            .with_target(ScalingTarget::Requests { per_minute: 600 });
        assert_eq!(scaling, expected);
        let night = "{name: night, cron: 0 22 * * *, timezone: Europe/Berlin, min: 1, max: 2}";
        let scaling = web(&keys(&format!("min: 1, max: 6, schedules: [{night}]"))).scaling.unwrap();
        let schedule = ScalingSchedule::new("night", "0 22 * * *".parse().unwrap());
        let expected = schedule.with_bounds(1, 2).with_timezone("Europe/Berlin");
        assert_eq!(scaling, Scaling::new(1, 6).with_schedule(expected));
        assert_eq!(web("").scaling, None);
    }

    #[test]
    fn wrong_scaling_is_refused_at_its_place() {
        for (scaling, expected) in [
            ("max: 6, cpu: 60", ": `min` is missing"),
            ("min: 1, max: 6, cpu: 0", ".cpu: \"0\" is not a percentage from 1 to 100"),
            (
                "min: 1, max: 6, requests: 600",
                ".requests: \"600\" is not a number of requests in a minute such as `600/m`",
            ),
            ("min: 2, max: 6, cpu: 60", ": 1 replicas are not within 2 and 6"),
            ("min: 0, max: 6, cpu: 60", ".min: a service that scales has one instance at the least"),
            ("min: 1, max: 6", ": nothing says when the number changes"),
            (
                "min: 1, max: 6, schedules: [{name: night, cron: 22h, min: 1}]",
                ".schedules[0].cron: \"22h\" is not a recurring time such as `30 7 * * mon-fri`",
            ),
            (
                "min: 1, max: 6, schedules: [{name: night, cron: 0 22 * * *}]",
                ".schedules[0]: a schedule changes the fewest or the most instances, or both",
            ),
        ] {
            assert_eq!(complaints(&keys(scaling))[0], format!("x-deployer.scaling{expected}"), "{scaling}");
        }
    }
}

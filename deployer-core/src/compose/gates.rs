//! `x-deployer.gates`: questions that must be answered with yes on the way.

use super::cursor::{Cursor, Fields};
use super::report::Report;
use super::{extension, formats, keys};
use crate::model::{GateCheck, GatePoint, GateSpec, OnInconclusive, Port};

const CHECKS: [&str; 5] = ["smoke", "error-rate", "latency", "approval", "callback"];

pub(super) fn read(report: &mut Report, cursor: &Cursor<'_>, ports: &[Port]) -> Option<GateSpec> {
    let fields = report.fields(cursor, &keys::GATE)?;
    let name = fields.require(report, "name").and_then(|cursor| report.text(&cursor));
    let asked: Vec<(&str, Cursor<'_>)> = CHECKS.iter().filter_map(|check| Some((*check, fields.get(check)?))).collect();
    let check = match &asked[..] {
        [(kind, cursor)] => check(report, kind, cursor, ports),
        [] => {
            let help = format!("it asks one of {}", CHECKS.join(", "));
            report.error_with_help(cursor, "the gate asks nothing", help);
            None
        }
        [_, (second, cursor), ..] => {
            let help = "make a gate of its own for each question";
            report.error_with_help(cursor, format!("the gate asks more than one question: `{second}` too"), help);
            None
        }
    };
    let at = fields.get("at").map(|cursor| {
        report.parsed(&cursor, "`before-traffic` or `holding`", |text| match text {
            "before-traffic" => Some(GatePoint::BeforeTraffic),
            "holding" => Some(GatePoint::Holding),
            _ => None,
        })
    });
    let interval = fields.duration(report, "interval");
    let failures = fields.number(report, "failures-allowed");
    let policy = fields.get("on-inconclusive").and_then(|cursor| {
        report.parsed(&cursor, "`fail` or `proceed`", |text| match text {
            "fail" => Some(OnInconclusive::Fail),
            "proceed" => Some(OnInconclusive::Proceed),
            _ => None,
        })
    });
    let check = check?;
    let at = match at {
        Some(at) => at?,
        None if matches!(check, GateCheck::Smoke { .. }) => GatePoint::BeforeTraffic,
        None => GatePoint::Holding,
    };
    let mut gate = GateSpec::new(name?, at, check);
    gate.interval = interval.unwrap_or(gate.interval);
    gate.failures_allowed = failures.unwrap_or(gate.failures_allowed);
    gate.on_inconclusive = policy.unwrap_or(gate.on_inconclusive);
    Some(gate)
}

fn check(report: &mut Report, kind: &str, cursor: &Cursor<'_>, ports: &[Port]) -> Option<GateCheck> {
    match kind {
        "smoke" => {
            let fields = report.fields(cursor, &keys::SMOKE)?;
            let path = fields.text(report, "path").unwrap_or_else(|| "/".to_owned());
            let status = match fields.get("status") {
                Some(cursor) => report.parsed(&cursor, "a status from 100 to 599", |text| {
                    text.parse().ok().filter(|status| (100..600).contains(status))
                }),
                None => Some(200),
            };
            let contains = fields.text(report, "contains");
            let port = extension::port(report, &fields, ports);
            Some(GateCheck::Smoke { path, port: port?, status: status?, contains })
        }
        "error-rate" => {
            let fields = report.fields(cursor, &keys::ERROR_RATE)?;
            let max = fields
                .require(report, "max")
                .and_then(|cursor| report.parsed(&cursor, "a percentage such as `1%` or `0.5%`", formats::permille));
            let min_requests = min_requests(report, &fields);
            Some(GateCheck::ErrorRate { max_permille: max?, min_requests })
        }
        "latency" => {
            let fields = report.fields(cursor, &keys::LATENCY)?;
            let max = fields.require(report, "max").and_then(|cursor| report.duration(&cursor));
            let min_requests = min_requests(report, &fields);
            Some(GateCheck::Latency { max: max?, min_requests })
        }
        "approval" => {
            let fields = report.fields(cursor, &keys::APPROVAL)?;
            let timeout = fields.require(report, "timeout").and_then(|cursor| report.duration(&cursor));
            Some(GateCheck::Approval { timeout: timeout? })
        }
        _ => {
            let fields = report.fields(cursor, &keys::CALLBACK)?;
            let name = fields.require(report, "name").and_then(|cursor| report.text(&cursor));
            Some(GateCheck::Callback { name: name? })
        }
    }
}

/// One request is the least that anything can be said about.
fn min_requests(report: &mut Report, fields: &Fields<'_>) -> u64 {
    fields.number(report, "min-requests").unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{complaints, web};
    use super::*;

    fn keys(gate: &str) -> String {
        format!("expose: [8080]\nx-deployer: {{route: {{}}, gates: [{{{gate}}}]}}")
    }

    #[test]
    fn gates_are_read_in_every_form() {
        let smoke = |status, contains: Option<&str>| GateCheck::Smoke {
            path: "/h".into(),
            port: 8080,
            status,
            contains: contains.map(str::to_owned),
        };
        let seconds = Duration::from_secs;
        for (gate, at, check) in [
            ("smoke: {path: /h}", GatePoint::BeforeTraffic, smoke(200, None)),
            (
                "smoke: {path: /h, port: 8080, status: 204, contains: ok}",
                GatePoint::BeforeTraffic,
                smoke(204, Some("ok")),
            ),
            ("smoke: {path: /h}, at: holding", GatePoint::Holding, smoke(200, None)),
            (
                "error-rate: {max: 1%, min-requests: 20}",
                GatePoint::Holding,
                GateCheck::ErrorRate { max_permille: 10, min_requests: 20 },
            ),
            ("error-rate: {max: 0.5%}", GatePoint::Holding, GateCheck::ErrorRate { max_permille: 5, min_requests: 1 }),
            ("latency: {max: 2s}", GatePoint::Holding, GateCheck::Latency { max: seconds(2), min_requests: 1 }),
            ("approval: {timeout: 1h}", GatePoint::Holding, GateCheck::Approval { timeout: seconds(3600) }),
            (
                "approval: {timeout: 1h}, at: before-traffic",
                GatePoint::BeforeTraffic,
                GateCheck::Approval { timeout: seconds(3600) },
            ),
            ("callback: {name: c}", GatePoint::Holding, GateCheck::Callback { name: "c".into() }),
        ] {
            assert_eq!(web(&keys(&format!("name: g, {gate}"))).gates, [GateSpec::new("g", at, check)], "{gate}");
        }
        let gate = "name: g, latency: {max: 1s}, interval: 3s, failures-allowed: 2, on-inconclusive: proceed";
        let gate = web(&keys(gate)).gates.remove(0);
        assert_eq!((gate.interval, gate.failures_allowed), (seconds(3), 2));
        assert_eq!(gate.on_inconclusive, OnInconclusive::Proceed);
    }

    #[test]
    fn wrong_gates_are_refused() {
        for (gate, expected) in [
            ("name: g", ": the gate asks nothing"),
            (
                "name: g, latency: {max: 1s}, approval: {timeout: 1s}",
                ".approval: the gate asks more than one question: `approval` too",
            ),
            ("latency: {max: 1s}", ": `name` is missing"),
            ("name: g, latency: {}", ".latency: `max` is missing"),
            (
                "name: g, error-rate: {max: 0.01}",
                ".error-rate.max: \"0.01\" is not a percentage such as `1%` or `0.5%`",
            ),
            ("name: g, smoke: {status: 99}", ".smoke.status: \"99\" is not a status from 100 to 599"),
            ("name: g, smoke: {path: x}", ": \"x\" does not begin with `/`"),
            (
                "name: g, latency: {max: 1s}, at: before-traffic",
                ": there is nothing to count before the revision has traffic",
            ),
            ("name: g, latency: {max: 1s}, at: never", ".at: \"never\" is not `before-traffic` or `holding`"),
            ("name: g, latency: {max: 1s}, on-inconclusive: x", ".on-inconclusive: \"x\" is not `fail` or `proceed`"),
            ("name: g, latency: {max: 1s}, interval: 1ms", ": a gate is asked every 10 ms at the most"),
        ] {
            assert_eq!(complaints(&keys(gate)), [format!("x-deployer.gates[0]{expected}")], "{gate}");
        }
    }
}

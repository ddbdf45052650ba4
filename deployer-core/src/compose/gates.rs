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

//! `x-deployer.gates`: questions that must be answered with yes on the way.

use super::formats;
use super::yaml::Map;
use crate::model::{GateCheck, GatePoint, GateSpec, OnInconclusive};

pub(super) fn gate(gate: &GateSpec) -> Map {
    let GateSpec { name, check, at, interval, failures_allowed, on_inconclusive } = gate;
    let default = GateSpec::new("", *at, check.clone());
    let (question, mut point) = (self::check(check), GatePoint::Holding);
    if matches!(check, GateCheck::Smoke { .. }) {
        point = GatePoint::BeforeTraffic;
    }
    let mut map = Map::default();
    map.put("name", name);
    map.put(question.0, question.1);
    map.put_unless("at", self::point(*at), self::point(point));
    map.put_unless("interval", *interval, default.interval);
    map.put_unless("failures-allowed", *failures_allowed, default.failures_allowed);
    map.put_unless("on-inconclusive", policy(*on_inconclusive), policy(default.on_inconclusive));
    map
}

fn point(point: GatePoint) -> &'static str {
    match point {
        GatePoint::BeforeTraffic => "before-traffic",
        GatePoint::Holding => "holding",
    }
}

fn policy(policy: OnInconclusive) -> &'static str {
    match policy {
        OnInconclusive::Fail => "fail",
        OnInconclusive::Proceed => "proceed",
    }
}

fn check(check: &GateCheck) -> (&'static str, Map) {
    let mut map = Map::default();
    match check {
        GateCheck::Smoke { path, port, status, contains } => {
            map.put_unless("path", path.as_str(), "/");
            map.put("port", *port);
            map.put_unless("status", *status, 200);
            map.put_some("contains", contains.as_ref());
            ("smoke", map)
        }
        GateCheck::ErrorRate { max_permille, min_requests } => {
            map.put("max", formats::percentage(*max_permille));
            map.put_unless("min-requests", *min_requests, 1);
            ("error-rate", map)
        }
        GateCheck::Latency { max, min_requests } => {
            map.put("max", *max);
            map.put_unless("min-requests", *min_requests, 1);
            ("latency", map)
        }
        GateCheck::Approval { timeout } => {
            map.put("timeout", *timeout);
            ("approval", map)
        }
        GateCheck::Callback { name } => {
            map.put("name", name);
            ("callback", map)
        }
    }
}

//! `healthcheck`: the check that runs inside the instances.

use super::yaml::Map;
use crate::model::{CheckCommand, ContainerCheck};

pub(super) fn check(check: &ContainerCheck) -> Map {
    let ContainerCheck { command, interval, timeout, retries, start_period } = check;
    let default = ContainerCheck::new(CheckCommand::Disabled);
    let mut map = Map::default();
    match command {
        CheckCommand::Exec(words) => {
            map.put("test", ["CMD"].into_iter().chain(words.iter().map(String::as_str)).collect::<Vec<_>>());
        }
        CheckCommand::Shell(line) => map.put("test", vec!["CMD-SHELL", line]),
        CheckCommand::Disabled => map.put("disable", true),
    }
    map.put_unless("interval", *interval, default.interval);
    map.put_unless("timeout", *timeout, default.timeout);
    map.put_unless("retries", *retries, default.retries);
    map.put_unless("start_period", *start_period, default.start_period);
    map
}

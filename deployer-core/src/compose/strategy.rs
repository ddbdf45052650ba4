//! `x-deployer.strategy`: how a service moves from one revision to the next.

use std::time::Duration;

use super::cursor::Cursor;
use super::report::Report;
use super::{check, keys};
use crate::model::{CanaryStep, Strategy};

const NAMES: [&str; 5] = ["recreate", "rolling", "blue-green", "canary", "linear"];

/// A strategy: its name alone, or a mapping with its `type` and options.
pub(super) fn read(report: &mut Report, cursor: &Cursor<'_>, model: &str) -> Option<Strategy> {
    if cursor.scalar().is_some() {
        let name = report.text(cursor)?;
        return match name.as_str() {
            "recreate" => Some(Strategy::Recreate),
            "rolling" => Some(Strategy::Rolling { surge: 1, unavailable: 0 }),
            "blue-green" => Some(Strategy::default()),
            "canary" | "linear" => {
                let help = if name == "canary" {
                    "write `{ type: canary, steps: [ { weight: 10, hold: 30s } ] }`"
                } else {
                    "write `{ type: linear, step: 20, interval: 10s }`"
                };
                report.error_with_help(cursor, format!("the strategy {name} needs options"), help);
                None
            }
            _ => unknown(report, cursor, &name),
        };
    }
    if !cursor.is_map() {
        return report.mismatch(cursor, "the name of a strategy, or a mapping with its type");
    }
    let kind = cursor.entries().into_iter().find(|field| field.key == "type" && !field.value.is_null());
    let Some(kind) = kind else {
        report.error_with_help(cursor, "`type` is missing", format!("it is one of {}", NAMES.join(", ")));
        return None;
    };
    let name = report.text(&kind.value)?;
    match name.as_str() {
        "recreate" => report.fields(cursor, &keys::RECREATE).map(|_| Strategy::Recreate),
        "rolling" => {
            let fields = report.fields(cursor, &keys::ROLLING)?;
            let surge = fields.number(report, "surge").unwrap_or(1);
            Some(Strategy::Rolling { surge, unavailable: fields.number(report, "unavailable").unwrap_or(0) })
        }
        "blue-green" => {
            let fields = report.fields(cursor, &keys::BLUE_GREEN)?;
            let bake = fields.duration(report, "bake").unwrap_or_default();
            Some(Strategy::BlueGreen { bake, keep_warm: fields.duration(report, "keep-warm").unwrap_or_default() })
        }
        "canary" => {
            let fields = report.fields(cursor, &keys::CANARY)?;
            let list = fields.require(report, "steps")?;
            report.mark(format!("{model}.strategy.steps"), &list);
            let items = report.items(&list);
            let steps: Vec<_> = items.iter().filter_map(|item| step(report, item)).collect();
            // A step that was refused would make the rest look wrong as well.
            (steps.len() == items.len()).then_some(Strategy::Canary { steps })
        }
        "linear" => {
            let fields = report.fields(cursor, &keys::LINEAR)?;
            let step = fields.require(report, "step").and_then(|cursor| {
                report.mark(format!("{model}.strategy.step"), &cursor);
                percentage(report, &cursor)
            });
            let interval = fields.require(report, "interval").and_then(|cursor| report.duration(&cursor));
            Some(Strategy::Linear { step: step?, interval: interval? })
        }
        _ => unknown(report, &kind.value, &name),
    }
}

fn unknown(report: &mut Report, cursor: &Cursor<'_>, name: &str) -> Option<Strategy> {
    let help = match check::nearest(name, NAMES) {
        Some(known) => format!("did you mean {known}?"),
        None => format!("there are {}", NAMES.join(", ")),
    };
    report.error_with_help(cursor, format!("there is no strategy {name:?}"), help);
    None
}

fn step(report: &mut Report, cursor: &Cursor<'_>) -> Option<CanaryStep> {
    let fields = report.fields(cursor, &keys::CANARY_STEP)?;
    let weight = fields.require(report, "weight").and_then(|cursor| percentage(report, &cursor));
    let hold = fields.duration(report, "hold").unwrap_or(Duration::ZERO);
    Some(CanaryStep { weight: weight?, hold })
}

/// `20` or `20%` of the traffic.
fn percentage(report: &mut Report, cursor: &Cursor<'_>) -> Option<u8> {
    let number = |text: &str| text.strip_suffix('%').unwrap_or(text).parse().ok();
    report.parsed(cursor, "a percentage of the traffic from 1 to 100", |text| {
        number(text).filter(|percentage| (1..=100).contains(percentage))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{complaints, web};
    use super::*;

    #[test]
    fn strategies_are_read_in_every_form() {
        let seconds = Duration::from_secs;
        let step = |weight, hold| CanaryStep { weight, hold: seconds(hold) };
        for (strategy, expected) in [
            ("recreate", Strategy::Recreate),
            ("{type: recreate}", Strategy::Recreate),
            ("rolling", Strategy::Rolling { surge: 1, unavailable: 0 }),
            ("{type: rolling, surge: 2, unavailable: 1}", Strategy::Rolling { surge: 2, unavailable: 1 }),
            ("blue-green", Strategy::default()),
            (
                "{type: blue-green, bake: 1s, keep-warm: 10m}",
                Strategy::BlueGreen { bake: seconds(1), keep_warm: seconds(600) },
            ),
            (
                "{type: canary, steps: [{weight: 10, hold: 30s}, {weight: 50%}]}",
                Strategy::Canary { steps: vec![step(10, 30), step(50, 0)] },
            ),
            ("{type: linear, step: 20, interval: 10s}", Strategy::Linear { step: 20, interval: seconds(10) }),
        ] {
            assert_eq!(web(&format!("x-deployer: {{strategy: {strategy}}}")).strategy, expected, "{strategy}");
        }
    }

    #[test]
    fn wrong_strategies_are_refused() {
        for (strategy, expected) in [
            ("canary", ": the strategy canary needs options"),
            ("bluegreen", ": there is no strategy \"bluegreen\""),
            ("{surge: 1}", ": `type` is missing"),
            ("{type: rolling, bake: 1s}", ".bake: `bake` is no key of the strategy rolling"),
            (
                "{type: rolling, surge: 0}",
                ": a rolling deployment with neither surge nor unavailable instances cannot move",
            ),
            ("{type: canary, steps: []}", ".steps: a canary needs at least one step"),
            ("{type: canary}", ": `steps` is missing"),
            (
                "{type: canary, steps: [{weight: 0}]}",
                ".steps[0].weight: \"0\" is not a percentage of the traffic from 1 to 100",
            ),
            (
                "{type: canary, steps: [{weight: 20}, {weight: 10}]}",
                ".steps: the weights of the steps rise, from 1 to 100",
            ),
            (
                "{type: linear, step: 101, interval: 1s}",
                ".step: \"101\" is not a percentage of the traffic from 1 to 100",
            ),
            ("[x]", ": the name of a strategy, or a mapping with its type is needed here, not a list"),
        ] {
            let found = complaints(&format!("x-deployer: {{strategy: {strategy}}}"));
            assert_eq!(found, [format!("x-deployer.strategy{expected}")], "{strategy}");
        }
    }
}

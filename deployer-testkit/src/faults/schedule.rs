//! Schedules of faults: written down, read again, and made by chance.

use std::fmt;
use std::str::FromStr;

use deployer_core::{CallInfo, Effect, Error, ErrorKind, Result};

use super::{At, Fault};
use crate::world::random::Random;

/// Faults in the order in which somebody wrote them down. What it prints can be parsed again, which is how a run is
/// repeated.
///
/// ```
/// use deployer_core::ErrorKind;
/// use deployer_testkit::{At, Fault, Schedule};
///
/// let schedule = Schedule::new()
///     .with(At::Call(7), Fault::before(ErrorKind::Unavailable))
///     .with(At::operation("balancer.set_weights", 2), Fault::lost_reply());
/// let text = schedule.to_string();
/// assert_eq!(text, "call 7: unavailable; balancer.set_weights 2: reply lost");
/// assert_eq!(text.parse::<Schedule>()?, schedule);
/// # Ok::<(), deployer_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Schedule {
    pub(super) faults: Vec<(At, Fault)>,
}

impl Schedule {
    /// No faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault.
    #[must_use]
    pub fn with(mut self, at: At, fault: Fault) -> Self {
        self.faults.push((at, fault));
        self
    }

    /// So many faults at different calls, by chance, of a run that made these calls when nothing disturbed it.
    ///
    /// ```
    /// use deployer_core::CallInfo;
    /// use deployer_testkit::Schedule;
    ///
    /// let calls: Vec<CallInfo> = (1..=20).map(|n| CallInfo::new(n, "orchestrator.launch", "web", true)).collect();
    /// assert_eq!(Schedule::random(3, &calls, 2), Schedule::random(3, &calls, 2));
    /// assert_ne!(Schedule::random(3, &calls, 2), Schedule::random(4, &calls, 2));
    /// ```
    #[must_use]
    pub fn random(seed: u64, calls: &[CallInfo], faults: usize) -> Self {
        let mut random = Random::seeded(seed);
        let mut positions: Vec<usize> = Vec::new();
        // What a first fault causes makes more calls than there were: some positions lie beyond.
        let most = calls.len() + calls.len() / 2;
        while positions.len() < faults.min(most) {
            let position = random.below(most);
            if !positions.contains(&position) {
                positions.push(position);
            }
        }
        positions.sort_unstable();
        let mut schedule = Self::new();
        for position in positions {
            let Some(like) = calls.get(position).or_else(|| calls.get(random.below(calls.len()))) else { break };
            let possible = Fault::at(like);
            if let Some(fault) = possible.get(random.below(possible.len())) {
                schedule = schedule.with(At::Call(position as u64 + 1), *fault);
            }
        }
        schedule
    }

    /// The faults, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &(At, Fault)> {
        self.faults.iter()
    }

    /// Whether the deployer is to get over all of it as if nothing had been.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.faults.iter().all(|(_, fault)| fault.is_transient())
    }

    /// Whether there is a fault of which this is true.
    pub fn any(&self, is: impl Fn(&Fault) -> bool) -> bool {
        self.faults.iter().any(|(_, fault)| is(fault))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.faults.is_empty() {
            return f.write_str("no faults");
        }
        for (index, (at, fault)) in self.faults.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(f, "{comma}{at}: {fault}")?;
        }
        Ok(())
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut schedule = Self::new();
        if text.trim() == "no faults" {
            return Ok(schedule);
        }
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (at, fault) =
                part.split_once(": ").ok_or_else(|| unreadable(part, "it is not of the form `at: fault`"))?;
            let (operation, number) = at.rsplit_once(' ').ok_or_else(|| unreadable(part, "the call has no number"))?;
            let number = number.parse().map_err(|_| unreadable(part, "the call's number is not a number"))?;
            let at = match operation {
                "call" => At::Call(number),
                operation => At::operation(operation.to_owned(), number),
            };
            schedule = schedule.with(at, read_fault(fault).ok_or_else(|| unreadable(part, "there is no such fault"))?);
        }
        Ok(schedule)
    }
}

fn unreadable(part: &str, why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, why)
        .with_operation("read a schedule of faults")
        .with_resource(format!("{part:?}"))
        .with_help("copy it as it was printed, such as `call 7: reply lost`")
}

fn read_fault(text: &str) -> Option<Fault> {
    let number = |prefix: &str| text.strip_prefix(prefix)?.strip_suffix(" ms")?.parse().ok();
    Some(match text {
        "request lost" => Fault::lost_request(),
        "reply lost" => Fault::lost_reply(),
        "made twice" => Fault::Twice,
        "hangs" => Fault::Hang,
        "hangs after the effect" => Fault::HangAfter,
        "stale answer" => Fault::Stale,
        "crash" => Fault::CrashBefore,
        "crash after the effect" => Fault::CrashAfter,
        "cancelled" => Fault::Cancel,
        "weights moved by hand" => Fault::MoveWeights,
        "instance killed by hand" => Fault::KillInstance,
        _ if text.starts_with("away for ") => Fault::Away { millis: u64::try_from(number("away for ")?).ok()? },
        _ if text.starts_with("pause of ") => Fault::Pause { millis: u64::try_from(number("pause of ")?).ok()? },
        _ if text.starts_with("clock set by ") => Fault::ClockJump { millis: number("clock set by ")? },
        _ => return read_error(text),
    })
}

fn read_error(text: &str) -> Option<Fault> {
    let (text, effect) = match text.split_once(", effect ") {
        None => (text, None),
        Some((text, "none")) => (text, Some(Effect::None)),
        Some((text, "done")) => (text, Some(Effect::Done)),
        Some((text, "unknown")) => (text, Some(Effect::Unknown)),
        Some(_) => return None,
    };
    let (code, after) = match text.strip_suffix(" after the effect") {
        Some(code) => (code, true),
        None => (text, false),
    };
    let kind = serde_json::from_value(serde_json::Value::String(code.to_owned())).ok()?;
    Some(if after {
        Fault::After { kind, effect: effect.unwrap_or(Effect::Unknown) }
    } else {
        Fault::Before { kind, effect: effect.unwrap_or(Effect::None) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_read_as_it_was_written() {
        let call = CallInfo::new(1, "orchestrator.observe", "web", true);
        let others = [
            Fault::Before { kind: ErrorKind::Internal, effect: Effect::Done },
            Fault::After { kind: ErrorKind::Conflict, effect: Effect::None },
        ];
        for fault in Fault::at(&call).into_iter().chain(others) {
            let schedule = Schedule::new().with(At::Call(3), fault).with(At::operation("store.append", 2), fault);
            assert_eq!(schedule.to_string().parse::<Schedule>().map_err(|error| error.to_string()), Ok(schedule));
        }
        assert_eq!("no faults".parse::<Schedule>().ok(), Some(Schedule::new()));
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_the_place() {
        for text in ["call 7", "call: crash", "call x: crash", "call 7: nonsense", "call 7: away for ever"] {
            let error = text.parse::<Schedule>().map(|schedule| schedule.to_string()).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}

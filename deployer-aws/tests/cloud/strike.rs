//! Which fault strikes at which request, as text that can be read again.
//!
//! The faults are the testkit's; here they strike at HTTP requests. A passing one strikes once, and the SDK tries again by
//! itself; one that is `each time` strikes at every attempt of the SDK, so that the engine gets to see it.

use std::fmt;
use std::str::FromStr;

use deployer_core::ErrorKind;
use deployer_testkit::{At, Fault, Schedule};

const EACH: &str = ", each time";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strike {
    pub(crate) fault: Fault,
    /// Whether it strikes at every attempt of the SDK.
    pub(crate) each: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Strikes(pub(crate) Vec<(At, Strike)>);

impl Strikes {
    pub(crate) fn one(at: u64, strike: Strike) -> Self {
        Self(vec![(At::Call(at), strike)])
    }

    pub(crate) fn any(&self, is: impl Fn(&Fault) -> bool) -> bool {
        self.0.iter().any(|(_, strike)| is(&strike.fault))
    }

    /// Whether the deployer is to get over all of it as if nothing had been.
    pub(crate) fn is_transient(&self) -> bool {
        self.0.iter().all(|(_, strike)| strike.fault.is_transient())
    }
}

/// Every way in which this request can be disturbed.
pub(crate) fn possible(mutating: bool) -> Vec<Strike> {
    let once = |fault| Strike { fault, each: false };
    let each = |fault| Strike { fault, each: true };
    let mut all = vec![
        once(Fault::before(ErrorKind::Throttled)),
        each(Fault::before(ErrorKind::Throttled)),
        once(Fault::before(ErrorKind::Unavailable)),
        each(Fault::before(ErrorKind::Unavailable)),
        once(Fault::before(ErrorKind::PermissionDenied)),
        once(Fault::lost_request()),
        each(Fault::lost_request()),
        once(Fault::Hang),
        once(Fault::Away { millis: 500 }),
        once(Fault::Away { millis: 60_000 }),
        once(Fault::CrashBefore),
        once(Fault::CrashAfter),
        once(Fault::Pause { millis: 40_000 }),
        once(Fault::Cancel),
        once(Fault::MoveWeights),
        once(Fault::KillInstance),
    ];
    if mutating {
        all.extend([
            once(Fault::lost_reply()),
            each(Fault::lost_reply()),
            once(Fault::after(ErrorKind::Unavailable)),
            each(Fault::after(ErrorKind::Unavailable)),
            once(Fault::Twice),
            once(Fault::HangAfter),
        ]);
    } else {
        all.push(once(Fault::Stale));
    }
    all
}

impl fmt::Display for Strikes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no faults");
        }
        for (index, (at, strike)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(f, "{comma}{at}: {}{}", strike.fault, if strike.each { EACH } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Strikes {
    type Err = deployer_core::Error;

    fn from_str(text: &str) -> deployer_core::Result<Self> {
        let mut strikes = Vec::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (part, each) = match part.strip_suffix(EACH) {
                Some(part) => (part, true),
                None => (part, false),
            };
            let schedule: Schedule = part.parse()?;
            strikes.extend(schedule.iter().map(|(at, fault)| (at.clone(), Strike { fault: *fault, each })));
        }
        Ok(Self(strikes))
    }
}

//! What goes wrong between an engine and its backend, as data: which fault strikes at which call.

mod plan;
mod schedule;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use deployer_core::{CallInfo, Effect, ErrorKind};

pub use plan::{FaultPlan, Process};
pub use schedule::Schedule;

/// At which call a fault strikes. Calls are counted from 1 in the order in which they begin, over all processes of a
/// [`FaultPlan`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// The call of this number, among all.
    Call(u64),
    /// The call of this number among those of this operation, such as `orchestrator.launch`.
    Operation(Cow<'static, str>, u64),
}

impl At {
    /// The call of this number among those of this operation.
    #[must_use]
    pub fn operation(operation: impl Into<Cow<'static, str>>, number: u64) -> Self {
        Self::Operation(operation.into(), number)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(number) => write!(f, "call {number}"),
            Self::Operation(operation, number) => write!(f, "{operation} {number}"),
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The call is not made, and the engine sees this error.
    Before {
        /// The error's kind.
        kind: ErrorKind,
        /// What the error says of its effect.
        effect: Effect,
    },
    /// The call is made, and the engine sees this error instead of its result.
    After {
        /// The error's kind.
        kind: ErrorKind,
        /// What the error says of its effect.
        effect: Effect,
    },
    /// The call is made twice, as when a network delivers a request again.
    Twice,
    /// The call is not made, and no answer comes: the engine has to notice by its deadline.
    Hang,
    /// The call is made, and no answer comes.
    HangAfter,
    /// This call and all further ones to the same part of the backend fail as unavailable until the time has passed.
    Away {
        /// How long.
        millis: u64,
    },
    /// An observation answers what it answered the last time, as a replica does that lags behind. Needs a world.
    Stale,
    /// The deployer's process is killed before the call: nothing that it does from here on happens.
    CrashBefore,
    /// The deployer's process is killed after the call has had its effect and before it knows.
    CrashAfter,
    /// The deployer's process stands still before the call, while the world goes on.
    Pause {
        /// How long.
        millis: u64,
    },
    /// Everybody's clock is set before the call. Needs a world.
    ClockJump {
        /// By how much.
        millis: i64,
    },
    /// An operator cancels whatever is under way before the call. Needs a world.
    Cancel,
    /// Somebody at a console moves weights before the call, among pools that serve. Needs a world.
    MoveWeights,
    /// Somebody at a console kills an instance before the call. Needs a world.
    KillInstance,
}

impl Fault {
    /// The call is not made and fails with this kind, truthfully without effect.
    #[must_use]
    pub const fn before(kind: ErrorKind) -> Self {
        Self::Before { kind, effect: Effect::None }
    }

    /// The call is made and fails with this kind, and nobody can tell whether it had its effect.
    #[must_use]
    pub const fn after(kind: ErrorKind) -> Self {
        Self::After { kind, effect: Effect::Unknown }
    }

    /// The request is lost: the call is not made, times out, and nobody can tell whether it had its effect.
    #[must_use]
    pub const fn lost_request() -> Self {
        Self::Before { kind: ErrorKind::Timeout, effect: Effect::Unknown }
    }

    /// The reply is lost: the call is made, times out, and nobody can tell whether it had its effect.
    #[must_use]
    pub const fn lost_reply() -> Self {
        Self::after(ErrorKind::Timeout)
    }

    /// Every kind of fault that can strike at this call, each in one form at least.
    #[must_use]
    pub fn at(call: &CallInfo) -> Vec<Self> {
        let mut faults = vec![
            Self::before(ErrorKind::Unavailable),
            Self::before(ErrorKind::Throttled),
            Self::before(ErrorKind::PermissionDenied),
            Self::lost_request(),
            Self::lost_reply(),
            Self::after(ErrorKind::Unavailable),
            Self::Twice,
            Self::Hang,
            Self::HangAfter,
            Self::Away { millis: 500 },
            Self::Away { millis: 60_000 },
            Self::CrashBefore,
            Self::CrashAfter,
            Self::Pause { millis: 40_000 },
            Self::ClockJump { millis: 3_600_000 },
            Self::ClockJump { millis: -60_000 },
            Self::Cancel,
            Self::MoveWeights,
            Self::KillInstance,
        ];
        if call.operation.ends_with(".observe") {
            faults.push(Self::Stale);
        }
        if !call.mutating {
            // Reading twice, or without hearing the answer, is reading.
            faults.retain(|fault| !matches!(fault, Self::Twice | Self::HangAfter | Self::After { .. }));
        }
        faults
    }

    /// Whether this operation acts on what was looked at before, with no version that would tell what came in between.
    pub(crate) fn acts_unseen(operation: &str) -> bool {
        matches!(operation, "orchestrator.reduce" | "balancer.set_targets" | "balancer.retain")
    }

    /// Whether the deployer is to get over it as if nothing had been: it ends in the same verdict.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Before { kind, .. } | Self::After { kind, .. } => {
                matches!(kind, ErrorKind::Unavailable | ErrorKind::Throttled | ErrorKind::Timeout)
            }
            Self::Twice
            | Self::Hang
            | Self::HangAfter
            | Self::Stale
            | Self::CrashBefore
            | Self::CrashAfter
            | Self::Pause { .. } => true,
            Self::Away { millis } => *millis <= 1_000,
            Self::ClockJump { .. } | Self::Cancel | Self::MoveWeights | Self::KillInstance => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = |effect: &Effect| match effect {
            Effect::None => "none",
            Effect::Done => "done",
            Effect::Unknown => "unknown",
        };
        match self {
            fault if *fault == Self::lost_request() => f.write_str("request lost"),
            fault if *fault == Self::lost_reply() => f.write_str("reply lost"),
            Self::Before { kind, effect: Effect::None } => write!(f, "{kind}"),
            Self::Before { kind, effect: known } => write!(f, "{kind}, effect {}", effect(known)),
            Self::After { kind, effect: Effect::Unknown } => write!(f, "{kind} after the effect"),
            Self::After { kind, effect: known } => write!(f, "{kind} after the effect, effect {}", effect(known)),
            Self::Twice => f.write_str("made twice"),
            Self::Hang => f.write_str("hangs"),
            Self::HangAfter => f.write_str("hangs after the effect"),
            Self::Away { millis } => write!(f, "away for {millis} ms"),
            Self::Stale => f.write_str("stale answer"),
            Self::CrashBefore => f.write_str("crash"),
            Self::CrashAfter => f.write_str("crash after the effect"),
            Self::Pause { millis } => write!(f, "pause of {millis} ms"),
            Self::ClockJump { millis } => write!(f, "clock set by {millis} ms"),
            Self::Cancel => f.write_str("cancelled"),
            Self::MoveWeights => f.write_str("weights moved by hand"),
            Self::KillInstance => f.write_str("instance killed by hand"),
        }
    }
}

/// The time that a fault names.
fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

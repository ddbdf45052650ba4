//! What nobody may do to the world, and the record of who did.

use std::collections::BTreeMap;
use std::fmt;

use deployer_core::{Call, Error, ErrorKind, Result, Retry, Timestamp};

use super::{Rate, failure};

/// A rule of the traits, or of serving without loss, that a call or its effect broke.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// When.
    pub at: Timestamp,
    /// Which rule.
    pub rule: Rule,
    /// What happened.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.at, self.rule, self.detail)
    }
}

/// A rule that the world watches over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A release that is used is the one that the store keeps under its number.
    ReleaseIsStored,
    /// A revision that is launched is the one of its service in its release.
    RevisionIsOfRelease,
    /// An image that is run was resolved or published before.
    ImageIsKnown,
    /// Traffic is not moved to a pool without a target in service while another pool has one.
    TrafficHasTargets,
    /// Weights add up to 100, or are all 0.
    WeightsAddUp,
    /// A target is an instance that exists, at its own address.
    TargetExists,
    /// An instance is not stopped while it is in rotation and has requests in flight.
    OutOfRotationFirst,
    /// A target is not dropped while it has requests in flight.
    DrainedFirst,
    /// A pool is not removed while it has weight and its service stays.
    PoolIsIdle,
    /// A key goes with the same inputs always.
    KeyNamesOneRequest,
    /// A call is not begun after its deadline.
    DeadlineAhead,
    /// Changes are made under an unexpired lease.
    LeaseIsHeld,
    /// A one-off task is executed once.
    TaskRunsOnce,
    /// Two revisions never write one volume at the same time.
    VolumeHasOneWriter,
    /// What another tool has started of a service does not run when the service's own instances start.
    InheritedIsStopped,
    /// The engine registers targets only where the orchestrator does not.
    TargetsAreRegisteredOnce,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReleaseIsStored => "a release that is used is the stored one",
            Self::RevisionIsOfRelease => "a revision that is launched is its release's",
            Self::ImageIsKnown => "an image that is run is known to the registry",
            Self::TrafficHasTargets => "traffic is moved only to pools with a target in service",
            Self::WeightsAddUp => "weights add up to 100 or are all 0",
            Self::TargetExists => "a target is an instance that exists",
            Self::OutOfRotationFirst => "an instance is out of rotation before it is stopped",
            Self::DrainedFirst => "a target is drained before it is dropped",
            Self::PoolIsIdle => "a pool has no weight when it is removed",
            Self::KeyNamesOneRequest => "a key goes with the same inputs always",
            Self::DeadlineAhead => "a call is begun before its deadline",
            Self::LeaseIsHeld => "changes are made under a lease",
            Self::TaskRunsOnce => "a one-off task is executed once",
            Self::VolumeHasOneWriter => "a volume has one writing revision at a time",
            Self::InheritedIsStopped => "what another tool has started is stopped before its service starts",
            Self::TargetsAreRegisteredOnce => "targets are registered by one side only",
        })
    }
}

/// The inputs with which each key came first.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyBook(BTreeMap<(&'static str, String, String), String>);

/// The calls that may still be made at once, in thousandths, and when that was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    tokens: u64,
    at: Timestamp,
}

impl super::state::State {
    /// Counts a call; refuses it if there were too many, or if nobody is there who could answer.
    pub(crate) fn spend(&mut self, operation: &'static str, resource: &str) -> Result<()> {
        if !self.is_up() {
            return Err(failure(operation, resource, ErrorKind::Unavailable, "connection refused"));
        }
        let Some(Rate { burst, per_second }) = self.options.rate else { return Ok(()) };
        let most = u64::from(burst) * 1_000;
        let before = self.bucket.unwrap_or(Bucket { tokens: most, at: self.now });
        let gained = u64::try_from(self.now.since(before.at).as_millis()).unwrap_or(u64::MAX);
        let tokens = before.tokens.saturating_add(gained.saturating_mul(u64::from(per_second))).min(most);
        self.bucket = Some(Bucket { tokens: tokens.saturating_sub(1_000), at: self.now });
        if tokens >= 1_000 {
            return Ok(());
        }
        self.bucket = Some(Bucket { tokens, at: self.now });
        Err(failure(operation, resource, ErrorKind::Throttled, "rate exceeded"))
    }

    /// Refuses what would be more than there may be.
    pub(crate) fn check_quota(
        &self,
        operation: &'static str,
        what: &str,
        count: usize,
        most: Option<u32>,
    ) -> Result<()> {
        match most {
            Some(most) if count > most as usize => {
                let message = format!("{count} {what} would be more than the quota of {most}");
                Err(failure(operation, what, ErrorKind::Exhausted, message)
                    .with_help("remove what is not needed any more, or have the quota raised"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn violate(&mut self, rule: Rule, detail: impl Into<String>) {
        let violation = Violation { at: self.now, rule, detail: detail.into() };
        self.violations.push(violation);
    }

    /// What holds for every mutating call, whatever it does. `inputs` are those that a repetition must have as well.
    pub(crate) fn admit(&mut self, operation: &'static str, resource: &str, call: &Call, inputs: &str) -> Result<()> {
        if call.deadline < self.shown {
            let late = self.shown.since(call.deadline).as_millis();
            self.violate(Rule::DeadlineAhead, format!("{operation} {resource} was called {late} ms too late"));
        }
        let slot = (operation, resource.to_owned(), call.key.clone());
        match self.keys.0.get(&slot) {
            Some(first) if first != inputs => {
                let detail = format!("{operation} {resource} with key {}: first {first}, then {inputs}", call.key);
                self.violate(Rule::KeyNamesOneRequest, detail);
                Err(Error::new(ErrorKind::Conflict, "the key was used with other inputs before")
                    .with_operation(operation)
                    .with_resource(resource)
                    .with_context("key", call.key.clone())
                    .with_retry(Retry::Never))
            }
            Some(_) => Ok(()),
            None => {
                self.keys.0.insert(slot, inputs.to_owned());
                Ok(())
            }
        }
    }
}

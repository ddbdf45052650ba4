//! Scripted faults in front of and behind backend calls, and a record of the calls.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use deployer_core::{CallInfo, Effect, Error, ErrorKind, Intercept, Result};
use tokio::sync::watch;

/// Makes chosen calls fail, or kills the deployer at them, and keeps a list of all calls. Hand it to the engine as its
/// [`Intercept`].
///
/// Each fault strikes once. Calls and faults are counted from 1. The whole plan prints in a form that says how to make
/// it again.
///
/// ```
/// use deployer_core::ErrorKind;
/// use deployer_testkit::{At, Fault, FaultPlan};
///
/// let plan = FaultPlan::new()
///     .with(At::Call(7), Fault::before(ErrorKind::Unavailable))
///     .with(At::Operation("balancer.set_weights", 2), Fault::lost_reply());
/// assert_eq!(
///     plan.to_string(),
///     "call 7: unavailable before the effect; balancer.set_weights 2: timeout after the effect"
/// );
/// ```
#[derive(Debug)]
pub struct FaultPlan {
    script: Mutex<Script>,
    crashed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Script {
    faults: Vec<Planned>,
    calls: Vec<CallInfo>,
    per_operation: BTreeMap<&'static str, u64>,
    /// The faults that strike behind calls that are being made.
    behind: Vec<(CallInfo, Fault)>,
}

#[derive(Clone, Debug)]
struct Planned {
    at: At,
    fault: Fault,
    struck: bool,
}

/// At which call a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// The call of this number, among all.
    Call(u64),
    /// The call of this number among those of this operation, such as `orchestrator.launch`.
    Operation(&'static str, u64),
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
    /// The deployer's process is killed before the call: nothing that it does from here on happens.
    CrashBefore,
    /// The deployer's process is killed after the call has had its effect and before it knows.
    CrashAfter,
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
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before { kind, .. } => write!(f, "{kind} before the effect"),
            Self::After { kind, .. } => write!(f, "{kind} after the effect"),
            Self::CrashBefore => f.write_str("crash before the effect"),
            Self::CrashAfter => f.write_str("crash after the effect"),
        }
    }
}

impl Default for FaultPlan {
    fn default() -> Self {
        Self::new()
    }
}

impl FaultPlan {
    /// A plan without faults: it only keeps the list of calls.
    #[must_use]
    pub fn new() -> Self {
        Self { script: Mutex::default(), crashed: watch::Sender::new(false) }
    }

    /// Adds a fault.
    #[must_use]
    pub fn with(self, at: At, fault: Fault) -> Self {
        self.add(at, fault);
        self
    }

    /// Adds a fault while the plan is in use.
    pub fn add(&self, at: At, fault: Fault) {
        self.lock().faults.push(Planned { at, fault, struck: false });
    }

    /// The plan as the engine takes it.
    #[must_use]
    pub fn shared(self) -> Arc<Self> {
        Arc::new(self)
    }

    /// All calls so far, in the order in which they began, those that were not made because of a fault included.
    #[must_use]
    pub fn calls(&self) -> Vec<CallInfo> {
        self.lock().calls.clone()
    }

    /// The faults that have not struck: a test that expects them to must find none.
    #[must_use]
    pub fn pending(&self) -> Vec<(At, Fault)> {
        self.lock().faults.iter().filter(|planned| !planned.struck).map(|planned| (planned.at, planned.fault)).collect()
    }

    /// Returns when a crash has struck. The call at which it struck, and every later one of the same plan, never returns:
    /// drop the deployer's future then, and go on with another deployer and another plan.
    ///
    /// ```
    /// # use deployer_core::{CallInfo, Intercept};
    /// # use deployer_testkit::{At, Fault, FaultPlan, simulate};
    /// # simulate(async {
    /// let plan = FaultPlan::new().with(At::Call(1), Fault::CrashBefore);
    /// // Stands for a deployment, which makes calls.
    /// let call = CallInfo::new(1, "orchestrator.launch", "web@3f9a1c2b4d5e", true);
    /// let deployment = plan.before(&call);
    /// let killed = tokio::select! {
    ///     _ = deployment => false,
    ///     () = plan.crashed() => true,
    /// };
    /// assert!(killed);
    /// # });
    /// ```
    pub async fn crashed(&self) {
        // The sender lives as long as this plan, so waiting cannot fail.
        let _ = self.crashed.subscribe().wait_for(|crashed| *crashed).await;
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn crash(&self) -> Result<()> {
        self.crashed.send_replace(true);
        pending().await
    }
}

impl Script {
    /// Counts a call and answers the fault that strikes at it.
    fn begin(&mut self, call: &CallInfo) -> Option<Fault> {
        self.calls.push(call.clone());
        let number = self.calls.len() as u64;
        let of_operation = self.per_operation.entry(call.operation).or_default();
        *of_operation += 1;
        let of_operation = *of_operation;
        let planned = self.faults.iter_mut().find(|planned| {
            !planned.struck
                && match planned.at {
                    At::Call(wanted) => wanted == number,
                    At::Operation(operation, wanted) => operation == call.operation && wanted == of_operation,
                }
        })?;
        planned.struck = true;
        Some(planned.fault)
    }
}

fn error(call: &CallInfo, kind: ErrorKind, effect: Effect) -> Error {
    Error::new(kind, "a planned fault struck")
        .with_operation(call.operation)
        .with_resource(call.resource.clone())
        .with_effect(effect)
}

#[async_trait]
impl Intercept for FaultPlan {
    async fn before(&self, call: &CallInfo) -> Result<()> {
        if *self.crashed.borrow() {
            return pending().await;
        }
        let fault = self.lock().begin(call);
        match fault {
            None => Ok(()),
            Some(Fault::Before { kind, effect }) => Err(error(call, kind, effect)),
            Some(Fault::CrashBefore) => self.crash().await,
            Some(behind) => {
                self.lock().behind.push((call.clone(), behind));
                Ok(())
            }
        }
    }

    async fn after(&self, call: &CallInfo, _error: Option<&Error>) -> Result<()> {
        if *self.crashed.borrow() {
            return pending().await;
        }
        let fault = {
            let mut script = self.lock();
            let index = script.behind.iter().position(|(begun, _)| begun == call);
            index.map(|index| script.behind.remove(index).1)
        };
        match fault {
            Some(Fault::After { kind, effect }) => Err(error(call, kind, effect)),
            Some(Fault::CrashAfter) => self.crash().await,
            _ => Ok(()),
        }
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let script = self.lock();
        if script.faults.is_empty() {
            return f.write_str("no faults");
        }
        for (index, planned) in script.faults.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(f, "{comma}{}: {}", planned.at, planned.fault)?;
        }
        Ok(())
    }
}

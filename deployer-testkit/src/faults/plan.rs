//! Faults as they strike.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use deployer_core::{CallInfo, Effect, Error, ErrorKind, Intercept, Next, Result};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::{At, Fault, Schedule, millis};
use crate::world::World;

/// Makes chosen calls fail, kills the deployer at them, or lets others interfere, and keeps a list of all calls. Hand a
/// [`Process`] of it to the engine as its [`Intercept`].
///
/// Each fault strikes once.
///
/// ```
/// use deployer_core::{AppSpec, DeployOptions, Deployer, ServiceSpec};
/// use deployer_testkit::{At, Fault, FaultPlan, World, simulate};
///
/// # fn main() -> deployer_core::Result<()> {
/// let world = World::new();
/// world.add_image("shop:v1");
/// let plan = FaultPlan::new().with(At::operation("orchestrator.launch", 1), Fault::CrashAfter);
/// simulate(async {
///     let process = plan.process();
///     let doomed = Deployer::builder(world.backend()).clock(world.clock()).intercept(process.shared()).build();
///     let spec = AppSpec::new("shop")?.with_service("web", ServiceSpec::image("shop:v1"))?;
///     let deployment = doomed.deploy(spec, DeployOptions::default());
///     process.crashed().await;
///     drop(deployment);
///
///     // Another process goes on with it, as soon as the dead one's lease has expired.
///     let heir = Deployer::builder(world.backend()).clock(world.clock()).intercept(plan.process().shared()).build();
///     let resumed = heir.resume(&"shop".parse()?).await?.expect("it has no verdict yet");
///     assert!(resumed.finished().await?.verdict.expect("it has ended").is_promoted());
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct FaultPlan(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    script: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    faults: Vec<Planned>,
    calls: Vec<CallInfo>,
    per_operation: BTreeMap<&'static str, u64>,
    /// The parts of the backend that are away, and until when.
    away: BTreeMap<&'static str, Instant>,
    /// Where people interfere.
    world: Option<(World, String)>,
}

#[derive(Clone, Debug)]
struct Planned {
    at: At,
    fault: Fault,
    struck: bool,
}

impl From<Schedule> for FaultPlan {
    fn from(schedule: Schedule) -> Self {
        let plan = Self::new();
        for (at, fault) in schedule.faults {
            plan.add(at, fault);
        }
        plan
    }
}

impl FaultPlan {
    /// A plan without faults: it only keeps the list of calls.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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

    /// Says in which world, and with which application, people interfere.
    #[must_use]
    pub fn in_world(self, world: &World, app: impl Into<String>) -> Self {
        self.lock().world = Some((world.clone(), app.into()));
        self
    }

    /// A process that makes calls under this plan. Each of several processes can be killed without the others.
    #[must_use]
    pub fn process(&self) -> Process {
        Process(Arc::new(Running {
            plan: self.clone(),
            crashed: watch::Sender::new(false),
            paused: watch::Sender::new(None),
        }))
    }

    /// All calls so far, in the order in which they began, those that were not made because of a fault included. They
    /// are numbered over all processes of the plan.
    #[must_use]
    pub fn calls(&self) -> Vec<CallInfo> {
        self.lock().calls.clone()
    }

    /// The faults that have not struck: a test that expects them to must find none.
    #[must_use]
    pub fn pending(&self) -> Vec<(At, Fault)> {
        let script = self.lock();
        let pending = script.faults.iter().filter(|planned| !planned.struck);
        pending.map(|planned| (planned.at.clone(), planned.fault)).collect()
    }

    /// The faults as they can be written down and read again.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule { faults: self.lock().faults.iter().map(|planned| (planned.at.clone(), planned.fault)).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.0.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.schedule().fmt(f)
    }
}

impl Script {
    /// Counts a call and answers the fault that strikes at it, and the call's number.
    fn begin(&mut self, call: &CallInfo) -> (Option<Fault>, u64) {
        let mut call = call.clone();
        let number = self.calls.len() as u64 + 1;
        call.number = number;
        let of_operation = self.per_operation.entry(call.operation).or_default();
        *of_operation += 1;
        let of_operation = *of_operation;
        let planned = self.faults.iter_mut().find(|planned| {
            !planned.struck
                && match &planned.at {
                    At::Call(wanted) => *wanted == number,
                    At::Operation(operation, wanted) => *operation == call.operation && *wanted == of_operation,
                }
        });
        self.calls.push(call);
        let fault = planned.map(|planned| {
            planned.struck = true;
            planned.fault
        });
        (fault, number)
    }
}

/// The part of a backend that an operation belongs to.
fn part(operation: &'static str) -> &'static str {
    operation.split_once('.').map_or(operation, |(part, _)| part)
}

fn error(call: &CallInfo, kind: ErrorKind, effect: Effect) -> Error {
    Error::new(kind, "a planned fault struck")
        .with_operation(call.operation)
        .with_resource(call.resource.clone())
        .with_effect(effect)
}

/// A process that makes calls under a [`FaultPlan`]. Cloning it makes another handle to the same process.
#[derive(Clone, Debug)]
pub struct Process(Arc<Running>);

#[derive(Debug)]
struct Running {
    plan: FaultPlan,
    crashed: watch::Sender<bool>,
    /// Until when it stands still, if it ever did.
    paused: watch::Sender<Option<Instant>>,
}

impl Process {
    /// The process as the engine takes it.
    #[must_use]
    pub fn shared(&self) -> Arc<dyn Intercept> {
        Arc::new(self.clone())
    }

    /// Returns when a crash has struck. The call at which it struck, and every later one of this process, never returns:
    /// drop the deployer's future then, and go on with another deployer and another [process](FaultPlan::process).
    pub async fn crashed(&self) {
        // The sender lives as long as this process, so waiting cannot fail.
        let _ = self.0.crashed.subscribe().wait_for(|crashed| *crashed).await;
    }

    /// Whether a pause has begun, over or not.
    #[must_use]
    pub fn has_paused(&self) -> bool {
        self.0.paused.borrow().is_some()
    }

    /// Returns when a pause has begun.
    pub async fn paused(&self) {
        let _ = self.0.paused.subscribe().wait_for(Option::is_some).await;
    }

    /// Lets somebody else do something in the world.
    fn interfere(&self, fault: Fault, operation: &'static str, number: u64) {
        let world = self.0.plan.lock().world.clone();
        if let Some((world, app)) = world {
            world.interfere(&app, fault, operation, number);
        }
    }

    async fn crash<T>(&self) -> T {
        self.0.crashed.send_replace(true);
        pending().await
    }

    /// Waits as long as the process stands still; for ever, if it is dead.
    async fn be_alive(&self) {
        if *self.0.crashed.borrow() {
            pending::<()>().await;
        }
        let until = *self.0.paused.borrow();
        if let Some(until) = until {
            sleep_until(until).await;
        }
    }
}

#[async_trait]
impl Intercept for Process {
    async fn intercept(&self, call: &CallInfo, next: &mut Next<'_>) -> Result<()> {
        self.be_alive().await;
        let plan = &self.0.plan;
        let (fault, away, number) = {
            let mut script = plan.lock();
            let (fault, number) = script.begin(call);
            if let Some(Fault::Away { millis: time }) = fault {
                script.away.insert(part(call.operation), Instant::now() + millis(time));
            }
            let away = script.away.get(part(call.operation)).is_some_and(|until| Instant::now() < *until);
            (fault, away, number)
        };
        if away {
            return Err(error(call, ErrorKind::Unavailable, Effect::None));
        }
        match fault {
            Some(Fault::Before { kind, effect }) => return Err(error(call, kind, effect)),
            Some(Fault::CrashBefore) => return self.crash().await,
            Some(Fault::Hang) => return pending().await,
            Some(Fault::Pause { millis: time }) => {
                self.0.paused.send_replace(Some(Instant::now() + millis(time)));
                sleep(millis(time)).await;
            }
            // Between the last look and the act that it was for, nobody can see who interferes: it is done after that.
            Some(Fault::MoveWeights) if Fault::acts_unseen(call.operation) => {}
            Some(
                fault @ (Fault::Stale
                | Fault::ClockJump { .. }
                | Fault::Cancel
                | Fault::MoveWeights
                | Fault::KillInstance),
            ) => {
                self.interfere(fault, call.operation, number);
            }
            _ => {}
        }
        let result = next.run().await;
        if let (Some(Fault::MoveWeights), true) = (fault, Fault::acts_unseen(call.operation)) {
            self.interfere(Fault::MoveWeights, call.operation, number);
        }
        // It may have been killed meanwhile, at another call.
        self.be_alive().await;
        match fault {
            Some(Fault::After { kind, effect }) => Err(error(call, kind, effect)),
            Some(Fault::CrashAfter) => self.crash().await,
            Some(Fault::HangAfter) => pending().await,
            // The first answer was lost on the way, so it is the second one that counts.
            Some(Fault::Twice) => next.run().await,
            _ => result,
        }
    }
}

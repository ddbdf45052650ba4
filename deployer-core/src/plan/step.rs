//! A plan and its steps: what will be done, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::{Inherited, InheritedState, TaskId};
use crate::model::time::millis;
use crate::model::{
    AppName, Digest, GateSpec, Hook, HookPoint, Human, InstanceId, Readiness, ReleaseNumber, RevisionId, ServiceName,
};

/// What will be done, every input pinned. A plan is computed from what was observed and is never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    /// The application.
    pub app: AppName,
    /// The release that will serve; none, if nothing of the application is to be left.
    pub target: Option<ReleaseNumber>,
    /// What it means for each service.
    pub changes: Vec<ServiceChange>,
    /// The steps. A step comes after all those that it waits for.
    pub steps: Vec<Step>,
    /// What the reader should know, such as a strategy that could not be used.
    pub notes: Vec<String>,
    /// A hash of what was observed when it was made.
    pub basis: Digest,
}

impl Plan {
    /// The step of this id.
    #[must_use]
    pub fn step(&self, id: StepId) -> Option<&Step> {
        self.steps.get(id.0 as usize)
    }

    /// What it stops, or starts again, of what another tool has started: what runs again if it is given up.
    pub(crate) fn inherited(&self) -> BTreeSet<InstanceId> {
        let kept = self.steps.iter().filter_map(|step| match &step.action {
            Action::SetInherited { instances, state: InheritedState::Stopped | InheritedState::Running, .. } => {
                Some(instances.iter().map(|instance| instance.id.clone()))
            }
            _ => None,
        });
        kept.flatten().collect()
    }

    /// Whether there is nothing to do but to verify.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.iter().all(|step| matches!(step.action, Action::Verify { .. }))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            Some(target) => writeln!(f, "{} to {target}", self.app)?,
            None => writeln!(f, "{} to nothing", self.app)?,
        }
        for change in &self.changes {
            writeln!(f, "  {change}")?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        Ok(())
    }
}

/// What a plan does to one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceChange {
    /// The service.
    pub service: ServiceName,
    /// In short.
    pub kind: ChangeKind,
    /// The revision that serves now.
    pub from: Option<RevisionId>,
    /// The revision that will serve.
    pub to: Option<RevisionId>,
    /// What differs between the two releases, such as `image: a1b2 -> c3d4`.
    pub differences: Vec<String>,
}

impl fmt::Display for ServiceChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, word) = match self.kind {
            ChangeKind::Add => ('+', "new"),
            ChangeKind::Replace => ('~', "changed"),
            ChangeKind::Scale => ('~', "scaled or repaired"),
            ChangeKind::Keep => ('=', "unchanged"),
            ChangeKind::Remove => ('-', "removed"),
        };
        write!(f, "{sign} {}: {word}", self.service)?;
        match (&self.from, &self.to) {
            (Some(from), Some(to)) if from != to => write!(f, " {} -> {}", from.hash(), to.hash())?,
            (_, Some(to)) => write!(f, " {}", to.hash())?,
            (Some(from), None) => write!(f, " {}", from.hash())?,
            (None, None) => {}
        }
        if !self.differences.is_empty() {
            write!(f, " ({})", self.differences.join("; "))?;
        }
        Ok(())
    }
}

/// What happens to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// It is new.
    Add,
    /// Another revision takes over.
    Replace,
    /// The same revision with another number of instances, or with missing ones brought back.
    Scale,
    /// Nothing.
    Keep,
    /// It goes.
    Remove,
}

/// The number of a step in its plan, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub u32);

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One element of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Step {
    /// Its number.
    pub id: StepId,
    /// The steps that must be done before it; all others may run at the same time.
    pub after: Vec<StepId>,
    /// What it means for the deployment if it fails for good.
    pub weight: StepWeight,
    /// What is done.
    pub action: Action,
}

impl Step {
    /// The gates that it asks.
    pub fn gates(&self) -> impl Iterator<Item = &GateSpec> {
        match &self.action {
            Action::Ask { gate, .. } => std::slice::from_ref(gate).iter(),
            Action::Hold { gates, .. } => gates.iter(),
            _ => [].iter(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.id, self.action)?;
        if !self.after.is_empty() {
            let after: Vec<String> = self.after.iter().map(ToString::to_string).collect();
            write!(f, " (after {})", after.join(", "))?;
        }
        Ok(())
    }
}

/// What it means if a step fails for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepWeight {
    /// The deployment has failed.
    Required,
    /// The new release serves already: what is left over is reported and cleaned up by a later deployment.
    CleanUp,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Action {
    /// Makes networks, volumes, routes and internal names exist.
    Prepare {
        /// The release that needs them.
        release: ReleaseNumber,
    },
    /// Starts instances until there are so many.
    Launch {
        /// The release to take the service from.
        release: ReleaseNumber,
        /// The revision.
        revision: RevisionId,
        /// How many there shall be.
        instances: u32,
    },
    /// Waits until so many instances are ready.
    AwaitHealthy {
        /// The revision.
        revision: RevisionId,
        /// How many must be ready.
        instances: u32,
        /// When an instance counts as ready, and how long to wait.
        readiness: Readiness,
        /// Whether all others that there are must be ready as well: the platform may have launched more.
        #[serde(default, skip_serializing_if = "is_false")]
        all: bool,
    },
    /// Runs a one-off task to its end.
    RunHook {
        /// The release to take image and environment from.
        release: ReleaseNumber,
        /// The service.
        service: ServiceName,
        /// The task, the same in every attempt.
        task: TaskId,
        /// The hook.
        hook: Hook,
    },
    /// Asks a gate before the revision has traffic.
    Ask {
        /// The revision.
        revision: RevisionId,
        /// The gate.
        gate: GateSpec,
    },
    /// Puts the ready instances of the weighted revisions in rotation and moves the weights.
    Shift {
        /// The service.
        service: ServiceName,
        /// The percentage of new requests for each revision.
        weights: BTreeMap<RevisionId, u8>,
        /// The weights that must be there before; anything else means that somebody interfered.
        expected: Vec<BTreeMap<RevisionId, u8>>,
        /// The release to take the services' ports from, for each revision.
        releases: BTreeMap<RevisionId, ReleaseNumber>,
        /// How many instances of the revision with the most traffic must be ready to take it.
        #[serde(default, skip_serializing_if = "is_zero")]
        instances: u32,
    },
    /// Waits while the revisions have traffic, and asks gates again and again.
    Hold {
        /// The revision that is on trial.
        revision: RevisionId,
        /// The percentage of new requests that it has meanwhile.
        weight: u8,
        /// How long.
        #[serde(with = "millis")]
        duration: Duration,
        /// How many of its instances must stay ready.
        instances: u32,
        /// The gates.
        gates: Vec<GateSpec>,
    },
    /// Takes instances out of rotation, those with the highest ordinals first, and waits for requests in flight.
    Drain {
        /// The release to take the service's ports from.
        release: ReleaseNumber,
        /// The revision.
        revision: RevisionId,
        /// How many instances stay in rotation.
        keep: u32,
        /// How long requests in flight may take.
        #[serde(with = "millis")]
        timeout: Duration,
        /// Whether it must have no traffic: if it has, somebody has interfered.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        idle: bool,
    },
    /// Stops and removes instances, those with the highest ordinals first.
    Reduce {
        /// The revision.
        revision: RevisionId,
        /// How many instances stay.
        keep: u32,
        /// Whether it must have no traffic: if it has, somebody has interfered.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        idle: bool,
    },
    /// Observes that exactly the wanted revisions, with the wanted image digests, serve.
    Verify {
        /// The release.
        release: ReleaseNumber,
        /// How long it may take.
        #[serde(with = "millis")]
        timeout: Duration,
    },
    /// Removes routes and pools that nothing needs any more.
    Tidy {
        /// The release whose routes stay; none, if nothing does.
        release: Option<ReleaseNumber>,
        /// The revisions whose pools stay.
        pools: Vec<RevisionId>,
    },
    /// Stops, starts or removes what another tool has started.
    SetInherited {
        /// The service.
        service: ServiceName,
        /// Which of its instances.
        instances: Vec<Inherited>,
        /// What they shall do.
        state: InheritedState,
    },
    /// Removes what the services shared.
    RemoveApp {
        /// Whether volumes go too.
        volumes: bool,
    },
}

impl Action {
    /// The service it is about, if it is about one.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Launch { revision, .. }
            | Self::AwaitHealthy { revision, .. }
            | Self::Ask { revision, .. }
            | Self::Hold { revision, .. }
            | Self::Drain { revision, .. }
            | Self::Reduce { revision, .. } => Some(revision.service()),
            Self::RunHook { service, .. } | Self::Shift { service, .. } | Self::SetInherited { service, .. } => {
                Some(service)
            }
            Self::Prepare { .. } | Self::Verify { .. } | Self::Tidy { .. } | Self::RemoveApp { .. } => None,
        }
    }

    /// A short stable name, such as `await-healthy`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Prepare { .. } => "prepare",
            Self::Launch { .. } => "launch",
            Self::AwaitHealthy { .. } => "await-healthy",
            Self::RunHook { .. } => "run-hook",
            Self::Ask { .. } => "ask",
            Self::Shift { .. } => "shift",
            Self::Hold { .. } => "hold",
            Self::Drain { .. } => "drain",
            Self::Reduce { .. } => "reduce",
            Self::Verify { .. } => "verify",
            Self::Tidy { .. } => "tidy",
            Self::SetInherited { .. } => "set-inherited",
            Self::RemoveApp { .. } => "remove-app",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepare { .. } => f.write_str("make networks, volumes and routes ready"),
            Self::Launch { revision, instances, .. } => {
                write!(f, "start {revision} until it has {}", count(*instances))
            }
            Self::AwaitHealthy { revision, instances, readiness, all } => {
                let all = if *all { "all and at least " } else { "" };
                write!(f, "wait until {all}{} of {revision} ", count(*instances))?;
                write!(f, "{} ready", if *instances == 1 { "is" } else { "are" })?;
                write!(f, ", at most {}", Human(readiness.deadline))
            }
            Self::RunHook { service, hook, .. } => {
                let point = match hook.point {
                    HookPoint::PreDeploy => "pre-deploy",
                    HookPoint::PostDeploy => "post-deploy",
                    HookPoint::PreStop => "pre-stop",
                };
                write!(f, "run the {point} hook {} of {service}, at most {}", hook.name, Human(hook.timeout))
            }
            Self::Ask { revision, gate } => write!(f, "ask gate {} about {revision}", gate.name),
            Self::Shift { service, weights, .. } => {
                write!(f, "move the traffic of {service}:")?;
                for (index, (revision, weight)) in weights.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma} {weight} % to {}", revision.hash())?;
                }
                Ok(())
            }
            Self::Hold { revision, weight, duration, gates, .. } => {
                write!(f, "hold {} with {weight} % on {revision}", Human(*duration))?;
                if !gates.is_empty() {
                    let names: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
                    write!(f, ", asking {}", names.join(", "))?;
                }
                Ok(())
            }
            Self::Drain { revision, keep, timeout, .. } => {
                write!(f, "take {} out of rotation", rest(revision, *keep))?;
                write!(f, ", at most {} for requests in flight", Human(*timeout))
            }
            Self::Reduce { revision, keep, .. } => write!(f, "stop {}", rest(revision, *keep)),
            Self::Verify { release, .. } => write!(f, "verify that {release} is what serves"),
            Self::Tidy { .. } => f.write_str("remove routes and pools that nothing needs"),
            Self::SetInherited { instances, state, .. } => {
                let names: Vec<&str> = instances.iter().map(|instance| instance.name.as_str()).collect();
                let names = names.join(", ");
                match state {
                    InheritedState::Stopped => write!(f, "stop {names}"),
                    InheritedState::Running => write!(f, "start {names} again"),
                    InheritedState::Removed => write!(f, "remove {names}"),
                }
            }
            Self::RemoveApp { volumes: false } => f.write_str("remove networks"),
            Self::RemoveApp { volumes: true } => f.write_str("remove networks and volumes"),
        }
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn count(instances: u32) -> String {
    if instances == 1 { "1 instance".into() } else { format!("{instances} instances") }
}

fn rest(revision: &RevisionId, keep: u32) -> String {
    if keep == 0 { format!("{revision}") } else { format!("all but {keep} of {revision}") }
}

//! What a backend says about itself before any case runs.

use std::collections::BTreeMap;
use std::fmt;

use deployer_core::TargetRegistration;

/// What a backend under test is and is not, said before any case runs, so that every case that does not apply is listed
/// with the reason.
///
/// What is said about the capabilities is checked by cases of their own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Profile {
    /// The backend's name, the first part of the name of each of its tests: one word.
    pub name: String,
    /// Whether its time is that of a paused runtime, as in a [`World`](crate::World).
    pub simulated: bool,
    /// Who puts instances into pools.
    pub targets: TargetRegistration,
    /// Whether the orchestrator [drains](deployer_core::OrchestratorCapabilities::drains).
    pub drains: bool,
    /// What it has not, and why not.
    pub lacks: BTreeMap<Need, String>,
    /// The cases that are known to fail, and why. Each must really fail: one that passes fails the run.
    pub known_gaps: BTreeMap<String, String>,
}

impl Profile {
    /// A backend in real time that has everything and no known gaps: the engine registers targets and drains them.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            simulated: false,
            targets: TargetRegistration::Engine,
            drains: false,
            lacks: BTreeMap::new(),
            known_gaps: BTreeMap::new(),
        }
    }

    /// Runs every case on a runtime whose time is paused.
    #[must_use]
    pub fn simulated(mut self) -> Self {
        self.simulated = true;
        self
    }

    /// Says who puts instances into pools.
    #[must_use]
    pub fn with_targets(mut self, targets: TargetRegistration) -> Self {
        self.targets = targets;
        self
    }

    /// Says that the orchestrator drains by itself.
    #[must_use]
    pub fn draining(mut self) -> Self {
        self.drains = true;
        self
    }

    /// Says what it has not, and why not: cases that need it do not apply.
    #[must_use]
    pub fn lacking(mut self, need: Need, reason: impl Into<String>) -> Self {
        self.lacks.insert(need, reason.into());
        self
    }

    /// Says that the case with this id fails, and why.
    #[must_use]
    pub fn known_gap(mut self, case: impl Into<String>, reason: impl Into<String>) -> Self {
        self.known_gaps.insert(case.into(), reason.into());
        self
    }
}

/// Something that not every backend, or not every bench for it, has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Need {
    /// A store that other processes can open.
    Processes,
    /// A store that can tell that the process which held a lease is dead.
    OwnerDeath,
    /// A bench that can damage what a store keeps.
    Damage,
    /// A builder of images.
    Builds,
    /// Requests between services of an application, by the service's name.
    InternalNames,
    /// Ports of the host that the balancer publishes.
    PublishedPorts,
    /// Volumes that outlive the instances.
    Volumes,
    /// Counters of requests in the balancer's pools.
    Counters,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Processes => "other processes",
            Self::OwnerDeath => "knowledge of dead owners",
            Self::Damage => "damage",
            Self::Builds => "builder",
            Self::InternalNames => "internal names",
            Self::PublishedPorts => "published ports",
            Self::Volumes => "volumes",
            Self::Counters => "counters",
        })
    }
}

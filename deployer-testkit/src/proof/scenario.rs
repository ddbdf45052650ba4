//! What is played.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deployer_core::{AppSpec, DeployerBuilder, ReleaseNumber};

use crate::world::traffic::Traffic;
use crate::world::{Options, World};

type Arrange = Arc<dyn Fn(&World) + Send + Sync>;
type Equip = Arc<dyn Fn(DeployerBuilder, &World) -> DeployerBuilder + Send + Sync>;

/// What somebody does with an application.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Act {
    /// Deploys a spec.
    Deploy {
        /// The spec.
        spec: Box<AppSpec>,
        /// Whether a deployment that is under way is superseded.
        supersede: bool,
    },
    /// Rolls back: to the last known good release, or to this one.
    Rollback(Option<ReleaseNumber>),
    /// Removes everything, with the volumes.
    Destroy,
    /// Asks what is under way to stop.
    Cancel,
    /// Lets what is under way pass its approval gates.
    Promote,
}

impl Act {
    /// Deploys a spec.
    #[must_use]
    pub fn deploy(spec: AppSpec) -> Self {
        Self::Deploy { spec: Box::new(spec), supersede: false }
    }

    /// Deploys a spec, from where another deployment is stopped.
    #[must_use]
    pub fn supersede(spec: AppSpec) -> Self {
        Self::Deploy { spec: Box::new(spec), supersede: true }
    }
}

/// A story about one application: what there is before, what is done, and what is promised meanwhile.
#[derive(Clone)]
#[must_use]
pub struct Scenario {
    pub(super) name: String,
    pub(super) app: String,
    pub(super) options: Options,
    pub(super) arrange: Arrange,
    pub(super) equip: Equip,
    pub(super) beside: Vec<AppSpec>,
    pub(super) served: Vec<AppSpec>,
    pub(super) act: Act,
    pub(super) meanwhile: Vec<(Duration, Act)>,
    pub(super) ends: Vec<&'static str>,
    pub(super) traffic: Vec<Traffic>,
    pub(super) lossless: bool,
    pub(super) capacity: BTreeMap<String, u32>,
}

impl Scenario {
    /// A scenario with this application in a world with these images and behaviours. Nothing is there before, nothing is
    /// done, and it ends promoted.
    pub fn new(
        name: impl Into<String>,
        app: impl Into<String>,
        arrange: impl Fn(&World) + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            app: app.into(),
            options: Options::default(),
            arrange: Arc::new(arrange),
            equip: Arc::new(|builder, _| builder),
            beside: Vec::new(),
            served: Vec::new(),
            act: Act::Destroy,
            meanwhile: Vec::new(),
            ends: vec!["promoted"],
            traffic: Vec::new(),
            lossless: true,
            capacity: BTreeMap::new(),
        }
    }

    /// Sets what kind of world it is.
    pub fn in_world(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Adds something to every deployer: gates, secrets.
    pub fn equip(mut self, equip: impl Fn(DeployerBuilder, &World) -> DeployerBuilder + Send + Sync + 'static) -> Self {
        self.equip = Arc::new(equip);
        self
    }

    /// Deploys another application before, which nobody may touch from then on.
    pub fn beside(mut self, spec: AppSpec) -> Self {
        self.beside.push(spec);
        self
    }

    /// Deploys this before, undisturbed; several are deployed one after the other. The last one serves.
    pub fn serving(mut self, spec: AppSpec) -> Self {
        self.served.push(spec);
        self
    }

    /// Sets what is done.
    pub fn then(mut self, act: Act) -> Self {
        self.act = act;
        self
    }

    /// Lets another process do something as well, so long after the beginning.
    pub fn meanwhile(mut self, after: Duration, act: Act) -> Self {
        self.meanwhile.push((after, act));
        self
    }

    /// Sets the verdict in which it ends when nothing disturbs it, such as `rolled-back`.
    pub fn ending(self, verdict: &'static str) -> Self {
        self.ending_any([verdict])
    }

    /// Sets the verdicts in which it may end, with faults that a deployer gets over as well as without: who comes first
    /// decides.
    pub fn ending_any(mut self, verdicts: impl IntoIterator<Item = &'static str>) -> Self {
        self.ends = verdicts.into_iter().collect();
        self
    }

    /// Sends these requests from the beginning to the end. None of them may be lost.
    pub fn under(mut self, traffic: Traffic) -> Self {
        self.traffic.push(traffic);
        self
    }

    /// Requests may be lost: a strategy with downtime.
    pub fn losing_requests(mut self) -> Self {
        self.lossless = false;
        self
    }

    /// Promises that so many instances of a service serve at any moment.
    pub fn keeping(mut self, service: impl Into<String>, instances: u32) -> Self {
        self.capacity.insert(service.into(), instances);
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario").field("name", &self.name).finish_non_exhaustive()
    }
}

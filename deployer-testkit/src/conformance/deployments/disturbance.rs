//! What disturbs a deployment.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deployer_core::{
    AppSpec, CallInfo, DeployOptions, Deployer, Deployment, DeploymentRecord, ErrorKind, Intercept, Next, Verdict,
};
use tokio::sync::mpsc;

use crate::conformance::case::{CaseFailure, CaseResult};
use crate::conformance::client::Client;
use crate::conformance::ground::Ground;
use crate::conformance::site::Entrance;
use crate::faults::{At, Fault, FaultPlan, Schedule};
use crate::world::random::Random;

/// How long a lease holds: how long a case waits to go on with what a crash has left. Long enough for a machine under
/// load to renew it in time.
const LEASE: Duration = Duration::from_secs(5);

/// Under which conditions a story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Nothing disturbs it.
    Calm,
    /// Faults strike at the engine's calls: before their effect, after it, twice, and once the deployer itself dies.
    Faults,
    /// Instances are killed.
    Kills,
}

/// One application and whoever deploys it, under some condition.
pub(super) struct Stage<'a> {
    pub(super) ground: &'a Ground,
    pub(super) condition: Condition,
    plans: std::cell::RefCell<Vec<String>>,
    random: std::cell::RefCell<Random>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(ground: &'a Ground, condition: Condition) -> Self {
        let random = std::cell::RefCell::new(Random::seeded(ground.seed));
        Self { ground, condition, plans: std::cell::RefCell::default(), random }
    }

    /// A deployer that nothing disturbs.
    pub(super) fn deployer(&self) -> Deployer {
        self.deployer_with(None)
    }

    fn deployer_with(&self, intercept: Option<Arc<dyn Intercept>>) -> Deployer {
        let builder = Deployer::builder(self.ground.backend.clone());
        let builder = builder.clock(self.ground.scope.clock()).lease_ttl(LEASE).owner("the conformance suite");
        match intercept {
            Some(intercept) => builder.intercept(intercept).build(),
            None => builder.build(),
        }
    }

    /// Deploys a spec with nothing in the way: what the story begins with.
    pub(super) async fn begin_with(&self, spec: AppSpec) -> CaseResult {
        let record = self.deployer().deploy(spec, DeployOptions::default()).finished().await?;
        expect_promoted(&record)
    }

    /// Deploys a spec under the stage's condition, towards a verdict of this word.
    pub(super) async fn deploy(&self, spec: AppSpec, word: &str) -> CaseResult<DeploymentRecord> {
        self.drive(|deployer| deployer.deploy(spec.clone(), DeployOptions::default()), word).await
    }

    /// Brings a deployment to its verdict, whatever disturbs it. One whose deployer dies is resumed by another.
    pub(super) async fn drive(
        &self,
        begin: impl Fn(&Deployer) -> Deployment,
        word: &str,
    ) -> CaseResult<DeploymentRecord> {
        let driven = match self.condition {
            Condition::Calm => begin(&self.deployer()).finished().await.map_err(CaseFailure::from),
            Condition::Faults => self.drive_through_faults(begin).await,
            Condition::Kills => self.drive_through_kills(begin, word).await,
        };
        driven.map_err(|failure| failure.while_trying_to(self))
    }

    async fn drive_through_faults(&self, begin: impl Fn(&Deployer) -> Deployment) -> CaseResult<DeploymentRecord> {
        let plan = FaultPlan::from(self.schedule());
        self.plans.borrow_mut().push(plan.to_string());
        let before = self.last_record().await?.map(|record| record.id);
        let mut process = plan.process();
        let mut deployment = begin(&self.deployer_with(Some(process.shared())));
        loop {
            let ended = tokio::select! {
                biased;
                () = process.crashed() => None,
                record = deployment.finished() => Some(record),
            };
            let failed = match ended {
                Some(Ok(record)) => return Ok(record),
                // What could not be got over in one run is gone on with in another.
                Some(Err(error)) => Some(error),
                None => None,
            };
            process = plan.process();
            let heir = self.deployer_with(Some(process.shared()));
            let resumed = self.resumed(&heir).await?;
            deployment = match (resumed, failed) {
                (Some(deployment), _) => deployment,
                // The dead one's lease has to end first.
                (None, Some(error)) if error.kind() == ErrorKind::Busy => {
                    self.ground.scope.clock().sleep(LEASE / 5).await;
                    begin(&heir)
                }
                (None, Some(error)) if !matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable) => {
                    return Err(error.into());
                }
                // It had not begun, or its end was written down and not heard of.
                (None, _) => match self.last_record().await? {
                    Some(record) if Some(&record.id) != before.as_ref() => return Ok(record),
                    _ => begin(&heir),
                },
            };
        }
    }

    async fn last_record(&self) -> CaseResult<Option<DeploymentRecord>> {
        Ok(self.deployer().history(&self.ground.app()).await?.into_iter().next())
    }

    /// Goes on with what has no verdict, through faults that strike at looking for it as well.
    async fn resumed(&self, heir: &Deployer) -> CaseResult<Option<Deployment>> {
        for _ in 0..5 {
            match heir.resume(&self.ground.app()).await {
                Ok(resumed) => return Ok(resumed),
                Err(error) if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err("a deployment cannot be resumed".into())
    }

    /// Faults that a deployer must get over: those that are over at once, at chosen calls of a deployment, and one death.
    fn schedule(&self) -> Schedule {
        let mut random = self.random.borrow_mut();
        let kinds = [
            Fault::before(ErrorKind::Unavailable),
            Fault::before(ErrorKind::Throttled),
            Fault::lost_request(),
            Fault::lost_reply(),
            Fault::after(ErrorKind::Unavailable),
            Fault::Twice,
        ];
        let mut schedule = Schedule::new();
        // Far enough apart that no call needs more attempts than it has.
        for stretch in 0..8_u64 {
            let call = stretch * 12 + random.below(8) as u64 + 4;
            schedule = schedule.with(At::Call(call), kinds[random.below(kinds.len())]);
        }
        let death = if random.below(2) == 0 { Fault::CrashBefore } else { Fault::CrashAfter };
        let step =
            ["orchestrator.launch", "balancer.ensure", "balancer.set_weights", "orchestrator.observe", "store.append"];
        schedule.with(At::operation(step[random.below(step.len())], 1 + random.below(2) as u64), death)
    }

    async fn drive_through_kills(
        &self,
        begin: impl Fn(&Deployer) -> Deployment,
        word: &str,
    ) -> CaseResult<DeploymentRecord> {
        let (told, mut calls) = mpsc::unbounded_channel();
        let deployer = self.deployer_with(Some(Arc::new(Tell(told))));
        let deployment = begin(&deployer);
        let killing = async {
            let mut left = 3;
            let mut next = 5 + self.random.borrow_mut().below(15);
            while let Some(call) = calls.recv().await {
                next = next.saturating_sub(1);
                if next > 0 || left == 0 {
                    continue;
                }
                let running: Vec<_> =
                    self.ground.seen().await?.instances.into_iter().filter(|seen| seen.running).collect();
                if running.is_empty() {
                    continue;
                }
                let victim = &running[self.random.borrow_mut().below(running.len())];
                self.plans.borrow_mut().push(format!("{} {} killed at {call}", victim.revision, victim.ordinal));
                self.ground.scope.kill(&victim.id).await?;
                left -= 1;
                next = 5 + self.random.borrow_mut().below(15);
            }
            Ok::<(), CaseFailure>(())
        };
        // The deployer must go too, or its hook would keep the channel open.
        let driving = async {
            let record = deployment.finished().await;
            drop(deployer);
            record
        };
        let (record, killed) = tokio::join!(driving, killing);
        killed?;
        let record = record?;
        let found = record.verdict.as_ref().map_or("none", Verdict::word);
        if found == word || self.plans.borrow().is_empty() {
            return Ok(record);
        }
        // An instance that is killed when what serves is verified is missed there, and the verdict says so. It must have
        // left nothing that another run cannot bring to the end.
        self.plans.borrow_mut().push(format!("then undisturbed after the verdict {found}"));
        Ok(begin(&self.deployer()).finished().await?)
    }

    /// Begins to send requests.
    pub(super) fn client(&self, entrance: Entrance) -> Client {
        Client::start(&self.ground.scope, entrance)
    }
}

impl fmt::Display for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.condition {
            Condition::Calm => f.write_str("undisturbed"),
            Condition::Faults => write!(f, "with faults ({})", self.plans.borrow().join("; then ")),
            Condition::Kills => write!(f, "with kills ({})", self.plans.borrow().join("; ")),
        }
    }
}

/// Tells of every call.
#[derive(Debug)]
struct Tell(mpsc::UnboundedSender<String>);

#[async_trait::async_trait]
impl Intercept for Tell {
    async fn intercept(&self, call: &CallInfo, next: &mut Next<'_>) -> deployer_core::Result<()> {
        // Nobody listens any more when all is over.
        let _ = self.0.send(format!("{} of {}", call.operation, call.resource));
        next.run().await
    }
}

pub(super) fn expect_promoted(record: &DeploymentRecord) -> CaseResult {
    match &record.verdict {
        Some(Verdict::Promoted { leftovers }) if leftovers.is_empty() => Ok(()),
        Some(verdict) => Err(CaseFailure::new(format!("it should be promoted, with nothing left over: {verdict}"))),
        None => Err("it has no verdict".into()),
    }
}

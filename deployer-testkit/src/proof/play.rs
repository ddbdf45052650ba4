//! One run of a scenario, from its beginning to a verdict.

use std::pin::pin;
use std::time::Duration;

use deployer_core::{
    AppName, CallInfo, DeployOptions, Deployer, Deployment, DeploymentRecord, ErrorKind, Release, Result,
};

use super::scenario::{Act, Scenario};
use super::{Played, check};
use crate::clock::simulate;
use crate::faults::{Fault, FaultPlan, Process, Schedule};
use crate::world::World;
use crate::world::shape::Shape;

/// How long a lease holds in the runs.
const TTL: Duration = Duration::from_secs(15);
/// How often somebody goes on with what was left without a verdict.
const HEIRS: u32 = 12;
/// After so much time no request is under way any more, and nothing that was left to itself changes.
const SETTLED: Duration = Duration::from_secs(90);

/// Takes lines of a timeline.
pub(super) type Tell<'a> = Option<&'a mut dyn FnMut(String)>;

/// A scenario that is ready to be played: what there is before it, and what comes of it undisturbed.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) app: AppName,
    world: World,
    pub(super) before: Shape,
    /// What the other applications have.
    pub(super) beside: Vec<(AppName, String)>,
    pub(super) undisturbed: Undisturbed,
}

/// What comes of a scenario that nothing disturbs.
#[derive(Debug, Default)]
pub(super) struct Undisturbed {
    pub(super) calls: Vec<CallInfo>,
    pub(super) after: Shape,
    pub(super) verdict: String,
    /// How often hooks ran, with those that ran before the scenario began.
    pub(super) hooks: std::collections::BTreeMap<String, u32>,
}

/// A run that has come to its end, to be looked at.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) world: World,
    pub(super) schedule: Schedule,
    /// What the one got who did what the scenario is about; nothing, if its process was killed.
    pub(super) answer: Option<Result<()>>,
    /// The deployments of the run, oldest first.
    pub(super) records: Vec<DeploymentRecord>,
    /// All releases that are kept, newest first.
    pub(super) releases: Vec<Release>,
    pub(super) problems: Vec<String>,
    /// What was there when the verdict was said; prune may have cleared away since.
    pub(super) shape: Shape,
}

impl<'a> Stage<'a> {
    /// Arranges the world of a scenario, and plays it undisturbed.
    pub(super) fn set(scenario: &'a Scenario) -> (Self, Played) {
        let app: AppName = match scenario.app.parse() {
            Ok(app) => app,
            Err(error) => panic!("{}: {error}", scenario.name),
        };
        let world = World::with_options(scenario.options.clone());
        (scenario.arrange)(&world);
        simulate(async {
            for spec in scenario.beside.iter().chain(&scenario.served) {
                let deployer = (scenario.equip)(builder(&world, "before"), &world).build();
                let record = deployer.deploy(spec.clone(), DeployOptions::default()).finished().await;
                let promoted = record.as_ref().is_ok_and(|it| it.verdict.as_ref().is_some_and(|it| it.is_promoted()));
                assert!(promoted, "{}: what is to serve before is not promoted: {record:?}", scenario.name);
            }
        });
        let before = world.shape(app.as_str());
        let others = scenario.beside.iter().map(|spec| (spec.name.clone(), world.belongings(&spec.name)));
        let beside = others.collect();
        let mut stage = Self { scenario, app, world, before, beside, undisturbed: Undisturbed::default() };
        let plan = FaultPlan::new();
        let ended = simulate(stage.act_out(&plan, &mut None));
        stage.undisturbed = Undisturbed {
            calls: plan.calls(),
            after: ended.shape.clone(),
            verdict: ended.verdict().to_owned(),
            hooks: ended.world.executions_by_hook(stage.app.as_str()),
        };
        let played = stage.judge(&ended);
        (stage, played)
    }

    pub(super) fn name(&self) -> &str {
        &self.scenario.name
    }

    /// The calls that are made when nothing disturbs.
    pub(super) fn calls(&self) -> &[CallInfo] {
        &self.undisturbed.calls
    }

    /// Plays the scenario with these faults.
    pub(super) fn play(&self, schedule: Schedule) -> Played {
        self.play_telling(schedule, None)
    }

    pub(super) fn play_telling(&self, schedule: Schedule, mut tell: Tell<'_>) -> Played {
        simulate(async {
            let plan = FaultPlan::from(schedule);
            let ended = self.act_out(&plan, &mut tell).await;
            if let Some(tell) = &mut tell {
                for call in plan.calls() {
                    tell(format!("call {:>4} {} {}", call.number, call.operation, call.resource));
                }
                for record in &ended.records {
                    tell(format!("deployment {}", record.id));
                    for entry in ended.world.backend().store.journal(&record.id, 1).await.unwrap_or_default() {
                        tell(format!("  {} {}", entry.at, entry.event));
                    }
                }
                tell(ended.world.describe());
            }
            self.judge(&ended)
        })
    }

    fn judge(&self, ended: &Ended) -> Played {
        let requests = ended.world.traffic_report().sent;
        Played { what: check::all(self, ended), verdict: ended.verdict().to_owned(), requests }
    }

    async fn act_out(&self, plan: &FaultPlan, tell: &mut Tell<'_>) -> Ended {
        let world = self.world.fork();
        let plan = plan.clone().in_world(&world, self.app.as_str());
        for traffic in &self.scenario.traffic {
            world.start_traffic(traffic.clone());
        }
        world.watch_capacity();
        let known = self.records(&world).await.len();
        let mut problems = Vec::new();

        let mut others = tokio::task::JoinSet::new();
        for (after, act) in self.scenario.meanwhile.clone() {
            let (process, world, scenario, app) =
                (plan.process(), world.clone(), self.scenario.clone(), self.app.clone());
            others.spawn(async move {
                world.clock().sleep(after).await;
                perform(&scenario, &app, &world, &process, &act, "another").await
            });
        }
        let answer = self.act_and_inherit(&world, &plan).await;
        while others.join_next().await.is_some() {}

        self.converge(&world, &plan, &mut problems, tell).await;
        let superseded =
            self.records(&world).await.pop().is_some_and(|it| it.verdict.is_some_and(|it| it.word() == "superseded"));
        if let (true, Some((_, act))) = (superseded, self.scenario.meanwhile.last()) {
            // Whoever stopped the other and then died comes again.
            self.try_again(act, &world, &plan, &mut problems).await;
        }
        if self.records(&world).await.len() == known {
            // Nothing was begun: whoever wanted it tries again.
            if plan.schedule().any(|fault| *fault == Fault::KillInstance) {
                // What somebody killed is on its way back.
                world.clock().sleep(SETTLED).await;
            }
            if !plan.schedule().any(|fault| *fault == Fault::MoveWeights) {
                problems.extend(check::untouched(self, &world));
            }
            if let Some(Ok(())) = &answer {
                problems.push("it was said to be done, and there is no record of it".to_owned());
            }
            self.try_again(&self.scenario.act, &world, &plan, &mut problems).await;
        }
        world.stop_traffic();
        world.clock().sleep(SETTLED).await;
        let shape = world.shape(self.app.as_str());
        let records = self.records(&world).await.split_off(known);
        let releases = builder(&world, "looker").build().releases(&self.app, 1_000).await.unwrap_or_default();
        Ended { world, schedule: plan.schedule(), answer, records, releases, problems, shape }
    }

    /// Does what the scenario is about. Whoever waits for the lease gets it while its holder stands still.
    async fn act_and_inherit(&self, world: &World, plan: &FaultPlan) -> Option<Result<()>> {
        let process = plan.process();
        let heir = async {
            process.paused().await;
            let _ = self.resume(world, &plan.process()).await;
        };
        let first = perform(self.scenario, &self.app, world, &process, &self.scenario.act, "first");
        let (mut first, mut heir) = (pin!(first), pin!(heir));
        let (done, inherited) = tokio::select! {
            biased;
            done = &mut first => (done, false),
            () = &mut heir => (first.await, true),
        };
        if !inherited && process.has_paused() {
            heir.await;
        }
        if done.is_none() && plan.calls().len().is_multiple_of(2) {
            // Every second killed process was on a host whose store can tell.
            world.store().declare_holder_dead(self.app.as_str());
        }
        done
    }

    /// All deployments, oldest first.
    async fn records(&self, world: &World) -> Vec<DeploymentRecord> {
        let mut records = builder(world, "looker").build().history(&self.app).await.unwrap_or_default();
        records.reverse();
        records
    }

    /// Lets one process after the other go on with what has no verdict.
    async fn converge(&self, world: &World, plan: &FaultPlan, problems: &mut Vec<String>, tell: &mut Tell<'_>) {
        for _ in 0..HEIRS {
            let process = plan.process();
            match self.resume(world, &process).await {
                Some(Ok(false)) => return,
                Some(Ok(true)) => {}
                Some(Err(error)) => {
                    if let Some(tell) = tell {
                        tell(format!("an heir failed: {error}"));
                    }
                    world.clock().sleep(TTL).await;
                }
                None => world.clock().sleep(TTL).await,
            }
        }
        problems.push(format!("there is no verdict after {HEIRS} processes went on with it"));
    }

    /// Goes on with what has no verdict, and answers whether there was anything; nothing, if the process was killed.
    async fn resume(&self, world: &World, process: &Process) -> Option<Result<bool>> {
        let deployer = equipped(self.scenario, world, process, "heir");
        let resumed = async {
            match deployer.resume(&self.app).await? {
                None => Ok(false),
                Some(deployment) => deployment.finished().await.map(|_| true),
            }
        };
        tokio::select! {
            biased;
            () = process.crashed() => None,
            done = resumed => Some(done),
        }
    }

    /// Does it again, as people do whose first attempt came to nothing.
    async fn try_again(&self, act: &Act, world: &World, plan: &FaultPlan, problems: &mut Vec<String>) {
        let known = self.records(world).await.len();
        for _ in 0..HEIRS {
            // A lease that was left behind has expired then.
            world.clock().sleep(TTL).await;
            let process = plan.process();
            match perform(self.scenario, &self.app, world, &process, act, "again").await {
                Some(Ok(())) => return,
                Some(Err(error)) if error.kind() == ErrorKind::Busy => {}
                Some(Err(_)) | None => self.converge(world, plan, problems, &mut None).await,
            }
            if self.records(world).await.len() > known {
                // It was begun, and has its verdict: what it wanted need not be possible once more.
                return;
            }
        }
        problems.push("it came to nothing however often it was tried".to_owned());
    }
}

impl Ended {
    /// The last verdict, in a word.
    pub(super) fn verdict(&self) -> &'static str {
        let verdict = self.records.last().and_then(|record| record.verdict.as_ref());
        verdict.map_or("none", |verdict| verdict.word())
    }
}

/// Does something in a process of its own; answers nothing if the process was killed.
async fn perform(
    scenario: &Scenario,
    app: &AppName,
    world: &World,
    process: &Process,
    act: &Act,
    owner: &str,
) -> Option<Result<()>> {
    let deployer = equipped(scenario, world, process, owner);
    let finished = |deployment: Deployment| async { deployment.finished().await.map(drop) };
    let done = async {
        match act.clone() {
            Act::Deploy { spec, supersede } => {
                let mut options = DeployOptions::default();
                options.supersede = supersede;
                finished(deployer.deploy(*spec, options)).await
            }
            Act::Rollback(to) => finished(deployer.rollback(app, to)).await,
            Act::Destroy => finished(deployer.destroy(app, true)).await,
            Act::Cancel => deployer.cancel(app, "an operator").await.map(drop),
            Act::Promote => deployer.promote(app, "an operator").await.map(drop),
        }
    };
    tokio::select! {
        biased;
        () = process.crashed() => None,
        done = done => Some(done),
    }
}

fn builder(world: &World, owner: &str) -> deployer_core::DeployerBuilder {
    Deployer::builder(world.backend()).clock(world.clock()).owner(owner).lease_ttl(TTL)
}

fn equipped(scenario: &Scenario, world: &World, process: &Process, owner: &str) -> Deployer {
    (scenario.equip)(builder(world, owner).intercept(process.shared()), world).build()
}

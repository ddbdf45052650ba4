//! Every branch of the journal's table is taken: each legal transition and each refusal, counted over deployments in the
//! simulated world and over generated histories.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deployer_core::{
    AppSpec, CanaryStep, DeployOptions, Deployer, Entry, Error, ErrorKind, Gate, GateAnswer, GateCheck, GatePoint,
    GateQuestion, GateSpec, OnInconclusive, Refusal, Result, ServiceSpec, State, Strategy, Transition, Verdict,
};
use deployer_testkit::{At, Behaviour, Fault, FaultPlan, World, simulate};
use proptest::collection::vec;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use crate::properties::histories::{damage, damaged, history};
use crate::shop::{app, deploy, deploy_well, only, web, world};

const SECOND: Duration = Duration::from_secs(1);

/// A gate that runs through every kind of answer.
#[derive(Debug)]
struct Moody(std::sync::Mutex<u32>);

#[async_trait]
impl Gate for Moody {
    async fn ask(&self, _: GateQuestion) -> Result<GateAnswer> {
        let mut asked = self.0.lock().unwrap();
        *asked += 1;
        let detail = format!("question {asked}");
        match *asked {
            1 => Ok(GateAnswer::Inconclusive { detail }),
            2 => Ok(GateAnswer::Fail { detail }),
            3 => Err(Error::new(ErrorKind::Unavailable, "the metrics do not answer")),
            _ => Ok(GateAnswer::Pass { detail }),
        }
    }
}

fn canary() -> Strategy {
    Strategy::Canary { steps: vec![CanaryStep { weight: 20, hold: 60 * SECOND }] }
}

fn under(world: &World, plan: &FaultPlan) -> Deployer {
    Deployer::builder(world.backend()).clock(world.clock()).intercept(plan.process().shared()).build()
}

/// The journals of deployments that take every turn a deployment can take.
fn simulated() -> Vec<Vec<Entry>> {
    let mut journals = Vec::new();
    let mut keep = |world: &World, deployer: &Deployer| {
        journals.extend(simulate(async {
            let _ = world;
            let mut found = Vec::new();
            for record in deployer.history(&app()).await.unwrap() {
                found.push(deployer.journal(&record.id).await.unwrap());
            }
            found
        }));
    };

    // Calls that fail and are made again, and a gate that cannot make up its mind.
    let (shop, _) = world();
    let faults = FaultPlan::new().with(At::operation("orchestrator.launch", 1), Fault::before(ErrorKind::Unavailable));
    let moody = Arc::new(Moody(std::sync::Mutex::new(0)));
    let deployer = Deployer::builder(shop.backend())
        .clock(shop.clock())
        .gate("moody", moody)
        .intercept(faults.process().shared())
        .build();
    simulate(async {
        let check = GateCheck::Callback { name: "moody".into() };
        let gate = GateSpec::new("moody", GatePoint::BeforeTraffic, check)
            .with_failures_allowed(1)
            .with_on_inconclusive(OnInconclusive::Proceed);
        deploy_well(&deployer, only(web(1).with_gate(gate))).await;
    });
    keep(&shop, &deployer);

    // Killed while it holds and resumed; approved by somebody; stopped in favour of another one.
    let (shop, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        let doomed = deployer.deploy(only(web(2).with_strategy(canary())), DeployOptions::default());
        shop.clock().sleep(20 * SECOND).await;
        drop(doomed);
        let heir = deployer.resume(&app()).await.unwrap().unwrap();
        assert!(heir.finished().await.unwrap().verdict.unwrap().is_promoted());

        let approval = GateSpec::new("approval", GatePoint::Holding, GateCheck::Approval { timeout: 600 * SECOND });
        let asking = deployer.deploy(only(web(3).with_gate(approval)), DeployOptions::default());
        shop.clock().sleep(30 * SECOND).await;
        deployer.promote(&app(), "ann").await.unwrap();
        assert!(asking.finished().await.unwrap().verdict.unwrap().is_promoted());

        let first = deployer.deploy(only(web(4).with_strategy(canary())), DeployOptions::default());
        shop.clock().sleep(20 * SECOND).await;
        let second = deployer.deploy(only(web(5)), DeployOptions::default().superseding());
        assert!(second.finished().await.unwrap().verdict.unwrap().is_promoted());
        assert_eq!(first.finished().await.unwrap().verdict.unwrap().word(), "superseded");
    });
    keep(&shop, &deployer);

    // Rolled back, cancelled, and killed after it was verified.
    let (shop, deployer) = world();
    simulate(async {
        deploy_well(&deployer, only(web(1))).await;
        shop.on_image("web:v2", Behaviour::crash_loop(1));
        assert_eq!(deploy(&deployer, only(web(2))).await.word(), "rolled-back");
        let cancelled = deployer.deploy(only(web(3).with_strategy(canary())), DeployOptions::default());
        shop.clock().sleep(20 * SECOND).await;
        cancelled.cancel("ann");
        assert_eq!(cancelled.finished().await.unwrap().verdict, Some(Verdict::Cancelled { by: "ann".into() }));

        // Its first call to stop anything comes after the release is verified.
        let faults = FaultPlan::new().with(At::operation("orchestrator.reduce", 1), Fault::CrashBefore);
        let process = faults.process();
        let doomed = Deployer::builder(shop.backend()).clock(shop.clock()).intercept(process.shared()).build();
        let killed = doomed.deploy(only(web(4)), DeployOptions::default());
        process.crashed().await;
        drop(killed);
        shop.clock().sleep(60 * SECOND).await;
        deploy_well(&deployer, only(web(5))).await;
    });
    keep(&shop, &deployer);

    // What cannot be brought back, and what cannot be removed.
    let (shop, deployer) = world();
    simulate(async {
        let recreate = |version| only(web(version).with_strategy(Strategy::Recreate));
        deploy_well(&deployer, recreate(1)).await;
        shop.on_image("web:v1", Behaviour::crash_loop(2));
        shop.on_image("web:v2", Behaviour::crash_loop(1));
        assert_eq!(deploy(&deployer, recreate(2)).await.word(), "needs-attention");
    });
    keep(&shop, &deployer);
    let (shop, _) = world();
    let denied = Fault::before(ErrorKind::PermissionDenied);
    let deployer = under(&shop, &FaultPlan::new().with(At::operation("orchestrator.remove_app", 1), denied));
    simulate(async {
        let spec = AppSpec::new("shop").unwrap().with_service("worker", ServiceSpec::image("worker:v1")).unwrap();
        deploy_well(&deployer, spec).await;
        let verdict = deployer.destroy(&app(), false).finished().await.unwrap().verdict.unwrap();
        assert_eq!(verdict.word(), "needs-attention");
    });
    keep(&shop, &deployer);
    journals
}

/// Histories of the model, half of them damaged.
fn generated() -> Vec<Vec<Entry>> {
    let mut runner = TestRunner::deterministic();
    let strategy = (history(), vec(damage(), 0..3), proptest::bool::weighted(0.8));
    let histories = (0..4_000).map(|_| {
        let (entries, damages, renumber) = strategy.new_tree(&mut runner).unwrap().current();
        damaged(entries, &damages, renumber)
    });
    histories.collect()
}

/// How often each branch was taken.
#[derive(Default)]
struct Counts {
    taken: BTreeMap<Transition, u64>,
    refused: BTreeMap<Refusal, u64>,
}

impl Counts {
    fn count(&mut self, entries: &[Entry]) {
        let mut state: Option<State> = None;
        for entry in entries {
            match Transition::of(state.as_ref(), entry) {
                Ok(transition) => *self.taken.entry(transition).or_default() += 1,
                Err(refusal) => {
                    *self.refused.entry(refusal).or_default() += 1;
                    return;
                }
            }
            match &mut state {
                None => state = Some(State::open(entry).unwrap()),
                Some(state) => state.apply(entry).unwrap(),
            }
        }
    }
}

#[test]
fn every_branch_of_the_table_is_taken() {
    let mut simulations = Counts::default();
    simulated().iter().for_each(|journal| simulations.count(journal));
    let mut histories = Counts::default();
    generated().iter().for_each(|history| histories.count(history));
    println!("{:<55} {:>12} {:>12}", "transition", "simulated", "generated");
    let mut never: Vec<String> = Vec::new();
    for transition in Transition::ALL {
        let of = |counts: &Counts| counts.taken.get(transition).copied().unwrap_or(0);
        let (simulated, generated) = (of(&simulations), of(&histories));
        println!("{:<55} {simulated:>12} {generated:>12}", transition.name());
        if generated == 0 {
            never.push(format!("{transition} by a generated history"));
        }
        // The engine tries again whatever waits for its next attempt: it never gives up in between.
        if simulated == 0 && *transition != Transition::GiveUpStep {
            never.push(format!("{transition} by a simulated deployment"));
        }
    }
    for refusal in Refusal::ALL {
        let refused = histories.refused.get(refusal).copied().unwrap_or(0);
        println!("{:<55} {:>12} {refused:>12}", format!("refused: {refusal}"), "");
        if refused == 0 {
            never.push(format!("refused: {refusal}"));
        }
    }
    assert!(simulations.refused.is_empty(), "the engine wrote what it may not: {:?}", simulations.refused);
    assert!(never.is_empty(), "never taken: {}", never.join(", "));
}

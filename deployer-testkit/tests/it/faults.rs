//! Scripted faults.

use std::time::Duration;

use async_trait::async_trait;
use deployer_core::{CallInfo, Effect, ErrorKind, Intercept, Invocation, Next, Result};
use deployer_testkit::{At, Fault, FaultPlan, Process, simulate};
use tokio::time::timeout;

const HOUR: Duration = Duration::from_secs(3_600);

/// Counts how often a call has had its effect.
#[derive(Default)]
struct Effects(u32);

#[async_trait]
impl Invocation for Effects {
    async fn invoke(&mut self) -> Result<()> {
        self.0 += 1;
        Ok(())
    }
}

/// Stands for the engine: one call with the hook around it; answers what the engine sees, and counts the effect.
async fn call(process: &Process, operation: &'static str, effects: &mut Effects) -> Result<()> {
    let info = CallInfo::new(1, operation, "web", true);
    process.intercept(&info, &mut Next::new(effects)).await
}

#[test]
fn each_fault_strikes_once_at_its_call() {
    simulate(async {
        let plan = FaultPlan::new()
            .with(At::Call(2), Fault::before(ErrorKind::Throttled))
            .with(At::operation("launch", 2), Fault::lost_reply())
            .with(At::Call(5), Fault::Twice)
            .with(At::operation("reduce", 9), Fault::lost_request());
        let process = plan.process();
        let mut effects = Effects::default();
        let mut seen = Vec::new();
        for operation in ["launch", "observe", "observe", "launch", "launch"] {
            let before = effects.0;
            let error = call(&process, operation, &mut effects).await.err();
            seen.push((error.map(|error| (error.kind(), error.effect())), effects.0 - before));
        }
        let throttled = Some((ErrorKind::Throttled, Effect::None));
        let timeout = Some((ErrorKind::Timeout, Effect::Unknown));
        assert_eq!(seen, [(None, 1), (throttled, 0), (None, 1), (timeout, 1), (None, 2)]);
        let operations: Vec<_> = plan.calls().iter().map(|call| call.operation).collect();
        assert_eq!(operations, ["launch", "observe", "observe", "launch", "launch"]);
        assert_eq!(plan.pending(), [(At::operation("reduce", 9), Fault::lost_request())]);
    });
}

#[test]
fn a_crash_stops_its_process_and_no_other() {
    for (fault, expected) in [(Fault::CrashBefore, 1), (Fault::CrashAfter, 2)] {
        simulate(async {
            let plan = FaultPlan::new().with(At::Call(2), fault);
            let (doomed, other) = (plan.process(), plan.process());
            let mut effects = Effects::default();
            let run = async {
                for _ in 0..5 {
                    call(&doomed, "launch", &mut effects).await.unwrap();
                }
            };
            tokio::select! {
                () = run => panic!("it went on after the crash"),
                () = doomed.crashed() => {}
            }
            assert_eq!(effects.0, expected, "{fault}");
            assert!(timeout(HOUR, call(&doomed, "launch", &mut effects)).await.is_err(), "a dead process made a call");
            call(&other, "launch", &mut effects).await.unwrap();
            assert_eq!(effects.0, expected + 1, "{fault}");
        });
    }
}

#[test]
fn what_hangs_never_answers() {
    for (fault, expected) in [(Fault::Hang, 0), (Fault::HangAfter, 1)] {
        simulate(async {
            let process = FaultPlan::new().with(At::Call(1), fault).process();
            let mut effects = Effects::default();
            assert!(timeout(HOUR, call(&process, "launch", &mut effects)).await.is_err());
            assert_eq!(effects.0, expected, "{fault}");
        });
    }
}

#[test]
fn a_part_that_is_away_comes_back() {
    simulate(async {
        let process = FaultPlan::new().with(At::Call(1), Fault::Away { millis: 1_000 }).process();
        let mut effects = Effects::default();
        for operation in ["store.append", "store.journal"] {
            let error = call(&process, operation, &mut effects).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
        }
        call(&process, "balancer.observe", &mut effects).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        call(&process, "store.append", &mut effects).await.unwrap();
        assert_eq!(effects.0, 2);
    });
}

#[test]
fn a_process_that_pauses_makes_no_calls_meanwhile() {
    simulate(async {
        let process = FaultPlan::new().with(At::Call(1), Fault::Pause { millis: 5_000 }).process();
        let begin = tokio::time::Instant::now();
        let (mut one, mut other) = (Effects::default(), Effects::default());
        let (first, second) =
            tokio::join!(async { call(&process, "launch", &mut one).await.map(|()| begin.elapsed()) }, async {
                call(&process, "observe", &mut other).await.map(|()| begin.elapsed())
            },);
        assert_eq!((first.unwrap().as_secs(), second.unwrap().as_secs()), (5, 5));
    });
}

#[test]
fn a_plan_without_faults_only_counts() {
    simulate(async {
        let plan = FaultPlan::new();
        call(&plan.process(), "launch", &mut Effects::default()).await.unwrap();
        assert_eq!((plan.calls().len(), plan.to_string()), (1, "no faults".to_owned()));
    });
}

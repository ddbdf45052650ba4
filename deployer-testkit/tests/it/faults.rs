//! Scripted faults.

use std::time::Duration;

use deployer_core::{CallInfo, Effect, Error, ErrorKind, Intercept, Result};
use deployer_testkit::{At, Fault, FaultPlan, simulate};

/// Stands for the engine: one call with the hook around it; answers what the engine sees, and counts the effect.
async fn call(plan: &FaultPlan, operation: &'static str, effects: &mut u32) -> Result<()> {
    let info = CallInfo::new(1, operation, "web", true);
    plan.before(&info).await?;
    *effects += 1;
    plan.after(&info, None).await
}

#[test]
fn each_fault_strikes_once_at_its_call() {
    simulate(async {
        let plan = FaultPlan::new()
            .with(At::Call(2), Fault::before(ErrorKind::Throttled))
            .with(At::Operation("launch", 2), Fault::lost_reply())
            .with(At::Operation("reduce", 9), Fault::lost_request());
        let mut effects = 0;
        let mut seen = Vec::new();
        for operation in ["launch", "observe", "observe", "launch", "launch"] {
            let before = effects;
            let error: Option<Error> = call(&plan, operation, &mut effects).await.err();
            seen.push((error.map(|error| (error.kind(), error.effect())), effects - before));
        }
        let throttled = Some((ErrorKind::Throttled, Effect::None));
        let timeout = Some((ErrorKind::Timeout, Effect::Unknown));
        assert_eq!(seen, [(None, 1), (throttled, 0), (None, 1), (timeout, 1), (None, 1)]);
        let operations: Vec<_> = plan.calls().iter().map(|call| call.operation).collect();
        assert_eq!(operations, ["launch", "observe", "observe", "launch", "launch"]);
        assert_eq!(plan.pending(), [(At::Operation("reduce", 9), Fault::lost_request())]);
    });
}

#[test]
fn a_crash_stops_everything_before_or_after_the_effect() {
    for (fault, expected) in [(Fault::CrashBefore, 1), (Fault::CrashAfter, 2)] {
        let effects = simulate(async {
            let plan = FaultPlan::new().with(At::Call(2), fault);
            let mut effects = 0;
            let run = async {
                for _ in 0..5 {
                    call(&plan, "launch", &mut effects).await.unwrap();
                }
            };
            tokio::select! {
                () = run => panic!("it went on after the crash"),
                () = plan.crashed() => {}
            }
            let info = CallInfo::new(1, "launch", "web", true);
            let late = tokio::time::timeout(Duration::from_secs(3_600), plan.before(&info)).await;
            assert!(late.is_err(), "a dead process made a call");
            effects
        });
        assert_eq!(effects, expected, "{fault}");
    }
}

#[test]
fn a_plan_without_faults_only_counts() {
    simulate(async {
        let plan = FaultPlan::new();
        call(&plan, "launch", &mut 0).await.unwrap();
        assert_eq!((plan.calls().len(), plan.to_string()), (1, "no faults".to_owned()));
    });
}

//! What is deployed, and what must be there in the end.

use std::time::Duration;

use deployer_core::{
    Action, AppSpec, CanaryStep, DeployOptions, DeploymentRecord, Hook, HookPoint, JournalEvent, ReleaseNumber,
    ServiceSpec, Strategy, Verdict,
};

use super::disturbance::{Condition, Stage, expect_promoted};
use crate::conformance::case::{Case, CaseFailure, CaseResult, check, eventually, nothing, same};
use crate::conformance::client::Client;
use crate::conformance::ground::{Ground, web};
use crate::conformance::site::{Entrance, Program, Seen, TaskProgram};

/// A story under each of the conditions.
macro_rules! stories {
    ($($story:ident: $calm:literal, $faults:literal, $kills:literal;)+) => {
        vec![$(
            Case::new($calm, |ground| Box::pin(async move { $story(Stage::new(ground, Condition::Calm)).await })),
            Case::new($faults, |ground| Box::pin(async move { $story(Stage::new(ground, Condition::Faults)).await })),
            Case::new($kills, |ground| Box::pin(async move { $story(Stage::new(ground, Condition::Kills)).await })),
        )+]
    };
}

/// All cases of the suite.
pub(in crate::conformance) fn cases() -> Vec<Case<Ground>> {
    let mut cases = stories![
        first_release:
            "deployment/a-first-release-serves",
            "deployment-with-faults/a-first-release-serves",
            "deployment-with-kills/a-first-release-serves";
        blue_green:
            "deployment/blue-green-replaces-a-release",
            "deployment-with-faults/blue-green-replaces-a-release",
            "deployment-with-kills/blue-green-replaces-a-release";
        rolling:
            "deployment/rolling-replaces-a-release",
            "deployment-with-faults/rolling-replaces-a-release",
            "deployment-with-kills/rolling-replaces-a-release";
        canary:
            "deployment/a-canary-replaces-a-release",
            "deployment-with-faults/a-canary-replaces-a-release",
            "deployment-with-kills/a-canary-replaces-a-release";
        crashing:
            "deployment/a-crashing-release-is-rolled-back",
            "deployment-with-faults/a-crashing-release-is-rolled-back",
            "deployment-with-kills/a-crashing-release-is-rolled-back";
        never_ready:
            "deployment/a-release-that-is-never-ready-is-rolled-back",
            "deployment-with-faults/a-release-that-is-never-ready-is-rolled-back",
            "deployment-with-kills/a-release-that-is-never-ready-is-rolled-back";
        rolled_back:
            "deployment/a-rollback-brings-the-last-release-back",
            "deployment-with-faults/a-rollback-brings-the-last-release-back",
            "deployment-with-kills/a-rollback-brings-the-last-release-back";
        hooks:
            "deployment/a-hook-runs-before-the-new-release",
            "deployment-with-faults/a-hook-runs-before-the-new-release",
            "deployment-with-kills/a-hook-runs-before-the-new-release";
        failing_hook:
            "deployment/a-failing-hook-is-rolled-back",
            "deployment-with-faults/a-failing-hook-is-rolled-back",
            "deployment-with-kills/a-failing-hook-is-rolled-back";
        destroyed:
            "deployment/destroy-leaves-nothing",
            "deployment-with-faults/destroy-leaves-nothing",
            "deployment-with-kills/destroy-leaves-nothing";
    ];
    cases.push(Case::new("deployment/a-cancelled-release-leaves-the-old-one", |ground| {
        Box::pin(async move { cancelled(Stage::new(ground, Condition::Calm)).await })
    }));
    cases.push(Case::new("deployment/a-dropped-deployment-is-resumed", |ground| {
        Box::pin(async move { resumed(Stage::new(ground, Condition::Calm)).await })
    }));
    cases
}

/// An application whose web service is this.
fn app(ground: &Ground, service: ServiceSpec) -> CaseResult<AppSpec> {
    let mut app = AppSpec::new(ground.app().as_str())?;
    app.services.insert(web(), service);
    Ok(app)
}

impl Stage<'_> {
    /// A version that serves, with two instances.
    fn version(&self, version: &str) -> CaseResult<AppSpec> {
        self.with(version, |service| service)
    }

    fn with(&self, version: &str, change: impl FnOnce(ServiceSpec) -> ServiceSpec) -> CaseResult<AppSpec> {
        app(self.ground, self.lenient(change(self.ground.serves(version).with_replicas(2))))
    }

    /// A service that is not taken for a crashing one where its instances are killed.
    fn lenient(&self, mut service: ServiceSpec) -> ServiceSpec {
        if self.condition == Condition::Kills {
            service.readiness.crashes_allowed = 50;
        }
        service
    }

    fn entrance(&self) -> Entrance {
        let service = self.ground.serves("a");
        service.routes.first().map_or_else(|| Entrance::Name(web()), |route| Entrance::Route(route.clone()))
    }

    /// A client, unless instances are killed: what they were working on is lost then.
    fn watched(&self) -> Option<Client> {
        (self.condition != Condition::Kills).then(|| self.client(self.entrance()))
    }

    /// Fails unless the target of this deployment is what serves, in two instances, and there is nothing else.
    async fn expect_target(&self, record: &DeploymentRecord, version: &str) -> CaseResult {
        let target = record.target.ok_or("a deployment has a target")?;
        self.expect_serving(target, version).await
    }

    /// Fails unless this release is what serves, in two instances, and there is nothing else.
    async fn expect_serving(&self, number: ReleaseNumber, version: &str) -> CaseResult {
        let checked = self.serving(number, version).await;
        checked.map_err(|failure| failure.while_trying_to(self))
    }

    async fn serving(&self, number: ReleaseNumber, version: &str) -> CaseResult {
        let (ground, deployer) = (self.ground, self.deployer());
        // Those that were killed may still be on their way back.
        eventually(&ground.scope.clock(), "two instances run", async || {
            let running = ground.seen().await?.instances.into_iter().filter(|seen| seen.running).count();
            let status = deployer.status(&ground.app()).await?;
            Ok((running == 2 && status.drift.is_empty()).then_some(()))
        })
        .await
        .map_err(|failure| failure.while_trying_to(format!("{version} should serve")))?;
        let status = deployer.status(&ground.app()).await?;
        same("the release that serves", status.serving, Some(number))?;
        check(status.open.is_none(), "a deployment has no verdict")?;
        let release = ground.backend.store.release(&ground.app(), number).await?.ok_or("the release is kept")?;
        let revision = crate::conformance::ground::revision(&release);
        let seen = ground.seen().await?;
        let mut found: Vec<_> = seen.instances.iter().map(|one| (one.revision.clone(), one.ordinal)).collect();
        found.sort();
        same("the instances", found, [(revision.clone(), 1), (revision, 2)])?;
        nothing("tasks", &seen.tasks)?;
        ground.answered_by(&self.entrance(), version, 6).await
    }

    /// Fails unless this verdict is that of a release that was rolled back, for this reason, and with these last words
    /// in its evidence unless a fault may have struck at reading them.
    fn expect_rolled_back(&self, record: &DeploymentRecord, why: &str, words: &str) -> CaseResult {
        match &record.verdict {
            Some(verdict @ Verdict::RolledBack { .. }) => {
                let text = verdict.to_string();
                let said = |part: &str| text.contains(part);
                let complete = said(why) && (said(words) || self.condition == Condition::Faults);
                check(complete, format!("{self}: the verdict must say {why:?} and {words:?}: {text}"))
            }
            other => Err(CaseFailure::new(format!("{self}: it should be rolled back: {other:?}"))),
        }
    }
}

async fn first_release(stage: Stage<'_>) -> CaseResult {
    let record = stage.deploy(stage.version("a")?, "promoted").await?;
    expect_promoted(&record).map_err(|failure| failure.while_trying_to(&stage))?;
    stage.expect_target(&record, "a").await
}

/// Replaces version a by version b, which moves so.
async fn replaced(stage: Stage<'_>, strategy: Strategy) -> CaseResult {
    stage.begin_with(stage.version("a")?).await?;
    let client = stage.watched();
    let record = stage.deploy(stage.with("b", |service| service.with_strategy(strategy))?, "promoted").await?;
    expect_promoted(&record).map_err(|failure| failure.while_trying_to(&stage))?;
    stage.expect_target(&record, "b").await?;
    let Some(client) = client else { return Ok(()) };
    let served = client.lost_nothing().await.map_err(|failure| failure.while_trying_to(&stage))?;
    check(served.keys().all(|version| ["a", "b"].contains(&version.as_str())), format!("served by {served:?}"))
}

async fn blue_green(stage: Stage<'_>) -> CaseResult {
    replaced(stage, Strategy::BlueGreen { bake: Duration::from_millis(200), keep_warm: Duration::ZERO }).await
}

async fn rolling(stage: Stage<'_>) -> CaseResult {
    replaced(stage, Strategy::Rolling { surge: 1, unavailable: 0 }).await
}

async fn canary(stage: Stage<'_>) -> CaseResult {
    let steps = vec![CanaryStep { weight: 25, hold: Duration::from_millis(200) }];
    replaced(stage, Strategy::Canary { steps }).await
}

/// Deploys what must be rolled back to version a, whose instances are left alone.
async fn brought_back(stage: Stage<'_>, bad: AppSpec, why: &str, words: &str) -> CaseResult {
    stage.begin_with(stage.version("a")?).await?;
    let before = stage.ground.seen().await?;
    let client = stage.watched();
    let record = stage.deploy(bad, "rolled-back").await?;
    stage.expect_rolled_back(&record, why, words)?;
    stage.expect_serving(ReleaseNumber(1), "a").await?;
    let Some(client) = client else { return Ok(()) };
    same("the instances", stage.ground.seen().await?.instances, before.instances)?;
    let served = client.lost_nothing().await.map_err(|failure| failure.while_trying_to(&stage))?;
    check(served.keys().eq(["a"]), format!("served by {served:?}"))
}

async fn crashing(stage: Stage<'_>) -> CaseResult {
    let bad = app(stage.ground, stage.ground.service(Program::Exits, "b").with_replicas(2))?;
    brought_back(stage, bad, "exited with code 3", "FATAL").await
}

async fn never_ready(stage: Stage<'_>) -> CaseResult {
    let bad = stage.ground.service(Program::NeverReady, "b").with_replicas(2);
    let bad = app(stage.ground, stage.lenient(bad.with_ready_deadline(Duration::from_secs(2))))?;
    brought_back(stage, bad, "instances", "not within 2s").await
}

async fn rolled_back(stage: Stage<'_>) -> CaseResult {
    stage.begin_with(stage.version("a")?).await?;
    stage.begin_with(stage.version("b")?).await?;
    let client = stage.watched();
    let app = stage.ground.app();
    // One that is repeated must not go back further.
    let to = (stage.condition == Condition::Kills).then_some(ReleaseNumber(1));
    let record = stage.drive(|deployer| deployer.rollback(&app, to), "promoted").await?;
    expect_promoted(&record).map_err(|failure| failure.while_trying_to(&stage))?;
    same("the target", record.target, Some(ReleaseNumber(1)))?;
    stage.expect_serving(ReleaseNumber(1), "a").await?;
    let Some(client) = client else { return Ok(()) };
    client.lost_nothing().await.map_err(|failure| failure.while_trying_to(&stage)).map(drop)
}

async fn hooks(stage: Stage<'_>) -> CaseResult {
    let hook = |program| Hook::new("migrate", HookPoint::PreDeploy, stage.ground.scope.task(program));
    let good = stage.with("a", |service| service.with_hook(hook(TaskProgram::Succeeds)))?;
    let record = stage.deploy(good, "promoted").await?;
    expect_promoted(&record).map_err(|failure| failure.while_trying_to(&stage))?;
    let journal = stage.deployer().journal(&record.id).await?;
    let said = journal.iter().any(|entry| {
        matches!(&entry.event, JournalEvent::StepFinished { detail, .. } if detail.iter().any(|line| line == "done"))
    });
    check(said, format!("{stage}: the journal must have the hook's last line"))?;
    stage.expect_target(&record, "a").await
}

async fn failing_hook(stage: Stage<'_>) -> CaseResult {
    let hook = Hook::new("migrate", HookPoint::PreDeploy, stage.ground.scope.task(TaskProgram::Fails));
    let bad = stage.with("b", |service| service.with_hook(hook))?;
    brought_back(stage, bad, "exited with code 7", "FATAL: no database").await
}

async fn destroyed(stage: Stage<'_>) -> CaseResult {
    stage.begin_with(stage.version("a")?).await?;
    let app = stage.ground.app();
    let record = stage.drive(|deployer| deployer.destroy(&app, true), "promoted").await?;
    expect_promoted(&record).map_err(|failure| failure.while_trying_to(&stage))?;
    same("what is left", stage.ground.seen().await?, Seen::nothing())?;
    let answer = stage.ground.ask(&stage.entrance()).await;
    check(answer.is_err(), format!("nothing is left, and {answer:?} was answered"))
}

/// Waits until the deployment holds: all its traffic has moved.
async fn held(deployment: &mut deployer_core::Deployment) -> CaseResult {
    let mut hold = None;
    while let Some(event) = deployment.next_event().await {
        match event.journal() {
            Some(JournalEvent::Opened { plan, .. }) => {
                hold = plan.steps.iter().find(|step| matches!(step.action, Action::Hold { .. })).map(|step| step.id);
            }
            Some(JournalEvent::StepStarted { step, .. }) if Some(*step) == hold => return Ok(()),
            _ => {}
        }
    }
    Err("the deployment ended before it held".into())
}

/// Version b, which holds with all traffic for longer than any case lasts.
fn baking(stage: &Stage<'_>) -> CaseResult<AppSpec> {
    let hour = Duration::from_secs(3600);
    stage.with("b", |service| service.with_strategy(Strategy::BlueGreen { bake: hour, keep_warm: Duration::ZERO }))
}

async fn cancelled(stage: Stage<'_>) -> CaseResult {
    stage.begin_with(stage.version("a")?).await?;
    let before = stage.ground.seen().await?;
    let client = stage.client(stage.entrance());
    let deployer = stage.deployer();
    let mut deployment = deployer.deploy(baking(&stage)?, DeployOptions::default());
    held(&mut deployment).await?;
    stage.ground.answered_by(&stage.entrance(), "b", 3).await?;
    deployer.cancel(&stage.ground.app(), "ann").await?;
    let record = deployment.finished().await?;
    same("the verdict", record.verdict, Some(Verdict::Cancelled { by: "ann".to_owned() }))?;
    stage.expect_serving(ReleaseNumber(1), "a").await?;
    same("the instances", stage.ground.seen().await?.instances, before.instances)?;
    let served = client.lost_nothing().await?;
    check(served.keys().eq(["a", "b"]), format!("served by {served:?}"))
}

async fn resumed(stage: Stage<'_>) -> CaseResult {
    stage.begin_with(stage.version("a")?).await?;
    let client = stage.client(stage.entrance());
    let bake = Duration::from_secs(1);
    let strategy = Strategy::BlueGreen { bake, keep_warm: Duration::ZERO };
    let spec = stage.with("b", |service| service.with_strategy(strategy))?;
    let mut deployment = stage.deployer().deploy(spec, DeployOptions::default());
    held(&mut deployment).await?;
    let id = deployment.id().clone();
    drop(deployment);
    let resumed = stage.deployer().resume(&stage.ground.app()).await?.ok_or("it has no verdict yet")?;
    same("the deployment that is resumed", resumed.id().clone(), id)?;
    expect_promoted(&resumed.finished().await?)?;
    stage.expect_serving(ReleaseNumber(2), "b").await?;
    let served = client.lost_nothing().await?;
    check(served.keys().eq(["a", "b"]), format!("served by {served:?}"))
}

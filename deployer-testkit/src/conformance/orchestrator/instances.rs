//! Launching, observing and reducing instances.

use std::sync::Arc;

use deployer_core::{
    EnsureApp, ErrorKind, Health, InstancePhase, ObserveApp, ObservedInstance, Outcome, Release, Restart,
};

use crate::conformance::case::{
    Case, CaseFailure, CaseResult, begin_and_drop, check, eventually, fails, nothing, same,
};
use crate::conformance::ground::{Ground, revision, web};
use crate::conformance::site::{Entrance, Pace, Program};

pub(super) fn cases() -> Vec<Case<Ground>> {
    vec![
        Case::new("orchestrator/capabilities-are-as-declared", |g| Box::pin(capabilities(g))),
        Case::new("orchestrator/observe-of-nothing-is-empty", |g| Box::pin(nothing_there(g))),
        Case::new("orchestrator/launch-makes-the-ordinals-from-one-on", |g| Box::pin(ordinals(g))),
        Case::new("orchestrator/launch-again-changes-nothing", |g| Box::pin(launched_again(g))),
        Case::new("orchestrator/launch-asks-for-at-least-so-many", |g| Box::pin(at_least(g))),
        Case::new("orchestrator/launch-starts-what-has-exited", |g| Box::pin(exited(g))),
        Case::new("orchestrator/launch-may-be-dropped-and-repeated", |g| Box::pin(launch_dropped(g))),
        Case::new("orchestrator/launch-of-what-cannot-start-is-a-workload-error", |g| Box::pin(cannot_start(g))),
        Case::new("orchestrator/launch-of-a-missing-image-is-not-found", |g| Box::pin(missing_image(g))),
        Case::new("orchestrator/launch-returns-before-instances-are-healthy", |g| Box::pin(never_ready(g))),
        Case::new("orchestrator/instances-tell-what-they-are", |g| Box::pin(tell(g))),
        Case::new("orchestrator/a-crash-is-counted-and-explained", |g| Box::pin(crash(g))),
        Case::new("orchestrator/a-killed-instance-is-started-again", |g| Box::pin(killed(g))),
        Case::new("orchestrator/revisions-live-side-by-side", |g| Box::pin(side_by_side(g))),
        Case::new("orchestrator/applications-live-side-by-side", |g| Box::pin(neighbours(g))),
        Case::new("orchestrator/reduce-removes-the-highest-ordinals", |g| Box::pin(reduced(g))),
        Case::new("orchestrator/reduce-of-nothing-changes-nothing", |g| Box::pin(reduce_nothing(g))),
        Case::new("orchestrator/reduce-may-be-dropped-and-repeated", |g| Box::pin(reduce_dropped(g))),
        Case::new("orchestrator/reduce-kills-what-ignores-its-stop-signal", |g| Box::pin(ignores_stop(g))),
        Case::new("orchestrator/reduce-lets-requests-in-flight-finish", |g| Box::pin(finishes_requests(g))),
        Case::new("orchestrator/reduce-removes-what-crashes", |g| Box::pin(reduce_crashing(g))),
    ]
}

#[expect(clippy::unused_async, reason = "all cases are asynchronous")]
async fn capabilities(ground: &Ground) -> CaseResult {
    let capabilities = ground.backend.orchestrator.capabilities();
    same("whether it drains, by itself and by its profile", capabilities.drains, ground.profile.drains)?;
    check(!capabilities.poll.is_zero(), "there must be a pause between two looks")
}

async fn nothing_there(ground: &Ground) -> CaseResult {
    let observed = ground.backend.orchestrator.observe(ObserveApp::new(ground.app())).await?;
    nothing("instances", &observed.instances)?;
    nothing("tasks", &observed.tasks)
}

fn ordinals_of(instances: &[ObservedInstance]) -> Vec<u32> {
    instances.iter().map(|instance| instance.ordinal).collect()
}

async fn ordinals(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    same("the outcome", ground.launch(&release, 3).await?, Outcome::Created)?;
    let instances = ground.ready(&release, 3).await?;
    same("the ordinals, in the order of the answer", ordinals_of(&instances), [1, 2, 3])?;
    let mut seen: Vec<(u32, bool)> =
        ground.seen().await?.instances.iter().map(|seen| (seen.ordinal, seen.running)).collect();
    seen.sort_unstable();
    same("what is there", seen, [(1, true), (2, true), (3, true)])
}

async fn launched_again(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    let request = ground.launching(&release, 2);
    ground.backend.orchestrator.launch(request.clone()).await?;
    ground.ready(&release, 2).await?;
    let before = ground.seen().await?;
    let repeated = ground.backend.orchestrator.launch(request).await?;
    same("the outcome of a repetition", repeated, Outcome::AlreadyThere)?;
    same("the outcome of an equal request", ground.launch(&release, 2).await?, Outcome::AlreadyThere)?;
    same("what is there", ground.seen().await?, before)
}

async fn at_least(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    ground.running(&release, 2).await?;
    let before = ground.seen().await?;
    for fewer in [1, 0] {
        let outcome = ground.launch(&release, fewer).await?;
        same(&format!("the outcome of asking for {fewer} where there are 2"), outcome, Outcome::AlreadyThere)?;
    }
    same("what is there", ground.seen().await?, before.clone())?;
    same("the outcome of asking for more", ground.launch(&release, 3).await?, Outcome::Changed)?;
    ground.ready(&release, 3).await?;
    let after = ground.seen().await?;
    same("how many there are", after.instances.len(), 3)?;
    let kept = before.instances.iter().all(|instance| after.instances.contains(instance));
    check(kept, format!("those that were there must be left alone: {before:?} became {after:?}"))
}

async fn exited(ground: &Ground) -> CaseResult {
    let mut service = ground.serves("a");
    service.workload.restart = Restart::No;
    let release = ground.prepared(service).await?;
    let instances = ground.running(&release, 2).await?;
    ground.killed(&instances[0].id).await?;
    let ended = eventually(&ground.scope.clock(), "the killed instance is seen to have exited", async || {
        let first = ground.instances(&release).await?.into_iter().next();
        Ok(first.filter(|instance| instance.phase == InstancePhase::Exited))
    })
    .await?;
    same("its ordinal", ended.ordinal, 1)?;
    check(ended.exit.is_some(), format!("it must be told how it ended: {ended:?}"))?;
    same("the outcome", ground.launch(&release, 2).await?, Outcome::Changed)?;
    let after = ground.ready(&release, 2).await?;
    same("the ordinals", ordinals_of(&after), [1, 2])?;
    same("when the other was started", after[1].started_at, instances[1].started_at)
}

async fn launch_dropped(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    let request = ground.launching(&release, 3);
    for polls in [1, 3, 9, 27] {
        begin_and_drop(ground.backend.orchestrator.launch(request.clone()), polls).await;
    }
    launched(ground, request).await?;
    let instances = ground.ready(&release, 3).await?;
    same("the ordinals", ordinals_of(&instances), [1, 2, 3])?;
    same("how many there are", ground.seen().await?.instances.len(), 3)
}

/// Launches, again and again as long as the backend says that it will work soon: what was dropped may still be under way.
async fn launched(ground: &Ground, request: deployer_core::Launch) -> CaseResult {
    eventually(&ground.scope.clock(), "the repeated launch", async || {
        match ground.backend.orchestrator.launch(request.clone()).await {
            Ok(_) => Ok(Some(())),
            Err(error) if error.retry() == deployer_core::Retry::Soon => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

async fn cannot_start(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.service(Program::CannotStart, "a")).await?;
    refused_or_hopeless(ground, &release, ErrorKind::Workload).await?;
    // Whether something is left of it or not, it goes.
    ground.reduced(&release, 0).await?;
    nothing("instances", &ground.seen().await?.instances)
}

async fn missing_image(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    let image = release.services.get(&web()).map(|service| service.image.clone());
    let image = image.ok_or("the release has the service")?;
    ground.scope.lose_image(&image).await?;
    refused_or_hopeless(ground, &release, ErrorKind::NotFound).await?;
    nothing("running instances", &running(ground).await?)
}

/// Launches what can never run: that is an error of this kind, or, where the platform takes it first and tries then, the
/// instance is seen to be beyond recovery, with a reason.
async fn refused_or_hopeless(ground: &Ground, release: &Arc<Release>, kind: ErrorKind) -> CaseResult {
    let launched = ground.launch(release, 1).await;
    if launched.is_err() {
        let error = fails("launching it", launched, kind)?;
        return same("the advice on retrying", error.retry(), deployer_core::Retry::Never);
    }
    eventually(&ground.scope.clock(), "the instance is seen to be beyond recovery", async || {
        let first = ground.instances(release).await?.into_iter().next();
        let exit = first.and_then(|instance| instance.exit);
        Ok(exit.filter(|exit| exit.unrecoverable && exit.error.is_some()).map(drop))
    })
    .await
}

/// What runs, by the oracle.
async fn running(ground: &Ground) -> CaseResult<Vec<crate::conformance::site::SeenInstance>> {
    Ok(ground.seen().await?.instances.into_iter().filter(|seen| seen.running).collect())
}

async fn never_ready(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.service(Program::NeverReady, "a")).await?;
    ground.launch(&release, 1).await?;
    let unhealthy = eventually(&ground.scope.clock(), "the instance runs and says why it is not ready", async || {
        let first = ground.instances(&release).await?.into_iter().next();
        Ok(first.filter(|one| one.phase == InstancePhase::Running && one.health_detail.is_some()))
    })
    .await?;
    check(unhealthy.health != Health::Healthy, format!("it must not be healthy: {unhealthy:?}"))?;
    check(!unhealthy.is_ready(), "it must not be ready")
}

async fn tell(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    let instances = ground.running(&release, 2).await?;
    let digest = release.services.get(&web()).map(|service| service.image.digest.clone());
    for one in &instances {
        same("its revision", one.revision.clone(), revision(&release))?;
        same("its release", one.release, release.number)?;
        same("its image", one.image.clone(), digest.clone())?;
        same("its crashes", one.crashes, 0)?;
        check(one.address.is_some(), "an instance that runs has an address")?;
        check(one.started_at.is_some(), "an instance that runs was started some time")?;
        check(!one.name.is_empty(), "an instance has a name")?;
    }
    check(instances[0].name != instances[1].name, "instances have different names")?;
    let seen = ground.seen().await?;
    let ids = |ordinal| seen.instances.iter().find(|one| one.ordinal == ordinal).map(|one| one.id.clone());
    same("the ids", [Some(instances[0].id.clone()), Some(instances[1].id.clone())], [ids(1), ids(2)])
}

async fn crash(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.service(Program::Exits, "a")).await?;
    // It may be gone before the call returns; that is no reason for it to fail.
    ground.launch(&release, 1).await?;
    let crashed = eventually(&ground.scope.clock(), "a crash is counted", async || {
        let first = ground.instances(&release).await?.into_iter().next();
        Ok(first.filter(|instance| instance.crashes >= 2))
    })
    .await?;
    same("its exit code", crashed.exit.as_ref().and_then(|exit| exit.code), Some(3))?;
    let exit = crashed.exit.unwrap_or_default();
    check(!exit.out_of_memory && !exit.unrecoverable, format!("an ordinary exit: {exit:?}"))
}

async fn killed(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    let before = ground.running(&release, 2).await?;
    ground.killed(&before[1].id).await?;
    let after =
        eventually(&ground.scope.clock(), "the killed instance is counted as crashed and ready again", async || {
            let all = ground.instances(&release).await?;
            let back = all.len() == 2 && all.iter().all(ObservedInstance::is_ready) && all[1].crashes == 1;
            Ok(back.then_some(all))
        })
        .await?;
    same("the ordinals", ordinals_of(&after), [1, 2])?;
    same("the crashes of the other", after[0].crashes, 0)
}

async fn side_by_side(ground: &Ground) -> CaseResult {
    let first = ground.prepared(ground.serves("a")).await?;
    let second = ground.prepared(ground.serves("b")).await?;
    check(revision(&first) != revision(&second), "two versions must be two revisions")?;
    ground.launch(&first, 2).await?;
    ground.launch(&second, 1).await?;
    same("the ordinals of the first", ordinals_of(&ground.ready(&first, 2).await?), [1, 2])?;
    same("the ordinals of the second", ordinals_of(&ground.ready(&second, 1).await?), [1])?;
    ground.reduced(&first, 0).await?;
    nothing("instances of the first", &ground.instances(&first).await?)?;
    same("the ordinals of the second", ordinals_of(&ground.instances(&second).await?), [1])
}

/// A release of the neighbour, prepared and launched.
async fn neighbour(ground: &Ground) -> CaseResult<Arc<Release>> {
    let app = ground.scope.neighbour();
    let mut service = ground.scope.service(Program::Serves, "a");
    service.routes.clear();
    let release = ground.release_of(&app, [(web(), service)]).await?;
    ground.backend.orchestrator.ensure_app(EnsureApp::new(ground.call(), Arc::clone(&release))).await?;
    ground.launch(&release, 1).await?;
    Ok(release)
}

async fn neighbours(ground: &Ground) -> CaseResult {
    let theirs = neighbour(ground).await?;
    let release = ground.prepared(ground.serves("a")).await?;
    ground.running(&release, 2).await?;
    let before = ground.seen_of(&theirs.app).await?;
    same("how many they have", before.instances.len(), 1)?;
    let ours = ground.backend.orchestrator.observe(ObserveApp::new(ground.app())).await?;
    same("how many of ours are observed", ours.instances.len(), 2)?;
    ground.reduced(&release, 0).await?;
    same("what they have", ground.seen_of(&theirs.app).await?, before)
}

async fn reduced(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    ground.running(&release, 4).await?;
    let before = ground.seen().await?;
    let request = ground.reducing(&release, 2);
    same("the outcome", ground.backend.orchestrator.reduce(request.clone()).await?, Outcome::Changed)?;
    ground.reduced(&release, 2).await?;
    let kept: Vec<_> = before.instances.iter().filter(|instance| instance.ordinal <= 2).cloned().collect();
    same("what is left", ground.seen().await?.instances, kept)?;
    let repeated = ground.backend.orchestrator.reduce(request).await?;
    same("the outcome of a repetition", repeated, Outcome::AlreadyThere)?;
    same("the ordinals", ordinals_of(&ground.instances(&release).await?), [1, 2])?;
    ground.reduced(&release, 0).await?;
    nothing("instances", &ground.seen().await?.instances)?;
    nothing("observed instances", &ground.instances(&release).await?)
}

async fn reduce_nothing(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    for keep in [0, 3] {
        same("the outcome where nothing runs", ground.reduce(&release, keep).await?, Outcome::AlreadyThere)?;
    }
    ground.running(&release, 1).await?;
    let before = ground.seen().await?;
    for keep in [1, 2, u32::MAX] {
        same("the outcome where there are not more", ground.reduce(&release, keep).await?, Outcome::AlreadyThere)?;
    }
    same("what is there", ground.seen().await?, before)
}

async fn reduce_dropped(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    ground.running(&release, 3).await?;
    let request = ground.reducing(&release, 1);
    for polls in [1, 3, 9, 27] {
        begin_and_drop(ground.backend.orchestrator.reduce(request.clone()), polls).await;
    }
    ground.backend.orchestrator.reduce(request).await?;
    ground.reduced(&release, 1).await?;
    same("the ordinals", ordinals_of(&ground.instances(&release).await?), [1])
}

async fn ignores_stop(ground: &Ground) -> CaseResult {
    let grace = std::time::Duration::from_secs(1);
    let release = ground.prepared(ground.service(Program::IgnoresStop, "a").with_stop_grace(grace)).await?;
    ground.running(&release, 1).await?;
    let clock = ground.scope.clock();
    let before = clock.now();
    ground.reduced(&release, 0).await?;
    // Earlier, and it would have been killed without its grace.
    let took = clock.now().since(before);
    check(took + std::time::Duration::from_millis(50) >= grace, format!("it was killed after {took:?}"))?;
    nothing("instances", &ground.seen().await?.instances)
}

async fn finishes_requests(ground: &Ground) -> CaseResult {
    let release = ground.serving(ground.serves("a"), 2).await?;
    let entrance = Ground::entrance(&release);
    let instances = ground.instances(&release).await?;
    let scope = Arc::clone(&ground.scope);
    // One for each instance, wherever they go.
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (scope, entrance) = (Arc::clone(&scope), entrance.clone());
        requests.spawn(async move { scope.request(&scope.app(), &entrance, Pace::Slow).await });
    }
    in_flight(ground, &release, 2).await?;
    if ground.profile.targets == deployer_core::TargetRegistration::Engine {
        // Out of rotation first, as the engine does it.
        let draining = ground.setting(&release, Ground::targets(&instances, 1));
        ground.backend.balancer.set_targets(draining).await?;
    }
    ground.reduced(&release, 1).await?;
    while let Some(answer) = requests.join_next().await {
        let answer = answer.map_err(|error| CaseFailure::new(error.to_string()))?;
        same("the answer to a request in flight", answer, Ok("a".to_owned()))?;
    }
    same("the answer to the next request", ground.ask(&Entrance::clone(&entrance)).await, Ok("a".to_owned()))
}

/// Waits until the balancer says that so many requests are being worked on, or that it cannot tell.
pub(super) async fn in_flight(ground: &Ground, release: &Release, requests: u64) -> CaseResult {
    eventually(&ground.scope.clock(), "the requests are in flight", async || {
        let routing = ground.routing().await?;
        let targets = routing.pool(&revision(release)).map(|pool| pool.targets.clone()).unwrap_or_default();
        let known: Option<Vec<u64>> = targets.iter().map(|target| target.in_flight).collect();
        Ok(known.is_none_or(|known| known.iter().sum::<u64>() >= requests).then_some(()))
    })
    .await
}

async fn reduce_crashing(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.service(Program::Exits, "a")).await?;
    ground.launch(&release, 2).await?;
    ground.reduced(&release, 0).await?;
    nothing("instances", &ground.seen().await?.instances)?;
    nothing("observed instances", &ground.instances(&release).await?)
}

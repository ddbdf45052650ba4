//! Targets, where the engine registers them, and what the balancer sees of them.

use std::sync::Arc;

use deployer_core::{ErrorKind, InstanceId, Outcome, Release, Target, TargetRegistration, TargetState};

use crate::conformance::case::{Case, CaseFailure, CaseResult, begin_and_drop, check, eventually, fails, same};
use crate::conformance::client::Client;
use crate::conformance::ground::{Ground, revision};
use crate::conformance::profile::Need;
use crate::conformance::site::Pace;

pub(super) fn cases() -> Vec<Case<Ground>> {
    let by_engine = |case: Case<Ground>| case.where_targets_are_registered_by(TargetRegistration::Engine);
    let by_orchestrator = |case: Case<Ground>| case.where_targets_are_registered_by(TargetRegistration::Orchestrator);
    vec![
        by_engine(Case::new("balancer/set-targets-makes-a-pool-without-weight", |g| Box::pin(new_pool(g)))),
        by_engine(Case::new("balancer/set-targets-again-changes-nothing", |g| Box::pin(again(g)))),
        by_engine(Case::new("balancer/set-targets-is-exact", |g| Box::pin(exact(g)))),
        by_engine(Case::new("balancer/set-targets-needs-an-entry", |g| Box::pin(no_entry(g)))),
        by_engine(Case::new("balancer/set-targets-may-be-dropped-and-repeated", |g| Box::pin(dropped(g)))),
        by_engine(Case::new("balancer/a-draining-target-keeps-what-is-in-flight", |g| Box::pin(draining(g)))),
        by_engine(Case::new("balancer/a-drained-target-can-come-back", |g| Box::pin(back(g)))),
        by_orchestrator(Case::new("balancer/instances-are-registered-when-they-run", |g| Box::pin(registered(g)))),
        Case::new("balancer/a-draining-orchestrator-loses-no-request", |g| Box::pin(orchestrator_drains(g)))
            .where_orchestrator_drains(),
        Case::new("balancer/a-pool-without-weight-gets-nothing", |g| Box::pin(without_weight(g))),
        Case::new("balancer/every-target-of-a-pool-serves", |g| Box::pin(all_serve(g))),
        Case::new("balancer/requests-are-counted", |g| Box::pin(counted(g))).needs(Need::Counters),
    ]
}

/// A release whose instances run, and are not registered yet.
async fn launched(ground: &Ground, instances: u32) -> CaseResult<(Arc<Release>, Vec<Target>)> {
    let release = ground.prepared(ground.serves("a")).await?;
    let running = ground.running(&release, instances).await?;
    Ok((release, Ground::targets(&running, u32::MAX)))
}

async fn set(ground: &Ground, release: &Release, targets: &[Target]) -> deployer_core::Result<Outcome> {
    ground.backend.balancer.set_targets(ground.setting(release, targets.to_vec())).await
}

/// The targets of a release's pool, by instance.
async fn targets(ground: &Ground, release: &Release) -> CaseResult<Vec<(InstanceId, TargetState)>> {
    let routing = ground.routing().await?;
    let pool = routing.pool(&revision(release)).ok_or("the revision has no pool")?;
    let mut found: Vec<_> = pool.targets.iter().map(|target| (target.instance.clone(), target.state)).collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}

fn instances(targets: &[Target]) -> Vec<InstanceId> {
    let mut ids: Vec<_> = targets.iter().map(|target| target.instance.clone()).collect();
    ids.sort();
    ids
}

async fn new_pool(ground: &Ground) -> CaseResult {
    let (release, wanted) = launched(ground, 1).await?;
    same("the outcome", set(ground, &release, &wanted).await?, Outcome::Created)?;
    let routing = ground.routing().await?;
    let pool = routing.pool(&revision(&release)).ok_or("the revision has no pool")?;
    same("its weight", pool.weight, 0)?;
    let found: Vec<_> = pool.targets.iter().map(|target| target.instance.clone()).collect();
    same("its targets", found, instances(&wanted))?;
    let answer = ground.ask(&Ground::entrance(&release)).await;
    check(answer.is_err(), format!("no pool has weight, and {answer:?} was answered"))
}

async fn again(ground: &Ground) -> CaseResult {
    let (release, mut wanted) = launched(ground, 2).await?;
    let request = ground.setting(&release, wanted.clone());
    ground.backend.balancer.set_targets(request.clone()).await?;
    ground.in_service(&release, 2).await?;
    ground.weigh(&[(&release, 100)]).await?;
    let before = ground.routing().await?;
    let repeated = ground.backend.balancer.set_targets(request).await?;
    same("the outcome of a repetition", repeated, Outcome::AlreadyThere)?;
    // They are a set.
    wanted.reverse();
    same("the outcome in another order", set(ground, &release, &wanted).await?, Outcome::AlreadyThere)?;
    let after = ground.routing().await?;
    same("the weights", after.weights(), before.weights())?;
    same("their version", after.version, before.version)?;
    ground.answered_by(&Ground::entrance(&release), "a", 3).await
}

async fn exact(ground: &Ground) -> CaseResult {
    let (release, wanted) = launched(ground, 3).await?;
    for some in [&wanted[..2], &wanted[1..], &wanted[..1], &wanted[..]] {
        set(ground, &release, some).await?;
        let found: Vec<_> = targets(ground, &release).await?.into_iter().map(|(instance, _)| instance).collect();
        same("the targets", found, instances(some))?;
    }
    set(ground, &release, &[]).await?;
    same("the targets", targets(ground, &release).await?.len(), 0)
}

async fn no_entry(ground: &Ground) -> CaseResult {
    let release = ground.release(ground.serves("a")).await?;
    let refused = set(ground, &release, &[]).await;
    fails("setting targets of a service without an entry", refused, ErrorKind::NotFound).map(drop)
}

async fn dropped(ground: &Ground) -> CaseResult {
    let (release, wanted) = launched(ground, 2).await?;
    let request = ground.setting(&release, wanted.clone());
    for polls in [1, 3, 9, 27] {
        begin_and_drop(ground.backend.balancer.set_targets(request.clone()), polls).await;
    }
    eventually(&ground.scope.clock(), "the repeated call", async || {
        match ground.backend.balancer.set_targets(request.clone()).await {
            Ok(_) => Ok(Some(())),
            Err(error) if error.retry() == deployer_core::Retry::Soon => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    ground.in_service(&release, 2).await?;
    ground.weigh(&[(&release, 100)]).await?;
    ground.answered_by(&Ground::entrance(&release), "a", 4).await
}

async fn draining(ground: &Ground) -> CaseResult {
    let (release, mut wanted) = launched(ground, 2).await?;
    set(ground, &release, &wanted).await?;
    ground.in_service(&release, 2).await?;
    ground.weigh(&[(&release, 100)]).await?;
    let entrance = Ground::entrance(&release);
    // Wherever they go: one of them is at the target that drains, or both are.
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (scope, entrance) = (Arc::clone(&ground.scope), entrance.clone());
        requests.spawn(async move { scope.request(&scope.app(), &entrance, Pace::Slow).await });
    }
    let in_flight = async || -> CaseResult<Vec<Option<u64>>> {
        let routing = ground.routing().await?;
        let pool = routing.pool(&revision(&release)).ok_or("the revision has no pool")?;
        Ok(pool.targets.iter().map(|target| target.in_flight).collect())
    };
    eventually(&ground.scope.clock(), "the requests are in flight at both", async || {
        let known = in_flight().await?;
        Ok(known.iter().all(|count| count.is_none_or(|count| count > 0)).then_some(()))
    })
    .await?;
    wanted[0].draining = true;
    same("the outcome", set(ground, &release, &wanted).await?, Outcome::Changed)?;
    let state = targets(ground, &release).await?.into_iter().find(|(instance, _)| *instance == wanted[0].instance);
    same("the state of the draining target", state.map(|(_, state)| state), Some(TargetState::Draining))?;
    ground.answered_by(&entrance, "a", 4).await?;
    while let Some(answer) = requests.join_next().await {
        let answer = answer.map_err(|error| CaseFailure::new(error.to_string()))?;
        same("the answer to a request that was in flight", answer, Ok("a".to_owned()))?;
    }
    // All that drain, and nobody is left for new requests.
    for target in &mut wanted {
        target.draining = true;
    }
    set(ground, &release, &wanted).await?;
    let answer = ground.ask(&entrance).await;
    check(answer.is_err(), format!("every target drains, and one has answered a new request: {answer:?}"))?;
    set(ground, &release, &[]).await.map(drop).map_err(CaseFailure::from)
}

async fn back(ground: &Ground) -> CaseResult {
    let (release, mut wanted) = launched(ground, 1).await?;
    set(ground, &release, &wanted).await?;
    ground.in_service(&release, 1).await?;
    ground.weigh(&[(&release, 100)]).await?;
    wanted[0].draining = true;
    set(ground, &release, &wanted).await?;
    wanted[0].draining = false;
    same("the outcome", set(ground, &release, &wanted).await?, Outcome::Changed)?;
    ground.in_service(&release, 1).await?;
    ground.answered_by(&Ground::entrance(&release), "a", 2).await
}

async fn registered(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    ground.launch(&release, 2).await?;
    ground.in_service(&release, 2).await?;
    let routing = ground.routing().await?;
    same("the weight of the pool", routing.pool(&revision(&release)).map(|pool| pool.weight), Some(0))?;
    ground.weigh(&[(&release, 100)]).await?;
    ground.answered_by(&Ground::entrance(&release), "a", 3).await?;
    ground.reduced(&release, 1).await?;
    ground.in_service(&release, 1).await?;
    same("the targets", targets(ground, &release).await?.len(), 1)
}

async fn orchestrator_drains(ground: &Ground) -> CaseResult {
    let release = ground.serving(ground.serves("a"), 3).await?;
    let client = Client::start(&ground.scope, Ground::entrance(&release));
    ground.answered_by(&Ground::entrance(&release), "a", 3).await?;
    for keep in [2, 1] {
        // In rotation, and under load: it is the orchestrator that takes it out first.
        ground.reduced(&release, keep).await?;
        ground.answered_by(&Ground::entrance(&release), "a", 3).await?;
    }
    client.lost_nothing().await.map(drop)
}

async fn without_weight(ground: &Ground) -> CaseResult {
    let first = ground.serving(ground.serves("a"), 1).await?;
    let second = ground.prepared(ground.serves("b")).await?;
    let running = ground.running(&second, 1).await?;
    ground.register(&second, &running).await?;
    ground.answered_by(&Ground::entrance(&first), "a", 10).await
}

async fn all_serve(ground: &Ground) -> CaseResult {
    let release = ground.serving(ground.serves("a"), 2).await?;
    ground.answered_by(&Ground::entrance(&release), "a", 10).await?;
    // With one gone, and known to be gone, the other takes all.
    if ground.profile.targets == TargetRegistration::Engine {
        let instances = ground.instances(&release).await?;
        let mut wanted = Ground::targets(&instances, u32::MAX);
        wanted.truncate(1);
        set(ground, &release, &wanted).await?;
    } else {
        ground.reduced(&release, 1).await?;
    }
    ground.answered_by(&Ground::entrance(&release), "a", 10).await
}

async fn counted(ground: &Ground) -> CaseResult {
    let release = ground.serving(ground.serves("a"), 1).await?;
    let entrance = Ground::entrance(&release);
    let count = async || -> CaseResult<u64> {
        let routing = ground.routing().await?;
        let counters = routing.pool(&revision(&release)).and_then(|pool| pool.counters);
        Ok(counters.ok_or("the pool counts nothing")?.requests)
    };
    let before = count().await?;
    ground.answered_by(&entrance, "a", 7).await?;
    eventually(&ground.scope.clock(), "seven requests are counted", async || {
        Ok((count().await? == before + 7).then_some(()))
    })
    .await
}

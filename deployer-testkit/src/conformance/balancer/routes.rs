//! Entries: routes, published ports, internal names, and what is left when they go.

use std::sync::Arc;

use deployer_core::{
    EnsureApp, EnsureRoutes, ErrorKind, Outcome, Port, Release, RetainRoutes, Route, ServiceSpec, SetTargets,
    SetWeights, TargetRegistration,
};

use crate::conformance::case::{Case, CaseResult, begin_and_drop, check, eventually, fails, nothing, same};
use crate::conformance::ground::{Ground, named, revision, web};
use crate::conformance::profile::Need;
use crate::conformance::site::{Entrance, Program};

pub(super) fn cases() -> Vec<Case<Ground>> {
    vec![
        Case::new("balancer/capabilities-are-as-declared", |g| Box::pin(capabilities(g))),
        Case::new("balancer/observe-of-nothing-is-empty", |g| Box::pin(nothing_there(g))),
        Case::new("balancer/ensure-makes-an-entry-for-what-listens", |g| Box::pin(entries(g))),
        Case::new("balancer/ensure-again-changes-nothing", |g| Box::pin(ensured_again(g))),
        Case::new("balancer/ensure-may-be-dropped-and-repeated", |g| Box::pin(ensure_dropped(g))),
        Case::new("balancer/ensure-adds-and-leaves-traffic-alone", |g| Box::pin(adds(g))),
        Case::new("balancer/ensure-refuses-another-applications-route", |g| Box::pin(route_taken(g))),
        Case::new("balancer/ensure-refuses-a-port-that-is-taken", |g| Box::pin(port_taken(g)))
            .needs(Need::PublishedPorts),
        Case::new("balancer/hosts-are-told-apart", |g| Box::pin(hosts(g))),
        Case::new("balancer/a-published-port-leads-to-the-service", |g| Box::pin(published(g)))
            .needs(Need::PublishedPorts),
        Case::new("balancer/an-internal-name-leads-to-the-service", |g| Box::pin(internal(g)))
            .needs(Need::InternalNames),
        Case::new("balancer/retain-keeps-what-the-release-has", |g| Box::pin(retained(g))),
        Case::new("balancer/retain-removes-pools-that-are-not-named", |g| Box::pin(pools(g))),
        Case::new("balancer/retain-removes-routes-that-the-release-has-not", |g| Box::pin(routes_go(g))),
        Case::new("balancer/retain-of-nothing-leaves-nothing", |g| Box::pin(retain_nothing(g))),
        Case::new("balancer/retain-may-be-dropped-and-repeated", |g| Box::pin(retain_dropped(g))),
    ]
}

#[expect(clippy::unused_async, reason = "all cases are asynchronous")]
async fn capabilities(ground: &Ground) -> CaseResult {
    let found = ground.backend.balancer.capabilities().targets;
    same("who registers targets, by itself and by its profile", found, ground.profile.targets)
}

async fn nothing_there(ground: &Ground) -> CaseResult {
    nothing("entries", &ground.backend.balancer.observe(&ground.app()).await?)
}

fn ensuring(ground: &Ground, release: &Arc<Release>) -> EnsureRoutes {
    EnsureRoutes::new(ground.call(), Arc::clone(release))
}

/// A release whose application has its network, as the engine makes it before the entries.
async fn released(ground: &Ground, service: ServiceSpec) -> CaseResult<Arc<Release>> {
    let release = ground.release(service).await?;
    share(ground, &release).await?;
    Ok(release)
}

async fn share(ground: &Ground, release: &Arc<Release>) -> CaseResult {
    ground.backend.orchestrator.ensure_app(EnsureApp::new(ground.call(), Arc::clone(release))).await?;
    Ok(())
}

async fn entries(ground: &Ground) -> CaseResult {
    let app = ground.app();
    let mut deaf = ground.serves("a");
    deaf.routes.clear();
    deaf.workload.ports.clear();
    deaf.readiness.probe = None;
    let release = ground.release_of(&app, [(web(), ground.serves("a")), (named("worker"), deaf)]).await?;
    share(ground, &release).await?;
    let outcome = ground.backend.balancer.ensure(ensuring(ground, &release)).await?;
    same("the outcome", outcome, Outcome::Created)?;
    let entries = ground.backend.balancer.observe(&app).await?;
    // A program whose image says that it listens has an entry, whatever its owner says.
    let listening = |name: &str| release.services.get(name).is_some_and(deployer_core::ServiceRelease::listens);
    let mut expected = vec![web()];
    expected.extend(Some(named("worker")).filter(|_| listening("worker")));
    let mut found: Vec<_> = entries.iter().map(|entry| entry.service.clone()).collect();
    found.sort();
    same("the services that have an entry", found, expected)?;
    let routes = release.services.get(&web()).map(|service| service.routes.clone());
    let entry = ground.routing().await?;
    same("its routes", Some(entry.routes), routes)?;
    nothing("pools", &entry.pools)?;
    let answer = ground.ask(&Ground::entrance(&release)).await;
    check(answer.is_err(), format!("nobody is there to answer: {answer:?}"))
}

async fn ensured_again(ground: &Ground) -> CaseResult {
    let release = released(ground, ground.serves("a")).await?;
    let request = ensuring(ground, &release);
    ground.backend.balancer.ensure(request.clone()).await?;
    let (before, seen) = (ground.routing().await?, ground.seen().await?);
    same("the outcome of a repetition", ground.backend.balancer.ensure(request).await?, Outcome::AlreadyThere)?;
    let equal = ground.backend.balancer.ensure(ensuring(ground, &release)).await?;
    same("the outcome of an equal request", equal, Outcome::AlreadyThere)?;
    same("the entry", ground.routing().await?, before)?;
    same("what is there", ground.seen().await?, seen)
}

async fn ensure_dropped(ground: &Ground) -> CaseResult {
    let release = released(ground, ground.serves("a")).await?;
    let request = ensuring(ground, &release);
    for polls in [1, 3, 9, 27] {
        begin_and_drop(ground.backend.balancer.ensure(request.clone()), polls).await;
    }
    ensured(ground, &request).await?;
    let running = ground.running(&release, 1).await?;
    ground.register(&release, &running).await?;
    ground.weigh(&[(&release, 100)]).await?;
    ground.answered_by(&Ground::entrance(&release), "a", 3).await
}

/// Ensures, again and again as long as the backend says that it will work soon: what was dropped may still be under way.
async fn ensured(ground: &Ground, request: &EnsureRoutes) -> CaseResult {
    eventually(&ground.scope.clock(), "the repeated call", async || {
        match ground.backend.balancer.ensure(request.clone()).await {
            Ok(_) => Ok(Some(())),
            Err(error) if error.retry() == deployer_core::Retry::Soon => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

async fn adds(ground: &Ground) -> CaseResult {
    let first = ground.serving(ground.serves("a"), 1).await?;
    let before = ground.routing().await?;
    let mut changed = ground.serves("b");
    let port = changed.routes.first().map_or(80, |route| route.port);
    let another = Route::new(port).with_host(format!("also.{}.localhost", ground.app()));
    changed.routes = vec![another.clone()];
    let second = ground.release(changed).await?;
    let outcome = ground.backend.balancer.ensure(ensuring(ground, &second)).await?;
    same("the outcome", outcome, Outcome::Changed)?;
    let after = ground.routing().await?;
    same("its weights", after.weights(), before.weights())?;
    let ids = |routing: &deployer_core::ObservedRouting| {
        let targets = routing.pool(&revision(&first)).map(|pool| pool.targets.clone()).unwrap_or_default();
        targets.into_iter().map(|target| target.instance).collect::<Vec<_>>()
    };
    same("its targets", ids(&after), ids(&before))?;
    check(after.routes.contains(&another), format!("the new route is there: {:?}", after.routes))?;
    check(before.routes.iter().all(|route| after.routes.contains(route)), "the old route is still there")?;
    ground.answered_by(&Ground::entrance(&first), "a", 2).await?;
    // The new route is the new revision's, which has no instance yet.
    let running = ground.running(&second, 1).await?;
    ground.register(&second, &running).await?;
    ground.weigh(&[(&second, 100)]).await?;
    ground.answered_by(&Entrance::Route(another), "b", 2).await
}

/// A release of the neighbour with this service, and with its network.
async fn neighbours(ground: &Ground, service: ServiceSpec) -> CaseResult<Arc<Release>> {
    let release = ground.release_of(&ground.scope.neighbour(), [(web(), service)]).await?;
    share(ground, &release).await?;
    Ok(release)
}

async fn route_taken(ground: &Ground) -> CaseResult {
    let release = ground.serving(ground.serves("a"), 1).await?;
    let theirs = neighbours(ground, ground.serves("b")).await?;
    let refused = ground.backend.balancer.ensure(ensuring(ground, &theirs)).await;
    fails("ensuring a route that another application has", refused, ErrorKind::AlreadyExists)?;
    nothing("entries of the other", &ground.backend.balancer.observe(&theirs.app).await?)?;
    ground.answered_by(&Ground::entrance(&release), "a", 2).await
}

async fn port_taken(ground: &Ground) -> CaseResult {
    let port = ground.scope.free_port();
    let publishing = |version: &str| {
        let mut service = ground.serves(version);
        let target = service.routes.first().map_or(80, |route| route.port);
        service.routes.clear();
        service.workload.ports = vec![Port::published(target, port)];
        service
    };
    let release = released(ground, publishing("a")).await?;
    ground.backend.balancer.ensure(ensuring(ground, &release)).await?;
    let theirs = neighbours(ground, publishing("b")).await?;
    let refused = ground.backend.balancer.ensure(ensuring(ground, &theirs)).await;
    let error = fails("publishing a port that another application publishes", refused, ErrorKind::Exhausted)?;
    let words = error.report().to_string();
    let named = words.contains(&port.to_string()) && words.contains(ground.app().as_str());
    check(named, format!("the error must name the port {port} and {}: {words}", ground.app()))?;
    nothing("entries of the other", &ground.backend.balancer.observe(&theirs.app).await?)
}

async fn hosts(ground: &Ground) -> CaseResult {
    let release = ground.serving(ground.serves("a"), 1).await?;
    let app = ground.scope.neighbour();
    let mut service = ground.scope.service(Program::Serves, "b");
    for route in &mut service.routes {
        route.host = Some(format!("{app}.localhost"));
    }
    let theirs = neighbours(ground, service).await?;
    ground.backend.balancer.ensure(ensuring(ground, &theirs)).await?;
    let running = ground.running(&theirs, 1).await?;
    if ground.profile.targets == TargetRegistration::Engine {
        let request: SetTargets = ground.setting(&theirs, Ground::targets(&running, u32::MAX));
        ground.backend.balancer.set_targets(request).await?;
    }
    let routing = ground.backend.balancer.observe(&app).await?;
    let version = routing.first().map(|entry| entry.version.clone()).ok_or("the neighbour has an entry")?;
    let weights = [(revision(&theirs), 100)].into();
    let request = SetWeights::new(ground.call(), app.clone(), web(), weights, version);
    ground.backend.balancer.set_weights(request).await?;
    let entrance = Ground::entrance(&theirs);
    eventually(&ground.scope.clock(), "the neighbour is served", async || {
        Ok(ground.scope.request(&app, &entrance, crate::conformance::site::Pace::Quick).await.ok())
    })
    .await?;
    ground.answered_by(&Ground::entrance(&release), "a", 3).await?;
    ground.answered_by(&entrance, "b", 3).await
}

async fn published(ground: &Ground) -> CaseResult {
    let port = ground.scope.free_port();
    let publishing = |version: &str| {
        let mut service = ground.serves(version);
        let target = service.routes.first().map_or(80, |route| route.port);
        service.workload.ports = vec![Port::published(target, port)];
        service
    };
    let first = ground.serving(publishing("a"), 1).await?;
    ground.answered_by(&Entrance::Published(port), "a", 3).await?;
    let second = ground.prepared(publishing("b")).await?;
    let running = ground.running(&second, 1).await?;
    ground.register(&second, &running).await?;
    ground.answered_by(&Entrance::Published(port), "a", 2).await?;
    ground.weigh(&[(&first, 0), (&second, 100)]).await?;
    // The same weights as the route.
    ground.answered_by(&Ground::entrance(&second), "b", 2).await?;
    ground.answered_by(&Entrance::Published(port), "b", 2).await
}

async fn internal(ground: &Ground) -> CaseResult {
    let first = ground.serving(ground.serves("a"), 1).await?;
    let second = ground.prepared(ground.serves("b")).await?;
    let running = ground.running(&second, 1).await?;
    ground.register(&second, &running).await?;
    let name = Entrance::Name(web());
    ground.answered_by(&name, "a", 2).await?;
    ground.weigh(&[(&first, 0), (&second, 100)]).await?;
    // The same weights and targets as the route.
    ground.answered_by(&Ground::entrance(&second), "b", 2).await?;
    ground.answered_by(&name, "b", 2).await
}

fn retaining(ground: &Ground, release: Option<&Arc<Release>>, pools: &[&Release]) -> RetainRoutes {
    let pools = pools.iter().map(|release| revision(release)).collect();
    RetainRoutes::new(ground.call(), ground.app(), release.map(Arc::clone), pools)
}

async fn retained(ground: &Ground) -> CaseResult {
    let release = ground.serving(ground.serves("a"), 1).await?;
    let before = ground.routing().await?;
    let request = retaining(ground, Some(&release), &[&release]);
    let outcome = ground.backend.balancer.retain(request).await?;
    same("the outcome where everything stays", outcome, Outcome::AlreadyThere)?;
    let after = ground.routing().await?;
    same("the weights", after.weights(), before.weights())?;
    same("their version", after.version, before.version)?;
    same("the routes", after.routes, before.routes)?;
    ground.answered_by(&Ground::entrance(&release), "a", 2).await
}

async fn pools(ground: &Ground) -> CaseResult {
    let first = ground.serving(ground.serves("a"), 1).await?;
    let second = ground.prepared(ground.serves("b")).await?;
    let running = ground.running(&second, 1).await?;
    ground.register(&second, &running).await?;
    ground.weigh(&[(&second, 100)]).await?;
    ground.reduced(&first, 0).await?;
    let request = retaining(ground, Some(&second), &[&second]);
    let outcome = ground.backend.balancer.retain(request.clone()).await?;
    if ground.profile.targets == deployer_core::TargetRegistration::Engine {
        // Where the orchestrator registers instances, a pool may go with the last of them.
        same("the outcome", outcome, Outcome::Changed)?;
    }
    let pools: Vec<_> = ground.routing().await?.pools.into_iter().map(|pool| pool.revision).collect();
    same("the pools", pools, [revision(&second)])?;
    same("the outcome of a repetition", ground.backend.balancer.retain(request).await?, Outcome::AlreadyThere)?;
    ground.answered_by(&Ground::entrance(&second), "b", 3).await
}

async fn routes_go(ground: &Ground) -> CaseResult {
    let mut both = ground.serves("a");
    let port = both.routes.first().map_or(80, |route| route.port);
    let going = Route::new(port).with_host(format!("also.{}.localhost", ground.app()));
    both.routes.push(going.clone());
    let first = ground.serving(both, 1).await?;
    ground.answered_by(&Entrance::Route(going.clone()), "a", 1).await?;
    // The same revision: where traffic enters is not what runs.
    let second = ground.prepared(ground.serves("a")).await?;
    same("the revision", revision(&second), revision(&first))?;
    let request = retaining(ground, Some(&second), &[&second]);
    same("the outcome", ground.backend.balancer.retain(request).await?, Outcome::Changed)?;
    let answer = ground.ask(&Entrance::Route(going)).await;
    check(answer.is_err(), format!("the route is gone, and still answers {answer:?}"))?;
    ground.answered_by(&Ground::entrance(&second), "a", 2).await
}

async fn retain_nothing(ground: &Ground) -> CaseResult {
    let unknown = ground.backend.balancer.retain(retaining(ground, None, &[])).await?;
    same("the outcome where nothing is", unknown, Outcome::AlreadyThere)?;
    let release = released(ground, ground.serves("a")).await?;
    let before = ground.seen().await?;
    ground.backend.balancer.ensure(ensuring(ground, &release)).await?;
    let running = ground.running(&release, 1).await?;
    ground.register(&release, &running).await?;
    ground.weigh(&[(&release, 100)]).await?;
    let request = retaining(ground, None, &[]);
    same("the outcome", ground.backend.balancer.retain(request.clone()).await?, Outcome::Changed)?;
    nothing("entries", &ground.backend.balancer.observe(&ground.app()).await?)?;
    same("what is shared", ground.seen().await?.shared, before.shared)?;
    let answer = ground.ask(&Ground::entrance(&release)).await;
    check(answer.is_err(), format!("the route is gone, and still answers {answer:?}"))?;
    same("the outcome of a repetition", ground.backend.balancer.retain(request).await?, Outcome::AlreadyThere)
}

async fn retain_dropped(ground: &Ground) -> CaseResult {
    let release = released(ground, ground.serves("a")).await?;
    let before = ground.seen().await?;
    ground.backend.balancer.ensure(ensuring(ground, &release)).await?;
    let request = retaining(ground, None, &[]);
    for polls in [1, 3, 9, 27] {
        begin_and_drop(ground.backend.balancer.retain(request.clone()), polls).await;
    }
    eventually(&ground.scope.clock(), "the repeated call", async || {
        match ground.backend.balancer.retain(request.clone()).await {
            Ok(_) => Ok(Some(())),
            Err(error) if error.retry() == deployer_core::Retry::Soon => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    nothing("entries", &ground.backend.balancer.observe(&ground.app()).await?)?;
    same("what is shared", ground.seen().await?.shared, before.shared)
}

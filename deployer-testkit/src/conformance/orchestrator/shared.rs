//! What the services of an application share.

use std::sync::Arc;

use deployer_core::{AppSpec, EnsureApp, ErrorKind, Mount, Outcome, Release, RemoveApp, RetainRoutes, Retry};

use crate::conformance::case::{Case, CaseResult, check, eventually, fails, nothing, same};
use crate::conformance::ground::{Ground, web};
use crate::conformance::profile::Need;
use crate::conformance::site::{Program, Seen};

pub(super) fn cases() -> Vec<Case<Ground>> {
    vec![
        Case::new("orchestrator/check-touches-nothing", |g| Box::pin(checked(g))),
        Case::new("orchestrator/ensure-app-again-changes-nothing", |g| Box::pin(ensured_again(g))),
        Case::new("orchestrator/remove-app-leaves-nothing", |g| Box::pin(removed(g))),
        Case::new("orchestrator/remove-app-refuses-what-is-in-use", |g| Box::pin(in_use(g))),
        Case::new("orchestrator/remove-app-keeps-volumes-unless-asked", |g| Box::pin(volumes(g))).needs(Need::Volumes),
        Case::new("orchestrator/remove-app-leaves-the-neighbour-alone", |g| Box::pin(neighbour(g))),
    ]
}

async fn ensure(ground: &Ground, release: &Arc<Release>) -> deployer_core::Result<Outcome> {
    ground.backend.orchestrator.ensure_app(EnsureApp::new(ground.call(), Arc::clone(release))).await
}

async fn remove(ground: &Ground, volumes: bool) -> deployer_core::Result<Outcome> {
    ground.backend.orchestrator.remove_app(RemoveApp::new(ground.call(), ground.app(), volumes)).await
}

async fn checked(ground: &Ground) -> CaseResult {
    let mut spec = AppSpec::new(ground.app().as_str())?;
    spec.services.insert(web(), ground.serves("a"));
    let problems = ground.backend.orchestrator.check(&spec).await?;
    check(!problems.has_errors(), format!("what other cases deploy can be run: {problems}"))?;
    same("what is there", ground.seen().await?, Seen::nothing())
}

async fn ensured_again(ground: &Ground) -> CaseResult {
    let release = ground.release(ground.serves("a")).await?;
    let request = EnsureApp::new(ground.call(), Arc::clone(&release));
    ground.backend.orchestrator.ensure_app(request.clone()).await?;
    let before = ground.seen().await?;
    let repeated = ground.backend.orchestrator.ensure_app(request).await?;
    same("the outcome of a repetition", repeated, Outcome::AlreadyThere)?;
    same("the outcome of an equal request", ensure(ground, &release).await?, Outcome::AlreadyThere)?;
    same("what is there", ground.seen().await?, before)
}

async fn removed(ground: &Ground) -> CaseResult {
    same("the outcome where nothing is", remove(ground, false).await?, Outcome::AlreadyThere)?;
    let release = ground.prepared(ground.serves("a")).await?;
    ground.running(&release, 1).await?;
    ground.reduced(&release, 0).await?;
    // As the engine does it: what brings traffic goes first.
    let nothing_stays = RetainRoutes::new(ground.call(), ground.app(), None, Vec::new());
    ground.backend.balancer.retain(nothing_stays).await?;
    remove(ground, true).await?;
    same("what is left", ground.seen().await?, Seen::nothing())?;
    same("the outcome of a repetition", remove(ground, true).await?, Outcome::AlreadyThere)?;
    // It can begin anew, once the platform has let go of what was there.
    ground.prepare(&release).await?;
    eventually(&ground.scope.clock(), "what was removed is launched again", async || {
        match ground.launch(&release, 1).await {
            Ok(_) => Ok(Some(())),
            Err(error) if error.kind() == ErrorKind::Conflict && error.retry() == Retry::Soon => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    ground.ready(&release, 1).await.map(drop)
}

async fn in_use(ground: &Ground) -> CaseResult {
    let release = ground.prepared(ground.serves("a")).await?;
    let instance = ground.running(&release, 1).await?.remove(0);
    let before = ground.seen().await?;
    let error = fails("removing it", remove(ground, true).await, ErrorKind::Conflict)?;
    let words = format!("{} {:?}", error.report(), error.context());
    let named = words.contains(&instance.name) || words.contains(instance.id.as_str());
    check(named, format!("the error must name what still uses it, {}: {words}", instance.name))?;
    same("what is there", ground.seen().await?, before)
}

async fn volumes(ground: &Ground) -> CaseResult {
    let service = ground.serves("a").with_mount(Mount::volume("data", "/data"));
    let release = ground.release(service).await?;
    ensure(ground, &release).await?;
    same("the volumes", ground.seen().await?.volumes.len(), 1)?;
    remove(ground, false).await?;
    let left = ground.seen().await?;
    nothing("networks", &left.shared)?;
    same("the volumes", left.volumes.len(), 1)?;
    same("the outcome of a repetition", remove(ground, false).await?, Outcome::AlreadyThere)?;
    same("the outcome of removing the data", remove(ground, true).await?, Outcome::Changed)?;
    same("what is left", ground.seen().await?, Seen::nothing())
}

async fn neighbour(ground: &Ground) -> CaseResult {
    let app = ground.scope.neighbour();
    let mut service = ground.scope.service(Program::Serves, "a");
    service.routes.clear();
    let theirs = ground.release_of(&app, [(web(), service)]).await?;
    ensure(ground, &theirs).await?;
    let before = ground.seen_of(&app).await?;
    let release = ground.release(ground.serves("a")).await?;
    ensure(ground, &release).await?;
    remove(ground, true).await?;
    same("what they have", ground.seen_of(&app).await?, before)
}

//! Weights: who gets how much, and that nobody overwrites what somebody else has set.

use std::collections::BTreeMap;
use std::sync::Arc;

use deployer_core::{ErrorKind, Outcome, PoolVersion, Release, RevisionId, SetWeights};

use crate::conformance::case::{Case, CaseFailure, CaseResult, begin_and_drop, check, eventually, fails, same};
use crate::conformance::client::Client;
use crate::conformance::ground::{Ground, named, revision, web};

pub(super) fn cases() -> Vec<Case<Ground>> {
    vec![
        Case::new("balancer/set-weights-moves-all-traffic", |g| Box::pin(moves_all(g))),
        Case::new("balancer/set-weights-splits-traffic", |g| Box::pin(splits(g))),
        Case::new("balancer/set-weights-again-changes-nothing", |g| Box::pin(again(g))),
        Case::new("balancer/set-weights-refuses-an-outdated-version", |g| Box::pin(outdated(g))),
        Case::new("balancer/set-weights-needs-an-entry", |g| Box::pin(no_entry(g))),
        Case::new("balancer/one-of-two-set-weights-wins", |g| Box::pin(one_of_two(g))),
        Case::new("balancer/set-weights-loses-no-request", |g| Box::pin(loses_none(g))),
        Case::new("balancer/set-weights-may-be-dropped-and-repeated", |g| Box::pin(dropped(g))),
        Case::new("balancer/weights-keep-their-version-while-nobody-sets-them", |g| Box::pin(version_stays(g))),
    ]
}

/// Two releases whose instances are registered; the first has all traffic.
async fn two(ground: &Ground) -> CaseResult<(Arc<Release>, Arc<Release>)> {
    let first = ground.serving(ground.serves("a"), 1).await?;
    let second = ground.prepared(ground.serves("b")).await?;
    let running = ground.running(&second, 1).await?;
    ground.register(&second, &running).await?;
    Ok((first, second))
}

fn weights(of: &[(&Release, u8)]) -> BTreeMap<RevisionId, u8> {
    of.iter().map(|(release, weight)| (revision(release), *weight)).collect()
}

fn setting(ground: &Ground, of: &[(&Release, u8)], expected: &PoolVersion) -> SetWeights {
    SetWeights::new(ground.call(), ground.app(), web(), weights(of), expected.clone())
}

async fn moves_all(ground: &Ground) -> CaseResult {
    let (first, second) = two(ground).await?;
    let entrance = Ground::entrance(&second);
    ground.answered_by(&entrance, "a", 5).await?;
    same("the outcome", ground.weigh(&[(&second, 100)]).await?, Outcome::Changed)?;
    ground.answered_by(&entrance, "b", 20).await?;
    same("the weights", ground.routing().await?.weights(), weights(&[(&second, 100)]))?;
    ground.weigh(&[(&second, 0), (&first, 100)]).await?;
    ground.answered_by(&entrance, "a", 20).await
}

async fn splits(ground: &Ground) -> CaseResult {
    let (first, second) = two(ground).await?;
    ground.weigh(&[(&first, 75), (&second, 25)]).await?;
    same("the weights", ground.routing().await?.weights(), weights(&[(&first, 75), (&second, 25)]))?;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..100 {
        let answer = ground.ask(&Ground::entrance(&second)).await.map_err(CaseFailure::new)?;
        *counts.entry(answer).or_default() += 1;
    }
    let of = |version: &str| counts.get(version).copied().unwrap_or_default();
    // Wide enough for one that draws lots: it is outside of that once in ten thousand times.
    check((58..=92).contains(&of("a")) && of("a") + of("b") == 100, format!("of 100 requests at 75:25: {counts:?}"))
}

async fn again(ground: &Ground) -> CaseResult {
    let (_, second) = two(ground).await?;
    let version = ground.routing().await?.version;
    let request = setting(ground, &[(&second, 100)], &version);
    ground.backend.balancer.set_weights(request.clone()).await?;
    let after = ground.routing().await?;
    check(after.version != version, "the version changes with the weights")?;
    // The version that it expects is outdated by its own effect, as after a lost reply.
    let repeated = ground.backend.balancer.set_weights(request).await?;
    same("the outcome of a repetition", repeated, Outcome::AlreadyThere)?;
    same("the version", ground.routing().await?.version, after.version)
}

async fn outdated(ground: &Ground) -> CaseResult {
    let (first, second) = two(ground).await?;
    let version = ground.routing().await?.version;
    ground.weigh(&[(&first, 50), (&second, 50)]).await?;
    let before = ground.routing().await?;
    let stale = ground.backend.balancer.set_weights(setting(ground, &[(&second, 100)], &version)).await;
    fails("setting weights with an outdated version", stale, ErrorKind::Conflict)?;
    let made_up = PoolVersion("no such version".to_owned());
    let stale = ground.backend.balancer.set_weights(setting(ground, &[(&second, 100)], &made_up)).await;
    fails("setting weights with a version that never was", stale, ErrorKind::Conflict)?;
    let after = ground.routing().await?;
    same("the weights", after.weights(), before.weights())?;
    same("their version", after.version, before.version)
}

async fn no_entry(ground: &Ground) -> CaseResult {
    let (first, _) = two(ground).await?;
    let version = ground.routing().await?.version;
    let nobody =
        SetWeights::new(ground.call(), ground.app(), named("nobody"), weights(&[(&first, 100)]), version.clone());
    let refused = ground.backend.balancer.set_weights(nobody).await;
    fails("setting weights of a service without an entry", refused, ErrorKind::NotFound)?;
    let third = ground.release(ground.serves("c")).await?;
    let refused = ground.backend.balancer.set_weights(setting(ground, &[(&third, 100)], &version)).await;
    fails("giving weight to a revision without a pool", refused, ErrorKind::NotFound)?;
    ground.answered_by(&Ground::entrance(&first), "a", 2).await
}

async fn one_of_two(ground: &Ground) -> CaseResult {
    let (first, second) = two(ground).await?;
    let mut shares = [(20, 80), (40, 60), (60, 40), (80, 20)].into_iter().zip([true, false, true, false]);
    while let (Some(((a, b), _)), Some(((c, d), _))) = (shares.next(), shares.next()) {
        let version = ground.routing().await?.version;
        let wanted = [[(&*first, a), (&*second, b)], [(&*first, c), (&*second, d)]];
        let requests = wanted.each_ref().map(|of| setting(ground, of, &version));
        let mut calls = tokio::task::JoinSet::new();
        for (index, request) in requests.into_iter().enumerate() {
            let balancer = Arc::clone(&ground.backend.balancer);
            calls.spawn(async move { (index, balancer.set_weights(request).await) });
        }
        let mut winners = Vec::new();
        while let Some(answer) = calls.join_next().await {
            let (index, answer) = answer.map_err(|error| CaseFailure::new(error.to_string()))?;
            match answer {
                Ok(_) => winners.push(index),
                Err(error) => same("the kind of the loser's error", error.kind(), ErrorKind::Conflict)?,
            }
        }
        same("how many of two have set the weights", winners.len(), 1)?;
        same("the weights", ground.routing().await?.weights(), weights(&wanted[winners[0]]))?;
    }
    Ok(())
}

async fn loses_none(ground: &Ground) -> CaseResult {
    let (first, second) = two(ground).await?;
    let entrance = Ground::entrance(&second);
    let clients = [(); 2].map(|()| Client::start(&ground.scope, entrance.clone()));
    for round in 0..10 {
        let (gains, loses, version) = if round % 2 == 0 { (&second, &first, "b") } else { (&first, &second, "a") };
        ground.weigh(&[(gains, 100), (loses, 0)]).await?;
        // So that requests come between two shifts, and not only at them.
        for client in &clients {
            client.answered_by(version).await?;
        }
    }
    for client in clients {
        let served = client.lost_nothing().await?;
        check(served.keys().eq(["a", "b"]), format!("both have answered: {served:?}"))?;
    }
    Ok(())
}

async fn dropped(ground: &Ground) -> CaseResult {
    let (_, second) = two(ground).await?;
    let version = ground.routing().await?.version;
    let request = setting(ground, &[(&second, 100)], &version);
    for polls in [1, 3, 9, 27] {
        begin_and_drop(ground.backend.balancer.set_weights(request.clone()), polls).await;
    }
    eventually(&ground.scope.clock(), "the repeated call", async || {
        match ground.backend.balancer.set_weights(request.clone()).await {
            Ok(_) => Ok(Some(())),
            Err(error) if error.retry() == deployer_core::Retry::Soon && error.kind() != ErrorKind::Conflict => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    same("the weights", ground.routing().await?.weights(), weights(&[(&second, 100)]))?;
    ground.answered_by(&Ground::entrance(&second), "b", 5).await
}

async fn version_stays(ground: &Ground) -> CaseResult {
    let (first, second) = two(ground).await?;
    let version = ground.routing().await?.version;
    ground.answered_by(&Ground::entrance(&first), "a", 3).await?;
    ground.prepare(&second).await?;
    ground.running(&second, 2).await?;
    same("the version", ground.routing().await?.version, version)
}

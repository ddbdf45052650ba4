//! Leases and fences.

use std::time::Duration;

use deployer_core::{ErrorKind, ReleaseNumber, ReleaseQuery};

use super::{StoreGround, append, at, at_once, entries, release, wanted};
use crate::conformance::case::{Case, CaseResult, check, fails, same};

pub(super) fn cases() -> Vec<Case<StoreGround>> {
    vec![
        Case::new("store/nobody-holds-a-lease-at-first", |s| Box::pin(nobody_at_first(s))),
        Case::new("store/a-held-lease-is-busy-and-says-who-holds-it", |s| Box::pin(busy(s))),
        Case::new("store/a-lease-is-taken-when-it-expires", |s| Box::pin(expires(s))),
        Case::new("store/an-expired-lease-still-has-its-holder", |s| Box::pin(expired_holder(s))),
        Case::new("store/a-renewed-lease-holds-on", |s| Box::pin(renewed(s))),
        Case::new("store/a-lost-lease-is-not-renewed", |s| Box::pin(lost(s))),
        Case::new("store/a-returned-lease-is-free-and-not-renewed", |s| Box::pin(returned(s))),
        Case::new("store/returning-a-lost-lease-changes-nothing", |s| Box::pin(returned_late(s))),
        Case::new("store/its-owner-takes-a-lease-again-with-a-higher-fence", |s| Box::pin(taken_again(s))),
        Case::new("store/fences-only-rise", |s| Box::pin(fences_rise(s))),
        Case::new("store/applications-have-leases-of-their-own", |s| Box::pin(apart(s))),
        Case::new("store/one-of-many-gets-the-lease", |s| Box::pin(one_of_many(s))),
        Case::new("store/append-refuses-a-stale-fence", |s| Box::pin(stale_append(s))),
        Case::new("store/put-release-refuses-a-stale-fence", |s| Box::pin(stale_put(s))),
        Case::new("store/remove-releases-refuses-a-stale-fence", |s| Box::pin(stale_remove(s))),
        Case::new("store/forget-app-refuses-a-stale-fence", |s| Box::pin(stale_forget(s))),
        Case::new("store/writing-needs-a-lease-that-was-granted", |s| Box::pin(never_leased(s))),
        Case::new("store/the-last-fence-writes-until-another-is-granted", |s| Box::pin(last_fence(s))),
        Case::new("store/handles-see-the-same-leases", |s| Box::pin(handles(s))),
    ]
}

async fn nobody_at_first(ground: &StoreGround) -> CaseResult {
    same("the holder of a lease that was never taken", ground.store.lease_holder(&ground.app()).await?, None)
}

async fn busy(ground: &StoreGround) -> CaseResult {
    let (app, lease) = ground.leased().await?;
    same("when the lease ends", lease.expires_at, at(30_000))?;
    let error = fails(
        "taking a lease that somebody holds",
        ground.store.acquire_lease(wanted(&app, "second", 29_000)).await,
        ErrorKind::Busy,
    )?;
    let context: Vec<&str> = error.context().iter().map(|(_, value)| value.as_str()).collect();
    let says = |part: &str| context.iter().any(|value| value.contains(part));
    check(says("first of the suite"), format!("the error's context must name the holder: {context:?}"))?;
    check(says("1s"), format!("the error's context must say that 1s is left: {context:?}"))?;
    let Some(holder) = ground.store.lease_holder(&app).await? else {
        return Err("a lease that is held has no holder".into());
    };
    same("the holder", holder.owner.as_str(), "first of the suite")?;
    same("its fence", holder.fence, lease.fence)?;
    same("when it ends", holder.expires_at, lease.expires_at)?;
    same("whether it is dead", holder.dead, false)
}

async fn expires(ground: &StoreGround) -> CaseResult {
    let (app, first) = ground.leased().await?;
    let early = ground.store.acquire_lease(wanted(&app, "second", 29_999)).await;
    fails("taking a lease a millisecond before its end", early, ErrorKind::Busy)?;
    let second = ground.store.acquire_lease(wanted(&app, "second", 30_000)).await?;
    check(second.fence > first.fence, format!("fence {} after {}", second.fence, first.fence))?;
    same("when the new lease ends", second.expires_at, at(60_000))
}

async fn expired_holder(ground: &StoreGround) -> CaseResult {
    let (app, lease) = ground.leased().await?;
    // The store is not told the time here, so it cannot look at it.
    let fence = ground.store.lease_holder(&app).await?.map(|holder| holder.fence);
    same("the fence of the holder", fence, Some(lease.fence))
}

async fn renewed(ground: &StoreGround) -> CaseResult {
    let (app, lease) = ground.leased().await?;
    let renewed = ground.store.renew_lease(&lease, at(20_000)).await?;
    same("the fence of the renewed lease", renewed.fence, lease.fence)?;
    same("when it ends", renewed.expires_at, at(50_000))?;
    let early = ground.store.acquire_lease(wanted(&app, "second", 49_999)).await;
    fails("taking a renewed lease", early, ErrorKind::Busy)?;
    // Expired and not taken: it is still its owner's.
    let late = ground.store.renew_lease(&renewed, at(70_000)).await?;
    same("when a lease ends that was renewed late", late.expires_at, at(100_000))
}

async fn lost(ground: &StoreGround) -> CaseResult {
    let (app, lease) = ground.leased().await?;
    ground.store.acquire_lease(wanted(&app, "second", 30_000)).await?;
    let renewed = ground.store.renew_lease(&lease, at(30_001)).await;
    fails("renewing a lease that somebody else has taken", renewed, ErrorKind::Conflict).map(drop)
}

async fn returned(ground: &StoreGround) -> CaseResult {
    let (app, lease) = ground.leased().await?;
    ground.store.release_lease(&lease).await?;
    same("the holder of a returned lease", ground.store.lease_holder(&app).await?, None)?;
    let renewed = ground.store.renew_lease(&lease, at(1)).await;
    fails("renewing a lease that was given back", renewed, ErrorKind::Conflict)?;
    ground.store.release_lease(&lease).await?;
    let second = ground.store.acquire_lease(wanted(&app, "second", 2)).await?;
    check(second.fence > lease.fence, "the fence must rise although the lease was given back")
}

async fn returned_late(ground: &StoreGround) -> CaseResult {
    let (app, lease) = ground.leased().await?;
    let second = ground.store.acquire_lease(wanted(&app, "second", 30_000)).await?;
    ground.store.release_lease(&lease).await?;
    let fence = ground.store.lease_holder(&app).await?.map(|holder| holder.fence);
    same("the fence of the holder", fence, Some(second.fence))
}

async fn taken_again(ground: &StoreGround) -> CaseResult {
    let (app, lease) = ground.leased().await?;
    let again = ground.store.acquire_lease(wanted(&app, "first", 10)).await?;
    check(again.fence > lease.fence, format!("fence {} after {}", again.fence, lease.fence))?;
    same("when it ends", again.expires_at, at(30_010))?;
    let stale = ground.store.renew_lease(&lease, at(20)).await;
    fails("renewing the lease that it had before", stale, ErrorKind::Conflict)?;
    let put = ground.store.put_release(release(&app, "a"), lease.fence).await;
    fails("writing with the fence that it had before", put, ErrorKind::Conflict).map(drop)
}

async fn fences_rise(ground: &StoreGround) -> CaseResult {
    let (app, mut last) = ground.leased().await?;
    check(last.fence > 0, "a fence is above zero")?;
    for round in 1..=6_i64 {
        if round % 2 == 0 {
            ground.store.release_lease(&last).await?;
        }
        if round == 5 {
            ground.store.forget_app(&app, last.fence).await?;
        }
        let next = ground.store.acquire_lease(wanted(&app, &format!("owner {round}"), round * 30_000)).await?;
        check(next.fence > last.fence, format!("in round {round}: fence {} after {}", next.fence, last.fence))?;
        last = next;
    }
    Ok(())
}

async fn apart(ground: &StoreGround) -> CaseResult {
    let (_, first) = ground.leased().await?;
    let (other, second) = ground.leased().await?;
    ground.store.release_lease(&first).await?;
    let fence = ground.store.lease_holder(&other).await?.map(|holder| holder.fence);
    same("the fence of the other application's holder", fence, Some(second.fence))
}

async fn one_of_many(ground: &StoreGround) -> CaseResult {
    let app = ground.app();
    let mut calls = Vec::new();
    for number in 0..8 {
        let (store, request) = (ground.another_handle().await?, wanted(&app, &format!("owner {number}"), 0));
        calls.push(async move { (store.acquire_lease(request).await, store) });
    }
    // The handles live until all have answered: a store may take the lease of a handle that is gone.
    let answers = at_once(calls).await?;
    let granted = answers.iter().filter(|(answer, _)| answer.is_ok()).count();
    same("how many of eight got the lease", granted, 1)?;
    for (answer, _) in answers {
        if let Err(error) = answer {
            same("the kind of the others' errors", error.kind(), ErrorKind::Busy)?;
        }
    }
    Ok(())
}

/// The fences that may not write once the fence `last` was granted after `first`.
fn wrong(first: u64, last: u64) -> [u64; 4] {
    [0, first, last + 1, i64::MAX.unsigned_abs()]
}

async fn stale_append(ground: &StoreGround) -> CaseResult {
    let (app, first, id) = ground.begun().await?;
    let second = ground.store.acquire_lease(wanted(&app, "second", 30_000)).await?;
    for fence in wrong(first.fence, second.fence) {
        let stale = ground.store.append(append(&app, &id, fence, entries(2..=2, fence))).await;
        fails(&format!("appending with fence {fence}"), stale, ErrorKind::Conflict)?;
    }
    same("the length of the journal", ground.store.journal(&id, 1).await?.len(), 1)?;
    ground.store.append(append(&app, &id, second.fence, entries(2..=2, second.fence))).await?;
    same("the length of the journal", ground.store.journal(&id, 1).await?.len(), 2)
}

async fn stale_put(ground: &StoreGround) -> CaseResult {
    let (app, first) = ground.leased().await?;
    ground.store.put_release(release(&app, "a"), first.fence).await?;
    let second = ground.store.acquire_lease(wanted(&app, "second", 30_000)).await?;
    for fence in wrong(first.fence, second.fence) {
        let stale = ground.store.put_release(release(&app, "b"), fence).await;
        fails(&format!("keeping a release with fence {fence}"), stale, ErrorKind::Conflict)?;
        // Also if there would be nothing to do.
        let same_content = ground.store.put_release(release(&app, "a"), fence).await;
        fails(&format!("keeping the newest release again with fence {fence}"), same_content, ErrorKind::Conflict)?;
    }
    same("how many releases there are", ground.store.releases(ReleaseQuery::new(app, 9)).await?.len(), 1)
}

async fn stale_remove(ground: &StoreGround) -> CaseResult {
    let (app, first) = ground.leased().await?;
    ground.store.put_release(release(&app, "a"), first.fence).await?;
    let second = ground.store.acquire_lease(wanted(&app, "second", 30_000)).await?;
    for fence in wrong(first.fence, second.fence) {
        let stale = ground.store.remove_releases(&app, &[ReleaseNumber(1)], fence).await;
        fails(&format!("removing a release with fence {fence}"), stale, ErrorKind::Conflict)?;
    }
    same("how many releases there are", ground.store.releases(ReleaseQuery::new(app, 9)).await?.len(), 1)
}

async fn stale_forget(ground: &StoreGround) -> CaseResult {
    let (app, first, id) = ground.begun().await?;
    let second = ground.store.acquire_lease(wanted(&app, "second", 30_000)).await?;
    for fence in wrong(first.fence, second.fence) {
        let stale = ground.store.forget_app(&app, fence).await;
        fails(&format!("forgetting an application with fence {fence}"), stale, ErrorKind::Conflict)?;
    }
    same("the length of the journal", ground.store.journal(&id, 1).await?.len(), 1)
}

async fn never_leased(ground: &StoreGround) -> CaseResult {
    let app = ground.app();
    for fence in [0, 1] {
        let put = ground.store.put_release(release(&app, "a"), fence).await;
        fails("keeping a release of an application that was never leased", put, ErrorKind::Conflict)?;
        let id = deployer_core::DeploymentId::fresh();
        let appended = ground.store.append(append(&app, &id, fence, entries(1..=1, fence))).await;
        fails("appending for an application that was never leased", appended, ErrorKind::Conflict)?;
    }
    Ok(())
}

async fn last_fence(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    // A fence protects against other writers. As long as there is none, what was begun under a lease may be written down
    // after it.
    ground.store.release_lease(&lease).await?;
    ground.store.append(append(&app, &id, lease.fence, entries(2..=2, lease.fence))).await?;
    ground.store.put_release(release(&app, "a"), lease.fence).await?;
    let second = ground.store.acquire_lease(wanted(&app, "second", 0)).await?;
    let stale = ground.store.append(append(&app, &id, lease.fence, entries(3..=3, lease.fence))).await;
    fails("appending once another fence was granted", stale, ErrorKind::Conflict)?;
    check(second.fence > lease.fence, "the fence must rise")
}

async fn handles(ground: &StoreGround) -> CaseResult {
    let (app, lease) = ground.leased().await?;
    let other = ground.another_handle().await?;
    fails("taking it through another handle", other.acquire_lease(wanted(&app, "second", 1)).await, ErrorKind::Busy)?;
    let renewed = other.renew_lease(&lease, at(10_000)).await?;
    same("when it ends", renewed.expires_at, at(10_000) + Duration::from_secs(30))?;
    other.release_lease(&renewed).await?;
    same("the holder", ground.store.lease_holder(&app).await?, None)
}

//! Releases, and what the store knows of applications.

use std::collections::BTreeSet;

use deployer_core::{AppName, DeploymentQuery, Release, ReleaseNumber, ReleaseQuery, SendSignal, Signal};

use super::{StoreGround, append, at, at_once, entries, release, released, wanted};
use crate::conformance::case::{Case, CaseResult, begin_and_drop, check, nothing, same};

pub(super) fn cases() -> Vec<Case<StoreGround>> {
    vec![
        Case::new("store/no-releases-is-an-empty-answer", |s| Box::pin(none(s))),
        Case::new("store/releases-are-numbered-from-one-without-gaps", |s| Box::pin(numbered(s))),
        Case::new("store/a-release-is-kept-as-it-was-put", |s| Box::pin(kept(s))),
        Case::new("store/a-large-release-is-kept-whole", |s| Box::pin(large(s))),
        Case::new("store/the-newest-content-put-again-is-kept-once", |s| Box::pin(put_again(s))),
        Case::new("store/an-earlier-content-put-again-is-a-new-release", |s| Box::pin(back(s))),
        Case::new("store/releases-are-listed-newest-first-in-pages", |s| Box::pin(pages(s))),
        Case::new("store/removed-numbers-are-not-given-again", |s| Box::pin(removed(s))),
        Case::new("store/removing-what-is-not-there-changes-nothing", |s| Box::pin(removed_twice(s))),
        Case::new("store/releases-put-at-once-get-numbers-of-their-own", |s| Box::pin(put_at_once(s))),
        Case::new("store/put-release-may-be-dropped-and-repeated", |s| Box::pin(put_dropped(s))),
        Case::new("store/applications-are-known-by-releases-and-deployments", |s| Box::pin(known_apps(s))),
        Case::new("store/a-forgotten-application-leaves-only-its-fence", |s| Box::pin(forgotten(s))),
    ]
}

async fn numbers(ground: &StoreGround, query: ReleaseQuery) -> CaseResult<Vec<u64>> {
    Ok(ground.store.releases(query).await?.iter().map(|release| release.number.0).collect())
}

/// Keeps releases of these images, which get the numbers from 1 on.
async fn keep(ground: &StoreGround, images: &[&str]) -> CaseResult<(AppName, u64, Vec<Release>)> {
    let (app, lease) = ground.leased().await?;
    let mut kept = Vec::new();
    for image in images {
        kept.push(ground.store.put_release(release(&app, image), lease.fence).await?);
    }
    Ok((app, lease.fence, kept))
}

async fn large(ground: &StoreGround) -> CaseResult {
    let (app, lease) = ground.leased().await?;
    let message = "äöü, and what else somebody may want to say about it; ".repeat(20_000);
    let kept = ground.store.put_release(released(&app, "web:1", &message), lease.fence).await?;
    let read = ground.another_handle().await?.release(&app, kept.number).await?;
    check(read.as_ref() == Some(&kept), "a large release must be read as it was put")?;
    check(kept.provenance.message.as_deref() == Some(&*message), "and with all of its content")?;
    ground.store.remove_releases(&app, &[kept.number], lease.fence).await?;
    same("what was removed", ground.store.release(&app, kept.number).await?, None)
}

async fn none(ground: &StoreGround) -> CaseResult {
    let app = ground.app();
    same("a release that is not there", ground.store.release(&app, ReleaseNumber(1)).await?, None)?;
    same("releases of an unknown application", ground.store.releases(ReleaseQuery::new(app.clone(), 9)).await?, [])?;
    let (app, ..) = keep(ground, &["a"]).await?;
    for number in [0, 2, u64::MAX] {
        same("a release that is not there", ground.store.release(&app, ReleaseNumber(number)).await?, None)?;
    }
    Ok(())
}

async fn numbered(ground: &StoreGround) -> CaseResult {
    let (app, lease) = ground.leased().await?;
    for (number, image) in (1_u64..).zip(["a", "b", "c"]) {
        let mut wanted = release(&app, image);
        // Whatever it carries.
        wanted.number = ReleaseNumber(41);
        let kept = ground.store.put_release(wanted, lease.fence).await?;
        same("the number of a release", kept.number, ReleaseNumber(number))?;
    }
    let (other, _, first) = keep(ground, &["a"]).await?;
    same("the first number of another application", first[0].number, ReleaseNumber(1))?;
    check(other != app, "two applications")
}

async fn kept(ground: &StoreGround) -> CaseResult {
    let (app, lease) = ground.leased().await?;
    let strange = "line one\nline \"two\"\t\\ äöü 日本 🦀 '; DROP TABLE releases; --";
    let wanted = released(&app, "registry.example:5000/a/b", strange);
    let kept = ground.store.put_release(wanted.clone(), lease.fence).await?;
    let mut expected = wanted;
    expected.number = ReleaseNumber(1);
    same("the answer", &kept, &expected)?;
    let store = ground.another_handle().await?;
    same("what another handle reads", store.release(&app, ReleaseNumber(1)).await?, Some(expected.clone()))?;
    same("what a list has", store.releases(ReleaseQuery::new(app, 9)).await?, [expected])
}

async fn put_again(ground: &StoreGround) -> CaseResult {
    let (app, fence, kept) = keep(ground, &["a"]).await?;
    let again = ground.store.put_release(released(&app, "a", "another message"), fence).await?;
    same("the answer to the same content", &again, &kept[0])?;
    same("what is kept", ground.store.releases(ReleaseQuery::new(app, 9)).await?, kept)
}

async fn back(ground: &StoreGround) -> CaseResult {
    let (app, fence, kept) = keep(ground, &["a", "b"]).await?;
    let again = ground.store.put_release(release(&app, "a"), fence).await?;
    same("the number of the earlier content", again.number, ReleaseNumber(3))?;
    same("the first release", ground.store.release(&app, ReleaseNumber(1)).await?.as_ref(), Some(&kept[0]))
}

async fn pages(ground: &StoreGround) -> CaseResult {
    let (app, ..) = keep(ground, &["a", "b", "c", "d", "e"]).await?;
    let query = |limit| ReleaseQuery::new(app.clone(), limit);
    same("all", numbers(ground, query(9)).await?, [5, 4, 3, 2, 1])?;
    same("the newest two", numbers(ground, query(2)).await?, [5, 4])?;
    same("the next two", numbers(ground, query(2).before(ReleaseNumber(4))).await?, [3, 2])?;
    same("the rest", numbers(ground, query(2).before(ReleaseNumber(2))).await?, [1])?;
    nothing("releases before the first", &numbers(ground, query(2).before(ReleaseNumber(1))).await?)?;
    same("before what is not there", numbers(ground, query(1).before(ReleaseNumber(77))).await?, [5])?;
    nothing("releases where none are asked for", &numbers(ground, query(0)).await?)
}

async fn removed(ground: &StoreGround) -> CaseResult {
    let (app, fence, _) = keep(ground, &["a", "b", "c"]).await?;
    ground.store.remove_releases(&app, &[ReleaseNumber(1), ReleaseNumber(3)], fence).await?;
    same("what is left", numbers(ground, ReleaseQuery::new(app.clone(), 9)).await?, [2])?;
    // The newest that is left has another content than the one that was removed.
    let next = ground.store.put_release(release(&app, "c"), fence).await?;
    same("the next number", next.number, ReleaseNumber(4))?;
    ground.store.remove_releases(&app, &[ReleaseNumber(2), ReleaseNumber(4)], fence).await?;
    let next = ground.store.put_release(release(&app, "c"), fence).await?;
    same("the next number when nothing is left", next.number, ReleaseNumber(5))
}

async fn removed_twice(ground: &StoreGround) -> CaseResult {
    let (app, fence, _) = keep(ground, &["a", "b"]).await?;
    for _ in 0..2 {
        let all = [ReleaseNumber(1), ReleaseNumber(77), ReleaseNumber(u64::MAX)];
        ground.store.remove_releases(&app, &all, fence).await?;
        same("what is left", numbers(ground, ReleaseQuery::new(app.clone(), 9)).await?, [2])?;
    }
    ground.store.remove_releases(&app, &[], fence).await?;
    same("what is left", numbers(ground, ReleaseQuery::new(app, 9)).await?, [2])
}

async fn put_at_once(ground: &StoreGround) -> CaseResult {
    let (app, lease) = ground.leased().await?;
    let mut calls = Vec::new();
    for number in 0..8 {
        let (store, release) = (ground.another_handle().await?, release(&app, &format!("image-{number}")));
        calls.push(async move { store.put_release(release, lease.fence).await });
    }
    let mut given = BTreeSet::new();
    for answer in at_once(calls).await? {
        given.insert(answer?.number.0);
    }
    same("the numbers that were given", given, (1..=8).collect::<BTreeSet<u64>>())
}

async fn put_dropped(ground: &StoreGround) -> CaseResult {
    for polls in [1, 2, 4, 8] {
        let (app, lease) = ground.leased().await?;
        begin_and_drop(ground.store.put_release(release(&app, "a"), lease.fence), polls).await;
        let again = ground.store.put_release(release(&app, "a"), lease.fence).await?;
        same("the number", again.number, ReleaseNumber(1))?;
        same("what is kept", numbers(ground, ReleaseQuery::new(app, 9)).await?, [1])?;
    }
    Ok(())
}

async fn known_apps(ground: &StoreGround) -> CaseResult {
    let (with_release, ..) = keep(ground, &["a"]).await?;
    let (with_deployment, ..) = ground.begun().await?;
    let apps = ground.store.apps().await?;
    let count = |app: &AppName| apps.iter().filter(|known| *known == app).count();
    same("how often an application with a release is listed", count(&with_release), 1)?;
    same("how often an application with a deployment is listed", count(&with_deployment), 1)?;
    same("how often an unknown application is listed", count(&ground.app()), 0)
}

async fn forgotten(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    ground.store.put_release(release(&app, "a"), lease.fence).await?;
    let cancel = Signal::Cancel { by: "ann".to_owned() };
    ground.store.send_signal(SendSignal::new(id.clone(), cancel, at(1))).await?;
    let (neighbour, _, theirs) = keep(ground, &["a"]).await?;

    for _ in 0..2 {
        ground.store.forget_app(&app, lease.fence).await?;
        check(!ground.store.apps().await?.contains(&app), "a forgotten application is listed")?;
        nothing("releases of a forgotten application", &numbers(ground, ReleaseQuery::new(app.clone(), 9)).await?)?;
        same("its deployments", ground.store.deployments(DeploymentQuery::new(app.clone(), 9)).await?, [])?;
        same("its journal", ground.store.journal(&id, 1).await?, [])?;
        same("its signals", ground.store.signals(&id).await?, [])?;
    }
    same("a neighbour's releases", ground.store.releases(ReleaseQuery::new(neighbour, 9)).await?, theirs)?;
    let next = ground.store.acquire_lease(wanted(&app, "second", 30_000)).await?;
    check(next.fence > lease.fence, format!("fence {} after {}", next.fence, lease.fence))?;
    ground.store.append(append(&app, &id, next.fence, entries(1..=1, next.fence))).await?;
    same("the journal that begins anew", ground.store.journal(&id, 1).await?.len(), 1)?;
    let number = ground.store.put_release(release(&app, "a"), next.fence).await?.number;
    same("the number after the forgotten release", number, ReleaseNumber(2))
}

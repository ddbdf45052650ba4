//! Several processes on one store, and processes that are killed while they write.

use std::collections::BTreeSet;

use deployer_core::{DeploymentId, Entry, ErrorKind, JournalEvent, Lease};

use super::{StoreGround, TTL, app_named, append, at, entry, wanted};
use crate::conformance::case::{Case, CaseResult, check, fails, same};
use crate::conformance::profile::Need;
use crate::conformance::writer::{Errand, Writer};

pub(super) fn cases() -> Vec<Case<StoreGround>> {
    vec![
        Case::new("store/processes-at-once-lose-nothing", |s| Box::pin(at_once(s))).needs(Need::Processes),
        Case::new("store/a-killed-writer-loses-nothing-that-it-was-promised", |s| Box::pin(killed(s)))
            .needs(Need::Processes),
        Case::new("store/a-living-process-keeps-its-lease", |s| Box::pin(living(s))).needs(Need::Processes),
        Case::new("store/the-lease-of-a-killed-process-is-taken-at-once", |s| Box::pin(dead(s)))
            .needs(Need::Processes)
            .needs(Need::OwnerDeath),
    ]
}

/// A process that takes the lease of an application so many times and appends so many entries each time.
fn errand(ground: &StoreGround, id: &DeploymentId, owner: &str, leases: u64, entries: u64) -> Errand {
    let app = app_of(id);
    Errand {
        bench: ground.bench_name.clone(),
        place: ground.place.clone(),
        app,
        deployment: id.clone(),
        owner: owner.to_owned(),
        leases,
        entries,
    }
}

fn app_of(id: &DeploymentId) -> deployer_core::AppName {
    app_named(&format!("conf-{}", id.as_str()))
}

fn owner_of(entry: &Entry) -> &str {
    match &entry.event {
        JournalEvent::Resumed { owner } => owner,
        _ => "nobody",
    }
}

async fn journal(ground: &StoreGround, id: &DeploymentId) -> CaseResult<Vec<Entry>> {
    Ok(ground.store.journal(id, 1).await?)
}

async fn at_once(ground: &StoreGround) -> CaseResult {
    let id = DeploymentId::fresh();
    let owners = ["a", "b", "c", "d"];
    let mut writers = Vec::new();
    for owner in owners {
        writers.push(Writer::start(&errand(ground, &id, owner, 8, 2))?);
    }
    let mut promised = Vec::new();
    for writer in writers {
        promised.push(writer.finish()?);
    }
    let journal = journal(ground, &id).await?;
    let numbers: Vec<u64> = journal.iter().map(|entry| entry.seq).collect();
    same("the numbers in the journal", numbers, (1..=64).collect::<Vec<u64>>())?;
    for (owner, promised) in owners.into_iter().zip(promised) {
        let kept: Vec<u64> = journal.iter().filter(|entry| owner_of(entry) == owner).map(|entry| entry.seq).collect();
        same(&format!("what was kept of {owner}"), kept, promised)?;
    }
    for pair in journal.windows(2) {
        let rises = pair[0].fence < pair[1].fence;
        let goes_on = pair[0].fence == pair[1].fence && owner_of(&pair[0]) == owner_of(&pair[1]);
        check(rises || goes_on, format!("two writers had one fence, or it fell: {pair:?}"))?;
    }
    let fences: BTreeSet<u64> = journal.iter().map(|entry| entry.fence).collect();
    same("how many fences wrote", fences.len(), 32)?;
    ground.bench.examine(&ground.place).await
}

async fn killed(ground: &StoreGround) -> CaseResult {
    let id = DeploymentId::fresh();
    let app = app_of(&id);
    let mut promised = BTreeSet::new();
    for (round, kill_after) in (0_i64..).zip([1, 2, 5, 11, 23]) {
        let mut writer = Writer::start(&errand(ground, &id, &format!("victim {round}"), 1, 1_000_000))?;
        promised.extend(writer.promises(kill_after)?);
        promised.extend(writer.kill()?);
        ground.bench.examine(&ground.place).await?;

        let kept: Vec<u64> = journal(ground, &id).await?.iter().map(|entry| entry.seq).collect();
        let lost: Vec<&u64> = promised.iter().filter(|seq| !kept.contains(seq)).collect();
        check(lost.is_empty(), format!("entries were promised and are lost: {lost:?}"))?;
        same("the numbers", kept.clone(), (1..=kept.len() as u64).collect::<Vec<u64>>())?;
        let records = ground.store.deployments(deployer_core::DeploymentQuery::new(app.clone(), 9)).await?;
        same("the record's last entry", records.first().map(|record| record.last_seq), kept.last().copied())?;

        // Whether or not the store can tell that the victim is dead, its lease has ended by then.
        let (now, next) = ((round + 1) * 60_000, kept.len() as u64 + 1);
        let heir = ground.store.acquire_lease(wanted(&app, "heir", now)).await?;
        let before = heir.fence - 1;
        let victims = Lease::new(app.clone(), format!("victim {round}"), before, TTL, at(0));
        let stale = append(&app, &id, victims.fence, vec![entry(next, victims.fence, "victim")]);
        fails("appending with the victim's fence", ground.store.append(stale).await, ErrorKind::Conflict)?;
        ground.store.append(append(&app, &id, heir.fence, vec![entry(next, heir.fence, "heir")])).await?;
        promised.insert(next);
        ground.store.release_lease(&heir).await?;
    }
    Ok(())
}

async fn living(ground: &StoreGround) -> CaseResult {
    let id = DeploymentId::fresh();
    let mut writer = Writer::start(&errand(ground, &id, "living", 1, 1_000_000))?;
    writer.promises(1)?;
    let thief = ground.store.acquire_lease(wanted(&app_of(&id), "thief", 1)).await;
    let dead = ground.store.lease_holder(&app_of(&id)).await?.map(|holder| holder.dead);
    writer.kill()?;
    fails("taking the lease of a process that lives", thief, ErrorKind::Busy)?;
    same("whether it is thought dead", dead, Some(false))
}

async fn dead(ground: &StoreGround) -> CaseResult {
    let id = DeploymentId::fresh();
    let mut writer = Writer::start(&errand(ground, &id, "victim", 1, 1_000_000))?;
    writer.promises(1)?;
    writer.kill()?;
    let Some(holder) = ground.store.lease_holder(&app_of(&id)).await? else {
        return Err("a killed process leaves its lease behind".into());
    };
    check(holder.expires_at > at(1), "the lease has not expired")?;
    same("whether the holder is known to be dead", holder.dead, true)?;
    let heir = ground.store.acquire_lease(wanted(&app_of(&id), "heir", 1)).await?;
    check(heir.fence > holder.fence, format!("fence {} after {}", heir.fence, holder.fence))
}

//! Journals and the records of deployments.

use deployer_core::{
    Append, DeploymentId, DeploymentQuery, Entry, ErrorKind, JournalEvent, Outcome, Signal, StepId, Verdict,
};

use super::{StoreGround, append, at, at_once, entries, entry, record, wanted};
use crate::conformance::case::{Case, CaseResult, begin_and_drop, check, fails, refused, same};
use crate::conformance::profile::Need;

pub(super) fn cases() -> Vec<Case<StoreGround>> {
    vec![
        Case::new("store/no-deployments-is-an-empty-answer", |s| Box::pin(none(s))),
        Case::new("store/a-journal-is-kept-in-order-and-read-from-any-entry", |s| Box::pin(in_order(s))),
        Case::new("store/every-kind-of-entry-is-kept-as-it-was-written", |s| Box::pin(kinds(s))),
        Case::new("store/append-refuses-a-number-that-is-not-the-next", |s| Box::pin(not_next(s))),
        Case::new("store/append-refuses-gaps-among-its-entries", |s| Box::pin(gaps(s))),
        Case::new("store/append-again-is-refused-and-changes-nothing", |s| Box::pin(again(s))),
        Case::new("store/append-keeps-entries-and-record-or-neither", |s| Box::pin(both_or_neither(s))),
        Case::new("store/a-deployment-belongs-to-one-application", |s| Box::pin(one_application(s))),
        Case::new("store/deployments-are-listed-newest-first-in-pages", |s| Box::pin(pages(s))),
        Case::new("store/one-of-many-appends-at-once-is-kept", |s| Box::pin(one_of_many(s))),
        Case::new("store/handles-see-the-same-journal", |s| Box::pin(handles(s))),
        Case::new("store/append-may-be-dropped-and-repeated", |s| Box::pin(dropped(s))),
        Case::new("store/a-large-append-is-kept-whole", |s| Box::pin(large(s))),
        Case::new("store/an-entry-that-cannot-be-read-is-corrupt", |s| Box::pin(damaged(s))).needs(Need::Damage),
    ]
}

async fn none(ground: &StoreGround) -> CaseResult {
    let (app, _) = ground.leased().await?;
    same("deployments", ground.store.deployments(DeploymentQuery::new(app, 9)).await?, [])?;
    let id = DeploymentId::fresh();
    for from in [0, 1, 7, u64::MAX] {
        same("the journal of an unknown deployment", ground.store.journal(&id, from).await?, [])?;
    }
    Ok(())
}

async fn in_order(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    ground.store.append(append(&app, &id, lease.fence, entries(2..=4, lease.fence))).await?;
    ground.store.append(append(&app, &id, lease.fence, entries(5..=5, lease.fence))).await?;
    let all = entries(1..=5, lease.fence);
    for from in 0..=7_u64 {
        let skipped = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX).min(all.len());
        same(&format!("the journal from {from}"), ground.store.journal(&id, from).await?.as_slice(), &all[skipped..])?;
    }
    same("the journal from far away", ground.store.journal(&id, u64::MAX).await?, [])
}

async fn kinds(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    let step = StepId(7);
    let strange = "line one\nline \"two\" \\ äöü 🦀 '; --".to_owned();
    let by = strange.clone();
    let events = [
        JournalEvent::StepStarted { step, attempt: 3 },
        JournalEvent::StepFinished { step, outcome: Outcome::Changed, detail: vec![strange, String::new()] },
        JournalEvent::Signalled { signal: Signal::Cancel { by } },
        JournalEvent::Closed { verdict: Verdict::Promoted { leftovers: vec!["a volume".to_owned()] } },
    ];
    let written: Vec<Entry> =
        (2..).zip(events).map(|(seq, event)| Entry::new(seq, at(99), lease.fence, event)).collect();
    ground.store.append(append(&app, &id, lease.fence, written.clone())).await?;
    same("what is read", ground.another_handle().await?.journal(&id, 2).await?, written)
}

/// What a thousand services come to: their plan in one entry, and an entry for each that begins.
async fn large(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    let line = "ä line of 64 bytes that somebody has written to the output, so".to_owned();
    let long = JournalEvent::StepFinished { step: StepId(1), outcome: Outcome::Changed, detail: vec![line; 12_000] };
    let mut written = vec![Entry::new(2, at(1), lease.fence, long)];
    let begins = (3..=1_000).map(|seq| (seq, JournalEvent::StepStarted { step: StepId(7), attempt: 1 }));
    written.extend(begins.map(|(seq, event)| Entry::new(seq, at(2), lease.fence, event)));
    ground.store.append(append(&app, &id, lease.fence, written.clone())).await?;
    let handle = ground.another_handle().await?;
    check(handle.journal(&id, 2).await? == written, "a large append must be read as it was written")?;
    check(handle.journal(&id, 700).await? == written[698..], "and from any of its entries on")
}

async fn not_next(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    for first in [0, 1, 3, 77] {
        let wrong = ground.store.append(append(&app, &id, lease.fence, entries(first..=first, lease.fence))).await;
        fails(&format!("appending number {first} where 2 is next"), wrong, ErrorKind::Conflict)?;
    }
    let unknown = DeploymentId::fresh();
    let wrong = ground.store.append(append(&app, &unknown, lease.fence, entries(2..=2, lease.fence))).await;
    fails("beginning a journal with number 2", wrong, ErrorKind::Conflict)?;
    same("the journal that was not begun", ground.store.journal(&unknown, 1).await?, [])?;
    same("the journal", ground.store.journal(&id, 1).await?, entries(1..=1, lease.fence))
}

async fn gaps(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    for numbers in [[2, 4], [2, 2], [3, 2]] {
        let wrong = numbers.map(|seq| entry(seq, lease.fence, "first")).to_vec();
        let appended = ground.store.append(append(&app, &id, lease.fence, wrong)).await;
        refused(&format!("appending the numbers {numbers:?} where 2 is next"), appended)?;
    }
    same("the journal", ground.store.journal(&id, 1).await?, entries(1..=1, lease.fence))
}

async fn again(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    let request = append(&app, &id, lease.fence, entries(2..=3, lease.fence));
    ground.store.append(request.clone()).await?;
    // As after a lost reply: whoever appends must look, and finds its own entries.
    fails("appending the same entries again", ground.store.append(request).await, ErrorKind::Conflict)?;
    same("the journal", ground.store.journal(&id, 1).await?, entries(1..=3, lease.fence))
}

async fn both_or_neither(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    let query = DeploymentQuery::new(app.clone(), 9);
    same("the record", ground.store.deployments(query.clone()).await?, [record(&app, &id, 1)])?;
    ground.store.append(append(&app, &id, lease.fence, entries(2..=4, lease.fence))).await?;
    same("the record after an append", ground.store.deployments(query.clone()).await?, [record(&app, &id, 4)])?;

    let mut closed = record(&app, &id, 9);
    closed.finished_at = Some(at(7));
    closed.verdict = Some(Verdict::Cancelled { by: "ann".to_owned() });
    let stale = Append::new(closed.clone(), lease.fence, entries(9..=9, lease.fence));
    fails("appending number 9 where 5 is next", ground.store.append(stale).await, ErrorKind::Conflict)?;
    same("the record after a refused append", ground.store.deployments(query.clone()).await?, [record(&app, &id, 4)])?;

    closed.last_seq = 5;
    ground.store.append(Append::new(closed.clone(), lease.fence, entries(5..=5, lease.fence))).await?;
    same("the record of a closed deployment", ground.store.deployments(query).await?, [closed])
}

async fn one_application(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    let (other, theirs) = ground.leased().await?;
    let taken = ground.store.append(append(&other, &id, theirs.fence, entries(2..=2, theirs.fence))).await;
    refused("appending to another application's deployment", taken)?;
    same("the journal", ground.store.journal(&id, 1).await?, entries(1..=1, lease.fence))?;
    same("the other's deployments", ground.store.deployments(DeploymentQuery::new(other, 9)).await?, [])?;
    let ours = ground.store.deployments(DeploymentQuery::new(app.clone(), 9)).await?;
    same("its own deployments", ours, [record(&app, &id, 1)])
}

async fn pages(ground: &StoreGround) -> CaseResult {
    let (app, lease) = ground.leased().await?;
    let made: Vec<DeploymentId> = (0..4).map(|_| DeploymentId::fresh()).collect();
    // Whenever its id was made, what is opened later is newer.
    let mut ids: Vec<DeploymentId> = [1, 0, 3, 2].into_iter().map(|index: usize| made[index].clone()).collect();
    for id in &ids {
        ground.store.append(append(&app, id, lease.fence, entries(1..=1, lease.fence))).await?;
    }
    // Going on with an older one does not make it newer.
    ground.store.append(append(&app, &ids[0], lease.fence, entries(2..=2, lease.fence))).await?;
    ids.reverse();
    let list = async |query| -> CaseResult<Vec<DeploymentId>> {
        Ok(ground.store.deployments(query).await?.into_iter().map(|record| record.id).collect())
    };
    let query = |limit| DeploymentQuery::new(app.clone(), limit);
    same("all", list(query(9)).await?, ids.clone())?;
    same("the newest two", list(query(2)).await?.as_slice(), &ids[..2])?;
    same("the next two", list(query(2).before(ids[1].clone())).await?.as_slice(), &ids[2..])?;
    same("nothing more", list(query(2).before(ids[3].clone())).await?, [])?;
    same("at most none", list(query(0)).await?, [])
}

async fn one_of_many(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    for seq in 2..=6 {
        let mut calls = Vec::new();
        for number in 0..6 {
            let wanted = entry(seq, lease.fence, &format!("writer {number}"));
            let request = append(&app, &id, lease.fence, vec![wanted.clone()]);
            let store = ground.another_handle().await?;
            calls.push(async move { store.append(request).await.map(|()| wanted) });
        }
        let (mut kept, mut others) = (Vec::new(), Vec::new());
        for answer in at_once(calls).await? {
            match answer {
                Ok(entry) => kept.push(entry),
                Err(error) => others.push(error.kind()),
            }
        }
        same("the entries that were acknowledged", kept.len(), 1)?;
        check(others.iter().all(|kind| *kind == ErrorKind::Conflict), format!("the others failed with {others:?}"))?;
        same("what is kept", ground.store.journal(&id, seq).await?, kept)?;
    }
    Ok(())
}

async fn handles(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    let other = ground.another_handle().await?;
    same("what another handle reads", other.journal(&id, 1).await?, entries(1..=1, lease.fence))?;
    other.append(append(&app, &id, lease.fence, entries(2..=2, lease.fence))).await?;
    same("what this handle reads", ground.store.journal(&id, 1).await?, entries(1..=2, lease.fence))?;
    let heir = other.acquire_lease(wanted(&app, "second", 30_000)).await?;
    let stale = ground.store.append(append(&app, &id, lease.fence, entries(3..=3, lease.fence))).await;
    fails("appending with the fence that another handle's lease has outdated", stale, ErrorKind::Conflict)?;
    ground.store.append(append(&app, &id, heir.fence, entries(3..=3, heir.fence))).await?;
    same("the length of the journal", other.journal(&id, 1).await?.len(), 3)
}

async fn dropped(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    for (seq, polls) in (2..).zip([1, 1, 2, 3, 5, 8, 13]) {
        let request = append(&app, &id, lease.fence, entries(seq..=seq, lease.fence));
        begin_and_drop(ground.store.append(request.clone()), polls).await;
        // It was done, is done meanwhile, or is done now: once, in any event.
        if let Err(error) = ground.store.append(request).await {
            same("the kind of the error", error.kind(), ErrorKind::Conflict)?;
        }
        same("the journal", ground.store.journal(&id, 1).await?, entries(1..=seq, lease.fence))?;
        let records = ground.store.deployments(DeploymentQuery::new(app.clone(), 9)).await?;
        same("the record", records, [record(&app, &id, seq)])?;
    }
    Ok(())
}

async fn damaged(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    ground.store.append(append(&app, &id, lease.fence, entries(2..=3, lease.fence))).await?;
    ground.bench.damage(&ground.place, &id, 2).await?;
    for from in [1, 2] {
        let read = ground.store.journal(&id, from).await;
        let error = fails("reading a journal that is damaged", read, ErrorKind::Corrupt)?;
        check(error.to_string().contains('2'), format!("the error must name the entry: {error}"))?;
    }
    same("the journal behind it", ground.store.journal(&id, 3).await?, entries(3..=3, lease.fence))
}

//! Signals.

use deployer_core::{DeploymentId, ErrorKind, SendSignal, Signal};

use super::{StoreGround, at, at_once, wanted};
use crate::conformance::case::{Case, CaseResult, fails, same};

pub(super) fn cases() -> Vec<Case<StoreGround>> {
    vec![
        Case::new("store/no-signals-is-an-empty-answer", |s| Box::pin(none(s))),
        Case::new("store/signals-are-kept-once-and-in-order", |s| Box::pin(in_order(s))),
        Case::new("store/signals-need-a-deployment", |s| Box::pin(unknown(s))),
        Case::new("store/signals-need-no-lease", |s| Box::pin(without_lease(s))),
        Case::new("store/signals-sent-at-once-are-all-kept", |s| Box::pin(sent_at_once(s))),
    ]
}

fn cancel(by: &str) -> Signal {
    Signal::Cancel { by: by.to_owned() }
}

async fn none(ground: &StoreGround) -> CaseResult {
    let (.., id) = ground.begun().await?;
    same("the signals of a deployment that got none", ground.store.signals(&id).await?, [])?;
    same("the signals of an unknown deployment", ground.store.signals(&DeploymentId::fresh()).await?, [])
}

async fn in_order(ground: &StoreGround) -> CaseResult {
    let (.., id) = ground.begun().await?;
    let (.., other) = ground.begun().await?;
    let signals = [
        Signal::Promote { by: "bob".to_owned() },
        cancel("ann"),
        Signal::Promote { by: "ann".to_owned() },
        Signal::Supersede { by: "another \"deployment\"".to_owned() },
    ];
    for (time, signal) in (1..).zip(signals.iter().chain(&signals)) {
        ground.store.send_signal(SendSignal::new(id.clone(), signal.clone(), at(time))).await?;
    }
    ground.store.send_signal(SendSignal::new(other.clone(), cancel("carl"), at(50))).await?;
    same("the signals", ground.another_handle().await?.signals(&id).await?, signals)?;
    same("the signals of another deployment", ground.store.signals(&other).await?, [cancel("carl")])
}

async fn unknown(ground: &StoreGround) -> CaseResult {
    let id = DeploymentId::fresh();
    let sent = ground.store.send_signal(SendSignal::new(id.clone(), cancel("ann"), at(1))).await;
    fails("sending a signal to no deployment", sent, ErrorKind::NotFound)?;
    same("its signals", ground.store.signals(&id).await?, [])
}

async fn without_lease(ground: &StoreGround) -> CaseResult {
    let (app, lease, id) = ground.begun().await?;
    ground.store.release_lease(&lease).await?;
    ground.store.send_signal(SendSignal::new(id.clone(), cancel("ann"), at(1))).await?;
    ground.store.acquire_lease(wanted(&app, "second", 2)).await?;
    let other = ground.another_handle().await?;
    other.send_signal(SendSignal::new(id.clone(), cancel("bob"), at(3))).await?;
    same("the signals", ground.store.signals(&id).await?, [cancel("ann"), cancel("bob")])
}

async fn sent_at_once(ground: &StoreGround) -> CaseResult {
    let (.., id) = ground.begun().await?;
    let mut calls = Vec::new();
    for number in 0..12 {
        let store = ground.another_handle().await?;
        // Each from two senders.
        let request = SendSignal::new(id.clone(), cancel(&format!("operator {:02}", number / 2)), at(number));
        calls.push(async move { store.send_signal(request).await });
    }
    for answer in at_once(calls).await? {
        answer?;
    }
    let mut kept = ground.store.signals(&id).await?;
    kept.sort();
    let expected: Vec<Signal> = (0..6).map(|number| cancel(&format!("operator {number:02}"))).collect();
    same("the signals", kept, expected)
}

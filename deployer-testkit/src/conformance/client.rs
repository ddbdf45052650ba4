//! Somebody who sends requests while something happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::case::{CaseFailure, CaseResult};
use super::site::{Entrance, Pace, Scope};

/// The pause between two requests.
const PAUSE: Duration = Duration::from_millis(10);

/// Somebody who sends one request after the other until it is asked what became of them.
pub(super) struct Client {
    done: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<Result<String, String>>>,
}

impl Client {
    /// Begins to send requests to the scope's application.
    pub(super) fn start(scope: &Arc<dyn Scope>, entrance: Entrance) -> Self {
        let (scope, done) = (Arc::clone(scope), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&done);
        let task = tokio::spawn(async move { ask_on(&*scope, &entrance, &stop).await });
        Self { done, task }
    }

    /// Stops, and answers how many requests each version has answered; fails if one was lost, or none was sent.
    pub(super) async fn lost_nothing(mut self) -> CaseResult<BTreeMap<String, u32>> {
        self.done.store(true, Ordering::Relaxed);
        let answers = (&mut self.task).await.map_err(|error| CaseFailure::new(error.to_string()))?;
        let (count, mut served) = (answers.len(), BTreeMap::new());
        if count == 0 {
            return Err("no request was sent at all".into());
        }
        for (number, answer) in answers.into_iter().enumerate() {
            let lost = |why| CaseFailure::new(format!("request {} of {count} was lost: {why}", number + 1));
            *served.entry(answer.map_err(lost)?).or_default() += 1;
        }
        Ok(served)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

async fn ask_on(scope: &dyn Scope, entrance: &Entrance, done: &AtomicBool) -> Vec<Result<String, String>> {
    let mut answers = Vec::new();
    while !done.load(Ordering::Relaxed) {
        answers.push(scope.request(&scope.app(), entrance, Pace::Quick).await);
        scope.clock().sleep(PAUSE).await;
    }
    answers
}

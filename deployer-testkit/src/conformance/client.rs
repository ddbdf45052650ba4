//! Somebody who sends requests while something happens.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::case::{CaseFailure, CaseResult, eventually};
use super::site::{Entrance, Pace, Scope};

/// The pause between two requests.
const PAUSE: Duration = Duration::from_millis(10);

/// Somebody who sends one request after the other until it is asked what became of them.
pub(super) struct Client {
    scope: Arc<dyn Scope>,
    answers: Answers,
    done: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

/// The version that answered each request, or why none did.
#[derive(Clone, Debug, Default)]
struct Answers(Arc<Mutex<Vec<Result<String, String>>>>);

impl Answers {
    fn lock(&self) -> MutexGuard<'_, Vec<Result<String, String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Begins to send requests to the scope's application.
    pub(super) fn start(scope: &Arc<dyn Scope>, entrance: Entrance) -> Self {
        let (answers, done) = (Answers::default(), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(ask_on(Arc::clone(scope), entrance, answers.clone(), Arc::clone(&done)));
        Self { scope: Arc::clone(scope), answers, done, task }
    }

    /// Returns once this version has answered two more requests: the second was sent after this was called.
    pub(super) async fn answered_by(&self, version: &str) -> CaseResult {
        let before = self.answers.lock().len();
        eventually(&self.scope.clock(), &format!("answers of {version} to somebody who keeps asking"), async || {
            let answers = self.answers.lock();
            let matching = answers.iter().skip(before).filter(|answer| answer.as_deref() == Ok(version));
            Ok((matching.count() >= 2).then_some(()))
        })
        .await
    }

    /// Stops, and answers how many requests each version has answered; fails if one was lost, or none was sent.
    pub(super) async fn lost_nothing(mut self) -> CaseResult<BTreeMap<String, u32>> {
        self.done.store(true, Ordering::Relaxed);
        (&mut self.task).await.map_err(|error| CaseFailure::new(error.to_string()))?;
        let answers = std::mem::take(&mut *self.answers.lock());
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

async fn ask_on(scope: Arc<dyn Scope>, entrance: Entrance, answers: Answers, done: Arc<AtomicBool>) {
    while !done.load(Ordering::Relaxed) {
        let answer = scope.request(&scope.app(), &entrance, Pace::Quick).await;
        answers.lock().push(answer);
        scope.clock().sleep(PAUSE).await;
    }
}

//! One case: an id, when it applies, and what it checks.

use std::fmt::{self, Debug};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use deployer_core::{Clock, Error, ErrorKind, TargetRegistration};

use super::profile::{Need, Profile};

/// What a case, or what a bench or site does for it, comes to.
pub type CaseResult<T = ()> = Result<T, CaseFailure>;

/// Why a case failed, in words that its reader can do something with.
#[derive(Debug)]
pub struct CaseFailure(String);

impl CaseFailure {
    /// A failure in these words.
    #[must_use]
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    /// A failure that says where in the suite it was found.
    #[track_caller]
    fn here(why: impl fmt::Display) -> Self {
        let place = Location::caller();
        Self(format!("{why}\n  at {}:{}", place.file(), place.line()))
    }

    /// The same failure, with what was being done before it.
    #[must_use]
    pub fn while_trying_to(self, what: impl fmt::Display) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

impl fmt::Display for CaseFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CaseFailure {}

impl From<Error> for CaseFailure {
    fn from(error: Error) -> Self {
        Self(format!("a call failed that must not: {}\n  {error:?}", error.report()))
    }
}

impl From<String> for CaseFailure {
    fn from(why: String) -> Self {
        Self(why)
    }
}

impl From<&str> for CaseFailure {
    fn from(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl From<std::io::Error> for CaseFailure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<Box<dyn std::error::Error + Send + Sync>> for CaseFailure {
    fn from(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        Self(error.to_string())
    }
}

/// Fails unless it holds.
#[track_caller]
pub(crate) fn check(holds: bool, otherwise: impl fmt::Display) -> CaseResult {
    if holds { Ok(()) } else { Err(CaseFailure::here(otherwise)) }
}

/// Fails unless what was found is what is expected.
#[track_caller]
pub(crate) fn same<T: PartialEq<U> + Debug, U: Debug>(what: &str, found: T, expected: U) -> CaseResult {
    if found == expected {
        return Ok(());
    }
    Err(CaseFailure::here(format!("{what}\n  found:    {found:?}\n  expected: {expected:?}")))
}

/// Fails if there is any.
#[track_caller]
pub(crate) fn nothing<T: Debug>(what: &str, found: &[T]) -> CaseResult {
    if found.is_empty() { Ok(()) } else { Err(CaseFailure::here(format!("there must be no {what}: {found:?}"))) }
}

/// Fails unless a call failed with this kind; answers its error.
#[track_caller]
pub(crate) fn fails<T: Debug>(what: &str, result: Result<T, Error>, kind: ErrorKind) -> CaseResult<Error> {
    match result {
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => Err(CaseFailure::here(format!("{what} must fail with `{kind}`, and failed with {error:?}"))),
        Ok(answer) => Err(CaseFailure::here(format!("{what} must fail with `{kind}`, and answered {answer:?}"))),
    }
}

/// Fails unless a call was refused, with whatever kind of error.
#[track_caller]
pub(crate) fn refused<T: Debug>(what: &str, result: Result<T, Error>) -> CaseResult<Error> {
    match result {
        Err(error) => Ok(error),
        Ok(answer) => Err(CaseFailure::here(format!("{what} must be refused, and answered {answer:?}"))),
    }
}

/// Asks again and again until there is an answer. The limit only keeps a broken backend from holding up the run.
pub(crate) async fn eventually<T>(
    clock: &Arc<dyn Clock>,
    what: &str,
    ask: impl AsyncFn() -> CaseResult<Option<T>>,
) -> CaseResult<T> {
    const LIMIT: Duration = Duration::from_secs(60);
    const PAUSE: Duration = Duration::from_millis(20);
    let begun = clock.now();
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if clock.now().since(begun) > LIMIT {
            return Err(CaseFailure::new(format!("{what}: not within {} s", LIMIT.as_secs())));
        }
        clock.sleep(PAUSE).await;
    }
}

/// Begins a call and drops it after it was polled so many times, as when its caller goes away.
pub(crate) async fn begin_and_drop<F: Future>(call: F, polls: u32) -> Option<F::Output> {
    let mut call = std::pin::pin!(call);
    for _ in 0..polls {
        let polled = std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context))).await;
        if let std::task::Poll::Ready(answer) = polled {
            return Some(answer);
        }
        // Lets what the call waits for come nearer.
        tokio::task::yield_now().await;
    }
    None
}

/// What a case runs on: a store or an application, and its surroundings.
type Check<S> = for<'a> fn(&'a S) -> Pin<Box<dyn Future<Output = CaseResult> + 'a>>;

/// One case of a suite.
pub(crate) struct Case<S> {
    /// Never changes: known gaps and reports name it.
    pub(crate) id: &'static str,
    needs: Vec<Need>,
    targets: Option<TargetRegistration>,
    drains: bool,
    pub(crate) check: Check<S>,
}

impl<S> Case<S> {
    pub(crate) fn new(id: &'static str, check: Check<S>) -> Self {
        Self { id, needs: Vec::new(), targets: None, drains: false, check }
    }

    /// Applies only where there is this.
    pub(crate) fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }

    /// Applies only where targets are registered so.
    pub(crate) fn where_targets_are_registered_by(mut self, targets: TargetRegistration) -> Self {
        self.targets = Some(targets);
        self
    }

    /// Applies only where the orchestrator takes instances out of rotation by itself.
    pub(crate) fn where_orchestrator_drains(mut self) -> Self {
        self.drains = true;
        self
    }

    /// Why it does not apply to a backend; nothing, if it does.
    pub(crate) fn not_applicable(&self, profile: &Profile) -> Option<String> {
        if let Some((need, reason)) = self.needs.iter().find_map(|need| Some((need, profile.lacks.get(need)?))) {
            return Some(format!("no {need}: {reason}"));
        }
        if self.targets.is_some_and(|targets| targets != profile.targets) {
            return Some(match profile.targets {
                TargetRegistration::Engine => "the engine registers the targets".to_owned(),
                TargetRegistration::Orchestrator => "the orchestrator registers the targets".to_owned(),
            });
        }
        let left = self.drains && !profile.drains;
        left.then(|| "the orchestrator leaves draining to the engine".to_owned())
    }
}

impl<S> Clone for Case<S> {
    fn clone(&self) -> Self {
        Self { id: self.id, needs: self.needs.clone(), targets: self.targets, drains: self.drains, check: self.check }
    }
}

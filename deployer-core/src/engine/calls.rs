//! The one place where backends are called: deadline, interception, span.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tracing::Instrument;

use crate::backend::{Call, CallInfo, Clock, Intercept, Invocation, Lease, Next};
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::model::{Human, Timestamp};

/// How often a call is tried before it counts as failed.
const ATTEMPTS: u32 = 5;
/// How often a call is tried that was throttled, so for about half a minute: nothing is wrong but the pace.
const ATTEMPTS_IF_THROTTLED: u32 = 12;
/// The pause before the second attempt; it doubles with each further one.
pub(super) const BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause that it doubles to.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// The attempts of a call that have failed so far. Each kind of trouble has its own number: one that was throttled for
/// long is still given a second chance when it hangs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attempts {
    throttled: u32,
    others: u32,
    /// How many of the others took all of their time.
    timeouts: u32,
    /// After how many such it is given up, less one.
    spare: u32,
}

impl Attempts {
    /// Those of a look, whose time is short, and which finds what an earlier one has found out: where a platform throttles it
    /// may take some of them to see everything.
    pub(super) fn of_a_look() -> Self {
        Self { spare: 1, ..Self::default() }
    }

    /// Whether another attempt would only take as long again.
    fn hang(self) -> bool {
        self.timeouts > 1 + self.spare
    }

    /// Counts one, and answers how long to wait before the next, if that makes sense.
    pub(super) fn failed(&mut self, error: &Error) -> Option<Duration> {
        let (count, most) = match error.kind() {
            ErrorKind::Throttled => (&mut self.throttled, ATTEMPTS_IF_THROTTLED),
            _ => (&mut self.others, ATTEMPTS),
        };
        *count += 1;
        self.timeouts += u32::from(error.kind() == ErrorKind::Timeout);
        if *count >= most {
            return None;
        }
        match error.retry() {
            Retry::Soon => Some((BACKOFF * 2_u32.pow(*count - 1)).min(LONGEST_BACKOFF)),
            Retry::After(pause) => Some(pause),
            Retry::Never | Retry::Exhausted => None,
        }
    }
}

/// What a call does to what it is made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing.
    Read,
    /// It changes something that knows nothing of leases: not to be made when ours has run out.
    Change,
    /// It changes the store, which checks the fence itself.
    Fenced,
}

/// Makes backend calls.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    pub(crate) clock: Arc<dyn Clock>,
    intercept: Option<Arc<dyn Intercept>>,
    made: Arc<AtomicU64>,
    /// Until when the lease holds under which calls are made, if they need one.
    lease: Option<Arc<Until>>,
    /// The time of day when the lease was taken, and what the clock had measured then.
    since: Option<(Timestamp, Duration)>,
}

/// Until when a lease holds: by the time of day, as others see it, and by the time that passes evenly. Whoever sets the
/// clock back does not make a lease hold longer.
#[derive(Debug)]
struct Until {
    day: AtomicI64,
    steady: AtomicI64,
}

impl Calls {
    pub(crate) fn new(clock: Arc<dyn Clock>, intercept: Option<Arc<dyn Intercept>>) -> Self {
        Self { clock, intercept, made: Arc::default(), lease: None, since: None }
    }

    /// The same, for calls that change something only as long as this lease holds.
    pub(crate) fn under(&self, lease: &Lease) -> Self {
        let since = (self.clock.now(), self.clock.elapsed());
        // Both times are the same now.
        let until = || AtomicI64::new(lease.expires_at.as_millis());
        let until = Until { day: until(), steady: until() };
        Self { lease: Some(Arc::new(until)), since: Some(since), ..self.clone() }
    }

    /// The time by which a deployment is driven: that of the day when it began, and what has passed since. It goes on
    /// evenly when somebody sets the clock, so that no wait is cut short or drawn out.
    pub(crate) fn now(&self) -> Timestamp {
        match self.since {
            Some((began, then)) => began + self.clock.elapsed().saturating_sub(then),
            None => self.clock.now(),
        }
    }

    /// The lease was renewed.
    pub(crate) fn renewed(&self, lease: &Lease) {
        if let Some(until) = &self.lease {
            let steady = self.now() + lease.expires_at.since(self.clock.now());
            until.day.store(lease.expires_at.as_millis(), Ordering::Relaxed);
            until.steady.store(steady.as_millis(), Ordering::Relaxed);
        }
    }

    /// The frame of a mutating call that may take so long.
    pub(crate) fn frame(&self, key: impl Into<String>, timeout: Duration) -> Call {
        Call::new(key, self.clock.now() + timeout)
    }

    /// Makes a call once. A call that does not answer in time is dropped; nobody knows then whether it had its effect.
    pub(crate) async fn make<T, F>(
        &self,
        operation: &'static str,
        resource: impl fmt::Display,
        access: Access,
        timeout: Duration,
        call: impl FnMut() -> F + Send,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let info = CallInfo::new(number, operation, resource.to_string(), access != Access::Read);
        let span = tracing::debug_span!("call", operation, resource = %info.resource);
        let mut attempt = Attempt { calls: self, access, call, answer: None };
        let made = async {
            let Some(intercept) = &self.intercept else {
                attempt.invoke().await?;
                return Ok(attempt.answer);
            };
            intercept.intercept(&info, &mut Next::new(&mut attempt)).await?;
            Ok(attempt.answer)
        };
        let made = async {
            tokio::select! {
                biased;
                result = made => result,
                () = self.clock.sleep(timeout) => {
                    let message = format!("no answer within {}", Human(timeout));
                    Err(Error::new(ErrorKind::Timeout, message))
                }
            }
        };
        let unanswered = || Error::new(ErrorKind::Internal, "the call was let pass without having been made");
        let result = made.instrument(span).await.and_then(|answer| answer.ok_or_else(unanswered));
        result.map_err(|error| {
            tracing::debug!(operation, resource = %info.resource, %error, "a call failed");
            error.with_operation(operation).with_resource(info.resource)
        })
    }

    /// Makes a call, and again after a pause if it may succeed then. For calls that no journal has attempts of: all of
    /// them may be repeated.
    pub(crate) async fn insist<T, F>(
        &self,
        operation: &'static str,
        resource: impl fmt::Display,
        access: Access,
        timeout: Duration,
        mut call: impl FnMut() -> F + Send,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let mut attempts = Attempts::default();
        loop {
            match self.make(operation, &resource, access, timeout, &mut call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.pause(error, &mut attempts).await?,
            }
        }
    }

    /// Waits until a call that failed may be made again, or gives its error back if that makes no sense.
    pub(crate) async fn pause(&self, error: Error, attempts: &mut Attempts) -> Result<()> {
        let pause = attempts.failed(&error);
        let soon = error.retry() == Retry::Soon;
        // One that has used up all its time is not given the same again and again.
        let hopeless = match error.kind() {
            ErrorKind::Conflict => soon,
            ErrorKind::Timeout => soon && attempts.hang(),
            _ => false,
        };
        let Some(pause) = pause.filter(|_| !hopeless) else { return Err(error) };
        tracing::warn!(%error, "a call failed, trying again");
        self.clock.sleep(pause).await;
        Ok(())
    }
}

/// One attempt of a call, which an interceptor may make several times.
struct Attempt<'a, T, C> {
    calls: &'a Calls,
    access: Access,
    call: C,
    answer: Option<T>,
}

impl<T, C> Attempt<'_, T, C> {
    /// Whoever was held up for longer than its lease holds must not act: somebody else may by now.
    fn check_lease(&self) -> Result<()> {
        let Some(until) = self.calls.lease.as_ref().filter(|_| self.access == Access::Change) else { return Ok(()) };
        let time = |until: &AtomicI64| Timestamp::from_millis(until.load(Ordering::Relaxed));
        let (until, steady) = (time(&until.day), time(&until.steady));
        if self.calls.clock.now() < until && self.calls.now() < steady {
            return Ok(());
        }
        let message = "the lease ran out before the call was made";
        Err(Error::new(ErrorKind::Conflict, message).with_context("ran out at", until.to_string()))
    }
}

#[async_trait]
impl<T, F, C> Invocation for Attempt<'_, T, C>
where
    T: Send,
    F: Future<Output = Result<T>> + Send,
    C: FnMut() -> F + Send,
{
    async fn invoke(&mut self) -> Result<()> {
        self.check_lease()?;
        self.answer = Some((self.call)().await?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_may_take_all_its_time_twice_and_a_look_thrice() {
        let given_up = |mut attempts: Attempts| {
            let hang = Error::new(ErrorKind::Timeout, "no answer").with_retry(Retry::Soon);
            (1..).find(|_| attempts.failed(&hang).is_none() || attempts.hang())
        };
        assert_eq!((given_up(Attempts::default()), given_up(Attempts::of_a_look())), (Some(2), Some(3)));
        // Other trouble before is none of that.
        let mut attempts = Attempts::default();
        for kind in [ErrorKind::Unavailable, ErrorKind::Unavailable, ErrorKind::Timeout] {
            attempts.failed(&Error::new(kind, "trouble").with_retry(Retry::Soon));
        }
        assert!(!attempts.hang());
    }
}

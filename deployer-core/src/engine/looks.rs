//! Looking at what is there of an application: shared by the steps of a deployment, and no more often than the platform likes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use super::calls::{Access, BACKOFF, Calls};
use crate::backend::{Backend, ObserveApp};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{AppName, Human, Release, ReleaseNumber, Timestamp};
use crate::plan::Observed;

/// How long looking may take. The driver waits for it, and has a lease to renew meanwhile.
pub(super) const LOOK: Duration = Duration::from_secs(4);

/// Looks at an application, for all that the steps of a deployment need to know before and after their calls. Steps that
/// are taken at the same time share looks: a look that began after a step asked for one is as good as its own.
#[derive(Debug)]
pub(super) struct Looks {
    request: ObserveApp,
    begun: AtomicU64,
    /// The newest look that was answered, by its number.
    newest: Mutex<Option<(u64, Result<Look>)>>,
}

/// What was seen, and when that was looked for.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) at: Timestamp,
    pub(super) observed: Arc<Observed>,
}

impl Looks {
    /// Looks that probe the instances of every release that is known, as one that nobody asks would pass for ready. Where
    /// several probe those of one revision differently, what the one says counts that is headed for.
    pub(super) fn new(
        app: &AppName,
        releases: &BTreeMap<ReleaseNumber, Arc<Release>>,
        way: Option<ReleaseNumber>,
    ) -> Self {
        let headed_for = way.and_then(|number| releases.get(&number));
        let services = releases.values().chain(headed_for).flat_map(|release| &release.services);
        // Naming a revision takes a hash of all that it runs: too dear for every look.
        let probes = services.map(|(name, service)| (service.revision(name), service.effective_readiness())).collect();
        let request = ObserveApp::new(app.clone()).with_probe(probes);
        Self { request, begun: AtomicU64::new(0), newest: Mutex::default() }
    }

    /// What is there, as of a time after this was called. Cancel safe: whoever waits for a look that is given up looks itself.
    pub(super) async fn look(&self, backend: &Backend, calls: &Calls) -> Result<Look> {
        let begun = self.begun.load(Ordering::SeqCst);
        let mut newest = self.newest.lock().await;
        if let Some((number, look)) = &*newest
            && *number > begun
        {
            return look.clone();
        }
        // Whoever comes in this moment too takes part.
        tokio::task::yield_now().await;
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let at = calls.now();
        let seen = observe(backend, calls, self.request.clone()).await;
        let look = seen.map(|observed| Look { at, observed: Arc::new(observed) });
        *newest = Some((number, look.clone()));
        look
    }

    /// The same within the time of one look, also where another one has to be waited for: for whoever has a lease to renew.
    pub(super) async fn look_soon(&self, backend: &Backend, calls: &Calls) -> Result<Look> {
        tokio::select! {
            biased;
            look = self.look(backend, calls) => look,
            () = calls.clock.sleep(LOOK) => {
                let message = format!("the application could not be looked at within {}", Human(LOOK));
                Err(Error::new(ErrorKind::Timeout, message).with_resource(self.request.app.as_str()))
            }
        }
    }
}

/// Looks at everything that is there of an application, at both sides at once.
pub(super) async fn observe(backend: &Backend, calls: &Calls, request: ObserveApp) -> Result<Observed> {
    let app = request.app.clone();
    let observe = || backend.orchestrator.observe(request.clone());
    let running = calls.make("orchestrator.observe", &app, Access::Read, LOOK, observe);
    let observe = || backend.balancer.observe(&app);
    let routing = calls.make("balancer.observe", &app, Access::Read, LOOK, observe);
    let (running, routing) = tokio::join!(running, routing);
    Ok(Observed::new(running?, routing?))
}

/// How far apart looks are: twice as far after each that was throttled, as steps share what calls there may be with them,
/// and nearer again after some that were answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    doublings: u32,
    answered: u32,
    /// When something was throttled last that counted.
    throttled_at: Option<Timestamp>,
}

impl Pace {
    const MOST_DOUBLINGS: u32 = 5;
    const ANSWERED: u32 = 8;

    pub(super) fn learn(&mut self, error: Option<&Error>, now: Timestamp) {
        // Steps that share a look share its fate, and that is one sign and not many.
        let told = self.throttled_at.is_some_and(|at| now.since(at) < BACKOFF);
        match error.map(Error::kind) {
            Some(ErrorKind::Throttled) if told => {}
            Some(ErrorKind::Throttled) => {
                let doublings = (self.doublings + 1).min(Self::MOST_DOUBLINGS);
                *self = Self { doublings, answered: 0, throttled_at: Some(now) };
            }
            Some(_) => {}
            None if self.answered + 1 < Self::ANSWERED => self.answered += 1,
            None => *self = Self { doublings: self.doublings.saturating_sub(1), answered: 0, ..*self },
        }
    }

    pub(super) fn spread(self, poll: Duration) -> Duration {
        poll * 2_u32.pow(self.doublings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_throttled_together_slows_looks_down_once() {
        let mut pace = Pace::default();
        let throttled = Error::new(ErrorKind::Throttled, "slow down");
        let at = Timestamp::from_millis;
        for millis in [1_000, 1_001, 1_099] {
            pace.learn(Some(&throttled), at(millis));
        }
        assert_eq!(pace.spread(Duration::from_secs(1)), Duration::from_secs(2));
        pace.learn(Some(&throttled), at(1_100));
        assert_eq!(pace.spread(Duration::from_secs(1)), Duration::from_secs(4));
        for _ in 0..Pace::ANSWERED {
            pace.learn(None, at(1_200));
        }
        assert_eq!(pace.spread(Duration::from_secs(1)), Duration::from_secs(2));
    }
}

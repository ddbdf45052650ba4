//! Simulated requests, every one accounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use deployer_core::{AppName, InstanceId, RevisionId, Route, ServiceName, Timestamp};

use super::instances::Instance;
use super::state::State;

/// Requests that come in at a steady rate.
///
/// ```
/// use std::time::Duration;
/// use deployer_testkit::{Traffic, World};
///
/// let world = World::new();
/// world.start_traffic(Traffic::to_service("shop", "web").per_second(50).taking(Duration::from_millis(200)));
/// world.advance(Duration::from_secs(1));
/// // Nothing serves yet.
/// assert_eq!(world.traffic_report().lost.len(), 51);
/// ```
#[derive(Clone, Debug)]
pub struct Traffic {
    to: To,
    per_second: u32,
    taking: Duration,
    connections: Option<u32>,
}

#[derive(Clone, Debug)]
enum To {
    Service(String, String),
    Route { host: Option<String>, path: String },
}

impl Traffic {
    fn new(to: To) -> Self {
        Self { to, per_second: 10, taking: Duration::from_millis(100), connections: None }
    }

    /// Requests to a service by its name, as other services of the application make them.
    #[must_use]
    pub fn to_service(app: impl Into<String>, service: impl Into<String>) -> Self {
        Self::new(To::Service(app.into(), service.into()))
    }

    /// Requests from outside for this path and, if there is one, this host name.
    #[must_use]
    pub fn to_route(host: Option<&str>, path: impl Into<String>) -> Self {
        Self::new(To::Route { host: host.map(str::to_ascii_lowercase), path: path.into() })
    }

    /// Sets how many come each second; 10 unless it is set.
    #[must_use]
    pub fn per_second(mut self, requests: u32) -> Self {
        self.per_second = requests.max(1);
        self
    }

    /// Sets how long an instance works on each; 100 ms unless it is set.
    #[must_use]
    pub fn taking(mut self, duration: Duration) -> Self {
        self.taking = duration;
        self
    }

    /// Sends the requests over so many connections in turn, which are kept open: each stays with the instance to which
    /// it was opened until that one ends or is told to, as with a balancer that passes on whole connections. Unless it
    /// is set, each request has a connection of its own.
    #[must_use]
    pub fn over_connections(mut self, connections: u32) -> Self {
        self.connections = Some(connections.max(1));
        self
    }
}

/// What became of the requests. `sent == answered() + in_flight + lost.len()` always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrafficReport {
    /// Requests that were made.
    pub sent: u64,
    /// Requests that were answered, by the revision that answered them.
    pub served: BTreeMap<RevisionId, u64>,
    /// Those of them that were answered with a status of 500.
    pub errors: BTreeMap<RevisionId, u64>,
    /// When each revision gave its first answer, and its last.
    pub seen: BTreeMap<RevisionId, (Timestamp, Timestamp)>,
    /// Requests that are being worked on.
    pub in_flight: u64,
    /// Requests that got no answer.
    pub lost: Vec<LostRequest>,
}

impl TrafficReport {
    /// How many requests were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.served.values().sum()
    }

    /// Those of the lost that nobody was given: the load balancer refused them. The others were given to an instance, and
    /// broke off.
    pub fn refused(&self) -> impl Iterator<Item = &LostRequest> {
        self.lost.iter().filter(|lost| lost.reason.is_refusal())
    }
}

/// A request that got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostRequest {
    /// When it came.
    pub sent_at: Timestamp,
    /// When it was lost.
    pub lost_at: Timestamp,
    /// The revision and instance that it was given to, if it was given to one.
    pub given_to: Option<(RevisionId, InstanceId)>,
    /// Why.
    pub reason: LossReason,
}

impl fmt::Display for LostRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.lost_at, self.reason)?;
        if let Some((revision, instance)) = &self.given_to {
            write!(f, " ({instance} of {revision})")?;
        }
        Ok(())
    }
}

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// Nothing is there for the route or name.
    NoEntry,
    /// No pool has weight.
    NoWeight,
    /// The pool whose turn it was has no target that is given requests.
    NoTarget,
    /// It was given to an instance that did not answer.
    TargetDead,
    /// The instance ended while it worked on it.
    InstanceEnded,
    /// The target was dropped, without having been drained, while it worked on it.
    TargetDropped,
}

impl LossReason {
    /// Whether the load balancer had nobody to give the request to.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::NoEntry | Self::NoWeight | Self::NoTarget)
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEntry => "refused: nothing is there for it",
            Self::NoWeight => "refused: no pool has weight",
            Self::NoTarget => "refused: no target in service",
            Self::TargetDead => "lost: given to an instance that does not answer",
            Self::InstanceEnded => "lost: the instance ended while it worked on it",
            Self::TargetDropped => "lost: the target was dropped while it worked on it",
        })
    }
}

/// The requests of the world.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrafficState {
    sources: Vec<Source>,
    requests: BTreeMap<u64, Request>,
    /// The same requests by when they are done.
    ends: BTreeSet<(Timestamp, u64)>,
    per_instance: BTreeMap<InstanceId, u64>,
    next: u64,
    /// The requests that somebody waits for, and how they were lost if they were.
    awaited: BTreeMap<u64, Option<LossReason>>,
    /// What became of the others.
    report: TrafficReport,
}

#[derive(Clone, Debug)]
struct Source {
    traffic: Traffic,
    from: Timestamp,
    made: u64,
    /// To whom each connection that is kept open was opened.
    open: BTreeMap<u64, Assigned>,
}

/// Who is given a request.
type Assigned = ((AppName, ServiceName), RevisionId, InstanceId);

impl Source {
    fn next_at(&self) -> Timestamp {
        self.from + Duration::from_nanos(self.made.saturating_mul(1_000_000_000) / u64::from(self.traffic.per_second))
    }
}

#[derive(Clone, Debug)]
struct Request {
    sent_at: Timestamp,
    ends_at: Timestamp,
    key: (AppName, ServiceName),
    revision: RevisionId,
    instance: InstanceId,
}

impl TrafficState {
    pub(crate) fn in_flight_of(&self, instance: &InstanceId) -> u64 {
        self.per_instance.get(instance).copied().unwrap_or(0)
    }

    /// When an instance is done with what it works on.
    pub(crate) fn busy_until(&self, instance: &InstanceId) -> Option<Timestamp> {
        if self.in_flight_of(instance) == 0 {
            return None;
        }
        let ours = self.requests.values().filter(|request| request.instance == *instance);
        ours.map(|request| request.ends_at).max()
    }

    pub(crate) fn start(&mut self, traffic: Traffic, now: Timestamp) {
        self.sources.push(Source { traffic, from: now, made: 0, open: BTreeMap::new() });
    }

    pub(crate) fn stop(&mut self) {
        self.sources.clear();
    }

    pub(crate) fn report(&self) -> TrafficReport {
        let in_flight = u64::try_from(self.requests.len()).unwrap_or(u64::MAX);
        TrafficReport { in_flight, ..self.report.clone() }
    }

    /// Forgets the requests that have ended.
    pub(crate) fn start_anew(&mut self) {
        let sent = u64::try_from(self.requests.len()).unwrap_or(u64::MAX);
        self.report = TrafficReport { sent, ..TrafficReport::default() };
    }

    fn take(&mut self, id: u64) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        self.ends.remove(&(request.ends_at, id));
        if let Some(count) = self.per_instance.get_mut(&request.instance) {
            *count -= 1;
            if *count == 0 {
                self.per_instance.remove(&request.instance);
            }
        }
        Some(request)
    }
}

impl State {
    /// Makes and finishes the requests that are due until then; nothing else happens meanwhile.
    pub(crate) fn run_traffic(&mut self, until: Timestamp) {
        loop {
            let end = self.traffic.ends.first().copied().filter(|(at, _)| *at <= until);
            let sources = self.traffic.sources.iter().enumerate().map(|(index, source)| (source.next_at(), index));
            let arrival = sources.min().filter(|(at, _)| *at <= until);
            match (end, arrival) {
                (Some((at, id)), arrival) if arrival.is_none_or(|(arrives, _)| at <= arrives) => self.answer(id),
                (_, Some((at, index))) => self.arrive(at, index),
                _ => break,
            }
        }
    }

    fn answer(&mut self, id: u64) {
        let Some(request) = self.traffic.take(id) else { return };
        let permille = self.instances.get(&request.instance).map_or(0, |instance| instance.behaviour.errors_permille);
        let served = self.traffic.report.served.entry(request.revision.clone()).or_default();
        // The n-th answer is an error when the share of n answers steps over a whole number.
        let share = u64::from(permille);
        let failed = (*served + 1) * share / 1000 > *served * share / 1000;
        *served += 1;
        let seen = self.traffic.report.seen.entry(request.revision.clone());
        seen.or_insert((request.ends_at, request.ends_at)).1 = request.ends_at;
        if failed {
            *self.traffic.report.errors.entry(request.revision.clone()).or_default() += 1;
        }
        if let Some(pool) = self.routing.get_mut(&request.key).and_then(|entry| entry.pools.get_mut(&request.revision))
        {
            pool.requests += 1;
            pool.errors += u64::from(failed);
            pool.busy += request.ends_at.since(request.sent_at);
        }
    }

    fn arrive(&mut self, at: Timestamp, source: usize) {
        let Some(row) = self.traffic.sources.get_mut(source) else { return };
        let connection = row.traffic.connections.map(|connections| row.made % u64::from(connections));
        row.made += 1;
        let (to, taking) = (row.traffic.to.clone(), row.traffic.taking);
        let open = connection.and_then(|connection| row.open.get(&connection).cloned());
        let open = open.filter(|(.., instance)| self.instances.get(instance).is_some_and(Instance::serves));
        let assigned = open.map_or_else(|| self.assign(at, &to), Ok);
        if let (Some(connection), Some(row)) = (connection, self.traffic.sources.get_mut(source)) {
            match &assigned {
                Ok(assigned) => row.open.insert(connection, assigned.clone()),
                Err(_) => row.open.remove(&connection),
            };
        }
        // What became of it is in the report.
        let _ = self.receive(at, assigned, taking);
    }

    /// Makes one request now that somebody waits for; answers its number and who works on it.
    pub(crate) fn send(&mut self, traffic: &Traffic) -> Result<(u64, InstanceId), LossReason> {
        let assigned = self.assign(self.now, &traffic.to);
        let (id, instance) = self.receive(self.now, assigned, traffic.taking)?;
        self.traffic.awaited.insert(id, None);
        Ok((id, instance))
    }

    /// How a request was lost that somebody waited for until its end, if it was.
    pub(crate) fn take_answer(&mut self, id: u64) -> Option<LossReason> {
        self.traffic.awaited.remove(&id).flatten()
    }

    fn receive(
        &mut self,
        at: Timestamp,
        assigned: Result<Assigned, LossReason>,
        taking: Duration,
    ) -> Result<(u64, InstanceId), LossReason> {
        self.traffic.report.sent += 1;
        let lost = |reason, given_to| LostRequest { sent_at: at, lost_at: at, given_to, reason };
        let loss = match assigned {
            Err(reason) => lost(reason, None),
            Ok((key, revision, instance)) => {
                if self.instances.get(&instance).is_some_and(|one| one.answers(at)) {
                    let id = self.traffic.next;
                    self.traffic.next += 1;
                    let ends_at = at + taking;
                    *self.traffic.per_instance.entry(instance.clone()).or_default() += 1;
                    self.traffic.ends.insert((ends_at, id));
                    let request = Request { sent_at: at, ends_at, key, revision, instance: instance.clone() };
                    self.traffic.requests.insert(id, request);
                    return Ok((id, instance));
                }
                if let Some(pool) = self.routing.get_mut(&key).and_then(|entry| entry.pools.get_mut(&revision)) {
                    pool.requests += 1;
                    pool.errors += 1;
                }
                lost(LossReason::TargetDead, Some((revision, instance)))
            }
        };
        let reason = loss.reason;
        self.traffic.report.lost.push(loss);
        Err(reason)
    }

    /// The target whose turn it is.
    fn assign(&mut self, at: Timestamp, to: &To) -> Result<Assigned, LossReason> {
        let key = self.entry_for(to).ok_or(LossReason::NoEntry)?;
        let detection = self.options.detection;
        let entry = self.routing.get_mut(&key).ok_or(LossReason::NoEntry)?;
        let (revision, instance) = entry.choose(at, detection)?;
        Ok((key, revision, instance))
    }

    fn entry_for(&self, to: &To) -> Option<(AppName, ServiceName)> {
        match to {
            To::Service(app, service) => {
                self.routing.keys().find(|(owner, name)| owner.as_str() == app && name.as_str() == service).cloned()
            }
            To::Route { host, path } => {
                let routes =
                    self.routing.iter().flat_map(|(key, entry)| entry.routes.iter().map(move |route| (route, key)));
                let fits = routes.filter(|(route, _)| route_takes(route, host.as_deref(), path));
                let best = fits.max_by_key(|(route, _)| (route.host.is_some(), route.path.trim_end_matches('/').len()));
                best.map(|(_, key)| key.clone())
            }
        }
    }

    /// Loses what these instances work on.
    pub(crate) fn lose_requests(&mut self, of: &InstanceId, reason: LossReason) {
        if self.traffic.in_flight_of(of) == 0 {
            return;
        }
        let ids: Vec<u64> =
            self.traffic.requests.iter().filter(|(_, request)| request.instance == *of).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(request) = self.traffic.take(id) {
                if let Some(awaited) = self.traffic.awaited.get_mut(&id) {
                    *awaited = Some(reason);
                }
                let given_to = Some((request.revision, request.instance));
                let loss = LostRequest { sent_at: request.sent_at, lost_at: self.now, given_to, reason };
                self.traffic.report.lost.push(loss);
            }
        }
    }
}

fn route_takes(route: &Route, host: Option<&str>, path: &str) -> bool {
    let host_fits = route.host.as_deref().is_none_or(|name| host.is_some_and(|host| host.eq_ignore_ascii_case(name)));
    let prefix = route.path.trim_end_matches('/');
    let rest = path.strip_prefix(prefix);
    host_fits && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

//! What a release store must do, as a pure model: every store can be compared with it, call by call, and a history of
//! concurrent calls can be checked for an order in which it explains every answer.
//!
//! ```
//! use deployer_testkit::MemoryStore;
//! use deployer_testkit::model::{StoreModel, Wish, Writer};
//!
//! # deployer_testkit::simulate(async {
//! let (store, mut model) = (MemoryStore::new(), StoreModel::default());
//! let mut writer = Writer::new(1);
//! // Numbers from a generator of random ones, so that what fails can be shrunk.
//! for (now, numbers) in [[0, 0, 9], [5, 1, 0], [8, 0, 2]].into_iter().enumerate() {
//!     let request = writer.request(Wish(numbers), now as i64);
//!     let answer = request.send(&store).await;
//!     assert_eq!(answer, model.answer(&request), "{request:?}");
//!     writer.learn(&request, &answer);
//! }
//! # });
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use deployer_core::{
    AcquireLease, AppName, Append, DeploymentId, DeploymentQuery, DeploymentRecord, Digest, Entry, ErrorKind,
    JournalEvent, Lease, LeaseHolder, Release, ReleaseNumber, ReleaseQuery, ReleaseStore, SendSignal, Signal,
    Timestamp,
};
use serde_json::json;

/// What somebody may want of a store, as three numbers: which method, and two that choose its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish(pub [u8; 3]);

/// A call of one method of a store, with its arguments.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the variants are the methods of `ReleaseStore`, and their fields the arguments")]
pub enum Request {
    AcquireLease(AcquireLease),
    RenewLease(Lease, Timestamp),
    ReleaseLease(Lease),
    LeaseHolder(AppName),
    PutRelease(Box<Release>, u64),
    Release(AppName, ReleaseNumber),
    Releases(ReleaseQuery),
    RemoveReleases(AppName, Vec<ReleaseNumber>, u64),
    Append(Box<Append>),
    Journal(DeploymentId, u64),
    Deployments(DeploymentQuery),
    SendSignal(SendSignal),
    Signals(DeploymentId),
    Apps,
    ForgetApp(AppName, u64),
}

/// What a store answers; of an error only its kind, for that is all that callers may rely on.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are what the methods of `ReleaseStore` answer")]
pub enum Answer {
    Lease(Lease),
    Done,
    Holder(Option<LeaseHolder>),
    Release(Option<Release>),
    Releases(Vec<Release>),
    Entries(Vec<Entry>),
    Records(Vec<DeploymentRecord>),
    Signals(Vec<Signal>),
    Apps(Vec<AppName>),
    Refused(ErrorKind),
}

impl Request {
    /// Makes the call.
    pub async fn send(&self, store: &dyn ReleaseStore) -> Answer {
        let result = match self.clone() {
            Self::AcquireLease(request) => store.acquire_lease(request).await.map(Answer::Lease),
            Self::RenewLease(lease, now) => store.renew_lease(&lease, now).await.map(Answer::Lease),
            Self::ReleaseLease(lease) => store.release_lease(&lease).await.map(|()| Answer::Done),
            Self::LeaseHolder(app) => store.lease_holder(&app).await.map(Answer::Holder),
            Self::PutRelease(release, fence) => {
                store.put_release(*release, fence).await.map(|release| Answer::Release(Some(release)))
            }
            Self::Release(app, number) => store.release(&app, number).await.map(Answer::Release),
            Self::Releases(query) => store.releases(query).await.map(Answer::Releases),
            Self::RemoveReleases(app, numbers, fence) => {
                store.remove_releases(&app, &numbers, fence).await.map(|()| Answer::Done)
            }
            Self::Append(append) => store.append(*append).await.map(|()| Answer::Done),
            Self::Journal(deployment, from) => store.journal(&deployment, from).await.map(Answer::Entries),
            Self::Deployments(query) => store.deployments(query).await.map(Answer::Records),
            Self::SendSignal(request) => store.send_signal(request).await.map(|()| Answer::Done),
            Self::Signals(deployment) => store.signals(&deployment).await.map(Answer::Signals),
            Self::Apps => store.apps().await.map(Answer::Apps),
            Self::ForgetApp(app, fence) => store.forget_app(&app, fence).await.map(|()| Answer::Done),
        };
        result.unwrap_or_else(|error| Answer::Refused(error.kind()))
    }
}

/// Somebody who uses a store, with what it has learnt so far. What it knows may be old: that is the point.
#[derive(Clone, Debug)]
pub struct Writer {
    name: String,
    leases: BTreeMap<AppName, Lease>,
    next: BTreeMap<DeploymentId, u64>,
}

const APPS: [&str; 2] = ["cart", "shop"];
const DEPLOYMENTS: u8 = 3;
const TTL: Duration = Duration::from_millis(8);

fn app(choice: u8) -> AppName {
    name(APPS[usize::from(choice) % APPS.len()])
}

fn name(text: &str) -> AppName {
    AppName::new(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

impl Writer {
    /// A writer that knows nothing yet.
    #[must_use]
    pub fn new(number: u8) -> Self {
        Self { name: format!("writer-{number}"), leases: BTreeMap::new(), next: BTreeMap::new() }
    }

    /// The call that a wish stands for, at this time, by what the writer knows.
    ///
    /// # Panics
    /// Never: every wish stands for a call.
    #[must_use]
    pub fn request(&self, wish: Wish, now: i64) -> Request {
        let Wish([kind, a, b]) = wish;
        let (app, now) = (app(a), Timestamp::from_millis(now));
        let lease = self.leases.get(&app).cloned();
        // Somebody without a lease makes a fence up, and so does, now and then, somebody with one.
        let fence = match &lease {
            Some(lease) if !b.is_multiple_of(16) => lease.fence,
            _ => u64::from(b / 16),
        };
        let never = || Lease::new(app.clone(), self.name.clone(), u64::from(b % 3), TTL, now);
        let deployment = DeploymentId::new(format!("{app}-{}", a / 2 % DEPLOYMENTS)).unwrap_or_else(|e| panic!("{e}"));
        match kind % 20 {
            0 | 1 => {
                Request::AcquireLease(AcquireLease::new(app, format!("{} on a test", self.name), &self.name, TTL, now))
            }
            2 => Request::RenewLease(lease.unwrap_or_else(never), now),
            3 => Request::ReleaseLease(lease.unwrap_or_else(never)),
            4 => Request::LeaseHolder(app),
            5..=7 => Request::PutRelease(Box::new(release(&app, b % 3)), fence),
            8 => Request::Release(app, ReleaseNumber(u64::from(b % 6))),
            9 => {
                let query = ReleaseQuery::new(app, u32::from(b % 4));
                Request::Releases(if b < 128 { query } else { query.before(ReleaseNumber(u64::from(b % 7))) })
            }
            10 => {
                let numbers = [b % 5, b / 5 % 5].map(|number| ReleaseNumber(u64::from(number)));
                Request::RemoveReleases(app, numbers.to_vec(), fence)
            }
            11..=14 => {
                let known = self.next.get(&deployment).copied().unwrap_or(1);
                let first = if b % 32 == 7 { known + 1 } else { known };
                let count = u64::from(b % 3).max(1);
                let entries = (first..first + count).map(|seq| {
                    Entry::new(seq, now, fence, JournalEvent::Resumed { owner: format!("{} {b}", self.name) })
                });
                let record = record(&app, &deployment, &self.name, first + count - 1);
                Request::Append(Box::new(Append::new(record, fence, entries.collect())))
            }
            15 => Request::Journal(deployment, u64::from(b % 4)),
            16 => {
                let query = DeploymentQuery::new(app, u32::from(b % 4));
                Request::Deployments(if b < 128 { query } else { query.before(deployment) })
            }
            17 => {
                let by = format!("somebody {}", b / 3 % 2);
                let signal = match b % 3 {
                    0 => Signal::Cancel { by },
                    1 => Signal::Promote { by },
                    _ => Signal::Supersede { by },
                };
                Request::SendSignal(SendSignal::new(deployment, signal, now))
            }
            18 => Request::Signals(deployment),
            _ if b < 24 => Request::ForgetApp(app, fence),
            _ => Request::Apps,
        }
    }

    /// Takes note of what a call has answered.
    pub fn learn(&mut self, request: &Request, answer: &Answer) {
        match (request, answer) {
            (_, Answer::Lease(lease)) => drop(self.leases.insert(lease.app.clone(), lease.clone())),
            (Request::Append(append), Answer::Done) => {
                self.next.insert(append.record.id.clone(), append.record.last_seq + 1);
            }
            (Request::Append(append), Answer::Refused(_)) => drop(self.next.remove(&append.record.id)),
            (Request::Journal(deployment, _), Answer::Entries(entries)) => {
                self.next.insert(deployment.clone(), entries.last().map_or(1, |entry| entry.seq + 1));
            }
            _ => {}
        }
    }
}

fn release(app: &AppName, content: u8) -> Release {
    let image = json!({
        "reference": format!("web:{content}"), "location": "web", "digest": Digest::of(&[content]),
    });
    let release = json!({
        "format": Release::FORMAT, "app": app, "number": 0, "networks": {}, "volumes": {}, "provenance": {},
        "services": {"web": {"replicas": 1, "image": image}},
    });
    serde_json::from_value(release).unwrap_or_else(|error| panic!("the release of the model: {error}"))
}

fn record(app: &AppName, id: &DeploymentId, owner: &str, last_seq: u64) -> DeploymentRecord {
    let record = json!({
        "id": id, "app": app, "kind": {"kind": "deploy"}, "target": 1, "baseline": null, "owner": owner,
        "started_at": 1, "finished_at": null, "verdict": null, "last_seq": last_seq,
    });
    serde_json::from_value(record).unwrap_or_else(|error| panic!("the record of the model: {error}"))
}

/// A release store as the trait describes it, without time, threads or disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreModel {
    apps: BTreeMap<AppName, AppModel>,
    deployments: BTreeMap<DeploymentId, Journal>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct AppModel {
    fence: u64,
    /// Who holds the lease, in words and by id, and until when.
    holder: Option<(String, String, Timestamp)>,
    last_number: u64,
    releases: BTreeMap<ReleaseNumber, Release>,
    /// Its deployments, in the order in which their journals were opened.
    opened: Vec<DeploymentId>,
}

#[derive(Clone, Debug, PartialEq)]
struct Journal {
    record: DeploymentRecord,
    entries: Vec<Entry>,
    signals: Vec<Signal>,
}

impl StoreModel {
    /// Answers a call as a store must that has answered all calls before as this model has.
    pub fn answer(&mut self, request: &Request) -> Answer {
        self.decide(request).unwrap_or_else(Answer::Refused)
    }

    fn fenced(&mut self, app: &AppName, fence: u64) -> Result<&mut AppModel, ErrorKind> {
        match self.apps.get_mut(app) {
            Some(known) if known.fence == fence && fence > 0 => Ok(known),
            _ => Err(ErrorKind::Conflict),
        }
    }

    fn decide(&mut self, request: &Request) -> Result<Answer, ErrorKind> {
        Ok(match request {
            Request::AcquireLease(request) => {
                let known = self.apps.entry(request.app.clone()).or_default();
                if let Some((_, id, until)) = &known.holder
                    && *id != request.owner_id
                    && *until > request.now
                {
                    return Err(ErrorKind::Busy);
                }
                known.fence += 1;
                let until = request.now + request.ttl;
                known.holder = Some((request.owner.clone(), request.owner_id.clone(), until));
                let owner = request.owner_id.clone();
                Answer::Lease(Lease::new(request.app.clone(), owner, known.fence, request.ttl, until))
            }
            Request::RenewLease(lease, now) => {
                let holder = self.fenced(&lease.app, lease.fence)?.holder.as_mut();
                let (_, _, until) = holder.filter(|(_, id, _)| *id == lease.owner_id).ok_or(ErrorKind::Conflict)?;
                *until = *now + lease.ttl;
                let (app, owner) = (lease.app.clone(), lease.owner_id.clone());
                Answer::Lease(Lease::new(app, owner, lease.fence, lease.ttl, *until))
            }
            Request::ReleaseLease(lease) => {
                if let Ok(known) = self.fenced(&lease.app, lease.fence)
                    && known.holder.as_ref().is_some_and(|(_, id, _)| *id == lease.owner_id)
                {
                    known.holder = None;
                }
                Answer::Done
            }
            Request::LeaseHolder(app) => Answer::Holder(self.apps.get(app).and_then(|known| {
                let (owner, _, until) = known.holder.clone()?;
                Some(LeaseHolder::new(owner, known.fence, until, false))
            })),
            Request::PutRelease(release, fence) => {
                let known = self.fenced(&release.app, *fence)?;
                let newest = known.releases.last_key_value().map(|(_, newest)| newest);
                match newest {
                    Some(newest) if newest.content_hash() == release.content_hash() => {
                        Answer::Release(Some(newest.clone()))
                    }
                    _ => {
                        known.last_number += 1;
                        let mut release = (**release).clone();
                        release.number = ReleaseNumber(known.last_number);
                        known.releases.insert(release.number, release.clone());
                        Answer::Release(Some(release))
                    }
                }
            }
            Request::Release(app, number) => {
                Answer::Release(self.apps.get(app).and_then(|known| known.releases.get(number).cloned()))
            }
            Request::Releases(query) => {
                let releases = self.apps.get(&query.app).into_iter().flat_map(|known| known.releases.values().rev());
                let wanted = releases.filter(|release| query.before.is_none_or(|before| release.number < before));
                Answer::Releases(wanted.take(query.limit as usize).cloned().collect())
            }
            Request::RemoveReleases(app, numbers, fence) => {
                self.fenced(app, *fence)?.releases.retain(|number, _| !numbers.contains(number));
                Answer::Done
            }
            Request::Append(append) => {
                self.fenced(&append.record.app, append.fence)?;
                let known = self.deployments.get(&append.record.id);
                let next = known.map_or(0, |journal| journal.entries.len() as u64) + 1;
                let first = append.record.last_seq + 1 - append.entries.len() as u64;
                if first != next {
                    return Err(ErrorKind::Conflict);
                }
                if known.is_none() {
                    self.fenced(&append.record.app, append.fence)?.opened.push(append.record.id.clone());
                }
                let journal = self.deployments.entry(append.record.id.clone()).or_insert_with(|| Journal {
                    record: append.record.clone(),
                    entries: Vec::new(),
                    signals: Vec::new(),
                });
                journal.record = append.record.clone();
                journal.entries.extend(append.entries.iter().cloned());
                Answer::Done
            }
            Request::Journal(deployment, from) => {
                let entries = self.deployments.get(deployment).into_iter().flat_map(|journal| &journal.entries);
                Answer::Entries(entries.filter(|entry| entry.seq >= *from).cloned().collect())
            }
            Request::Deployments(query) => {
                let opened = self.apps.get(&query.app).map_or(&[][..], |known| &known.opened);
                let earlier = match &query.before {
                    // Nothing was opened earlier than what was not opened at all.
                    Some(before) => opened.iter().position(|id| id == before).map_or(&[][..], |at| &opened[..at]),
                    None => opened,
                };
                let journals = earlier.iter().rev().filter_map(|id| self.deployments.get(id));
                Answer::Records(journals.take(query.limit as usize).map(|journal| journal.record.clone()).collect())
            }
            Request::SendSignal(request) => {
                let journal = self.deployments.get_mut(&request.deployment).ok_or(ErrorKind::NotFound)?;
                if !journal.signals.contains(&request.signal) {
                    journal.signals.push(request.signal.clone());
                }
                Answer::Done
            }
            Request::Signals(deployment) => {
                let journal = self.deployments.get(deployment);
                Answer::Signals(journal.map(|journal| journal.signals.clone()).unwrap_or_default())
            }
            Request::Apps => {
                let released = self.apps.iter().filter(|(_, known)| !known.releases.is_empty()).map(|(app, _)| app);
                let deployed = self.deployments.values().map(|journal| &journal.record.app);
                let apps: BTreeSet<&AppName> = released.chain(deployed).collect();
                Answer::Apps(apps.into_iter().cloned().collect())
            }
            Request::ForgetApp(app, fence) => {
                let known = self.fenced(app, *fence)?;
                known.releases.clear();
                known.opened.clear();
                self.deployments.retain(|_, journal| journal.record.app != *app);
                Answer::Done
            }
        })
    }
}

/// A call that was made while others were under way.
#[derive(Clone, Debug)]
pub struct MadeCall {
    /// When it began, by a counter that all writers share.
    pub began: u64,
    /// When its answer was there, by the same counter.
    pub ended: u64,
    /// What was called.
    pub request: Request,
    /// What was answered.
    pub answer: Answer,
}

/// Lets writers loose, each on a thread of its own with its own handle of one store, and answers what each did. No
/// handle is dropped before all are done: a store may take the owner of one for dead that is.
///
/// # Panics
/// If a thread cannot be started, or panics.
#[must_use]
pub fn race(writers: &[(Arc<dyn ReleaseStore>, Vec<Wish>)]) -> Vec<Vec<MadeCall>> {
    let clock = AtomicU64::new(0);
    let tick = || clock.fetch_add(1, Ordering::SeqCst);
    let start = Barrier::new(writers.len());
    let run = |number: u8, store: &dyn ReleaseStore, wishes: &[Wish]| {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
        let mut writer = Writer::new(number);
        start.wait();
        let calls = wishes.iter().map(|wish| {
            let began = tick();
            let request = writer.request(*wish, i64::try_from(began).unwrap_or(i64::MAX));
            let answer = runtime.block_on(request.send(store));
            let ended = tick();
            writer.learn(&request, &answer);
            MadeCall { began, ended, request, answer }
        });
        calls.collect()
    };
    thread::scope(|scope| {
        let run = &run;
        let writers = (0..).zip(writers);
        let threads: Vec<_> =
            writers.map(|(number, (store, wishes))| scope.spawn(move || run(number, &**store, wishes))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Finds an order of calls in which one store after the other could have answered them so: every call lies between its
/// beginning and its end. The calls of one writer are in its order.
///
/// # Errors
/// The longest order that explains anything, and the calls of which none can come next.
pub fn linearise(writers: &[Vec<MadeCall>]) -> Result<Vec<Request>, String> {
    let mut search = Search { writers, seen: BTreeMap::new(), order: Vec::new(), best: (0, String::new()) };
    if search.go(&mut vec![0; writers.len()], &StoreModel::default()) {
        return Ok(search.order.into_iter().map(|(writer, index)| writers[writer][index].request.clone()).collect());
    }
    Err(search.best.1)
}

struct Search<'a> {
    writers: &'a [Vec<MadeCall>],
    /// The states that were tried already, by how far each writer was.
    seen: BTreeMap<Vec<usize>, Vec<StoreModel>>,
    order: Vec<(usize, usize)>,
    best: (usize, String),
}

impl Search<'_> {
    fn go(&mut self, done: &mut Vec<usize>, model: &StoreModel) -> bool {
        let writers = self.writers;
        let open: Vec<(usize, &MadeCall)> =
            (0..writers.len()).filter_map(|writer| Some((writer, writers[writer].get(done[writer])?))).collect();
        let Some(first_end) = open.iter().map(|(_, call)| call.ended).min() else { return true };
        let tried = self.seen.entry(done.clone()).or_default();
        if tried.contains(model) {
            return false;
        }
        tried.push(model.clone());
        let mut refused = Vec::new();
        for (writer, call) in open {
            // Another call had ended before this one began, and must come first.
            if call.began > first_end {
                continue;
            }
            let mut next = model.clone();
            let answer = next.answer(&call.request);
            if answer != call.answer {
                refused.push(format!("writer {writer}: {:?} answered {:?}, not {answer:?}", call.request, call.answer));
                continue;
            }
            self.order.push((writer, done[writer]));
            done[writer] += 1;
            if self.go(done, &next) {
                return true;
            }
            done[writer] -= 1;
            self.order.pop();
        }
        if self.order.len() >= self.best.0 {
            let order =
                self.order.iter().map(|(writer, index)| format!("{writer}: {:?}", writers[*writer][*index].request));
            let order: Vec<String> = order.collect();
            self.best = (order.len(), format!("after\n{}\nnone of\n{}", order.join("\n"), refused.join("\n")));
        }
        false
    }
}

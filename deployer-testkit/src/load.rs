//! An open-loop HTTP load generator that accounts for every request exactly once.
//!
//! Open loop means that the schedule does not wait for answers: a server that stalls meets as many requests as before,
//! as it would with real users. Each request ends as *answered* (by version and status) or as *lost* (by cause), so
//! [`Report::sent`] is always [`Report::answered`] plus [`Report::lost`] once the load has stopped. What the generator
//! itself could not send in time is said apart, because it tells nothing about the server.
//!
//! A connection that is kept alive may be closed by the server at the moment the client uses it again. Browsers and
//! HTTP libraries then repeat the request once on a new connection; so does this client, and counts it in
//! [`Report::stale_retries`]. No other request is repeated.
//!
//! ```
//! # async fn example(proxy: std::net::SocketAddr) {
//! use deployer_testkit::load::{Load, Mode};
//!
//! let running = Load::new(proxy, "shop.localhost").path("/").rate(400).mode(Mode::Mixed).start();
//! // ... deploy a new version here ...
//! let report = running.stop().await;
//! println!("{report}");
//! assert_eq!((report.lost, report.unsent), (0, 0));
//! # }
//! ```

mod client;
mod report;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use client::{Answer, Connection};
use report::Tally;
pub use report::{Answered, Latency, Loss, LossKind, Report, VersionCount};

/// How requests use connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Requests share a pool of connections that stay open between them, most recently used first.
    KeepAlive,
    /// Every request opens a connection of its own and asks the server to close it.
    NewConnection,
    /// Every second request opens a connection of its own; the others share the pool.
    Mixed,
}

/// A load to be started: where to, how much of it, and how patient.
#[derive(Debug, Clone)]
pub struct Load {
    address: SocketAddr,
    host: String,
    path: String,
    per_second: u32,
    mode: Mode,
    timeout: Duration,
    connect_timeout: Duration,
    outstanding: usize,
    version_header: String,
    limit: Option<u64>,
    keep_answers: bool,
}

impl Load {
    /// A load of 100 keep-alive requests per second for `/`, sent to `address` under the host name `host`.
    #[must_use]
    pub fn new(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            path: "/".to_owned(),
            per_second: 100,
            mode: Mode::KeepAlive,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            outstanding: 512,
            version_header: "x-version".to_owned(),
            limit: None,
            keep_answers: false,
        }
    }

    /// The path and query to ask for.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// How many requests are sent per second. With 0 none is.
    #[must_use]
    pub fn rate(mut self, per_second: u32) -> Self {
        self.per_second = per_second;
        self
    }

    /// How requests use connections.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// How long a request may take in all, connecting and a repetition included, before it counts as lost. 10 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long connecting may take before the request counts as lost. 2 s unless set.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How many requests may wait for an answer at the same time, 512 unless set. One that is due while so many wait
    /// is not sent and counts in [`Report::unsent`]. Each takes a file descriptor.
    #[must_use]
    pub fn outstanding(mut self, requests: usize) -> Self {
        self.outstanding = requests;
        self
    }

    /// The response header that names the version which answered, `x-version` unless set.
    #[must_use]
    pub fn version_header(mut self, name: &str) -> Self {
        name.clone_into(&mut self.version_header);
        self
    }

    /// Ends the load by itself after so many requests; [`Running::finish`] waits for that.
    #[must_use]
    pub fn limit(mut self, requests: u64) -> Self {
        self.limit = Some(requests);
        self
    }

    /// Keeps every single answer for [`Report::answers`], as losses always are.
    #[must_use]
    pub fn keep_answers(mut self) -> Self {
        self.keep_answers = true;
        self
    }

    /// Starts sending. The load goes on until it is stopped, dropped, or at its limit.
    ///
    /// # Panics
    /// Outside a tokio runtime that has time and I/O enabled.
    #[must_use = "dropping it ends the load"]
    pub fn start(self) -> Running {
        let tally = Arc::new(Mutex::new(Tally::new(self.keep_answers)));
        let started = Instant::now();
        let (stop, stopped) = oneshot::channel();
        let driver = tokio::spawn(drive(Arc::new(self), Arc::clone(&tally), started, stopped));
        Running { tally, started, stop: Some(stop), driver }
    }
}

/// A load that is being sent. Dropping it ends the load at once, without a report.
#[derive(Debug)]
pub struct Running {
    tally: Arc<Mutex<Tally>>,
    started: Instant,
    stop: Option<oneshot::Sender<()>>,
    driver: JoinHandle<()>,
}

impl Running {
    /// When the load began: the zero of all offsets in the report.
    #[must_use]
    pub fn started(&self) -> std::time::Instant {
        self.started.into_std()
    }

    /// What happened so far. Requests that still wait for an answer are in [`Report::in_flight`].
    #[must_use]
    pub fn snapshot(&self) -> Report {
        lock(&self.tally).report(self.started.elapsed())
    }

    /// Sends no more, waits until every request is answered or lost, and tells what happened.
    pub async fn stop(mut self) -> Report {
        if let Some(stop) = self.stop.take() {
            // An error means that the load is at its limit already.
            let _ = stop.send(());
        }
        self.finish().await
    }

    /// Waits until the load is at its [`Load::limit`] and every request is answered or lost, and tells what happened.
    /// Without a limit that is never.
    pub async fn finish(mut self) -> Report {
        propagate_panic((&mut self.driver).await);
        self.snapshot()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Sends requests when they are due until told to stop, then waits for those that are under way.
async fn drive(load: Arc<Load>, tally: Arc<Mutex<Tally>>, started: Instant, mut stopped: oneshot::Receiver<()>) {
    let pool = Arc::new(Pool::default());
    let mut requests = JoinSet::new();
    let mut sent = 0_u64;
    let limit = if load.per_second == 0 { 0 } else { load.limit.unwrap_or(u64::MAX) };
    for number in 0..limit {
        let due = started + due_after(number, load.per_second);
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            () = sleep_until(due) => {}
        }
        while let Some(ended) = requests.try_join_next() {
            propagate_panic(ended);
        }
        let now = Instant::now();
        if requests.len() >= load.outstanding {
            lock(&tally).unsent();
            continue;
        }
        lock(&tally).sent(now - due);
        let (load, pool, tally) = (Arc::clone(&load), Arc::clone(&pool), Arc::clone(&tally));
        let keep_alive = match load.mode {
            Mode::KeepAlive => true,
            Mode::NewConnection => false,
            // Of those that are sent, so that leaving some out cannot shift the shares.
            Mode::Mixed => sent.is_multiple_of(2),
        };
        sent += 1;
        requests.spawn(async move {
            let mut reused = false;
            let exchanged =
                timeout_at(now + load.timeout, exchange(&load, keep_alive, &pool, &tally, &mut reused)).await;
            let outcome = exchanged.unwrap_or(Err(LossKind::Timeout));
            lock(&tally).ended(now - started, started.elapsed(), reused, outcome);
        });
    }
    while let Some(ended) = requests.join_next().await {
        propagate_panic(ended);
    }
}

/// When request `number` of a load is due. The whole and the fractional second apart, so that nothing drifts or overflows.
fn due_after(number: u64, per_second: u32) -> Duration {
    let per_second = u64::from(per_second);
    Duration::from_secs(number / per_second) + Duration::from_nanos(number % per_second * 1_000_000_000 / per_second)
}

/// Sends one request and reads its answer, repeating it once if a connection from the pool turns out to be closed.
async fn exchange(
    load: &Load,
    keep_alive: bool,
    pool: &Pool,
    tally: &Mutex<Tally>,
    reused: &mut bool,
) -> Result<Answer, LossKind> {
    if keep_alive && let Some(mut connection) = pool.take() {
        *reused = true;
        match connection.exchange(load, keep_alive).await {
            Ok(answer) => {
                pool.give_back(connection, &answer);
                return Ok(answer);
            }
            Err(LossKind::Reset | LossKind::ClosedBeforeAnswer) => lock(tally).stale_retry(),
            Err(kind) => return Err(kind),
        }
        *reused = false;
    }
    let mut connection = Connection::open(load.address, load.connect_timeout).await?;
    let answer = connection.exchange(load, keep_alive).await?;
    if keep_alive {
        pool.give_back(connection, &answer);
    }
    Ok(answer)
}

/// Connections that wait for their next request.
#[derive(Debug, Default)]
struct Pool(Mutex<Vec<Connection>>);

impl Pool {
    /// The connection that was used last and that the server has not visibly closed since.
    fn take(&self) -> Option<Connection> {
        let mut idle = lock(&self.0);
        while let Some(connection) = idle.pop() {
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    fn give_back(&self, connection: Connection, answer: &Answer) {
        if answer.reusable {
            lock(&self.0).push(connection);
        }
    }
}

/// A panic leaves counters that are still right: every change to them is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that panicked would be missing in the account, so the panic goes on in whoever asks for it.
fn propagate_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

//! The account of a run: what was sent and lost, what was broken when, and what one has to do with the other.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deployer_testkit::load::{Load, Loss, Mode, Report, Running};

use crate::site::{self, HOST};

/// A way that requests take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Path {
    /// From outside to the web service, which answers at once.
    Version,
    /// From outside to the web service, which asks the cache and takes its time.
    Visit,
    /// From inside to the web service, by its name.
    Inside,
}

impl Path {
    pub(crate) const ALL: [Self; 3] = [Self::Version, Self::Visit, Self::Inside];

    fn target(self) -> &'static str {
        if self == Self::Visit { "/" } else { "/version" }
    }

    fn per_second(self) -> u32 {
        if self == Self::Version { 100 } else { 40 }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Visit => "visit",
            Self::Inside => "inside",
        }
    }
}

/// Some of the ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paths([bool; 3]);

impl Paths {
    pub(crate) fn of(paths: &[Path]) -> Self {
        Self(Path::ALL.map(|path| paths.contains(&path)))
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Path> {
        Path::ALL.into_iter().filter(move |path| self.0[*path as usize])
    }
}

/// A time in which requests of one way may be lost, and why.
#[derive(Clone, Debug)]
struct Outage {
    kind: String,
    path: Path,
    from: Instant,
    /// None while it lasts.
    until: Option<Instant>,
}

/// The outages that our faults cause.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outages(Arc<Mutex<Vec<Outage>>>);

impl Outages {
    fn lock(&self) -> MutexGuard<'_, Vec<Outage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something was broken from then on; answers what ends it.
    pub(crate) fn begin(&self, kind: &str, path: Path, from: Instant) -> usize {
        let mut outages = self.lock();
        outages.push(Outage { kind: kind.to_owned(), path, from, until: None });
        outages.len() - 1
    }

    /// Notes that it was over by then.
    pub(crate) fn end(&self, outage: usize, until: Instant) {
        self.lock()[outage].until = Some(until);
    }

    /// What explains a loss on a way between two times: only requests that were under way in an outage.
    fn explains(&self, path: Path, began: Instant, ended: Instant) -> Option<String> {
        let outages = self.lock();
        let during = |outage: &&Outage| {
            outage.path == path && outage.from <= ended && outage.until.is_none_or(|until| began <= until)
        };
        outages.iter().find(during).map(|outage| outage.kind.clone())
    }

    /// How long the outages of each kind lasted, on the way where each was longest.
    fn longest(&self) -> BTreeMap<String, Duration> {
        let mut longest = BTreeMap::new();
        for outage in self.lock().iter() {
            let lasted = outage.until.unwrap_or_else(Instant::now) - outage.from;
            let entry = longest.entry(outage.kind.clone()).or_insert(lasted);
            *entry = lasted.max(*entry);
        }
        longest
    }
}

/// The requests of all ways, while they are sent.
#[derive(Debug)]
pub(crate) struct Loads(Vec<(Path, Running)>);

impl Loads {
    /// Begins to send requests to these addresses.
    pub(crate) fn start(addresses: &BTreeMap<Path, SocketAddr>) -> Self {
        let start = |(path, address): (&Path, &SocketAddr)| {
            // A machine that is busy with other things is no reason to lose a request.
            let load = Load::new(*address, HOST).path(path.target()).rate(path.per_second()).mode(Mode::Mixed);
            let patience = Duration::from_secs(30);
            (*path, load.timeout(patience).connect_timeout(patience).outstanding(4_000).start())
        };
        Self(addresses.iter().map(start).collect())
    }

    /// How many requests were lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.0.iter().map(|(_, load)| load.snapshot().lost).sum()
    }

    /// Ends them, and accounts for every request.
    pub(crate) async fn stop(self, outages: &Outages) -> Account {
        let mut account = Account { outages: outages.longest(), ..Account::default() };
        for (path, load) in self.0 {
            let started = load.started();
            let report = load.stop().await;
            for loss in &report.losses {
                let began = started + loss.at;
                match outages.explains(path, began, began + loss.after) {
                    Some(kind) => *account.explained.entry(kind).or_default() += 1,
                    None => account.unexplained.push(describe(path, loss, began)),
                }
            }
            account.reports.push((path, report));
        }
        account
    }
}

fn describe(path: Path, loss: &Loss, began: Instant) -> String {
    let ago = began.elapsed().as_secs_f64();
    let status = loss.status.map_or_else(String::new, |status| format!(" {status}"));
    let version = loss.version.as_ref().map_or_else(String::new, |version| format!(" from {version}"));
    let (kind, after) = (loss.kind, loss.after.as_secs_f64());
    format!("{} request {ago:.2} s before the end: {kind}{status}{version} after {after:.3} s", path.word())
}

/// What became of all requests.
#[derive(Debug, Default)]
pub(crate) struct Account {
    reports: Vec<(Path, Report)>,
    /// Requests that were lost to a fault, by the kind of fault.
    explained: BTreeMap<String, u64>,
    outages: BTreeMap<String, Duration>,
    /// Requests that nothing explains.
    pub(crate) unexplained: Vec<String>,
}

impl Account {
    fn sum(&self, count: impl Fn(&Report) -> u64) -> u64 {
        self.reports.iter().map(|(_, report)| count(report)).sum()
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sum(|report| report.sent)
    }

    pub(crate) fn answered(&self) -> u64 {
        self.sum(|report| report.answered)
    }

    pub(crate) fn lost(&self) -> u64 {
        self.sum(|report| report.lost)
    }

    /// Requests that were due and that the generator could not send.
    pub(crate) fn unsent(&self) -> u64 {
        self.sum(|report| report.unsent)
    }

    /// The versions that answered.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &str> {
        self.reports.iter().flat_map(|(_, report)| report.by_version.keys().map(String::as_str))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10} {:>9} {:>9} {:>7} {:>9} {:>9} {:>9}",
            "requests", "sent", "answered", "lost", "p50 ms", "p99 ms", "max ms"
        )?;
        for (path, report) in &self.reports {
            let [p50, p99, max] = [report.latency.p50, report.latency.p99, report.latency.max]
                .map(|latency| format!("{:.1}", latency.as_secs_f64() * 1000.0));
            let Report { sent, answered, lost, .. } = report;
            writeln!(f, "{:<10} {sent:>9} {answered:>9} {lost:>7} {p50:>9} {p99:>9} {max:>9}", path.word())?;
        }
        if !self.outages.is_empty() {
            writeln!(f, "\n{:<36} {:>7} {:>14}", "lost to", "lost", "longest outage")?;
        }
        for (kind, lasted) in &self.outages {
            let lost = self.explained.get(kind).copied().unwrap_or(0);
            writeln!(f, "{kind:<36} {lost:>7} {:>12.2} s", lasted.as_secs_f64())?;
        }
        Ok(())
    }
}

/// Waits until a way answers.
pub(crate) async fn answers(address: SocketAddr, path: Path) {
    loop {
        // Held or stuck with what is gone is as good as not answered.
        let asked = tokio::time::timeout(Duration::from_secs(10), site::get(address, path.target())).await;
        if matches!(asked, Ok(Ok((200, _)))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

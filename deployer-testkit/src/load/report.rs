//! The account of a load: what became of every request.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::client::Answer;

/// How many losses the table of a report shows one by one.
const LOSSES_SHOWN: usize = 10;

/// A request that starts later than this after it was due makes the report say that the generator lagged.
const PUNCTUAL: Duration = Duration::from_millis(50);

/// What became of the requests of a load.
///
/// `sent == answered + lost + in_flight` always, and nothing is in flight once the load has stopped. All times are
/// offsets from the start of the load; in JSON they are milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// How long the load had lasted when the report was made.
    #[serde(rename = "elapsed_millis", serialize_with = "millis")]
    pub elapsed: Duration,
    /// Requests that were sent, or for which at least a connection was asked for. A repeated request counts once.
    pub sent: u64,
    /// Requests that got a whole answer with a status below 500.
    pub answered: u64,
    /// Requests that did not: the length of [`Report::losses`].
    pub lost: u64,
    /// Requests that still wait for their answer.
    pub in_flight: u64,
    /// Requests repeated on a new connection because the server had closed the kept one. Not losses.
    pub stale_retries: u64,
    /// Requests that were due but not sent because too many were waiting already: the generator's limit, not the server's.
    pub unsent: u64,
    /// How late the least punctual request was started, through the generator's own fault.
    #[serde(rename = "max_lag_millis", serialize_with = "millis")]
    pub max_lag: Duration,
    /// How long the answers took.
    pub latency: Latency,
    /// Answers by the version that gave them, with `-` for answers that did not name one.
    pub by_version: BTreeMap<String, VersionCount>,
    /// Every lost request, in the order in which the losses were noticed.
    pub losses: Vec<Loss>,
    /// Every answered request, in the order in which the answers were complete, with [`Load::keep_answers`].
    ///
    /// [`Load::keep_answers`]: super::Load::keep_answers
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answered>,
}

/// One answered request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Answered {
    /// When the request was started.
    #[serde(rename = "at_millis", serialize_with = "millis")]
    pub at: Duration,
    /// How long the answer took, to the last byte of the body.
    #[serde(rename = "after_millis", serialize_with = "millis")]
    pub after: Duration,
    /// The version that answered, if it named one.
    pub version: Option<String>,
}

/// How long answers took, from the start of the request to the last byte of the body. All zero without an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Latency {
    /// Half of the answers took no longer.
    #[serde(rename = "p50_millis", serialize_with = "millis")]
    pub p50: Duration,
    /// 99 of 100 answers took no longer.
    #[serde(rename = "p99_millis", serialize_with = "millis")]
    pub p99: Duration,
    /// The slowest answer.
    #[serde(rename = "max_millis", serialize_with = "millis")]
    pub max: Duration,
}

/// The answers of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VersionCount {
    /// How many there were.
    pub answered: u64,
    /// How many there were of each status.
    pub by_status: BTreeMap<u16, u64>,
    /// When the first of them was complete: the version served from then on, or a little earlier.
    #[serde(rename = "first_seen_millis", serialize_with = "millis")]
    pub first_seen: Duration,
    /// When the last of them was complete.
    #[serde(rename = "last_seen_millis", serialize_with = "millis")]
    pub last_seen: Duration,
}

/// One lost request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Loss {
    /// When the request was started.
    #[serde(rename = "at_millis", serialize_with = "millis")]
    pub at: Duration,
    /// How long after its start it was lost.
    #[serde(rename = "after_millis", serialize_with = "millis")]
    pub after: Duration,
    /// How it was lost.
    pub kind: LossKind,
    /// Whether it was lost on a connection that had carried requests before.
    pub reused: bool,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// The version that answered, if there was an answer and it named one.
    pub version: Option<String>,
}

/// How a request was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossKind {
    /// Nobody listens at the address.
    ConnectRefused,
    /// The connection was not accepted in time.
    ConnectTimeout,
    /// Connecting failed in another way: no route, or no file descriptor or port left on this side.
    ConnectFailed,
    /// The connection was reset before any byte of the answer.
    Reset,
    /// The connection was closed in order before any byte of the answer.
    ClosedBeforeAnswer,
    /// The connection was closed or reset within the answer.
    Truncated,
    /// The answer was not complete in time.
    Timeout,
    /// The answer was complete, with a status of 500 or above.
    ServerError,
    /// What came back is not an HTTP/1 answer.
    Malformed,
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ConnectRefused => "connection refused",
            Self::ConnectTimeout => "connecting timed out",
            Self::ConnectFailed => "connecting failed",
            Self::Reset => "reset before the answer",
            Self::ClosedBeforeAnswer => "closed before the answer",
            Self::Truncated => "ended within the answer",
            Self::Timeout => "timed out",
            Self::ServerError => "server error",
            Self::Malformed => "not an HTTP answer",
        })
    }
}

impl Report {
    /// How many requests were lost in each way.
    #[must_use]
    pub fn lost_by_kind(&self) -> BTreeMap<LossKind, u64> {
        let mut kinds = BTreeMap::new();
        for loss in &self.losses {
            *kinds.entry(loss.kind).or_insert(0) += 1;
        }
        kinds
    }

    /// Whether the generator fell behind its own schedule, so that the server met less load than it was meant to.
    #[must_use]
    pub fn lagged(&self) -> bool {
        self.unsent > 0 || self.max_lag > PUNCTUAL
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "requests   sent {}, answered {}, lost {}", self.sent, self.answered, self.lost)?;
        if self.in_flight > 0 {
            write!(f, ", in flight {}", self.in_flight)?;
        }
        writeln!(f, ", stale retries {}, in {:.1} s", self.stale_retries, self.elapsed.as_secs_f64())?;
        let Latency { p50, p99, max } = self.latency;
        writeln!(f, "latency    p50 {}, p99 {}, max {}", Millis(p50), Millis(p99), Millis(max))?;
        if self.lagged() {
            writeln!(
                f,
                "generator  lagged: {} requests were not sent, the latest started {} late",
                self.unsent,
                Millis(self.max_lag)
            )?;
        }

        if !self.by_version.is_empty() {
            writeln!(f, "\n{:<16} {:>9} {:>12} {:>12}  statuses", "version", "answered", "first seen", "last seen")?;
        }
        for (version, count) in &self.by_version {
            let statuses = count
                .by_status
                .iter()
                .map(|(status, count)| format!("{status}: {count}"))
                .collect::<Vec<_>>()
                .join(", ");
            let (first, last) = (Seconds(count.first_seen), Seconds(count.last_seen));
            writeln!(f, "{version:<16} {:>9} {first:>12} {last:>12}  {statuses}", count.answered)?;
        }

        if !self.losses.is_empty() {
            writeln!(f, "\n{:>10} {:>12}  loss", "lost at", "after")?;
        }
        for loss in self.losses.iter().take(LOSSES_SHOWN) {
            write!(f, "{:>10} {:>12}  {}", Seconds(loss.at), Millis(loss.after), loss.kind)?;
            if let Some(status) = loss.status {
                write!(f, " {status}")?;
            }
            if let Some(version) = &loss.version {
                write!(f, " from {version}")?;
            }
            writeln!(f, "{}", if loss.reused { ", on a kept connection" } else { "" })?;
        }
        if self.losses.len() > LOSSES_SHOWN {
            let kinds = self
                .lost_by_kind()
                .iter()
                .map(|(kind, count)| format!("{count} {kind}"))
                .collect::<Vec<_>>()
                .join(", ");
            writeln!(f, "... and {} more; in all {kinds}", self.losses.len() - LOSSES_SHOWN)?;
        }
        Ok(())
    }
}

struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.1} ms", self.0.as_secs_f64() * 1000.0))
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.3} s", self.0.as_secs_f64()))
    }
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // Whole microseconds: more digits would be noise.
    serializer.serialize_f64(duration.as_micros() as f64 / 1000.0)
}

/// The running account. Every change is one call under one lock, so that it adds up at any moment.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sent: u64,
    answered: u64,
    stale_retries: u64,
    unsent: u64,
    max_lag: Duration,
    /// Of every answer, in microseconds.
    latencies: Vec<u32>,
    by_version: BTreeMap<String, VersionCount>,
    losses: Vec<Loss>,
    keeps_answers: bool,
    answers: Vec<Answered>,
}

impl Tally {
    pub(super) fn new(keeps_answers: bool) -> Self {
        Self { keeps_answers, ..Self::default() }
    }

    /// A request begins, so much later than it was due.
    pub(super) fn sent(&mut self, lag: Duration) {
        self.sent += 1;
        self.max_lag = self.max_lag.max(lag);
    }

    /// A request that was due is left out.
    pub(super) fn unsent(&mut self) {
        self.unsent += 1;
    }

    /// A request that has begun is repeated on a new connection.
    pub(super) fn stale_retry(&mut self) {
        self.stale_retries += 1;
    }

    /// A request that began at `began` is over, for good or ill, at `now`.
    pub(super) fn ended(&mut self, began: Duration, now: Duration, reused: bool, outcome: Result<Answer, LossKind>) {
        let after = now.saturating_sub(began);
        let (kind, status, version) = match outcome {
            Ok(answer) if answer.status < 500 => {
                self.answered += 1;
                self.latencies.push(u32::try_from(after.as_micros()).unwrap_or(u32::MAX));
                if self.keeps_answers {
                    self.answers.push(Answered { at: began, after, version: answer.version.clone() });
                }
                let version = answer.version.unwrap_or_else(|| "-".to_owned());
                let count = self.by_version.entry(version).or_insert_with(|| VersionCount {
                    answered: 0,
                    by_status: BTreeMap::new(),
                    first_seen: now,
                    last_seen: now,
                });
                count.answered += 1;
                *count.by_status.entry(answer.status).or_insert(0) += 1;
                // The caller reads the clock before it takes the lock, so two answers may come here in the wrong order.
                count.first_seen = count.first_seen.min(now);
                count.last_seen = count.last_seen.max(now);
                return;
            }
            Ok(answer) => (LossKind::ServerError, Some(answer.status), answer.version),
            Err(kind) => (kind, None, None),
        };
        self.losses.push(Loss { at: began, after, kind, reused, status, version });
    }

    pub(super) fn report(&self, elapsed: Duration) -> Report {
        let lost = self.losses.len() as u64;
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        Report {
            elapsed,
            sent: self.sent,
            answered: self.answered,
            lost,
            in_flight: self.sent - self.answered - lost,
            stale_retries: self.stale_retries,
            unsent: self.unsent,
            max_lag: self.max_lag,
            latency: Latency {
                p50: percentile(&latencies, 50),
                p99: percentile(&latencies, 99),
                max: percentile(&latencies, 100),
            },
            by_version: self.by_version.clone(),
            losses: self.losses.clone(),
            answers: self.answers.clone(),
        }
    }
}

/// The smallest of the sorted values that `percent` of all do not exceed (nearest rank).
fn percentile(sorted: &[u32], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    let micros = rank.checked_sub(1).and_then(|index| sorted.get(index)).copied().unwrap_or(0);
    Duration::from_micros(micros.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn answer(status: u16, version: &str) -> Result<Answer, LossKind> {
        Ok(Answer { status, version: Some(version.to_owned()), reusable: true })
    }

    fn example() -> Tally {
        let mut tally = Tally::default();
        for _ in 0..6 {
            tally.sent(at(3));
        }
        tally.unsent();
        tally.stale_retry();
        tally.ended(at(0), at(4), false, answer(200, "v1"));
        tally.ended(at(10), at(12), true, answer(404, "v1"));
        tally.ended(at(20), at(23), true, answer(503, "v2"));
        tally.ended(at(30), at(31), true, answer(200, "v2"));
        tally.ended(at(40), at(1040), true, Err(LossKind::Timeout));
        tally
    }

    #[test]
    fn every_request_is_in_one_column() {
        let report = example().report(at(2000));
        assert_eq!((report.sent, report.answered, report.lost, report.in_flight), (6, 3, 2, 1));
        assert_eq!((report.stale_retries, report.unsent, report.max_lag), (1, 1, at(3)));
        assert!(report.lagged());

        let v1 = &report.by_version["v1"];
        assert_eq!((v1.answered, v1.first_seen, v1.last_seen), (2, at(4), at(12)));
        assert_eq!(v1.by_status, BTreeMap::from([(200, 1), (404, 1)]));
        assert_eq!(report.by_version["v2"].answered, 1);

        let lost = &report.losses[0];
        assert_eq!((lost.kind, lost.status, lost.version.as_deref()), (LossKind::ServerError, Some(503), Some("v2")));
        assert_eq!((lost.at, lost.after), (at(20), at(3)));
        assert_eq!(report.lost_by_kind(), BTreeMap::from([(LossKind::ServerError, 1), (LossKind::Timeout, 1)]));
    }

    #[test]
    fn answers_are_kept_if_that_is_wanted() {
        assert_eq!(example().report(at(2000)).answers, []);
        let mut tally = Tally::new(true);
        for millis in [1, 5] {
            tally.sent(at(0));
            tally.ended(at(millis), at(3 * millis), false, answer(200, "v1"));
        }
        tally.sent(at(0));
        tally.ended(at(7), at(8), false, answer(500, "v1"));
        let answers = tally.report(at(9)).answers;
        let seen: Vec<_> = answers.iter().map(|one| (one.at, one.after, one.version.as_deref())).collect();
        assert_eq!(seen, [(at(1), at(2), Some("v1")), (at(5), at(10), Some("v1"))]);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<u32> = (1..=200).collect();
        let micros = |percent| percentile(&sorted, percent).as_micros();
        assert_eq!((micros(50), micros(99), micros(100)), (100, 198, 200));
        assert_eq!(percentile(&[7], 50), Duration::from_micros(7));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn a_report_reads_as_a_table() {
        let table = example().report(at(2000)).to_string();
        let expected = "\
requests   sent 6, answered 3, lost 2, in flight 1, stale retries 1, in 2.0 s
latency    p50 2.0 ms, p99 4.0 ms, max 4.0 ms
generator  lagged: 1 requests were not sent, the latest started 3.0 ms late

version           answered   first seen    last seen  statuses
v1                       2      0.004 s      0.012 s  200: 1, 404: 1
v2                       1      0.031 s      0.031 s  200: 1

   lost at        after  loss
   0.020 s       3.0 ms  server error 503 from v2, on a kept connection
   0.040 s    1000.0 ms  timed out, on a kept connection
";
        assert_eq!(table, expected);
    }

    #[test]
    fn many_losses_are_summed_up() {
        let mut tally = Tally::default();
        for number in 0..25 {
            tally.sent(Duration::ZERO);
            let kind = if number < 5 { LossKind::Reset } else { LossKind::ConnectRefused };
            tally.ended(at(number), at(number), false, Err(kind));
        }
        let table = tally.report(at(30)).to_string();
        let last = table.lines().last().unwrap();
        assert_eq!(last, "... and 15 more; in all 20 connection refused, 5 reset before the answer");
    }

    #[test]
    fn json_says_its_units() {
        let json = serde_json::to_value(example().report(at(2000))).unwrap();
        assert_eq!(json["elapsed_millis"], 2000.0);
        assert_eq!(json["by_version"]["v1"]["by_status"]["404"], 1);
        assert_eq!(json["losses"][1]["kind"], "timeout");
        assert_eq!(json["losses"][1]["after_millis"], 1000.0);
    }
}

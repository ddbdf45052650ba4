//! The proof loop: a story about one application, told again and again, each time disturbed elsewhere.
//!
//! A [`Scenario`] says what there is before, what is done, and how it must end. It is played once undisturbed, which tells
//! how many calls it makes; then once for every kind of [`Fault`] at every one of those calls, and then with several faults
//! at once, chosen by a seed. Whoever is killed or fails is followed by another process that resumes, until there is a
//! verdict. Then everything is compared: the verdict with what may come of these faults, the world with what the verdict
//! says, the journals with the rules, hooks with how often they ran, and the record of every single request.
//!
//! [`standard`] has the scenarios with which Deployer's own engine is proven, by `scripts/proof`. Programs that embed the
//! engine add their own.
//!
//! ```
//! use deployer_core::{AppSpec, ServiceSpec};
//! use deployer_testkit::World;
//! use deployer_testkit::proof::{Act, Proof, Scenario};
//!
//! # fn main() -> deployer_core::Result<()> {
//! let web = |image: &str| AppSpec::new("shop")?.with_service("web", ServiceSpec::image(image).with_port(80));
//! let arrange = |world: &World| {
//!     world.add_image("web:v1");
//!     world.add_image("web:v2");
//! };
//! let update = Scenario::new("update", "shop", arrange).serving(web("web:v1")?).then(Act::deploy(web("web:v2")?));
//! let report = Proof::of([update]).with_runs(500).run();
//! assert!(report.violations.is_empty(), "{report}");
//! # Ok(())
//! # }
//! ```

mod check;
mod play;
mod scenario;
mod standard;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

pub use scenario::{Act, Scenario};
pub use standard::standard;

use crate::faults::{At, Fault, Schedule};
use play::Stage;

/// How many faults strike in a run at the most, once every single one has been tried.
const MOST: usize = 3;

/// Scenarios, and how often they are played.
#[derive(Debug)]
#[must_use]
pub struct Proof {
    scenarios: Vec<Scenario>,
    seed: u64,
    runs: u64,
    threads: usize,
}

/// What was found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ProofReport {
    /// How often scenarios were played, no two times with the same faults.
    pub runs: u64,
    /// How many single faults there are, each at its own call of its own scenario.
    pub singles: u64,
    /// How many of them were played. The other runs had several faults.
    pub singles_played: u64,
    /// What did not hold.
    pub violations: Vec<Broken>,
    /// How often each kind of fault struck, by its text.
    pub faults: BTreeMap<String, u64>,
    /// How often each scenario was played, and how many calls it makes when nothing disturbs it.
    pub scenarios: BTreeMap<String, (u64, usize)>,
    /// How the runs ended, by the verdict of their last deployment.
    pub verdicts: BTreeMap<String, u64>,
    /// Simulated requests that were sent in all runs together.
    pub requests: u64,
}

/// A run in which something did not hold, in a form that can be played again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broken {
    /// The scenario.
    pub scenario: String,
    /// The faults.
    pub schedule: Schedule,
    /// What did not hold.
    pub what: Vec<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {}", self.scenario, self.schedule)?;
        for what in &self.what {
            write!(f, "\n    {what}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ProofReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for broken in self.violations.iter().take(50) {
            writeln!(f, "{broken}")?;
        }
        write!(f, "proof: {} runs, {} violations", self.runs, self.violations.len())
    }
}

/// What one run came to.
#[derive(Debug, Default)]
pub(crate) struct Played {
    what: Vec<String>,
    verdict: String,
    requests: u64,
}

impl Proof {
    /// Proves these scenarios: every single fault, and as many runs with several faults again.
    pub fn of(scenarios: impl IntoIterator<Item = Scenario>) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self { scenarios: scenarios.into_iter().collect(), seed: 1, runs: 0, threads }
    }

    /// Sets the seed by which several faults are chosen, and single ones where there are fewer runs than those; 1 unless it
    /// is set.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets how many runs there are at the most: first every fault alone, then several at once. Without it, every fault
    /// alone and once more as many runs.
    pub fn with_runs(mut self, runs: u64) -> Self {
        self.runs = runs;
        self
    }

    /// Plays all scenarios.
    ///
    /// # Panics
    /// If a scenario cannot be arranged: what is to serve before it is not promoted.
    #[must_use]
    pub fn run(&self) -> ProofReport {
        let mut report = ProofReport::default();
        let mut stages = Vec::new();
        let mut singles = Vec::new();
        for scenario in &self.scenarios {
            let (stage, played) = Stage::set(scenario);
            report.runs += 1;
            report.scenarios.insert(scenario.name().to_owned(), (1, stage.calls().len()));
            if !played.what.is_empty() {
                let (scenario, what) = (scenario.name().to_owned(), played.what);
                report.violations.push(Broken { scenario, schedule: Schedule::new(), what });
            }
            for (index, call) in stage.calls().iter().enumerate() {
                let at = At::Call(index as u64 + 1);
                let faults = Fault::at(call).into_iter().map(|fault| Schedule::new().with(at.clone(), fault));
                singles.extend(faults.map(|schedule| (stages.len(), schedule)));
            }
            stages.push(stage);
        }
        let single = singles.len() as u64;
        let limit = if self.runs == 0 { single * 2 } else { self.runs.saturating_sub(report.runs) };
        (report.singles, report.singles_played) = (single, single.min(limit));
        // With fewer runs than single faults, those are spread over all of them, beginning where the seed says.
        let stride = single / limit.max(1);
        let first = if stride > 1 { self.seed % stride } else { 0 };
        let next = AtomicU64::new(0);
        let shared = Mutex::new(report);
        thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    let mut ours = ProofReport::default();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= limit {
                            break;
                        }
                        let spread = if limit < single { number * single / limit + first } else { number };
                        let chosen = usize::try_from(spread).ok().and_then(|index| singles.get(index).cloned());
                        let (index, schedule) = chosen.unwrap_or_else(|| self.several(&stages, number));
                        let Some(stage) = stages.get(index) else { continue };
                        let played = stage.play(schedule.clone());
                        ours.add(stage.name(), schedule, played);
                    }
                    shared.lock().unwrap_or_else(PoisonError::into_inner).merge(ours);
                });
            }
        });
        let mut report = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.violations.sort_by_key(Broken::to_string);
        report
    }

    /// Plays one scenario with these faults, and answers what did not hold. The timeline of what happened goes to `tell`.
    ///
    /// # Panics
    /// If there is no such scenario, or it cannot be arranged.
    pub fn replay(&self, scenario: &str, schedule: &Schedule, tell: &mut dyn FnMut(String)) -> Vec<String> {
        let found = self.scenarios.iter().find(|known| known.name() == scenario);
        let found = found.unwrap_or_else(|| panic!("there is no scenario {scenario:?}"));
        let (stage, _) = Stage::set(found);
        stage.play_telling(schedule.clone(), Some(tell)).what
    }

    /// The scenario and the faults of a run with several faults.
    fn several(&self, stages: &[Stage<'_>], number: u64) -> (usize, Schedule) {
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(number);
        let index = usize::try_from(number).unwrap_or(0) % stages.len().max(1);
        let faults = if number.is_multiple_of(4) { MOST } else { 2 };
        (index, stages.get(index).map(|stage| Schedule::random(seed, stage.calls(), faults)).unwrap_or_default())
    }
}

impl ProofReport {
    fn add(&mut self, scenario: &str, schedule: Schedule, played: Played) {
        self.runs += 1;
        self.requests += played.requests;
        for (_, fault) in schedule.iter() {
            *self.faults.entry(fault.to_string()).or_default() += 1;
        }
        self.scenarios.entry(scenario.to_owned()).or_default().0 += 1;
        *self.verdicts.entry(played.verdict).or_default() += 1;
        if !played.what.is_empty() {
            self.violations.push(Broken { scenario: scenario.to_owned(), schedule, what: played.what });
        }
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.requests += other.requests;
        self.violations.extend(other.violations);
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        for (scenario, (runs, _)) in other.scenarios {
            self.scenarios.entry(scenario).or_default().0 += runs;
        }
        for (verdict, count) in other.verdicts {
            *self.verdicts.entry(verdict).or_default() += count;
        }
    }
}

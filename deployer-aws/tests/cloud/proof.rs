//! The proof loop: scenarios on the simulated AWS, each time disturbed elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use deployer_testkit::At;

use super::play::{Played, Stage};
use super::scenarios::Scenario;
use super::strike::{Strike, Strikes, possible};

/// Scenarios, and how often they are played.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) seed: u64,
    /// How many runs there are at the most; with 0, every single fault once.
    pub(crate) runs: u64,
    /// What the single faults have in their names that are played.
    pub(crate) fault: String,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) runs: u64,
    /// How many single faults there are, and how many of them were played.
    pub(crate) singles: (u64, u64),
    /// Scenario, faults and what did not hold.
    pub(crate) violations: Vec<(String, String, Vec<String>)>,
    pub(crate) faults: BTreeMap<String, u64>,
    /// Requests, changes and seconds of the undisturbed run; runs; and the most changes of any.
    pub(crate) scenarios: BTreeMap<String, [u64; 5]>,
    pub(crate) verdicts: BTreeMap<&'static str, u64>,
    pub(crate) requests: u64,
    pub(crate) sent: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (scenario, strikes, what) in self.violations.iter().take(50) {
            writeln!(f, "{scenario} | {strikes}\n    {}", what.join("\n    "))?;
        }
        write!(f, "proof-aws: {} runs, {} violations", self.runs, self.violations.len())
    }
}

impl Proof {
    /// Plays all.
    pub(crate) fn run(&self) -> Report {
        let mut report = Report::default();
        let (stages, mut singles) = (Mutex::new(BTreeMap::new()), Vec::new());
        let next = AtomicU64::new(0);
        in_parallel(|| {
            while let Some((index, scenario)) = taken(&next, &self.scenarios) {
                let set = Stage::set(scenario.clone());
                stages.lock().unwrap_or_else(PoisonError::into_inner).insert(index, set);
            }
        });
        let stages = stages.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (index, (stage, played)) in &stages {
            let requests = &stage.undisturbed.requests;
            let numbers = [requests.len() as u64, played.changes as u64, stage.undisturbed.seconds, 0, 0];
            report.scenarios.insert(stage.scenario.name.to_owned(), numbers);
            report.add(stage, &Strikes::default(), played);
            for (number, request) in requests.iter().enumerate() {
                let strikes = possible(request.mutating).into_iter();
                singles.extend(strikes.map(|strike| (*index, Strikes::one(number as u64 + 1, strike))));
            }
        }
        singles.retain(|(_, strikes)| strikes.to_string().contains(&self.fault));
        self.strike_all(&stages, &singles, report)
    }

    fn strike_all(
        &self,
        stages: &BTreeMap<usize, (Stage, Played)>,
        singles: &[(usize, Strikes)],
        mut report: Report,
    ) -> Report {
        let single = singles.len() as u64;
        let limit = if self.runs == 0 { single } else { self.runs.saturating_sub(report.runs) };
        // With fewer runs than single faults, every third one has several.
        let sampled = limit < single;
        report.singles = (single, if sampled { limit - limit / 3 } else { single });
        let next = AtomicU64::new(0);
        let shared = Mutex::new(report);
        in_parallel(|| {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= limit {
                    break;
                }
                let mut random = Random(self.seed.wrapping_mul(1_000_003).wrapping_add(number));
                let chosen = match sampled {
                    true if number % 3 == 2 => None,
                    true => singles.get(random.below(singles.len())).cloned(),
                    false => usize::try_from(number).ok().and_then(|n| singles.get(n).cloned()),
                };
                let (index, strikes) = chosen.unwrap_or_else(|| self.several(stages, &mut random));
                let Some((stage, _)) = stages.get(&index) else { continue };
                let played = catch_unwind(AssertUnwindSafe(|| stage.play(&strikes)));
                let played = played.unwrap_or_else(|_| Played {
                    what: vec!["it panicked".to_owned()],
                    verdict: "panic",
                    requests: 0,
                    changes: 0,
                    sent: 0,
                });
                shared.lock().unwrap_or_else(PoisonError::into_inner).add(stage, &strikes, &played);
            }
        });
        let mut report = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.violations.sort();
        report
    }

    /// Tells one run, and answers what did not hold.
    pub(crate) fn replay(&self, scenario: &str, strikes: &Strikes) -> Vec<String> {
        let found = self.scenarios.iter().find(|known| known.name == scenario);
        let found = found.unwrap_or_else(|| panic!("there is no scenario {scenario:?}"));
        let (stage, _) = Stage::set(found.clone());
        stage.tell(strikes).what
    }

    fn several(&self, stages: &BTreeMap<usize, (Stage, Played)>, random: &mut Random) -> (usize, Strikes) {
        let index = random.below(stages.len());
        let Some((stage, _)) = stages.get(&index) else { return (index, Strikes::default()) };
        let requests = &stage.undisturbed.requests;
        let faults = 2 + random.below(2);
        let mut strikes: BTreeMap<u64, Strike> = BTreeMap::new();
        while strikes.len() < faults {
            // What a first fault causes makes more requests than there were.
            let position = random.below(requests.len() + requests.len() / 2);
            let like = requests.get(position).unwrap_or_else(|| &requests[random.below(requests.len())]);
            let possible = possible(like.mutating);
            strikes.insert(position as u64 + 1, possible[random.below(possible.len())]);
        }
        (index, Strikes(strikes.into_iter().map(|(at, strike)| (At::Call(at), strike)).collect()))
    }
}

impl Report {
    fn add(&mut self, stage: &Stage, strikes: &Strikes, played: &Played) {
        self.runs += 1;
        self.requests += played.requests as u64;
        self.sent += played.sent;
        for (_, strike) in &strikes.0 {
            let one = Strikes::one(1, *strike).to_string();
            *self.faults.entry(one.trim_start_matches("call 1: ").to_owned()).or_default() += 1;
        }
        let scenario = self.scenarios.entry(stage.scenario.name.to_owned()).or_default();
        scenario[3] += 1;
        scenario[4] = scenario[4].max(played.changes as u64);
        *self.verdicts.entry(played.verdict).or_default() += 1;
        if !played.what.is_empty() {
            // Whoever waits for many runs learns of it at once.
            eprintln!("proof-aws: {} | {strikes}", stage.scenario.name);
            self.violations.push((stage.scenario.name.to_owned(), strikes.to_string(), played.what.clone()));
        }
    }

    /// Prints everything as tables.
    pub(crate) fn tables(&self) {
        println!(
            "{:<28} {:>8} {:>7} {:>7} {:>6} {:>12}",
            "scenario", "requests", "changes", "seconds", "runs", "most changes"
        );
        for (name, [requests, changes, seconds, runs, most]) in &self.scenarios {
            println!("{name:<28} {requests:>8} {changes:>7} {seconds:>7} {runs:>6} {most:>12}");
        }
        println!();
        for (fault, count) in &self.faults {
            println!("{fault:<44} {count:>6}");
        }
        println!("\n{:?}\n{} HTTP requests, {} requests of users", self.verdicts, self.requests, self.sent);
        println!("every fault alone: {} of {}", self.singles.1, self.singles.0);
    }
}

fn in_parallel(work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(&work);
        }
    });
}

fn taken<'a, T>(next: &AtomicU64, all: &'a [T]) -> Option<(usize, &'a T)> {
    let index = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).ok()?;
    all.get(index).map(|one| (index, one))
}

/// The same numbers for the same seed, for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit.max(1) as u64).unwrap_or(0)
    }
}

//! Runs the cases as tests, one for each.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use deployer_core::Digest;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::{Builder, Runtime};

use super::balancer;
use super::bench::StoreBench;
use super::case::{Case, CaseFailure, CaseResult};
use super::deployments;
use super::ground::Ground;
use super::images;
use super::orchestrator;
use super::profile::Profile;
use super::site::Site;
use super::store::{self, StoreGround};
use super::writer;

/// Runs the published suites on backends, with the command line of a Rust test: `cargo test` and `cargo nextest` list each
/// case as a test named `BACKEND::CASE`.
#[derive(Debug, Default)]
#[must_use]
pub struct Conformance {
    benches: Vec<Arc<dyn StoreBench>>,
    sites: Vec<Arc<dyn Site>>,
    seed: u64,
}

impl Conformance {
    /// Runs nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs the suite of [`ReleaseStore`](deployer_core::ReleaseStore) on a store.
    pub fn store(mut self, bench: impl StoreBench + 'static) -> Self {
        self.benches.push(Arc::new(bench));
        self
    }

    /// Runs all other suites on a place to run.
    pub fn site(mut self, site: impl Site + 'static) -> Self {
        self.sites.push(Arc::new(site));
        self
    }

    /// Sets the number from which faults and kills follow; a failure names it. Each case makes its own of it.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Runs what the command line asks for, and answers what `main` has to.
    ///
    /// A case that does not apply is ignored, and carries the reason in its name. A case of which a profile says that it
    /// is known to fail is run; it is ignored if it fails, and fails if it passes.
    ///
    /// # Panics
    /// If a profile names a known gap that no suite has.
    #[must_use]
    pub fn run(self) -> ExitCode {
        if let Some(done) = writer::given(&self.benches) {
            return done;
        }
        let arguments = Arguments::from_args();
        let mut trials = Vec::new();
        for bench in self.benches {
            let profile = bench.profile();
            let mut plan = Plan::new(&profile);
            for case in store::cases() {
                let (bench, name) = (Arc::clone(&bench), profile.name.clone());
                plan.add(&case, move |runtime, case: &Case<StoreGround>| run_on_store(runtime, &bench, &name, case));
            }
            trials.extend(plan.finish());
        }
        for site in self.sites {
            let profile = site.profile();
            let mut plan = Plan::new(&profile);
            let suites = [images::cases(), orchestrator::cases(), balancer::cases(), deployments::cases()];
            for case in suites.into_iter().flatten() {
                let (site, seed) = (Arc::clone(&site), self.seed);
                plan.add(&case, move |runtime, case: &Case<Ground>| run_on_site(runtime, &site, seed, case));
            }
            trials.extend(plan.finish());
        }
        libtest_mimic::run(&arguments, trials).exit_code()
    }
}

/// The trials of one backend.
struct Plan<'a> {
    profile: &'a Profile,
    trials: Vec<Trial>,
    ids: BTreeSet<&'static str>,
}

impl<'a> Plan<'a> {
    fn new(profile: &'a Profile) -> Self {
        Self { profile, trials: Vec::new(), ids: BTreeSet::new() }
    }

    fn add<S: 'static>(&mut self, case: &Case<S>, run: impl FnOnce(&Runtime, &Case<S>) -> CaseResult + Send + 'static) {
        assert!(self.ids.insert(case.id), "two cases are called {}", case.id);
        let name = format!("{}::{}", self.profile.name, case.id);
        let simulated = self.profile.simulated;
        let case = case.clone();
        if let Some(reason) = case.not_applicable(self.profile) {
            // Whoever asks for ignored tests does not get it as passed either.
            let refusal = reason.clone();
            let trial = Trial::test(name, move || Err(Failed::from(format!("it does not apply: {refusal}"))));
            self.trials.push(trial.with_kind(format!("not applicable, {reason}")).with_ignored_flag(true));
            return;
        }
        let outcome = move || run(&runtime(simulated), &case).map_err(|failure| Failed::from(failure.to_string()));
        let Some(gap) = self.profile.known_gaps.get(self.id_of(&name)).cloned() else {
            self.trials.push(Trial::test(name, outcome));
            return;
        };
        let kind = format!("known gap, {gap}");
        let trial = Trial::ignorable_test(name, move || match outcome() {
            Err(failure) => {
                let found = failure.message().unwrap_or_default().to_owned();
                Ok(Completion::ignored_with(format!("known gap, {gap}; it failed with: {found}")))
            }
            Ok(()) => Err(Failed::from(format!("it passes: take it off the list of known gaps ({gap})"))),
        });
        self.trials.push(trial.with_kind(kind));
    }

    fn id_of<'n>(&self, name: &'n str) -> &'n str {
        &name[self.profile.name.len() + 2..]
    }

    fn finish(self) -> Vec<Trial> {
        let unknown = self.profile.known_gaps.keys().find(|id| !self.ids.contains(id.as_str()));
        assert!(unknown.is_none(), "{} has a known gap that is no case: {unknown:?}", self.profile.name);
        self.trials
    }
}

fn runtime(simulated: bool) -> Runtime {
    let mut builder = Builder::new_current_thread();
    let built = if simulated { builder.enable_time().start_paused(true).build() } else { builder.enable_all().build() };
    built.unwrap_or_else(|error| panic!("a runtime cannot be made: {error}"))
}

/// Runs a case, then cleans up in any event; what fails first is what is told.
fn cleaned_up(
    runtime: &Runtime,
    case: impl Future<Output = CaseResult>,
    clean_up: impl Future<Output = CaseResult>,
) -> CaseResult {
    let ran = catch_unwind(AssertUnwindSafe(|| runtime.block_on(case)));
    let cleaned = runtime.block_on(clean_up).map_err(|failure| failure.while_trying_to("cleaning up"));
    match ran {
        Ok(result) => result.and(cleaned),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn run_on_store(runtime: &Runtime, bench: &Arc<dyn StoreBench>, name: &str, case: &Case<StoreGround>) -> CaseResult {
    let place = runtime.block_on(bench.place()).map_err(|failure| failure.while_trying_to("making a place"))?;
    let running = async {
        let store = bench.open(&place).await.map_err(|failure| failure.while_trying_to("opening the store"))?;
        let ground = StoreGround::new(Arc::clone(bench), name.to_owned(), place.clone(), store);
        (case.check)(&ground).await
    };
    cleaned_up(runtime, running, bench.remove(&place))
}

/// How long a case may take. It only keeps a broken backend from holding up the run.
const LIMIT: Duration = Duration::from_secs(300);

fn run_on_site(runtime: &Runtime, site: &Arc<dyn Site>, seed: u64, case: &Case<Ground>) -> CaseResult {
    let scope = runtime.block_on(site.scope()).map_err(|failure| failure.while_trying_to("making a scope"))?;
    let seed = Digest::of(format!("{seed} {}", case.id).as_bytes());
    let seed = u64::from_str_radix(seed.short(), 16).unwrap_or_default();
    let running = async {
        let ground = Ground::new(Arc::clone(&scope), site.profile(), seed);
        match tokio::time::timeout(LIMIT, (case.check)(&ground)).await {
            Ok(result) => result,
            Err(_) => Err(CaseFailure::new(format!("it has no end within {} s", LIMIT.as_secs()))),
        }
    };
    cleaned_up(runtime, running, scope.clean_up())
}

/// A failure of the machinery around a case.
pub(super) fn cannot(what: &str, why: impl std::fmt::Display) -> CaseFailure {
    CaseFailure::new(format!("{what}: {why}"))
}

//! A run: round after round, and after each the question whether what is said is so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bollard::query_parameters::InspectContainerOptions;
use deployer_core::{DeploymentKind, DeploymentRecord, ErrorKind, ReleaseNumber, Retention, Verdict};
use tokio::task::JoinSet;

use crate::account::{self, Account, Loads, Outages, Path};
use crate::driver::{self, Driver, Task};
use crate::script::{self, Broken, Fault, How, PHASE, Round, Script, Target, Wish};
use crate::site::{Site, promoted};
use crate::strike::{self, Executioner};
use crate::truth;

/// How often a deployment is resumed, and how long each attempt may take, before it counts as one that never ends.
const ATTEMPTS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(180);

/// How long the engine may take to start what crashed again, and the proxies to find it.
const RECOVERY: Duration = Duration::from_secs(45);

/// So many good releases are kept, and what is older is cleared away after so many rounds.
const KEPT: u32 = 5;
const PRUNE_EVERY: u64 = 6;

/// How a run went.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    verdicts: BTreeMap<&'static str, u64>,
    faults: BTreeMap<String, u64>,
    /// Faults that found nothing to hit.
    missed: u64,
    repairs: u64,
    pub(crate) violations: Vec<String>,
}

/// A run that goes on.
#[derive(Debug)]
pub(crate) struct Run {
    site: Site,
    began: Instant,
    ways: BTreeMap<Path, SocketAddr>,
    executioner: Executioner,
    outages: Outages,
    recoveries: JoinSet<()>,
    /// What every version was to be.
    broken: BTreeMap<String, Broken>,
    /// Versions that were promoted.
    promoted: Vec<String>,
    /// The version that serves, if that is known.
    serving: String,
    drivers: usize,
    /// Whether to show what processes wrote also where nothing is wrong.
    verbose: bool,
    outcome: Outcome,
}

/// What happened in one round.
#[derive(Debug, Default)]
struct Events {
    cancelled: bool,
    superseded: bool,
    deployer_killed: bool,
    /// Whether something was killed that nothing starts again.
    stopped: bool,
    /// Whether anything on the way of the requests was hit.
    hit: bool,
}

impl Run {
    /// Deploys a first version.
    pub(crate) async fn new(verbose: bool) -> Self {
        let site = Site::new("soak").await;
        println!("everything is labelled com.docker.compose.project={} or named after it", site.app());
        site.deploy_well(driver::spec(&site.place, &script::first())).await;
        let mut ways = BTreeMap::from([(Path::Version, site.place.http), (Path::Visit, site.place.http)]);
        // Where only the engine's API leads to the network, nothing is asked from inside.
        match inside(&site).await {
            Some(address) => drop(ways.insert(Path::Inside, address)),
            None => println!("the application's network cannot be reached: no requests from inside"),
        }
        let executioner = Executioner::hire(&site).await;
        Self {
            site,
            began: Instant::now(),
            ways,
            executioner,
            outages: Outages::default(),
            recoveries: JoinSet::new(),
            broken: BTreeMap::from([("r0".to_owned(), Broken::Nothing)]),
            promoted: vec!["r0".to_owned()],
            serving: "r0".to_owned(),
            drivers: 0,
            verbose,
            outcome: Outcome::default(),
        }
    }

    /// Plays rounds for so long, though at least some of both kinds, and answers how it went.
    pub(crate) async fn play(mut self, script: &Script, time: Duration) -> (Outcome, Account) {
        let loads = Loads::start(&self.ways);
        self.began = Instant::now();
        let mut wild = 0;
        for number in 1.. {
            if number > 2 * PHASE && self.began.elapsed() >= time {
                break;
            }
            let round = script.round(number);
            wild += u64::from(round.wild);
            self.round(&round).await;
            let lost = loads.lost();
            self.say(&format!("  {} serves; lost so far: {lost}", self.serving));
        }
        while self.recoveries.join_next().await.is_some() {}
        let account = loads.stop(&self.outages).await;
        self.judge(&account, wild);
        self.executioner.dismiss(&self.site).await;
        promoted(self.site.deployer.destroy(self.site.app(), true)).await;
        self.site.deployer.prune(self.site.app(), Retention::releases(0)).await.unwrap();
        for left in self.site.everything().await {
            self.outcome.violations.push(format!("after the end, {left} is still there"));
        }
        (self.outcome, account)
    }

    fn say(&self, text: &str) {
        println!("{:>8.2}  {text}", self.began.elapsed().as_secs_f64());
    }

    fn violation(&mut self, round: u64, text: &str) {
        self.say(&format!("  VIOLATION: {text}"));
        self.outcome.violations.push(format!("round {round}: {text}"));
    }

    async fn round(&mut self, round: &Round) {
        self.say(&round.to_string());
        let before: BTreeSet<String> = self.history().await.into_iter().map(|record| record.id.to_string()).collect();
        let mut events = Events::default();
        let mut drivers = Vec::new();
        let task = self.task(round.number, &round.wish).await;
        // A release that fails when it has the traffic takes its requests with it.
        let crashing = matches!(round.wish, Wish::Deploy { broken: Broken::Crash, .. });
        let began = Instant::now();
        let itself: Vec<(Path, usize)> = if crashing {
            events.hit = true;
            self.ways.keys().map(|path| (*path, self.outages.begin("release that crashes", *path, began))).collect()
        } else {
            Vec::new()
        };
        drivers.push(self.start(task));
        for timed in &round.faults {
            tokio::time::sleep((began + timed.after).saturating_duration_since(Instant::now())).await;
            self.inflict(&timed.fault, &mut drivers, &mut events).await;
        }
        self.finish(round, &mut drivers).await;
        for (path, outage) in itself {
            account::answers(self.ways[&path], path).await;
            self.outages.end(outage, Instant::now());
        }

        let mut records = self.history().await;
        records.retain(|record| !before.contains(record.id.as_str()));
        records.reverse();
        let violations = self.outcome.violations.len();
        let known = self.take(round, &records, &events, &mut drivers).await;
        self.settle(round, known, &events).await;
        if self.verbose || self.outcome.violations.len() > violations {
            for driver in &drivers {
                print!("    {}\n{}", driver.task, driver.last_lines(if self.verbose { 200 } else { 25 }));
            }
        }
        if round.number.is_multiple_of(PRUNE_EVERY) {
            match self.site.deployer.prune(self.site.app(), Retention::releases(KEPT)).await {
                Ok(pruned) => self.say(&format!("  pruned {} releases", pruned.releases.len())),
                Err(error) => self.violation(round.number, &format!("pruning failed: {error:?}")),
            }
        }
    }

    /// What a process has to do for a wish.
    async fn task(&mut self, number: u64, wish: &Wish) -> Task {
        match wish {
            Wish::Deploy { .. } => self.deploy(wish.clone()),
            Wish::Rollback => {
                let status = self.site.deployer.status(self.site.app()).await.unwrap();
                match status.last_known_good {
                    Some(_) => Task::Rollback(None),
                    None => self.deploy(script::forward(number)),
                }
            }
            Wish::RollbackTo { back } => {
                let kept = self.site.deployer.releases(self.site.app(), 100).await.unwrap();
                let is_kept = |number: &ReleaseNumber| kept.iter().any(|release| release.number == *number);
                let good = self.history().await.into_iter().filter(is_promotion);
                let mut good: Vec<ReleaseNumber> = good.filter_map(|record| record.target).collect();
                good.retain(is_kept);
                let number = good.get(*back).or(good.last()).map(|number| number.0);
                Task::Rollback(number)
            }
        }
    }

    fn deploy(&mut self, wish: Wish) -> Task {
        if let Wish::Deploy { version, broken, .. } = &wish {
            self.broken.insert(version.clone(), *broken);
        }
        Task::Deploy(wish)
    }

    fn start(&mut self, task: Task) -> Driver {
        self.drivers += 1;
        self.say(&format!("  process {}: {task}", self.drivers));
        Driver::start(&self.site, task, self.drivers)
    }

    async fn history(&self) -> Vec<DeploymentRecord> {
        self.site.deployer.history(self.site.app()).await.unwrap()
    }

    async fn is_open(&self) -> bool {
        self.history().await.iter().any(|record| record.verdict.is_none())
    }

    async fn inflict(&mut self, fault: &Fault, drivers: &mut Vec<Driver>, events: &mut Events) {
        let hit = match fault {
            Fault::Deployer { pause } => {
                let killed = drivers.last_mut().is_some_and(Driver::kill);
                if killed {
                    events.deployer_killed = true;
                    self.say(&format!("  killed process {}", self.drivers));
                    tokio::time::sleep(*pause).await;
                    if self.is_open().await {
                        drivers.push(self.start(Task::Resume));
                    }
                }
                killed
            }
            Fault::Cancel => match self.site.deployer.cancel(self.site.app(), "soak").await {
                Ok(_) => {
                    events.cancelled = true;
                    true
                }
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => panic!("cannot cancel: {error:?}"),
            },
            Fault::Supersede(wish) => {
                let under_way = self.is_open().await;
                let task = self.deploy(wish.clone());
                drivers.push(self.start(task));
                events.superseded = true;
                under_way
            }
            Fault::Kill(target, how) => {
                let struck = self.executioner.strike(&self.site, *target, *how).await;
                for struck in &struck {
                    self.say(&format!("  hit {}", struck.name));
                    self.note(&fault.kind(), struck, *target);
                }
                events.hit |= !struck.is_empty();
                events.stopped |= !struck.is_empty() && matches!(how, How::Stop);
                !struck.is_empty()
            }
        };
        if hit {
            *self.outcome.faults.entry(fault.kind()).or_default() += 1;
            self.say(&format!("  {}", fault.kind()));
        } else {
            self.outcome.missed += 1;
            self.say(&format!("  {}: there was nothing to hit", fault.kind()));
        }
    }

    /// Notes until when requests may be lost to something that was hit.
    fn note(&mut self, kind: &str, struck: &strike::Struck, target: Target) {
        for path in struck.paths.iter() {
            let Some(address) = self.ways.get(&path).copied() else { continue };
            let outage = self.outages.begin(kind, path, struck.from);
            if struck.has_others {
                // Only what it worked on is lost.
                self.outages.end(outage, struck.until);
                continue;
            }
            let (outages, docker) = (self.outages.clone(), self.site.docker.clone());
            let (name, run) = (struck.name.clone(), struck.run.clone());
            let proxy = matches!(target, Target::Ingress | Target::Proxy { .. });
            self.recoveries.spawn(async move {
                // A proxy's last process may still answer for a moment. Instances may never come back: others do.
                if proxy {
                    strike::run_again(&docker, &name, &run).await;
                }
                account::answers(address, path).await;
                outages.end(outage, Instant::now());
            });
        }
    }

    /// Waits for the processes, and lets others go on with what they left, until there is a verdict.
    async fn finish(&mut self, round: &Round, drivers: &mut Vec<Driver>) {
        for _ in 0..ATTEMPTS {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let running: Vec<&mut Driver> =
                    drivers.iter_mut().filter_map(|driver| driver.ended().is_none().then_some(driver)).collect();
                if running.is_empty() {
                    break;
                }
                if Instant::now() >= deadline {
                    let tasks: Vec<String> = running.iter().map(|driver| driver.task.to_string()).collect();
                    for driver in running {
                        driver.kill();
                    }
                    self.violation(round.number, &format!("no end within {PATIENCE:?}: {}", tasks.join("; ")));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if !self.is_open().await {
                return;
            }
            drivers.push(self.start(Task::Resume));
        }
        self.violation(round.number, &format!("there is no verdict after {ATTEMPTS} attempts to resume"));
    }

    /// Takes the verdicts of a round. Answers whether they tell what serves.
    async fn take(
        &mut self,
        round: &Round,
        records: &[DeploymentRecord],
        events: &Events,
        drivers: &mut [Driver],
    ) -> bool {
        let mut known = true;
        for record in records {
            let what = self.subject(record).await;
            let Some(verdict) = &record.verdict else { continue };
            self.say(&format!("  {what}: {}", verdict.to_string().lines().next().unwrap_or_default()));
            *self.outcome.verdicts.entry(verdict.word()).or_default() += 1;
            if let Some(wrong) = truth::journal(&self.site, &record.id).await {
                self.violation(round.number, &wrong);
            }
            let broken = self.broken.get(&what).copied().unwrap_or(Broken::Nothing);
            let deploys = record.kind == DeploymentKind::Deploy;
            known = true;
            match verdict {
                Verdict::Promoted { .. } => {
                    if deploys && broken != Broken::Nothing {
                        self.violation(round.number, &format!("{what} cannot work and was promoted"));
                    }
                    if deploys {
                        self.promoted.push(what.clone());
                    }
                    self.serving = what;
                }
                Verdict::RolledBack { .. } if broken == Broken::Nothing && !events.hit => {
                    self.violation(round.number, &format!("{what} works and was rolled back: {verdict}"));
                }
                Verdict::Cancelled { .. } if !events.cancelled => {
                    self.violation(round.number, &format!("nobody cancelled {what}"));
                }
                // A killed process may have told another one to stop and never have gone on itself.
                Verdict::Superseded { .. } if !events.superseded => {
                    self.violation(round.number, &format!("nothing was deployed instead of {what}"));
                }
                Verdict::Superseded { .. } => known = false,
                Verdict::NeedsAttention { .. } => {
                    known = false;
                    if !events.hit {
                        self.violation(round.number, &format!("{what}: {verdict}"));
                    }
                }
                _ => {}
            }
        }
        let failed: Vec<String> = drivers
            .iter_mut()
            .filter_map(|driver| (!driver.killed && driver.ended() == Some(false)).then(|| driver.last_lines(1)))
            .map(|line| line.trim().to_owned())
            .collect();
        for failed in failed {
            self.say(&format!("  a process gave up: {failed}"));
            if !events.hit && !events.cancelled && !events.superseded {
                self.violation(round.number, &format!("a process gave up: {failed}"));
            }
        }
        if records.is_empty() && !events.deployer_killed && !events.cancelled && !events.hit {
            self.violation(round.number, "there was no deployment");
        }
        known
    }

    /// The version that a deployment was to bring.
    async fn subject(&self, record: &DeploymentRecord) -> String {
        let releases = self.site.deployer.releases(self.site.app(), 200).await.unwrap();
        let target = releases.iter().find(|release| Some(release.number) == record.target);
        target.map_or_else(|| "nothing".to_owned(), truth::version_of)
    }

    /// Checks that what serves is what the verdicts say. What was killed for good is brought back first, and so is what
    /// a verdict says that somebody has to look at.
    async fn settle(&mut self, round: &Round, known: bool, events: &Events) {
        let mut wrong = Vec::new();
        if known {
            if !events.hit {
                // What was said is so at once.
                wrong = truth::serves(&self.site, &self.ways, &self.serving).await;
            }
            if wrong.is_empty() {
                // What was killed for good does not recover by itself.
                wrong = self.wrong(if events.stopped { Duration::ZERO } else { RECOVERY }).await;
            }
        }
        if !known || (events.stopped && !wrong.is_empty()) {
            self.repair(round).await;
            wrong = self.wrong(RECOVERY).await;
        }
        for wrong in wrong {
            self.violation(round.number, &wrong);
        }
    }

    /// What is not as it should be once it has had time to become so.
    async fn wrong(&self, patience: Duration) -> Vec<String> {
        let deadline = Instant::now() + patience;
        loop {
            let mut wrong = truth::serves(&self.site, &self.ways, &self.serving).await;
            if wrong.is_empty() {
                wrong.extend(truth::migrations(&self.site, &self.promoted).await);
                wrong.extend(self.site.strays_and_absent().await.0);
            }
            if wrong.is_empty() || Instant::now() >= deadline {
                return wrong;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Rolls back to the release that serves by the records: that brings it back whole.
    async fn repair(&mut self, round: &Round) {
        let status = self.site.deployer.status(self.site.app()).await.unwrap();
        let Some(serving) = status.serving else {
            return self.violation(round.number, "no release serves by the records");
        };
        self.say(&format!("  repairing: release {serving} serves by the records"));
        self.outcome.repairs += 1;
        match self.site.deployer.rollback(self.site.app(), Some(serving)).finished().await {
            Ok(record) => {
                let verdict = record.verdict.as_ref();
                *self.outcome.verdicts.entry(verdict.map_or("none", Verdict::word)).or_default() += 1;
                self.serving = self.subject(&record).await;
                if !verdict.is_some_and(Verdict::is_promoted) {
                    self.violation(round.number, &format!("it cannot be repaired: {verdict:?}"));
                }
            }
            Err(error) => self.violation(round.number, &format!("it cannot be repaired: {error:?}")),
        }
    }

    /// Judges what can only be judged at the end.
    fn judge(&mut self, account: &Account, wild: u64) {
        for loss in &account.unexplained {
            self.outcome.violations.push(format!("no fault explains that this was lost: {loss}"));
        }
        let versions: BTreeSet<&str> = account.versions().collect();
        for version in versions {
            if !self.broken.get(version).is_some_and(|broken| broken.serves()) {
                self.outcome.violations.push(format!("{version} answered requests and never should have got any"));
            }
        }
        // A run that broke nothing proves nothing.
        let faults = &self.outcome.faults;
        let killed = |kind: &String| !["deployer killed", "cancelled", "superseded"].contains(&kind.as_str());
        if !faults.contains_key("deployer killed") {
            self.outcome.violations.push("no deployer was killed while it deployed".to_owned());
        }
        if wild > 1 && !faults.keys().any(killed) {
            self.outcome.violations.push("nothing on the way of the requests could be killed".to_owned());
        }
    }
}

fn is_promotion(record: &DeploymentRecord) -> bool {
    record.verdict.as_ref().is_some_and(Verdict::is_promoted)
}

/// The address of the web service's proxy in the application's network, if it can be reached from here.
async fn inside(site: &Site) -> Option<SocketAddr> {
    let name = format!("{}-web-proxy", site.app());
    let found = site.docker.inspect_container(&name, None::<InspectContainerOptions>).await.ok()?;
    let networks = found.network_settings?.networks?;
    let address = networks.values().find_map(|network| network.ip_address.as_ref()?.parse().ok())?;
    let address = SocketAddr::new(address, 8080);
    let asked = tokio::time::timeout(Duration::from_secs(2), crate::site::get(address, "/version"));
    asked.await.ok()?.ok().map(|_| address)
}

impl Outcome {
    fn count(&self, verdict: &str) -> u64 {
        self.verdicts.get(verdict).copied().unwrap_or(0)
    }

    /// Prints what happened, and a last line for machines.
    pub(crate) fn print(&self, account: &Account, seed: u64, minutes: f64) {
        let deploys: u64 = self.verdicts.values().sum();
        let faults: u64 = self.faults.values().sum();
        println!("\n{:<36} {:>7}", "deployments", "");
        for (verdict, count) in &self.verdicts {
            println!("{verdict:<36} {count:>7}");
        }
        println!("\n{:<36} {:>7}", "faults", "");
        for (kind, count) in &self.faults {
            println!("{kind:<36} {count:>7}");
        }
        println!("{:<36} {:>7}", "(found nothing to hit)", self.missed);
        println!("\n{account}");
        if account.unsent() > 0 {
            println!("the generator could not send {} requests: this machine is too busy", account.unsent());
        }
        for violation in &self.violations {
            println!("violation: {violation}");
        }
        println!(
            "soak: seed={seed} minutes={minutes} deploys={deploys} promoted={} rolled_back={} cancelled={} superseded={} \
             needs_attention={} repairs={} faults={faults} sent={} answered={} lost={} violations={}",
            self.count("promoted"),
            self.count("rolled-back"),
            self.count("cancelled"),
            self.count("superseded"),
            self.count("needs-attention"),
            self.repairs,
            account.sent(),
            account.answered(),
            account.lost(),
            self.violations.len()
        );
    }
}

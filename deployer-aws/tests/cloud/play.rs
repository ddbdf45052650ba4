//! One run of a scenario on the simulated AWS, from its beginning to a verdict.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use deployer_core::{
    AppName, DeployOptions, Deployer, DeployerBuilder, Deployment, DeploymentRecord, Entry, ErrorKind, Release, Result,
};
use deployer_testkit::{Shape, World, simulate};

use super::Cloud;
use super::check;
use super::http::{Process, Request, Wire};
use super::scenarios::{APP, Act, HOST, PUBLISHED, Scenario, neighbour};
use super::strike::Strikes;

/// How long a lease holds in the runs.
const TTL: Duration = Duration::from_secs(15);
/// How often somebody goes on with what was left without a verdict.
const HEIRS: u32 = 12;
/// After so much time nothing that was left to itself changes.
const SETTLED: Duration = Duration::from_secs(120);
/// No run takes so long.
const ENDLESS: Duration = Duration::from_secs(6 * 3_600);

/// A scenario that is ready to be played.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) scenario: Scenario,
    pub(crate) app: AppName,
    world: World,
    cloud: Cloud,
    pub(crate) before: Shape,
    pub(crate) neighbour: (String, String),
    pub(crate) undisturbed: Undisturbed,
}

/// What comes of a scenario that nothing disturbs.
#[derive(Debug, Default)]
pub(crate) struct Undisturbed {
    pub(crate) requests: Vec<Request>,
    pub(crate) after: Shape,
    pub(crate) errands: BTreeMap<String, u32>,
    pub(crate) seconds: u64,
}

/// A run that has come to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) wire: Wire,
    pub(crate) strikes: Strikes,
    pub(crate) answer: Option<Result<()>>,
    pub(crate) records: Vec<DeploymentRecord>,
    /// The journals of them.
    pub(crate) journals: Vec<Vec<Entry>>,
    pub(crate) releases: Vec<Release>,
    pub(crate) problems: Vec<String>,
    pub(crate) shape: Shape,
    pub(crate) seconds: u64,
}

impl Ended {
    pub(crate) fn verdict(&self) -> &'static str {
        let verdict = self.records.last().and_then(|record| record.verdict.as_ref());
        verdict.map_or("none", |verdict| verdict.word())
    }

    /// How many requests that change something were made, each attempt of the SDK counted.
    pub(crate) fn changes(&self) -> usize {
        self.wire.requests().iter().filter(|request| request.mutating).count()
    }
}

/// What one run came to.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) what: Vec<String>,
    pub(crate) verdict: &'static str,
    pub(crate) requests: usize,
    pub(crate) changes: usize,
    pub(crate) sent: u64,
}

impl Stage {
    /// Arranges a scenario, and plays it undisturbed.
    pub(crate) fn set(scenario: Scenario) -> (Self, Played) {
        let app: AppName = APP.parse().unwrap_or_else(|error| panic!("{error}"));
        let world = World::new();
        for image in ["web:v1", "worker:v1"] {
            world.add_image(image);
        }
        let mut cloud = Cloud::with_profile(scenario.profile.clone());
        cloud.stock();
        let wire = Wire::new(&world, &app, cloud, &Strikes::default());
        simulate(async {
            for spec in std::iter::once(neighbour(scenario.profile.whole)).chain(scenario.served.iter().cloned()) {
                let deployer = builder(&world, &wire, &wire.process(), "before").build();
                let record = deployer.deploy(spec, DeployOptions::default()).finished().await;
                let promoted = record.as_ref().is_ok_and(|it| it.verdict.as_ref().is_some_and(|it| it.is_promoted()));
                assert!(promoted, "{}: what is to serve before is not promoted: {record:#?}", scenario.name);
            }
            world.clock().sleep(SETTLED).await;
        });
        let cloud = wire.cloud(|cloud| cloud.clone());
        assert!(cloud.broken.is_empty(), "{}: {:#?}", scenario.name, cloud.broken);
        let next_door = neighbour(false).name.to_string();
        let belongings = cloud.belongings(&next_door);
        let before = cloud.shape(APP);
        let neighbour = (next_door, belongings);
        let undisturbed = Undisturbed::default();
        let mut stage = Self { scenario, app, world, cloud, before, neighbour, undisturbed };
        let ended = simulate(stage.act_out(&Strikes::default()));
        stage.undisturbed = Undisturbed {
            requests: ended.wire.requests(),
            after: ended.shape.clone(),
            errands: ended.wire.cloud(|cloud| cloud.errands(APP)),
            seconds: ended.seconds,
        };
        let played = stage.judge(&ended);
        (stage, played)
    }

    /// Plays the scenario with these faults.
    pub(crate) fn play(&self, strikes: &Strikes) -> Played {
        simulate(async { self.judge(&self.act_out(strikes).await) })
    }

    /// The same, telling everything.
    pub(crate) fn tell(&self, strikes: &Strikes) -> Played {
        simulate(async {
            let ended = self.act_out(strikes).await;
            for (index, request) in ended.wire.requests().iter().enumerate() {
                let at = request.at as f64 / 1_000.0;
                println!("{:>5} {at:>9.2} s  {} -> {}", index + 1, request.operation, request.outcome);
            }
            for entry in ended.journals.iter().flatten() {
                println!("  {} {}", entry.at, entry.event);
            }
            println!("{}", ended.shape);
            self.judge(&ended)
        })
    }

    fn judge(&self, ended: &Ended) -> Played {
        Played {
            what: check::all(self, ended),
            verdict: ended.verdict(),
            requests: ended.wire.requests().len(),
            changes: ended.changes(),
            sent: ended.wire.cloud(|cloud| cloud.traffic.sent),
        }
    }

    async fn act_out(&self, strikes: &Strikes) -> Ended {
        let world = self.world.fork();
        let wire = Wire::new(&world, &self.app, self.cloud.clone(), strikes);
        let began = world.clock().elapsed();
        if self.scenario.traffic {
            wire.cloud(|cloud| cloud.start_traffic(HOST, 100));
            if self.scenario.profile.publishes {
                wire.cloud(|cloud| cloud.start_traffic(PUBLISHED, 100));
            }
        }
        wire.cloud(Cloud::begin_rush);
        let known = self.records(&world, &wire).await.len();
        let mut problems = Vec::new();
        let story = self.story(&world, &wire, known, &mut problems);
        let answer = match tokio::time::timeout(ENDLESS, story).await {
            Ok(answer) => answer,
            Err(_) => {
                problems.push("it does not end".to_owned());
                None
            }
        };
        let seconds = (world.clock().elapsed() - began).as_secs();
        // What was sent while nobody looked, and what is still being taken away.
        world.clock().sleep(SETTLED).await;
        wire.cloud(Cloud::stop_traffic);
        let shape = wire.cloud(|cloud| cloud.shape(APP));
        let records = self.records(&world, &wire).await.split_off(known);
        let looking = wire.looking();
        let looker = Deployer::builder(looking.clone()).clock(world.clock()).build();
        let releases = looker.releases(&self.app, 1_000).await.unwrap_or_default();
        let mut journals = Vec::new();
        for record in &records {
            journals.push(looking.store.journal(&record.id, 1).await.unwrap_or_default());
        }
        Ended { wire, strikes: strikes.clone(), answer, records, journals, releases, problems, shape, seconds }
    }

    async fn story(&self, world: &World, wire: &Wire, known: usize, problems: &mut Vec<String>) -> Option<Result<()>> {
        let answer = self.act_and_inherit(world, wire).await;
        self.converge(world, wire, problems).await;
        if self.records(world, wire).await.len() == known {
            if let Some(Ok(())) = &answer {
                problems.push("it was said to be done, and there is no record of it".to_owned());
            }
            self.try_again(world, wire, known, problems).await;
        }
        answer
    }

    /// Does what the scenario is about. Whoever waits for the lease gets it while its holder stands still.
    async fn act_and_inherit(&self, world: &World, wire: &Wire) -> Option<Result<()>> {
        let process = wire.process();
        let heir = async {
            process.paused().await;
            let _ = self.resume(world, wire).await;
        };
        let first = self.perform(world, wire, &process, "first");
        let (mut first, mut heir) = (pin!(first), pin!(heir));
        let (done, inherited) = tokio::select! {
            biased;
            done = &mut first => (done, false),
            () = &mut heir => (first.await, true),
        };
        if !inherited && process.has_paused() {
            heir.await;
        }
        if done.is_none() && wire.requests().len().is_multiple_of(2) {
            // Every second killed process was on a host whose store can tell.
            world.store().declare_holder_dead(APP);
        }
        done
    }

    async fn perform(&self, world: &World, wire: &Wire, process: &Process, owner: &str) -> Option<Result<()>> {
        let deployer = builder(world, wire, process, owner).build();
        let finished = async |deployment: Deployment| deployment.finished().await.map(drop);
        let done = async {
            match self.scenario.act.clone() {
                Act::Deploy(spec) => finished(deployer.deploy(*spec, DeployOptions::default())).await,
                Act::Rollback(to) => finished(deployer.rollback(&self.app, to)).await,
                Act::Destroy => finished(deployer.destroy(&self.app, true)).await,
            }
        };
        tokio::select! {
            biased;
            () = process.crashed() => None,
            done = done => Some(done),
        }
    }

    /// All deployments, oldest first.
    async fn records(&self, world: &World, wire: &Wire) -> Vec<DeploymentRecord> {
        let looker = Deployer::builder(wire.looking()).clock(world.clock()).build();
        let mut records = looker.history(&self.app).await.unwrap_or_default();
        records.reverse();
        records
    }

    /// Lets one process after the other go on with what has no verdict.
    async fn converge(&self, world: &World, wire: &Wire, problems: &mut Vec<String>) {
        for _ in 0..HEIRS {
            match self.resume(world, wire).await {
                Some(Ok(false)) => return,
                Some(Ok(true)) => {}
                Some(Err(_)) | None => world.clock().sleep(TTL).await,
            }
        }
        problems.push(format!("there is no verdict after {HEIRS} processes went on with it"));
    }

    async fn resume(&self, world: &World, wire: &Wire) -> Option<Result<bool>> {
        let process = wire.process();
        let deployer = builder(world, wire, &process, "heir").build();
        let resumed = async {
            match deployer.resume(&self.app).await? {
                None => Ok(false),
                Some(deployment) => deployment.finished().await.map(|_| true),
            }
        };
        tokio::select! {
            biased;
            () = process.crashed() => None,
            done = resumed => Some(done),
        }
    }

    /// Does it again, as people do whose first attempt came to nothing.
    async fn try_again(&self, world: &World, wire: &Wire, known: usize, problems: &mut Vec<String>) {
        for _ in 0..HEIRS {
            // A lease that was left behind has expired then, and what was killed is there again.
            world.clock().sleep(SETTLED).await;
            match self.perform(world, wire, &wire.process(), "again").await {
                Some(Ok(())) => return,
                Some(Err(error)) if error.kind() == ErrorKind::Busy => {}
                Some(Err(_)) | None => self.converge(world, wire, problems).await,
            }
            if self.records(world, wire).await.len() > known {
                return;
            }
        }
        problems.push("it came to nothing however often it was tried".to_owned());
    }
}

fn builder(world: &World, wire: &Wire, process: &Process, owner: &str) -> DeployerBuilder {
    let intercept = std::sync::Arc::new(process.clone());
    let builder = Deployer::builder(wire.backend(process)).secrets(wire.secrets(process));
    builder.clock(world.clock()).owner(owner).lease_ttl(TTL).intercept(intercept)
}

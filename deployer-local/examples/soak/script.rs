//! What a run does: decided by its seed alone, round by round.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// So many rounds leave the way of the requests alone, then as many do not, and so on.
pub(crate) const PHASE: u64 = 4;

/// Once it has begun, a deployment takes about so long: faults come while it is under way, most of them.
const DEPLOYMENT_MILLIS: u64 = 3_500;

/// One deployment, and what is done to it.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) number: u64,
    pub(crate) wish: Wish,
    pub(crate) faults: Vec<Timed>,
    /// Whether something on the way of the requests is killed.
    pub(crate) wild: bool,
}

/// What somebody wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Wish {
    /// A new version.
    Deploy {
        version: String,
        /// Which of the two images it has.
        image: u8,
        broken: Broken,
        strategy: Strategy,
        supersede: bool,
    },
    /// The last version that was good.
    Rollback,
    /// The good release that was first promoted so many promotions ago, as far as there are so many.
    RollbackTo { back: usize },
}

/// What is wrong with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Broken {
    Nothing,
    /// It ends at the start.
    Exit,
    /// It never says that it is healthy.
    Unhealthy,
    /// Its migration fails.
    Migrate,
    /// Its command does not exist.
    Command,
    /// All of it ends a moment after it has got the traffic.
    Crash,
}

/// How a version takes the place of the one before.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Strategy {
    BlueGreen,
    Rolling,
    Canary,
}

/// A fault, and when it comes after the beginning of the round.
#[derive(Clone, Debug)]
pub(crate) struct Timed {
    pub(crate) after: Duration,
    pub(crate) fault: Fault,
}

/// What is done to a deployment.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The deployer is killed, and this much later another one goes on.
    Deployer { pause: Duration },
    /// Somebody cancels.
    Cancel,
    /// Somebody deploys another version in its place.
    Supersede(Wish),
    /// Something on the way of the requests is killed.
    Kill(Target, How),
}

/// What is killed. Among several, `pick` says which.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// One instance of this service, of whatever revision.
    Instance { service: &'static str, pick: usize },
    /// All instances of a revision of the web service.
    Revision { pick: usize },
    /// The proxy through which traffic from outside enters.
    Ingress,
    /// The proxy that answers to this service's name.
    Proxy { service: &'static str },
}

/// How it is killed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    /// Its main process, from outside: the engine starts it again.
    Crash,
    /// The process that works for its main process.
    Worker,
    /// Through the engine, which then leaves it alone: somebody has to bring it back.
    Stop,
}

/// What is deployed before the first round.
pub(crate) fn first() -> Wish {
    Wish::Deploy {
        version: "r0".to_owned(),
        image: 2,
        broken: Broken::Nothing,
        strategy: Strategy::BlueGreen,
        supersede: false,
    }
}

/// What is deployed where there is nothing to roll back to.
pub(crate) fn forward(number: u64) -> Wish {
    Wish::Deploy {
        version: format!("r{number}-forward"),
        image: 1,
        broken: Broken::Nothing,
        strategy: Strategy::BlueGreen,
        supersede: false,
    }
}

/// The rounds of a run.
#[derive(Debug)]
pub(crate) struct Script {
    /// What decides everything.
    pub(crate) seed: u64,
    /// Whether nothing on the way of the requests is killed.
    pub(crate) calm: bool,
    /// The round that is played again and again, if only one is.
    pub(crate) only: Option<u64>,
}

/// Makes one kind of round.
type Scene = fn(&mut Draw) -> (Wish, Vec<Timed>);

/// Every kind comes once before one comes again.
const CALM: [Scene; 8] = [
    |draw| (draw.good(), vec![draw.deployer(), draw.deployer()]),
    |draw| (draw.good(), vec![draw.timed(Fault::Cancel)]),
    |draw| {
        let other = draw.superseding();
        (draw.good(), vec![draw.timed(Fault::Supersede(other)), draw.deployer()])
    },
    |draw| (draw.broken(), vec![draw.deployer()]),
    |draw| (Wish::Rollback, vec![draw.deployer()]),
    |draw| {
        let back = 2 + draw.below(3);
        (Wish::RollbackTo { back }, vec![draw.deployer(), draw.timed(Fault::Cancel)])
    },
    |draw| (draw.broken(), vec![draw.timed(Fault::Cancel), draw.deployer()]),
    |draw| (draw.good(), vec![draw.timed(Fault::Cancel), draw.deployer()]),
];

const WILD: [Scene; 12] = [
    |draw| (draw.good(), vec![draw.instance("web", How::Crash)]),
    |draw| (draw.good(), vec![draw.kill(Target::Ingress, How::Crash)]),
    |draw| (draw.good(), vec![draw.instance("web", How::Stop), draw.deployer()]),
    |draw| (draw.good(), vec![draw.kill(Target::Ingress, How::Worker), draw.deployer()]),
    |draw| (draw.crashing(), vec![draw.deployer()]),
    |draw| (draw.good(), vec![draw.kill(Target::Ingress, How::Stop)]),
    |draw| (draw.good(), vec![draw.kill(Target::Proxy { service: "web" }, How::Crash)]),
    |draw| (Wish::Rollback, vec![draw.instance("web", How::Crash), draw.deployer()]),
    |draw| {
        let pick = draw.below(100);
        (draw.good(), vec![draw.kill(Target::Revision { pick }, How::Crash)])
    },
    |draw| (draw.good(), vec![draw.kill(Target::Proxy { service: "web" }, How::Stop), draw.timed(Fault::Cancel)]),
    |draw| (draw.good(), vec![draw.instance("worker", How::Crash), draw.timed(Fault::Cancel)]),
    |draw| (Wish::Rollback, vec![draw.kill(Target::Ingress, How::Crash), draw.deployer()]),
];

impl Script {
    /// A round, numbered from 1.
    pub(crate) fn round(&self, number: u64) -> Round {
        let played = self.only.unwrap_or(number);
        let index = played - 1;
        let wild = !self.calm && index / PHASE % 2 == 1;
        let place = if self.calm { index } else { index / (2 * PHASE) * PHASE + index % PHASE };
        let scene = if wild { self.scene(&WILD, place, "wild") } else { self.scene(&CALM, place, "calm") };
        let mut draw = Draw { number, random: self.random("round", played) };
        let (wish, mut faults) = scene(&mut draw);
        faults.sort_by_key(|timed| timed.after);
        Round { number, wish, faults, wild }
    }

    /// The scene at a place of a row in which each comes once before one comes again.
    fn scene(&self, scenes: &[Scene], place: u64, name: &str) -> Scene {
        let count = scenes.len() as u64;
        let mut random = self.random(name, place / count);
        let mut row: Vec<Scene> = scenes.to_vec();
        for last in (1..row.len()).rev() {
            row.swap(last, below(&mut random, last + 1));
        }
        row[usize::try_from(place % count).unwrap_or(0)]
    }

    /// A source of chance for one purpose.
    fn random(&self, purpose: &str, number: u64) -> Random {
        let mut state = self.seed ^ 0x9e37_79b9_7f4a_7c15;
        for byte in purpose.bytes().chain(number.to_le_bytes()) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let mut random = Random(state);
        // The first numbers of neighbouring states are alike.
        for _ in 0..4 {
            random.next();
        }
        random
    }
}

fn below(random: &mut Random, bound: usize) -> usize {
    (random.next() * bound as f64) as usize
}

/// Draws the particulars of one round.
#[derive(Debug)]
struct Draw {
    number: u64,
    random: Random,
}

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        below(&mut self.random, bound)
    }

    fn version(&mut self, name: String, broken: Broken, supersede: bool) -> Wish {
        let strategy = [Strategy::BlueGreen, Strategy::BlueGreen, Strategy::Rolling, Strategy::Canary][self.below(4)];
        let image = if self.number.is_multiple_of(2) { 2 } else { 1 };
        Wish::Deploy { version: name, image, broken, strategy, supersede }
    }

    fn good(&mut self) -> Wish {
        self.version(format!("r{}", self.number), Broken::Nothing, false)
    }

    fn superseding(&mut self) -> Wish {
        self.version(format!("r{}-instead", self.number), Broken::Nothing, true)
    }

    fn broken(&mut self) -> Wish {
        let broken = [Broken::Exit, Broken::Unhealthy, Broken::Migrate, Broken::Command][self.below(4)];
        self.version(format!("r{}", self.number), broken, false)
    }

    fn crashing(&mut self) -> Wish {
        self.version(format!("r{}", self.number), Broken::Crash, false)
    }

    fn timed(&mut self, fault: Fault) -> Timed {
        let millis = (self.random.next() * DEPLOYMENT_MILLIS as f64) as u64;
        Timed { after: Duration::from_millis(millis), fault }
    }

    fn deployer(&mut self) -> Timed {
        let pause = Duration::from_millis(self.below(800) as u64);
        self.timed(Fault::Deployer { pause })
    }

    fn kill(&mut self, target: Target, how: How) -> Timed {
        self.timed(Fault::Kill(target, how))
    }

    fn instance(&mut self, service: &'static str, how: How) -> Timed {
        let pick = self.below(100);
        self.kill(Target::Instance { service, pick }, how)
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}: {}", self.number, self.wish)?;
        for Timed { after, fault } in &self.faults {
            write!(f, "; after {:.2} s {fault}", after.as_secs_f64())?;
        }
        Ok(())
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deploy { version, image, broken, strategy, supersede } => {
                write!(f, "deploy {version} of image {image}, {}", strategy.word())?;
                f.write_str(if *supersede { ", superseding" } else { "" })?;
                match broken {
                    Broken::Nothing => Ok(()),
                    broken => write!(f, ", which {}", broken.words()),
                }
            }
            Self::Rollback => f.write_str("roll back"),
            Self::RollbackTo { back } => write!(f, "roll back by {back} good releases"),
        }
    }
}

impl Broken {
    const fn words(self) -> &'static str {
        match self {
            Self::Nothing => "works",
            Self::Exit => "exits at once",
            Self::Unhealthy => "is never healthy",
            Self::Migrate => "cannot migrate",
            Self::Command => "has no such command",
            Self::Crash => "crashes when it serves",
        }
    }

    /// Whether it gets requests before it fails.
    pub(crate) fn serves(self) -> bool {
        matches!(self, Self::Nothing | Self::Crash)
    }
}

impl Strategy {
    const fn word(self) -> &'static str {
        match self {
            Self::BlueGreen => "blue-green",
            Self::Rolling => "rolling",
            Self::Canary => "canary",
        }
    }
}

impl Fault {
    /// What it is, for a table.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Deployer { .. } => "deployer killed".to_owned(),
            Self::Cancel => "cancelled".to_owned(),
            Self::Supersede(_) => "superseded".to_owned(),
            Self::Kill(target, how) => {
                let target = match target {
                    Target::Instance { service, .. } => format!("{service} instance"),
                    Target::Revision { .. } => "web revision".to_owned(),
                    Target::Ingress => "ingress".to_owned(),
                    Target::Proxy { service } => format!("{service} proxy"),
                };
                let how = match how {
                    How::Crash => "crashed",
                    How::Worker => "worker crashed",
                    How::Stop => "killed for good",
                };
                format!("{target} {how}")
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deployer { pause } => write!(f, "deployer killed, for {:.2} s", pause.as_secs_f64()),
            Self::Supersede(wish) => write!(f, "superseded: {wish}"),
            Self::Kill(Target::Instance { pick, .. } | Target::Revision { pick }, _) => {
                write!(f, "{} (pick {pick})", self.kind())
            }
            _ => f.write_str(&self.kind()),
        }
    }
}

//! Chaos on the real engine: `scripts/soak --seed S --minutes M`.
//!
//! Deploys, rolls back, cancels, supersedes and resumes the quickstart's shop under load, while its instances, its
//! proxies and the process that deploys are killed, and checks after each round that what is said is so:
//!
//! - every deployment ends in a verdict, however often its process is killed, and its journal folds
//! - the verdict is true: asked of the application and of the engine, not of the deployer
//! - nothing is left over, and each version's migration ran once
//! - no request is lost but those that were under way where something of theirs was killed
//!
//! What is done, and when, is decided by the seed and printed; what comes of it depends on the time that everything
//! takes. `--calm` leaves the way of the requests alone: then none may be lost at all. `--only` plays one round again and
//! again, `--verbose` shows what each process that deploys had to say, and `--script` only prints what would be done. The
//! last line is for machines; any violation of a promise makes the exit code 1.

#![expect(clippy::unwrap_used, reason = "a run that cannot go on fails")]

mod account;
mod driver;
#[path = "../measure/random.rs"]
mod random;
mod run;
mod script;
#[path = "../../tests/site/mod.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod site;
mod strike;
mod truth;

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use run::Run;
use script::Script;

/// How many rounds `--script` prints.
const SHOWN: u64 = 24;

/// What was asked for.
#[derive(Debug)]
struct Options {
    seed: u64,
    minutes: f64,
    calm: bool,
    only: Option<u64>,
    script: bool,
    verbose: bool,
}

impl Options {
    /// None if the arguments make no sense.
    fn parse(arguments: &[String]) -> Option<Self> {
        let mut options = Self { seed: 1, minutes: 1.0, calm: false, only: None, script: false, verbose: false };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--seed" => options.seed = words.next()?.parse().ok()?,
                "--minutes" => options.minutes = words.next()?.parse().ok().filter(|time| (0.0..1e6).contains(time))?,
                "--only" => options.only = Some(words.next()?.parse().ok().filter(|round| *round > 0)?),
                "--calm" => options.calm = true,
                "--script" => options.script = true,
                "--verbose" => options.verbose = true,
                _ => return None,
            }
        }
        Some(options)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(place) = site::Place::given() {
        return driver::drive(place).await;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(options) = Options::parse(&arguments) else {
        eprintln!("usage: soak [--seed S] [--minutes M] [--calm] [--only ROUND] [--script] [--verbose]");
        return ExitCode::from(2);
    };
    let Options { seed, minutes, verbose, .. } = options;
    let script = Script { seed, calm: options.calm, only: options.only };
    if options.script {
        (1..=SHOWN).for_each(|number| println!("{}", script.round(number)));
        return ExitCode::SUCCESS;
    }
    // Before anything is made, so that nothing is left behind.
    let mut interrupt = signal(SignalKind::interrupt()).unwrap();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let play = async {
        let run = Run::new(verbose).await;
        run.play(&script, Duration::from_secs_f64(minutes * 60.0)).await
    };
    let stopped = tokio::select! {
        played = play => Ok(played),
        _ = interrupt.recv() => Err("interrupted"),
        _ = terminate.recv() => Err("terminated"),
    };
    match stopped {
        Ok((outcome, account)) => {
            outcome.print(&account, seed, minutes);
            if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(how) => {
            eprintln!("soak: {how}; everything was cleared away");
            ExitCode::from(130)
        }
    }
}

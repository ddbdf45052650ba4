//! Proves the engine on the simulated world: `scripts/proof [--seed S] [--runs N] [--complete] [--only WORD]
//! [--replay 'SCENARIO | FAULTS']`.
//!
//! Every fault alone at every call of every scenario comes first, then several at once by the seed. With `--complete` it
//! fails if there were too few runs for that. The last line is
//! `proof: RUNS runs, VIOLATIONS violations`.

use std::process::ExitCode;
use std::time::Instant;

use deployer_testkit::Schedule;
use deployer_testkit::proof::{Proof, ProofReport, standard};

const USAGE: &str =
    "usage: scripts/proof [--seed S] [--runs N] [--complete] [--only WORD] [--replay 'SCENARIO | FAULTS']";

struct Options {
    seed: u64,
    runs: u64,
    complete: bool,
    only: String,
    replay: Option<(String, Schedule)>,
}

fn options() -> Result<Options, String> {
    let mut options = Options { seed: 1, runs: 0, complete: false, only: String::new(), replay: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--complete" {
            options.complete = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{value:?} is not a number"));
        match name.as_str() {
            "--seed" => options.seed = number()?,
            "--runs" => options.runs = number()?,
            "--only" => options.only = value,
            "--replay" => {
                let (scenario, schedule) = value.split_once(" | ").ok_or("--replay takes `SCENARIO | FAULTS`")?;
                let schedule = schedule.parse().map_err(|error| format!("{error}"))?;
                options.replay = Some((scenario.to_owned(), schedule));
            }
            other => return Err(format!("there is no option {other}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("proof: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let chosen = standard().into_iter().filter(|scenario| scenario.name().contains(&options.only));
    let proof = Proof::of(chosen).with_seed(options.seed).with_runs(options.runs);
    if let Some((scenario, schedule)) = &options.replay {
        let broken = proof.replay(scenario, schedule, &mut |line| println!("{line}"));
        broken.iter().for_each(|what| println!("violation: {what}"));
        return if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let began = Instant::now();
    let report = proof.run();
    tables(&report);
    println!("every fault alone: {} of {} runs", report.singles_played, report.singles);
    println!("several at once: {} runs", report.runs - report.singles_played - report.scenarios.len() as u64);
    println!("seed {}, {:.1} s, {} simulated requests", options.seed, began.elapsed().as_secs_f64(), report.requests);
    println!("{report}");
    let complete = report.singles_played == report.singles;
    if options.complete && !complete {
        eprintln!("proof: --complete needs more than {} runs", report.singles);
    }
    let proven = report.violations.is_empty() && report.runs > 0 && (complete || !options.complete);
    if proven { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tables(report: &ProofReport) {
    println!("{:<36} {:>6} {:>8}", "scenario", "calls", "runs");
    for (scenario, (runs, calls)) in &report.scenarios {
        println!("{scenario:<36} {calls:>6} {runs:>8}");
    }
    println!("\n{:<36} {:>8}", "fault", "struck");
    for (fault, count) in &report.faults {
        println!("{fault:<36} {count:>8}");
    }
    println!("\n{:<36} {:>8}", "verdict", "runs");
    for (verdict, count) in &report.verdicts {
        println!("{verdict:<36} {count:>8}");
    }
    println!();
}

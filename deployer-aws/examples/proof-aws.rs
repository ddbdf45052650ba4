//! Proves the backend on a simulated AWS: `scripts/proof-aws [--seed S] [--runs N] [--only WORD]
//! [--replay 'SCENARIO | FAULTS']`.
//!
//! Every fault alone at every HTTP request of every scenario comes first, then several at once by the seed. The last line is
//! `proof-aws: RUNS runs, VIOLATIONS violations`.

#![expect(dead_code, reason = "the tests use what is not used here")]

#[path = "../tests/cloud/mod.rs"]
mod cloud;

use std::process::ExitCode;
use std::time::Instant;

use cloud::proof::Proof;
use cloud::scenarios;
use cloud::strike::Strikes;

const USAGE: &str =
    "usage: scripts/proof-aws [--seed S] [--runs N] [--only WORD] [--fault WORD] [--replay 'SCENARIO | FAULTS']";

#[derive(Debug, Default)]
struct Options {
    seed: u64,
    runs: u64,
    only: String,
    fault: String,
    replay: Option<(String, Strikes)>,
}

fn options() -> Result<Options, String> {
    let mut options = Options { seed: 1, ..Options::default() };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{value:?} is not a number"));
        match name.as_str() {
            "--seed" => options.seed = number()?,
            "--runs" => options.runs = number()?,
            "--only" => options.only = value,
            "--fault" => options.fault = value,
            "--replay" => {
                let (scenario, strikes) = value.split_once(" | ").ok_or("--replay takes `SCENARIO | FAULTS`")?;
                let strikes = strikes.parse().map_err(|error| format!("{error}"))?;
                options.replay = Some((scenario.to_owned(), strikes));
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
            eprintln!("proof-aws: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let scenarios = scenarios::all().into_iter().filter(|scenario| scenario.name.contains(&options.only)).collect();
    let proof = Proof { scenarios, seed: options.seed, runs: options.runs, fault: options.fault };
    if let Some((scenario, strikes)) = &options.replay {
        let broken = proof.replay(scenario, strikes);
        broken.iter().for_each(|what| println!("violation: {what}"));
        return if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let began = Instant::now();
    let report = proof.run();
    report.tables();
    println!("seed {}, {:.1} s", options.seed, began.elapsed().as_secs_f64());
    println!("{report}");
    if report.violations.is_empty() && report.runs > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

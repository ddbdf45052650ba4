//! Measures what the local backend promises, on this machine's Docker Engine: `scripts/measure WHAT`.
//!
//! - `losses [--rounds 50]`: deploys and rolls back so often under 400 requests per second, the first half with answers
//!   that come at once, the other half with answers that take 300 to 500 ms, and counts lost requests
//! - `floor [--rounds 10] [--calls]`: how long it takes until three replicas of a new version serve, against the same three
//!   containers made by plain calls of the Engine API; and how long a warm rollback takes to move the traffic; with
//!   `--calls` also where that time goes
//! - `killed [--moments 20] [--seed 1]`: kills the deploying process at random moments and lets another one go on
//! - `diagnosis [--calls]`: how long it takes from the first evidence that a release cannot work until it is rolled back
//!
//! Each prints a table, and a last line for machines.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on fails")]

mod calls;
mod diagnosis;
mod floor;
mod killed;
mod losses;
mod plain;
mod random;
#[path = "../../tests/site/mod.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod site;
mod statistics;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(place) = site::Place::given() {
        return killed::deploy_to(place).await;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let value = arguments.iter().skip_while(|argument| *argument != name).nth(1);
        value.map_or(Ok(default), |value| value.parse())
    };
    let show_calls = arguments.iter().any(|argument| argument == "--calls");
    let what = arguments.first().map(String::as_str).unwrap_or_default();
    let measured = match (what, number("--rounds", 0), number("--moments", 20), number("--seed", 1)) {
        ("losses", Ok(rounds), ..) => losses::measure(if rounds == 0 { 50 } else { rounds }).await,
        ("floor", Ok(rounds), ..) => floor::measure(if rounds == 0 { 10 } else { rounds }, show_calls).await,
        ("killed", _, Ok(moments), Ok(seed)) => killed::measure(moments, seed).await,
        ("diagnosis", ..) => diagnosis::measure(show_calls).await,
        _ => {
            eprintln!("usage: measure losses|floor|killed|diagnosis [--rounds N] [--calls] [--moments N] [--seed N]");
            return ExitCode::from(2);
        }
    };
    if measured { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

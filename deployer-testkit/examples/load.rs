//! Sends a load to a server and prints what became of it.
//!
//! `cargo run -p deployer-testkit --example load -- 127.0.0.1:8080 shop.localhost 400 10` sends 400 requests per second
//! for 10 seconds, half of them on kept connections. Exits with 1 if any was lost.

use std::process::ExitCode;

use deployer_testkit::load::{Load, Mode};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((load, requests)) = parse(&arguments) else {
        eprintln!("usage: load ADDRESS:PORT HOST REQUESTS_PER_SECOND SECONDS [PATH]");
        return ExitCode::from(2);
    };
    let report = load.limit(requests).start().finish().await;
    print!("{report}");
    ExitCode::from(u8::from(report.lost > 0))
}

fn parse(arguments: &[String]) -> Option<(Load, u64)> {
    let (address, host, rate, seconds, path) = match arguments {
        [address, host, rate, seconds] => (address, host, rate, seconds, "/"),
        [address, host, rate, seconds, path] => (address, host, rate, seconds, path.as_str()),
        _ => return None,
    };
    let rate: u32 = rate.parse().ok()?;
    let seconds: u32 = seconds.parse().ok()?;
    let load = Load::new(address.parse().ok()?, host).path(path).rate(rate);
    Some((load.mode(Mode::Mixed), u64::from(rate) * u64::from(seconds)))
}

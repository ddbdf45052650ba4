//! The `deployer` command line: a thin skin over the SDK that shows how to embed it.
//!
//! Start with [`backend`], which puts a `Deployer` together, and [`watch`], which drives a deployment to its verdict.
//! The rest reads arguments and writes text.

mod args;
mod backend;
mod commands;
mod compose;
mod exit;
mod fault;
mod output;
mod show;
mod story;
mod table;
mod verdict;
mod watch;

use clap::Parser as _;

use args::Args;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let args = Args::parse();
    trace();
    let json = args.global.json;
    let exit = match commands::run(args).await {
        Ok(exit) => exit,
        Err(fault) => fault.tell(json),
    };
    exit.into()
}

/// Writes the SDK's `tracing` spans and events to standard error if `RUST_LOG` asks for them.
fn trace() {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .init();
    }
}

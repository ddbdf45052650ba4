//! Measures Deployer beside what people would use instead: `scripts/bench WHAT`. Nothing depends on it.
//!
//! Each measurement ends in a line of figures for machines. With `--write` it also writes its part of `docs/benchmarks.md`.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on fails")]

mod aws;
mod bad_release;
mod embedding;
mod engine;
mod figures;
mod killed;
mod local;
mod machine;
#[path = "../../deployer-local/examples/measure/plain.rs"]
mod plain;
mod plot;
#[path = "../../deployer-local/tests/site/mod.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod site;
#[path = "../../deployer-aws/tests/stage/mod.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod stage;
mod swarm;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Measures Deployer beside what people would use instead.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Writes the results into docs/benchmarks.md.
    #[arg(long, global = true)]
    write: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Deploys and rolls back under load, with each tool in turn.
    Local(Choice),
    /// Deploys a release that cannot work, with each tool in turn.
    BadRelease(Choice),
    /// Kills the deploying process at ten moments, with each tool in turn.
    Killed(Choice),
    /// Simulated deployments of many services, and many at once.
    Engine,
    /// Compares the instructions and allocations of deployments with those that were written down.
    Guard,
    /// What a program has to compile that embeds Deployer, beside others.
    Embedding,
    /// Counts the requests that deployments make to AWS.
    Aws {
        /// Where `aws` and `ecs` (of ecs-deploy) are; without it they are left out.
        #[arg(long)]
        tools: Option<PathBuf>,
    },
    /// Simulated deployments and nothing else, for tools that look at a process.
    Repeat(Size),
}

/// How much is simulated.
#[derive(Clone, Copy, Debug, Args)]
struct Size {
    /// How many services an application has.
    #[arg(long, default_value_t = 1)]
    services: usize,
    /// How many applications are deployed at once.
    #[arg(long, default_value_t = 1)]
    at_once: usize,
    /// How often.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
}

/// With which tools, how large, how often.
#[derive(Debug, Args)]
struct Choice {
    /// How many instances of the service.
    #[arg(long, default_value_t = 3)]
    replicas: u32,
    /// How often each tool has its turn.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// The path of docker-rollout's script; without it that tool is left out.
    #[arg(long)]
    rollout: Option<PathBuf>,
    /// Compares Docker Swarm too, on an engine that is started for it: needs root, `ip` and `nsenter`.
    #[arg(long)]
    swarm: bool,
    /// Only the tools whose names contain this.
    #[arg(long)]
    only: Option<String>,
}

impl Choice {
    /// The options that choose tools, as they are typed.
    fn options(&self) -> String {
        let swarm = if self.swarm { " --swarm" } else { "" };
        let rollout = if self.rollout.is_some() { " --rollout SCRIPT" } else { "" };
        let only = self.only.as_ref().map(|only| format!(" --only {only}")).unwrap_or_default();
        format!("{swarm}{rollout}{only}")
    }

    /// Says which tools have not been measured.
    fn left_out(&self) -> String {
        let swarm = (!self.swarm).then_some("Docker Swarm (`--swarm`)");
        let rollout = self.rollout.is_none().then_some("docker-rollout (`--rollout SCRIPT`)");
        let left_out: Vec<&str> = swarm.into_iter().chain(rollout).collect();
        if left_out.is_empty() {
            String::new()
        } else {
            format!("\nNot measured in this run: {}.\n", left_out.join(", "))
        }
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(place) = site::Place::given() {
        return runtime.block_on(tools::act_as_deployer(place));
    }
    let Arguments { what, write } = Arguments::parse();
    let section = match what {
        What::Local(choice) => runtime.block_on(local::measure(&choice)),
        What::BadRelease(choice) => runtime.block_on(bad_release::measure(&choice)),
        What::Killed(choice) => runtime.block_on(killed::measure(&choice)),
        What::Engine => engine::measure(),
        What::Embedding => embedding::measure(),
        What::Aws { tools } => runtime.block_on(aws::measure(tools.as_deref())),
        What::Guard => return if engine::guard(write) { ExitCode::SUCCESS } else { ExitCode::FAILURE },
        What::Repeat(size) => {
            engine::repeat(size);
            return ExitCode::SUCCESS;
        }
    };
    println!("\n{}", section.text);
    if write {
        section.write();
    }
    println!("{}", section.figures);
    ExitCode::SUCCESS
}

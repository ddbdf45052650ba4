//! Ships the shop under `app` on this machine: deploys it, deploys a second version under load, a broken third one that
//! rolls back by itself, rolls back to the first, prints what happened, and clears everything away.
//!
//! This is also what embedding the SDK looks like: [`docker`] puts a `Deployer` together, [`shop`] reads a Compose file,
//! [`stage::Stage::run`] follows a deployment to its verdict, and the story is told here. With `--simulated` it is played
//! in a [simulated] world: a program can be tested so without Docker.

mod docker;
mod print;
mod shop;
mod simulated;
mod stage;
mod traffic;

use std::error::Error;
use std::process::ExitCode;

use deployer_core::{DeployOptions, ReleaseNumber, Verdict};
use deployer_testkit::simulate;

use docker::Docker;
use print::Chapter;
use simulated::Simulated;
use stage::{Place, Stage};
use traffic::Traffic;

/// Whatever went wrong.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => on_docker(),
        (Some("--simulated"), None) => simulate(play(Simulated::stage())),
        _ => {
            eprintln!("usage: quickstart [--simulated]");
            ExitCode::from(2)
        }
    }
}

#[tokio::main]
async fn on_docker() -> ExitCode {
    play(Docker::stage().await).await
}

async fn play<P: Place>(stage: Result<Stage<P>>) -> ExitCode {
    let mut stage = match stage {
        Ok(stage) => stage,
        Err(error) => {
            print::failure(error.as_ref());
            return ExitCode::FAILURE;
        }
    };
    print::remark(P::REMARK);
    let mut chapters = Vec::new();
    let told = story(&mut stage, &mut chapters).await;
    print::table(&chapters);
    if let Err(error) = &told {
        print::failure(error.as_ref());
    }
    let cleared = stage.clear().await;
    if let Err(error) = &cleared {
        print::failure(error.as_ref());
    }
    let summary = print::summary(&chapters);
    if let Some(line) = &summary {
        print::remark(P::REMARK);
        println!("{line}");
    }
    if told.is_ok() && cleared.is_ok() && summary.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn story<P: Place>(stage: &mut Stage<P>, chapters: &mut Vec<Chapter>) -> Result<()> {
    println!("1. Deploy v1. Its images are built and started; nothing serves yet.");
    let spec = shop::version(&stage.app, "v1", None)?;
    let options = DeployOptions::default().with_message("the first version").with_git(shop::git_state());
    let record = stage.run(stage.deployer.deploy(spec, options)).await?;
    expect(record.verdict.as_ref(), "promoted")?;
    chapters.push(Chapter::new("deploy v1", &record));

    println!("\n2. Deploy v2 while visitors come: blue-green, so v1 serves until all of v2 is healthy.");
    let traffic = Traffic::start(&stage.place).await?;
    let spec = shop::version(&stage.app, "v2", None)?;
    let record = stage.run(stage.deployer.deploy(spec, DeployOptions::default().with_message("faster"))).await?;
    expect(record.verdict.as_ref(), "promoted")?;
    let seen = traffic.finish().await?;
    chapters.push(Chapter::new("deploy v2", &record).with_traffic(seen.moved("v1", "v2")?));

    println!("\n3. Deploy v3, which exits at once. It never gets a visitor, and v2 goes on.");
    let traffic = Traffic::start(&stage.place).await?;
    let spec = shop::version(&stage.app, "v3", Some("exit"))?;
    let record = stage.run(stage.deployer.deploy(spec, DeployOptions::default().with_message("broken"))).await?;
    expect(record.verdict.as_ref(), "rolled-back")?;
    if let Some(cause) = record.verdict.as_ref().and_then(Verdict::cause) {
        print::diagnosis(cause);
    }
    let seen = traffic.finish().await?;
    seen.stayed("v2")?;
    chapters.push(Chapter::new("deploy v3 (broken)", &record).with_traffic(seen.untouched()));

    println!("\n4. Roll back to v1, by its number. Nothing is built; if it is still warm, only the traffic moves.");
    let traffic = Traffic::start(&stage.place).await?;
    let record = stage.run(stage.deployer.rollback(&stage.app, Some(ReleaseNumber(1)))).await?;
    expect(record.verdict.as_ref(), "promoted")?;
    let seen = traffic.finish().await?;
    chapters.push(Chapter::new("roll back to v1", &record).with_traffic(seen.moved("v2", "v1")?));

    println!("\n5. Ask the shop which migrations ran: each version's hook exactly once, however often it was tried.");
    let migrations = stage.place.migrations().await?;
    print!("{}", print::indented(&migrations));
    if migrations != "v1 1\nv2 1\nv3 1\n" {
        return Err(format!("each version's hook should have run once, but the shop says {migrations:?}").into());
    }
    match chapters.iter().filter_map(Chapter::lost).sum() {
        0_u64 => Ok(()),
        lost => Err(format!("{lost} requests were lost").into()),
    }
}

/// The verdict has to be the one that the story tells of.
fn expect(verdict: Option<&Verdict>, word: &str) -> Result<()> {
    match verdict {
        Some(verdict) if verdict.word() == word => Ok(()),
        Some(verdict) => Err(format!("this should have been {word}, but it is {verdict}").into()),
        None => Err("there is no verdict".into()),
    }
}

//! What changes something: `deploy`, `rollback`, `resume`, `destroy`, `prune`.

use std::io::{self, IsTerminal as _};

use deployer_core::{AppName, DeployOptions, Deployer, ReleaseNumber, Retention, Verdict};
use serde_json::Value;

use crate::args::Global;
use crate::exit::Exit;
use crate::fault::{Fault, problems_text, usage};
use crate::show::Show;
use crate::watch::{self, watch};
use crate::{backend, compose, output};

pub(crate) async fn deploy(global: &Global, message: Option<String>, supersede: bool) -> Result<Exit, Fault> {
    let app = compose::read(global)?;
    if !app.warnings.0.is_empty() {
        output::error(&problems_text(&app.warnings));
    }
    let mut options = DeployOptions::default().with_git(deployer_local::git_state(compose::directory(global)));
    if let Some(author) = backend::author() {
        options = options.with_author(author);
    }
    if let Some(message) = message {
        options = options.with_message(message);
    }
    if supersede {
        options = options.superseding();
    }
    let deployer = backend::deployer(global).await?;
    let deployment = deployer.deploy(app.spec, options);
    let verdict = watch(deployment, Show::new(global.json)).await?;
    Ok(watch::exit(verdict.as_ref()))
}

pub(crate) async fn rollback(global: &Global, to: Option<ReleaseNumber>) -> Result<Exit, Fault> {
    let app = compose::app(global)?;
    let deployer = backend::deployer(global).await?;
    let deployment = deployer.rollback(&app, to);
    let verdict = watch(deployment, Show::new(global.json)).await?;
    Ok(watch::exit(verdict.as_ref()))
}

pub(crate) async fn resume(global: &Global) -> Result<Exit, Fault> {
    let app = compose::app(global)?;
    let deployer = backend::deployer(global).await?;
    match go_on(global, &deployer, &app).await? {
        Some(verdict) => Ok(Exit::from(&verdict)),
        None => {
            if global.json {
                output::json(&Value::Null)?;
            } else {
                output::text(&format!("{app}: no deployment is under way\n"))?;
            }
            Ok(Exit::Done)
        }
    }
}

/// Goes on with the deployment that has no verdict yet, if there is one, and watches it.
pub(crate) async fn go_on(global: &Global, deployer: &Deployer, app: &AppName) -> Result<Option<Verdict>, Fault> {
    let Some(deployment) = deployer.resume(app).await? else { return Ok(None) };
    let mut show = Show::new(global.json);
    show.catch_up(&deployer.journal(deployment.id()).await?);
    watch(deployment, show).await
}

pub(crate) async fn destroy(global: &Global, volumes: bool, yes: bool) -> Result<Exit, Fault> {
    let app = compose::app(global)?;
    if !yes && io::stdin().is_terminal() && !confirmed(&app, volumes)? {
        return Err(usage("nothing is removed", "answer with the application's name, or say --yes"));
    }
    let deployer = backend::deployer(global).await?;
    let deployment = deployer.destroy(&app, volumes);
    let verdict = watch(deployment, Show::new(global.json)).await?;
    Ok(watch::exit(verdict.as_ref()))
}

/// Asks on the terminal.
fn confirmed(app: &AppName, volumes: bool) -> io::Result<bool> {
    let what = if volumes { "everything that runs and all data" } else { "everything that runs" };
    output::error(&format!("This removes {what} of {app}. Its name, to go on: "));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == app.as_str())
}

pub(crate) async fn prune(global: &Global, keep: u32) -> Result<Exit, Fault> {
    let app = compose::app(global)?;
    let deployer = backend::deployer(global).await?;
    let pruned = deployer.prune(&app, Retention::releases(keep)).await?;
    if global.json {
        output::json(&pruned)?;
        return Ok(Exit::Done);
    }
    let mut text = String::new();
    for (what, names) in [
        ("release", pruned.releases.iter().map(ToString::to_string).collect::<Vec<_>>()),
        ("revision", pruned.revisions.iter().map(ToString::to_string).collect()),
        ("image", pruned.images),
        ("definition", pruned.definitions),
    ] {
        for name in names {
            text.push_str(&format!("removed {what} {name}\n"));
        }
    }
    if text.is_empty() {
        text = format!("{app}: there is nothing to clear away\n");
    }
    output::text(&text)?;
    Ok(Exit::Done)
}

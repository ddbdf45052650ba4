//! Signals for a deployment that runs elsewhere: `cancel` and `promote`.

use deployer_core::{AppName, Deployer, Signalled, Verdict};

use super::change::go_on;
use crate::args::Global;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::watch::by;
use crate::{backend, compose, output};

pub(crate) async fn cancel(global: &Global, message: Option<String>) -> Result<Exit, Fault> {
    let app = compose::app(global)?;
    let deployer = backend::deployer(global).await?;
    let by = message.map_or_else(by, |message| format!("{}: {message}", by()));
    let signalled = deployer.cancel(&app, by).await?;
    match carry_out(global, &deployer, &app, &signalled, "is told to stop and to bring back what was there").await? {
        // That is what was wanted here.
        Some(Verdict::Cancelled { .. }) | None => Ok(Exit::Done),
        Some(verdict) => Ok(Exit::from(&verdict)),
    }
}

pub(crate) async fn promote(global: &Global) -> Result<Exit, Fault> {
    let app = compose::app(global)?;
    let deployer = backend::deployer(global).await?;
    let signalled = deployer.promote(&app, by()).await?;
    let verdict = carry_out(global, &deployer, &app, &signalled, "is told to pass its approval gates").await?;
    Ok(verdict.as_ref().map_or(Exit::Done, Exit::from))
}

/// Leaves the signal to the process that drives the deployment; if there is none, drives it from here.
async fn carry_out(
    global: &Global,
    deployer: &Deployer,
    app: &AppName,
    signalled: &Signalled,
    what: &str,
) -> Result<Option<Verdict>, Fault> {
    if !signalled.driven {
        output::error(&format!("deployment {} is driven by nobody: going on with it here\n", signalled.deployment));
        return go_on(global, deployer, app).await;
    }
    if global.json {
        output::json(signalled)?;
    } else {
        output::text(&format!("deployment {} {what}\n", signalled.deployment))?;
    }
    Ok(None)
}

//! Deploys applications as processes of this host: a small program around the backend.
//!
//! ```text
//! deployer-processes demo                     a whole story, in a directory of its own
//! deployer-processes plan FILE                what deploying a Compose file would do
//! deployer-processes deploy FILE
//! deployer-processes rollback APP [RELEASE]
//! deployer-processes status APP
//! deployer-processes logs APP
//! deployer-processes destroy APP
//! deployer-processes import NAME DIRECTORY COMMAND...
//! ```
//!
//! `DEPLOYER_STATE` names the state directory, `DEPLOYER_HTTP` where routes are served.

mod app;
mod commands;
mod demo;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use processes_backend::{Processes, ProcessesOptions, run_if_helper};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    // Keepers and the proxy are this program as well.
    if let Some(done) = run_if_helper() {
        return done;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return show::failure(&error),
    };
    runtime.block_on(run(&arguments)).unwrap_or_else(|error| show::failure(&*error))
}

async fn run(arguments: &[String]) -> Result<ExitCode> {
    match arguments.split_first() {
        Some((word, words)) if word == "app" => app::run(words).await,
        Some((word, [])) if word == "demo" => demo::run().await,
        _ => commands::run(arguments).await,
    }
}

/// The backend as the environment says.
fn processes() -> Result<Processes> {
    let state = match std::env::var_os("DEPLOYER_STATE") {
        Some(state) => PathBuf::from(state),
        None => {
            PathBuf::from(std::env::var_os("HOME").ok_or("set DEPLOYER_STATE or HOME")?).join(".deployer-processes")
        }
    };
    let mut options = ProcessesOptions::new(state, std::env::current_exe()?);
    if let Ok(address) = std::env::var("DEPLOYER_HTTP") {
        options = options.with_ingress(address.parse()?);
    }
    Ok(Processes::open(options)?)
}

//! The commands for applications of one's own.

use std::path::Path;
use std::process::ExitCode;

use deployer_core::compose::{ComposeReader, render};
use deployer_core::{AppName, AppSpec, DeployOptions, Deployer, LogQuery};
use futures_util::StreamExt as _;

use crate::{Result, processes, show};

const USAGE: &str = "usage: deployer-processes demo | plan FILE | deploy FILE | rollback APP [RELEASE] | status APP \
                     | logs APP | destroy APP | import NAME DIRECTORY COMMAND...";

pub(crate) async fn run(arguments: &[String]) -> Result<ExitCode> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["import", name, directory, command @ ..] = words.as_slice() {
        println!("{name} is {}", processes()?.import(name, Path::new(directory), command)?);
        return Ok(ExitCode::SUCCESS);
    }
    let deployer = || Result::Ok(Deployer::new(processes()?.backend()));
    match words.as_slice() {
        ["plan", file] => print!("{}", deployer()?.plan(&read(file)?, &DeployOptions::default()).await?),
        ["deploy", file] => return show::deployment(deployer()?.deploy(read(file)?, DeployOptions::default())).await,
        ["rollback", app] => return show::deployment(deployer()?.rollback(&AppName::new(*app)?, None)).await,
        ["rollback", app, release] => {
            return show::deployment(deployer()?.rollback(&AppName::new(*app)?, Some(release.parse()?))).await;
        }
        ["status", app] => show::status(&deployer()?.status(&AppName::new(*app)?).await?),
        ["logs", app] => {
            let mut lines = deployer()?.logs(LogQuery::new(AppName::new(*app)?)).await?;
            while let Some(line) = lines.next().await {
                println!("{}", line?);
            }
        }
        ["destroy", app] => return show::deployment(deployer()?.destroy(&AppName::new(*app)?, false)).await,
        _ => return Err(USAGE.into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &str) -> Result<AppSpec> {
    let read = ComposeReader::new().read_file(Path::new(file));
    Ok(read.map_err(|problems| render(&problems, |name| std::fs::read_to_string(name).ok()))?.spec)
}

//! What people see.

use std::error::Error;
use std::process::ExitCode;

use deployer_core::{Action, AppStatus, Deployment, EventKind, JournalEvent, Outcome, Plan, Verdict};

use crate::Result;

/// Follows a deployment to its verdict. Ctrl-C cancels it, which brings back what was there before.
pub(crate) async fn deployment(mut deployment: Deployment) -> Result<ExitCode> {
    let mut plan: Option<Plan> = None;
    loop {
        tokio::select! {
            event = deployment.next_event() => match event {
                Some(event) => tell(&event.kind, &mut plan),
                None => break,
            },
            Ok(()) = tokio::signal::ctrl_c() => {
                println!("  interrupted: bringing back what was there before");
                deployment.cancel("Ctrl-C");
            }
        }
    }
    let record = deployment.finished().await?;
    let verdict = record.verdict.ok_or("it ended without a verdict")?;
    println!("{}", indented(&verdict.to_string()));
    Ok(if matches!(verdict, Verdict::Promoted { .. }) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(event: &EventKind, plan: &mut Option<Plan>) {
    match event {
        EventKind::Pinned { service, image } => println!("  {service}: {image}"),
        EventKind::Released { release } => println!("  release {release}"),
        EventKind::Journal { entry } => match &entry.event {
            JournalEvent::Opened { plan: made, .. } | JournalEvent::Diverted { plan: made, .. } => {
                if matches!(entry.event, JournalEvent::Diverted { .. }) {
                    println!("  it failed: bringing back what was there before");
                }
                *plan = Some(made.clone());
            }
            JournalEvent::StepFinished { step, outcome, .. } => {
                let action = plan.as_ref().and_then(|plan| plan.step(*step)).map(|step| &step.action);
                if let Some(action) = action.filter(|action| is_news(action, *outcome)) {
                    println!("  done: {action}");
                }
            }
            JournalEvent::StepRetried { error, .. } => println!("  will be tried again: {error}"),
            _ => {}
        },
        _ => {}
    }
}

/// Whether a step did something that anybody wants to know of.
fn is_news(action: &Action, outcome: Outcome) -> bool {
    match action {
        Action::Prepare { .. } | Action::Drain { .. } | Action::Tidy { .. } => false,
        Action::AwaitHealthy { .. } | Action::Verify { .. } => true,
        _ => outcome != Outcome::AlreadyThere,
    }
}

pub(crate) fn status(status: &AppStatus) {
    let serving = status.serving.map_or_else(|| "nothing".to_owned(), |release| release.to_string());
    println!("{}: {serving} serves", status.app);
    for service in &status.services {
        for revision in &service.revisions {
            let weight = revision.weight.map_or_else(|| "no traffic".to_owned(), |weight| format!("{weight} %"));
            println!("  {} of {}, {weight}", revision.revision, revision.release);
            for instance in &revision.instances {
                let address = instance.address.as_deref().unwrap_or("nowhere");
                println!("    {} at {address}: {:?}, {:?}", instance.name, instance.phase, instance.health);
            }
        }
    }
    for drift in &status.drift {
        println!("  but {drift}");
    }
}

/// An error with its causes and what to do about it.
pub(crate) fn failure(error: &(dyn Error + 'static)) -> ExitCode {
    eprintln!("error: {error}");
    let mut next = error.source();
    while let Some(cause) = next {
        eprintln!("  because: {cause}");
        next = cause.source();
    }
    if let Some(help) = error.downcast_ref::<deployer_core::Error>().and_then(deployer_core::Error::help) {
        eprintln!("  help: {help}");
    }
    ExitCode::FAILURE
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

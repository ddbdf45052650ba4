//! What applications on AWS live in: `environment`.

use std::fmt::Write as _;

use deployer_aws::{Environment, EnvironmentOutputs, EnvironmentSpec, config_from_env};
use deployer_core::{Outcome, Progress, ProgressSink};
use serde_json::{Value, json};

use crate::args::{EnvironmentChange, EnvironmentCommand, Global};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output;

/// Tells every step on standard error.
struct Steps;

impl ProgressSink for Steps {
    fn progress(&self, step: Progress) {
        output::error(&format!("{}: {}\n", step.item, step.message));
    }
}

pub(crate) async fn environment(global: &Global, command: EnvironmentCommand) -> Result<Exit, Fault> {
    let there = Environment::new(&config_from_env().await);
    match command {
        EnvironmentCommand::Template(change) => output::text(&format!("{:#}\n", spec(&change).template()?))?,
        EnvironmentCommand::Plan(change) => output::text(&format!("{}\n", there.plan(&spec(&change)).await?))?,
        EnvironmentCommand::Apply(change) => {
            let word = match there.apply(&spec(&change), &Steps).await? {
                Outcome::Created => "was made",
                Outcome::Changed => "was changed",
                Outcome::AlreadyThere => "is as it should be",
            };
            let outputs = there.options(&change.name).await?;
            tell(global, &change.name, &format!("environment {} {word}\n", change.name), &outputs)?;
        }
        EnvironmentCommand::Show { name } => {
            let outputs = there.options(&name).await?;
            let drift = if global.json { String::new() } else { format!("{}\n", there.drift(&name).await?) };
            tell(global, &name, &drift, &outputs)?;
        }
        EnvironmentCommand::Delete { name } => {
            let kept = there.delete(&name, &Steps).await?;
            let kept = kept.iter().fold(String::new(), |text, kept| text + &format!("kept: {kept}\n"));
            output::text(&format!("environment {name} is gone\n{kept}"))?;
        }
    }
    Ok(Exit::Done)
}

fn spec(change: &EnvironmentChange) -> EnvironmentSpec {
    let spec = EnvironmentSpec::new(&change.name)
        .with_internal(change.internal)
        .with_published_ports(change.published_ports.iter().copied())
        .with_traffic_between_instances(change.connected);
    let spec = change.secrets.iter().fold(spec, |spec, arn| spec.with_secret(arn));
    change.certificates.iter().fold(spec, |spec, arn| spec.with_certificate(arn))
}

fn tell(global: &Global, name: &str, before: &str, there: &EnvironmentOutputs) -> Result<(), Fault> {
    let listener = there.options.listener.as_deref().unwrap_or_default();
    let logs = there.options.log_group.as_deref().unwrap_or_default();
    if global.json {
        let document: Value = json!({
            "name": name,
            "cluster": there.options.cluster,
            "address": there.address,
            "published": there.published_address,
            "listener": listener,
            "logs": logs,
            "table": there.table,
        });
        return Ok(output::json(&document)?);
    }
    let mut text = before.to_owned();
    let rows = [("address", there.address.as_str()), ("listener", listener), ("logs", logs), ("table", &there.table)];
    for (what, value) in rows.into_iter().chain(there.published_address.as_deref().map(|name| ("published", name))) {
        let _ = writeln!(text, "  {what:<9} {value}");
    }
    let _ = writeln!(text, "deploy to it with `--on aws:{name}`");
    Ok(output::text(&text)?)
}

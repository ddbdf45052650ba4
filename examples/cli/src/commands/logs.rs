//! `logs`.

use std::collections::BTreeSet;

use deployer_core::{LogQuery, ServiceName};
use futures_util::TryStreamExt as _;

use crate::args::Global;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::{backend, compose, output};

pub(crate) async fn logs(
    global: &Global,
    services: Vec<ServiceName>,
    tail: Option<u32>,
    follow: bool,
) -> Result<Exit, Fault> {
    let mut query = LogQuery::new(compose::app(global)?).with_services(services);
    if let Some(lines) = tail {
        query = query.with_tail(lines);
    }
    if follow {
        query = query.following();
    }
    let mut lines = backend::deployer(global).await?.logs(query).await?;
    let mut names = BTreeSet::new();
    let mut width = 0;
    while let Some(line) = lines.try_next().await? {
        if global.json {
            output::json(&line)?;
            continue;
        }
        if names.insert(line.instance.clone()) {
            width = width.max(line.instance.chars().count());
        }
        output::text(&format!("{:width$} | {}\n", line.instance, line.text))?;
    }
    Ok(Exit::Done)
}

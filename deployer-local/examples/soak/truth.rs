//! Whether what is said is so: asked of the application and of the engine, not of the deployer.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bollard::query_parameters::InspectContainerOptions;
use deployer_core::{DeploymentId, EnvValue, Release, State};

use crate::account::Path;
use crate::site::{self, Site};
use crate::strike::running;

/// How many instances of the web service there are.
const REPLICAS: usize = 3;

/// So many answers in a row from each way: more than there are instances.
const ANSWERS: usize = 9;

/// The version that a release deploys.
pub(crate) fn version_of(release: &Release) -> String {
    match release.services["web"].workload.env.get("VERSION") {
        Some(EnvValue::Plain(version)) => version.clone(),
        _ => String::new(),
    }
}

/// What is not so if this version serves alone.
pub(crate) async fn serves(site: &Site, ways: &BTreeMap<Path, SocketAddr>, version: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, address) in ways.iter().filter(|(path, _)| **path != Path::Visit) {
        for _ in 0..ANSWERS {
            match site::get(*address, "/version").await {
                Ok((200, answer)) if answer == version => {}
                Ok((status, answer)) => wrong.push(format!("{path:?}: {status} {answer:?} and not {version}")),
                Err(error) => wrong.push(format!("{path:?}: {error} and not {version}")),
            }
        }
    }
    wrong.extend(runs(site, version).await);
    wrong.dedup();
    wrong
}

/// What the engine shows that is not so if this version runs: its instances, from the image that the release has.
async fn runs(site: &Site, version: &str) -> Vec<String> {
    let releases = site.deployer.releases(site.app(), 100).await.unwrap();
    let Some(release) = releases.iter().find(|release| version_of(release) == version) else {
        return vec![format!("no release of version {version} is kept")];
    };
    let digest = release.services["web"].image.digest.to_string();
    let mut count = 0;
    let mut wrong = Vec::new();
    for container in running(site, "web").await {
        let id = container.id.unwrap_or_default();
        let Ok(found) = site.docker.inspect_container(&id, None::<InspectContainerOptions>).await else { continue };
        let env = found.config.and_then(|config| config.env).unwrap_or_default();
        if env.contains(&format!("VERSION={version}")) {
            count += 1;
            if found.image.as_ref() != Some(&digest) {
                wrong.push(format!("an instance of {version} runs {:?} and not {digest}", found.image));
            }
        }
    }
    if count != REPLICAS {
        wrong.push(format!("{count} instances of {version} run, and not {REPLICAS}"));
    }
    wrong
}

/// What is wrong with the migrations: each version's ran once at the most, and those of these versions did run.
pub(crate) async fn migrations(site: &Site, promoted: &[String]) -> Vec<String> {
    let (status, text) = site.get("/migrations").await;
    if status != 200 {
        return vec![format!("the migrations cannot be read: {text}")];
    }
    let runs: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let often = runs.iter().filter(|(_, runs)| **runs != "1");
    let often = often.map(|(version, runs)| format!("the migration of {version} ran {runs} times"));
    let never = promoted.iter().filter(|version| !runs.contains_key(version.as_str()));
    often.chain(never.map(|version| format!("{version} was promoted without its migration"))).collect()
}

/// What is wrong with a deployment's journal.
pub(crate) async fn journal(site: &Site, id: &DeploymentId) -> Option<String> {
    let entries = site.deployer.journal(id).await.unwrap();
    let record = site.deployer.history(site.app()).await.unwrap().into_iter().find(|record| record.id == *id);
    match (State::fold(&entries), record) {
        (Err(error), _) => Some(format!("the journal of {id} does not fold: {error}")),
        (Ok(state), Some(record)) if state.record.verdict != record.verdict => {
            Some(format!("the journal of {id} says {:?}, its record {:?}", state.record.verdict, record.verdict))
        }
        _ => None,
    }
}

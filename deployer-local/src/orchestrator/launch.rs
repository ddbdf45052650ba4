//! Creating and starting containers.

use std::collections::BTreeSet;

use bollard::errors::Error as DockerError;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as ListedState, NetworkConnectRequest};
use bollard::query_parameters::{CreateContainerOptionsBuilder, InspectContainerOptions, StartContainerOptions};
use deployer_core::{Effect, Error, ErrorKind, Launch, Outcome, Result, Retry};
use futures_util::future::join_all;

use super::container::{Blueprint, Purpose};
use super::refusal::refused;
use super::{DockerOrchestrator, answered, has_labels, label};
use crate::engine::classify;
use crate::naming::{compose, ours};
use crate::network::Reserved;

const LAUNCH: &str = "orchestrator.launch";

/// The addresses of one container, in the order of its networks; none where the engine chooses.
pub(super) type Addresses = Vec<Option<Reserved>>;

/// What is to be done for one instance.
struct Job<'a> {
    ordinal: u32,
    number: u32,
    leftover: Option<&'a ContainerSummary>,
    /// Whether the leftover was made of the same things and can be started again.
    same: bool,
}

/// What came of creating a container.
pub(super) enum Creation {
    /// It was created by this call.
    Created,
    /// It was there already, made for the same purpose.
    Existed,
}

impl DockerOrchestrator {
    pub(super) async fn launch_instances(&self, request: &Launch) -> Result<Outcome> {
        let blueprint = Blueprint::of(&request.release, &request.service)?;
        let app = request.release.app.as_str();
        let of_service =
            [(ours::APP, app), (ours::ROLE, ours::ROLE_INSTANCE), (compose::SERVICE, request.service.as_str())];
        let present = self.containers(LAUNCH, app, &of_service).await?;
        let jobs = jobs(request, &blueprint, &present);
        if jobs.is_empty() {
            return Ok(Outcome::AlreadyThere);
        }
        let fresh = jobs.iter().filter(|job| !job.same).count();
        let mut addresses = self.addresses(&blueprint, fresh).await?;
        let work = jobs.iter().map(|job| {
            let addresses = if job.same { None } else { addresses.pop() };
            self.realise(request, &blueprint, job, addresses)
        });
        // All of them are seen through: a call that is dropped halfway leaves more to repair than one that fails.
        let outcome = together(join_all(work).await)?;
        let revision = request.revision.to_string();
        let existed = present.iter().any(|container| label(container, ours::REVISION) == Some(&revision));
        Ok(if existed { Outcome::Changed } else { outcome })
    }

    async fn realise(
        &self,
        request: &Launch,
        blueprint: &Blueprint<'_>,
        job: &Job<'_>,
        addresses: Option<Addresses>,
    ) -> Result<Outcome> {
        let purpose = Purpose::Instance { revision: &request.revision, ordinal: job.ordinal, number: job.number };
        let name = blueprint.container_name(purpose);
        let (tried, outcome) = match addresses {
            None => (self.fill_and_start(LAUNCH, blueprint, &name).await, Outcome::Changed),
            Some(addresses) => {
                let replaces = job.leftover.and_then(|leftover| leftover.id.as_deref());
                if let Some(id) = replaces {
                    self.discard(LAUNCH, id).await?;
                }
                let tried = self.create_and_start(blueprint, purpose, addresses).await;
                (tried, if replaces.is_some() { Outcome::Changed } else { Outcome::Created })
            }
        };
        match tried {
            Ok(()) => Ok(outcome),
            // Its network was made anew, or somebody else has its address: another container of the same kind helps.
            Err(error) if is_stale(&error) => {
                self.discard(LAUNCH, &name).await?;
                let addresses = self.addresses(blueprint, 1).await?.pop().unwrap_or_default();
                self.create_and_start(blueprint, purpose, addresses).await?;
                Ok(outcome)
            }
            Err(error) => Err(error),
        }
    }

    async fn create_and_start(
        &self,
        blueprint: &Blueprint<'_>,
        purpose: Purpose<'_>,
        addresses: Addresses,
    ) -> Result<()> {
        self.create(LAUNCH, blueprint, purpose, addresses).await?;
        self.fill_and_start(LAUNCH, blueprint, &blueprint.container_name(purpose)).await
    }

    /// Puts files into a container that does not run, and starts it.
    pub(super) async fn fill_and_start(
        &self,
        operation: &'static str,
        blueprint: &Blueprint<'_>,
        name: &str,
    ) -> Result<()> {
        self.put_files(operation, blueprint, name).await?;
        self.start(operation, name).await
    }

    /// Creates a container and puts it into all of its networks. The addresses are its own from then on.
    pub(super) async fn create(
        &self,
        operation: &'static str,
        blueprint: &Blueprint<'_>,
        purpose: Purpose<'_>,
        addresses: Addresses,
    ) -> Result<Creation> {
        let name = blueprint.container_name(purpose);
        let address = |index: usize| addresses.get(index).and_then(|each| each.as_ref().map(Reserved::address));
        let environment = blueprint.environment(&*self.secrets).await?;
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let body = blueprint.body(purpose, environment, address(0));
        match self.engine.docker().create_container(Some(options), body).await {
            Ok(_) => {}
            Err(error) if answered(&error, 409) => {
                return self.look_at_namesake(operation, blueprint, purpose, &name).await;
            }
            Err(error) => return Err(refused(operation, &name, error, Effect::None)),
        }
        for (index, attachment) in blueprint.attachments.iter().enumerate().skip(1) {
            let endpoint = blueprint.endpoint(index, purpose, address(index));
            let connect = NetworkConnectRequest { container: name.clone(), endpoint_config: Some(endpoint) };
            let connected = self.engine.docker().connect_network(&attachment.network, connect).await;
            connected.map_err(|error| refused(operation, &name, error, Effect::Done))?;
        }
        Ok(Creation::Created)
    }

    /// The name is taken: by an earlier call for the same, or by somebody else.
    async fn look_at_namesake(
        &self,
        operation: &'static str,
        blueprint: &Blueprint<'_>,
        purpose: Purpose<'_>,
        name: &str,
    ) -> Result<Creation> {
        let namesake = match self.engine.docker().inspect_container(name, None::<InspectContainerOptions>).await {
            Ok(namesake) => namesake,
            // The name is given out before the container can be seen, and longer than it can be seen.
            Err(error) if answered(&error, 404) => {
                return Err(Error::new(ErrorKind::Conflict, "a container of this name is just being made or removed")
                    .with_operation(operation)
                    .with_resource(name)
                    .with_retry(Retry::Soon));
            }
            Err(error) => return Err(classify(operation, name, error)),
        };
        let labels = namesake.config.and_then(|config| config.labels);
        if has_labels(labels.as_ref(), &blueprint.identity(purpose)) {
            return Ok(Creation::Existed);
        }
        Err(Error::new(ErrorKind::AlreadyExists, "a container of this name exists and is not ours")
            .with_operation(operation)
            .with_resource(name)
            .with_context("container", namesake.id.unwrap_or_default().chars().take(12).collect::<String>())
            .with_help(format!("rename or remove it: `docker rm {name}`")))
    }

    /// Starts a container; one that runs is left alone.
    pub(super) async fn start(&self, operation: &'static str, name: &str) -> Result<()> {
        let started = self.engine.docker().start_container(name, None::<StartContainerOptions>).await;
        started.map_err(|error| refused(operation, name, error, Effect::Done))
    }

    /// Addresses for so many containers.
    pub(super) async fn addresses(&self, blueprint: &Blueprint<'_>, containers: usize) -> Result<Vec<Addresses>> {
        let mut all: Vec<Addresses> = (0..containers).map(|_| Vec::new()).collect();
        if containers == 0 {
            return Ok(all);
        }
        for attachment in &blueprint.attachments {
            let mut reserved = match attachment.is_fixed() {
                true => None,
                false => self.networks.reserve(&attachment.network, containers, &attachment.taken).await?,
            };
            for addresses in &mut all {
                addresses.push(reserved.as_mut().and_then(Vec::pop));
            }
        }
        Ok(all)
    }
}

fn is_stale(error: &Error) -> bool {
    let text = error.message().to_ascii_lowercase();
    match error.kind() {
        ErrorKind::NotFound => text.contains("network"),
        ErrorKind::Exhausted => text.contains("address already in use"),
        _ => false,
    }
}

/// What is missing of the wanted instances, or does not run.
fn jobs<'a>(request: &Launch, blueprint: &Blueprint<'_>, present: &'a [ContainerSummary]) -> Vec<Job<'a>> {
    let revision = request.revision.to_string();
    let fingerprint = blueprint.fingerprint();
    let number = |container: &ContainerSummary| label(container, compose::NUMBER)?.parse::<u32>().ok();
    let mut numbers: BTreeSet<u32> = present.iter().filter_map(number).collect();
    let mut jobs = Vec::new();
    for ordinal in 1..=request.instances {
        let text = ordinal.to_string();
        let leftover = present.iter().find(|container| {
            label(container, ours::REVISION) == Some(&revision) && label(container, ours::ORDINAL) == Some(&text)
        });
        if leftover.is_some_and(runs) {
            continue;
        }
        let number = leftover.and_then(number).unwrap_or_else(|| {
            // Compose numbers the containers of a service, whatever their revision.
            let free = (1..).find(|candidate| !numbers.contains(candidate)).unwrap_or(u32::MAX);
            numbers.insert(free);
            free
        });
        let same = leftover.is_some_and(|leftover| {
            label(leftover, ours::CONFIG) == Some(&fingerprint) && is_attached(leftover, blueprint)
        });
        jobs.push(Job { ordinal, number, leftover, same });
    }
    jobs
}

/// Whether the engine runs it, or is about to.
fn runs(container: &ContainerSummary) -> bool {
    use ListedState::{PAUSED, RESTARTING, RUNNING};
    matches!(container.state, Some(RUNNING | RESTARTING | PAUSED))
}

/// Whether a container is in all of its networks: whoever made it may have been killed before it was.
fn is_attached(container: &ContainerSummary, blueprint: &Blueprint<'_>) -> bool {
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    blueprint.attachments.iter().all(|each| networks.is_some_and(|all| all.contains_key(&each.network)))
}

/// What came of several calls. The first error that says something about the workload speaks for all.
fn together(results: Vec<Result<Outcome>>) -> Result<Outcome> {
    let all = results.len();
    let mut outcome = Outcome::AlreadyThere;
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(done) => outcome = outcome.and(done),
            Err(error) => errors.push(error),
        }
    }
    let failed = errors.len();
    let worst = errors.iter().position(|error| error.kind() == ErrorKind::Workload).unwrap_or(0);
    let unknown = errors.iter().any(|error| error.effect() == Effect::Unknown);
    let some = failed < all || errors.iter().any(|error| error.effect() == Effect::Done);
    let Some(error) = errors.into_iter().nth(worst) else { return Ok(outcome) };
    let effect = if unknown {
        Effect::Unknown
    } else if some {
        Effect::Done
    } else {
        Effect::None
    };
    let error = error.with_effect(effect);
    Err(if all > 1 { error.with_context("failed", format!("{failed} of {all}")) } else { error })
}

/// Whether the engine says that what is to be removed is gone, or about to be.
pub(super) fn is_gone(error: &DockerError) -> bool {
    let going = matches!(error, DockerError::DockerResponseServerError { message, .. } if message.contains("already in progress"));
    going || answered(error, 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(kind: ErrorKind, effect: Effect) -> Result<Outcome> {
        Err(Error::new(kind, "no").with_effect(effect))
    }

    #[test]
    fn the_workloads_own_error_speaks_for_all() {
        let error = together(vec![
            failing(ErrorKind::Unavailable, Effect::None),
            Ok(Outcome::Created),
            failing(ErrorKind::Workload, Effect::None),
        ])
        .unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Workload, Effect::Done));
        assert_eq!(error.to_string(), "no (failed: 2 of 3)");
    }

    #[test]
    fn what_is_unknown_of_one_is_unknown_of_all() {
        let error = together(vec![Ok(Outcome::Created), failing(ErrorKind::Timeout, Effect::Unknown)]).unwrap_err();
        assert_eq!(error.effect(), Effect::Unknown);
        let error = together(vec![failing(ErrorKind::NotFound, Effect::None)]).unwrap_err();
        assert_eq!((error.effect(), error.context().len()), (Effect::None, 0));
        assert_eq!(together(vec![Ok(Outcome::Created), Ok(Outcome::Changed)]).unwrap(), Outcome::Changed);
    }
}

//! What the engine says about a container, in the model's words.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum as Status, Health as EngineHealth,
    HealthStatusEnum, RestartPolicyNameEnum,
};
use deployer_core::{
    Digest, ExitDetail, Health, InstanceId, InstancePhase, ObservedInstance, ObservedTask, ReleaseNumber, RevisionId,
    TaskId,
};

use super::refusal::useful;
use crate::naming::ours;
use crate::time::EngineTime;

/// The exit code with which the engine marks a container that it could not start.
const NOT_STARTED: i64 = 128;

/// An instance without its health; none if its labels are not those of an instance.
pub(super) fn instance(
    labels: &HashMap<String, String>,
    container: &ContainerInspectResponse,
) -> Option<ObservedInstance> {
    let revision: RevisionId = labels.get(ours::REVISION)?.parse().ok()?;
    let release = ReleaseNumber(labels.get(ours::RELEASE)?.parse().ok()?);
    let ordinal = labels.get(ours::ORDINAL)?.parse().ok()?;
    let id = InstanceId::new(container.id.clone()?).ok()?;
    let name = container.name.as_deref().unwrap_or_default().trim_start_matches('/');
    let state = container.state.clone().unwrap_or_default();
    let mut instance = ObservedInstance::new(id, name, revision, release, ordinal, phase(&state));
    instance.address = address(container).map(|address| address.to_string());
    instance.started_at = started(&state).map(EngineTime::timestamp);
    instance.exit = exit(&state);
    instance.crashes = crashes(container, &state);
    instance.image = image(container);
    Some(instance)
}

/// A task; none if its labels are not those of a task.
pub(super) fn task(labels: &HashMap<String, String>, container: &ContainerInspectResponse) -> Option<ObservedTask> {
    let task = TaskId(labels.get(ours::TASK)?.clone());
    let id = InstanceId::new(container.id.clone()?).ok()?;
    let state = container.state.clone().unwrap_or_default();
    Some(ObservedTask::new(task, id, started(&state).map(EngineTime::timestamp), exit(&state)))
}

fn phase(state: &ContainerState) -> InstancePhase {
    match state.status.unwrap_or(Status::EMPTY) {
        // The engine says of a container that it is about to start again that it runs.
        _ if state.restarting == Some(true) => InstancePhase::Restarting,
        Status::RUNNING | Status::PAUSED => InstancePhase::Running,
        Status::RESTARTING => InstancePhase::Restarting,
        Status::REMOVING | Status::STOPPING => InstancePhase::Stopping,
        Status::EXITED | Status::DEAD => InstancePhase::Exited,
        Status::CREATED | Status::EMPTY => InstancePhase::Pending,
    }
}

/// When it was last started, if it ever was.
pub(super) fn started(state: &ContainerState) -> Option<EngineTime> {
    EngineTime::parse(state.started_at.as_deref()?)
}

/// When it last ended, if it ever did.
pub(super) fn finished(state: &ContainerState) -> Option<EngineTime> {
    EngineTime::parse(state.finished_at.as_deref()?)
}

/// How it ended, or why it could not be started. Nothing of one that runs: the engine forgets the exit before that.
fn exit(state: &ContainerState) -> Option<ExitDetail> {
    let error = state.error.as_deref().map(useful).filter(|error| !error.is_empty());
    let ended = match phase(state) {
        InstancePhase::Pending => error.is_some(),
        InstancePhase::Exited => true,
        // It may be about to start for the first time after a start that failed.
        InstancePhase::Restarting => finished(state).is_some() || error.is_some(),
        InstancePhase::Running | InstancePhase::Stopping => false,
    };
    ended.then(|| {
        let code = state.exit_code;
        // The engine notes the start when it is told of it, which may be after the end of one that exits at once.
        detail(code, state.oom_killed == Some(true), error, finished(state).max(started(state)))
    })
}

/// An exit with what follows from its code.
pub(super) fn detail(
    code: Option<i64>,
    out_of_memory: bool,
    error: Option<&str>,
    at: Option<EngineTime>,
) -> ExitDetail {
    let mut exit = ExitDetail::default();
    exit.code = code;
    exit.out_of_memory = out_of_memory;
    exit.error = error.map(ToOwned::to_owned);
    exit.at = at.map(EngineTime::timestamp);
    // 126 and 127: the command cannot be executed, or is not there.
    exit.unrecoverable =
        out_of_memory || matches!(code, Some(126 | 127)) || (code == Some(NOT_STARTED) && error.is_some());
    exit
}

/// How often it exited by itself. The engine counts its restarts only, and one that is not restarted is one more.
fn crashes(container: &ContainerInspectResponse, state: &ContainerState) -> u32 {
    let restarts = u32::try_from(container.restart_count.unwrap_or(0)).unwrap_or(u32::MAX);
    let policy = container.host_config.as_ref().and_then(|config| config.restart_policy.as_ref()?.name);
    // With the other policies an exited container is one that somebody stopped.
    let gives_up = !matches!(policy, Some(RestartPolicyNameEnum::ALWAYS | RestartPolicyNameEnum::UNLESS_STOPPED));
    let failed_again = state.error.as_deref().is_some_and(|error| !error.is_empty());
    let exited = phase(state) == InstancePhase::Exited && (gives_up || failed_again);
    restarts.saturating_add(exited.into())
}

/// Its address in the network by which it is reached.
pub(super) fn address(container: &ContainerInspectResponse) -> Option<IpAddr> {
    let network = container.host_config.as_ref()?.network_mode.as_deref()?;
    let endpoint = container.network_settings.as_ref()?.networks.as_ref()?.get(network)?;
    endpoint.ip_address.as_deref()?.parse().ok()
}

/// The digest in the name that it was created with, which the engine has checked, or else the image's id.
fn image(container: &ContainerInspectResponse) -> Option<Digest> {
    let name = container.config.as_ref().and_then(|config| config.image.as_deref());
    let pinned = name.and_then(|name| Digest::new(name.rsplit_once('@')?.1).ok());
    pinned.or_else(|| Digest::new(container.image.clone()?).ok())
}

/// What the probe from outside said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probed {
    /// It passed, or nobody asked for one.
    Passes,
    /// It has not passed yet.
    NotYet(String),
    /// It had passed, and does not any more.
    Fails(String),
}

/// Whether a container is ready, by the probe from outside and by its own check, and what the one said that did not pass.
pub(super) fn health(container: &ContainerInspectResponse, probed: &Probed) -> (Health, Option<String>) {
    let state = container.state.clone().unwrap_or_default();
    match phase(&state) {
        InstancePhase::Exited | InstancePhase::Stopping => return (Health::Unknown, None),
        InstancePhase::Pending | InstancePhase::Restarting => return (Health::Starting, None),
        InstancePhase::Running if state.paused == Some(true) => return (Health::Unhealthy, Some("paused".to_owned())),
        InstancePhase::Running => {}
    }
    if address(container).is_none() {
        // Its own check still passes then: it asks over the loopback interface.
        return (Health::Unhealthy, Some("it is not connected to its network".to_owned()));
    }
    let own = state.health.as_ref().map_or((Health::Healthy, None), own_check);
    match (probed, own) {
        (Probed::Fails(detail), _) => (Health::Unhealthy, Some(detail.clone())),
        (_, (Health::Unhealthy, detail)) => (Health::Unhealthy, detail),
        (Probed::NotYet(detail), _) => (Health::Starting, Some(detail.clone())),
        (Probed::Passes, own) => own,
    }
}

fn own_check(health: &EngineHealth) -> (Health, Option<String>) {
    let last = health.log.as_ref().and_then(|log| log.last()).filter(|last| last.exit_code != Some(0));
    let output = last.map(|last| {
        let output = last.output.as_deref().unwrap_or_default().trim();
        let code = last.exit_code.unwrap_or(-1);
        if output.is_empty() { format!("the check exited with code {code}") } else { output.to_owned() }
    });
    match health.status {
        Some(HealthStatusEnum::HEALTHY) => (Health::Healthy, None),
        Some(HealthStatusEnum::UNHEALTHY) => (Health::Unhealthy, output),
        Some(HealthStatusEnum::STARTING) => (Health::Starting, output),
        Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) | None => (Health::Healthy, None),
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{
        ContainerConfig, EndpointSettings, HealthcheckResult, HostConfig, NetworkSettings, RestartPolicy,
    };

    use super::*;

    fn container(state: ContainerState, policy: RestartPolicyNameEnum) -> ContainerInspectResponse {
        let endpoint = EndpointSettings { ip_address: Some("172.20.128.1".into()), ..Default::default() };
        let restart_policy = RestartPolicy { name: Some(policy), maximum_retry_count: None };
        ContainerInspectResponse {
            id: Some("c0ffee".into()),
            name: Some("/shop-web-3f9a1c-1".into()),
            state: Some(state),
            host_config: Some(HostConfig {
                network_mode: Some("shop_default".into()),
                restart_policy: Some(restart_policy),
                ..Default::default()
            }),
            network_settings: Some(NetworkSettings {
                networks: Some(HashMap::from([("shop_default".into(), endpoint)])),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn running() -> ContainerState {
        ContainerState { status: Some(Status::RUNNING), running: Some(true), ..Default::default() }
    }

    fn exited(code: i64) -> ContainerState {
        let finished_at = Some("2026-11-21T22:00:00.5Z".into());
        ContainerState { status: Some(Status::EXITED), exit_code: Some(code), finished_at, ..Default::default() }
    }

    fn labels() -> HashMap<String, String> {
        let labels = [(ours::REVISION, "web@3f9a1c000000"), (ours::RELEASE, "7"), (ours::ORDINAL, "1")];
        labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn labels_name_the_instance_and_others_are_nobodys() {
        let seen = instance(&labels(), &container(running(), RestartPolicyNameEnum::ALWAYS)).unwrap();
        assert_eq!((seen.name.as_str(), seen.release, seen.ordinal), ("shop-web-3f9a1c-1", ReleaseNumber(7), 1));
        assert_eq!(seen.address.as_deref(), Some("172.20.128.1"));
        assert_eq!(seen.exit, None);
        assert!(instance(&HashMap::new(), &container(running(), RestartPolicyNameEnum::ALWAYS)).is_none());
    }

    #[test]
    fn a_restarting_container_is_not_a_running_one() {
        let state = ContainerState { restarting: Some(true), ..running() };
        assert_eq!(phase(&state), InstancePhase::Restarting);
        assert_eq!(health(&container(state, RestartPolicyNameEnum::ALWAYS), &Probed::Passes).0, Health::Starting);
    }

    #[test]
    fn exits_say_whether_starting_again_can_help() {
        let cases = [
            (exited(3), false),
            (exited(0), false),
            (exited(127), true),
            (exited(128), false),
            (ContainerState { error: Some("network x not found".into()), ..exited(128) }, true),
            (ContainerState { oom_killed: Some(true), ..exited(137) }, true),
        ];
        for (state, unrecoverable) in cases {
            let exit = exit(&state).unwrap();
            assert_eq!(exit.unrecoverable, unrecoverable, "{exit:?}");
            assert_eq!(exit.at.unwrap().to_string(), "2026-11-21T22:00:00.500Z");
        }
    }

    #[test]
    fn nothing_ends_before_it_begins() {
        let state = ContainerState { started_at: Some("2026-11-21T22:00:00.6Z".into()), ..exited(0) };
        assert_eq!(exit(&state).unwrap().at, started(&state).map(EngineTime::timestamp));
    }

    #[test]
    fn a_refused_start_is_pending_with_its_reason() {
        let state = ContainerState {
            status: Some(Status::CREATED),
            exit_code: Some(127),
            error: Some("failed to create shim task: x: exec: \"/nope\": no such file: unknown".into()),
            ..Default::default()
        };
        assert_eq!(phase(&state), InstancePhase::Pending);
        let refused = exit(&state).unwrap();
        assert_eq!(refused.error.as_deref(), Some("exec: \"/nope\": no such file"));
        assert!(refused.unrecoverable);
        assert_eq!(exit(&ContainerState { status: Some(Status::CREATED), ..Default::default() }), None);
    }

    #[test]
    fn crashes_count_the_last_one_too() {
        let crashes = |state: ContainerState, policy, restarts| {
            let container = ContainerInspectResponse { restart_count: Some(restarts), ..container(state, policy) };
            instance(&labels(), &container).unwrap().crashes
        };
        assert_eq!(crashes(running(), RestartPolicyNameEnum::UNLESS_STOPPED, 2), 2);
        assert_eq!(crashes(exited(3), RestartPolicyNameEnum::NO, 0), 1);
        assert_eq!(crashes(exited(3), RestartPolicyNameEnum::ON_FAILURE, 3), 4);
        assert_eq!(crashes(exited(137), RestartPolicyNameEnum::UNLESS_STOPPED, 1), 1, "somebody stopped it");
    }

    #[test]
    fn every_check_has_to_pass() {
        let with = |status| {
            let log = HealthcheckResult { exit_code: Some(1), output: Some("503\n".into()), ..Default::default() };
            let health = EngineHealth { status: Some(status), log: Some(vec![log]), ..Default::default() };
            container(ContainerState { health: Some(health), ..running() }, RestartPolicyNameEnum::ALWAYS)
        };
        let none = container(running(), RestartPolicyNameEnum::ALWAYS);
        let not_yet = Probed::NotYet("connection refused".into());
        let fails = Probed::Fails("GET / answered 500".into());
        let words = |text: &str| Some(text.to_owned());
        assert_eq!(health(&none, &Probed::Passes), (Health::Healthy, None));
        assert_eq!(health(&none, &not_yet), (Health::Starting, words("connection refused")));
        assert_eq!(health(&none, &fails), (Health::Unhealthy, words("GET / answered 500")));
        assert_eq!(health(&with(HealthStatusEnum::HEALTHY), &Probed::Passes), (Health::Healthy, None));
        assert_eq!(health(&with(HealthStatusEnum::HEALTHY), &not_yet).0, Health::Starting);
        assert_eq!(health(&with(HealthStatusEnum::STARTING), &Probed::Passes), (Health::Starting, words("503")));
        assert_eq!(health(&with(HealthStatusEnum::UNHEALTHY), &not_yet), (Health::Unhealthy, words("503")));
    }

    #[test]
    fn one_that_is_cut_off_is_not_healthy() {
        let mut cut = container(running(), RestartPolicyNameEnum::ALWAYS);
        cut.network_settings = None;
        assert_eq!(health(&cut, &Probed::Passes).0, Health::Unhealthy);
    }

    #[test]
    fn the_pinned_digest_is_the_one_in_the_name() {
        let (id, manifest) = (Digest::of(b"id"), Digest::of(b"manifest"));
        let mut container = container(running(), RestartPolicyNameEnum::ALWAYS);
        container.image = Some(id.to_string());
        container.config = Some(ContainerConfig { image: Some("redis:7".into()), ..Default::default() });
        assert_eq!(image(&container), Some(id));
        container.config = Some(ContainerConfig { image: Some(format!("redis@{manifest}")), ..Default::default() });
        assert_eq!(image(&container), Some(manifest));
    }
}

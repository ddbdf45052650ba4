//! Tasks as ECS tells of them.

use aws_sdk_ecs::primitives::DateTime;
use aws_sdk_ecs::types::{Connectivity, Container, DesiredStatus, HealthStatus, Task, TaskField, TaskStopCode};
use deployer_core::{AppName, Digest, ExitDetail, Result, ServiceName, Timestamp};
use futures_util::future::try_join_all;

use crate::discovery;
use crate::failure::failed;
use crate::naming::{self, tag};
use crate::site::Site;

/// How many tasks ECS describes in one call:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html>.
const DESCRIBED: usize = 100;

/// What is known of a task.
#[derive(Clone, Debug)]
pub(crate) struct KnownTask {
    pub(crate) id: String,
    /// The ARN of the task definition.
    pub(crate) definition: String,
    /// The ECS service that it belongs to, unless it is a one-off task.
    pub(crate) slot: Option<String>,
    /// ECS's deployment that has started it.
    pub(crate) deployment: String,
    /// The application, as the tags say.
    pub(crate) app: Option<String>,
    /// The service, as the tags say.
    pub(crate) service: Option<ServiceName>,
    /// The one-off task's id.
    pub(crate) task: Option<String>,
    pub(crate) status: Status,
    /// What its own check says.
    pub(crate) health: Option<HealthStatus>,
    pub(crate) address: Option<String>,
    pub(crate) image: Option<Digest>,
    pub(crate) created: Timestamp,
    pub(crate) started: Option<Timestamp>,
    /// When it began to end: from then on ECS makes another one in its place.
    pub(crate) left: Option<Timestamp>,
    /// How it ended, and whether nobody had asked it to.
    pub(crate) end: Option<(ExitDetail, bool)>,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Pending,
    Running,
    Stopping,
    Stopped,
}

impl Site {
    /// ARNs of the cluster's tasks, by what they belong to.
    pub(super) async fn list_tasks(&self, of: Of<'_>, desired: DesiredStatus) -> Result<Vec<String>> {
        let call = self.ecs.list_tasks().cluster(&self.options.cluster).desired_status(desired);
        let call = match of {
            Of::Slot(name) => call.service_name(name),
            Of::Starter(name) => call.started_by(name),
            Of::Anybody => call,
        };
        let mut arns = Vec::new();
        let mut pages = call.into_paginator().send();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => arns.extend_from_slice(page.task_arns()),
                // A slot that was deleted meanwhile.
                Err(error) if crate::failure::is(&error, &["ServiceNotFoundException"]) => break,
                Err(error) => return Err(failed("ecs:ListTasks", self.cluster(), error)),
            }
        }
        Ok(arns)
    }

    /// Asks for tasks and remembers them.
    pub(super) async fn describe_tasks(&self, app: &AppName, arns: Vec<String>) -> Result<()> {
        let calls = arns.chunks(DESCRIBED).map(async |arns| {
            let call = self.ecs.describe_tasks().cluster(&self.options.cluster).include(TaskField::Tags);
            let call = call.set_tasks(Some(arns.to_vec())).send().await;
            call.map_err(|error| failed("ecs:DescribeTasks", self.cluster(), error))
        });
        let answers = try_join_all(calls).await?;
        let mut memory = self.memory();
        let known = memory.tasks.entry(app.clone()).or_default();
        for arn in arns {
            // What ECS does not know any more has been gone for an hour.
            known.remove(&arn);
        }
        for task in answers.iter().flat_map(|answer| answer.tasks()) {
            if let (Some(arn), Some(task)) = (task.task_arn(), self::known(task)) {
                known.insert(arn.to_owned(), task);
            }
        }
        Ok(())
    }
}

impl KnownTask {
    /// Whether it can be of an application.
    pub(super) fn may_be_of(&self, app: &AppName) -> bool {
        match &self.slot {
            Some(slot) => slot.starts_with(&naming::slot_prefix(app)),
            None => self.app.as_deref() == Some(app.as_str()),
        }
    }
}

/// What tasks belong to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of<'a> {
    Slot(&'a str),
    Starter(&'a str),
    /// All tasks of the cluster, those of others included.
    Anybody,
}

fn time(at: Option<&DateTime>) -> Option<Timestamp> {
    // AWS writes milliseconds as fractions, which are read as a little less: two of them must not become one.
    let millis = |at: &DateTime| i64::try_from((at.as_nanos() + 500_000).div_euclid(1_000_000)).ok();
    at.and_then(millis).map(Timestamp::from_millis)
}

fn known(task: &Task) -> Option<KnownTask> {
    let slot = task.group().and_then(|group| group.strip_prefix("service:")).map(str::to_owned);
    let container = container(task);
    let status = match (task.last_status().unwrap_or_default(), task.desired_status().unwrap_or_default()) {
        ("STOPPED" | "DELETED", _) => Status::Stopped,
        (_, "STOPPED") | ("DEACTIVATING" | "STOPPING" | "DEPROVISIONING", _) => Status::Stopping,
        ("RUNNING", _) => Status::Running,
        _ => Status::Pending,
    };
    let address = task.attachments().iter().flat_map(|attachment| attachment.details()).find_map(|detail| {
        (detail.name() == Some("privateIPv4Address")).then(|| detail.value().map(str::to_owned)).flatten()
    });
    let address = address.or_else(|| {
        let interfaces = container.into_iter().flat_map(|container| container.network_interfaces());
        interfaces.filter_map(|interface| interface.private_ipv4_address()).next().map(str::to_owned)
    });
    // Before it is connected there is nobody there.
    let connected = task.connectivity() != Some(&Connectivity::Disconnected);
    Some(KnownTask {
        id: naming::last(task.task_arn()?).to_owned(),
        definition: task.task_definition_arn()?.to_owned(),
        slot,
        deployment: task.started_by().unwrap_or_default().to_owned(),
        app: super::slots::value(task.tags(), tag::APP).map(str::to_owned),
        service: super::slots::value(task.tags(), tag::SERVICE).and_then(|name| ServiceName::new(name).ok()),
        task: super::slots::value(task.tags(), tag::TASK).map(str::to_owned),
        status,
        health: task.health_status().cloned(),
        address: address.filter(|_| connected || status != Status::Pending),
        image: container.and_then(|container| container.image_digest()).and_then(|text| Digest::new(text).ok()),
        created: time(task.created_at()).unwrap_or_default(),
        started: time(task.started_at()),
        left: time(task.stopping_at()).or(time(task.execution_stopped_at())).or(time(task.stopped_at())),
        end: (status == Status::Stopped || status == Status::Stopping).then(|| end(task)),
    })
}

/// The container of the service.
fn container(task: &Task) -> Option<&Container> {
    task.containers().iter().find(|container| container.name() != Some(discovery::SEARCH))
}

/// How a task ended, in ECS's words:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html>.
fn end(task: &Task) -> (ExitDetail, bool) {
    let failed = |one: &&Container| one.exit_code().is_some_and(|code| code != 0);
    // What runs before the service's own container has ended well, or is why there was none.
    let container = container(task).filter(|own| own.exit_code().is_some());
    let container = container.or(task.containers().iter().find(failed)).or(task.containers().first());
    let reason = container.and_then(|container| container.reason()).unwrap_or_default();
    let stopped = task.stopped_reason().unwrap_or_default();
    let words = [reason, stopped].into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>();
    let mut exit = ExitDetail::default();
    exit.code = container.and_then(|container| container.exit_code()).map(i64::from);
    exit.out_of_memory = words.iter().any(|words| words.contains("OutOfMemory"));
    exit.unrecoverable = words.iter().any(|words| is_hopeless(words));
    exit.at = time(task.stopped_at()).or(time(task.stopping_at()));
    let essential = |words: &&str| !words.starts_with("Essential container in task exited");
    exit.error = Some(words.into_iter().filter(essential).collect::<Vec<_>>().join(": ")).filter(|it| !it.is_empty());
    (exit, !is_taken(task.stop_code(), stopped))
}

/// Whether a task was taken away, by ECS because there should be fewer tasks or others, by AWS because it needs the machine, or by
/// an operator: none of these tells anything of what runs in it.
fn is_taken(code: Option<&TaskStopCode>, stopped: &str) -> bool {
    let fails = ["unhealthy", "health check"].iter().any(|words| stopped.contains(words));
    match code {
        Some(TaskStopCode::ServiceSchedulerInitiated) => !fails,
        Some(
            TaskStopCode::InfrastructureHealth
            | TaskStopCode::SpotInterruption
            | TaskStopCode::TerminationNotice
            | TaskStopCode::UserInitiated,
        ) => true,
        _ => stopped.starts_with("Host EC2 "),
    }
}

/// Whether starting it again can only end the same way.
fn is_hopeless(words: &str) -> bool {
    let pulls = words.contains("CannotPullContainer") || words.contains("CannotPullImage");
    let missing = [
        "not found",
        "manifest unknown",
        "does not exist",
        "denied",
        "no basic auth",
        "does not match the",
        "matching platform",
        "no matching manifest",
    ];
    let unreachable = ["i/o timeout", "connection refused", "Timeout exceeded", "no such host"];
    let prepared = words.contains("ResourceInitializationError");
    let secret = prepared && words.contains("unable to pull secrets");
    let log_group = prepared && words.contains("log group does not exist");
    (pulls && missing.iter().any(|part| words.contains(part)) && !unreachable.iter().any(|part| words.contains(part)))
        || (words.contains("CannotStartContainer") && cannot_run(words))
        || log_group
        || (secret && !unreachable.iter().any(|part| words.contains(part)))
}

/// Whether the image does not have what is to be run.
fn cannot_run(words: &str) -> bool {
    ["no such file or directory", "executable file not found", "permission denied", "exec format error"]
        .iter()
        .any(|part| words.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_milliseconds_become_one() {
        for (seconds, millis) in
            [(1.001, 1_001), (1_795_932_466.874, 1_795_932_466_874), (1_795_932_466.999, 1_795_932_466_999)]
        {
            assert_eq!(time(Some(&DateTime::from_secs_f64(seconds))), Some(Timestamp::from_millis(millis)));
        }
        assert_eq!(time(None), None);
    }

    #[test]
    fn what_was_taken_away_has_not_crashed() {
        let scheduler = Some(TaskStopCode::ServiceSchedulerInitiated);
        for (code, reason, taken) in [
            (scheduler.clone(), "Scaling activity initiated by (deployment ecs-svc/1234)", true),
            (scheduler.clone(), "", true),
            (scheduler.clone(), "Task failed container health checks", false),
            (scheduler.clone(), "Task failed ELB health checks in (target-group arn)", false),
            (
                scheduler,
                "(service web) (port 80) is unhealthy in (target-group arn) due to (reason Health checks failed)",
                false,
            ),
            (Some(TaskStopCode::SpotInterruption), "Your Spot Task was interrupted.", true),
            (Some(TaskStopCode::TerminationNotice), "", true),
            (Some(TaskStopCode::UserInitiated), "Task stopped by user", true),
            (Some(TaskStopCode::EssentialContainerExited), "Essential container in task exited", false),
            (Some(TaskStopCode::TaskFailedToStart), "CannotPullContainerError: denied", false),
            (None, "Host EC2 (instance i-1) terminated.", true),
        ] {
            assert_eq!(is_taken(code.as_ref(), reason), taken, "{code:?} {reason}");
        }
    }

    /// Words of AWS: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html>.
    #[test]
    fn what_can_only_fail_again_is_known_by_the_words_of_ecs() {
        for (words, hopeless) in [
            (
                "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref shop:v1: shop:v1: not found",
                true,
            ),
            (
                "CannotPullContainerError: image Manifest does not contain descriptor matching platform 'linux/arm64'",
                true,
            ),
            ("CannotPullContainerError: no matching manifest for linux/arm64/v8 in the manifest list entries", true),
            (
                "CannotPullContainerError: pull access denied, repository does not exist or may require authorization",
                true,
            ),
            ("CannotPullContainerError: dial tcp 10.0.0.1:443: i/o timeout", false),
            ("CannotPullContainerError: toomanyrequests: Rate exceeded", false),
            (
                "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: failed to create Cloudwatch log stream: ResourceNotFoundException: The specified log group does not exist.",
                true,
            ),
            (
                "ResourceInitializationError: unable to pull secrets or registry auth: AccessDeniedException: not authorized",
                true,
            ),
            ("ResourceInitializationError: unable to pull secrets or registry auth: dial tcp: i/o timeout", false),
            ("CannotStartContainerError: exec: \"/shp\": no such file or directory", true),
            ("OutOfMemoryError: Container killed due to memory usage", false),
        ] {
            assert_eq!(is_hopeless(words), hopeless, "{words}");
        }
    }
}

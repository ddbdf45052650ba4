//! From what was observed to what a person needs to know.

use crate::backend::{ExitDetail, Health, InstancePhase, ObservedInstance, OutputStream};
use crate::error::{Error, ErrorKind};
use crate::journal::{Evidence, Failure};
use crate::model::{Human, Readiness, Workload};

/// What an instance did, in one line.
pub(super) fn describe(instance: &ObservedInstance) -> String {
    let mut parts = Vec::new();
    match (&instance.exit, instance.phase) {
        (Some(exit), InstancePhase::Exited | InstancePhase::Restarting | InstancePhase::Pending) => {
            parts.push(describe_exit(exit));
        }
        (Some(exit), _) if instance.crashes > 0 => {
            parts.push(format!("{} and was started again", describe_exit(exit)));
        }
        (_, InstancePhase::Pending) => parts.push("was not started yet".to_owned()),
        (_, InstancePhase::Running) => parts.push("runs".to_owned()),
        (_, InstancePhase::Stopping) => parts.push("is being stopped".to_owned()),
        (None, InstancePhase::Exited | InstancePhase::Restarting) => parts.push("exited".to_owned()),
    }
    if instance.crashes > 1 {
        parts.push(format!("crashed {} times", instance.crashes));
    }
    match (instance.health, &instance.health_detail) {
        (Health::Healthy, _) => {}
        (Health::Unhealthy, None) => parts.push("is unhealthy".to_owned()),
        (Health::Starting | Health::Unknown, None) if instance.phase == InstancePhase::Running => {
            parts.push("did not become ready".to_owned());
        }
        (_, Some(detail)) => parts.push(detail.clone()),
        _ => {}
    }
    parts.join(", ")
}

/// How something ended, in one line.
pub(super) fn describe_exit(exit: &ExitDetail) -> String {
    match (&exit.error, exit.out_of_memory, exit.code) {
        (_, true, _) => "was killed for want of memory".to_owned(),
        (Some(error), _, _) if !error.is_empty() => format!("could not be started: {error}"),
        (_, _, Some(code)) => format!("exited with code {code}"),
        _ => "exited".to_owned(),
    }
}

/// What to do about an instance or task that ended so.
pub(super) fn hint_for_exit(exit: &ExitDetail, workload: &Workload) -> Option<String> {
    if exit.out_of_memory {
        let limit = workload.resources.memory_bytes;
        return Some(match limit {
            Some(bytes) => format!("its memory limit is {} MiB: raise it, or make it need less", bytes >> 20),
            None => "the host ran out of memory: give it a limit, or the host more memory".to_owned(),
        });
    }
    let hint = match exit.code? {
        0 => "it ended without an error: a service must keep running, a one-off task belongs into a hook",
        126 => "its command is not executable: check the file's mode and the image's platform",
        127 => "its command does not exist in the image: check command and entrypoint",
        137 => "something outside killed it",
        139 => "it crashed with a segmentation fault",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// What to do about an instance that runs and does not become ready.
pub(super) fn hint_for_unready(instance: &ObservedInstance, readiness: &Readiness) -> Option<String> {
    let detail = instance.health_detail.as_deref().unwrap_or_default();
    let port = readiness.probe.as_ref().map(crate::model::Probe::port)?;
    if detail.contains("refused") {
        Some(format!(
            "nothing listens on port {port}: check the port, and that it listens on 0.0.0.0 and not on 127.0.0.1"
        ))
    } else {
        Some(format!("if it only needs longer to start, raise the ready deadline of {}", Human(readiness.deadline)))
    }
}

/// A failure of a backend call.
pub(super) fn of_error(step: String, error: &Error) -> Failure {
    let mut failure = Failure::new(step, error.kind(), error.to_string());
    failure.error = Some(error.report());
    failure.hint = error.help().map(str::to_owned).or_else(|| {
        let hint = match error.kind() {
            ErrorKind::Timeout => "the backend did not answer in time: look at its own logs",
            ErrorKind::PermissionDenied => "check the credentials of the deploying program",
            _ => return None,
        };
        Some(hint.to_owned())
    });
    failure
}

/// The last lines of output as evidence, those of standard error marked by nothing: order tells more.
pub(super) fn last_lines(lines: impl IntoIterator<Item = (OutputStream, String)>, most: usize) -> Vec<String> {
    let lines: Vec<String> = lines.into_iter().map(|(_, text)| text).collect();
    lines
        .into_iter()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(most)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect()
}

/// What is known about instances, without their output yet.
pub(super) fn evidence<'a>(instances: impl IntoIterator<Item = &'a ObservedInstance>) -> Vec<Evidence> {
    instances.into_iter().map(|instance| Evidence::new(instance.name.clone(), describe(instance), Vec::new())).collect()
}

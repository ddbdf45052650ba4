//! What it means when the engine refuses to create or start a container.

use bollard::errors::Error as DockerError;
use deployer_core::{Effect, Error, ErrorKind};

use crate::engine::classify;

/// Layers that the engine names before it comes to the point.
const LAYERS: [&str; 10] = [
    "Error response from daemon: ",
    "failed to create task for container: ",
    "failed to create shim task: ",
    "failed to create shim: ",
    "OCI runtime create failed: ",
    "runc create failed: ",
    "runc did not terminate successfully: ",
    "unable to start container process: ",
    "error during container init: ",
    "invalid mount config for type \"bind\": ",
];

/// The part of an engine's message that helps: `exec: "/nope": stat /nope: no such file or directory`.
pub(super) fn useful(message: &str) -> &str {
    let mut rest = message.trim();
    while let Some(inner) = LAYERS.iter().find_map(|layer| rest.strip_prefix(layer)) {
        rest = inner;
    }
    if let Some(at) = rest.find("exec: \"") {
        rest = &rest[at..];
    }
    rest.strip_suffix(": unknown").unwrap_or(rest).trim()
}

/// What to do about it, if that is known.
fn remedy(message: &str) -> Option<&'static str> {
    let text = message.to_ascii_lowercase();
    let has = |part: &str| text.contains(part);
    if has("bind source path does not exist") {
        Some("create the path on the host first")
    } else if has("memory limit") {
        Some("raise the memory limit of the service")
    } else if has("exec: ") && has("permission denied") {
        Some("make the file executable in the image")
    } else if has("exec: ") {
        Some("check the entrypoint and command: the image has no such executable")
    } else if has("no such image") {
        Some("deploy again: the image is built or pulled anew")
    } else {
        None
    }
}

/// Says that a container could not be created (`effect` is [`Effect::None`]) or started ([`Effect::Done`]: it is there).
pub(super) fn refused(operation: &'static str, container: &str, error: DockerError, effect: Effect) -> Error {
    let classified = classify(operation, container, error);
    // The request is made of the release: what is invalid about it is the workload's fault.
    let kind = match classified.kind() {
        ErrorKind::InvalidInput | ErrorKind::Workload => ErrorKind::Workload,
        other => other,
    };
    let help = remedy(classified.message());
    let certain = !matches!(kind, ErrorKind::Timeout) && std::error::Error::source(&classified).is_none();
    if !certain {
        return classified.with_effect(Effect::Unknown);
    }
    let refused = Error::new(kind, useful(classified.message()).to_owned())
        .with_operation(operation)
        .with_resource(container)
        .with_retry(classified.retry())
        .with_effect(effect);
    match help {
        Some(help) => refused.with_help(help),
        None => refused,
    }
}

#[cfg(test)]
mod tests {
    use deployer_core::Retry;

    use super::*;

    #[test]
    fn messages_come_to_the_point() {
        for (message, point) in [
            (
                "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container \
                 process: exec: \"/nope\": stat /nope: no such file or directory: unknown",
                "exec: \"/nope\": stat /nope: no such file or directory",
            ),
            (
                "OCI runtime create failed: container_linux.go:367: starting container process caused: exec: \"x\": \
                 executable file not found in $PATH: unknown",
                "exec: \"x\": executable file not found in $PATH",
            ),
            (
                "invalid mount config for type \"bind\": bind source path does not exist: /nope",
                "bind source path does not exist: /nope",
            ),
            ("Minimum memory limit allowed is 6MB", "Minimum memory limit allowed is 6MB"),
        ] {
            assert_eq!(useful(message), point);
        }
    }

    fn answered(status_code: u16, message: &str) -> DockerError {
        DockerError::DockerResponseServerError { status_code, message: message.to_owned() }
    }

    #[test]
    fn a_bad_request_is_the_workloads_fault() {
        let error = refused("o", "c", answered(400, "Minimum memory limit allowed is 6MB"), Effect::None);
        assert_eq!((error.kind(), error.effect(), error.retry()), (ErrorKind::Workload, Effect::None, Retry::Never));
        assert!(error.help().is_some());
        let error = refused("o", "c", answered(404, "No such image: x"), Effect::None);
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_lost_answer_is_unknown() {
        let error = refused("o", "c", DockerError::RequestTimeoutError, Effect::None);
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::Unknown));
    }
}

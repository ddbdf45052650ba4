//! Why a build failed, in our words.

use deployer_core::{Effect, Error, ErrorKind, Retry};

use super::output::Failed;

/// Why a build failed, as far as its words tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The Dockerfile, or what is asked of it, makes no sense.
    Dockerfile,
    /// An instruction failed.
    Instruction,
    /// The base image is nowhere to be found.
    NoBaseImage,
    /// The base image may not be read.
    Denied,
    /// No registry answers, and the base image is not on this host.
    NoRegistry,
    /// The frontend that the first line of the Dockerfile names cannot be had.
    NoFrontend,
    /// The disk is full.
    NoSpace,
    /// The engine has no BuildKit, or not without a session.
    NoBuildKit,
    Unknown,
}

impl Failed {
    pub(super) fn cause(&self) -> Cause {
        let text = self.message.to_ascii_lowercase();
        let has = |part: &str| text.contains(part);
        let frontend = self.step.as_deref().is_some_and(|step| step.starts_with("resolve image config for "))
            || has("frontend gateway.v0: failed to do request");
        if has("no space left on device") {
            Cause::NoSpace
        } else if frontend {
            Cause::NoFrontend
        } else if has("buildkit not supported")
            || has("buildkit is not")
            || has("no active session")
            || has("requires a session")
        {
            Cause::NoBuildKit
        } else if has("dockerfile parse error")
            || has("unknown instruction")
            || has("unknown flag")
            || has("cannot be empty")
            || has("file with no instructions")
            || has("no build stage in current context")
            || has("should not be blank")
            || has("invalid reference format")
            || has("target stage")
            || has("failed to reach build target")
            || has("requires buildkit")
        {
            Cause::Dockerfile
        } else if has("returned a non-zero code")
            || has("executor failed running")
            || has("did not complete successfully")
            || has("copy failed")
            || has("add failed")
            || has("failed to compute cache key")
            || has("failed to calculate checksum")
        {
            Cause::Instruction
        } else if has("unauthorized") || has("authorization failed") || has("access denied") || has("access forbidden")
        {
            Cause::Denied
        } else if has("no such host")
            || has("connection refused")
            || has("i/o timeout")
            || has("network is unreachable")
            || has("tls handshake timeout")
            || has("server misbehaving")
        {
            Cause::NoRegistry
        } else if has("manifest unknown") || has("no such image") || has("not found") {
            Cause::NoBaseImage
        } else if self.instruction().is_some() {
            Cause::Instruction
        } else {
            Cause::Unknown
        }
    }

    pub(super) fn into_error(self) -> Error {
        let words = self.message.trim().to_owned();
        const PULL: &str = "pull the base image on this host first, or name one that is on it";
        let error = match self.cause() {
            Cause::Dockerfile => Error::new(ErrorKind::InvalidInput, words),
            Cause::Instruction => {
                let message = match self.instruction() {
                    Some(instruction) => format!("`{instruction}` failed: {words}"),
                    None => words,
                };
                Error::new(ErrorKind::Workload, message)
            }
            Cause::NoBaseImage => Error::new(ErrorKind::NotFound, words).with_help(PULL),
            Cause::Denied => Error::new(ErrorKind::PermissionDenied, words)
                .with_help("log in to the registry with `docker login`, or name another base image"),
            Cause::NoRegistry => Error::new(ErrorKind::NotFound, words)
                .with_context("cause", "the base image is not on this host, and its registry cannot be reached")
                .with_help(PULL),
            Cause::NoFrontend => Error::new(ErrorKind::NotFound, words)
                .with_help("remove the `# syntax=` line from the Dockerfile, or pull the image that it names"),
            Cause::NoSpace => Error::new(ErrorKind::Exhausted, words),
            Cause::NoBuildKit => Error::new(ErrorKind::Unsupported, words),
            Cause::Unknown => Error::new(ErrorKind::Unavailable, words).with_retry(Retry::Never),
        };
        // What a build leaves behind before it fails is cache.
        let mut error = error.with_effect(Effect::None);
        if !self.last_lines.is_empty() {
            error = error.with_context("last output", self.last_lines.join("\n"));
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_builders_say_is_understood() {
        let cause = |message: &str, step: &str| {
            Failed { message: message.to_owned(), step: Some(step.to_owned()), last_lines: Vec::new() }.cause()
        };
        for (message, step, expected) in [
            ("The command '/bin/sh -c false' returned a non-zero code: 7", "[2/2] RUN false", Cause::Instruction),
            ("executor failed running [/bin/sh -c exit 7]: exit code: 7", "[2/2] RUN exit 7", Cause::Instruction),
            ("process \"/bin/sh -c false\" did not complete successfully: exit code: 1", "", Cause::Instruction),
            ("failed to compute cache key: \"/nope\" not found: not found", "[2/2] COPY nope /", Cause::Instruction),
            ("COPY failed: file not found in build context: stat nope: file does not exist", "", Cause::Instruction),
            ("dockerfile parse error line 2: unknown instruction: BOGUS", "", Cause::Dockerfile),
            ("failed to solve with frontend dockerfile.v0: dockerfile parse error line 2: x", "", Cause::Dockerfile),
            ("target stage nope could not be found", "", Cause::Dockerfile),
            ("failed to reach build target nope in Dockerfile", "", Cause::Dockerfile),
            ("failed to do request: Head \"https://x/v2/\": dial tcp: lookup x: no such host", "", Cause::NoRegistry),
            (
                "failed to do request: Head \"https://x/v2/\": dial tcp: lookup x: no such host",
                "resolve image config for docker.io/docker/dockerfile:1",
                Cause::NoFrontend,
            ),
            ("pull access denied for x, repository does not exist", "", Cause::Denied),
            ("manifest for x:v9 not found: manifest unknown", "", Cause::NoBaseImage),
            ("write /x: no space left on device", "[2/2] RUN x", Cause::NoSpace),
            ("buildkit not supported by daemon", "", Cause::NoBuildKit),
            ("something new", "[2/2] RUN x", Cause::Instruction),
            ("something new", "exporting to image", Cause::Unknown),
        ] {
            assert_eq!(cause(message, step), expected, "{message}");
        }
    }

    #[test]
    fn evidence_is_in_the_error() {
        let failed = Failed {
            message: "exit code: 7".to_owned(),
            step: Some("[2/2] RUN make".to_owned()),
            last_lines: vec!["one".to_owned(), "two".to_owned()],
        };
        let error = failed.into_error();
        assert_eq!(error.kind(), ErrorKind::Workload);
        assert_eq!(error.to_string(), "`RUN make` failed: exit code: 7 (last output: one\ntwo)");
    }
}

//! Awaiting what CloudFormation does, with its events as progress.

use std::time::Duration;

use aws_sdk_cloudformation::types::StackEvent;
use deployer_core::{Effect, Error, ErrorKind, Progress, ProgressSink, Result, Retry};

use super::Environment;
use super::delete::KeptResource;
use super::stack::resource;
use crate::failure::failed;

/// The shortest and the longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// How many looks in a row may fail for a reason that passes.
const PATIENCE: u32 = 8;

/// Pauses that grow while nothing happens.
#[derive(Debug)]
pub(super) struct Pause(Duration);

impl Pause {
    pub(super) fn new() -> Self {
        Self(PAUSES.0)
    }

    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = self.0.mul_f64(1.5).min(PAUSES.1);
    }

    /// Something has happened: more is to be expected soon.
    fn hasten(&mut self) {
        self.0 = self.0.min(PAUSES.0 * 4);
    }
}

/// How something ended that CloudFormation did to a stack.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// The stack's last status.
    status: String,
    /// What failed first.
    failure: Option<Failure>,
    /// What was left where it is.
    pub(super) kept: Vec<KeptResource>,
}

/// What CloudFormation could not do.
#[derive(Debug)]
struct Failure {
    what: String,
    status: String,
    reason: String,
}

impl Environment {
    /// The newest event of a stack.
    pub(super) async fn last_event(&self, stack: &str) -> Result<Option<String>> {
        let answer = self.client.describe_stack_events().stack_name(stack).send().await;
        let answer = answer.map_err(|error| failed("cloudformation:DescribeStackEvents", resource(stack), error))?;
        Ok(answer.stack_events().first().and_then(|event| event.event_id()).map(str::to_owned))
    }

    /// Awaits the end of what happens to a stack, by its id: since an event, or since its last operation began.
    ///
    /// The events alone say when it is over, so that a status that lags behind misleads nobody.
    pub(super) async fn watch(&self, stack: &str, since: Option<String>, progress: &dyn ProgressSink) -> Result<Ended> {
        let (mut last, mut ended) = (since, Ended::default());
        let (mut pause, mut failures) = (Pause::new(), 0);
        loop {
            let news = match self.events(stack, last.as_deref()).await {
                Ok(news) => news,
                Err(error) if error.retry() != Retry::Never && failures < PATIENCE => {
                    failures += 1;
                    pause.wait().await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            failures = 0;
            if let Some(newest) = news.first() {
                last = newest.event_id().map(str::to_owned);
                pause.hasten();
            }
            // They come newest first.
            for event in news.iter().rev() {
                progress.progress(step(event));
                if ended.take(event, stack) {
                    return Ok(ended);
                }
            }
            pause.wait().await;
        }
    }

    /// Events after one of them, or from the beginning of the last operation; the newest first.
    async fn events(&self, stack: &str, after: Option<&str>) -> Result<Vec<StackEvent>> {
        let mut events = Vec::new();
        let mut pages = self.client.describe_stack_events().stack_name(stack).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("cloudformation:DescribeStackEvents", resource(stack), error))?;
            for event in page.stack_events.unwrap_or_default() {
                if after.is_some() && event.event_id() == after {
                    return Ok(events);
                }
                let first = after.is_none() && is_stack(&event, stack) && is_beginning(status(&event));
                events.push(event);
                if first {
                    return Ok(events);
                }
            }
        }
        Ok(events)
    }
}

impl Ended {
    /// Takes an event; says whether it was the last.
    fn take(&mut self, event: &StackEvent, stack: &str) -> bool {
        let status = status(event);
        if is_stack(event, stack) {
            status.clone_into(&mut self.status);
            // The stack itself is at fault if none of its resources is.
            if self.failure.is_none() && (status.ends_with("_FAILED") || status.contains("ROLLBACK_IN_PROGRESS")) {
                self.failure = Some(failure(event));
            }
            return is_end(status);
        }
        if status == "DELETE_SKIPPED" {
            self.kept.push(KeptResource {
                logical_id: event.logical_resource_id().unwrap_or_default().to_owned(),
                kind: event.resource_type().unwrap_or_default().to_owned(),
                physical_id: event.physical_resource_id().unwrap_or_default().to_owned(),
            });
        }
        if self.failure.is_none() && status.ends_with("_FAILED") {
            self.failure = Some(failure(event));
        }
        false
    }

    /// Fails unless what was before an update is there again.
    pub(super) fn check_brought_back(&self, name: &str) -> Result<()> {
        if self.status == "UPDATE_ROLLBACK_COMPLETE" { Ok(()) } else { self.check(name) }
    }

    /// Fails if what was wanted did not come about: with what failed first, and why.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let good = ["CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE", "DELETE_COMPLETE"];
        if good.contains(&self.status.as_str()) {
            return Ok(());
        }
        let (what, reason) = match &self.failure {
            Some(failure) => (failure.what.as_str(), format!("{}: {}", failure.status, failure.reason)),
            None => ("the stack", "CloudFormation gives none".to_owned()),
        };
        // What was made is gone again, or what was changed is as before.
        let undone = matches!(self.status.as_str(), "ROLLBACK_COMPLETE" | "UPDATE_ROLLBACK_COMPLETE");
        let effect = if undone { Effect::None } else { Effect::Unknown };
        let error = match &self.failure {
            Some(failure) => classified(&failure.reason),
            None => Error::new(ErrorKind::Unavailable, "CloudFormation could not do it").with_retry(Retry::Never),
        };
        Err(error
            .with_effect(effect)
            .with_resource(format!("{}, {what}", resource(name)))
            .with_context("reason", reason)
            .with_context("stack", self.status.clone()))
    }
}

/// An error by what CloudFormation gives as the reason. Of its resource handlers it says the code in the text only:
/// <https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-test-contract-errors.html>.
pub(super) fn classified(reason: &str) -> Error {
    let code = reason.split("HandlerErrorCode: ").nth(1).and_then(|rest| rest.split([')', ',', ' ']).next());
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    match code.unwrap_or_default() {
        "AccessDenied" | "InvalidCredentials" => denied(),
        "AlreadyExists" => taken(),
        "ServiceLimitExceeded" => exhausted(),
        "InvalidRequest" | "NotUpdatable" => {
            Error::new(ErrorKind::InvalidInput, "AWS refused what the environment asks for")
        }
        "NotFound" => Error::new(ErrorKind::NotFound, "something that the environment names does not exist"),
        "Throttling" => Error::new(ErrorKind::Throttled, "AWS throttles"),
        "ResourceConflict" => in_use(),
        "ServiceInternalError" | "InternalFailure" | "NetworkFailure" | "NotStabilized" => {
            Error::new(ErrorKind::Unavailable, "AWS had a failure")
        }
        _ if says(&["not authorized to perform", "AccessDenied"]) => denied(),
        _ if says(&["already exist"]) => taken(),
        _ if says(&["LimitExceeded", "limit exceeded", "quota"]) => exhausted(),
        _ if says(&["cannot be deleted while", "has dependencies", "in use", "has a dependent object"]) => in_use(),
        _ => Error::new(ErrorKind::Unavailable, "CloudFormation could not do it").with_retry(Retry::Never),
    }
}

fn denied() -> Error {
    Error::new(ErrorKind::PermissionDenied, "the credentials do not allow it")
        .with_help("`deployer_aws::policy::environment` prints all that making an environment needs")
}

fn taken() -> Error {
    Error::new(ErrorKind::AlreadyExists, "something else has the name")
        .with_help("give the environment another name, or delete what has it")
}

fn exhausted() -> Error {
    Error::new(ErrorKind::Exhausted, "a quota of the account is used up")
        .with_help("ask AWS for a higher quota, or remove what is not needed")
}

fn in_use() -> Error {
    Error::new(ErrorKind::Conflict, "something still uses it")
        .with_retry(Retry::Never)
        .with_help("remove the applications of the environment first")
}

fn failure(event: &StackEvent) -> Failure {
    Failure { what: item(event), status: status(event).to_owned(), reason: reason(event).to_owned() }
}

fn step(event: &StackEvent) -> Progress {
    let status = status(event).to_lowercase().replace('_', " ");
    let message = match reason(event) {
        "" => status,
        reason => format!("{status}: {reason}"),
    };
    Progress::new(item(event), message)
}

fn item(event: &StackEvent) -> String {
    let id = event.logical_resource_id().unwrap_or_default();
    format!("{id} ({})", event.resource_type().unwrap_or_default())
}

fn status(event: &StackEvent) -> &str {
    event.resource_status().map(|status| status.as_str()).unwrap_or_default()
}

fn reason(event: &StackEvent) -> &str {
    event.resource_status_reason().unwrap_or_default()
}

fn is_stack(event: &StackEvent, id: &str) -> bool {
    event.physical_resource_id() == Some(id)
}

/// Whether an operation on a stack begins with it.
fn is_beginning(status: &str) -> bool {
    matches!(status, "CREATE_IN_PROGRESS" | "UPDATE_IN_PROGRESS" | "DELETE_IN_PROGRESS" | "IMPORT_IN_PROGRESS")
}

fn is_end(status: &str) -> bool {
    status.ends_with("_COMPLETE") || status.ends_with("_FAILED")
}

#[cfg(test)]
mod tests {
    use aws_sdk_cloudformation::types::ResourceStatus;

    use super::*;

    const STACK: &str = "arn:aws:cloudformation:eu-central-1:123456789012:stack/staging/1";

    fn event(id: &str, physical: &str, status: &str, reason: &str) -> StackEvent {
        StackEvent::builder()
            .logical_resource_id(id)
            .physical_resource_id(physical)
            .resource_type("AWS::X::Y")
            .resource_status(ResourceStatus::from(status))
            .resource_status_reason(reason)
            .build()
    }

    #[test]
    fn the_first_resource_that_failed_is_told_not_the_stacks_status() {
        let mut ended = Ended::default();
        let access = "Resource handler returned message: \"no\" (RequestToken: 1, HandlerErrorCode: AccessDenied)";
        for (id, physical, status, reason) in [
            ("staging", STACK, "CREATE_IN_PROGRESS", "User Initiated"),
            ("Vpc", "", "CREATE_IN_PROGRESS", ""),
            ("Table", "", "CREATE_FAILED", access),
            ("Vpc", "", "CREATE_FAILED", "Resource creation cancelled"),
            ("staging", STACK, "ROLLBACK_IN_PROGRESS", "The following resource(s) failed to create: [Table, Vpc]"),
            ("Vpc", "", "DELETE_COMPLETE", ""),
        ] {
            assert!(!ended.take(&event(id, physical, status, reason), STACK), "{id} {status}");
        }
        assert!(ended.take(&event("staging", STACK, "ROLLBACK_COMPLETE", ""), STACK));
        let error = ended.check("staging").unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::None));
        assert!(error.to_string().contains("Table (AWS::X::Y)"), "{error}");
    }

    #[test]
    fn a_clean_up_is_not_the_end_of_an_update() {
        let mut ended = Ended::default();
        let cleanup = event("staging", STACK, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "");
        assert!(!ended.take(&cleanup, STACK));
        assert!(ended.take(&event("staging", STACK, "UPDATE_COMPLETE", ""), STACK));
        assert!(ended.check("staging").is_ok());
    }

    #[test]
    fn what_stays_is_told() {
        let mut ended = Ended::default();
        ended.take(&event("Table", "staging", "DELETE_SKIPPED", ""), STACK);
        assert!(ended.take(&event("staging", STACK, "DELETE_COMPLETE", ""), STACK));
        assert_eq!(ended.kept[0].physical_id, "staging");
        assert!(ended.check(STACK).is_ok());
    }
}

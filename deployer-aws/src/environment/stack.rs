//! The stack of an environment, as CloudFormation tells of it.

use aws_sdk_cloudformation::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudformation::types::Stack;
use deployer_core::{Error, ErrorKind, Result};

use super::Environment;
use super::template::TAG;
use crate::failure::{failed, is};

/// Where a stack stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is none, or one of which nothing was ever made.
    Absent,
    /// It is as it was last wanted.
    Settled,
    /// CloudFormation works on it.
    UnderWay,
    /// It was never made as a whole; only deleting is possible.
    Wreck,
    /// It could not be brought back after a change that failed.
    Stuck,
    /// It could not be deleted.
    Undeleted,
}

/// What CloudFormation says of a stack that is not there, for which it has no code of its own.
pub(super) fn is_absent<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    let words = error.as_service_error().and_then(ProvideErrorMetadata::message).unwrap_or_default();
    is(error, &["ValidationError"]) && words.contains("does not exist")
}

impl Environment {
    /// The stack of this name or id.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Stack>> {
        match self.client.describe_stacks().stack_name(name).send().await {
            Ok(answer) => Ok(answer.stacks.unwrap_or_default().into_iter().next()),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failed("cloudformation:DescribeStacks", resource(name), error)),
        }
    }

    /// The environment of this name and where it stands.
    ///
    /// Fails for stacks that are no environments.
    pub(super) async fn environment(&self, name: &str) -> Result<Option<(Stack, Standing)>> {
        let Some(stack) = self.find(name).await? else { return Ok(None) };
        let standing = standing(&stack);
        let empty = standing == Standing::Absent;
        if empty && status(&stack) == "DELETE_COMPLETE" {
            return Ok(None);
        }
        let ours = stack.tags().iter().any(|tag| tag.key() == Some(TAG));
        // Of what waits for a review nothing was made; its tags may not be there yet.
        if ours || (empty && stack.tags().is_empty()) {
            return Ok(Some((stack, standing)));
        }
        Err(Error::new(ErrorKind::AlreadyExists, "there is a stack of this name that is no environment")
            .with_resource(resource(name))
            .with_context("missing tag", TAG)
            .with_help("give the environment another name"))
    }

    /// The environment of this name as it is, for questions that change nothing.
    pub(super) async fn existing(&self, name: &str) -> Result<(Stack, Standing)> {
        let found = self.environment(name).await?.filter(|(_, standing)| *standing != Standing::Absent);
        found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no such environment")
                .with_resource(resource(name))
                .with_help("check region and account, or apply it first")
        })
    }
}

/// An environment's name in errors.
pub(super) fn resource(name: &str) -> String {
    // A stack's id holds its name.
    let name = name.split(":stack/").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or(name);
    format!("environment {name}")
}

pub(super) fn id(stack: &Stack) -> &str {
    stack.stack_id().or(stack.stack_name()).unwrap_or_default()
}

pub(super) fn status(stack: &Stack) -> &str {
    stack.stack_status().map(|status| status.as_str()).unwrap_or_default()
}

fn standing(stack: &Stack) -> Standing {
    match status(stack) {
        "DELETE_COMPLETE" | "REVIEW_IN_PROGRESS" => Standing::Absent,
        "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "CREATE_FAILED" => Standing::Wreck,
        "UPDATE_ROLLBACK_FAILED" => Standing::Stuck,
        "DELETE_FAILED" => Standing::Undeleted,
        other if other.ends_with("_IN_PROGRESS") => Standing::UnderWay,
        _ => Standing::Settled,
    }
}

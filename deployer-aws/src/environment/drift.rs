//! What of an environment is not as its template says.

use std::fmt;

use aws_sdk_cloudformation::types::{
    DifferenceType, PropertyDifference, StackDriftDetectionStatus, StackResourceDrift, StackResourceDriftStatus,
};
use deployer_core::Result;

use super::Environment;
use super::stack::{self, resource};
use super::watch::Pause;
use crate::failure::failed;

/// What of an environment was changed by other hands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnvironmentDrift {
    /// The environment.
    pub name: String,
    /// The resources that are not as the template says.
    pub resources: Vec<DriftedResource>,
    /// Why some could not be compared, if that is so.
    pub incomplete: Option<String>,
}

impl EnvironmentDrift {
    /// Whether everything that was compared is as the template says.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }
}

impl fmt::Display for EnvironmentDrift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.resources.len() {
            0 => write!(f, "environment {} is as its template says", self.name)?,
            count => write!(f, "environment {}: {count} resources are not as the template says", self.name)?,
        }
        for resource in &self.resources {
            write!(f, "\n  {resource}")?;
        }
        match &self.incomplete {
            Some(reason) => write!(f, "\n  not everything could be compared: {reason}"),
            None => Ok(()),
        }
    }
}

/// A resource that is not as the template says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriftedResource {
    /// Its name in the template.
    pub logical_id: String,
    /// Its type, such as `AWS::DynamoDB::Table`.
    pub kind: String,
    /// What it is called in the account.
    pub physical_id: String,
    /// Whether it is gone.
    pub deleted: bool,
    /// What differs.
    pub properties: Vec<DriftedProperty>,
}

impl fmt::Display for DriftedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.logical_id, self.kind, self.physical_id)?;
        if self.deleted {
            write!(f, " is gone")?;
        }
        for property in &self.properties {
            write!(f, "\n    {property}")?;
        }
        Ok(())
    }
}

/// A property that is not as the template says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriftedProperty {
    /// Where it is in the resource, such as `/Tags/0/Value`.
    pub path: String,
    /// What the template says, as JSON; nothing if it was added.
    pub expected: Option<String>,
    /// What is there, as JSON; nothing if it was removed.
    pub actual: Option<String>,
}

impl fmt::Display for DriftedProperty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match (&self.expected, &self.actual) {
            (Some(expected), Some(actual)) => write!(f, "{path} is {actual}, not {expected}"),
            (None, Some(actual)) => write!(f, "{path} was added: {actual}"),
            (Some(expected), None) => write!(f, "{path} is gone: {expected}"),
            (None, None) => write!(f, "{path} differs"),
        }
    }
}

impl Environment {
    /// Compares every resource that CloudFormation can compare with the template, which takes up to some minutes, and
    /// answers those that differ. [`apply`](Self::apply) does not bring them back unless the spec changes, too.
    ///
    /// # Errors
    /// [`NotFound`](deployer_core::ErrorKind::NotFound) if there is no such environment; what CloudFormation refuses.
    pub async fn drift(&self, name: &str) -> Result<EnvironmentDrift> {
        let (found, _) = self.existing(name).await?;
        let id = stack::id(&found);
        let call = self.client.detect_stack_drift().stack_name(id).send().await;
        let call = call.map_err(|error| failed("cloudformation:DetectStackDrift", resource(name), error))?;
        let detection = call.stack_drift_detection_id().unwrap_or_default();
        let incomplete = self.await_detection(name, detection).await?;
        let resources = self.differences(name, id).await?;
        Ok(EnvironmentDrift { name: name.to_owned(), resources, incomplete })
    }

    /// Awaits the end of a comparison; answers why it is not complete, if so.
    async fn await_detection(&self, name: &str, detection: &str) -> Result<Option<String>> {
        let mut pause = Pause::new();
        loop {
            let call = self.client.describe_stack_drift_detection_status().stack_drift_detection_id(detection);
            let answer = call
                .send()
                .await
                .map_err(|error| failed("cloudformation:DescribeStackDriftDetectionStatus", resource(name), error))?;
            match answer.detection_status() {
                Some(StackDriftDetectionStatus::DetectionComplete) => return Ok(None),
                Some(StackDriftDetectionStatus::DetectionFailed) => {
                    let reason = answer.detection_status_reason().unwrap_or("CloudFormation gives no reason");
                    return Ok(Some(reason.to_owned()));
                }
                _ => pause.wait().await,
            }
        }
    }

    async fn differences(&self, name: &str, stack: &str) -> Result<Vec<DriftedResource>> {
        let call = self
            .client
            .describe_stack_resource_drifts()
            .stack_name(stack)
            .stack_resource_drift_status_filters(StackResourceDriftStatus::Modified)
            .stack_resource_drift_status_filters(StackResourceDriftStatus::Deleted);
        let mut resources = Vec::new();
        let mut pages = call.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|error| failed("cloudformation:DescribeStackResourceDrifts", resource(name), error))?;
            resources.extend(page.stack_resource_drifts().iter().map(drifted));
        }
        resources.sort_by(|one: &DriftedResource, other| one.logical_id.cmp(&other.logical_id));
        Ok(resources)
    }
}

fn drifted(drift: &StackResourceDrift) -> DriftedResource {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    DriftedResource {
        logical_id: text(drift.logical_resource_id()),
        kind: text(drift.resource_type()),
        physical_id: text(drift.physical_resource_id()),
        deleted: drift.stack_resource_drift_status() == Some(&StackResourceDriftStatus::Deleted),
        properties: drift.property_differences().iter().map(property).collect(),
    }
}

fn property(difference: &PropertyDifference) -> DriftedProperty {
    let kind = difference.difference_type();
    let unless = |absent, text: Option<&str>| text.filter(|_| kind != Some(&absent)).map(str::to_owned);
    DriftedProperty {
        path: difference.property_path().unwrap_or_default().to_owned(),
        expected: unless(DifferenceType::Add, difference.expected_value()),
        actual: unless(DifferenceType::Remove, difference.actual_value()),
    }
}

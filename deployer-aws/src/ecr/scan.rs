//! What ECR has found in an image.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use aws_sdk_ecr::types::{FindingSeverity, ImageIdentifier, ImageScanFindings, ScanStatus};
use deployer_core::{Digest, Error, ErrorKind, Progress, ProgressSink, Result, Retry};
use tokio::time::{Instant, sleep};

use super::EcrRegistry;
use crate::failure::{failed, is};

/// How long after a push ECR may not know of a scan yet.
const UNKNOWN: Duration = Duration::from_secs(30);
/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(3);
/// How many findings an error names.
const NAMED: usize = 5;

/// How bad a finding is:
/// <https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-scanning.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nobody has said how bad it is.
    Undefined,
    /// It says something about the image.
    Informational,
    /// It hardly matters.
    Low,
    /// It can matter.
    Medium,
    /// It matters.
    High,
    /// It has to be mended at once.
    Critical,
}

impl Severity {
    fn of(severity: &FindingSeverity) -> Self {
        match severity {
            FindingSeverity::Critical => Self::Critical,
            FindingSeverity::High => Self::High,
            FindingSeverity::Medium => Self::Medium,
            FindingSeverity::Low => Self::Low,
            FindingSeverity::Informational => Self::Informational,
            _ => Self::Undefined,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Undefined => "undefined",
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        })
    }
}

impl EcrRegistry {
    /// Waits until ECR has scanned an image, and refuses it for findings that are worse than the options allow.
    pub(super) async fn check_scan(&self, image: &Scanned<'_>, progress: &dyn ProgressSink) -> Result<()> {
        let Some(worst) = self.0.options.worst_finding else { return Ok(()) };
        let begun = Instant::now();
        let mut told = None;
        loop {
            let found = self.scan(image).await?;
            let (status, reason) = match &found {
                Some((status, reason, _)) => (status.clone(), reason.clone()),
                None if begun.elapsed() < UNKNOWN => (ScanStatus::Pending, None),
                None => {
                    return Err(refused(image, "ECR has not scanned the image")
                        .with_help("turn on scanning on push for its repository, or scan it by hand"));
                }
            };
            match status {
                ScanStatus::Complete | ScanStatus::Active => {
                    let findings =
                        found.map(|(_, _, findings)| findings).unwrap_or_else(|| ImageScanFindings::builder().build());
                    return judge(image, &findings, worst);
                }
                ScanStatus::Pending | ScanStatus::InProgress => {}
                other => {
                    let said =
                        refused(image, "ECR cannot scan the image").with_context("status", other.as_str().to_owned());
                    return Err(match reason {
                        Some(reason) => said.with_context("reason", reason),
                        None => said,
                    });
                }
            }
            if told.as_ref() != Some(&status) {
                progress.progress(Progress::new(format!("scan {}", image.repository), status.as_str().to_owned()));
                told = Some(status);
            }
            sleep(INTERVAL).await;
        }
    }

    /// Where a scan stands, why, and what it has found; none, if there is none.
    async fn scan(&self, image: &Scanned<'_>) -> Result<Option<(ScanStatus, Option<String>, ImageScanFindings)>> {
        let id = ImageIdentifier::builder().image_digest(image.digest.as_str()).build();
        let call = self.0.client.describe_image_scan_findings().repository_name(image.repository).image_id(id);
        let answer = match call.max_results(1_000).send().await {
            Ok(answer) => answer,
            Err(error) if is(&error, &["ScanNotFoundException"]) => return Ok(None),
            Err(error) => return Err(failed("ecr:DescribeImageScanFindings", image.repository, error)),
        };
        let status = answer.image_scan_status();
        let reason = status.and_then(|status| status.description()).map(str::to_owned);
        let status = status.and_then(|status| status.status()).cloned().unwrap_or(ScanStatus::Pending);
        Ok(Some((status, reason, answer.image_scan_findings.unwrap_or_else(|| ImageScanFindings::builder().build()))))
    }
}

/// An image that is to be scanned.
#[derive(Debug)]
pub(super) struct Scanned<'a> {
    pub(super) repository: &'a str,
    pub(super) digest: &'a Digest,
}

fn refused(image: &Scanned<'_>, message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
        .with_operation("registry.scan")
        .with_resource(format!("{}@{}", image.repository, image.digest))
        .with_retry(Retry::Never)
}

/// Refuses an image with findings that are worse than this.
fn judge(image: &Scanned<'_>, findings: &ImageScanFindings, worst: Severity) -> Result<()> {
    let counts = findings.finding_severity_counts().into_iter().flatten();
    let worse: BTreeMap<Severity, i32> = counts
        .map(|(severity, count)| (Severity::of(severity), *count))
        .filter(|(severity, count)| *severity > worst && *count > 0)
        .collect();
    if worse.is_empty() {
        return Ok(());
    }
    let counted: Vec<String> = worse.iter().rev().map(|(severity, count)| format!("{count} {severity}")).collect();
    let basic = findings.findings().iter().map(|one| (one.severity().map(Severity::of), one.name()));
    let enhanced = findings.enhanced_findings().iter().map(|one| {
        let severity = one.severity().map(|severity| Severity::of(&FindingSeverity::from(severity)));
        (severity, one.title())
    });
    let mut named: Vec<(Severity, &str)> = basic
        .chain(enhanced)
        .filter_map(|(severity, name)| Some((severity.filter(|severity| *severity > worst)?, name?)))
        .collect();
    named.sort_by(|one, other| other.cmp(one));
    let names: Vec<&str> = named.iter().take(NAMED).map(|(_, name)| *name).collect();
    Err(refused(image, "the image has findings that are not allowed")
        .with_context("found", counted.join(", "))
        .with_context("among them", names.join(", "))
        .with_help(format!(
            "mend the image, or allow findings worse than {worst} with `EcrOptions::with_worst_finding`"
        )))
}

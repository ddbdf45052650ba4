//! Findings of ECR's scan as a gate. The emulator scans nothing: a client answers what ECR would, in virtual time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ecr::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use deployer_aws::{EcrOptions, EcrRegistry, Severity};
use deployer_core::{
    Call, ErrorKind, PinnedImage, Progress, ProgressSink, Registry as _, ResolveImage, Result, Timestamp,
};
use serde_json::{Value, json};

const DIGEST: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

/// A registry with one image, and what it tells of its scan, one after the other; the last for ever.
#[derive(Clone, Debug)]
struct Scans(Arc<Mutex<VecDeque<(u16, Value)>>>);

impl Scans {
    fn new(answers: impl IntoIterator<Item = (u16, Value)>) -> Self {
        Self(Arc::new(Mutex::new(answers.into_iter().collect())))
    }

    async fn resolve(&self, worst: Option<Severity>) -> Result<PinnedImage> {
        let credentials = Credentials::new("test", "test", None, None, "nobody's");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-central-1"))
            .endpoint_url("http://ecr.invalid")
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .retry_config(RetryConfig::disabled())
            .http_client(self.clone())
            .build();
        let mut options = EcrOptions::default().with_host("registry.invalid");
        options.worst_finding = worst;
        let registry = EcrRegistry::new(&config, options).unwrap();
        let call = Call::new("scan", Timestamp::from_millis(i64::MAX));
        registry.resolve(ResolveImage::new(call, "registry.invalid/shop:v1", Arc::new(Silence))).await
    }
}

impl HttpConnector for Scans {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap().to_owned();
        let (status, body) = match target.rsplit('.').next().unwrap() {
            "BatchGetImage" => (200, json!({"images": [{"imageId": {"imageDigest": DIGEST}}]})),
            "DescribeImageScanFindings" => {
                let mut answers = self.0.lock().unwrap();
                let next = answers.pop_front().unwrap_or_else(|| panic!("nobody expected another question"));
                if answers.is_empty() {
                    answers.push_back(next.clone());
                }
                next
            }
            other => panic!("nobody expected {other}"),
        };
        let status = StatusCode::try_from(status).unwrap();
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, body.to_string().into())))
    }
}

impl HttpClient for Scans {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

struct Silence;

impl ProgressSink for Silence {
    fn progress(&self, _: Progress) {}
}

fn unknown() -> (u16, Value) {
    (400, json!({"__type": "ScanNotFoundException", "message": "Image scan does not exist."}))
}

fn status(status: &str, description: &str) -> (u16, Value) {
    (200, json!({"imageScanStatus": {"status": status, "description": description}}))
}

fn found(counts: &Value, findings: &Value) -> (u16, Value) {
    let found = json!({"findingSeverityCounts": counts, "findings": findings});
    (200, json!({"imageScanStatus": {"status": "COMPLETE"}, "imageScanFindings": found}))
}

#[tokio::test(start_paused = true)]
async fn an_image_is_refused_for_what_is_worse_than_allowed() {
    let counts = json!({"CRITICAL": 2, "HIGH": 1, "LOW": 7});
    let findings = json!([
        {"name": "CVE-2026-0003", "severity": "HIGH"},
        {"name": "CVE-2026-0002", "severity": "LOW"},
        {"name": "CVE-2026-0001", "severity": "CRITICAL"},
    ]);
    let answers = [unknown(), status("IN_PROGRESS", ""), found(&counts, &findings)];
    let scans = Scans::new(answers);
    let error = scans.resolve(Some(Severity::Medium)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let report = error.report().to_string();
    assert!(report.contains("2 critical, 1 high") && report.contains("CVE-2026-0001, CVE-2026-0003"), "{report}");
    assert!(!report.contains("CVE-2026-0002"), "{report}");
    let error = scans.resolve(Some(Severity::High)).await.unwrap_err();
    assert!(error.report().to_string().contains("2 critical"), "{error}");
    assert_eq!(scans.resolve(Some(Severity::Critical)).await.unwrap().digest.as_str(), DIGEST);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_scanned_is_refused() {
    for (answer, words) in [
        (unknown(), "ECR has not scanned the image"),
        (status("UNSUPPORTED_IMAGE", "no operating system"), "no operating system"),
        (status("FAILED", "try again"), "try again"),
    ] {
        let error = Scans::new([answer]).resolve(Some(Severity::Critical)).await.unwrap_err();
        assert!(error.report().to_string().contains(words), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_unless_it_is_wanted() {
    assert_eq!(Scans::new([]).resolve(None).await.unwrap().digest.as_str(), DIGEST);
}

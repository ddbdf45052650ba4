//! Stacks as no emulator has them: under way, stuck, throttled, undone. A client answers what CloudFormation would, and
//! waits in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_cloudformation::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use deployer_aws::{Environment, EnvironmentSpec};
use deployer_core::{Effect, ErrorKind, Outcome, Progress, ProgressSink};

const STACK: &str = "arn:aws:cloudformation:eu-central-1:123456789012:stack/staging/1";
const CHANGES: &str = "arn:aws:cloudformation:eu-central-1:123456789012:changeSet/deployer-1/1";

/// Status codes and bodies.
type Answers = VecDeque<(u16, String)>;

/// Answers by action; the last of an action for ever.
#[derive(Clone, Debug, Default)]
struct Script {
    answers: Arc<Mutex<BTreeMap<&'static str, Answers>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn then(self, action: &'static str, body: impl Into<String>) -> Self {
        let body = body.into();
        let answer = format!("<{action}Response><{action}Result>{body}</{action}Result></{action}Response>");
        self.answers.lock().unwrap().entry(action).or_default().push_back((200, answer));
        self
    }

    fn then_error(self, action: &'static str, code: &str, message: &str) -> Self {
        let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
        let answer = format!("<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>");
        self.answers.lock().unwrap().entry(action).or_default().push_back((400, answer));
        self
    }

    fn environments(&self) -> Environment {
        let credentials = Credentials::new("test", "test", None, None, "nobody's");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-central-1"))
            .endpoint_url("http://cloudformation.invalid")
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .retry_config(RetryConfig::disabled())
            .http_client(self.clone())
            .build();
        Environment::new(&config)
    }

    fn asked(&self, action: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == action).count()
    }
}

impl HttpConnector for Script {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
        let action = body.split('&').find_map(|pair| pair.strip_prefix("Action=")).unwrap_or_default().to_owned();
        self.asked.lock().unwrap().push(action.clone());
        let mut answers = self.answers.lock().unwrap();
        let queue = answers.get_mut(action.as_str()).unwrap_or_else(|| panic!("nobody expected {action}"));
        let last = queue.front().unwrap().clone();
        let (status, body) = if queue.len() > 1 { queue.pop_front().unwrap() } else { last };
        let status = StatusCode::try_from(status).unwrap();
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, body.into())))
    }
}

impl HttpClient for Script {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

struct Silence;

impl ProgressSink for Silence {
    fn progress(&self, _: Progress) {}
}

fn stack(status: &str) -> String {
    let tag = "<member><Key>deployer:environment</Key><Value>staging</Value></member>";
    format!(
        "<Stacks><member><StackName>staging</StackName><StackId>{STACK}</StackId><StackStatus>{status}</StackStatus>\
         <CreationTime>2026-01-01T00:00:00Z</CreationTime><Tags>{tag}</Tags></member></Stacks>"
    )
}

/// Events, the newest first: number, resource (none for the stack itself), status and reason.
fn events(events: &[(u32, Option<&str>, &str, &str)]) -> String {
    let mut text = "<StackEvents>".to_owned();
    for (number, resource, status, reason) in events {
        let (id, physical, kind) = match resource {
            Some(id) => (*id, "physical", "AWS::X::Y"),
            None => ("staging", STACK, "AWS::CloudFormation::Stack"),
        };
        write!(
            text,
            "<member><StackId>{STACK}</StackId><EventId>{number}</EventId><StackName>staging</StackName>\
             <LogicalResourceId>{id}</LogicalResourceId><PhysicalResourceId>{physical}</PhysicalResourceId>\
             <ResourceType>{kind}</ResourceType><ResourceStatus>{status}</ResourceStatus>\
             <ResourceStatusReason>{reason}</ResourceStatusReason><Timestamp>2026-01-01T00:00:00Z</Timestamp></member>"
        )
        .unwrap();
    }
    text + "</StackEvents>"
}

/// A change set that would change nothing.
fn nothing(script: Script) -> Script {
    let reason =
        "The submitted information didn't contain changes. Submit different information to create a change set.";
    script
        .then("CreateChangeSet", format!("<Id>{CHANGES}</Id><StackId>{STACK}</StackId>"))
        .then("DescribeChangeSet", format!("<Status>FAILED</Status><StatusReason>{reason}</StatusReason>"))
        .then("DeleteChangeSet", "")
}

/// One that changes a table.
fn something(script: Script) -> Script {
    let change = "<Changes><member><Type>Resource</Type><ResourceChange><Action>Modify</Action>\
                  <LogicalResourceId>Table</LogicalResourceId><ResourceType>AWS::DynamoDB::Table</ResourceType>\
                  <Replacement>True</Replacement></ResourceChange></member></Changes>";
    script
        .then("CreateChangeSet", format!("<Id>{CHANGES}</Id><StackId>{STACK}</StackId>"))
        .then("DescribeChangeSet", "<Status>CREATE_IN_PROGRESS</Status>")
        .then("DescribeChangeSet", format!("<Status>CREATE_COMPLETE</Status>{change}"))
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_awaited_through_throttling() {
    let begun = [(2, Some("Table"), "UPDATE_IN_PROGRESS", ""), (1, None, "UPDATE_IN_PROGRESS", "User Initiated")];
    let ended = [(3, None, "UPDATE_COMPLETE", ""), (2, Some("Table"), "UPDATE_IN_PROGRESS", "")];
    let script = nothing(Script::default())
        .then("DescribeStacks", stack("UPDATE_IN_PROGRESS"))
        .then("DescribeStacks", stack("UPDATE_COMPLETE"))
        .then("DescribeStackEvents", events(&begun))
        .then_error("DescribeStackEvents", "Throttling", "Rate exceeded")
        .then_error("DescribeStackEvents", "Throttling", "Rate exceeded")
        .then("DescribeStackEvents", events(&ended));
    let outcome = script.environments().apply(&EnvironmentSpec::new("staging"), &Silence).await.unwrap();
    assert_eq!(outcome, Outcome::AlreadyThere);
    assert_eq!((script.asked("DescribeStackEvents"), script.asked("DeleteChangeSet")), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn an_earlier_failure_is_not_taken_for_the_end_of_a_change() {
    let old = [(9, None, "UPDATE_ROLLBACK_COMPLETE", ""), (8, Some("Vpc"), "UPDATE_FAILED", "something old")];
    let refusal = "no (HandlerErrorCode: ServiceLimitExceeded)";
    let new = [
        (13, None, "UPDATE_ROLLBACK_COMPLETE", ""),
        (12, None, "UPDATE_ROLLBACK_IN_PROGRESS", "The following resource(s) failed to update: [Table]"),
        (11, Some("Table"), "UPDATE_FAILED", refusal),
        (10, None, "UPDATE_IN_PROGRESS", "User Initiated"),
        old[0],
    ];
    let script = something(Script::default())
        .then("DescribeStacks", stack("UPDATE_ROLLBACK_COMPLETE"))
        .then("ExecuteChangeSet", "")
        // Before the execution, and once more because what is new shows late.
        .then("DescribeStackEvents", events(&old))
        .then("DescribeStackEvents", events(&old))
        .then("DescribeStackEvents", events(&new));
    let error = script.environments().apply(&EnvironmentSpec::new("staging"), &Silence).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Exhausted, Effect::None), "{error}");
    assert!(error.to_string().contains("Table") && !error.to_string().contains("something old"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_stack_that_is_stuck_is_brought_back_before_it_is_changed() {
    let stuck = [(5, None, "UPDATE_ROLLBACK_FAILED", "")];
    let back = [(7, None, "UPDATE_ROLLBACK_COMPLETE", ""), (6, None, "UPDATE_ROLLBACK_IN_PROGRESS", ""), stuck[0]];
    let script = nothing(Script::default())
        .then("DescribeStacks", stack("UPDATE_ROLLBACK_FAILED"))
        .then("DescribeStacks", stack("UPDATE_ROLLBACK_COMPLETE"))
        .then("ContinueUpdateRollback", "")
        .then("DescribeStackEvents", events(&stuck))
        .then("DescribeStackEvents", events(&back));
    let outcome = script.environments().apply(&EnvironmentSpec::new("staging"), &Silence).await.unwrap();
    assert_eq!((outcome, script.asked("ContinueUpdateRollback")), (Outcome::AlreadyThere, 1));
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_under_way_is_awaited_and_tells_what_is_still_used() {
    let reason = "Resource handler returned message: The Cluster cannot be deleted while Services are active.";
    let failed = [
        (4, None, "DELETE_FAILED", "The following resource(s) failed to delete: [Cluster]."),
        (3, Some("Cluster"), "DELETE_FAILED", reason),
        (2, Some("Table"), "DELETE_SKIPPED", ""),
        (1, None, "DELETE_IN_PROGRESS", "User Initiated"),
    ];
    let script = Script::default()
        .then("DescribeStacks", stack("DELETE_IN_PROGRESS"))
        .then("DescribeStackEvents", events(&failed));
    let error = script.environments().delete("staging", &Silence).await.unwrap_err();
    assert_eq!((error.kind(), script.asked("DeleteStack")), (ErrorKind::Conflict, 0), "{error}");
    assert!(error.to_string().contains("Cluster (AWS::X::Y)"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_what_is_made_anew_and_leaves_no_change_set() {
    let script =
        something(Script::default()).then("DescribeStacks", stack("UPDATE_COMPLETE")).then("DeleteChangeSet", "");
    let plan = script.environments().plan(&EnvironmentSpec::new("staging")).await.unwrap();
    let text = "environment staging would change in 1 resources\n  modify Table (AWS::DynamoDB::Table), made anew";
    assert_eq!(plan.to_string(), text);
    assert_eq!((script.asked("DeleteChangeSet"), script.asked("ExecuteChangeSet")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_credentials_do_not_allow_is_named() {
    let message = "User is not authorized to perform: cloudformation:DescribeStacks";
    let script = Script::default().then_error("DescribeStacks", "AccessDenied", message);
    let error = script.environments().options("staging").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("call: cloudformation:DescribeStacks"), "{error}");
}

//! What stops an application is found before anything is touched, on the emulator that `scripts/aws-emulator` starts.

use std::sync::Arc;

use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, FixedResponseActionConfig, HostHeaderConditionConfig, RuleCondition,
};
use deployer_aws::{AwsOptions, Capacity, CapacityProvider};
use deployer_core::{
    AppSpec, DeployOptions, Deployer, DeploymentId, Error, ErrorKind, Port, Problems, Route, ServiceSpec,
};
use deployer_testkit::MemoryStore;

use crate::stage::{Stage, config};

fn name() -> String {
    format!("pre-{}", DeploymentId::fresh().as_str().get(24..).unwrap())
}

fn deployer(stage: &Stage, options: AwsOptions) -> Deployer {
    Deployer::new(stage.backend(&config(), options, Arc::new(MemoryStore::new())).unwrap())
}

fn spec(stage: &Stage, host: &str) -> AppSpec {
    let web = ServiceSpec::image(&stage.image).with_route(Route::new(8080).with_host(host));
    AppSpec::new("shop").unwrap().with_service("web", web).unwrap()
}

/// The paths of what a plan was refused for.
fn paths(error: &Error) -> Vec<&str> {
    let problems: &Problems = std::error::Error::source(error).unwrap().downcast_ref().unwrap();
    problems.errors().map(|problem| problem.path.as_str()).collect()
}

/// Makes a rule that is not ours.
async fn foreign_rule(stage: &Stage, host: &str) {
    let hosts = HostHeaderConditionConfig::builder().values(host).build();
    let response = FixedResponseActionConfig::builder().status_code("404").build();
    let action = Action::builder().r#type(ActionTypeEnum::FixedResponse).fixed_response_config(response).build();
    let condition = RuleCondition::builder().field("host-header").host_header_config(hosts).build();
    let call = stage.elb.create_rule().listener_arn(&stage.listener).priority(7).conditions(condition).actions(action);
    call.send().await.unwrap();
}

#[tokio::test]
async fn all_that_would_stop_an_application_is_told_at_once() {
    let stage = Stage::new(&name()).await.unwrap();
    foreign_rule(&stage, "theirs.example").await;

    let fine = deployer(&stage, stage.options());
    let preview = fine.plan(&spec(&stage, "ours.example"), &DeployOptions::default()).await.unwrap();
    let account = format!("cluster {} in us-east-1 of account 123456789012", stage.name);
    assert!(preview.to_string().contains(&account), "{preview}");

    let taken = fine.plan(&spec(&stage, "theirs.example"), &DeployOptions::default()).await.unwrap_err();
    assert_eq!((taken.kind(), paths(&taken)), (ErrorKind::InvalidInput, vec!["services.web.routes[0]"]), "{taken}");

    let mut wrong = stage.options().with_log_group("/deployer/nothing").with_subnets(Vec::<String>::new());
    wrong.cluster = "no-such-cluster".to_owned();
    wrong.listener = Some(stage.listener.replace(":listener/", ":listener/gone-"));
    let error = deployer(&stage, wrong).plan(&spec(&stage, "ours.example"), &DeployOptions::default()).await;
    let error = error.unwrap_err();
    let expected = ["environment.cluster", "environment.listener", "environment.log-group", "environment.subnets"];
    assert_eq!(paths(&error), expected, "{error}");

    // Published ports without a load balancer for them, and with one that is not there.
    let mut publishing = spec(&stage, "ours.example");
    for service in publishing.services.values_mut() {
        service.workload.ports.push(Port::published(8080, 5432));
    }
    let error = fine.plan(&publishing, &DeployOptions::default()).await.unwrap_err();
    assert_eq!(paths(&error), ["services.web.ports[0]"], "{error}");
    let gone = format!("{}0", stage.network);
    let wrong = stage.options().with_network_balancer(gone);
    let error = deployer(&stage, wrong).plan(&publishing, &DeployOptions::default()).await.unwrap_err();
    assert_eq!(paths(&error), ["environment.network-balancer"], "{error}");
    let right = stage.options().with_network_balancer(&stage.network);
    deployer(&stage, right).plan(&publishing, &DeployOptions::default()).await.unwrap();

    // Of another account, and with what the cluster does not have.
    let provider = CapacityProvider { name: "FARGATE_SPOT".to_owned(), weight: 1, base: 0 };
    let mut wrong = stage.options().with_capacity(Capacity::Providers(vec![provider]));
    wrong.execution_role = "arn:aws:iam::210987654321:role/execution".to_owned();
    let error = deployer(&stage, wrong).plan(&spec(&stage, "ours.example"), &DeployOptions::default()).await;
    let found = error.unwrap_err();
    assert_eq!(paths(&found), ["environment.execution-role", "environment.capacity"], "{found}");
    stage.clear().await.unwrap();
}

//! Environments on the emulator that `scripts/aws-emulator` starts. They fail where there is none.
//!
//! Its CloudFormation makes everything of an environment on Fargate without NAT. It knows no
//! `AWS::EC2::NatGateway`, `AWS::EC2::EIP`, `AWS::EC2::SecurityGroupIngress`, `AWS::ECS::CapacityProvider`,
//! `AWS::ECS::ClusterCapacityProviderAssociations` and `AWS::ElasticLoadBalancingV2::ListenerCertificate`: specs with a
//! NAT gateway, with traffic between instances, with EC2 machines or with a second certificate are looked at in
//! `template.rs` only.

use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use deployer_aws::{
    Capacity, DynamoStore, Environment, EnvironmentNetwork, EnvironmentSpec, KeptResource, Nat, ResourceAction,
};
use deployer_core::{DeploymentId, Effect, ErrorKind, Outcome, Progress, ProgressSink, ReleaseStore};

use crate::stage::config;

/// An environment's name that no other test has.
fn name(of: &str) -> String {
    let id = DeploymentId::fresh().to_string().replace('-', "");
    format!("it-{of}-{}", &id[id.len() - 12..])
}

/// Keeps what it is told.
#[derive(Default)]
struct Steps {
    told: Mutex<Vec<String>>,
    begun: AtomicBool,
}

impl ProgressSink for Steps {
    fn progress(&self, progress: Progress) {
        self.begun.fetch_or(progress.message.starts_with("create in progress"), Ordering::Relaxed);
        self.told.lock().unwrap().push(format!("{}: {}", progress.item, progress.message));
    }
}

impl Steps {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

/// Removes what environments leave on purpose.
async fn clear(kept: &[KeptResource]) {
    let (tables, logs) = (aws_sdk_dynamodb::Client::new(&config()), aws_sdk_cloudwatchlogs::Client::new(&config()));
    for resource in kept {
        let name = &resource.physical_id;
        match resource.kind.as_str() {
            "AWS::DynamoDB::Table" => drop(tables.delete_table().table_name(name).send().await.unwrap()),
            "AWS::Logs::LogGroup" => drop(logs.delete_log_group().log_group_name(name).send().await.unwrap()),
            other => panic!("{other} was kept, too"),
        }
    }
}

#[tokio::test]
async fn an_environment_is_made_changed_and_deleted() {
    let environments = Environment::new(&config());
    let spec = EnvironmentSpec::new(name("whole"));
    let steps = Steps::default();

    let plan = environments.plan(&spec).await.unwrap();
    assert!(plan.new && plan.changes.len() > 15, "{plan}");
    assert_eq!(environments.options(&spec.name).await.unwrap_err().kind(), ErrorKind::NotFound);

    assert_eq!(environments.apply(&spec, &steps).await.unwrap(), Outcome::Created);
    let told = steps.take();
    assert!(told.iter().any(|step| step.starts_with("Table (AWS::DynamoDB::Table): create complete")), "{told:#?}");

    let outputs = environments.options(&spec.name).await.unwrap();
    assert_eq!(outputs.options.cluster, spec.name);
    assert_eq!(outputs.options.subnets.len(), 2);
    assert_eq!(outputs.options.capacity, Capacity::Fargate);
    assert_eq!(outputs.options.log_group.as_deref(), Some(spec.log_group().as_str()));
    assert!(outputs.options.public_addresses);
    assert!(outputs.options.execution_role.starts_with("arn:aws:iam::"), "{outputs:?}");
    assert!(outputs.options.listener.as_deref().unwrap().contains(":listener/app/"), "{outputs:?}");
    assert_eq!(DynamoStore::new(&config(), &outputs.table).apps().await.unwrap(), []);

    // Nothing is to be done twice.
    assert!(environments.plan(&spec).await.unwrap().is_empty());
    assert_eq!(environments.apply(&spec, &steps).await.unwrap(), Outcome::AlreadyThere);

    let less = spec.clone().with_log_retention_days(7);
    let plan = environments.plan(&less).await.unwrap();
    // The emulator cannot tell that the role, which names the group, stays as it is.
    let change = plan.changes.iter().find(|change| change.logical_id == "LogGroup").unwrap();
    assert_eq!(change.action, ResourceAction::Modify, "{plan}");
    assert_eq!(change.properties, ["RetentionInDays"], "{plan}");
    assert_eq!(environments.apply(&less, &steps).await.unwrap(), Outcome::Changed);

    let kept = environments.delete(&spec.name, &steps).await.unwrap();
    let kinds: Vec<&str> = kept.iter().map(|resource| resource.logical_id.as_str()).collect();
    assert!(kinds.len() == 2 && kinds.contains(&"Table") && kinds.contains(&"LogGroup"), "{kept:?}");
    assert_eq!(environments.delete(&spec.name, &steps).await.unwrap(), []);
    clear(&kept).await;
}

#[tokio::test]
async fn a_new_environment_takes_over_what_an_old_one_has_left() {
    let environments = Environment::new(&config());
    let spec = EnvironmentSpec::new(name("again"));
    let steps = Steps::default();
    environments.apply(&spec, &steps).await.unwrap();
    environments.delete(&spec.name, &steps).await.unwrap();
    steps.take();
    assert_eq!(environments.apply(&spec, &steps).await.unwrap(), Outcome::Created);
    let told = steps.take();
    assert!(told.iter().any(|step| step.starts_with("Table") && step.contains("import")), "{told:#?}");
    let kept = environments.delete(&spec.name, &steps).await.unwrap();
    clear(&kept).await;
}

#[tokio::test]
async fn what_others_have_changed_is_told() {
    let environments = Environment::new(&config());
    let spec = EnvironmentSpec::new(name("drift"));
    let steps = Steps::default();
    environments.apply(&spec, &steps).await.unwrap();
    let drift = environments.drift(&spec.name).await.unwrap();
    assert!(drift.is_empty(), "{drift}");

    let logs = aws_sdk_cloudwatchlogs::Client::new(&config());
    let call = logs.put_retention_policy().log_group_name(spec.log_group()).retention_in_days(1);
    call.send().await.unwrap();
    let drift = environments.drift(&spec.name).await.unwrap();
    assert_eq!(drift.resources.len(), 1, "{drift}");
    assert_eq!(drift.resources[0].logical_id, "LogGroup");
    assert!(!drift.resources[0].deleted);
    assert_eq!(drift.resources[0].properties[0].to_string(), "/RetentionInDays is 1, not 30");

    let kept = environments.delete(&spec.name, &steps).await.unwrap();
    clear(&kept).await;
}

#[tokio::test]
async fn a_creation_that_fails_names_the_first_resource_and_is_replaced() {
    let environments = Environment::new(&config());
    let good = EnvironmentSpec::new(name("broken"));
    // IAM alone takes these for the same tag.
    let bad = good.clone().with_tag("team", "shop").with_tag("TEAM", "shop");
    let steps = Steps::default();
    let error = environments.apply(&bad, &steps).await.unwrap_err();
    assert_eq!(error.effect(), Effect::None, "{error}");
    assert!(error.to_string().contains("Role (AWS::IAM::Role)"), "{error}");
    assert!(environments.plan(&good).await.unwrap().new);

    assert_eq!(environments.apply(&good, &steps).await.unwrap(), Outcome::Created);
    let kept = environments.delete(&good.name, &steps).await.unwrap();
    clear(&kept).await;
}

#[tokio::test]
async fn what_cannot_even_be_tried_leaves_no_stack() {
    let environments = Environment::new(&config());
    // The emulator knows no NAT gateways, and says so of the change set.
    let network = EnvironmentNetwork::New { cidr: "10.0.0.0/16".to_owned(), nat: Nat::One };
    let spec = EnvironmentSpec::new(name("nat")).with_network(network);
    let error = environments.apply(&spec, &Steps::default()).await.unwrap_err();
    assert_eq!(error.effect(), Effect::None, "{error}");
    assert_eq!(environments.delete(&spec.name, &Steps::default()).await.unwrap(), []);
}

#[tokio::test]
async fn a_call_that_was_given_up_is_gone_on_with() {
    let environments = Environment::new(&config());
    let spec = EnvironmentSpec::new(name("dropped"));
    let steps = Steps::default();
    {
        let mut call = pin!(environments.apply(&spec, &steps));
        // Until the first resource is begun.
        std::future::poll_fn(|context| match call.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending if steps.begun.load(Ordering::Relaxed) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        })
        .await;
    }
    environments.apply(&spec, &steps).await.unwrap();
    environments.options(&spec.name).await.unwrap();
    let kept = environments.delete(&spec.name, &steps).await.unwrap();
    clear(&kept).await;
}

#[tokio::test]
async fn a_review_that_was_never_executed_is_in_nobodys_way() {
    let environments = Environment::new(&config());
    let client = aws_sdk_cloudformation::Client::new(&config());
    let spec = EnvironmentSpec::new(name("review"));
    // As a process leaves it that dies before it executes its change set.
    let call = client
        .create_change_set()
        .stack_name(&spec.name)
        .change_set_name("deployer-died")
        .change_set_type(aws_sdk_cloudformation::types::ChangeSetType::Create)
        .template_body(spec.template().unwrap().to_string());
    call.send().await.unwrap();
    assert!(environments.plan(&spec).await.unwrap().new);
    assert_eq!(environments.options(&spec.name).await.unwrap_err().kind(), ErrorKind::NotFound);
    let steps = Steps::default();
    assert_eq!(environments.apply(&spec, &steps).await.unwrap(), Outcome::Created);
    let kept = environments.delete(&spec.name, &steps).await.unwrap();
    clear(&kept).await;
}

#[tokio::test]
async fn stacks_that_are_no_environments_are_not_touched() {
    let environments = Environment::new(&config());
    let client = aws_sdk_cloudformation::Client::new(&config());
    let spec = EnvironmentSpec::new(name("foreign"));
    let template = r#"{"Resources": {"Group": {"Type": "AWS::Logs::LogGroup"}}}"#;
    client.create_stack().stack_name(&spec.name).template_body(template).send().await.unwrap();
    let steps = Steps::default();
    let refused = ErrorKind::AlreadyExists;
    assert_eq!(environments.plan(&spec).await.unwrap_err().kind(), refused);
    assert_eq!(environments.apply(&spec, &steps).await.unwrap_err().kind(), refused);
    assert_eq!(environments.delete(&spec.name, &steps).await.unwrap_err().kind(), refused);
    assert_eq!(environments.drift(&spec.name).await.unwrap_err().kind(), refused);
    client.delete_stack().stack_name(&spec.name).send().await.unwrap();
}

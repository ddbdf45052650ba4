//! What stops an application is found before anything is touched, on the emulator that `scripts/aws-emulator` starts.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_cloudformation::types::Capability;
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, FixedResponseActionConfig, HostHeaderConditionConfig, RuleCondition,
};
use deployer_aws::{AwsOptions, Capacity, CapacityProvider};
use deployer_core::{
    AppSpec, DeployOptions, Deployer, DeploymentId, Error, ErrorKind, Port, Problems, Route, ServiceSpec,
};
use deployer_testkit::MemoryStore;
use serde_json::{Value, json};

use crate::stage::{Stage, VPC, config};

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

/// Roles and security groups beside a stage, made by CloudFormation.
struct Beside {
    stack: String,
    role: String,
    /// A role that is not for tasks.
    other_role: String,
    /// The security group of instances.
    group: String,
    /// One of the same network that lets nobody in at the service's port, and one of another network.
    closed: String,
    elsewhere: String,
}

fn cloudformation() -> aws_sdk_cloudformation::Client {
    aws_sdk_cloudformation::Client::new(&config())
}

impl Beside {
    async fn new(name: &str) -> Self {
        let role = |service: &str| {
            let statement = json!({"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"});
            json!({"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Statement": [statement]}}})
        };
        let group = |vpc: Value, port: u16| {
            let rule = json!({"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": "172.31.0.0/16"});
            let properties = json!({"GroupDescription": "test", "VpcId": vpc, "SecurityGroupIngress": [rule]});
            json!({"Type": "AWS::EC2::SecurityGroup", "Properties": properties})
        };
        let template = json!({"Resources": {
            "Role": role("ecs-tasks.amazonaws.com"),
            "OtherRole": role("lambda.amazonaws.com"),
            "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.91.0.0/16"}},
            "Group": group(json!(VPC), 8080),
            "Closed": group(json!(VPC), 9090),
            "Elsewhere": group(json!({"Ref": "Vpc"}), 8080),
        }});
        let call = cloudformation().create_stack().stack_name(name).template_body(template.to_string());
        call.capabilities(Capability::CapabilityIam).send().await.unwrap();
        for _ in 0..100 {
            let found = cloudformation().describe_stack_resources().stack_name(name).send().await.unwrap();
            let made = |id: &str| {
                let all = found.stack_resources();
                let one = all.iter().find(|resource| resource.logical_resource_id() == Some(id))?;
                let done = one.resource_status().is_some_and(|status| status.as_str() == "CREATE_COMPLETE");
                done.then(|| one.physical_resource_id().map(str::to_owned))?
            };
            let all = ["Role", "OtherRole", "Group", "Closed", "Elsewhere"].map(made);
            if let [Some(role), Some(other), Some(group), Some(closed), Some(elsewhere)] = all {
                let arn = |role: String| format!("arn:aws:iam::123456789012:role/{role}");
                let (role, other_role) = (arn(role), arn(other));
                return Self { stack: name.to_owned(), role, other_role, group, closed, elsewhere };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the stack {name} was not made");
    }

    /// The stage's options with the role and the security group.
    fn options(&self, stage: &Stage) -> AwsOptions {
        let mut options = stage.options().with_security_groups([&self.group]);
        options.execution_role.clone_from(&self.role);
        options
    }

    async fn clear(&self) {
        cloudformation().delete_stack().stack_name(&self.stack).send().await.unwrap();
    }
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
    let beside = Beside::new(&stage.name).await;
    foreign_rule(&stage, "theirs.example").await;

    let fine = deployer(&stage, beside.options(&stage));
    let preview = fine.plan(&spec(&stage, "ours.example"), &DeployOptions::default()).await.unwrap();
    let account = format!("cluster {} in us-east-1 of account 123456789012", stage.name);
    assert!(preview.to_string().contains(&account) && preview.warnings.0.is_empty(), "{preview}");

    let taken = fine.plan(&spec(&stage, "theirs.example"), &DeployOptions::default()).await.unwrap_err();
    assert_eq!((taken.kind(), paths(&taken)), (ErrorKind::InvalidInput, vec!["services.web.routes[0]"]), "{taken}");

    let mut wrong = beside.options(&stage).with_log_group("/deployer/nothing").with_subnets(Vec::<String>::new());
    wrong.cluster = "no-such-cluster".to_owned();
    wrong.listener = Some(stage.listener.replace(":listener/", ":listener/gone-"));
    let error = deployer(&stage, wrong).plan(&spec(&stage, "ours.example"), &DeployOptions::default()).await;
    let error = error.unwrap_err();
    let expected = ["environment.cluster", "environment.listener", "environment.subnets", "environment.log-group"];
    assert_eq!(paths(&error), expected, "{error}");

    // Published ports without a load balancer for them, and with one that is not there.
    let mut publishing = spec(&stage, "ours.example");
    for service in publishing.services.values_mut() {
        service.workload.ports.push(Port::published(8080, 5432));
    }
    let error = fine.plan(&publishing, &DeployOptions::default()).await.unwrap_err();
    assert_eq!(paths(&error), ["services.web.ports[0]"], "{error}");
    let gone = format!("{}0", stage.network);
    let wrong = beside.options(&stage).with_network_balancer(gone);
    let error = deployer(&stage, wrong).plan(&publishing, &DeployOptions::default()).await.unwrap_err();
    assert_eq!(paths(&error), ["environment.network-balancer"], "{error}");
    let right = beside.options(&stage).with_network_balancer(&stage.network);
    let preview = deployer(&stage, right).plan(&publishing, &DeployOptions::default()).await.unwrap();
    assert!(preview.warnings.0.is_empty(), "{preview}");

    // Of another account, and with what the cluster does not have.
    let provider = CapacityProvider { name: "FARGATE_SPOT".to_owned(), weight: 1, base: 0 };
    let mut wrong = beside.options(&stage).with_capacity(Capacity::Providers(vec![provider]));
    wrong.execution_role = "arn:aws:iam::210987654321:role/execution".to_owned();
    let error = deployer(&stage, wrong).plan(&spec(&stage, "ours.example"), &DeployOptions::default()).await;
    let found = error.unwrap_err();
    let role = "environment.execution-role";
    assert_eq!(paths(&found), [role, "environment.capacity", role], "{found}");
    beside.clear().await;
    stage.clear().await.unwrap();
}

#[tokio::test]
async fn roles_subnets_and_security_groups_are_looked_at() {
    let stage = Stage::new(&name()).await.unwrap();
    let beside = Beside::new(&stage.name).await;
    let spec = spec(&stage, "ours.example");
    let plan = async |options: AwsOptions| deployer(&stage, options).plan(&spec, &DeployOptions::default()).await;
    let fine = || beside.options(&stage);

    // Nowhere, of another network, and where the load balancer is not.
    let error = plan(fine().with_subnets(["subnet-00000001", "subnet-0"])).await.unwrap_err();
    assert_eq!(paths(&error), ["environment.subnets"], "{error}");
    let error = plan(fine().with_subnets(["subnet-00000003"])).await.unwrap_err();
    assert!(paths(&error) == ["environment.subnets"] && error.report().to_string().contains("us-east-1c"), "{error}");
    let some = plan(fine().with_subnets(["subnet-00000001", "subnet-00000003"])).await.unwrap();
    assert!(some.to_string().contains("instances in subnet-00000003 get no traffic"), "{some}");
    for group in ["sg-0", beside.elsewhere.as_str()] {
        let error = plan(fine().with_security_groups([group])).await.unwrap_err();
        assert_eq!(paths(&error), ["environment.security-groups"], "{error}");
    }

    // Nobody has the role, or it is not for tasks.
    let mut wrong = fine().with_task_role(&beside.other_role);
    wrong.execution_role.push_str("-gone");
    let error = plan(wrong).await.unwrap_err();
    assert_eq!(paths(&error), ["environment.execution-role", "environment.task-role"], "{error}");
    let report = error.report().to_string();
    assert!(report.contains("there is no role") && report.contains("ecs-tasks.amazonaws.com"), "{report}");

    // The load balancer would ask in vain.
    let preview = plan(fine().with_security_groups([&beside.closed])).await.unwrap();
    let warnings = preview.warnings.0;
    assert!(warnings.len() == 1 && warnings[0].path == "services.web.routes", "{warnings:?}");
    assert!(warnings[0].message.ends_with("reach port 8080 of instances"), "{warnings:?}");
    beside.clear().await;
    stage.clear().await.unwrap();
}

//! On what actions are allowed.

use serde_json::{Value, json};

use super::{Account, Deploying};
use crate::environment::EnvironmentSpec;

/// On what an action is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything: IAM cannot allow the action on less.
    Everything,
    /// Everything that belongs to the cluster, by a condition, because the action names no resource.
    InCluster,
    Cluster,
    Services,
    /// The cluster, and the tasks in it: an action is for one of these kinds.
    ClusterAndTasks,
    /// Task definitions of every family: they begin with applications' names.
    Definitions,
    /// Task definitions that are run in the cluster.
    RunInCluster,
    /// What ECS makes, while it is made: by a condition, because whoever may make it may give it tags.
    TaggedWhenMade,
    /// The roles of tasks, to be handed to ECS.
    HandedRoles,
    /// The roles of tasks, to be looked at.
    TaskRoles,
    /// The listener and the Network Load Balancer, where there are such: an action is for one of these kinds.
    Inlets,
    /// The listener's rules and the Network Load Balancer's listeners: the same.
    Ways,
    TargetGroups,
    LogGroup,
    /// What is in the log group.
    LogEvents,
    /// CloudWatch's alarms and metrics, where gates ask for them: IAM cannot tell them apart.
    Metrics,
    /// Everything that Application Auto Scaling tells, where services scale.
    Scaling,
    /// Scalable targets of ECS.
    ScalableTargets,
    /// Services, to say whether they scale.
    ScaledServices,
    /// The alarms of scaling policies.
    ScalingAlarms,
    /// AWS's own role for scaling ECS services.
    ScalingRole,
    /// Listing log groups is allowed on all or none.
    LogGroups,
    Table,
    /// The secrets of Secrets Manager that releases name.
    Secrets,
    /// The parameters of Systems Manager that releases name.
    Parameters,
    Repositories,
    /// Listing repositories is allowed on all or none.
    AllRepositories,
    Stack,
    Balancers,
    /// The environment's roles.
    Roles,
    /// The environment's role of machines, to be handed to EC2.
    MachineRole,
    Profiles,
    ServiceLinkedRoles,
    /// Everything of EC2 in the account and region.
    Network,
    /// The same, and images of others.
    Machines,
    MachineGroup,
    CapacityProviders,
    /// The public parameters that tell the images for ECS.
    MachineImages,
    Namespaces,
    HostedZones,
    /// The namespace in which services have names, and what is in it.
    Registries,
    /// Listing what is in namespaces is allowed on all or none.
    Names,
}

/// What is known of the resources.
pub(super) struct Facts {
    account: Account,
    name: String,
    cluster: String,
    /// The roles that are handed to tasks.
    roles: Vec<String>,
    listener: Option<String>,
    network_balancer: Option<String>,
    /// Whether an environment has one.
    publishes: bool,
    log_group: Option<String>,
    /// The namespace in which services have names, by ARN.
    namespace: Option<String>,
    table: Option<String>,
    secrets: Vec<String>,
    repositories: String,
    /// Whether gates ask CloudWatch, and whether services scale.
    gates: bool,
    scaling: bool,
}

impl Facts {
    pub(super) fn deploying(program: &Deploying<'_>) -> Self {
        let options = program.options;
        Self {
            account: program.account.clone(),
            name: String::new(),
            cluster: options.cluster_name().to_owned(),
            roles: std::iter::once(&options.execution_role).chain(&options.task_role).cloned().collect(),
            listener: options.listener.clone(),
            network_balancer: options.network_balancer.clone(),
            publishes: false,
            log_group: options.log_group.clone(),
            namespace: options.namespace.as_ref().map(|namespace| namespace.arn.clone()),
            table: program.table.map(str::to_owned),
            secrets: program.secrets.to_vec(),
            repositories: program.repositories.to_owned(),
            gates: program.gates,
            scaling: program.scaling,
        }
    }

    pub(super) fn environment(spec: &EnvironmentSpec, account: &Account) -> Self {
        Self {
            account: account.clone(),
            name: spec.name.clone(),
            cluster: spec.name.clone(),
            roles: Vec::new(),
            listener: None,
            network_balancer: None,
            publishes: !spec.published_ports.is_empty(),
            log_group: Some(spec.log_group()),
            namespace: None,
            table: Some(spec.name.clone()),
            secrets: Vec::new(),
            repositories: String::new(),
            gates: false,
            scaling: false,
        }
    }

    /// The ARN of something in the account and region.
    fn arn(&self, service: &str, what: &str) -> String {
        let Account { id, region, partition } = &self.account;
        format!("arn:{partition}:{service}:{region}:{id}:{what}")
    }

    /// The ARN of something of IAM, which has no regions.
    fn iam(&self, what: &str) -> String {
        let Account { id, partition, .. } = &self.account;
        format!("arn:{partition}:iam::{id}:{what}")
    }

    /// The ARNs of a service's secrets; none if there are none.
    fn secrets_of(&self, service: &str) -> Option<Value> {
        let of_service: Vec<&String> = self.secrets.iter().filter(|arn| arn.contains(service)).collect();
        (!of_service.is_empty()).then(|| json!(of_service))
    }

    /// The resources of a scope; none if there are none of the kind.
    pub(super) fn resources(&self, scope: Scope) -> Option<Value> {
        let Self { name, cluster, .. } = self;
        let Account { region, partition, .. } = &self.account;
        let ecs = |what: &str| self.arn("ecs", what);
        let elb = |what: &str| self.arn("elasticloadbalancing", what);
        // Only with a listener or a Network Load Balancer is anything of a load balancer used.
        let (listener, network) = (self.listener.as_ref(), self.network_balancer.as_ref());
        let rules = |listener: &String| format!("{}/*", listener.replacen(":listener/", ":listener-rule/", 1));
        let ports = |balancer: &String| format!("{}/*", balancer.replacen(":loadbalancer/", ":listener/", 1));
        let some = |arns: Vec<String>| (!arns.is_empty()).then(|| json!(arns));
        let groups = elb("targetgroup/*");
        let log_group = || Some(self.arn("logs", &format!("log-group:{}", self.log_group.as_ref()?)));
        Some(match scope {
            Scope::Everything | Scope::InCluster | Scope::TaggedWhenMade => json!("*"),
            Scope::Cluster => json!(ecs(&format!("cluster/{cluster}"))),
            Scope::Services => json!(ecs(&format!("service/{cluster}/*"))),
            Scope::ClusterAndTasks => json!([ecs(&format!("cluster/{cluster}")), ecs(&format!("task/{cluster}/*"))]),
            Scope::Definitions | Scope::RunInCluster => json!(ecs("task-definition/*")),
            Scope::HandedRoles | Scope::TaskRoles => json!(self.roles),
            Scope::Inlets => some(listener.into_iter().chain(network).cloned().collect())?,
            Scope::Ways => some(listener.map(rules).into_iter().chain(network.map(ports)).collect())?,
            Scope::TargetGroups => listener.or(network).map(|_| json!(groups))?,
            Scope::LogGroup => json!([log_group()?, format!("{}:*", log_group()?)]),
            Scope::LogEvents => json!(format!("{}:*", log_group()?)),
            Scope::Metrics => self.gates.then(|| json!("*"))?,
            Scope::Scaling => self.scaling.then(|| json!("*"))?,
            Scope::ScalableTargets => {
                let all = self.arn("application-autoscaling", "scalable-target/*");
                self.scaling.then(|| json!(all))?
            }
            Scope::ScaledServices => {
                let all = ecs(&format!("service/{cluster}/*"));
                self.scaling.then(|| json!(all))?
            }
            Scope::ScalingAlarms => {
                let all = self.arn("cloudwatch", &format!("alarm:TargetTracking-service/{cluster}/*"));
                self.scaling.then(|| json!(all))?
            }
            Scope::ScalingRole => {
                let path = "role/aws-service-role/ecs.application-autoscaling.amazonaws.com/*";
                self.scaling.then(|| json!(self.iam(path)))?
            }
            Scope::LogGroups => {
                self.log_group.as_ref()?;
                json!(self.arn("logs", "log-group:*"))
            }
            Scope::Table => json!(self.arn("dynamodb", &format!("table/{}", self.table.as_ref()?))),
            Scope::Secrets => self.secrets_of(":secretsmanager:")?,
            Scope::Parameters => self.secrets_of(":ssm:")?,
            Scope::Repositories => json!(self.arn("ecr", &format!("repository/{}*", self.repositories))),
            Scope::AllRepositories => json!(self.arn("ecr", "repository/*")),
            Scope::Stack => json!([
                self.arn("cloudformation", &format!("stack/{name}/*")),
                self.arn("cloudformation", "changeSet/deployer-*"),
            ]),
            // CloudFormation gives them names that keep little of the environment's.
            Scope::Balancers => {
                let network = self.publishes.then(|| elb("loadbalancer/net/*"));
                json!([elb("loadbalancer/app/*"), elb("listener/app/*")].into_iter().chain(network).collect::<Vec<_>>())
            }
            Scope::Roles => json!(self.iam(&format!("role/{name}-*"))),
            Scope::MachineRole => json!(self.iam(&format!("role/{name}-MachineRole-*"))),
            Scope::Profiles => json!(self.iam(&format!("instance-profile/{name}-*"))),
            Scope::ServiceLinkedRoles => json!(self.iam("role/aws-service-role/*")),
            Scope::Network => json!(self.arn("ec2", "*")),
            Scope::Machines => {
                json!([self.arn("ec2", "*"), format!("arn:{partition}:ec2:{region}::image/*")])
            }
            Scope::MachineGroup => {
                json!(self.arn("autoscaling", &format!("autoScalingGroup:*:autoScalingGroupName/{name}-*")))
            }
            Scope::CapacityProviders => json!(ecs(&format!("capacity-provider/{name}-*"))),
            Scope::MachineImages => json!(format!("arn:{partition}:ssm:{region}::parameter/aws/service/ecs/*")),
            Scope::Namespaces => json!(self.arn("servicediscovery", "namespace/*")),
            Scope::Registries => json!([self.namespace.as_ref()?, self.arn("servicediscovery", "service/*")]),
            Scope::Names => self.namespace.as_ref().map(|_| json!("*"))?,
            Scope::HostedZones => json!(format!("arn:{partition}:route53:::hostedzone/*")),
        })
    }

    /// What else has to hold.
    pub(super) fn condition(&self, scope: Scope) -> Option<Value> {
        let cluster = || self.arn("ecs", &format!("cluster/{}", self.cluster));
        match scope {
            Scope::InCluster | Scope::RunInCluster => Some(json!({"ArnEquals": {"ecs:cluster": cluster()}})),
            Scope::TaggedWhenMade => {
                let calls = ["CreateService", "RegisterTaskDefinition", "RunTask"];
                Some(json!({"StringEquals": {"ecs:CreateAction": calls}}))
            }
            Scope::HandedRoles => Some(json!({"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}})),
            Scope::MachineRole => Some(json!({"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}})),
            Scope::ScalableTargets => {
                Some(json!({"StringEquals": {"application-autoscaling:service-namespace": "ecs"}}))
            }
            Scope::ScalingRole => {
                let service = "ecs.application-autoscaling.amazonaws.com";
                Some(json!({"StringEquals": {"iam:AWSServiceName": service}}))
            }
            Scope::ServiceLinkedRoles => {
                let services = ["autoscaling.amazonaws.com", "ecs.amazonaws.com", "elasticloadbalancing.amazonaws.com"];
                Some(json!({"StringEquals": {"iam:AWSServiceName": services}}))
            }
            _ => None,
        }
    }
}

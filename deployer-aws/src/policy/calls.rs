//! What this crate calls, and what that takes.
//!
//! `tests/it/policies.rs` holds these tables against the sources. Which action can be allowed on which resources:
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html>.

use super::Operation;
use super::scope::Scope;

const fn call(
    service: &'static str,
    method: &'static str,
    actions: &'static [&'static str],
    scope: Scope,
    why: &'static str,
) -> Operation {
    Operation { service, method, actions, why, scope }
}

/// The SDKs' names.
const DYNAMO: &str = "dynamodb";
const ECR: &str = "ecr";
const ECS: &str = "ecs";
const ELB: &str = "elasticloadbalancingv2";
const LOGS: &str = "cloudwatchlogs";
const AUTOSCALING: &str = "applicationautoscaling";
const CLOUDWATCH: &str = "cloudwatch";
const SECRETS: &str = "secretsmanager";
const SSM: &str = "ssm";
const CFN: &str = "cloudformation";
const CLOUDCONTROL: &str = "cloudcontrol";
const CLOUDMAP: &str = "servicediscovery";

/// What is called for deployments.
pub(super) const DEPLOYING: [Operation; 70] = [
    call(
        AUTOSCALING,
        "deregister_scalable_target",
        &["application-autoscaling:DeregisterScalableTarget"],
        Scope::ScalableTargets,
        "slots that are to be left alone",
    ),
    call(
        AUTOSCALING,
        "describe_scalable_targets",
        &["application-autoscaling:DescribeScalableTargets"],
        Scope::Scaling,
        "bounds that a schedule has changed",
    ),
    call(
        AUTOSCALING,
        "put_scaling_policy",
        &["application-autoscaling:PutScalingPolicy"],
        Scope::ScalableTargets,
        "what scaling aims at",
    ),
    call(
        AUTOSCALING,
        "put_scheduled_action",
        &["application-autoscaling:PutScheduledAction"],
        Scope::ScalableTargets,
        "when bounds change",
    ),
    call(
        AUTOSCALING,
        "register_scalable_target",
        &["application-autoscaling:RegisterScalableTarget"],
        Scope::ScalableTargets,
        "the slot that serves, with its bounds",
    ),
    call(
        CLOUDCONTROL,
        "get_resource",
        &["cloudformation:GetResource"],
        Scope::Everything,
        "preflight: roles, subnets and security groups",
    ),
    call(CLOUDWATCH, "describe_alarms", &["cloudwatch:DescribeAlarms"], Scope::Metrics, "alarms as gates"),
    call(CLOUDWATCH, "get_metric_data", &["cloudwatch:GetMetricData"], Scope::Metrics, "counters as gates"),
    call(
        CLOUDMAP,
        "create_service",
        &["servicediscovery:CreateService", "servicediscovery:TagResource"],
        Scope::Registries,
        "a service's name",
    ),
    call(CLOUDMAP, "delete_service", &["servicediscovery:DeleteService"], Scope::Registries, "names that are gone"),
    call(CLOUDMAP, "get_namespace", &["servicediscovery:GetNamespace"], Scope::Registries, "preflight: the namespace"),
    call(CLOUDMAP, "list_services", &["servicediscovery:ListServices"], Scope::Names, "whose names there are"),
    call(
        DYNAMO,
        "batch_write_item",
        &["dynamodb:BatchWriteItem", "dynamodb:DeleteItem", "dynamodb:PutItem"],
        Scope::Table,
        "parts of long releases and journals, and the removal of old ones",
    ),
    call(
        DYNAMO,
        "create_table",
        &["dynamodb:CreateTable", "dynamodb:TagResource"],
        Scope::Table,
        "the table, unless an environment has it",
    ),
    call(DYNAMO, "get_item", &["dynamodb:GetItem"], Scope::Table, "leases, releases, heads of journals"),
    call(DYNAMO, "query", &["dynamodb:Query"], Scope::Table, "lists of releases, deployments and entries"),
    call(
        DYNAMO,
        "transact_write_items",
        &["dynamodb:ConditionCheckItem", "dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:UpdateItem"],
        Scope::Table,
        "whatever is written under a lease",
    ),
    call(
        DYNAMO,
        "update_continuous_backups",
        &["dynamodb:DescribeContinuousBackups", "dynamodb:UpdateContinuousBackups"],
        Scope::Table,
        "point-in-time recovery of a new table",
    ),
    call(DYNAMO, "update_item", &["dynamodb:UpdateItem"], Scope::Table, "leases and signals"),
    call(DYNAMO, "wait_until_table_exists", &["dynamodb:DescribeTable"], Scope::Table, "whether a new table is there"),
    call(ECR, "batch_delete_image", &["ecr:BatchDeleteImage"], Scope::Repositories, "images of no release"),
    call(ECR, "batch_get_image", &["ecr:BatchGetImage"], Scope::Repositories, "the digest that a tag names"),
    call(
        ECR,
        "create_repository",
        &["ecr:CreateRepository", "ecr:TagResource"],
        Scope::Repositories,
        "a repository for each service",
    ),
    call(
        ECR,
        "describe_image_scan_findings",
        &["ecr:DescribeImageScanFindings"],
        Scope::Repositories,
        "what was found in an image",
    ),
    call(ECR, "describe_repositories", &["ecr:DescribeRepositories"], Scope::AllRepositories, "where images are"),
    call(ECR, "get_authorization_token", &["ecr:GetAuthorizationToken"], Scope::Everything, "pushing images"),
    call(
        ECR,
        "get_lifecycle_policy",
        &["ecr:GetLifecyclePolicy"],
        Scope::Repositories,
        "whether a repository was made to its end",
    ),
    call(ECR, "list_images", &["ecr:ListImages"], Scope::Repositories, "images of no release"),
    call(ECR, "put_image", &["ecr:PutImage"], Scope::Repositories, "further tags"),
    call(ECR, "put_lifecycle_policy", &["ecr:PutLifecyclePolicy"], Scope::Repositories, "images without a tag"),
    call(ECS, "create_service", &["ecs:CreateService"], Scope::Services, "a slot for a revision"),
    call(ECS, "delete_service", &["ecs:DeleteService"], Scope::Services, "slots in which nothing runs"),
    call(ECS, "describe_services", &["ecs:DescribeServices"], Scope::Services, "what runs"),
    call(
        ECS,
        "deregister_task_definition",
        &["ecs:DeregisterTaskDefinition"],
        Scope::Everything,
        "revisions that are pruned",
    ),
    call(
        ECS,
        "describe_clusters",
        &["ecs:DescribeClusters"],
        Scope::ClusterAndTasks,
        "preflight: the cluster and its capacity",
    ),
    call(
        ECS,
        "describe_task_definition",
        &["ecs:DescribeTaskDefinition"],
        Scope::Everything,
        "whether a revision was registered before",
    ),
    call(ECS, "describe_tasks", &["ecs:DescribeTasks"], Scope::ClusterAndTasks, "instances and how they ended"),
    call(ECS, "list_services", &["ecs:ListServices"], Scope::InCluster, "the slots of an application"),
    call(
        ECS,
        "list_task_definition_families",
        &["ecs:ListTaskDefinitionFamilies"],
        Scope::Everything,
        "prune: the revisions that were registered",
    ),
    call(ECS, "list_tasks", &["ecs:ListTasks"], Scope::InCluster, "the instances of a slot"),
    call(ECS, "register_task_definition", &["ecs:RegisterTaskDefinition"], Scope::Definitions, "a revision"),
    call(ECS, "run_task", &["ecs:RunTask"], Scope::RunInCluster, "one-off tasks, such as migrations"),
    call(ECS, "stop_task", &["ecs:StopTask"], Scope::ClusterAndTasks, "one-off tasks that were given up"),
    call(ECS, "tag_resource", &["ecs:TagResource"], Scope::ScaledServices, "which slots are scaled"),
    call(ECS, "untag_resource", &["ecs:UntagResource"], Scope::ScaledServices, "which slots are scaled"),
    call(ECS, "update_service", &["ecs:UpdateService"], Scope::Services, "how many instances run, and of what"),
    call(ELB, "add_tags", &["elasticloadbalancing:AddTags"], Scope::TargetGroups, "to whom target groups belong"),
    call(ELB, "create_listener", &["elasticloadbalancing:CreateListener"], Scope::Inlets, "a new published port"),
    call(ELB, "create_rule", &["elasticloadbalancing:CreateRule"], Scope::Inlets, "a new route"),
    call(
        ELB,
        "create_target_group",
        &["elasticloadbalancing:CreateTargetGroup"],
        Scope::TargetGroups,
        "a pool for a slot",
    ),
    call(
        ELB,
        "delete_listener",
        &["elasticloadbalancing:DeleteListener"],
        Scope::Ways,
        "a published port that is gone",
    ),
    call(ELB, "delete_rule", &["elasticloadbalancing:DeleteRule"], Scope::Ways, "a route that is gone"),
    call(
        ELB,
        "delete_target_group",
        &["elasticloadbalancing:DeleteTargetGroup"],
        Scope::TargetGroups,
        "the pool of a slot that is gone",
    ),
    call(
        ELB,
        "describe_account_limits",
        &["elasticloadbalancing:DescribeAccountLimits"],
        Scope::Everything,
        "preflight: quotas",
    ),
    call(
        ELB,
        "describe_listeners",
        &["elasticloadbalancing:DescribeListeners"],
        Scope::Everything,
        "published ports; preflight: the listener",
    ),
    call(
        ELB,
        "describe_load_balancers",
        &["elasticloadbalancing:DescribeLoadBalancers"],
        Scope::Everything,
        "preflight: the load balancer",
    ),
    call(ELB, "describe_rules", &["elasticloadbalancing:DescribeRules"], Scope::Everything, "routes and weights"),
    call(ELB, "describe_tags", &["elasticloadbalancing:DescribeTags"], Scope::Everything, "whose they are"),
    call(
        ELB,
        "describe_target_groups",
        &["elasticloadbalancing:DescribeTargetGroups"],
        Scope::Everything,
        "the pools of an application",
    ),
    call(
        ELB,
        "describe_target_health",
        &["elasticloadbalancing:DescribeTargetHealth"],
        Scope::Everything,
        "who is ready and who still drains",
    ),
    call(ELB, "modify_listener", &["elasticloadbalancing:ModifyListener"], Scope::Ways, "weights of published ports"),
    call(ELB, "modify_rule", &["elasticloadbalancing:ModifyRule"], Scope::Ways, "weights: moving the traffic"),
    call(ELB, "modify_target_group", &["elasticloadbalancing:ModifyTargetGroup"], Scope::TargetGroups, "health checks"),
    call(
        ELB,
        "modify_target_group_attributes",
        &["elasticloadbalancing:ModifyTargetGroupAttributes"],
        Scope::TargetGroups,
        "how long targets drain",
    ),
    call(LOGS, "describe_log_groups", &["logs:DescribeLogGroups"], Scope::LogGroups, "preflight: the log group"),
    call(LOGS, "filter_log_events", &["logs:FilterLogEvents"], Scope::LogEvents, "the last lines of what failed"),
    call(
        SECRETS,
        "describe_secret",
        &["secretsmanager:DescribeSecret"],
        Scope::Secrets,
        "the version of a secret that a release pins",
    ),
    call(
        SECRETS,
        "get_secret_value",
        &["secretsmanager:GetSecretValue"],
        Scope::Secrets,
        "secrets with which images are built",
    ),
    call(
        SECRETS,
        "list_secret_version_ids",
        &["secretsmanager:ListSecretVersionIds"],
        Scope::Secrets,
        "whether a secret has a version",
    ),
    call(
        SSM,
        "get_parameter",
        &["ssm:GetParameter"],
        Scope::Parameters,
        "the version of a parameter that a release pins",
    ),
];

/// What else these take, though no call has its name.
pub(super) const BEHIND_DEPLOYING: [(&[&str], Scope, &str); 7] = [
    (
        &["ec2:DescribeNetworkAcls", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets"],
        Scope::Everything,
        "Cloud Control looks at subnets and security groups with the program's rights",
    ),
    (
        &["iam:GetRole", "iam:GetRolePolicy", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies"],
        Scope::TaskRoles,
        "and so at the two roles",
    ),
    (&["iam:PassRole"], Scope::HandedRoles, "task definitions name the two roles, and no others may be handed on"),
    (
        &["cloudwatch:DeleteAlarms", "cloudwatch:DescribeAlarms", "cloudwatch:PutMetricAlarm"],
        Scope::ScalingAlarms,
        "a scaling policy makes alarms of its own, in the name of whoever makes it",
    ),
    (
        &["iam:CreateServiceLinkedRole"],
        Scope::ScalingRole,
        "the first scalable target of an account makes AWS's own role",
    ),
    (&["ecs:TagResource"], Scope::TaggedWhenMade, "what is made carries tags by which it is found again"),
    (
        &[
            "ecr:BatchCheckLayerAvailability",
            "ecr:BatchGetImage",
            "ecr:CompleteLayerUpload",
            "ecr:GetDownloadUrlForLayer",
            "ecr:InitiateLayerUpload",
            "ecr:PutImage",
            "ecr:UploadLayerPart",
        ],
        Scope::Repositories,
        "the Docker Engine pushes images with the program's token",
    ),
];

/// What is called for environments.
pub(super) const ENVIRONMENT: [Operation; 11] = [
    call(
        CFN,
        "continue_update_rollback",
        &["cloudformation:ContinueUpdateRollback"],
        Scope::Stack,
        "what was before an update that failed",
    ),
    call(
        CFN,
        "create_change_set",
        &["cloudformation:CreateChangeSet", "cloudformation:TagResource"],
        Scope::Stack,
        "what would change",
    ),
    call(CFN, "delete_change_set", &["cloudformation:DeleteChangeSet"], Scope::Stack, "plans"),
    call(CFN, "delete_stack", &["cloudformation:DeleteStack"], Scope::Stack, "deletion, and failed creations"),
    call(CFN, "describe_change_set", &["cloudformation:DescribeChangeSet"], Scope::Stack, "what would change"),
    call(
        CFN,
        "describe_stack_drift_detection_status",
        &["cloudformation:DescribeStackDriftDetectionStatus"],
        Scope::Everything,
        "drift",
    ),
    call(CFN, "describe_stack_events", &["cloudformation:DescribeStackEvents"], Scope::Stack, "progress"),
    call(CFN, "describe_stack_resource_drifts", &["cloudformation:DescribeStackResourceDrifts"], Scope::Stack, "drift"),
    call(CFN, "describe_stacks", &["cloudformation:DescribeStacks"], Scope::Stack, "where it stands, and its outputs"),
    call(
        CFN,
        "detect_stack_drift",
        &["cloudformation:DetectStackDrift", "cloudformation:DetectStackResourceDrift"],
        Scope::Stack,
        "drift",
    ),
    call(CFN, "execute_change_set", &["cloudformation:ExecuteChangeSet"], Scope::Stack, "making and changing it"),
];

/// What else these take, though no call has its name.
pub(super) const BEHIND_ENVIRONMENT: [(&[&str], Scope, &str); 1] = [(
    &["iam:CreateServiceLinkedRole"],
    Scope::ServiceLinkedRoles,
    "the first cluster and load balancer of an account make AWS's own roles",
)];

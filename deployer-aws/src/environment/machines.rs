//! EC2 machines of an environment in its template: as many as instances need.

use serde_json::{Value, json};

use super::network::Place;
use super::template::{Writer, allow, attribute, reference, substituted, trust};
use crate::options::Architecture;

/// The capacity provider.
pub(super) const PROVIDER: &str = "Machines";

/// What machines, and how many.
pub(super) struct Limits<'a> {
    pub(super) instance_type: &'a str,
    pub(super) least: u32,
    pub(super) most: u32,
}

pub(super) fn write(writer: &mut Writer<'_>, place: &Place, limits: &Limits<'_>) {
    role(writer);
    template(writer, limits.instance_type);
    group(writer, place, limits);
    let provider = json!({
        "AutoScalingGroupProvider": {
            "AutoScalingGroupArn": reference("MachineGroup"),
            "ManagedScaling": {"Status": "ENABLED", "TargetCapacity": 100},
            // Instances are moved away before a machine goes. A protection of machines on top of that would keep the
            // environment from being deleted.
            "ManagedDraining": "ENABLED",
            "ManagedTerminationProtection": "DISABLED",
        },
    });
    writer.add_tagged(PROVIDER, "AWS::ECS::CapacityProvider", provider);
    writer.add(
        "MachineAssociation",
        "AWS::ECS::ClusterCapacityProviderAssociations",
        json!({
            "Cluster": reference("Cluster"),
            "CapacityProviders": [reference(PROVIDER)],
            "DefaultCapacityProviderStrategy": [{"CapacityProvider": reference(PROVIDER), "Weight": 1}],
        }),
    );
}

/// What the ECS agent on a machine does.
fn role(writer: &mut Writer<'_>) {
    let machines =
        substituted("arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:container-instance/${Cluster}/*");
    let mut of_cluster = allow(
        "Agent",
        &[
            "ecs:Poll",
            "ecs:StartTelemetrySession",
            "ecs:SubmitAttachmentStateChanges",
            "ecs:SubmitContainerStateChange",
            "ecs:SubmitTaskStateChange",
            "ecs:UpdateContainerInstancesState",
        ],
        json!([machines, attribute("Cluster", "Arn")]),
    );
    of_cluster["Condition"] = json!({"ArnEquals": {"ecs:cluster": attribute("Cluster", "Arn")}});
    let join = ["ecs:DeregisterContainerInstance", "ecs:RegisterContainerInstance"];
    let statements = vec![
        allow("Join", &join, attribute("Cluster", "Arn")),
        of_cluster,
        allow("Find", &["ecs:DiscoverPollEndpoint"], "*".into()),
    ];
    writer.role("MachineRole", "The ECS agent of machines", trust("ec2.amazonaws.com"), statements);
    writer.add("MachineProfile", "AWS::IAM::InstanceProfile", json!({"Roles": [reference("MachineRole")]}));
}

fn template(writer: &mut Writer<'_>, instance_type: &str) {
    let image = match writer.spec.architecture {
        Architecture::X86_64 => "resolve:ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id",
        Architecture::Arm64 => {
            "resolve:ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/arm64/recommended/image_id"
        }
    };
    // Instances must not take on the role of the machine that they run on.
    let start = "#!/bin/sh\ncat >>/etc/ecs/ecs.config <<EOF\nECS_CLUSTER=${Cluster}\nECS_AWSVPC_BLOCK_IMDS=true\nEOF\n";
    let tags = writer.tags("Machine");
    let of = |kind: &str| json!({"ResourceType": kind, "Tags": tags});
    writer.add(
        "MachineTemplate",
        "AWS::EC2::LaunchTemplate",
        json!({
            "LaunchTemplateData": {
                "ImageId": image,
                "InstanceType": instance_type,
                "IamInstanceProfile": {"Arn": attribute("MachineProfile", "Arn")},
                "SecurityGroupIds": [attribute("InstanceSecurityGroup", "GroupId")],
                "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
                "UserData": {"Fn::Base64": substituted(start)},
                "TagSpecifications": [of("instance"), of("volume")],
            },
            "TagSpecifications": [of("launch-template")],
        }),
    );
}

fn group(writer: &mut Writer<'_>, place: &Place, limits: &Limits<'_>) {
    let Value::Array(mut tags) = writer.tags("Machine") else { return };
    for tag in &mut tags {
        tag["PropagateAtLaunch"] = true.into();
    }
    // The mark by which ECS knows the groups that it scales; without it the stack differs from what is there.
    tags.push(json!({"Key": "AmazonECSManaged", "Value": "true", "PropagateAtLaunch": true}));
    writer.add(
        "MachineGroup",
        "AWS::AutoScaling::AutoScalingGroup",
        json!({
            "VPCZoneIdentifier": place.instance_subnets,
            "MinSize": limits.least.to_string(),
            "MaxSize": limits.most.to_string(),
            "LaunchTemplate": {
                "LaunchTemplateId": reference("MachineTemplate"),
                "Version": attribute("MachineTemplate", "LatestVersionNumber"),
            },
            "Tags": tags,
        }),
    );
    if !place.before_instances.is_empty() {
        writer.set("MachineGroup", "DependsOn", json!(place.before_instances));
    }
}

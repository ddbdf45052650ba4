//! What CloudFormation needs to make, change, read and delete each kind of resource, with the permissions of whoever asks
//! it to. From the permissions in the resource types' schemas, without what the templates of this crate do not use.

use super::scope::Scope;

/// What one kind of resource needs.
type Needs = &'static [(&'static [&'static str], Scope)];

/// What a kind of resource needs, if it is known.
pub(super) fn needs(kind: &str) -> Option<impl Iterator<Item = (&'static [&'static str], Scope)>> {
    let (_, needs) = KINDS.iter().find(|(name, _)| *name == kind)?;
    Some(needs.iter().copied())
}

const TAGS: (&[&str], Scope) = (&["ec2:CreateTags", "ec2:DeleteTags"], Scope::Network);

const KINDS: [(&str, Needs); 25] = [
    (
        "AWS::AutoScaling::AutoScalingGroup",
        &[
            (
                &[
                    "autoscaling:CreateAutoScalingGroup",
                    "autoscaling:CreateOrUpdateTags",
                    "autoscaling:DeleteAutoScalingGroup",
                    "autoscaling:DeleteTags",
                    "autoscaling:UpdateAutoScalingGroup",
                ],
                Scope::MachineGroup,
            ),
            (
                &[
                    "autoscaling:DescribeAutoScalingGroups",
                    "autoscaling:DescribeLifecycleHooks",
                    "autoscaling:DescribeNotificationConfigurations",
                    "autoscaling:DescribeScalingActivities",
                    "autoscaling:DescribeTags",
                    "ec2:DescribeInstances",
                    "ec2:DescribeLaunchTemplateVersions",
                    "ec2:DescribeSubnets",
                ],
                Scope::Everything,
            ),
            (&["ec2:RunInstances"], Scope::Machines),
            (&["iam:PassRole"], Scope::MachineRole),
        ],
    ),
    (
        "AWS::DynamoDB::Table",
        &[(
            &[
                "dynamodb:CreateTable",
                "dynamodb:DescribeContinuousBackups",
                "dynamodb:DescribeContributorInsights",
                "dynamodb:DescribeKinesisStreamingDestination",
                "dynamodb:DescribeTable",
                "dynamodb:DescribeTimeToLive",
                "dynamodb:GetResourcePolicy",
                "dynamodb:ListTagsOfResource",
                "dynamodb:TagResource",
                "dynamodb:UntagResource",
                "dynamodb:UpdateContinuousBackups",
                "dynamodb:UpdateTable",
            ],
            Scope::Table,
        )],
    ),
    (
        "AWS::EC2::EIP",
        &[
            (&["ec2:AllocateAddress", "ec2:ReleaseAddress"], Scope::Network),
            (&["ec2:DescribeAddresses"], Scope::Everything),
            TAGS,
        ],
    ),
    (
        "AWS::EC2::InternetGateway",
        &[
            (&["ec2:CreateInternetGateway", "ec2:DeleteInternetGateway"], Scope::Network),
            (&["ec2:DescribeInternetGateways"], Scope::Everything),
            TAGS,
        ],
    ),
    (
        "AWS::EC2::LaunchTemplate",
        &[
            (
                &[
                    "ec2:CreateLaunchTemplate",
                    "ec2:CreateLaunchTemplateVersion",
                    "ec2:DeleteLaunchTemplate",
                    "ec2:GetLaunchTemplateData",
                    "ec2:ModifyLaunchTemplate",
                ],
                Scope::Network,
            ),
            (&["ec2:DescribeLaunchTemplateVersions", "ec2:DescribeLaunchTemplates"], Scope::Everything),
            (&["ssm:GetParameters"], Scope::MachineImages),
            TAGS,
        ],
    ),
    (
        "AWS::EC2::NatGateway",
        &[
            (&["ec2:CreateNatGateway", "ec2:DeleteNatGateway"], Scope::Network),
            (&["ec2:DescribeNatGateways"], Scope::Everything),
            TAGS,
        ],
    ),
    (
        "AWS::EC2::Route",
        &[
            (&["ec2:CreateRoute", "ec2:DeleteRoute", "ec2:ReplaceRoute"], Scope::Network),
            (&["ec2:DescribeNetworkInterfaces", "ec2:DescribeRouteTables"], Scope::Everything),
        ],
    ),
    (
        "AWS::EC2::RouteTable",
        &[
            (&["ec2:CreateRouteTable", "ec2:DeleteRouteTable"], Scope::Network),
            (&["ec2:DescribeRouteTables"], Scope::Everything),
            TAGS,
        ],
    ),
    (
        "AWS::EC2::SecurityGroup",
        &[
            (
                &[
                    "ec2:AuthorizeSecurityGroupEgress",
                    "ec2:AuthorizeSecurityGroupIngress",
                    "ec2:CreateSecurityGroup",
                    "ec2:DeleteSecurityGroup",
                    "ec2:RevokeSecurityGroupEgress",
                    "ec2:RevokeSecurityGroupIngress",
                    "ec2:UpdateSecurityGroupRuleDescriptionsIngress",
                ],
                Scope::Network,
            ),
            (&["ec2:DescribeInstances", "ec2:DescribeSecurityGroups"], Scope::Everything),
            TAGS,
        ],
    ),
    (
        "AWS::EC2::SecurityGroupIngress",
        &[
            (
                &[
                    "ec2:AuthorizeSecurityGroupIngress",
                    "ec2:RevokeSecurityGroupIngress",
                    "ec2:UpdateSecurityGroupRuleDescriptionsIngress",
                ],
                Scope::Network,
            ),
            (&["ec2:DescribeSecurityGroupRules", "ec2:DescribeSecurityGroups"], Scope::Everything),
        ],
    ),
    (
        "AWS::EC2::Subnet",
        &[
            (&["ec2:CreateSubnet", "ec2:DeleteSubnet", "ec2:ModifySubnetAttribute"], Scope::Network),
            (&["ec2:DescribeAvailabilityZones", "ec2:DescribeNetworkAcls", "ec2:DescribeSubnets"], Scope::Everything),
            TAGS,
        ],
    ),
    (
        "AWS::EC2::SubnetRouteTableAssociation",
        &[
            (
                &["ec2:AssociateRouteTable", "ec2:DisassociateRouteTable", "ec2:ReplaceRouteTableAssociation"],
                Scope::Network,
            ),
            (&["ec2:DescribeRouteTables", "ec2:DescribeSubnets"], Scope::Everything),
        ],
    ),
    (
        "AWS::EC2::VPC",
        &[
            (&["ec2:CreateVpc", "ec2:DeleteVpc", "ec2:DescribeVpcAttribute", "ec2:ModifyVpcAttribute"], Scope::Network),
            (&["ec2:DescribeNetworkAcls", "ec2:DescribeSecurityGroups", "ec2:DescribeVpcs"], Scope::Everything),
            TAGS,
        ],
    ),
    (
        "AWS::EC2::VPCEndpoint",
        &[
            (&["ec2:CreateVpcEndpoint", "ec2:DeleteVpcEndpoints", "ec2:ModifyVpcEndpoint"], Scope::Network),
            (&["ec2:DescribeVpcEndpoints", "ec2:DescribeVpcs"], Scope::Everything),
            TAGS,
        ],
    ),
    (
        "AWS::EC2::VPCGatewayAttachment",
        &[
            (&["ec2:AttachInternetGateway", "ec2:DetachInternetGateway"], Scope::Network),
            (&["ec2:DescribeInternetGateways", "ec2:DescribeVpnGateways"], Scope::Everything),
        ],
    ),
    (
        "AWS::ECS::CapacityProvider",
        &[
            (
                &[
                    "ecs:CreateCapacityProvider",
                    "ecs:DeleteCapacityProvider",
                    "ecs:DescribeCapacityProviders",
                    "ecs:ListTagsForResource",
                    "ecs:TagResource",
                    "ecs:UntagResource",
                    "ecs:UpdateCapacityProvider",
                ],
                Scope::CapacityProviders,
            ),
            (&["autoscaling:CreateOrUpdateTags"], Scope::MachineGroup),
        ],
    ),
    (
        "AWS::ECS::Cluster",
        &[(
            &[
                "ecs:CreateCluster",
                "ecs:DeleteCluster",
                "ecs:DescribeClusters",
                "ecs:ListTagsForResource",
                "ecs:PutClusterCapacityProviders",
                "ecs:TagResource",
                "ecs:UntagResource",
                "ecs:UpdateCluster",
                "ecs:UpdateClusterSettings",
            ],
            Scope::Cluster,
        )],
    ),
    (
        "AWS::ECS::ClusterCapacityProviderAssociations",
        &[
            (&["ecs:DescribeClusters", "ecs:PutClusterCapacityProviders"], Scope::Cluster),
            (&["ecs:DescribeCapacityProviders"], Scope::CapacityProviders),
        ],
    ),
    (
        "AWS::ElasticLoadBalancingV2::Listener",
        &[
            (
                &[
                    "elasticloadbalancing:AddTags",
                    "elasticloadbalancing:CreateListener",
                    "elasticloadbalancing:DeleteListener",
                    "elasticloadbalancing:ModifyListener",
                    "elasticloadbalancing:ModifyListenerAttributes",
                    "elasticloadbalancing:RemoveTags",
                ],
                Scope::Balancers,
            ),
            (
                &[
                    "elasticloadbalancing:DescribeListenerAttributes",
                    "elasticloadbalancing:DescribeListeners",
                    "elasticloadbalancing:DescribeTags",
                ],
                Scope::Everything,
            ),
        ],
    ),
    (
        "AWS::ElasticLoadBalancingV2::ListenerCertificate",
        &[
            (
                &["elasticloadbalancing:AddListenerCertificates", "elasticloadbalancing:RemoveListenerCertificates"],
                Scope::Balancers,
            ),
            (&["elasticloadbalancing:DescribeListenerCertificates"], Scope::Everything),
        ],
    ),
    (
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        &[
            (
                &[
                    "elasticloadbalancing:AddTags",
                    "elasticloadbalancing:CreateLoadBalancer",
                    "elasticloadbalancing:DeleteLoadBalancer",
                    "elasticloadbalancing:ModifyLoadBalancerAttributes",
                    "elasticloadbalancing:RemoveTags",
                    "elasticloadbalancing:SetSecurityGroups",
                    "elasticloadbalancing:SetSubnets",
                ],
                Scope::Balancers,
            ),
            (
                &[
                    "ec2:DescribeAccountAttributes",
                    "ec2:DescribeInternetGateways",
                    "ec2:DescribeSecurityGroups",
                    "ec2:DescribeSubnets",
                    "ec2:DescribeVpcs",
                    "elasticloadbalancing:DescribeCapacityReservation",
                    "elasticloadbalancing:DescribeLoadBalancerAttributes",
                    "elasticloadbalancing:DescribeLoadBalancers",
                    "elasticloadbalancing:DescribeTags",
                ],
                Scope::Everything,
            ),
        ],
    ),
    (
        "AWS::IAM::InstanceProfile",
        &[
            (
                &[
                    "iam:AddRoleToInstanceProfile",
                    "iam:CreateInstanceProfile",
                    "iam:DeleteInstanceProfile",
                    "iam:GetInstanceProfile",
                    "iam:RemoveRoleFromInstanceProfile",
                ],
                Scope::Profiles,
            ),
            (&["iam:PassRole"], Scope::MachineRole),
        ],
    ),
    (
        "AWS::IAM::Role",
        &[(
            &[
                "iam:CreateRole",
                "iam:DeleteRole",
                "iam:DeleteRolePermissionsBoundary",
                "iam:DeleteRolePolicy",
                "iam:GetRole",
                "iam:GetRolePolicy",
                "iam:ListAttachedRolePolicies",
                "iam:ListRolePolicies",
                "iam:PutRolePermissionsBoundary",
                "iam:PutRolePolicy",
                "iam:TagRole",
                "iam:UntagRole",
                "iam:UpdateAssumeRolePolicy",
                "iam:UpdateRole",
                "iam:UpdateRoleDescription",
            ],
            Scope::Roles,
        )],
    ),
    (
        "AWS::Logs::LogGroup",
        &[
            (
                &[
                    "logs:CreateLogGroup",
                    "logs:DeleteLogGroup",
                    "logs:DeleteRetentionPolicy",
                    "logs:GetDataProtectionPolicy",
                    "logs:ListTagsForResource",
                    "logs:PutRetentionPolicy",
                    "logs:TagResource",
                    "logs:UntagResource",
                ],
                Scope::LogGroup,
            ),
            (
                &["logs:DescribeIndexPolicies", "logs:DescribeLogGroups", "logs:DescribeResourcePolicies"],
                Scope::Everything,
            ),
        ],
    ),
    (
        "AWS::ServiceDiscovery::PrivateDnsNamespace",
        &[
            (
                &[
                    "servicediscovery:DeleteNamespace",
                    "servicediscovery:GetNamespace",
                    "servicediscovery:GetOperation",
                    "servicediscovery:UpdatePrivateDnsNamespace",
                ],
                Scope::Namespaces,
            ),
            (
                &[
                    "route53:AssociateVPCWithHostedZone",
                    "route53:ChangeResourceRecordSets",
                    "route53:DeleteHostedZone",
                    "route53:GetHostedZone",
                ],
                Scope::HostedZones,
            ),
            (
                &[
                    "ec2:DescribeRegions",
                    "ec2:DescribeVpcs",
                    "route53:CreateHostedZone",
                    "route53:ListHostedZonesByName",
                    "servicediscovery:CreatePrivateDnsNamespace",
                    "servicediscovery:ListTagsForResource",
                    "servicediscovery:TagResource",
                    "servicediscovery:UntagResource",
                ],
                Scope::Everything,
            ),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::{EnvironmentNetwork, EnvironmentSpec, Machines, Nat};

    #[test]
    fn nothing_is_written_down_that_no_environment_has() {
        let network = EnvironmentNetwork::New { cidr: "10.0.0.0/16".to_owned(), nat: Nat::PerZone };
        let machines = Machines::Ec2 { instance_type: "m7i.large".to_owned(), least: 0, most: 2 };
        let spec = EnvironmentSpec::new("full")
            .with_network(network)
            .with_machines(machines)
            .with_traffic_between_instances(true)
            .with_certificate("arn:aws:acm:eu-central-1:123456789012:certificate/one")
            .with_certificate("arn:aws:acm:eu-central-1:123456789012:certificate/two");
        let template = spec.template().unwrap().to_string();
        for (kind, _) in KINDS {
            assert!(template.contains(&format!("\"{kind}\"")), "{kind}");
        }
    }
}

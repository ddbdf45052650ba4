//! Templates as they are reviewed, and what must hold of every one.

use std::collections::BTreeSet;

use deployer_aws::{Architecture, EnvironmentNetwork, EnvironmentSpec, Grant, Machines, Nat};
use serde_json::Value;

/// The least, and one with everything that makes a difference.
fn specs() -> Vec<(&'static str, EnvironmentSpec)> {
    let secret = |service: &str, name: &str| format!("arn:aws:{service}:eu-central-1:123456789012:{name}");
    let network = EnvironmentNetwork::New { cidr: "10.20.0.0/20".to_owned(), nat: Nat::PerZone };
    let machines = Machines::Ec2 { instance_type: "m7g.large".to_owned(), least: 1, most: 6 };
    let full = EnvironmentSpec::new("staging")
        .with_network(network)
        .with_certificate(secret("acm", "certificate/one"))
        .with_certificate(secret("acm", "certificate/two"))
        .with_clients(["10.0.0.0/8", "192.168.0.0/16"])
        .with_internal(true)
        .with_published_ports([5432, 6379])
        .with_traffic_between_instances(true)
        .with_log_retention_days(7)
        .with_keep_logs(false)
        .with_machines(machines)
        .with_architecture(Architecture::Arm64)
        .with_container_insights(true)
        .with_repositories("shop/")
        .with_secret(secret("secretsmanager", "secret:shop/*"))
        .with_secret(secret("ssm", "parameter/shop/*"))
        .with_secret_key(secret("kms", "key/one"))
        .with_grant(Grant::new(["s3:GetObject"], ["arn:aws:s3:::shop-uploads/*"]))
        .with_permissions_boundary("arn:aws:iam::123456789012:policy/boundary")
        .with_tag("team", "shop");
    let existing = EnvironmentNetwork::Existing {
        vpc: "vpc-0123456789abcdef0".to_owned(),
        balancer_subnets: vec!["subnet-0123456789abcdef1".to_owned(), "subnet-0123456789abcdef2".to_owned()],
        instance_subnets: vec!["subnet-0123456789abcdef3".to_owned()],
        public_addresses: false,
    };
    let spot = Machines::FargateSpot { base: 1, stay: 1, spot: 3 };
    let borrowed = EnvironmentSpec::new("borrowed").with_network(existing).with_machines(spot);
    let nat = EnvironmentNetwork::New { cidr: "10.20.0.0/16".to_owned(), nat: Nat::One };
    let nat = EnvironmentSpec::new("nat").with_network(nat);
    vec![("least", EnvironmentSpec::new("deployer")), ("full", full), ("borrowed", borrowed), ("nat", nat)]
}

#[test]
fn templates_are_as_they_were_reviewed() {
    for (name, spec) in specs().into_iter().take(3) {
        let template = format!("{:#}", spec.template().unwrap());
        assert_eq!(template, format!("{:#}", spec.template().unwrap()));
        insta::assert_snapshot!(name, template);
    }
}

/// Calls with every object of a value.
fn walk(value: &Value, visit: &mut dyn FnMut(&serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            visit(object);
            object.values().for_each(|value| walk(value, visit));
        }
        Value::Array(values) => values.iter().for_each(|value| walk(value, visit)),
        _ => {}
    }
}

/// The names in `${}` of a text.
fn substituted(text: &str) -> Vec<String> {
    text.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name.to_owned()).collect()
}

/// Everything to which a template refers.
fn references(template: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    walk(template, &mut |object| {
        for (key, value) in object {
            match (key.as_str(), value) {
                ("Ref", Value::String(name)) => names.extend([name.clone()]),
                ("Fn::GetAtt", value) => names.extend([value[0].as_str().unwrap().to_owned()]),
                ("Fn::Sub", value) => {
                    let text = value.as_str().unwrap();
                    names.extend(substituted(text).iter().map(|name| name.split('.').next().unwrap().to_owned()));
                }
                ("DependsOn", value) => {
                    names.extend(value.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()));
                }
                _ => {}
            }
        }
    });
    names
}

#[test]
fn whatever_a_template_refers_to_is_in_it() {
    for (name, spec) in specs() {
        let template = spec.template().unwrap();
        let there = template["Resources"].as_object().unwrap();
        let references = references(&template);
        assert!(references.len() > 5, "{name}");
        for reference in references.iter().filter(|reference| !reference.starts_with("AWS::")) {
            assert!(there.contains_key(reference), "{name}: nothing is called {reference}");
        }
    }
}

#[test]
fn no_role_may_do_more_than_is_written_down() {
    for (name, spec) in specs() {
        let template = spec.template().unwrap();
        let resources = template["Resources"].as_object().unwrap();
        let roles = resources.iter().filter(|(_, resource)| resource["Type"] == "AWS::IAM::Role");
        for (id, role) in roles {
            assert!(role["Properties"].get("ManagedPolicyArns").is_none(), "{name} {id}: others could change these");
            walk(&role["Properties"], &mut |statement| {
                let (Some(actions), Some(resource)) = (statement.get("Action"), statement.get("Resource")) else {
                    return;
                };
                for action in actions.as_array().unwrap() {
                    assert!(!action.as_str().unwrap().contains('*'), "{name} {id}: {action}");
                    let anywhere = ["ecr:GetAuthorizationToken", "ecs:DiscoverPollEndpoint"];
                    let narrow = resource != "*" || anywhere.contains(&action.as_str().unwrap());
                    assert!(narrow, "{name} {id}: {action} on everything");
                }
            });
        }
        let least = spec.grants.is_empty();
        assert_eq!(resources["TaskRole"]["Properties"].get("Policies").is_none(), least, "{name}");
    }
}

#[test]
fn only_the_load_balancer_reaches_instances() {
    let template = EnvironmentSpec::new("deployer").template().unwrap();
    let rules = &template["Resources"]["InstanceSecurityGroup"]["Properties"]["SecurityGroupIngress"];
    assert_eq!(rules.as_array().unwrap().len(), 1);
    assert_eq!(rules[0]["SourceSecurityGroupId"]["Fn::GetAtt"][0], "BalancerSecurityGroup");
    assert!(template["Resources"].get("InstanceTraffic").is_none());
}

#[test]
fn what_cannot_be_made_again_is_kept() {
    for (name, spec) in specs() {
        let template = spec.template().unwrap();
        let policy = |id: &str| {
            let resource = &template["Resources"][id];
            assert_eq!(resource["DeletionPolicy"], resource["UpdateReplacePolicy"], "{name} {id}");
            resource["DeletionPolicy"].clone()
        };
        assert_eq!(policy("Table"), "Retain", "{name}");
        assert_eq!(policy("LogGroup"), if spec.keep_logs { "Retain" } else { "Delete" }, "{name}");
    }
}

/// Kinds of resources that take no tags, or take them elsewhere.
const UNTAGGED: [&str; 8] = [
    "AWS::EC2::Route",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPCGatewayAttachment",
    "AWS::ECS::ClusterCapacityProviderAssociations",
    "AWS::ElasticLoadBalancingV2::ListenerCertificate",
    "AWS::IAM::InstanceProfile",
    "AWS::EC2::LaunchTemplate",
];

#[test]
fn whatever_can_be_tagged_is_tagged() {
    for (name, spec) in specs() {
        let template = spec.template().unwrap();
        for (id, resource) in template["Resources"].as_object().unwrap() {
            let tagged = resource["Properties"]["Tags"].as_array().is_some_and(|tags| {
                tags.iter().any(|tag| tag["Key"] == "deployer:environment" && tag["Value"] == spec.name.as_str())
            });
            let takes_none = UNTAGGED.contains(&resource["Type"].as_str().unwrap());
            assert!(tagged || takes_none, "{name}: {id} has no tag");
        }
        assert!(template.to_string().len() < 51_200, "{name}: CloudFormation takes no longer ones in a request");
    }
}

/// `DEPLOYER_TEMPLATES=DIR` writes them there, for another program's opinion such as cfn-lint's.
#[test]
fn templates_can_be_written_for_other_programs() {
    let Some(place) = std::env::var_os("DEPLOYER_TEMPLATES") else { return };
    for (name, spec) in specs() {
        let file = std::path::Path::new(&place).join(format!("{name}.json"));
        std::fs::write(file, format!("{:#}\n", spec.template().unwrap())).unwrap();
    }
}

//! The CloudFormation template of an environment.

use serde_json::{Map, Value, json};

use super::spec::{EnvironmentNetwork, EnvironmentSpec, Machines, secret_service};
use super::{machines, network};
use crate::options::Architecture;

/// The tag by which a stack and all that is in it are known as an environment; its value is the environment's name.
pub(super) const TAG: &str = "deployer:environment";

/// Names of outputs.
pub(super) mod output {
    pub(in super::super) const ADDRESS: &str = "BalancerAddress";
    pub(in super::super) const ARCHITECTURE: &str = "Architecture";
    pub(in super::super) const CAPACITY: &str = "Capacity";
    pub(in super::super) const CLUSTER: &str = "Cluster";
    pub(in super::super) const EXECUTION_ROLE: &str = "ExecutionRole";
    pub(in super::super) const LISTENER: &str = "Listener";
    pub(in super::super) const LOG_GROUP: &str = "LogGroup";
    pub(in super::super) const NAMESPACE: &str = "Namespace";
    pub(in super::super) const NETWORK_ADDRESS: &str = "NetworkBalancerAddress";
    pub(in super::super) const NETWORK_BALANCER: &str = "NetworkBalancer";
    pub(in super::super) const PUBLIC_ADDRESSES: &str = "PublicAddresses";
    pub(in super::super) const SECURITY_GROUPS: &str = "SecurityGroups";
    pub(in super::super) const SUBNETS: &str = "Subnets";
    pub(in super::super) const TABLE: &str = "Table";
    pub(in super::super) const TASK_ROLE: &str = "TaskRole";
    pub(in super::super) const VPC: &str = "Vpc";
    pub(in super::super) const ZONE: &str = "BalancerHostedZone";
}

/// A template while it is written.
pub(super) struct Writer<'a> {
    pub(super) spec: &'a EnvironmentSpec,
    resources: Map<String, Value>,
    outputs: Map<String, Value>,
}

/// The template of a spec that was checked.
pub(super) fn of(spec: &EnvironmentSpec) -> Value {
    let mut writer = Writer { spec, resources: Map::new(), outputs: Map::new() };
    let place = network::write(&mut writer);
    security_groups(&mut writer, &place);
    balancer(&mut writer, &place);
    if !spec.published_ports.is_empty() {
        network_balancer(&mut writer, &place);
    }
    logs(&mut writer);
    table(&mut writer);
    namespace(&mut writer, &place);
    execution_role(&mut writer);
    task_role(&mut writer);
    cluster(&mut writer, &place);
    json!({
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": format!("Environment {} of Deployer: where applications run", spec.name),
        "Resources": writer.resources,
        "Outputs": writer.outputs,
    })
}

impl Writer<'_> {
    /// Adds a resource.
    pub(super) fn add(&mut self, id: &str, kind: &str, properties: Value) {
        self.resources.insert(id.to_owned(), json!({"Type": kind, "Properties": properties}));
    }

    /// Adds a resource that takes tags in the usual way.
    pub(super) fn add_tagged(&mut self, id: &str, kind: &str, mut properties: Value) {
        properties["Tags"] = self.tags(id);
        self.add(id, kind, properties);
    }

    /// Sets an attribute of a resource beside its properties.
    pub(super) fn set(&mut self, id: &str, attribute: &str, value: Value) {
        if let Some(resource) = self.resources.get_mut(id) {
            resource[attribute] = value;
        }
    }

    /// That a resource stays when the environment is deleted, or not.
    fn set_kept(&mut self, id: &str, kept: bool) {
        let policy = if kept { "Retain" } else { "Delete" };
        self.set(id, "DeletionPolicy", policy.into());
        self.set(id, "UpdateReplacePolicy", policy.into());
    }

    pub(super) fn output(&mut self, name: &str, description: &str, value: Value) {
        self.outputs.insert(name.to_owned(), json!({"Description": description, "Value": value}));
    }

    /// The tags of a resource, as a list of keys and values.
    pub(super) fn tags(&self, id: &str) -> Value {
        let name = &self.spec.name;
        let ours = [("Name".to_owned(), format!("{name}-{id}")), (TAG.to_owned(), name.clone())];
        let users = self.spec.tags.iter().map(|(key, value)| (key.clone(), value.clone()));
        let all: std::collections::BTreeMap<_, _> = ours.into_iter().chain(users).collect();
        all.into_iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
    }

    /// Adds a role that a service takes on.
    pub(super) fn role(&mut self, id: &str, description: &str, trust: Value, statements: Vec<Value>) {
        let mut properties = json!({
            "Description": description,
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
        });
        if !statements.is_empty() {
            let document = json!({"Version": "2012-10-17", "Statement": statements});
            properties["Policies"] = json!([{"PolicyName": "environment", "PolicyDocument": document}]);
        }
        if let Some(boundary) = &self.spec.permissions_boundary {
            properties["PermissionsBoundary"] = boundary.as_str().into();
        }
        self.add_tagged(id, "AWS::IAM::Role", properties);
    }
}

pub(super) fn reference(id: &str) -> Value {
    json!({"Ref": id})
}

pub(super) fn attribute(id: &str, name: &str) -> Value {
    json!({"Fn::GetAtt": [id, name]})
}

pub(super) fn substituted(text: &str) -> Value {
    json!({"Fn::Sub": text})
}

pub(super) fn allow(sid: &str, actions: &[&str], resources: Value) -> Value {
    json!({"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources})
}

/// Who may take on a role.
pub(super) fn trust(service: &str) -> Value {
    json!({"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"})
}

fn security_groups(writer: &mut Writer<'_>, place: &network::Place) {
    let spec = writer.spec;
    let ports: &[u16] = if spec.certificates.is_empty() { &[80] } else { &[80, 443] };
    let ingress: Vec<Value> = ports
        .iter()
        .flat_map(|port| spec.clients.iter().map(move |block| (port, block)))
        .map(|(port, block)| json!({"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": block}))
        .collect();
    writer.add_tagged(
        "BalancerSecurityGroup",
        "AWS::EC2::SecurityGroup",
        json!({
            "GroupDescription": "The load balancer: who may call it",
            "VpcId": place.vpc,
            "SecurityGroupIngress": ingress,
        }),
    );
    let network = (!spec.published_ports.is_empty()).then_some("NetworkBalancerSecurityGroup");
    let ingress: Vec<Value> = std::iter::once("BalancerSecurityGroup")
        .chain(network)
        .map(|group| {
            json!({
                "IpProtocol": "tcp",
                "FromPort": 0,
                "ToPort": 65_535,
                "SourceSecurityGroupId": attribute(group, "GroupId"),
            })
        })
        .collect();
    writer.add_tagged(
        "InstanceSecurityGroup",
        "AWS::EC2::SecurityGroup",
        json!({
            "GroupDescription": "Instances: reached by the load balancer",
            "VpcId": place.vpc,
            "SecurityGroupIngress": ingress,
        }),
    );
    if spec.traffic_between_instances {
        writer.add(
            "InstanceTraffic",
            "AWS::EC2::SecurityGroupIngress",
            json!({
                "Description": "Instances call each other",
                "GroupId": attribute("InstanceSecurityGroup", "GroupId"),
                "IpProtocol": "tcp",
                "FromPort": 0,
                "ToPort": 65_535,
                "SourceSecurityGroupId": attribute("InstanceSecurityGroup", "GroupId"),
            }),
        );
    }
    let groups = json!({"Fn::GetAtt": ["InstanceSecurityGroup", "GroupId"]});
    writer.output(output::SECURITY_GROUPS, "The security groups of instances", groups);
}

fn balancer(writer: &mut Writer<'_>, place: &network::Place) {
    let spec = writer.spec;
    writer.add_tagged(
        "LoadBalancer",
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        json!({
            "Type": "application",
            "Scheme": if spec.internal { "internal" } else { "internet-facing" },
            "Subnets": place.balancer_subnets,
            "SecurityGroups": [attribute("BalancerSecurityGroup", "GroupId")],
            "LoadBalancerAttributes": [
                {"Key": "routing.http.drop_invalid_header_fields.enabled", "Value": "true"},
            ],
        }),
    );
    if !place.before_balancer.is_empty() {
        writer.set("LoadBalancer", "DependsOn", json!(place.before_balancer));
    }
    let nothing = json!([{
        "Type": "fixed-response",
        "FixedResponseConfig": {"StatusCode": "404", "ContentType": "text/plain", "MessageBody": "no such route"},
    }]);
    let secure = json!([{
        "Type": "redirect",
        "RedirectConfig": {"Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301"},
    }]);
    let listener = |port: u16, protocol: &str, actions: &Value| {
        json!({
            "LoadBalancerArn": reference("LoadBalancer"),
            "Port": port,
            "Protocol": protocol,
            "DefaultActions": actions,
        })
    };
    let kind = "AWS::ElasticLoadBalancingV2::Listener";
    let serving = if let Some((first, others)) = spec.certificates.split_first() {
        writer.add_tagged("HttpListener", kind, listener(80, "HTTP", &secure));
        let mut properties = listener(443, "HTTPS", &nothing);
        properties["Certificates"] = json!([{"CertificateArn": first}]);
        properties["SslPolicy"] = "ELBSecurityPolicy-TLS13-1-2-2021-06".into();
        writer.add_tagged("HttpsListener", kind, properties);
        for (index, certificate) in others.iter().enumerate() {
            let properties = json!({
                "ListenerArn": reference("HttpsListener"),
                "Certificates": [{"CertificateArn": certificate}],
            });
            let id = format!("Certificate{}", index + 2);
            writer.add(&id, "AWS::ElasticLoadBalancingV2::ListenerCertificate", properties);
        }
        "HttpsListener"
    } else {
        writer.add_tagged("HttpListener", kind, listener(80, "HTTP", &nothing));
        "HttpListener"
    };
    writer.output(output::LISTENER, "The listener that serves the routes", reference(serving));
    writer.output(output::ADDRESS, "The load balancer's DNS name", attribute("LoadBalancer", "DNSName"));
    let zone = attribute("LoadBalancer", "CanonicalHostedZoneID");
    writer.output(output::ZONE, "The hosted zone of that name, for alias records", zone);
}

/// The load balancer of published ports. Its listeners come with the services that publish them.
fn network_balancer(writer: &mut Writer<'_>, place: &network::Place) {
    let spec = writer.spec;
    let ingress: Vec<Value> = spec
        .published_ports
        .iter()
        .flat_map(|port| spec.clients.iter().map(move |block| (port, block)))
        .map(|(port, block)| json!({"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": block}))
        .collect();
    writer.add_tagged(
        "NetworkBalancerSecurityGroup",
        "AWS::EC2::SecurityGroup",
        json!({
            "GroupDescription": "The load balancer of published ports: who may call it",
            "VpcId": place.vpc,
            "SecurityGroupIngress": ingress,
        }),
    );
    writer.add_tagged(
        "NetworkBalancer",
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        json!({
            "Type": "network",
            "Scheme": if spec.internal { "internal" } else { "internet-facing" },
            "Subnets": place.balancer_subnets,
            "SecurityGroups": [attribute("NetworkBalancerSecurityGroup", "GroupId")],
            // An instance in one zone must be reached through the addresses of both.
            "LoadBalancerAttributes": [{"Key": "load_balancing.cross_zone.enabled", "Value": "true"}],
        }),
    );
    if !place.before_balancer.is_empty() {
        writer.set("NetworkBalancer", "DependsOn", json!(place.before_balancer));
    }
    writer.output(output::NETWORK_BALANCER, "The load balancer of published ports", reference("NetworkBalancer"));
    let address = attribute("NetworkBalancer", "DNSName");
    writer.output(output::NETWORK_ADDRESS, "The DNS name of the load balancer of published ports", address);
}

fn logs(writer: &mut Writer<'_>) {
    let spec = writer.spec;
    let properties = json!({"LogGroupName": spec.log_group(), "RetentionInDays": spec.log_retention_days});
    writer.add_tagged("LogGroup", "AWS::Logs::LogGroup", properties);
    writer.set_kept("LogGroup", spec.keep_logs);
    writer.output(output::LOG_GROUP, "The log group to which instances write", reference("LogGroup"));
}

/// The table of [`DynamoStore`](crate::DynamoStore), as `ensure_table` makes it. It has a name of its own and stays: a
/// later environment of the same name takes it over.
fn table(writer: &mut Writer<'_>) {
    let name = writer.spec.name.as_str();
    writer.add_tagged(
        "Table",
        "AWS::DynamoDB::Table",
        json!({
            "TableName": name,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": true},
        }),
    );
    writer.set_kept("Table", true);
    writer.output(output::TABLE, "The table of releases, journals and leases", reference("Table"));
}

fn namespace(writer: &mut Writer<'_>, place: &network::Place) {
    let name = writer.spec.name.as_str();
    writer.add_tagged(
        "Namespace",
        "AWS::ServiceDiscovery::PrivateDnsNamespace",
        json!({"Name": name, "Vpc": place.vpc, "Description": "Names by which instances find services"}),
    );
    writer.output(output::NAMESPACE, "The namespace of services, by ARN", attribute("Namespace", "Arn"));
}

/// The role with which ECS pulls images, reads secrets and writes logs: nothing else is in it.
fn execution_role(writer: &mut Writer<'_>) {
    let spec = writer.spec;
    let repositories =
        format!("arn:${{AWS::Partition}}:ecr:${{AWS::Region}}:${{AWS::AccountId}}:repository/{}*", spec.repositories);
    let pull = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"];
    let mut statements = vec![
        allow("Login", &["ecr:GetAuthorizationToken"], "*".into()),
        allow("Pull", &pull, substituted(&repositories)),
        allow("Log", &["logs:CreateLogStream", "logs:PutLogEvents"], attribute("LogGroup", "Arn")),
    ];
    let of =
        |service| -> Vec<&String> { spec.secrets.iter().filter(|arn| secret_service(arn) == Some(service)).collect() };
    let (secrets, parameters) = (of("secretsmanager"), of("ssm"));
    if !secrets.is_empty() {
        statements.push(allow("Secrets", &["secretsmanager:GetSecretValue"], json!(secrets)));
    }
    if !parameters.is_empty() {
        statements.push(allow("Parameters", &["ssm:GetParameters"], json!(parameters)));
    }
    if !spec.secret_keys.is_empty() {
        statements.push(allow("Decrypt", &["kms:Decrypt"], json!(spec.secret_keys)));
    }
    let description = "ECS: pulls images, reads secrets, writes logs";
    writer.role("ExecutionRole", description, trust("ecs-tasks.amazonaws.com"), statements);
    writer.output(output::EXECUTION_ROLE, "The role of ECS, by ARN", attribute("ExecutionRole", "Arn"));
}

/// The role of the programs inside instances: what is granted, and no more.
fn task_role(writer: &mut Writer<'_>) {
    let grants = writer.spec.grants.iter();
    let statements =
        grants.map(|grant| json!({"Effect": "Allow", "Action": grant.actions, "Resource": grant.resources})).collect();
    // Only ECS of this account, for tasks of this region.
    let mut trust = trust("ecs-tasks.amazonaws.com");
    trust["Condition"] = json!({
        "StringEquals": {"aws:SourceAccount": reference("AWS::AccountId")},
        "ArnLike": {"aws:SourceArn": substituted("arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:*")},
    });
    writer.role("TaskRole", "Programs inside instances", trust, statements);
    writer.output(output::TASK_ROLE, "The role of programs inside instances, by ARN", attribute("TaskRole", "Arn"));
}

fn cluster(writer: &mut Writer<'_>, place: &network::Place) {
    let spec = writer.spec;
    let mut properties = json!({
        "ClusterName": spec.name,
        "ClusterSettings": [{
            "Name": "containerInsights",
            "Value": if spec.container_insights { "enabled" } else { "disabled" },
        }],
    });
    let capacity = match &spec.machines {
        Machines::Fargate => {
            properties["CapacityProviders"] = json!(["FARGATE"]);
            json!("FARGATE")
        }
        Machines::FargateSpot { base, stay, spot } => {
            properties["CapacityProviders"] = json!(["FARGATE", "FARGATE_SPOT"]);
            properties["DefaultCapacityProviderStrategy"] = json!([
                {"CapacityProvider": "FARGATE", "Base": base, "Weight": stay},
                {"CapacityProvider": "FARGATE_SPOT", "Weight": spot},
            ]);
            json!(format!("FARGATE:{stay}:{base},FARGATE_SPOT:{spot}:0"))
        }
        Machines::Ec2 { instance_type, least, most } => {
            let limits = machines::Limits { instance_type, least: *least, most: *most };
            machines::write(writer, place, &limits);
            json!({"Fn::Sub": format!("${{{}}}:1:0", machines::PROVIDER)})
        }
    };
    writer.add_tagged("Cluster", "AWS::ECS::Cluster", properties);
    writer.output(output::CLUSTER, "The cluster", reference("Cluster"));
    writer.output(output::CAPACITY, "What instances run on: providers with weight and base", capacity);
    let architecture = match spec.architecture {
        Architecture::X86_64 => "X86_64",
        Architecture::Arm64 => "ARM64",
    };
    writer.output(output::ARCHITECTURE, "The processors of instances", architecture.into());
    let public = match &spec.network {
        EnvironmentNetwork::New { nat, .. } => *nat == super::Nat::None,
        EnvironmentNetwork::Existing { public_addresses, .. } => *public_addresses,
    };
    writer.output(output::PUBLIC_ADDRESSES, "Whether instances get public addresses", public.to_string().into());
}

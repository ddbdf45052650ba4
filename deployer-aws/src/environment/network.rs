//! The network of an environment in its template: a VPC in two availability zones, or one that is there.

use serde_json::{Value, json};

use super::spec::{EnvironmentNetwork, Nat, quarters};
use super::template::{Writer, attribute, output, reference, substituted};

/// The two availability zones, as a part of logical ids.
const ZONES: [&str; 2] = ["A", "B"];

/// What the other parts of a template need of the network.
pub(super) struct Place {
    pub(super) vpc: Value,
    pub(super) balancer_subnets: Vec<Value>,
    pub(super) instance_subnets: Vec<Value>,
    /// What must be there before the load balancer.
    pub(super) before_balancer: Vec<String>,
    /// What must be there before instances can pull images.
    pub(super) before_instances: Vec<String>,
}

pub(super) fn write(writer: &mut Writer<'_>) -> Place {
    let place = match &writer.spec.network {
        EnvironmentNetwork::New { cidr, nat } => new(writer, cidr, *nat),
        EnvironmentNetwork::Existing { vpc, balancer_subnets, instance_subnets, .. } => {
            let values = |names: &[String]| names.iter().map(|name| json!(name)).collect();
            Place {
                vpc: json!(vpc),
                balancer_subnets: values(balancer_subnets),
                instance_subnets: values(instance_subnets),
                before_balancer: Vec::new(),
                before_instances: Vec::new(),
            }
        }
    };
    writer.output(output::VPC, "The VPC", place.vpc.clone());
    let subnets = json!({"Fn::Join": [",", place.instance_subnets]});
    writer.output(output::SUBNETS, "The subnets of instances", subnets);
    place
}

fn new(writer: &mut Writer<'_>, cidr: &str, nat: Nat) -> Place {
    let [public_a, public_b, private_a, private_b] = quarters(cidr);
    let properties = json!({"CidrBlock": cidr, "EnableDnsSupport": true, "EnableDnsHostnames": true});
    writer.add_tagged("Vpc", "AWS::EC2::VPC", properties);
    writer.add_tagged("InternetGateway", "AWS::EC2::InternetGateway", json!({}));
    writer.add(
        "GatewayAttachment",
        "AWS::EC2::VPCGatewayAttachment",
        json!({"VpcId": reference("Vpc"), "InternetGatewayId": reference("InternetGateway")}),
    );
    table(writer, "PublicRoutes");
    route(writer, "PublicRoute", "PublicRoutes", ("GatewayId", reference("InternetGateway")));
    writer.set("PublicRoute", "DependsOn", json!(["GatewayAttachment"]));
    let mut tables = vec!["PublicRoutes".to_owned()];
    let mut before_instances = vec!["PublicRoute".to_owned()];
    for (index, block) in [public_a, public_b].iter().enumerate() {
        subnet(writer, &format!("PublicSubnet{}", ZONES[index]), block, index, true);
        associate(writer, &format!("PublicSubnet{}", ZONES[index]), "PublicRoutes");
    }
    if nat != Nat::None {
        for (index, block) in [private_a, private_b].iter().enumerate() {
            let zone = ZONES[index];
            let (subnet_id, routes) = (format!("PrivateSubnet{zone}"), format!("PrivateRoutes{zone}"));
            subnet(writer, &subnet_id, block, index, false);
            table(writer, &routes);
            associate(writer, &subnet_id, &routes);
            let of = if nat == Nat::PerZone { zone } else { ZONES[0] };
            if of == zone {
                gateway(writer, zone);
            }
            let default = format!("PrivateRoute{zone}");
            route(writer, &default, &routes, ("NatGatewayId", reference(&format!("NatGateway{of}"))));
            tables.push(routes);
            before_instances.push(default);
        }
    }
    endpoint(writer, &tables);
    let subnets = |kind: &str| ZONES.iter().map(|zone| reference(&format!("{kind}Subnet{zone}"))).collect();
    Place {
        vpc: reference("Vpc"),
        balancer_subnets: subnets("Public"),
        instance_subnets: subnets(if nat == Nat::None { "Public" } else { "Private" }),
        before_balancer: vec!["GatewayAttachment".to_owned()],
        before_instances,
    }
}

fn subnet(writer: &mut Writer<'_>, id: &str, block: &str, zone: usize, public: bool) {
    let zone = json!({"Fn::Select": [zone, {"Fn::GetAZs": ""}]});
    let properties = json!({
        "VpcId": reference("Vpc"),
        "CidrBlock": block,
        "AvailabilityZone": zone,
        "MapPublicIpOnLaunch": public,
    });
    writer.add_tagged(id, "AWS::EC2::Subnet", properties);
}

fn table(writer: &mut Writer<'_>, id: &str) {
    writer.add_tagged(id, "AWS::EC2::RouteTable", json!({"VpcId": reference("Vpc")}));
}

/// The way out of a table.
fn route(writer: &mut Writer<'_>, id: &str, table: &str, (target, value): (&str, Value)) {
    let properties = json!({"RouteTableId": reference(table), "DestinationCidrBlock": "0.0.0.0/0", target: value});
    writer.add(id, "AWS::EC2::Route", properties);
}

fn associate(writer: &mut Writer<'_>, subnet: &str, table: &str) {
    writer.add(
        &format!("{subnet}Routes"),
        "AWS::EC2::SubnetRouteTableAssociation",
        json!({"SubnetId": reference(subnet), "RouteTableId": reference(table)}),
    );
}

fn gateway(writer: &mut Writer<'_>, zone: &str) {
    let address = format!("NatAddress{zone}");
    writer.add_tagged(&address, "AWS::EC2::EIP", json!({"Domain": "vpc"}));
    writer.set(&address, "DependsOn", json!(["GatewayAttachment"]));
    let id = format!("NatGateway{zone}");
    let properties = json!({
        "AllocationId": attribute(&address, "AllocationId"),
        "SubnetId": reference(&format!("PublicSubnet{zone}")),
    });
    writer.add_tagged(&id, "AWS::EC2::NatGateway", properties);
}

/// Layers of images come from S3: through this they cost nothing extra, and no NAT gateway counts them.
fn endpoint(writer: &mut Writer<'_>, tables: &[String]) {
    let tables: Vec<Value> = tables.iter().map(|table| reference(table)).collect();
    writer.add_tagged(
        "S3Endpoint",
        "AWS::EC2::VPCEndpoint",
        json!({
            "VpcEndpointType": "Gateway",
            "ServiceName": substituted("com.amazonaws.${AWS::Region}.s3"),
            "VpcId": reference("Vpc"),
            "RouteTableIds": tables,
        }),
    );
}

//! The roles that instances have, and the subnets and security groups in which they run.
//!
//! IAM and EC2 are asked through the Cloud Control API, which tells of every kind of resource that CloudFormation knows by one
//! operation: their own SDKs are the largest that there are. It looks with the caller's permissions:
//! <https://docs.aws.amazon.com/cloudcontrolapi/latest/userguide/resource-operations-read.html>.

use std::collections::BTreeMap;

use aws_sdk_elasticloadbalancingv2::types::LoadBalancer;
use deployer_core::{AppSpec, Error, ErrorKind, Problem, Problems, Result, ServiceName};
use futures_util::future::try_join_all;
use serde_json::Value;

use super::balancers::Balancers;
use crate::elb::{Match, Protocol};
use crate::failure::{failed, is};
use crate::naming;
use crate::site::Site;

const ROLE: &str = "AWS::IAM::Role";
const SUBNET: &str = "AWS::EC2::Subnet";
const SECURITY_GROUP: &str = "AWS::EC2::SecurityGroup";

/// Who takes on the roles of tasks.
const TASKS: &str = "ecs-tasks.amazonaws.com";

/// What is told of a resource.
enum Told {
    Properties(Value),
    Missing,
    /// It is not told, and why not.
    Nothing(Error),
}

/// All that was asked for, by kind and identifier.
struct Place(BTreeMap<(&'static str, String), Told>);

impl Site {
    /// What is wrong with roles, subnets and security groups. What cannot be looked at is one warning in all.
    pub(super) async fn place_problems(&self, spec: &AppSpec, balancers: &Balancers) -> Result<Problems> {
        let options = &self.options;
        let roles = || std::iter::once(&options.execution_role).chain(&options.task_role);
        let mut wanted: Vec<(&'static str, String)> =
            roles().map(|role| (ROLE, naming::last(role).to_owned())).collect();
        wanted.extend(options.subnets.iter().map(|subnet| (SUBNET, subnet.clone())));
        let groups = options.security_groups.iter().chain(balancers.all().flat_map(LoadBalancer::security_groups));
        wanted.extend(groups.map(|group| (SECURITY_GROUP, group.clone())));
        wanted.sort_unstable();
        wanted.dedup();
        let asked = wanted.into_iter().map(|(kind, id)| async move {
            let told = self.told(kind, &id).await?;
            Ok::<_, Error>(((kind, id), told))
        });
        let place = Place(try_join_all(asked).await?.into_iter().collect());

        let mut problems = Problems::default();
        let named = [("execution-role", Some(&options.execution_role)), ("task-role", options.task_role.as_ref())];
        for (what, role) in named.into_iter().filter_map(|(what, role)| Some((what, role?))) {
            problems.0.extend(place.role_problem(&format!("environment.{what}"), role));
        }
        problems.0.extend(self.subnet_problems(&place, balancers));
        problems.0.extend(self.security_group_problems(&place));
        problems.0.extend(self.way_problems(&place, spec, balancers));
        let unknown = place.0.iter().find_map(|((_, id), told)| match told {
            Told::Nothing(error) => Some((id, error)),
            _ => None,
        });
        if let Some((id, error)) = unknown {
            let message =
                format!("roles, subnets and security groups cannot all be looked at beforehand: {id}: {error}");
            problems.push(Problem::warning("environment", message));
        }
        Ok(problems)
    }

    /// What Cloud Control tells of a resource.
    async fn told(&self, kind: &str, id: &str) -> Result<Told> {
        let error = match self.control.get_resource().type_name(kind).identifier(id).send().await {
            Ok(answer) => {
                let properties = answer.resource_description().and_then(|resource| resource.properties());
                let properties = serde_json::from_str(properties.unwrap_or_default());
                return Ok(properties.map_or_else(
                    |error| {
                        Told::Nothing(
                            Error::new(ErrorKind::Internal, "its properties cannot be read").with_source(error),
                        )
                    },
                    Told::Properties,
                ));
            }
            Err(error) => error,
        };
        if is(&error, &["ResourceNotFoundException"]) {
            return Ok(Told::Missing);
        }
        // Whatever else it answers, it was there to answer: rights that are missing come in several words.
        let answered = error.as_service_error().is_some();
        let error = failed("cloudformation:GetResource", id, error);
        if answered && error.kind() != ErrorKind::Throttled { Ok(Told::Nothing(error)) } else { Err(error) }
    }

    fn subnet_problems(&self, place: &Place, balancers: &Balancers) -> Vec<Problem> {
        let (path, mut problems) = ("environment.subnets", Vec::new());
        if self.options.subnets.is_empty() {
            problems.push(
                Problem::error(path, "there is no subnet in which instances could run")
                    .with_help("name some with `AwsOptions::with_subnets`"),
            );
        }
        let mut zones = BTreeMap::new();
        for id in &self.options.subnets {
            problems.extend(place.not_here(path, SUBNET, id, "subnet", &self.options.vpc));
            if let Some(subnet) = place.properties(SUBNET, id) {
                zones.insert(id.as_str(), subnet["AvailabilityZone"].as_str().unwrap_or_default());
            }
        }
        for balancer in balancers.all() {
            let name = balancer.load_balancer_name().unwrap_or_default();
            let of_balancer = balancer.availability_zones();
            let served = |zone: &str| of_balancer.iter().any(|one| one.zone_name() == Some(zone));
            let unserved: Vec<(&&str, &&str)> = zones.iter().filter(|(_, zone)| !served(zone)).collect();
            // Nothing of a load balancer reaches targets in zones that are not enabled for it:
            // <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/target-group-health-checks.html>.
            let all = zones.len() == self.options.subnets.len() && unserved.len() == zones.len();
            for (subnet, zone) in unserved {
                let message =
                    format!("the load balancer {name:?} is not in {zone}: instances in {subnet} get no traffic");
                let problem = if all { Problem::error(path, message) } else { Problem::warning(path, message) };
                problems.push(problem.with_help("enable the zone for the load balancer, or choose other subnets"));
            }
        }
        problems
    }

    fn security_group_problems(&self, place: &Place) -> Vec<Problem> {
        let groups = self.options.security_groups.iter();
        let not_here = |id: &String| {
            place.not_here("environment.security-groups", SECURITY_GROUP, id, "security group", &self.options.vpc)
        };
        groups.filter_map(not_here).collect()
    }

    /// Ports at which security groups let no load balancer reach instances, and published ones at which they let nobody reach
    /// the load balancer. Addresses are not compared: a rule for any of them counts.
    fn way_problems(&self, place: &Place, spec: &AppSpec, balancers: &Balancers) -> Vec<Problem> {
        let mut problems = Vec::new();
        let Some(instances) = place.all_of(&self.options.security_groups) else { return problems };
        for (name, service) in &spec.services {
            for (what, inlet) in Match::all_of(service) {
                let balancer = match inlet.protocol {
                    Protocol::Http => &balancers.routes,
                    Protocol::Tcp => &balancers.published,
                };
                let Some(balancer) = balancer else { continue };
                let Some(groups) = place.all_of(balancer.security_groups()) else { continue };
                let of_balancer = balancer.load_balancer_name().unwrap_or_default();
                let mut tell = |message: String, help: &str| {
                    let path = path(name, &what);
                    let told = |problem: &Problem| problem.path == path && problem.message == message;
                    if !problems.iter().any(told) {
                        problems.push(Problem::warning(path, message).with_help(help));
                    }
                };
                if !instances.iter().any(|group| admits(group, Way::In, inlet.port, balancer.security_groups())) {
                    let message = format!(
                        "no security group lets the load balancer {of_balancer:?} reach port {} of instances",
                        inlet.port
                    );
                    tell(message, "add a rule to a security group of instances: no instance would be ready");
                }
                if groups.is_empty() {
                    continue;
                }
                if !groups.iter().any(|group| admits(group, Way::Out, inlet.port, &self.options.security_groups)) {
                    let message =
                        format!("no security group lets the load balancer {of_balancer:?} call port {}", inlet.port);
                    tell(message, "add a rule to its security group: no instance would be ready");
                }
                if let Match::Connections { port } = what
                    && !groups.iter().any(|group| opens(group, port))
                {
                    let message = format!(
                        "no security group lets anybody reach port {port} of the load balancer {of_balancer:?}"
                    );
                    tell(message, "publish it in the environment, or add a rule to the load balancer's security group");
                }
            }
        }
        problems
    }
}

/// Where the spec says so.
fn path(service: &ServiceName, what: &Match) -> String {
    match what {
        Match::Requests { .. } => format!("services.{service}.routes"),
        Match::Connections { .. } => format!("services.{service}.ports"),
    }
}

impl Place {
    fn properties(&self, kind: &'static str, id: &str) -> Option<&Value> {
        match self.0.get(&(kind, id.to_owned()))? {
            Told::Properties(properties) => Some(properties),
            Told::Missing | Told::Nothing(_) => None,
        }
    }

    fn is_missing(&self, kind: &'static str, id: &str) -> bool {
        matches!(self.0.get(&(kind, id.to_owned())), Some(Told::Missing))
    }

    /// Security groups, if all of them are known.
    fn all_of(&self, ids: &[String]) -> Option<Vec<&Value>> {
        ids.iter().map(|id| self.properties(SECURITY_GROUP, id)).collect()
    }

    fn role_problem(&self, path: &str, role: &str) -> Option<Problem> {
        let name = naming::last(role);
        if self.is_missing(ROLE, name) {
            let problem = Problem::error(path, format!("there is no role {role}"));
            return Some(problem.with_help("check the account, or apply the environment"));
        }
        let trusted = trusts(&self.properties(ROLE, name)?["AssumeRolePolicyDocument"]);
        let message = || format!("ECS may not take on the role {role}: no instance could start");
        let help = format!("allow {TASKS} the action sts:AssumeRole in the role's trust policy");
        (!trusted).then(|| Problem::error(path, message()).with_help(help))
    }

    /// That something is not in the network, or is nowhere.
    fn not_here(&self, path: &str, kind: &'static str, id: &str, called: &str, vpc: &str) -> Option<Problem> {
        if self.is_missing(kind, id) {
            let problem = Problem::error(path, format!("there is no {called} {id}"));
            return Some(problem.with_help("check region and account, or apply the environment"));
        }
        let of_it = self.properties(kind, id)?["VpcId"].as_str()?;
        (of_it != vpc).then(|| {
            Problem::error(path, format!("the {called} {id} is in the network {of_it}, and instances are in {vpc}"))
        })
    }
}

/// A value, or all in a list.
fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice).iter()
}

/// Whether a trust policy lets ECS's tasks take the role on. Conditions are not looked at.
fn trusts(policy: &Value) -> bool {
    let read = policy.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let has = |value: &Value, wanted: &[&str]| each(value).filter_map(Value::as_str).any(|one| wanted.contains(&one));
    each(&read.as_ref().unwrap_or(policy)["Statement"]).any(|statement| {
        statement["Effect"] == "Allow"
            && (has(&statement["Principal"], &["*"]) || has(&statement["Principal"]["Service"], &[TASKS]))
            && has(&statement["Action"], &["sts:AssumeRole", "sts:*", "*"])
    })
}

/// In which way traffic passes a security group.
#[derive(Clone, Copy, Debug)]
enum Way {
    In,
    Out,
}

/// Whether a rule is for a TCP port.
fn covers(rule: &Value, port: u16) -> bool {
    let number = |key: &str| rule[key].as_i64().or_else(|| rule[key].as_str()?.parse().ok());
    match rule["IpProtocol"].as_str() {
        Some("-1") => true,
        Some("tcp" | "6") => {
            let (from, to) = (number("FromPort").unwrap_or(-1), number("ToPort").unwrap_or(-1));
            from == -1 || (from..=to).contains(&i64::from(port))
        }
        _ => false,
    }
}

/// Whether a security group lets a TCP port pass from or to one of these groups, or from or to addresses.
fn admits(group: &Value, way: Way, port: u16, others: &[String]) -> bool {
    let (rules, other, list) = match way {
        Way::In => ("SecurityGroupIngress", "SourceSecurityGroupId", "SourcePrefixListId"),
        Way::Out => ("SecurityGroupEgress", "DestinationSecurityGroupId", "DestinationPrefixListId"),
    };
    let addresses = ["CidrIp", "CidrIpv6", list];
    group[rules].as_array().into_iter().flatten().filter(|rule| covers(rule, port)).any(|rule| {
        addresses.iter().any(|key| rule[key].is_string())
            || rule[other].as_str().is_some_and(|id| others.iter().any(|one| one == id))
    })
}

/// Whether a security group lets anybody in at a TCP port.
fn opens(group: &Value, port: u16) -> bool {
    group["SecurityGroupIngress"].as_array().into_iter().flatten().any(|rule| covers(rule, port))
}

#[cfg(test)]
mod tests {
    use aws_config::{BehaviorVersion, Region, SdkConfig};
    use aws_sdk_ecs::config::{Credentials, SharedCredentialsProvider};
    use aws_smithy_runtime_api::client::http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
    use aws_smithy_runtime_api::http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::options::AwsOptions;

    /// What AWS answers to everything.
    #[derive(Clone, Copy, Debug)]
    struct Always(u16, &'static str);

    impl HttpConnector for Always {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            let status = StatusCode::try_from(self.0).unwrap_or_else(|error| panic!("{error}"));
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status, self.1.into())))
        }
    }

    impl HttpClient for Always {
        fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
            SharedHttpConnector::new(*self)
        }
    }

    fn site(answer: Always) -> Site {
        let credentials = Credentials::new("test", "test", None, None, "nobody's");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("nowhere-place"))
            .endpoint_url("http://aws.invalid")
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(answer)
            .build();
        let options = AwsOptions::new("stage", "vpc-1", "arn:aws:iam::123456789012:role/execution");
        Site::new(&config, options.with_subnets(["subnet-1", "subnet-2"]).with_security_groups(["sg-1"]))
    }

    async fn told(answer: Always) -> Vec<String> {
        let spec = AppSpec::new("shop").unwrap_or_else(|error| panic!("{error}"));
        let problems = site(answer).place_problems(&spec, &Balancers::default()).await;
        problems.unwrap_or_else(|error| panic!("{error}")).0.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn what_may_not_be_looked_at_is_one_warning() {
        let denied = r#"{"__type": "AccessDeniedException", "message": "no cloudformation:GetResource for you"}"#;
        let unable = r#"{"__type": "GeneralServiceException", "message": "no ec2:DescribeSubnets for you"}"#;
        for (answer, words) in
            [(denied, "no cloudformation:GetResource for you"), (unable, "no ec2:DescribeSubnets for you")]
        {
            let told = told(Always(400, answer)).await;
            assert!(told.len() == 1 && told[0].contains("warning") && told[0].contains(words), "{told:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_an_error_each() {
        let told = told(Always(400, r#"{"__type": "ResourceNotFoundException", "message": "was not found"}"#)).await;
        let of = |what: &str| told.iter().filter(|problem| problem.contains(what)).count();
        assert_eq!(
            (told.len(), of("there is no role"), of("there is no subnet "), of("no security group sg-1")),
            (4, 1, 2, 1),
            "{told:?}"
        );
    }

    #[test]
    fn a_role_is_for_tasks_if_its_trust_policy_says_so() {
        let policy = |principal: Value, action: Value, effect: &str| json!({"Statement": [{"Effect": effect, "Principal": principal, "Action": action}]});
        let tasks = json!({"Service": TASKS});
        let several = json!({"Service": ["lambda.amazonaws.com", TASKS]});
        assert!(trusts(&policy(tasks.clone(), json!("sts:AssumeRole"), "Allow")));
        assert!(trusts(&policy(several, json!(["sts:TagSession", "sts:AssumeRole"]), "Allow")));
        assert!(trusts(&json!(policy(tasks.clone(), json!("sts:AssumeRole"), "Allow").to_string())));
        assert!(trusts(&json!({"Statement": {"Effect": "Allow", "Principal": "*", "Action": "sts:*"}})));
        assert!(!trusts(&policy(tasks.clone(), json!("sts:AssumeRole"), "Deny")));
        assert!(!trusts(&policy(tasks, json!("sts:TagSession"), "Allow")));
        assert!(!trusts(&policy(json!({"Service": "ecs.amazonaws.com"}), json!("sts:AssumeRole"), "Allow")));
        assert!(!trusts(&Value::Null));
    }

    #[test]
    fn a_security_group_admits_what_a_rule_of_it_is_for() {
        let rule = |from: i64, to: i64, key: &str, value: &str| json!({"SecurityGroupIngress": [{"IpProtocol": "tcp", "FromPort": from, "ToPort": to, key: value}]});
        let balancer = ["sg-balancer".to_owned()];
        let admitted = |group: &Value| admits(group, Way::In, 8080, &balancer);
        assert!(admitted(&rule(0, 65_535, "SourceSecurityGroupId", "sg-balancer")));
        assert!(admitted(&rule(8080, 8080, "CidrIp", "10.0.0.0/8")));
        assert!(admitted(&rule(-1, -1, "SourcePrefixListId", "pl-1")));
        assert!(!admitted(&rule(80, 443, "SourceSecurityGroupId", "sg-balancer")));
        assert!(!admitted(&rule(8080, 8080, "SourceSecurityGroupId", "sg-other")));
        assert!(!admitted(&json!({"SecurityGroupIngress": []})) && !admitted(&json!({})));
        let udp = json!({"SecurityGroupIngress": [{"IpProtocol": "udp", "FromPort": 0, "ToPort": 65_535, "CidrIp": "0.0.0.0/0"}]});
        assert!(!admitted(&udp));
        let out = json!({"SecurityGroupEgress": [{"IpProtocol": "-1", "DestinationSecurityGroupId": "sg-instances"}]});
        assert!(admits(&out, Way::Out, 8080, &["sg-instances".to_owned()]) && !admitted(&out));
    }
}

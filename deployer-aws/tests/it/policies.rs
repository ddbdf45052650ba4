//! The policies, and that they allow what the crate calls and nothing else.
//!
//! Calls are found in the sources, by how they have to be written: a client is declared with its type
//! (`ecs: aws_sdk_ecs::Client`, or `client: Client` beside `use aws_sdk_ecs::Client`), and a call is a method of it
//! (`self.ecs.update_service()`). Where the same name is declared in several places, the nearest counts: that of the file,
//! then that of its directory, then that of the crate. What this does not find (a client under a name of which nothing
//! says what it is) is found by the second way: every call names itself in its error, as in
//! `failed("ecs:UpdateService", ...)`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use deployer_aws::policy::{self, Account, Deploying};
use deployer_aws::{AwsOptions, EnvironmentNetwork, EnvironmentSpec, Machines, Namespace, Nat};
use serde_json::Value;

/// Methods of clients that call nothing.
const NO_CALLS: [&str; 2] = ["clone", "config"];

fn account() -> Account {
    Account::new("123456789012", "eu-central-1")
}

fn options() -> AwsOptions {
    let elb = "arn:aws:elasticloadbalancing:eu-central-1:123456789012";
    AwsOptions::new("staging", "vpc-1", "arn:aws:iam::123456789012:role/staging-ExecutionRole-1")
        .with_task_role("arn:aws:iam::123456789012:role/staging-TaskRole-1")
        .with_listener(format!("{elb}:listener/app/stagi-LoadB-1/0123456789abcdef/fedcba9876543210"))
        .with_network_balancer(format!("{elb}:loadbalancer/net/stagi-Netwo-1/0123456789abcdef"))
        .with_log_group("/deployer/staging")
        .with_namespace(Namespace::new("arn:aws:servicediscovery:eu-central-1:123456789012:namespace/ns-1", "staging"))
}

fn deploying() -> Value {
    let secret = |service: &str, what: &str| format!("arn:aws:{service}:eu-central-1:123456789012:{what}");
    let secrets = [secret("secretsmanager", "secret:shop/*"), secret("ssm", "parameter/shop/*")];
    let (account, options) = (account(), options());
    let program = Deploying::new(&account, &options).with_table("staging").with_secrets(&secrets);
    policy::deploying(&program.with_gates().with_scaling())
}

#[test]
fn policies_are_as_they_were_reviewed() {
    insta::assert_snapshot!("deploying", format!("{:#}", deploying()));
    let environment = policy::environment(&EnvironmentSpec::new("staging"), &account()).unwrap();
    insta::assert_snapshot!("environment", format!("{environment:#}"));
}

#[test]
fn roles_are_handed_to_ecs_only_and_no_others() {
    let policy = deploying();
    let statements = policy["Statement"].as_array().unwrap();
    let passing: Vec<&Value> =
        statements.iter().filter(|one| one["Action"].as_array().unwrap().contains(&"iam:PassRole".into())).collect();
    assert_eq!(passing.len(), 1);
    assert_eq!(passing[0]["Resource"].as_array().unwrap().len(), 2);
    assert_eq!(passing[0]["Condition"]["StringEquals"]["iam:PassedToService"], "ecs-tasks.amazonaws.com");
}

#[test]
fn what_is_not_worked_with_is_not_allowed() {
    let bare = AwsOptions::new("staging", "vpc-1", "arn:aws:iam::123456789012:role/execution");
    let policy = policy::deploying(&Deploying::new(&account(), &bare)).to_string();
    for (absent, why) in [
        ("dynamodb:", "table"),
        ("logs:", "log group"),
        ("CreateRule", "listener"),
        ("cloudwatch:", "gate"),
        ("autoscaling", "scaling"),
        ("secretsmanager:", "secret"),
        ("ssm:", "parameter"),
        ("servicediscovery:", "namespace"),
    ] {
        assert!(!policy.contains(absent), "{absent} without a {why}");
    }
}

#[test]
fn only_what_iam_cannot_tell_apart_is_allowed_on_everything() {
    let network = EnvironmentNetwork::New { cidr: "10.0.0.0/16".to_owned(), nat: Nat::PerZone };
    let machines = Machines::Ec2 { instance_type: "m7i.large".to_owned(), least: 0, most: 2 };
    let spec = EnvironmentSpec::new("staging").with_network(network).with_machines(machines);
    for policy in [deploying(), policy::environment(&spec, &account()).unwrap()] {
        for statement in policy["Statement"].as_array().unwrap() {
            let actions: Vec<&str> = statement["Action"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            assert!(actions.iter().all(|action| !action.contains('*')), "{statement}");
            if statement["Resource"] != "*" || statement.get("Condition").is_some() {
                continue;
            }
            for action in actions {
                let (service, name) = action.split_once(':').unwrap();
                let looks = ["Describe", "List", "GetAuthorizationToken", "GetMetricData", "GetResource"]
                    .iter()
                    .any(|word| name.starts_with(word));
                // IAM knows no resource for it.
                let pruning = action == "ecs:DeregisterTaskDefinition";
                // Cloud Map and Route 53 give namespaces and zones ids of their own.
                assert!(
                    looks || pruning || ["servicediscovery", "route53"].contains(&service),
                    "{action} on everything"
                );
            }
        }
    }
}

#[test]
fn policies_fit_where_they_are_attached() {
    let size = |policy: &Value| policy.to_string().len();
    assert!(size(&deploying()) < 6_144, "a managed policy takes no more: {}", size(&deploying()));
    let network = EnvironmentNetwork::New { cidr: "10.0.0.0/16".to_owned(), nat: Nat::PerZone };
    let machines = Machines::Ec2 { instance_type: "m7i.large".to_owned(), least: 0, most: 2 };
    let spec = EnvironmentSpec::new("staging").with_network(network).with_machines(machines);
    for spec in [EnvironmentSpec::new("staging"), spec] {
        let policy = policy::environment(&spec, &account()).unwrap();
        assert!(size(&policy) < 10_240, "a role's own policy takes no more: {}", size(&policy));
    }
}

/// The sources: path and text without comments and without white space between a client and its call.
fn sources() -> Vec<(PathBuf, String)> {
    fn collect(place: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>();
                let mut packed = String::new();
                for line in code {
                    if !line.trim_start().starts_with('.') {
                        packed.push('\n');
                    }
                    packed.push_str(line.trim());
                }
                found.push((path, packed));
            }
        }
    }
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    // The tables name calls without making them.
    found.retain(|(path, _)| !path.parent().unwrap().ends_with("policy"));
    found
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The word at the end of a text.
fn last_word(text: &str) -> &str {
    let start = text.rfind(|c| !is_word(c)).map_or(0, |index| index + 1);
    &text[start..]
}

fn first_word(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

/// The clients that a source declares: their names and their services.
fn clients(text: &str) -> BTreeMap<String, String> {
    let used = text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("use aws_sdk_")?;
        let (service, rest) = rest.split_once("::")?;
        let names = rest.starts_with("Client;") || rest.starts_with('{') && rest.contains("Client");
        names.then_some(service)
    });
    let mut found = BTreeMap::new();
    for (index, _) in text.match_indices("Client") {
        let (before, after) = (&text[..index], &text[index + "Client".len()..]);
        if after.starts_with(is_word) {
            continue;
        }
        let (before, service) = match before.strip_suffix("::") {
            Some(path) => {
                let name = last_word(path);
                let Some(service) = name.strip_prefix("aws_sdk_") else { continue };
                (&path[..path.len() - name.len()], service)
            }
            None => match used {
                Some(service) => (before, service),
                None => continue,
            },
        };
        let declared = before.trim_end_matches(['&', ' ']);
        // `name: Client`, or `let name = Client::new(...)`.
        let name = declared.strip_suffix(':').or(declared.strip_suffix('=')).map(|rest| last_word(rest.trim_end()));
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            found.insert(name.to_owned(), service.to_owned());
        }
    }
    found
}

/// Every call in the sources: service and method, and where.
fn calls() -> BTreeMap<(String, String), PathBuf> {
    let sources = sources();
    let mut by_place: BTreeMap<PathBuf, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (path, text) in &sources {
        for (name, service) in clients(text) {
            let mut place = Some(path.as_path());
            // The file, and every directory above it.
            while let Some(here) = place.filter(|here| !here.ends_with("deployer-aws")) {
                by_place.entry(here.to_owned()).or_default().entry(name.clone()).or_default().insert(service.clone());
                place = here.parent();
            }
        }
    }
    let names: BTreeSet<String> = by_place.values().flat_map(|names| names.keys().cloned()).collect();
    let mut found = BTreeMap::new();
    for (path, text) in &sources {
        for name in &names {
            let call = format!("{name}.");
            for (index, _) in text.match_indices(&call) {
                let (before, after) = (&text[..index], &text[index + call.len()..]);
                let method = first_word(after);
                if before.ends_with(is_word) || !after[method.len()..].starts_with('(') || NO_CALLS.contains(&method) {
                    continue;
                }
                let services = path.ancestors().find_map(|here| by_place.get(here)?.get(name)).unwrap();
                // Parts of a call that name what they take, such as `.client(...)`, are none.
                let service = services.iter().next().unwrap();
                assert_eq!(services.len(), 1, "{}: what is {name}.{method}() of: {services:?}?", path.display());
                found.insert((service.clone(), method.to_owned()), path.clone());
            }
        }
    }
    found
}

#[test]
fn whatever_is_called_is_in_the_table_and_whatever_is_in_it_is_called() {
    let known: BTreeSet<(String, String)> =
        policy::operations().map(|one| (one.service.to_owned(), one.method.to_owned())).collect();
    let calls = calls();
    assert!(calls.len() > 10, "{calls:#?}");
    for ((service, method), path) in &calls {
        let there = known.contains(&(service.clone(), method.clone()));
        assert!(there, "{}: no policy allows {service} {method}", path.display());
    }
    for call in &known {
        assert!(calls.contains_key(call), "{} {} is allowed, but never called", call.0, call.1);
    }
}

/// `put_item` is `PutItem`.
fn camel(method: &str) -> String {
    let word = |word: &str| word[..1].to_uppercase() + &word[1..];
    method.split('_').map(word).collect()
}

#[test]
fn whatever_an_error_says_was_called_is_allowed() {
    let mut allowed: BTreeSet<String> =
        policy::operations().flat_map(|operation| operation.actions).map(|&action| action.to_owned()).collect();
    // Some calls take other actions than one of their name.
    allowed.extend(policy::operations().map(|operation| format!("{}:{}", operation.service, camel(operation.method))));
    let mut checked = 0;
    for (path, text) in sources() {
        let texts =
            text.split("failed(").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
        for call in texts.filter(|text| text.split_once(':').is_some()) {
            assert!(allowed.contains(call), "{}: no policy allows {call}", path.display());
            checked += 1;
        }
    }
    assert!(checked > 5);
}

#[test]
fn every_operation_says_what_it_is_for_once() {
    let mut seen = BTreeSet::new();
    for operation in policy::operations() {
        assert!(!operation.why.is_empty() && !operation.actions.is_empty(), "{operation:?}");
        assert!(seen.insert((operation.service, operation.method)), "{operation:?} is there twice");
    }
}

#[test]
fn calls_are_found_as_they_are_written() {
    let source = "use aws_sdk_ecr::Client;\nstruct A { client: Client, ecs: aws_sdk_ecs::Client }\n\
                  fn a(logs: &aws_sdk_cloudwatchlogs::Client) {}\nlet elb = aws_sdk_elasticloadbalancingv2::Client::new(&c);";
    let found = clients(source);
    let service = |name: &str| found.get(name).map(String::as_str);
    assert_eq!(service("client"), Some("ecr"));
    assert_eq!(service("ecs"), Some("ecs"));
    assert_eq!(service("logs"), Some("cloudwatchlogs"));
    assert_eq!(service("elb"), Some("elasticloadbalancingv2"));
}

//! The operations of ECS and of CloudWatch Logs, as JSON.

use serde_json::{Value, json};

use super::services::{Service, Status};
use super::tasks::{Definition, Phase, Task};
use super::{CLUSTER, Cloud, LOG_GROUP, Refusal, Tags, arn};

type Answer = Result<Value, Refusal>;

/// Processor units of Fargate with the least and the most memory.
const FARGATE: [(u32, u32, u32); 7] = [
    (256, 512, 2_048),
    (512, 1_024, 4_096),
    (1_024, 2_048, 8_192),
    (2_048, 4_096, 16_384),
    (4_096, 8_192, 30_720),
    (8_192, 16_384, 61_440),
    (16_384, 32_768, 122_880),
];

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::rude("InvalidParameterException", message)
}

fn text<'a>(request: &'a Value, key: &str) -> &'a str {
    request[key].as_str().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn seconds(millis: u64) -> f64 {
    (super::http::EPOCH_MILLIS + millis) as f64 / 1_000.0
}

fn read_tags(request: &Value) -> Result<Tags, Refusal> {
    let all = request["tags"].as_array().into_iter().flatten();
    let tags: Tags = all.map(|tag| (text(tag, "key").to_owned(), text(tag, "value").to_owned())).collect();
    check_tags(&tags).map_err(invalid)?;
    Ok(tags)
}

pub(super) fn check_tags(tags: &Tags) -> Result<(), String> {
    if tags.len() > 50 {
        return Err(format!("{} tags are more than 50", tags.len()));
    }
    let odd = |text: &str| text.chars().any(|c| !(c.is_alphanumeric() || " _.:/=+-@".contains(c)));
    for (key, value) in tags {
        if key.is_empty() || key.len() > 128 || key.starts_with("aws:") || odd(key) || value.len() > 256 || odd(value) {
            return Err(format!("the tag {key}={value} is not valid"));
        }
    }
    Ok(())
}

fn write_tags(tags: &Tags) -> Value {
    tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
}

fn check_name(name: &str, most: usize) -> Result<(), Refusal> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > most || !name.chars().all(valid) {
        return Err(invalid(format!("the name {name:?} is not valid")));
    }
    Ok(())
}

impl Cloud {
    pub(super) fn ecs(&mut self, operation: &str, request: &Value) -> Option<Answer> {
        if !matches!(
            operation,
            "RegisterTaskDefinition"
                | "DescribeTaskDefinition"
                | "DeregisterTaskDefinition"
                | "ListTaskDefinitionFamilies"
                | "FilterLogEvents"
                | "TagResource"
                | "UntagResource"
        ) && text(request, "cluster") != CLUSTER
        {
            return Some(Err(Refusal::rude("ClusterNotFoundException", "Cluster not found.")));
        }
        Some(match operation {
            "RegisterTaskDefinition" => self.register_definition(request),
            "DescribeTaskDefinition" => self.describe_definition(request),
            "DeregisterTaskDefinition" => self.deregister_definition(request),
            "ListTaskDefinitionFamilies" => self.list_families(request),
            "CreateService" => self.create_service(request),
            "UpdateService" => self.update_service(request),
            "DeleteService" => self.delete_service(request),
            "DescribeServices" => self.describe_services(request),
            "ListServices" => self.list_services(request),
            "ListTasks" => self.list_tasks(request),
            "DescribeTasks" => self.describe_tasks(request),
            "RunTask" => self.run_task(request),
            "StopTask" => self.stop_task(request),
            "FilterLogEvents" => self.filter_logs(request),
            "TagResource" | "UntagResource" => self.tag_resource(request),
            _ => return None,
        })
    }

    fn register_definition(&mut self, request: &Value) -> Answer {
        let family = text(request, "family");
        check_name(family, 255).map_err(|refusal| Refusal::rude("ClientException", refusal.message))?;
        let wrong = |message: String| Refusal::rude("ClientException", message);
        if request["requiresCompatibilities"].as_array().is_some_and(|all| all.iter().any(|one| one == "FARGATE")) {
            let number = |key: &str| text(request, key).parse::<u32>().unwrap_or_default();
            let (cpu, memory) = (number("cpu"), number("memory"));
            let size = FARGATE.iter().find(|(size, ..)| *size == cpu);
            let fits = size.is_some_and(|(_, from, to)| (*from..=*to).contains(&memory));
            let whole = memory == 512 || memory.is_multiple_of(1_024);
            if !fits
                || !whole
                || text(request, "networkMode") != "awsvpc"
                || text(request, "executionRoleArn").is_empty()
            {
                return Err(wrong(format!("no Fargate task has {cpu} units and {memory} MiB")));
            }
        }
        let containers = request["containerDefinitions"].as_array().cloned().unwrap_or_default();
        if containers.is_empty() {
            return Err(wrong("Container list cannot be empty.".to_owned()));
        }
        for container in &containers {
            check_name(text(container, "name"), 255)?;
            let grace = container["stopTimeout"].as_u64().unwrap_or(30);
            let check = &container["healthCheck"];
            let retries = check["retries"].as_u64().unwrap_or(3);
            if text(container, "image").is_empty() || grace > 120 || !(1..=10).contains(&retries) {
                return Err(wrong(format!("the container {} is not valid", text(container, "name"))));
            }
        }
        let tags = read_tags(request)?;
        let known = self.definitions.entry(family.to_owned()).or_default();
        let arn = arn("ecs", &format!("task-definition/{family}:{}", known.len() + 1));
        let definition = Definition { arn, family: family.to_owned(), request: request.clone(), tags, active: true };
        known.push(definition.clone());
        Ok(json!({"taskDefinition": show_definition(&definition), "tags": write_tags(&definition.tags)}))
    }

    fn describe_definition(&self, request: &Value) -> Answer {
        let found = self.definition(text(request, "taskDefinition"));
        let found = found.ok_or_else(|| Refusal::fair("ClientException", "Unable to describe task definition."))?;
        let mut answer = json!({"taskDefinition": show_definition(found)});
        if strings(&request["include"]).contains(&"TAGS".to_owned()) {
            answer["tags"] = write_tags(&found.tags);
        }
        Ok(answer)
    }

    fn deregister_definition(&mut self, request: &Value) -> Answer {
        let name = text(request, "taskDefinition");
        let found = self.definitions.values_mut().flatten().find(|definition| definition.arn.ends_with(name));
        let Some(found) = found.filter(|_| name.contains(':')) else {
            return Err(Refusal::rude("ClientException", "The specified task definition does not exist."));
        };
        if !found.active {
            return Err(Refusal::fair("ClientException", "The specified task definition is inactive."));
        }
        found.active = false;
        Ok(json!({"taskDefinition": show_definition(found)}))
    }

    fn list_families(&self, request: &Value) -> Answer {
        let active = |all: &[Definition]| all.iter().any(|definition| definition.active);
        if request["status"] != "ACTIVE" {
            return Err(invalid("only those with active definitions are known here"));
        }
        let prefix = text(request, "familyPrefix");
        let named = self.definitions.iter().filter(|(family, all)| family.starts_with(prefix) && active(all));
        let families: Vec<&String> = named.map(|(family, _)| family).collect();
        Ok(json!({"families": families}))
    }

    /// What requests that make and change services have in common.
    fn check_service(&self, request: &Value) -> Result<Option<Definition>, Refusal> {
        let definition = match request["taskDefinition"].as_str() {
            Some(name) => {
                let found = self.definition(name).filter(|definition| definition.active).cloned();
                Some(found.ok_or_else(|| Refusal::rude("ClientException", "TaskDefinition not found."))?)
            }
            None => None,
        };
        if request["desiredCount"].as_i64().is_some_and(|count| !(0..=5_000).contains(&count)) {
            return Err(invalid("the desired count is out of range"));
        }
        if let Some(network) = request["networkConfiguration"]["awsvpcConfiguration"].as_object() {
            let (subnets, groups) = (network.get("subnets"), network.get("securityGroups"));
            let length = |list: Option<&Value>| list.and_then(Value::as_array).map_or(0, Vec::len);
            if !(1..=16).contains(&length(subnets)) || length(groups) > 5 {
                return Err(invalid("the network has no subnets or too many security groups"));
            }
        }
        Ok(definition)
    }

    fn check_groups(&self, request: &Value, definition: &Definition) -> Result<Vec<(String, String, u16)>, Refusal> {
        let mut groups = Vec::new();
        for one in request["loadBalancers"].as_array().into_iter().flatten() {
            let (group, container) = (text(one, "targetGroupArn"), text(one, "containerName"));
            if !self.groups.contains_key(group) {
                return Err(invalid("The specified target group does not exist."));
            }
            if !self.in_a_rule(group) {
                let message =
                    format!("The target group with targetGroupArn {group} does not have an associated load balancer.");
                return Err(invalid(message));
            }
            let port = one["containerPort"].as_u64().unwrap_or_default();
            let known = definition.containers().filter(|known| text(known, "name") == container);
            let mut ports = known.filter_map(|known| known["portMappings"].as_array()).flatten();
            if !ports.any(|known| known["containerPort"].as_u64() == Some(port)) {
                return Err(invalid(format!(
                    "The container {container} did not have a container port {port} defined."
                )));
            }
            groups.push((group.to_owned(), container.to_owned(), u16::try_from(port).unwrap_or_default()));
        }
        if groups.len() > 5 {
            return Err(invalid("a service has five target groups at most"));
        }
        Ok(groups)
    }

    fn create_service(&mut self, request: &Value) -> Answer {
        let name = text(request, "serviceName").to_owned();
        check_name(&name, 255)?;
        let token = text(request, "clientToken").to_owned();
        if token.len() > 36 {
            return Err(invalid("Client token too long"));
        }
        let definition = self.check_service(request)?.ok_or_else(|| invalid("TaskDefinition can not be blank."))?;
        let body = request.to_string();
        match self.services.get(&name).map(|service| service.status) {
            Some(Status::Active) => {
                let same = self.tokens.get(&format!("service/{name}/{token}")).is_some_and(|(known, _)| *known == body);
                if same && !token.is_empty() {
                    return Ok(json!({"service": self.show_service(&name, true)}));
                }
                let message = "Creation of service was not idempotent.";
                return Err(Refusal::fair("InvalidParameterException", message));
            }
            Some(Status::Draining) => {
                let message = "Unable to Start a service that is still Draining.";
                return Err(Refusal::fair("InvalidParameterException", message));
            }
            _ => {}
        }
        let groups = self.check_groups(request, &definition)?;
        let network = &request["networkConfiguration"]["awsvpcConfiguration"]["subnets"];
        if network.as_array().is_none_or(Vec::is_empty) {
            return Err(invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified."));
        }
        let grace = request["healthCheckGracePeriodSeconds"].as_u64();
        if grace.is_some() && groups.is_empty() {
            return Err(invalid(
                "Health check grace period is only valid for services configured to use load balancers",
            ));
        }
        let percent = |key: &str| request["deploymentConfiguration"][key].as_u64();
        if percent("minimumHealthyPercent").unwrap_or(100) >= percent("maximumPercent").unwrap_or(200) {
            return Err(invalid("no deployment can go on with these percentages"));
        }
        let registry = self.registry(request)?;
        let service = Service {
            name: name.clone(),
            status: Status::Active,
            desired: u32::try_from(request["desiredCount"].as_u64().unwrap_or_default()).unwrap_or_default(),
            tags: read_tags(request)?,
            deployments: Vec::new(),
            groups,
            registry,
            grace: grace.unwrap_or_default() * 1_000,
            created: self.now,
            deleted: None,
            events: Vec::new(),
            retry: 0,
            failures: 0,
        };
        self.services.insert(name.clone(), service);
        self.tokens.insert(format!("service/{name}/{token}"), (body, name.clone()));
        self.begin_deployment(&name, definition.arn);
        Ok(json!({"service": self.show_service(&name, true)}))
    }

    /// The name of a service by its name or ARN, if it is there.
    fn active(&self, request: &Value) -> Result<String, Refusal> {
        let name = text(request, "service").rsplit('/').next().unwrap_or_default().to_owned();
        match self.services.get(&name).map(|service| service.status) {
            Some(Status::Active) => Ok(name),
            Some(_) => Err(Refusal::fair("ServiceNotActiveException", "Service was not ACTIVE.")),
            None => Err(Refusal::fair("ServiceNotFoundException", "Service not found.")),
        }
    }

    fn update_service(&mut self, request: &Value) -> Answer {
        let name = self.active(request)?;
        let definition = self.check_service(request)?;
        let Some(service) = self.services.get(&name) else { return Err(invalid("it is gone")) };
        let current = service.deployments.first().map(|primary| primary.definition.clone()).unwrap_or_default();
        let wanted = definition.as_ref().map_or_else(|| current.clone(), |definition| definition.arn.clone());
        let mut anew = wanted != current || request["forceNewDeployment"] == true;
        let full = self.definition(&wanted).cloned();
        if request["loadBalancers"].is_array()
            && let Some(full) = &full
        {
            let groups = self.check_groups(request, full)?;
            anew |= service.groups != groups;
            if let Some(service) = self.services.get_mut(&name) {
                service.groups = groups;
            }
        }
        let registry = self.registry(request)?;
        if let Some(service) = self.services.get_mut(&name).filter(|_| request["serviceRegistries"].is_array()) {
            anew |= service.registry != registry;
            service.registry = registry;
        }
        if let (Some(service), Some(grace)) =
            (self.services.get_mut(&name), request["healthCheckGracePeriodSeconds"].as_u64())
        {
            if service.groups.is_empty() {
                return Err(invalid(
                    "Health check grace period is only valid for services configured to use load balancers",
                ));
            }
            service.grace = grace * 1_000;
        }
        if let (Some(service), Some(count)) = (self.services.get_mut(&name), request["desiredCount"].as_u64()) {
            service.desired = u32::try_from(count).unwrap_or_default();
        }
        if anew {
            self.begin_deployment(&name, wanted);
        }
        Ok(json!({"service": self.show_service(&name, true)}))
    }

    fn tag_resource(&mut self, request: &Value) -> Answer {
        let (tags, keys) = (read_tags(request)?, strings(&request["tagKeys"]));
        if tags.is_empty() && keys.is_empty() {
            return Err(invalid("there are no tags"));
        }
        let name = text(request, "resourceArn").rsplit_once("/").map(|(_, name)| name).unwrap_or_default();
        let service = self.services.get_mut(name).filter(|service| service.status == Status::Active);
        let service = service.ok_or_else(|| Refusal::fair("InvalidParameterException", "The service is not there."))?;
        service.tags.retain(|key, _| !keys.contains(key));
        service.tags.extend(tags);
        Ok(json!({}))
    }

    fn delete_service(&mut self, request: &Value) -> Answer {
        let name = self.active(request)?;
        let forced = request["force"] == true;
        let now = self.now + self.profile.deletion;
        let Some(service) = self.services.get_mut(&name) else { return Err(invalid("it is gone")) };
        if service.desired > 0 && !forced {
            return Err(invalid("The service cannot be stopped while it is scaled above 0."));
        }
        (service.status, service.desired, service.deleted) = (Status::Draining, 0, Some(now));
        Ok(json!({"service": self.show_service(&name, false)}))
    }

    fn describe_services(&self, request: &Value) -> Answer {
        let names = strings(&request["services"]);
        if names.is_empty() || names.len() > 10 {
            return Err(invalid(format!("{} services cannot be described at once", names.len())));
        }
        let tags = strings(&request["include"]).contains(&"TAGS".to_owned());
        let (mut services, mut failures) = (Vec::new(), Vec::new());
        for name in names.iter().rev() {
            let name = name.rsplit('/').next().unwrap_or_default();
            match self.services.get(name) {
                Some(_) => services.push(self.show_service(name, tags)),
                None => {
                    failures.push(json!({"arn": arn("ecs", &format!("service/{CLUSTER}/{name}")), "reason": "MISSING"}))
                }
            }
        }
        Ok(json!({"services": services, "failures": failures}))
    }

    fn list_services(&self, request: &Value) -> Answer {
        let most = usize::try_from(request["maxResults"].as_u64().unwrap_or(10)).unwrap_or(10);
        if !(1..=100).contains(&most) {
            return Err(invalid("maxResults is out of range"));
        }
        let listed: Vec<String> =
            self.services.values().filter(|one| one.status != Status::Inactive).map(Service::arn).collect();
        let from: usize = text(request, "nextToken").parse().unwrap_or_default();
        let page: Vec<&String> = listed.iter().skip(from).take(most).collect();
        let mut answer = json!({"serviceArns": page});
        if from + most < listed.len() {
            answer["nextToken"] = json!((from + most).to_string());
        }
        Ok(answer)
    }

    fn list_tasks(&self, request: &Value) -> Answer {
        let stopped = match request["desiredStatus"].as_str() {
            Some("STOPPED") => true,
            Some("RUNNING") | None => false,
            Some(other) => return Err(invalid(format!("{other} is no desired status"))),
        };
        let service = request["serviceName"].as_str();
        if let Some(name) = service
            && self.services.get(name).is_none_or(|service| service.status == Status::Inactive)
        {
            return Err(Refusal::fair("ServiceNotFoundException", "Service not found."));
        }
        if service.is_some() && request["startedBy"].is_string() {
            return Err(invalid("cannot specify service name and started by at once"));
        }
        let mut found: Vec<String> = self
            .tasks
            .values()
            .filter(|task| task.is_wanted() != stopped)
            .filter(|task| service.is_none_or(|name| task.service.as_deref() == Some(name)))
            .filter(|task| request["startedBy"].as_str().is_none_or(|starter| task.started_by == starter))
            .map(Task::arn)
            .collect();
        // In no order that would tell anything.
        found.reverse();
        let from: usize = text(request, "nextToken").parse().unwrap_or_default();
        let page: Vec<&String> = found.iter().skip(from).take(100).collect();
        let mut answer = json!({"taskArns": page});
        if from + 100 < found.len() {
            answer["nextToken"] = json!((from + 100).to_string());
        }
        Ok(answer)
    }

    fn describe_tasks(&self, request: &Value) -> Answer {
        let names = strings(&request["tasks"]);
        if names.is_empty() || names.len() > 100 {
            return Err(invalid(format!("{} tasks cannot be described at once", names.len())));
        }
        let tags = strings(&request["include"]).contains(&"TAGS".to_owned());
        let (mut tasks, mut failures) = (Vec::new(), Vec::new());
        for name in &names {
            let id = name.rsplit('/').next().unwrap_or_default();
            match self.tasks.get(id) {
                Some(task) => tasks.push(self.show_task(task, tags)),
                None => failures.push(json!({"arn": name, "reason": "MISSING"})),
            }
        }
        Ok(json!({"tasks": tasks, "failures": failures}))
    }

    fn run_task(&mut self, request: &Value) -> Answer {
        let definition = self.check_service(request)?.ok_or_else(|| invalid("TaskDefinition can not be blank."))?;
        let (token, starter) = (text(request, "clientToken").to_owned(), text(request, "startedBy").to_owned());
        if token.len() > 64 || starter.len() > 36 {
            return Err(invalid("clientToken or startedBy is too long"));
        }
        let body = request.to_string();
        if let Some((known, id)) = self.tokens.get(&format!("task/{token}")).filter(|_| !token.is_empty()) {
            if *known != body {
                let message = "The provided clientToken is already in use with a different RunTask request.";
                return Err(Refusal::rude("ConflictException", message));
            }
            let tasks: Vec<Value> = self.tasks.get(id).map(|task| self.show_task(task, true)).into_iter().collect();
            return Ok(json!({"tasks": tasks, "failures": []}));
        }
        let overrides = request["overrides"]["containerOverrides"].as_array().cloned().unwrap_or_default();
        for one in &overrides {
            if definition.containers().all(|container| container["name"] != one["name"]) {
                return Err(invalid("Override for container that is not in the task definition."));
            }
        }
        let command = overrides.first().map(|one| strings(&one["command"]).join(" ")).unwrap_or_default();
        let tags = read_tags(request)?;
        let group = text(request, "group").to_owned();
        let id = self.start_task(&definition.arn, None, &starter, group, tags, Some(&command));
        self.tokens.insert(format!("task/{token}"), (body, id.clone()));
        let task = self.tasks.get(&id).map(|task| self.show_task(task, true));
        Ok(json!({"tasks": [task], "failures": []}))
    }

    fn stop_task(&mut self, request: &Value) -> Answer {
        let id = text(request, "task").rsplit('/').next().unwrap_or_default().to_owned();
        if !self.tasks.contains_key(&id) {
            return Err(Refusal::fair("InvalidParameterException", "The referenced task was not found."));
        }
        if let Some(task) = self.tasks.get_mut(&id).filter(|task| task.is_wanted()) {
            (task.stop_code, task.reason) = ("UserInitiated", text(request, "reason").to_owned());
            self.end(&id);
        }
        let task = self.tasks.get(&id).map(|task| self.show_task(task, false));
        Ok(json!({"task": task}))
    }

    fn filter_logs(&self, request: &Value) -> Answer {
        if text(request, "logGroupName") != LOG_GROUP {
            return Err(Refusal::fair("ResourceNotFoundException", "The specified log group does not exist."));
        }
        let from = request["startTime"].as_u64().unwrap_or_default();
        let (prefix, names) = (request["logStreamNamePrefix"].as_str(), strings(&request["logStreamNames"]));
        if prefix.is_some() != names.is_empty() || names.len() > 100 {
            return Err(invalid("either up to 100 streams are named, or what their names begin with"));
        }
        let wanted = |line: &super::Line| match prefix {
            Some(prefix) => line.stream.starts_with(prefix),
            None => names.contains(&line.stream),
        };
        let shown = self.lines.iter().enumerate().filter(|(_, line)| wanted(line));
        let shown = shown
            .map(|(index, line)| (index, line, super::http::EPOCH_MILLIS + line.at))
            .filter(|(.., at)| *at >= from);
        let events: Vec<Value> = shown
            .map(|(index, line, at)| {
                json!({"eventId": format!("{index:05}"), "logStreamName": line.stream, "timestamp": at,
                       "ingestionTime": at, "message": line.text})
            })
            .collect();
        Ok(json!({"events": events, "searchedLogStreams": []}))
    }

    fn show_service(&self, name: &str, tags: bool) -> Value {
        let Some(service) = self.services.get(name) else { return Value::Null };
        let (running, pending) = self.counts(name);
        let status = match service.status {
            Status::Active => "ACTIVE",
            Status::Draining => "DRAINING",
            Status::Inactive => "INACTIVE",
        };
        let deployments: Vec<Value> = service
            .deployments
            .iter()
            .enumerate()
            .map(|(index, one)| {
                json!({"id": one.id, "status": if index == 0 { "PRIMARY" } else { "ACTIVE" },
                       "taskDefinition": one.definition, "createdAt": seconds(one.created), "updatedAt": seconds(one.created),
                       "failedTasks": one.failed, "rolloutState": one.rollout, "rolloutStateReason": one.reason,
                       "desiredCount": service.desired})
            })
            .collect();
        let groups: Vec<Value> = service
            .groups
            .iter()
            .map(|(arn, container, port)| json!({"targetGroupArn": arn, "containerName": container, "containerPort": port}))
            .collect();
        let events: Vec<Value> = service
            .events
            .iter()
            .map(|(at, message)| json!({"id": at.to_string(), "createdAt": seconds(*at), "message": message}))
            .collect();
        let mut shown = json!({
            "serviceArn": service.arn(), "serviceName": name, "status": status, "desiredCount": service.desired,
            "runningCount": running, "pendingCount": pending, "launchType": "FARGATE", "loadBalancers": groups,
            "taskDefinition": service.deployments.first().map(|one| one.definition.clone()),
            "deployments": deployments, "events": events, "createdAt": seconds(service.created),
            "clusterArn": arn("ecs", &format!("cluster/{CLUSTER}")),
            "serviceRegistries": service.registry.iter().map(|arn| json!({"registryArn": arn})).collect::<Vec<_>>(),
        });
        if tags {
            shown["tags"] = write_tags(&service.tags);
        }
        shown
    }

    fn show_task(&self, task: &Task, tags: bool) -> Value {
        let status = match task.phase {
            Phase::Provisioning => "PROVISIONING",
            Phase::Pending => "PENDING",
            Phase::Running => "RUNNING",
            Phase::Deactivating => "DEACTIVATING",
            Phase::Stopping => "DEPROVISIONING",
            Phase::Stopped => "STOPPED",
        };
        let image = self.definition(&task.definition).map(Definition::image).unwrap_or_default();
        let container = json!({
            "name": "container", "image": image, "imageDigest": image.split_once('@').map(|(_, digest)| digest),
            "lastStatus": status, "exitCode": task.exit,
            "networkInterfaces": [{"privateIpv4Address": task.address}],
        });
        let mut shown = json!({
            "taskArn": task.arn(), "taskDefinitionArn": task.definition, "lastStatus": status,
            "desiredStatus": if task.is_wanted() { "RUNNING" } else { "STOPPED" }, "healthStatus": "UNKNOWN",
            "group": task.group, "startedBy": task.started_by, "createdAt": seconds(task.created),
            "containers": [container], "clusterArn": arn("ecs", &format!("cluster/{CLUSTER}")),
            "connectivity": if task.started.is_some() { "CONNECTED" } else { "DISCONNECTED" },
            "attachments": [{"id": "1", "type": "ElasticNetworkInterface", "status": "ATTACHED",
                             "details": [{"name": "privateIPv4Address", "value": task.address}]}],
        });
        for (key, at) in [("startedAt", task.started), ("stoppingAt", task.stopping), ("stoppedAt", task.stopped)] {
            if let Some(at) = at {
                shown[key] = json!(seconds(at));
            }
        }
        if !task.is_wanted() {
            shown["stopCode"] = json!(task.stop_code);
            shown["stoppedReason"] = json!(task.reason);
        }
        if tags {
            shown["tags"] = write_tags(&task.tags);
        }
        shown
    }
}

fn show_definition(definition: &Definition) -> Value {
    let mut shown = definition.request.clone();
    shown["taskDefinitionArn"] = json!(definition.arn);
    shown["status"] = json!(if definition.active { "ACTIVE" } else { "INACTIVE" });
    if let Some(all) = shown.as_object_mut() {
        all.remove("tags");
    }
    shown
}

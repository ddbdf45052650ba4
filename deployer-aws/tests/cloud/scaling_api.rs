//! The operations of Application Auto Scaling, and what it does: it brings the tasks of a service to the number that the
//! users' demand takes, one by one and within bounds.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::services::Status;
use super::{CLUSTER, Cloud, LISTENER, Refusal, arn};

type Answer = Result<Value, Refusal>;

/// How often it acts.
const ACTS: u64 = 2_000;
/// How long a rush takes.
const RUSH: u64 = 60_000;

/// A service whose number of tasks may be changed.
#[derive(Clone, Debug)]
pub(crate) struct ScalableTarget {
    pub(crate) min: u32,
    pub(crate) max: u32,
    pub(crate) policies: BTreeMap<String, Value>,
    pub(crate) schedules: BTreeMap<String, Value>,
    next: u64,
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::rude("ValidationException", message)
}

fn not_found(id: &str) -> Refusal {
    Refusal::fair("ObjectNotFoundException", format!("No scalable target found for {id}"))
}

fn number(request: &Value, key: &str) -> Result<Option<u32>, Refusal> {
    let Some(number) = request[key].as_i64() else { return Ok(None) };
    u32::try_from(number).map(Some).map_err(|_| invalid(format!("{key} is out of range")))
}

/// The name of the service that a request is about.
fn service(request: &Value) -> Result<String, Refusal> {
    let id = request["ResourceId"].as_str().unwrap_or_default();
    let name = id.strip_prefix(&format!("service/{CLUSTER}/"));
    match name {
        Some(name) if request["ServiceNamespace"] == "ecs" => match request["ScalableDimension"].as_str() {
            Some("ecs:service:DesiredCount") => Ok(name.to_owned()),
            other => Err(invalid(format!("{other:?} is no dimension of a service"))),
        },
        _ => Err(invalid(format!("{id:?} is no service of the cluster"))),
    }
}

impl Cloud {
    pub(super) fn autoscaling(&mut self, operation: &str, request: &Value) -> Option<Answer> {
        Some(match operation {
            "RegisterScalableTarget" => self.register_target(request),
            "DeregisterScalableTarget" => self.deregister_target(request),
            "DescribeScalableTargets" => self.describe_targets(request),
            "PutScalingPolicy" => self.put_policy(request),
            "PutScheduledAction" => self.put_schedule(request),
            _ => return None,
        })
    }

    /// How many tasks the users' demand takes now.
    fn demand(&self) -> u32 {
        let rushes = self.rush.is_some_and(|since| self.now < since + RUSH);
        if rushes { self.profile.rush } else { self.profile.usual }
    }

    /// Users come in a rush, for a minute.
    pub(crate) fn begin_rush(&mut self) {
        self.rush = Some(self.now);
    }

    pub(super) fn next_scaling(&self) -> impl Iterator<Item = u64> {
        self.targets.values().map(|target| target.next)
    }

    pub(super) fn step_scaling(&mut self) {
        let (now, demand) = (self.now, self.demand());
        for (name, target) in self.targets.iter_mut().filter(|(_, target)| target.next <= now) {
            target.next = now + ACTS;
            let Some(service) = self.services.get_mut(name).filter(|service| service.status == Status::Active) else {
                continue;
            };
            let wanted = demand.clamp(target.min, target.max);
            if !target.policies.is_empty() {
                service.desired = match service.desired {
                    fewer if fewer < wanted => fewer + 1,
                    more if more > wanted => more - 1,
                    same => same,
                };
            }
        }
    }

    fn register_target(&mut self, request: &Value) -> Answer {
        let name = service(request)?;
        let (min, max) = (number(request, "MinCapacity")?, number(request, "MaxCapacity")?);
        let known = self.targets.get(&name).map(|target| (target.min, target.max));
        let bounds = (min.or(known.map(|known| known.0)), max.or(known.map(|known| known.1)));
        let (Some(min), Some(max)) = bounds else { return Err(invalid("a new target needs both bounds")) };
        if min > max {
            return Err(invalid("the minimum is more than the maximum"));
        }
        let Some(service) = self.services.get_mut(&name).filter(|service| service.status == Status::Active) else {
            return Err(invalid(format!("ECS service doesn't exist: {name}")));
        };
        // What is out of bounds is brought within them at once.
        service.desired = service.desired.clamp(min, max);
        let next = self.now + ACTS;
        let new = || ScalableTarget { min, max, policies: BTreeMap::new(), schedules: BTreeMap::new(), next };
        let target = self.targets.entry(name).or_insert_with(new);
        (target.min, target.max) = (min, max);
        Ok(json!({"ScalableTargetARN": arn("application-autoscaling", "scalable-target/1")}))
    }

    fn deregister_target(&mut self, request: &Value) -> Answer {
        let name = service(request)?;
        self.targets.remove(&name).map(|_| json!({})).ok_or_else(|| not_found(&name))
    }

    fn describe_targets(&self, request: &Value) -> Answer {
        let ids = request["ResourceIds"].as_array().cloned().unwrap_or_default();
        if request["ServiceNamespace"] != "ecs" || ids.len() > 50 {
            return Err(invalid("the namespace is missing, or there are too many ids"));
        }
        let targets = self.targets.iter().filter_map(|(name, target)| {
            let id = format!("service/{CLUSTER}/{name}");
            (ids.is_empty() || ids.iter().any(|one| *one == id)).then(|| {
                json!({"ServiceNamespace": "ecs", "ResourceId": id, "ScalableDimension": "ecs:service:DesiredCount",
                       "MinCapacity": target.min, "MaxCapacity": target.max, "CreationTime": 1, "RoleARN": "arn:role"})
            })
        });
        Ok(json!({"ScalableTargets": targets.collect::<Vec<_>>()}))
    }

    fn put_policy(&mut self, request: &Value) -> Answer {
        let name = service(request)?;
        let configuration = &request["TargetTrackingScalingPolicyConfiguration"];
        let value = configuration["TargetValue"].as_f64().unwrap_or_default();
        let metric = &configuration["PredefinedMetricSpecification"];
        let label = metric["ResourceLabel"].as_str();
        if request["PolicyType"] != "TargetTrackingScaling" || value <= 0.0 {
            return Err(invalid("only targets above nothing are known here"));
        }
        match metric["PredefinedMetricType"].as_str() {
            Some("ECSServiceAverageCPUUtilization" | "ECSServiceAverageMemoryUtilization") if label.is_none() => {}
            Some("ALBRequestCountPerTarget") => self.check_label(&name, label.unwrap_or_default())?,
            other => return Err(invalid(format!("{other:?} with the label {label:?} is not known here"))),
        }
        let policy = request["PolicyName"].as_str().unwrap_or_default().to_owned();
        let target = self.targets.get_mut(&name).ok_or_else(|| not_found(&name))?;
        target.policies.insert(policy, request.clone());
        Ok(json!({"PolicyARN": arn("autoscaling", "scalingPolicy:1"), "Alarms": []}))
    }

    /// The label names the load balancer and a target group of the service to which a rule refers.
    fn check_label(&self, name: &str, label: &str) -> Result<(), Refusal> {
        let balancer = LISTENER.split_once(":listener/").and_then(|(_, path)| path.rsplit_once('/'));
        let group = balancer.and_then(|(balancer, _)| label.strip_prefix(&format!("{balancer}/")));
        let groups = self.services.get(name).into_iter().flat_map(|service| &service.groups);
        let known =
            |group: &str| groups.clone().any(|(arn, ..)| arn.ends_with(&format!(":{group}")) && self.in_a_rule(arn));
        match group {
            Some(group) if known(group) => Ok(()),
            _ => Err(invalid(format!("{label:?} names no target group of {name}"))),
        }
    }

    fn put_schedule(&mut self, request: &Value) -> Answer {
        let name = service(request)?;
        let schedule = request["Schedule"].as_str().unwrap_or_default();
        let fields = schedule.strip_prefix("cron(").and_then(|rest| rest.strip_suffix(')')).unwrap_or_default();
        let fields: Vec<&str> = fields.split(' ').collect();
        if fields.len() != 6 || fields.iter().filter(|field| **field == "?").count() != 1 {
            return Err(invalid(format!("{schedule:?} is not a schedule")));
        }
        let action = &request["ScalableTargetAction"];
        if number(action, "MinCapacity")?.is_none() && number(action, "MaxCapacity")?.is_none() {
            return Err(invalid("the action changes nothing"));
        }
        let schedule = request["ScheduledActionName"].as_str().unwrap_or_default().to_owned();
        let target = self.targets.get_mut(&name).ok_or_else(|| not_found(&name))?;
        target.schedules.insert(schedule, request.clone());
        Ok(json!({}))
    }

    /// A service must not be left by the traffic for one with fewer tasks.
    pub(super) fn check_flip(&mut self, before: &[(String, u32)], after: &[(String, u32)]) {
        let most =
            |forward: &[(String, u32)]| forward.iter().max_by_key(|(_, weight)| *weight).map(|(arn, _)| arn.clone());
        let of = |group: Option<String>| {
            let group = group?;
            self.services.values().find(|service| service.groups.iter().any(|(arn, ..)| *arn == group))
        };
        let (Some(before), Some(after)) = (of(most(before)), of(most(after))) else { return };
        let scales = before.tags.contains_key("deployer:scaling") && self.profile.rush > 0;
        if scales && before.name != after.name && after.desired < before.desired {
            let (left, right) = (before.desired, after.desired);
            self.breaks(format!(
                "traffic moves from {left} tasks of {} to {right} of {}",
                before.name.clone(),
                after.name
            ));
        }
    }

    /// What of scaling is not as a release wants it: the target of each of its services, by the service's slot that serves.
    pub(crate) fn scaling_differs(&self, app: &str, release: &deployer_core::Release) -> Vec<String> {
        let mut found = Vec::new();
        let ours = |name: &&String| {
            let owner = self.services.get(*name).and_then(|service| service.tags.get("deployer:app"));
            owner.is_some_and(|owner| owner == app)
        };
        let mut left: Vec<&String> = self.targets.keys().filter(ours).collect();
        for (name, service) in &release.services {
            let Some(scaling) = &service.scaling else { continue };
            let revision = service.revision(name);
            let family =
                |definition: &str| self.definition(definition).is_some_and(|one| one.family.ends_with(revision.hash()));
            let slot = self.services.values().find(|slot| {
                let serves = slot.deployments.first().is_some_and(|primary| family(&primary.definition));
                serves && slot.desired > 0 && slot.tags.get("deployer:app").is_some_and(|owner| owner == app)
            });
            let target = slot.and_then(|slot| self.targets.get(&slot.name));
            let same = target.is_some_and(|target| {
                (target.min, target.max) == (scaling.min, scaling.max)
                    && target.policies.len() == scaling.targets.len()
                    && target.schedules.len() == scaling.schedules.len()
            });
            if !same {
                found.push(format!("{revision} is scaled by {target:?} instead of {scaling:?}"));
            }
            left.retain(|name| slot.is_none_or(|slot| slot.name != **name));
        }
        found.extend(left.into_iter().map(|name| format!("{name} is scaled and should not be")));
        found
    }
}

//! A simulated AWS that answers the requests of the SDK's own clients: ECS, Elastic Load Balancing, CloudWatch with its
//! logs, Application Auto Scaling, Cloud Map, DynamoDB, ECR, Secrets Manager and the Parameter Store, as far as
//! `deployer-aws` uses them. Its time is virtual, it refuses what AWS
//! refuses, and it keeps its own account of what runs, where traffic goes and which requests were lost.
//!
//! What it knows of AWS is what AWS documents; how long things take is a guess, and none of its numbers says anything about
//! real time.

pub(crate) mod balancer;
mod cbor;
pub(crate) mod check;
mod ecs_api;
mod elb_api;
mod expression;
pub(crate) mod http;
pub(crate) mod images_api;
pub(crate) mod metrics_api;
pub(crate) mod names_api;
mod pace;
pub(crate) mod play;
pub(crate) mod proof;
pub(crate) mod records_api;
mod scaling_api;
pub(crate) mod scenarios;
mod secrets_api;
pub(crate) mod services;
pub(crate) mod shape;
pub(crate) mod strike;
pub(crate) mod tasks;
pub(crate) mod traffic;

use std::collections::BTreeMap;

use balancer::{Group, Rule};
use images_api::Repository;
use metrics_api::{Alarm, Counted};
use names_api::Name;
use pace::Buckets;
use records_api::Records;
use scaling_api::ScalableTarget;
use secrets_api::Vault;
use services::Service;
use tasks::{Definition, Task};
use traffic::Traffic;

/// The one cluster.
pub(crate) const CLUSTER: &str = "stage";
/// The one listener.
pub(crate) const NETWORK: &str = "arn:aws:elasticloadbalancing:nowhere:123456789012:loadbalancer/net/stage/1";
pub(crate) const LISTENER: &str = "arn:aws:elasticloadbalancing:nowhere:123456789012:listener/app/stage/1/1";
/// The one log group.
pub(crate) const LOG_GROUP: &str = "/deployer/stage";

pub(crate) type Tags = BTreeMap<String, String>;

/// How this AWS behaves where AWS promises nothing. Times are milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    /// From the wish for a task until its image is pulled, and from there until it runs.
    pub(crate) provisioning: u64,
    pub(crate) pulling: u64,
    /// From the registration of a target until it is asked for the first time.
    pub(crate) first_probe: u64,
    /// Until the last node of the load balancer has new weights.
    pub(crate) propagation: u64,
    /// Until a service that was deleted is gone.
    pub(crate) deletion: u64,
    /// Whether a task that drains counts as running.
    pub(crate) draining_counts: bool,
    /// How many tasks the users' demand takes, usually and in a rush, where a service scales.
    pub(crate) usual: u32,
    pub(crate) rush: u32,
    /// Whether the published rates of requests hold.
    pub(crate) rates: bool,
    /// Whether services have names.
    pub(crate) names: bool,
    /// Whether there is a Network Load Balancer.
    pub(crate) publishes: bool,
    /// Whether images are in ECR and records in DynamoDB, and not in the testkit's world.
    pub(crate) whole: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            provisioning: 800,
            pulling: 1_200,
            first_probe: 700,
            propagation: 3_000,
            deletion: 2_500,
            draining_counts: false,
            usual: 3,
            rush: 0,
            rates: false,
            names: false,
            publishes: false,
            whole: false,
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// Whether only a program that does not know AWS gets it.
    pub(crate) rude: bool,
    /// Why each part of a transaction was refused.
    pub(crate) reasons: Vec<&'static str>,
}

impl Refusal {
    /// One that a careful program meets as well.
    pub(crate) fn fair(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), rude: false, reasons: Vec::new() }
    }

    /// One that tells of a mistake.
    pub(crate) fn rude(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), rude: true, reasons: Vec::new() }
    }
}

/// What there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cloud {
    /// Milliseconds since the beginning.
    pub(crate) now: u64,
    pub(crate) profile: Profile,
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) tasks: BTreeMap<String, Task>,
    /// Task definitions by family, the oldest first.
    pub(crate) definitions: BTreeMap<String, Vec<Definition>>,
    /// Target groups by ARN.
    pub(crate) groups: BTreeMap<String, Group>,
    /// Rules by ARN; and the listeners of the Network Load Balancer, which are like rules with a port for a condition.
    pub(crate) rules: BTreeMap<String, Rule>,
    /// What was asked for with a client token, and what came of it.
    tokens: BTreeMap<String, (String, String)>,
    pub(crate) traffic: Traffic,
    pub(crate) lines: Vec<Line>,
    /// CloudWatch's alarms by name.
    pub(crate) alarms: BTreeMap<String, Alarm>,
    pub(crate) counted: Counted,
    /// Application Auto Scaling's targets, by the name of the ECS service.
    pub(crate) targets: BTreeMap<String, ScalableTarget>,
    /// The names in the namespace.
    pub(crate) names: BTreeMap<String, Name>,
    /// DynamoDB's table.
    pub(crate) records: Records,
    /// ECR's repositories by name.
    pub(crate) repositories: BTreeMap<String, Repository>,
    /// How many seconds ECR's tokens are good for, if it is not half a day.
    pub(crate) token_lasts: Option<u64>,
    /// Secrets and parameters.
    pub(crate) vault: Vault,
    /// When users came in a rush.
    rush: Option<u64>,
    /// What was asked for that a careful program does not ask for.
    pub(crate) broken: Vec<String>,
    buckets: Buckets,
    /// The ids of tasks by their ECS service.
    of_service: BTreeMap<String, Vec<String>>,
    /// Whether somebody has changed something since the last time that all was settled.
    pub(crate) stirred: bool,
    serial: u64,
}

/// A line that a container has written.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) stream: String,
    pub(crate) at: u64,
    pub(crate) text: String,
}

impl Cloud {
    pub(crate) fn with_profile(profile: Profile) -> Self {
        Self { profile, ..Self::default() }
    }

    /// A number that no other thing has.
    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, to: u64) {
        if std::mem::take(&mut self.stirred) {
            self.settle();
        }
        loop {
            let due = self.due().filter(|due| *due <= to);
            // Requests of users change nothing that anything else waits for.
            self.send_until(due.unwrap_or(to));
            let Some(due) = due else { break };
            self.now = due.max(self.now);
            self.settle();
        }
        self.now = self.now.max(to);
    }

    /// Does what is due, until nothing is.
    fn settle(&mut self) {
        // What a task does can be what its service waits for, and the other way round.
        for _ in 0..3 {
            self.step_scaling();
            self.step_tasks();
            self.step_targets();
            self.step_services();
        }
    }

    /// When something happens next by itself.
    fn due(&self) -> Option<u64> {
        let tasks = self.tasks.values().filter_map(|task| task.next);
        let services = self.services.values().filter_map(|service| service.next(self.now));
        let targets = self.groups.values().flat_map(|group| group.next());
        let scaling = self.next_scaling();
        tasks.chain(services).chain(targets).chain(scaling).filter(|due| *due > self.now).min()
    }

    pub(crate) fn breaks(&mut self, what: impl Into<String>) {
        let text = format!("at {:.1} s: {}", self.now as f64 / 1_000.0, what.into());
        self.broken.push(text);
    }
}

/// A service's ARN and the like.
pub(crate) fn arn(service: &str, name: &str) -> String {
    format!("arn:aws:{service}:nowhere:123456789012:{name}")
}

//! What all parts of the backend share: clients, options, and what is remembered between two looks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::{RetryConfig, RetryMode};
use deployer_core::AppName;
use tokio::time::Instant;

use crate::cache::{Cache, Changing};
use crate::discovery::Registry;
use crate::ecs::{KnownDefinition, KnownTask, Scaled, Slot};
use crate::elb::{KnownGroup, LiveRule, TargetHealth};
use crate::options::AwsOptions;

/// How long the list of an application's slots is believed. Slots are made once, and only by whoever holds the lease.
const LISTED: Duration = Duration::from_secs(10);

/// An account, a region and a cluster, as all parts of one backend see it.
pub(crate) struct Site {
    pub(crate) ecs: aws_sdk_ecs::Client,
    pub(crate) elb: aws_sdk_elasticloadbalancingv2::Client,
    pub(crate) logs: aws_sdk_cloudwatchlogs::Client,
    pub(crate) cloudwatch: aws_sdk_cloudwatch::Client,
    pub(crate) autoscaling: aws_sdk_applicationautoscaling::Client,
    pub(crate) cloudmap: aws_sdk_servicediscovery::Client,
    /// The Cloud Control API.
    pub(crate) control: aws_sdk_cloudcontrol::Client,
    pub(crate) options: AwsOptions,
    /// The slots of applications.
    pub(crate) slots: Cache<Vec<Slot>>,
    /// That the tasks of applications were looked at.
    pub(crate) looked: Cache<()>,
    /// The listener's rules.
    pub(crate) rules: Cache<Vec<LiveRule>>,
    /// The targets of target groups.
    pub(crate) health: Cache<Vec<TargetHealth>>,
    /// What is in the namespace, by name.
    pub(crate) registries: Cache<BTreeMap<String, Registry>>,
    memory: Mutex<Memory>,
}

/// What need not be asked again, because it cannot change or because nobody else changes it.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The ECS services of applications, by name, and when they were listed.
    pub(crate) slots: HashMap<AppName, (Instant, BTreeSet<String>)>,
    /// The tasks that were seen, by application and ARN.
    pub(crate) tasks: HashMap<AppName, BTreeMap<String, KnownTask>>,
    /// The tasks of others that were listed with an application's, by ARN.
    pub(crate) strangers: HashMap<AppName, BTreeSet<String>>,
    /// When the one-off tasks of an application were listed.
    pub(crate) errands: HashMap<AppName, Instant>,
    /// The one-off tasks that were removed, and when: ECS shows them for another hour.
    pub(crate) removed: HashMap<String, Instant>,
    /// What was written down last of the scaling of slots, by application and name, and when. Whoever is in it has, or had,
    /// a slot that scales.
    pub(crate) scaled: HashMap<AppName, HashMap<String, (Instant, Option<Scaled>)>>,
    /// The slots that were taken from Application Auto Scaling, by name.
    pub(crate) let_alone: HashSet<String>,
    /// How the slots were when their tasks were looked at, by name.
    pub(crate) searched: HashMap<String, String>,
    /// Task definitions, by ARN. They never change.
    pub(crate) definitions: HashMap<String, KnownDefinition>,
    /// Target groups, by ARN.
    pub(crate) groups: HashMap<String, KnownGroup>,
}

/// A change to an application that is under way.
#[must_use]
pub(crate) struct Changes {
    slots: Changing<Vec<Slot>>,
    _looked: Changing<()>,
    _health: Vec<Changing<Vec<TargetHealth>>>,
}

impl Changes {
    /// The change was made, and AWS has told how the slot is now, unless something else has to do with that too.
    pub(crate) fn made(self, now: Option<Slot>) {
        let Some(now) = now else { return };
        self.slots.made(|slots| {
            let Some(known) = slots.iter_mut().find(|known| known.name == now.name) else { return false };
            *known = now;
            true
        });
    }
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("cluster", &self.options.cluster).finish_non_exhaustive()
    }
}

impl Site {
    pub(crate) fn new(config: &SdkConfig, options: AwsOptions) -> Self {
        let config = patient(config);
        Self {
            ecs: aws_sdk_ecs::Client::new(&config),
            elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
            logs: aws_sdk_cloudwatchlogs::Client::new(&config),
            cloudwatch: aws_sdk_cloudwatch::Client::new(&config),
            autoscaling: aws_sdk_applicationautoscaling::Client::new(&config),
            cloudmap: aws_sdk_servicediscovery::Client::new(&config),
            control: aws_sdk_cloudcontrol::Client::new(&config),
            options,
            slots: Cache::default(),
            looked: Cache::default(),
            rules: Cache::default(),
            health: Cache::default(),
            registries: Cache::default(),
            memory: Mutex::default(),
        }
    }

    /// How long an answer is held that may be another one at any time: bursts of questions are answered at once, and who
    /// looks again after the usual time sees something new.
    pub(crate) fn moment(&self) -> Duration {
        self.options.poll * 9 / 10
    }

    /// Something in an application is about to be changed: what is known of it is good until this is dropped, and then only
    /// as far as is told what was made of it.
    pub(crate) fn changing(&self, app: &AppName, slot: Option<&Slot>) -> Changes {
        Changes {
            slots: self.slots.changing(app.as_str()),
            _looked: self.looked.changing(app.as_str()),
            _health: slot.iter().flat_map(|slot| &slot.groups).map(|(arn, _)| self.health.changing(arn)).collect(),
        }
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The configuration with adaptive retries, unless a program has chosen others: all deployments of a process slow down
/// together when AWS throttles. How many there are is left as it is.
///
/// Retries are the engine's, because it journals them; the SDK's few are for what passes within a moment.
pub(crate) fn patient(config: &SdkConfig) -> SdkConfig {
    // Whatever loads a configuration fills in the SDK's own retries; only what somebody has chosen has an origin. One that is
    // unknown is not even equal to itself.
    if config.get_origin("retry_config").to_string() != "unknown" {
        return config.clone();
    }
    let retry = config.retry_config().cloned().unwrap_or_else(RetryConfig::standard);
    config.clone().into_builder().retry_config(retry.with_retry_mode(RetryMode::Adaptive)).build()
}

impl Memory {
    /// The names of an application's slots, if they were listed a moment ago.
    pub(crate) fn listed(&self, app: &AppName) -> Option<BTreeSet<String>> {
        let (at, names) = self.slots.get(app)?;
        (at.elapsed() < LISTED).then(|| names.clone())
    }

    /// What was written down a moment ago of the scaling of a slot.
    pub(crate) fn marked(&self, app: &AppName, name: &str) -> Option<Option<Scaled>> {
        let (at, scaled) = self.scaled.get(app)?.get(name)?;
        (at.elapsed() < LISTED).then(|| scaled.clone())
    }
}

#[cfg(test)]
mod tests {
    use aws_config::BehaviorVersion;

    use super::*;

    fn retries(config: &SdkConfig) -> (RetryMode, u32) {
        let patient = patient(config);
        let retry = patient.retry_config().unwrap_or_else(|| panic!("no retries"));
        (retry.mode(), retry.max_attempts())
    }

    #[tokio::test]
    async fn retries_are_adaptive_unless_a_program_has_chosen_others() {
        let loaded = || aws_config::defaults(BehaviorVersion::v2026_01_12()).empty_test_environment();
        assert_eq!(retries(&loaded().load().await), (RetryMode::Adaptive, 3));
        let chosen = loaded().retry_config(RetryConfig::standard().with_max_attempts(7));
        assert_eq!(retries(&chosen.load().await), (RetryMode::Standard, 7));
        assert_eq!(retries(&SdkConfig::builder().build()), (RetryMode::Adaptive, 3));
    }
}

//! Application Auto Scaling: which slots it changes the number of tasks of, and when.
//!
//! A tag of a slot says whether Application Auto Scaling has it, and with what settings. While a deployment moves a service,
//! its slots are *held*: no scalable target changes them, and the tag keeps the bounds that there were, which a schedule may
//! have changed. When all is done, the slot of the revision that serves is scaled, and no other one of the service.

use std::collections::BTreeSet;
use std::fmt;

use aws_sdk_applicationautoscaling::types::{
    MetricType, PolicyType, PredefinedMetricSpecification, ScalableDimension, ScalableTargetAction, ServiceNamespace,
    TargetTrackingScalingPolicyConfiguration,
};
use aws_sdk_ecs::types::Tag;
use deployer_core::{
    AppName, Cron, Digest, Error, ErrorKind, Release, Result, Retry, Scaling, ScalingSchedule, ScalingTarget,
    ServiceName,
};
use futures_util::future::{try_join, try_join_all};
use tokio::time::Instant;

use super::launch::count;
use super::slots::Slot;
use crate::failure::{failed, incomplete, is};
use crate::gate::{balancer, group};
use crate::naming::tag;
use crate::site::Site;

/// What Application Auto Scaling has to do with a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scaled {
    /// It changes the number of tasks, with settings of this hash.
    On(String),
    /// It did with settings of this hash, and within these bounds, or it is about to. Now it leaves the slot alone.
    Held(String, Option<(u32, u32)>),
}

impl Scaled {
    /// Reads the tag. What cannot be read is taken for something to be replaced.
    pub(super) fn read(text: &str) -> Self {
        let mut words = text.split(' ');
        let (word, settings) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
        if word == "on" {
            return Self::On(settings);
        }
        let bounds = words.next().and_then(|bounds| bounds.split_once('-'));
        Self::Held(settings, bounds.and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?))))
    }
}

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(settings) => write!(f, "on {settings}"),
            Self::Held(settings, None) => write!(f, "held {settings}"),
            Self::Held(settings, Some((min, max))) => write!(f, "held {settings} {min}-{max}"),
        }
    }
}

/// Settings as a hash.
fn hash(scaling: &Scaling) -> String {
    Digest::of(&serde_json::to_vec(scaling).unwrap_or_default()).short().to_owned()
}

impl Site {
    /// Whether Application Auto Scaling may change the number of a slot's tasks. One that is held may still be a target, if the
    /// request to let it alone was lost.
    pub(super) fn may_scale(&self, slot: &Slot) -> bool {
        match &slot.scaled {
            None => false,
            Some(Scaled::On(_)) => true,
            Some(Scaled::Held(..)) => !self.memory().let_alone.contains(&slot.name),
        }
    }

    /// Holds the slots of services of which another revision is to serve. Asks nothing where nothing scales.
    pub(super) async fn hold_for(&self, release: &Release) -> Result<bool> {
        let app = &release.app;
        let scales = release.services.values().any(|service| service.scaling.is_some());
        if !scales && !self.memory().scaled.contains_key(app) {
            return Ok(false);
        }
        let slots = self.slots_now(app).await?;
        // Somebody else may have been at work since.
        self.memory().let_alone.retain(|name| slots.iter().all(|slot| slot.name != *name));
        let stays = |slot: &&Slot| {
            let service = release.services.get(&slot.service);
            service.is_some_and(|service| slot.holds(&service.revision(&slot.service)))
        };
        let moved: Vec<&Slot> = slots.iter().filter(|slot| slot.scaled.is_some() && !stays(slot)).collect();
        if moved.is_empty() {
            return Ok(false);
        }
        let _changes = self.changing(app, None);
        try_join_all(moved.into_iter().map(|slot| self.hold(app, slot))).await?;
        Ok(true)
    }

    /// Makes Application Auto Scaling leave a slot alone, if it has it.
    pub(super) async fn hold(&self, app: &AppName, slot: &Slot) -> Result<()> {
        let held = match &slot.scaled {
            None => return Ok(()),
            Some(Scaled::On(settings)) => Scaled::Held(settings.clone(), self.bounds(slot).await?),
            Some(held @ Scaled::Held(..)) => held.clone(),
        };
        self.mark(app, slot, Some(held)).await?;
        self.deregister(slot).await
    }

    /// Gives the slots to Application Auto Scaling that serve a release and are to be scaled, and takes all others from it.
    /// Asks nothing where nothing scales. Answers whether that changed anything.
    pub(crate) async fn settle_scaling(
        &self,
        app: &AppName,
        release: Option<&Release>,
        slots: &[Slot],
    ) -> Result<bool> {
        let services = release.iter().flat_map(|release| &release.services);
        let scaled = services.filter_map(|(name, service)| Some((name, service, service.scaling.as_ref()?)));
        let mut changes = Vec::new();
        let mut kept: BTreeSet<&str> = BTreeSet::new();
        for (name, service, scaling) in scaled {
            let revision = service.revision(name);
            let Some(slot) = slots.iter().find(|slot| slot.holds(&revision)) else { continue };
            kept.insert(&slot.name);
            if slot.scaled != Some(Scaled::On(hash(scaling))) {
                let others = slots.iter().filter(|other| other.service == *name && other.name != slot.name);
                let before = std::iter::once(slot).chain(others).filter_map(|slot| slot.scaled.as_ref());
                changes.push((slot, scaling, carried(before, &hash(scaling)).unwrap_or((scaling.min, scaling.max))));
            }
        }
        let gone: Vec<&Slot> =
            slots.iter().filter(|slot| slot.scaled.is_some() && !kept.contains(slot.name.as_str())).collect();
        if changes.is_empty() && gone.is_empty() {
            return Ok(false);
        }
        let _changes = self.changing(app, None);
        let scaling = changes.iter().map(|(slot, scaling, bounds)| self.scale(app, slot, scaling, *bounds));
        try_join_all(scaling).await?;
        // What others knew is carried on by now.
        try_join_all(gone.iter().map(|slot| self.let_go(app, slot))).await?;
        Ok(true)
    }

    /// Makes Application Auto Scaling change the number of tasks of a slot.
    async fn scale(&self, app: &AppName, slot: &Slot, scaling: &Scaling, bounds: (u32, u32)) -> Result<()> {
        // Whoever goes on with it must know that there may be a target, and what was carried.
        self.mark(app, slot, Some(Scaled::Held(hash(scaling), Some(bounds)))).await?;
        if slot.scaled.is_some() {
            // With it goes everything that is attached to it.
            self.deregister(slot).await?;
        }
        let id = self.resource(slot);
        self.memory().let_alone.remove(&slot.name);
        let call = self
            .autoscaling
            .register_scalable_target()
            .service_namespace(ServiceNamespace::Ecs)
            .resource_id(&id)
            .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
            .min_capacity(count(bounds.0))
            .max_capacity(count(bounds.1));
        let made = call.send().await;
        made.map_err(|error| failed("application-autoscaling:RegisterScalableTarget", id.as_str(), error))?;
        let policies = scaling.targets.iter().map(|target| self.put_policy(slot, &id, target));
        let schedules = scaling.schedules.iter().map(|schedule| self.put_schedule(&id, schedule));
        try_join(try_join_all(policies), try_join_all(schedules)).await?;
        self.mark(app, slot, Some(Scaled::On(hash(scaling)))).await
    }

    async fn put_policy(&self, slot: &Slot, id: &str, target: &ScalingTarget) -> Result<()> {
        let (metric, value) = match target {
            ScalingTarget::Cpu { percent } => (MetricType::EcsServiceAverageCpuUtilization, f64::from(*percent)),
            ScalingTarget::Memory { percent } => (MetricType::EcsServiceAverageMemoryUtilization, f64::from(*percent)),
            ScalingTarget::Requests { per_minute } => (MetricType::AlbRequestCountPerTarget, f64::from(*per_minute)),
            other => {
                return Err(Error::new(ErrorKind::Unsupported, "ECS cannot aim at it").with_resource(other.name()));
            }
        };
        let mut specification = PredefinedMetricSpecification::builder().predefined_metric_type(metric);
        if let ScalingTarget::Requests { .. } = target {
            // Those of the first port: instances get requests at all of them alike.
            let arn = slot.groups.first().map(|(arn, _)| arn.as_str()).unwrap_or_default();
            specification = specification.resource_label(format!("{}/{}", balancer(self.listener()?), group(arn)));
        }
        let configuration = TargetTrackingScalingPolicyConfiguration::builder()
            .target_value(value)
            .predefined_metric_specification(specification.build().map_err(incomplete)?)
            .build()
            .map_err(incomplete)?;
        let call = self
            .autoscaling
            .put_scaling_policy()
            .policy_name(target.name())
            .service_namespace(ServiceNamespace::Ecs)
            .resource_id(id)
            .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
            .policy_type(PolicyType::TargetTrackingScaling)
            .target_tracking_scaling_policy_configuration(configuration);
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) if is(&error, &["ObjectNotFoundException"]) => Err(not_yet(id)),
            Err(error) => Err(failed("application-autoscaling:PutScalingPolicy", id, error)),
        }
    }

    async fn put_schedule(&self, id: &str, schedule: &ScalingSchedule) -> Result<()> {
        let action = ScalableTargetAction::builder()
            .set_min_capacity(schedule.min.map(count))
            .set_max_capacity(schedule.max.map(count))
            .build();
        let call = self
            .autoscaling
            .put_scheduled_action()
            .scheduled_action_name(&schedule.name)
            .service_namespace(ServiceNamespace::Ecs)
            .resource_id(id)
            .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
            .schedule(expression(&schedule.cron))
            .set_timezone(schedule.timezone.clone())
            .scalable_target_action(action);
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) if is(&error, &["ObjectNotFoundException"]) => Err(not_yet(id)),
            Err(error) => Err(failed("application-autoscaling:PutScheduledAction", id, error)),
        }
    }

    /// Takes a slot from Application Auto Scaling for good.
    async fn let_go(&self, app: &AppName, slot: &Slot) -> Result<()> {
        self.deregister(slot).await?;
        self.mark(app, slot, None).await
    }

    /// The bounds of a slot's scalable target, if it has one.
    async fn bounds(&self, slot: &Slot) -> Result<Option<(u32, u32)>> {
        let id = self.resource(slot);
        let call = self
            .autoscaling
            .describe_scalable_targets()
            .service_namespace(ServiceNamespace::Ecs)
            .resource_ids(&id)
            .scalable_dimension(ScalableDimension::EcsServiceDesiredCount);
        let answer = call.send().await;
        let answer =
            answer.map_err(|error| failed("application-autoscaling:DescribeScalableTargets", id.as_str(), error))?;
        let number = |number: i32| u32::try_from(number).unwrap_or_default();
        let mut targets = answer.scalable_targets().iter();
        Ok(targets.next().map(|target| (number(target.min_capacity), number(target.max_capacity))))
    }

    async fn deregister(&self, slot: &Slot) -> Result<()> {
        let id = self.resource(slot);
        let call = self
            .autoscaling
            .deregister_scalable_target()
            .service_namespace(ServiceNamespace::Ecs)
            .resource_id(&id)
            .scalable_dimension(ScalableDimension::EcsServiceDesiredCount);
        match call.send().await {
            Ok(_) => {}
            Err(error) if is(&error, &["ObjectNotFoundException"]) => {}
            Err(error) => return Err(failed("application-autoscaling:DeregisterScalableTarget", id, error)),
        }
        self.memory().let_alone.insert(slot.name.clone());
        Ok(())
    }

    /// Writes down what Application Auto Scaling has to do with a slot.
    async fn mark(&self, app: &AppName, slot: &Slot, scaled: Option<Scaled>) -> Result<()> {
        match &scaled {
            Some(scaled) => {
                let tag = Tag::builder().key(tag::SCALING).value(scaled.to_string()).build();
                let made = self.ecs.tag_resource().resource_arn(&slot.arn).tags(tag).send().await;
                made.map_err(|error| failed("ecs:TagResource", slot.name.as_str(), error))?;
            }
            None => {
                let made = self.ecs.untag_resource().resource_arn(&slot.arn).tag_keys(tag::SCALING).send().await;
                made.map_err(|error| failed("ecs:UntagResource", slot.name.as_str(), error))?;
            }
        }
        // What ECS tells of it may be old for a while.
        let mut memory = self.memory();
        memory.scaled.entry(app.clone()).or_default().insert(slot.name.clone(), (Instant::now(), scaled));
        Ok(())
    }

    /// The slot, as Application Auto Scaling calls it.
    fn resource(&self, slot: &Slot) -> String {
        format!("service/{}/{}", self.options.cluster_name(), slot.name)
    }
}

/// The bounds that one with the same settings had.
fn carried<'a>(mut before: impl Iterator<Item = &'a Scaled>, settings: &str) -> Option<(u32, u32)> {
    before.find_map(|scaled| match scaled {
        Scaled::Held(same, bounds) if same == settings => *bounds,
        _ => None,
    })
}

fn not_yet(id: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "Application Auto Scaling does not know yet what was registered a moment ago")
        .with_resource(id)
        .with_retry(Retry::Soon)
}

/// Recurring times as AWS writes them: with six fields, days of the week from 1 to 7, and one of the two kinds of days left
/// open.
fn expression(cron: &Cron) -> String {
    let list = |allowed: Option<BTreeSet<u8>>, base: u8| {
        let numbers = allowed.map(|allowed| allowed.iter().map(|n| (n + base).to_string()).collect::<Vec<_>>());
        numbers.map_or("*".to_owned(), |numbers| numbers.join(","))
    };
    let fields = cron.fields();
    let (days, weekdays) = match fields.weekdays {
        None => (list(fields.days, 0), "?".to_owned()),
        weekdays => ("?".to_owned(), list(weekdays, 1)),
    };
    let (minutes, hours, months) = (list(fields.minutes, 0), list(fields.hours, 0), list(fields.months, 0));
    format!("cron({minutes} {hours} {days} {months} {weekdays} *)")
}

/// Which of a service's slots tell how many instances serve: those that Application Auto Scaling has, or had until this
/// deployment.
pub(super) fn serving<'a>(slots: &'a [Slot], service: &'a ServiceName) -> impl Iterator<Item = &'a Slot> {
    slots.iter().filter(move |slot| slot.service == *service && slot.scaled.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_can_be_read_back() {
        let hash = "0123456789ab".to_owned();
        for scaled in [
            Scaled::On(hash.clone()),
            Scaled::Held(hash.clone(), None),
            Scaled::Held(hash, Some((1, 12))),
            Scaled::Held(String::new(), Some((1, 12))),
        ] {
            assert_eq!(Scaled::read(&scaled.to_string()), scaled);
        }
    }

    #[test]
    fn recurring_times_are_written_as_aws_reads_them() {
        for (cron, expected) in [
            ("* * * * *", "cron(* * * * ? *)"),
            ("30 7 * * mon-fri", "cron(30 7 ? * 2,3,4,5,6 *)"),
            ("*/20 0 1,15 jan *", "cron(0,20,40 0 1,15 1 ? *)"),
            ("0 0 * * 7", "cron(0 0 ? * 1 *)"),
        ] {
            assert_eq!(expression(&cron.parse().unwrap()), expected, "{cron}");
        }
    }

    #[test]
    fn bounds_are_carried_only_where_the_settings_are_the_same() {
        let (held, on) = (Scaled::Held("a".to_owned(), Some((2, 3))), Scaled::On("a".to_owned()));
        assert_eq!(carried([&on, &held].into_iter(), "a"), Some((2, 3)));
        assert_eq!(carried([&on, &held].into_iter(), "b"), None);
    }
}

//! Alarms as a gate.

use std::collections::BTreeSet;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_cloudwatch::types::{AlarmType, CompositeAlarm, MetricAlarm, StateValue};
use deployer_core::{Error, ErrorKind, Gate, GateAnswer, GateQuestion, Result, Timestamp};
use futures_util::future::try_join_all;

use crate::failure::failed;
use crate::site::patient;

/// How many alarms CloudWatch tells of in one call:
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html>.
const DESCRIBED: usize = 100;

/// Asks CloudWatch for alarms by name, composite ones included: it passes when all are `OK`, and fails when one is in
/// `ALARM`, with the reason that CloudWatch gives. One that has no data is inconclusive, unless
/// [it passes](Self::with_missing_data_passing).
///
/// An alarm that was [firing already](AlreadyFiring) when the deployment began is told apart, and fails as well: nothing
/// that it would say later could be heard. Declare the gate `before-traffic` and `holding`, and such a deployment is
/// refused before any request goes to the new revision; declared `holding` only, it is rolled back at the first question.
///
/// Each question is one request for a hundred alarms. They change once in ten seconds at the most: ask no more often.
#[derive(Clone, Debug)]
pub struct AlarmGate {
    cloudwatch: aws_sdk_cloudwatch::Client,
    alarms: BTreeSet<String>,
    already_firing: AlreadyFiring,
    missing_data_passes: bool,
}

/// What an [`AlarmGate`] does about an alarm that has been firing since before the deployment began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlreadyFiring {
    /// It fails the gate: nobody could hear the alarm if the new revision set it off again.
    #[default]
    Fail,
    /// It does not count, which the answer says. For a deployment that shall mend what the alarm tells of.
    Ignore,
}

impl AlarmGate {
    /// A gate of these alarms, in the account and region of the configuration. Asks nothing yet.
    #[must_use]
    pub fn new<S: Into<String>>(config: &SdkConfig, alarms: impl IntoIterator<Item = S>) -> Self {
        Self {
            cloudwatch: aws_sdk_cloudwatch::Client::new(&patient(config)),
            alarms: alarms.into_iter().map(Into::into).collect(),
            already_firing: AlreadyFiring::default(),
            missing_data_passes: false,
        }
    }

    /// Sets what is done about alarms that have been firing since before the deployment began.
    #[must_use]
    pub fn with_already_firing(mut self, already_firing: AlreadyFiring) -> Self {
        self.already_firing = already_firing;
        self
    }

    /// Alarms that have no data pass: they tell of something that hardly ever happens.
    #[must_use]
    pub fn with_missing_data_passing(mut self) -> Self {
        self.missing_data_passes = true;
        self
    }

    /// How the alarms are, by name.
    async fn look(&self) -> Result<Vec<Alarm>> {
        let names: Vec<String> = self.alarms.iter().cloned().collect();
        let calls = names.chunks(DESCRIBED).map(async |names| {
            let call = self
                .cloudwatch
                .describe_alarms()
                .set_alarm_names(Some(names.to_vec()))
                // Without it, only those of metrics are told of.
                .alarm_types(AlarmType::MetricAlarm)
                .alarm_types(AlarmType::CompositeAlarm)
                .max_records(100);
            call.send().await.map_err(|error| failed("cloudwatch:DescribeAlarms", names.join(", "), error))
        });
        let answers = try_join_all(calls).await?;
        let mut found: Vec<Alarm> = Vec::new();
        for answer in &answers {
            found.extend(answer.metric_alarms().iter().filter_map(Alarm::of_metric));
            found.extend(answer.composite_alarms().iter().filter_map(Alarm::of_composite));
        }
        let unknown = self.alarms.iter().find(|name| found.iter().all(|alarm| alarm.name != **name));
        if let Some(name) = unknown {
            return Err(Error::new(ErrorKind::NotFound, "CloudWatch does not know the alarm")
                .with_resource(name.as_str())
                .with_help("check its name, the account and the region"));
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    fn judge(&self, alarms: &[Alarm], began: Option<Timestamp>) -> GateAnswer {
        let before = |alarm: &Alarm| began.is_some_and(|began| alarm.since.is_some_and(|since| since < began));
        let ignored = |alarm: &&Alarm| self.already_firing == AlreadyFiring::Ignore && before(alarm);
        let (ignored, firing): (Vec<&Alarm>, Vec<&Alarm>) =
            alarms.iter().filter(|alarm| alarm.state == StateValue::Alarm).partition(ignored);
        let words = |alarms: &[&Alarm]| alarms.iter().map(|alarm| alarm.words(before(alarm))).collect::<Vec<_>>();
        if !firing.is_empty() {
            return GateAnswer::Fail { detail: words(&firing).join("; ") };
        }
        let unclear = |alarm: &&Alarm| !matches!(alarm.state, StateValue::Alarm | StateValue::Ok);
        let unclear: Vec<&str> =
            alarms.iter().filter(unclear).filter(|_| !self.missing_data_passes).map(|one| one.name.as_str()).collect();
        if !unclear.is_empty() {
            return GateAnswer::Inconclusive { detail: format!("too little data for {}", unclear.join(", ")) };
        }
        let mut detail = match alarms.len() - ignored.len() {
            1 => "1 alarm is quiet".to_owned(),
            many => format!("{many} alarms are quiet"),
        };
        for words in words(&ignored) {
            detail += &format!("; not counted: {words}");
        }
        GateAnswer::Pass { detail }
    }
}

#[async_trait]
impl Gate for AlarmGate {
    async fn ask(&self, question: GateQuestion) -> Result<GateAnswer> {
        Ok(self.judge(&self.look().await?, question.deployment.made_at()))
    }
}

/// An alarm as CloudWatch tells of it.
#[derive(Clone, Debug)]
struct Alarm {
    name: String,
    state: StateValue,
    reason: String,
    /// Since when it is so.
    since: Option<Timestamp>,
}

impl Alarm {
    fn of_metric(alarm: &MetricAlarm) -> Option<Self> {
        let since = alarm.state_transitioned_timestamp().or(alarm.state_updated_timestamp());
        Self::new(alarm.alarm_name(), alarm.state_value(), alarm.state_reason(), since)
    }

    fn of_composite(alarm: &CompositeAlarm) -> Option<Self> {
        let since = alarm.state_transitioned_timestamp().or(alarm.state_updated_timestamp());
        Self::new(alarm.alarm_name(), alarm.state_value(), alarm.state_reason(), since)
    }

    fn new(
        name: Option<&str>,
        state: Option<&StateValue>,
        reason: Option<&str>,
        since: Option<&aws_sdk_cloudwatch::primitives::DateTime>,
    ) -> Option<Self> {
        Some(Self {
            name: name?.to_owned(),
            state: state.cloned().unwrap_or(StateValue::InsufficientData),
            reason: reason.unwrap_or("CloudWatch gives no reason").to_owned(),
            since: since.and_then(|at| at.to_millis().ok()).map(Timestamp::from_millis),
        })
    }

    fn words(&self, before: bool) -> String {
        match self.since.filter(|_| before) {
            Some(since) => {
                format!("alarm {} was firing before the deployment began, since {since}: {}", self.name, self.reason)
            }
            None => format!("alarm {} fires: {}", self.name, self.reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alarms that a gate has asked for, each with since when, and a deployment that began at 100 s.
    fn answer(gate: impl Fn(AlarmGate) -> AlarmGate, alarms: &[(&str, StateValue, i64)]) -> String {
        let config = SdkConfig::builder().behavior_version(aws_config::BehaviorVersion::v2026_01_12()).build();
        let alarms: Vec<Alarm> = alarms
            .iter()
            .map(|(name, state, since)| Alarm {
                name: (*name).to_owned(),
                state: state.clone(),
                reason: "too many errors".to_owned(),
                since: Some(Timestamp::from_millis(since * 1_000)),
            })
            .collect();
        let none: [&str; 0] = [];
        let gate = gate(AlarmGate::new(&config, none));
        gate.judge(&alarms, Some(Timestamp::from_millis(100_000))).to_string()
    }

    #[test]
    fn one_alarm_that_fires_is_enough() {
        let usual = |gate: AlarmGate| gate;
        assert_eq!(answer(usual, &[("a", StateValue::Ok, 1), ("b", StateValue::Ok, 1)]), "pass: 2 alarms are quiet");
        let fires = answer(usual, &[("a", StateValue::InsufficientData, 1), ("b", StateValue::Alarm, 101)]);
        assert_eq!(fires, "fail: alarm b fires: too many errors");
    }

    #[test]
    fn an_alarm_without_data_tells_nothing_unless_it_is_trusted() {
        let alarms = [("a", StateValue::Ok, 1), ("b", StateValue::InsufficientData, 1)];
        assert_eq!(answer(|gate| gate, &alarms), "inconclusive: too little data for b");
        assert_eq!(answer(AlarmGate::with_missing_data_passing, &alarms), "pass: 2 alarms are quiet");
    }

    #[test]
    fn an_alarm_that_fired_before_is_told_apart() {
        let alarms = [("a", StateValue::Alarm, 99), ("b", StateValue::Ok, 1)];
        let before = "alarm a was firing before the deployment began, since 1970-01-01T00:01:39.000Z: too many errors"
            .to_owned();
        assert_eq!(answer(|gate| gate, &alarms), format!("fail: {before}"));
        let ignoring = |gate: AlarmGate| gate.with_already_firing(AlreadyFiring::Ignore);
        assert_eq!(answer(ignoring, &alarms), format!("pass: 1 alarm is quiet; not counted: {before}"));
        // It was quiet meanwhile, and is not any more.
        assert_eq!(answer(ignoring, &[("a", StateValue::Alarm, 100)]), "fail: alarm a fires: too many errors");
    }
}

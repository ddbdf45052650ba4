//! The load balancer's counters as a gate.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, Metric, MetricDataQuery, MetricStat};
use deployer_core::{
    Clock, DeploymentId, Error, ErrorKind, Gate, GateAnswer, GateQuestion, Human, Result, SystemClock, Timestamp,
};

use crate::cache::Cache;
use crate::failure::failed;
use crate::options::AwsOptions;
use crate::site::Site;

/// The finest period in which the load balancer's metrics are kept.
const PERIOD: Duration = Duration::from_secs(60);

/// How long an answer is held: CloudWatch has nothing new more often.
const HELD: Duration = Duration::from_secs(15);

/// Asks CloudWatch how the requests end that the load balancer gives to the new revision: how many of them fail, by an
/// answer with a status of 500 and above or because an instance cannot be reached, how long the others take, and how many are
/// in flight. Inconclusive with fewer requests than can tell anything.
///
/// What was before the deployment never counts, nor what is older than the window. CloudWatch has the counters of a minute
/// when that is over, and a minute or two late: a hold must be some minutes long to be of any use, and the gate need not be
/// asked more often than four times a minute. An answer takes two requests, and is held for 15 s.
#[derive(Clone)]
pub struct TrafficGate {
    site: Arc<Site>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    window: Duration,
    /// By deployment and revision.
    answers: Arc<Cache<Counted>>,
}

/// What is allowed, and how many requests tell it.
#[derive(Clone, Copy, Debug)]
struct Limits {
    max_permille: Option<u16>,
    max_latency: Option<Duration>,
    max_in_flight: Option<u32>,
    min_requests: u64,
}

impl fmt::Debug for TrafficGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrafficGate")
            .field("limits", &self.limits)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

impl TrafficGate {
    /// A gate of the services in this cluster and behind this listener: of a hundred requests in the last five minutes, one
    /// may fail, however long they take. Asks nothing yet.
    #[must_use]
    pub fn new(config: &SdkConfig, options: AwsOptions) -> Self {
        Self {
            site: Arc::new(Site::new(config, options)),
            clock: Arc::new(SystemClock),
            limits: Limits { max_permille: Some(10), max_latency: None, max_in_flight: None, min_requests: 100 },
            window: Duration::from_secs(300),
            answers: Arc::default(),
        }
    }

    /// Sets the largest share of requests that may fail, in thousandths.
    #[must_use]
    pub fn with_max_errors_permille(mut self, permille: u16) -> Self {
        self.limits.max_permille = Some(permille);
        self
    }

    /// Sets the longest time that requests may take on the mean.
    #[must_use]
    pub fn with_max_latency(mut self, latency: Duration) -> Self {
        self.limits.max_latency = Some(latency);
        self
    }

    /// Sets how many requests may be in flight at the same time, on the mean of the minutes that count and in all instances of
    /// the revision together.
    ///
    /// CloudWatch has no such counter for a target group. By Little's law it is the time that all answers of a minute took,
    /// each until its first byte, divided by the minute.
    #[must_use]
    pub fn with_max_in_flight(mut self, requests: u32) -> Self {
        self.limits.max_in_flight = Some(requests);
        self
    }

    /// Sets how many requests there must be before anything can be told.
    #[must_use]
    pub fn with_min_requests(mut self, requests: u64) -> Self {
        self.limits.min_requests = requests;
        self
    }

    /// Sets how far back requests count, in whole minutes.
    #[must_use]
    pub fn with_window(mut self, window: Duration) -> Self {
        self.window = window.max(PERIOD);
        self
    }

    /// Sets the clock that says what time it is.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    async fn count(&self, question: &GateQuestion) -> Result<Counted> {
        let slots = self.site.slots(&question.app).await?;
        let slot = slots.iter().find(|slot| slot.holds(&question.revision)).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the revision does not run").with_resource(question.revision.to_string())
        })?;
        let Some((from, to)) = span(&question.deployment, self.clock.now(), self.window) else {
            return Ok(Counted::default());
        };
        let balancer = balancer(self.site.listener()?);
        let groups = slot.groups.iter().filter(|(arn, _)| self.site.takes_requests(arn));
        let queries = groups.enumerate().flat_map(|(index, (arn, _))| queries(index, arn, &balancer));
        let queries: Vec<MetricDataQuery> = queries.collect();
        if queries.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the service has no routes whose requests could be counted",
            )
            .with_resource(question.revision.service().as_str()));
        }
        let call = self.site.cloudwatch.get_metric_data().set_metric_data_queries(Some(queries));
        let mut pages = call.start_time(date(from)).end_time(date(to)).into_paginator().send();
        let mut counted = Counted::default();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| failed("cloudwatch:GetMetricData", question.revision.to_string(), e))?;
            for result in page.metric_data_results() {
                counted.add(result.id().unwrap_or_default(), result.values());
            }
        }
        Ok(counted)
    }
}

#[async_trait]
impl Gate for TrafficGate {
    async fn ask(&self, question: GateQuestion) -> Result<GateAnswer> {
        let key = format!("{} {}", question.deployment, question.revision);
        let counted = self.answers.get(&key, async { Ok((self.count(&question).await?, HELD)) }).await?;
        Ok(self.limits.judge(&counted))
    }
}

/// From when to when requests count; none, if there is no whole minute yet.
fn span(deployment: &DeploymentId, now: Timestamp, window: Duration) -> Option<(Timestamp, Timestamp)> {
    let minute = i64::try_from(PERIOD.as_millis()).unwrap_or(i64::MAX);
    let to = now.as_millis().div_euclid(minute) * minute + minute;
    // The minute in which it began has others' requests in it.
    let began = deployment.made_at().map_or(i64::MIN, |at| (at.as_millis() + minute - 1).div_euclid(minute) * minute);
    let window = (now - window).as_millis().div_euclid(minute) * minute;
    let from = began.max(window);
    (from < to).then(|| (Timestamp::from_millis(from), Timestamp::from_millis(to)))
}

fn date(at: Timestamp) -> DateTime {
    DateTime::from_millis(at.as_millis())
}

/// The load balancer of a listener, as CloudWatch calls it: `app/NAME/ID`.
pub(crate) fn balancer(listener: &str) -> String {
    let path = listener.split_once(":listener/").map_or(listener, |(_, path)| path);
    path.rsplit_once('/').map_or(path, |(balancer, _)| balancer).to_owned()
}

/// A target group, as CloudWatch calls it: `targetgroup/NAME/ID`.
pub(crate) fn group(arn: &str) -> &str {
    arn.rsplit(':').next().unwrap_or(arn)
}

/// What is asked, with the id that each answer begins with and how its periods are added up.
const ASKED: [(&str, &str, &str); 5] = [
    ("requests", "RequestCount", "Sum"),
    ("errors", "HTTPCode_Target_5XX_Count", "Sum"),
    ("unreachable", "TargetConnectionErrorCount", "Sum"),
    ("seconds", "TargetResponseTime", "Sum"),
    ("answers", "TargetResponseTime", "SampleCount"),
];

fn queries(index: usize, arn: &str, balancer: &str) -> Vec<MetricDataQuery> {
    let dimension = |name: &str, value: &str| Dimension::builder().name(name).value(value).build();
    let query = |(id, name, stat): &(&str, &str, &str)| {
        let metric = Metric::builder()
            .namespace("AWS/ApplicationELB")
            .metric_name(*name)
            .dimensions(dimension("LoadBalancer", balancer))
            .dimensions(dimension("TargetGroup", group(arn)))
            .build();
        let period = i32::try_from(PERIOD.as_secs()).unwrap_or(i32::MAX);
        let stat = MetricStat::builder().metric(metric).period(period).stat(*stat).build();
        MetricDataQuery::builder().id(format!("{id}{index}")).metric_stat(stat).build()
    };
    ASKED.iter().map(query).collect()
}

/// What the load balancer has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counted {
    requests: f64,
    errors: f64,
    /// How many answers took how long, all together.
    answers: f64,
    seconds: f64,
    /// In how many minutes there were any.
    minutes: f64,
}

impl Counted {
    /// Adds what a counter has for each minute.
    fn add(&mut self, id: &str, values: &[f64]) {
        let value: f64 = values.iter().sum();
        match id.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "requests" => {
                self.requests += value;
                self.minutes = self.minutes.max(values.len() as f64);
            }
            "errors" | "unreachable" => self.errors += value,
            "answers" => self.answers += value,
            "seconds" => self.seconds += value,
            _ => {}
        }
    }
}

impl Limits {
    fn judge(&self, counted: &Counted) -> GateAnswer {
        let Counted { requests, errors, answers, seconds, minutes } = *counted;
        let mut detail = format!("{errors} of {requests} requests failed");
        if requests < self.min_requests as f64 {
            detail += &format!(", {} requests are needed to tell", self.min_requests);
            return GateAnswer::Inconclusive { detail };
        }
        if let Some(most) = self.max_permille.filter(|most| errors * 1_000.0 > requests * f64::from(*most)) {
            return GateAnswer::Fail { detail: format!("{detail}, at most {} % may", f64::from(most) / 10.0) };
        }
        if let Some(longest) = self.max_latency.filter(|_| answers > 0.0) {
            let mean = Duration::try_from_secs_f64(seconds / answers).unwrap_or_default();
            detail += &format!(", they take {} on the mean", Human(mean));
            if mean > longest {
                return GateAnswer::Fail { detail: format!("{detail}, at most {} allowed", Human(longest)) };
            }
        }
        if let Some(most) = self.max_in_flight.filter(|_| minutes > 0.0) {
            let mean = seconds / (minutes * PERIOD.as_secs_f64());
            detail += &format!(", {mean:.1} are in flight on the mean");
            if mean > f64::from(most) {
                return GateAnswer::Fail { detail: format!("{detail}, at most {most} allowed") };
            }
        }
        GateAnswer::Pass { detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_permille: Some(10), max_latency: None, max_in_flight: None, min_requests: 100 };

    fn judged(limits: Limits, requests: f64, errors: f64, seconds: f64) -> String {
        limits.judge(&Counted { requests, errors, answers: requests - errors, seconds, minutes: 2.0 }).to_string()
    }

    #[test]
    fn shares_count_and_not_numbers() {
        assert_eq!(judged(LIMITS, 1_000.0, 10.0, 1.0), "pass: 10 of 1000 requests failed");
        assert_eq!(judged(LIMITS, 1_000.0, 11.0, 1.0), "fail: 11 of 1000 requests failed, at most 1 % may");
        let few = judged(LIMITS, 99.0, 99.0, 1.0);
        assert_eq!(few, "inconclusive: 99 of 99 requests failed, 100 requests are needed to tell");
    }

    #[test]
    fn what_takes_too_long_fails() {
        let limits = Limits { max_latency: Some(Duration::from_millis(200)), ..LIMITS };
        let passed = judged(limits, 100.0, 0.0, 20.0);
        assert_eq!(passed, "pass: 0 of 100 requests failed, they take 200ms on the mean");
        let failed = judged(limits, 100.0, 0.0, 30.0);
        assert_eq!(failed, "fail: 0 of 100 requests failed, they take 300ms on the mean, at most 200ms allowed");
    }

    #[test]
    fn too_many_at_once_fail() {
        let limits = Limits { max_in_flight: Some(5), ..LIMITS };
        let passed = judged(limits, 100.0, 0.0, 600.0);
        assert_eq!(passed, "pass: 0 of 100 requests failed, 5.0 are in flight on the mean");
        let failed = judged(limits, 100.0, 0.0, 660.0);
        assert_eq!(failed, "fail: 0 of 100 requests failed, 5.5 are in flight on the mean, at most 5 allowed");
        // Minutes without requests are no minutes of little load.
        let mut counted = Counted::default();
        counted.add("requests0", &[60.0, 60.0]);
        counted.add("requests1", &[30.0]);
        assert_eq!((counted.requests, counted.minutes), (150.0, 2.0));
    }

    #[test]
    fn the_minute_in_which_a_deployment_began_does_not_count() {
        let (began, minutes) = (Timestamp::from_millis(600_500), |n: i64| Timestamp::from_millis(n * 60_000));
        let id: DeploymentId = format!("{:012x}7000800000000000000a", began.as_millis()).parse().unwrap();
        let window = Duration::from_secs(300);
        assert_eq!(span(&id, Timestamp::from_millis(630_000), window), None);
        assert_eq!(span(&id, Timestamp::from_millis(661_000), window), Some((minutes(11), minutes(12))));
        assert_eq!(span(&id, Timestamp::from_millis(1_200_500), window), Some((minutes(15), minutes(21))));
    }

    #[test]
    fn names_are_those_of_cloudwatch() {
        let elb = "arn:aws:elasticloadbalancing:eu-central-1:123456789012";
        assert_eq!(balancer(&format!("{elb}:listener/app/stage/0123/4567")), "app/stage/0123");
        assert_eq!(group(&format!("{elb}:targetgroup/shop-web-1-a/89ab")), "targetgroup/shop-web-1-a/89ab");
    }
}

//! The operations of CloudWatch: alarms that tests set, and what the load balancer has counted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Cloud, LISTENER, Refusal};

type Answer = Result<Value, Refusal>;

/// Milliseconds in one period of the load balancer's metrics.
const PERIOD: u64 = 60_000;

/// An alarm.
#[derive(Clone, Debug)]
pub(crate) struct Alarm {
    pub(crate) composite: bool,
    pub(crate) state: &'static str,
    /// Since when, in milliseconds since the beginning.
    pub(crate) since: u64,
}

/// What was counted, by target group, metric and period.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted(BTreeMap<(String, &'static str, u64), f64>);

impl Counted {
    pub(crate) fn add(&mut self, group: &str, metric: &'static str, at: u64, number: f64) {
        *self.0.entry((group.to_owned(), metric, at / PERIOD)).or_default() += number;
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::rude("ValidationError", message)
}

fn seconds(millis: u64) -> f64 {
    (super::http::EPOCH_MILLIS + millis) as f64 / 1_000.0
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl Cloud {
    pub(super) fn cloudwatch(&self, operation: &str, request: &Value) -> Option<Answer> {
        Some(match operation {
            "DescribeAlarms" => self.describe_alarms(request),
            "GetMetricData" => self.get_metric_data(request),
            _ => return None,
        })
    }

    fn describe_alarms(&self, request: &Value) -> Answer {
        let names: Vec<&str> = list(&request["AlarmNames"]).filter_map(Value::as_str).collect();
        if names.len() > 100 || request["MaxRecords"].as_u64().is_some_and(|most| !(1..=100).contains(&most)) {
            return Err(invalid("a hundred alarms are the most"));
        }
        let types: Vec<&str> = list(&request["AlarmTypes"]).filter_map(Value::as_str).collect();
        // Composite alarms are told of only to those who ask for them.
        let wanted = |alarm: &Alarm| match alarm.composite {
            true => types.contains(&"CompositeAlarm"),
            false => types.is_empty() || types.contains(&"MetricAlarm"),
        };
        let mut answer = json!({"MetricAlarms": [], "CompositeAlarms": []});
        for (name, alarm) in self.alarms.iter().filter(|(name, alarm)| names.contains(&name.as_str()) && wanted(alarm))
        {
            let kind = if alarm.composite { "CompositeAlarms" } else { "MetricAlarms" };
            let shown = json!({
                "AlarmName": name, "StateValue": alarm.state, "StateReason": format!("{name} is {}", alarm.state),
                "StateUpdatedTimestamp": seconds(alarm.since), "StateTransitionedTimestamp": seconds(alarm.since),
            });
            if let Some(alarms) = answer[kind].as_array_mut() {
                alarms.push(shown);
            }
        }
        Ok(answer)
    }

    fn get_metric_data(&self, request: &Value) -> Answer {
        let time = |key: &str| request[key].as_f64().ok_or_else(|| invalid(format!("{key} is missing")));
        let (from, to) = (time("StartTime")?, time("EndTime")?);
        let queries: Vec<&Value> = list(&request["MetricDataQueries"]).collect();
        if from >= to || queries.is_empty() || queries.len() > 500 {
            return Err(invalid("the time range or the number of queries is not valid"));
        }
        let mut results = Vec::new();
        for query in queries {
            let id = query["Id"].as_str().unwrap_or_default();
            if !id.starts_with(|c: char| c.is_ascii_lowercase()) {
                return Err(invalid(format!("{id:?} is no id")));
            }
            let values = self.periods(&query["MetricStat"], (from, to))?;
            let times: Vec<f64> = values.iter().map(|(at, _)| seconds(*at)).collect();
            let values: Vec<f64> = values.into_iter().map(|(_, value)| value).collect();
            // Times that nobody reads are left out: a list of them would need tags of its own.
            results
                .push(json!({"Id": id, "StatusCode": "Complete", "Values": values, "Label": times.len().to_string()}));
        }
        Ok(json!({"MetricDataResults": results}))
    }

    /// The periods of a metric in a time range, each with its beginning.
    fn periods(&self, stat: &Value, (from, to): (f64, f64)) -> Result<Vec<(u64, f64)>, Refusal> {
        let metric = &stat["Metric"];
        if metric["Namespace"] != "AWS/ApplicationELB" || stat["Period"].as_u64().is_none_or(|period| period != 60) {
            return Err(invalid("only minutes of the load balancer are known here"));
        }
        let dimension = |name: &str| {
            let found = list(&metric["Dimensions"]).find(|dimension| dimension["Name"] == name);
            found.and_then(|dimension| dimension["Value"].as_str()).unwrap_or_default().to_owned()
        };
        let balancer = LISTENER.split_once(":listener/").and_then(|(_, path)| path.rsplit_once('/'));
        if balancer.is_none_or(|(balancer, _)| balancer != dimension("LoadBalancer")) {
            return Err(invalid(format!("there is no load balancer {:?}", dimension("LoadBalancer"))));
        }
        let name = metric["MetricName"].as_str().unwrap_or_default();
        let known = match (name, stat["Stat"].as_str().unwrap_or_default()) {
            ("RequestCount" | "HTTPCode_Target_5XX_Count" | "TargetConnectionErrorCount", "Sum") => name,
            ("TargetResponseTime", "Sum") => "seconds",
            ("TargetResponseTime", "SampleCount") => "RequestCount",
            other => return Err(invalid(format!("{other:?} is not known here"))),
        };
        let group = dimension("TargetGroup");
        let counted = self.counted.0.iter().filter(|((arn, metric, _), _)| arn.ends_with(&group) && *metric == known);
        let periods = counted.map(|((.., period), value)| (period * PERIOD, *value));
        Ok(periods.filter(|(at, _)| seconds(*at) >= from && seconds(*at) < to).collect())
    }
}

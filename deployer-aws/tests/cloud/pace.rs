//! How many requests AWS takes: token buckets as ECS publishes them, and guesses where nothing is published.

use std::collections::BTreeMap;

/// Groups of operations with their burst and their rate per second:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html>. Those of the load balancer and the
/// logs are guesses.
const RATES: [(&[&str], f64, f64); 9] = [
    (&["CreateService", "UpdateService", "DeleteService"], 50.0, 5.0),
    (&["DescribeServices", "ListServices"], 100.0, 20.0),
    (&["RegisterTaskDefinition", "DeregisterTaskDefinition"], 20.0, 1.0),
    (&["DescribeTaskDefinition"], 50.0, 20.0),
    (&["DescribeTasks", "ListTasks"], 100.0, 20.0),
    (&["RunTask", "StopTask"], 100.0, 40.0),
    (&["FilterLogEvents"], 10.0, 10.0),
    (&["DescribeRules", "DescribeTargetGroups", "DescribeTargetHealth", "DescribeTags"], 100.0, 20.0),
    (
        &[
            "CreateRule",
            "ModifyRule",
            "DeleteRule",
            "CreateTargetGroup",
            "ModifyTargetGroup",
            "ModifyTargetGroupAttributes",
            "DeleteTargetGroup",
            "AddTags",
        ],
        50.0,
        10.0,
    ),
];

/// What is left of each group, and since when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buckets(BTreeMap<usize, (f64, u64)>);

impl Buckets {
    /// Whether a request is taken.
    pub(super) fn take(&mut self, operation: &str, now: u64) -> bool {
        let Some(index) = RATES.iter().position(|(operations, ..)| operations.contains(&operation)) else {
            return true;
        };
        let (_, burst, rate) = RATES[index];
        let (left, since) = self.0.entry(index).or_insert((burst, now));
        *left = (*left + rate * now.saturating_sub(*since) as f64 / 1_000.0).min(burst);
        *since = now;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

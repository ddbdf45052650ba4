//! Rules of the listener: one for each route.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, ForwardActionConfig, HostHeaderConditionConfig, PathPatternConditionConfig, Rule,
    RuleCondition, TargetGroupTuple,
};
use deployer_core::{Error, ErrorKind, Result, Route};

use super::groups::Purpose;
use crate::failure::{failed, is};
use crate::site::Site;

/// A rule of the listener, as it is now.
#[derive(Clone, Debug)]
pub(crate) struct LiveRule {
    pub(super) arn: String,
    pub(super) priority: u32,
    /// Which requests it takes, if it is like ours.
    pub(super) matches: Option<Match>,
    /// The target groups that it forwards to, with their weights.
    pub(super) groups: Vec<(String, i32)>,
    /// Those of them that are ours, by ARN.
    pub(super) ours: BTreeMap<String, Purpose>,
}

/// Which requests a rule takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) host: Option<String>,
    pub(super) path: String,
}

impl Match {
    pub(super) fn of(route: &Route) -> Self {
        Self { host: route.host.as_ref().map(|host| host.to_ascii_lowercase()), path: route.path.clone() }
    }

    /// The first priority for such a rule, and how many there are: those with a host before those without, longer paths
    /// before shorter ones, because the first rule that fits takes a request.
    fn priorities(&self) -> std::ops::Range<u32> {
        let length = u32::try_from(self.path.trim_end_matches('/').len()).unwrap_or(u32::MAX).min(BANDS - 1);
        let first = 1 + (BANDS - 1 - length) * BAND + if self.host.is_some() { 0 } else { BANDS * BAND };
        first..first + BAND
    }

    fn conditions(&self) -> Vec<RuleCondition> {
        let mut conditions = Vec::new();
        if let Some(host) = &self.host {
            let config = HostHeaderConditionConfig::builder().values(host).build();
            conditions.push(RuleCondition::builder().field("host-header").host_header_config(config).build());
        }
        if self.path != "/" || conditions.is_empty() {
            let path = self.path.trim_end_matches('/');
            // `/api` takes `/api` and what is below it, and not `/apix`.
            let patterns = if path.is_empty() { vec!["/*".to_owned()] } else { vec![path.into(), format!("{path}/*")] };
            let config = PathPatternConditionConfig::builder().set_values(Some(patterns)).build();
            conditions.push(RuleCondition::builder().field("path-pattern").path_pattern_config(config).build());
        }
        conditions
    }

    /// What conditions take, if they are of the form that [`conditions`](Self::conditions) has.
    fn read(conditions: &[RuleCondition]) -> Option<Self> {
        let (mut host, mut path) = (None, "/".to_owned());
        for condition in conditions {
            match condition.field()? {
                "host-header" => {
                    let values = match condition.host_header_config() {
                        Some(config) => config.values(),
                        None => condition.values(),
                    };
                    let [one] = values else { return None };
                    host = Some(one.to_ascii_lowercase());
                }
                "path-pattern" => {
                    let values = match condition.path_pattern_config() {
                        Some(config) => config.values(),
                        None => condition.values(),
                    };
                    path = match values {
                        [all] if all == "/*" => "/".to_owned(),
                        [one, below] | [below, one] if *below == format!("{one}/*") => one.clone(),
                        _ => return None,
                    };
                }
                _ => return None,
            }
        }
        Some(Self { host, path })
    }
}

/// How many lengths of paths are told apart, and how many rules of the same length there may be.
const BANDS: u32 = 128;
const BAND: u32 = 190;

impl LiveRule {
    /// What the rule's first target group of ours is for.
    pub(super) fn owner(&self) -> Option<&Purpose> {
        let weighted = self.groups.iter().find(|(arn, weight)| *weight > 0 && self.ours.contains_key(arn));
        let first = || self.groups.iter().find(|(arn, _)| self.ours.contains_key(arn));
        weighted.or_else(first).and_then(|(arn, _)| self.ours.get(arn))
    }

    /// Whether it forwards to these target groups.
    fn forwards_to(&self, groups: &[(String, i32)]) -> bool {
        groups.iter().all(|(arn, _)| self.groups.iter().any(|(known, _)| known == arn))
    }

    /// The route that it is, if it is one of ours.
    pub(super) fn route(&self) -> Option<Route> {
        let (matches, owner) = (self.matches.as_ref()?, self.owner()?);
        let mut route = Route::new(owner.port).with_path(&matches.path);
        route.host.clone_from(&matches.host);
        Some(route)
    }
}

impl Site {
    /// The ARN of the listener.
    pub(crate) fn listener(&self) -> Result<&str> {
        self.options.listener.as_deref().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the environment has no listener that could serve a route")
                .with_help("name one with `AwsOptions::with_listener`")
        })
    }

    /// All rules of the listener but its default one, in the order in which they are tried, as they were a moment ago;
    /// none without a listener.
    pub(crate) async fn rules(&self) -> Result<Vec<LiveRule>> {
        self.rules.get("", async { Ok((self.read_rules().await?, self.moment())) }).await
    }

    /// The rules as they are now, for everybody.
    pub(super) async fn rules_now(&self) -> Result<Vec<LiveRule>> {
        drop(self.rules.changing(""));
        self.rules().await
    }

    async fn read_rules(&self) -> Result<Vec<LiveRule>> {
        let Some(listener) = &self.options.listener else { return Ok(Vec::new()) };
        let mut found: Vec<Rule> = Vec::new();
        let mut marker = None;
        loop {
            let call = self.elb.describe_rules().listener_arn(listener).set_marker(marker);
            let answer = call.send().await;
            let answer = answer.map_err(|e| failed("elasticloadbalancing:DescribeRules", listener.as_str(), e))?;
            found.extend(answer.rules.unwrap_or_default());
            marker = answer.next_marker.filter(|marker| !marker.is_empty());
            if marker.is_none() {
                break;
            }
        }
        let forwards = |rule: &Rule| rule.actions().iter().flat_map(weights).collect::<Vec<_>>();
        let arns: BTreeSet<String> = found.iter().flat_map(forwards).map(|(arn, _)| arn).collect();
        let known = self.known_groups(&arns).await?;
        let mut rules: Vec<LiveRule> = found
            .iter()
            .filter_map(|rule| {
                let groups = forwards(rule);
                let ours = groups.iter().filter_map(|(arn, _)| Some((arn.clone(), known.get(arn)?.of.clone()?)));
                Some(LiveRule {
                    arn: rule.rule_arn()?.to_owned(),
                    priority: rule.priority()?.parse().ok()?,
                    matches: Match::read(rule.conditions()),
                    ours: ours.collect(),
                    groups,
                })
            })
            .collect();
        rules.sort_by_key(|rule| rule.priority);
        Ok(rules)
    }

    pub(super) async fn create_rule(
        &self,
        matches: &Match,
        groups: &[(String, i32)],
        taken: &mut BTreeSet<u32>,
    ) -> Result<()> {
        let listener = self.listener()?;
        let _changing = self.rules.changing("");
        let mut free =
            matches.priorities().filter(|priority| !taken.contains(priority)).collect::<Vec<_>>().into_iter();
        loop {
            let Some(priority) = free.next() else {
                return Err(Error::new(ErrorKind::Exhausted, "the listener has no priority left for such a rule")
                    .with_resource(listener));
            };
            taken.insert(priority);
            let call = self
                .elb
                .create_rule()
                .listener_arn(listener)
                .priority(i32::try_from(priority).unwrap_or(i32::MAX))
                .set_conditions(Some(matches.conditions()))
                .actions(forward(groups));
            match call.send().await {
                Ok(_) => return Ok(()),
                // Somebody else was faster, or it was made by an attempt of which nobody has heard.
                Err(error) if is(&error, &["PriorityInUse", "PriorityInUseException"]) => {
                    let rules = self.rules_now().await?;
                    let same = rules.iter().find(|rule| rule.matches.as_ref() == Some(matches));
                    if let Some(same) = same {
                        return if same.forwards_to(groups) { Ok(()) } else { Err(taken_meanwhile(same)) };
                    }
                }
                Err(error) => return Err(failed("elasticloadbalancing:CreateRule", listener, error)),
            }
        }
    }

    pub(super) async fn modify_rule(&self, rule: &LiveRule, groups: &[(String, i32)]) -> Result<()> {
        let call = self.elb.modify_rule().rule_arn(&rule.arn).actions(forward(groups));
        let changing = self.rules.changing("");
        let answer = call.send().await;
        answer.map_err(|error| failed("elasticloadbalancing:ModifyRule", rule.arn.as_str(), error))?;
        let ours: BTreeMap<String, Purpose> = {
            let memory = self.memory();
            let ours = groups.iter().filter_map(|(arn, _)| Some((arn.clone(), memory.groups.get(arn)?.of.clone()?)));
            ours.collect()
        };
        changing.made(|rules| {
            let Some(known) = rules.iter_mut().find(|known| known.arn == rule.arn) else { return false };
            (known.groups, known.ours) = (groups.to_vec(), ours);
            true
        });
        Ok(())
    }

    pub(super) async fn delete_rule(&self, rule: &LiveRule) -> Result<()> {
        let _changing = self.rules.changing("");
        match self.elb.delete_rule().rule_arn(&rule.arn).send().await {
            Ok(_) => Ok(()),
            Err(error) if is(&error, &["RuleNotFound", "RuleNotFoundException"]) => Ok(()),
            Err(error) => Err(failed("elasticloadbalancing:DeleteRule", rule.arn.as_str(), error)),
        }
    }
}

/// Somebody else has made a rule for the same route since the rules were looked at.
fn taken_meanwhile(rule: &LiveRule) -> Error {
    Error::new(ErrorKind::Conflict, "somebody else has made a rule for the route").with_resource(rule.arn.clone())
}

/// The target groups that an action forwards to.
fn weights(action: &Action) -> Vec<(String, i32)> {
    if let Some(config) = action.forward_config().filter(|config| !config.target_groups().is_empty()) {
        let groups = config.target_groups().iter();
        return groups
            .filter_map(|one| Some((one.target_group_arn()?.to_owned(), one.weight().unwrap_or(1))))
            .collect();
    }
    action.target_group_arn().map(|arn| (arn.to_owned(), 1)).into_iter().collect()
}

fn forward(groups: &[(String, i32)]) -> Action {
    let tuples =
        groups.iter().map(|(arn, weight)| TargetGroupTuple::builder().target_group_arn(arn).weight(*weight).build());
    let config = ForwardActionConfig::builder().set_target_groups(Some(tuples.collect())).build();
    Action::builder().r#type(ActionTypeEnum::Forward).forward_config(config).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: Option<&str>, path: &str) -> Match {
        Match { host: host.map(str::to_owned), path: path.to_owned() }
    }

    #[test]
    fn conditions_can_be_read_back() {
        for matches in [
            route(None, "/"),
            route(None, "/api"),
            route(Some("shop.example"), "/"),
            route(Some("shop.example"), "/api/v1"),
        ] {
            assert_eq!(Match::read(&matches.conditions()), Some(matches));
        }
    }

    #[test]
    fn the_more_particular_rule_is_tried_first() {
        let rising = [
            route(Some("shop.example"), "/api/v1"),
            route(Some("shop.example"), "/api"),
            route(Some("shop.example"), "/"),
            route(None, "/api/v1"),
            route(None, "/api"),
            route(None, "/"),
        ];
        let ranges: Vec<_> = rising.iter().map(Match::priorities).collect();
        assert!(ranges.is_sorted_by(|one, other| one.end <= other.start), "{ranges:?}");
        assert!(ranges.iter().all(|range| range.start >= 1 && range.end <= 50_000), "{ranges:?}");
        let longest = route(None, &format!("/{}", "x".repeat(300))).priorities();
        assert!(longest.start >= 1);
    }
}

//! Weights between the slots of a service.

use std::collections::{BTreeMap, BTreeSet};

use deployer_core::{Error, ErrorKind, Outcome, PoolVersion, Result, Retry, ServiceName, SetWeights};
use futures_util::future::{try_join, try_join_all};

use super::by_service;
use super::rules::LiveRule;
use crate::site::Site;

/// The different weights of the slots in the rules of a service, by letter: one, unless somebody is changing them or was
/// stopped in the midst.
pub(super) fn of_rules(rules: &[&LiveRule], service: &ServiceName) -> Vec<BTreeMap<char, u8>> {
    let all: BTreeSet<BTreeMap<char, u8>> = rules.iter().map(|rule| of_rule(rule, service)).collect();
    all.into_iter().collect()
}

/// What the slots get on the mean; whatever gets something gets 1 at least.
pub(super) fn mean(all: &[BTreeMap<char, u8>]) -> BTreeMap<char, u8> {
    let mut sums: BTreeMap<char, usize> = BTreeMap::new();
    for (letter, weight) in all.iter().flatten() {
        *sums.entry(*letter).or_default() += usize::from(*weight);
    }
    let mean = |sum: usize| u8::try_from((sum / all.len().max(1)).max(1)).unwrap_or(100);
    sums.into_iter().map(|(letter, sum)| (letter, mean(sum))).collect()
}

/// The weights that a rule gives to the slots of a service, those that have any.
fn of_rule(rule: &LiveRule, service: &ServiceName) -> BTreeMap<char, u8> {
    let weighted = rule.groups.iter().filter(|(_, weight)| *weight > 0).filter_map(|(arn, weight)| {
        let purpose = rule.ours.get(arn).filter(|purpose| purpose.service == *service)?;
        Some((purpose.letter, *weight))
    });
    let weighted: Vec<(char, i32)> = weighted.collect();
    let sum: i32 = weighted.iter().map(|(_, weight)| weight).sum();
    // Somebody may have given weights that are no percentages.
    let share = |weight: i32| u8::try_from((weight * 100 + sum / 2) / sum.max(1)).unwrap_or(100);
    weighted.into_iter().map(|(letter, weight)| (letter, share(weight))).collect()
}

/// Changes with the weights. ELB has no version of its own: weights that were changed and changed back are the same.
pub(super) fn version(all: &[BTreeMap<char, u8>]) -> PoolVersion {
    let one = |weights: &BTreeMap<char, u8>| {
        let parts: Vec<String> = weights.iter().map(|(letter, weight)| format!("{letter}{weight}")).collect();
        if parts.is_empty() { "none".to_owned() } else { parts.join("-") }
    };
    PoolVersion(all.iter().map(one).collect::<Vec<_>>().join("+"))
}

impl Site {
    pub(super) async fn shift(&self, request: &SetWeights) -> Result<Outcome> {
        let (rules, slots) = try_join(self.rules_now(), self.slots(&request.app)).await?;
        let services = by_service(&request.app, &rules, &slots);
        let unknown = || {
            Error::new(ErrorKind::NotFound, "the load balancer has no rule for the service")
                .with_resource(request.service.as_str())
        };
        let traffic = services.get(&request.service).ok_or_else(unknown)?;
        let mut wanted: BTreeMap<char, u8> = BTreeMap::new();
        for (revision, weight) in request.weights.iter().filter(|(_, weight)| **weight > 0) {
            let slot = traffic.slots.iter().find(|slot| slot.holds(revision)).ok_or_else(|| {
                // It may be what ECS answered that is old.
                Error::new(ErrorKind::NotFound, "the revision that is to get traffic does not run")
                    .with_resource(revision.to_string())
                    .with_retry(Retry::After(self.options.poll))
            })?;
            wanted.insert(slot.letter, *weight);
        }
        // Where a route moves to this service, the rule is its own from now on.
        let claimed = rules.iter().filter(|rule| is_claimed(rule, &request.service));
        let claimed: Vec<&LiveRule> = claimed.filter(|_| !wanted.is_empty()).collect();
        let other: Vec<&LiveRule> =
            traffic.rules.iter().copied().filter(|rule| of_rule(rule, &request.service) != wanted).collect();
        let found = version(&of_rules(&traffic.rules, &request.service));
        let stale = |rule: &&LiveRule| version(&[of_rule(rule, &request.service)]) != request.expected;
        if found != request.expected && other.iter().any(stale) {
            return Err(Error::new(ErrorKind::Conflict, "the weights are not those that were seen before")
                .with_resource(request.service.as_str())
                .with_context("found", found.0)
                .with_context("expected", request.expected.0.clone()));
        }
        let change = async |rule: &LiveRule| {
            let weight = |arn: &String| {
                let ours = rule.ours.get(arn).filter(|purpose| purpose.service == request.service);
                ours.and_then(|purpose| wanted.get(&purpose.letter)).copied().unwrap_or_default()
            };
            let groups: Vec<(String, i32)> =
                rule.groups.iter().map(|(arn, _)| (arn.clone(), i32::from(weight(arn)))).collect();
            self.modify_rule(rule, &groups).await
        };
        let changed = try_join_all(other.into_iter().chain(claimed).map(change)).await?.len();
        Ok(if changed == 0 { Outcome::AlreadyThere } else { Outcome::Changed })
    }
}

/// Whether a rule waits for a service to take it over from another one of its application: the service's target groups
/// are in it and have no weight.
fn is_claimed(rule: &LiveRule, service: &ServiceName) -> bool {
    let owned = rule.owner().is_some_and(|owner| owner.service != *service);
    owned && rule.ours.values().any(|purpose| purpose.service == *service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_mean_nobody_is_left_out_who_gets_anything() {
        let (old, new) = (BTreeMap::from([('a', 100)]), BTreeMap::from([('b', 100)]));
        let few = BTreeMap::from([('a', 99), ('b', 1)]);
        assert_eq!(mean(&[]), BTreeMap::new());
        assert_eq!(mean(std::slice::from_ref(&old)), old);
        assert_eq!(mean(&[old.clone(), new.clone()]), BTreeMap::from([('a', 50), ('b', 50)]));
        assert_eq!(mean(&[old.clone(), few.clone()]), BTreeMap::from([('a', 99), ('b', 1)]));
        let versions = [version(std::slice::from_ref(&old)), version(&[old.clone(), new]), version(&[old, few])];
        assert_eq!(versions.map(|version| version.0), ["a100", "a100+b100", "a100+a99-b1"]);
        assert_eq!(version(&[BTreeMap::new()]).0, "none");
    }
}

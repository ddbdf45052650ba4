//! Weights between the slots of a service.

use std::collections::{BTreeMap, BTreeSet};

use deployer_core::{Error, ErrorKind, Outcome, PoolVersion, Result, Retry, ServiceName, SetWeights};
use futures_util::future::{try_join, try_join_all};

use super::by_service;
use super::rules::LiveRule;
use crate::ecs::Slot;
use crate::site::Site;

/// The different weights of the slots in the rules of a service, by letter: one, unless somebody is changing them or was
/// stopped in the midst. A rule without weights in which there is nothing for the slots that serve is one that goes.
pub(super) fn of_rules(rules: &[&LiveRule], service: &ServiceName) -> Vec<BTreeMap<char, u8>> {
    let weights: Vec<(&LiveRule, BTreeMap<char, u8>)> =
        rules.iter().map(|rule| (*rule, of_rule(rule, service))).collect();
    let serving: BTreeSet<char> = weights.iter().flat_map(|(_, weights)| weights.keys().copied()).collect();
    let goes = |rule: &LiveRule| {
        let mut ours = rule.ours.values().filter(|purpose| purpose.service == *service);
        !serving.is_empty() && ours.all(|purpose| !serving.contains(&purpose.letter))
    };
    let stay = weights.into_iter().filter(|(rule, weights)| !weights.is_empty() || !goes(rule));
    stay.map(|(_, weights)| weights).collect::<BTreeSet<_>>().into_iter().collect()
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

/// The weights that a rule gives to the slots of a service, those that have any. What somebody else's target group gets is
/// missing from them.
fn of_rule(rule: &LiveRule, service: &ServiceName) -> BTreeMap<char, u8> {
    let weighted = rule.groups.iter().filter(|(_, weight)| *weight > 0).filter_map(|(arn, weight)| {
        let purpose = rule.ours.get(arn).filter(|purpose| purpose.service == *service)?;
        Some((purpose.letter, *weight))
    });
    let weighted: Vec<(char, i32)> = weighted.collect();
    let strange = rule.groups.iter().filter(|(arn, _)| !rule.ours.contains_key(arn)).map(|(_, weight)| weight);
    let sum: i32 = weighted.iter().map(|(_, weight)| weight).chain(strange).sum();
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
        let changes: Result<Vec<_>> = other
            .into_iter()
            .chain(claimed)
            .map(|rule| {
                if let Some(stranger) = rule.stranger() {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "somebody else's target group gets traffic of the service",
                    )
                    .with_resource(stranger)
                    .with_context("rule", rule.arn.clone())
                    .with_help("take it out of the rule, or give it no weight"));
                }
                let mut groups: Vec<(String, i32)> = rule.groups.iter().map(|(arn, _)| (arn.clone(), 0)).collect();
                for (letter, weight) in &wanted {
                    let slot = traffic.slots.iter().find(|slot| slot.letter == *letter);
                    let entrance = slot.and_then(|slot| entrance(rule, &request.service, slot));
                    groups.iter_mut().filter(|(arn, _)| Some(arn.as_str()) == entrance).for_each(|(_, of)| {
                        *of = i32::from(*weight);
                    });
                }
                Ok((rule, groups))
            })
            .collect();
        let mut changes = changes?;
        changes.retain(|(rule, groups)| rule.groups != *groups);
        try_join_all(changes.iter().map(|(rule, groups)| self.modify_rule(rule, groups))).await?;
        Ok(if changes.is_empty() { Outcome::AlreadyThere } else { Outcome::Changed })
    }
}

/// The target group by which a rule brings traffic to a slot: one that ECS registers its tasks with, if there is such. Where the
/// port of a route changes, a rule has those of both ports for a while; one slot comes with the new port while another still
/// has the old. A route that only the other revision has gets its weights as well: it goes with that one.
fn entrance<'a>(rule: &'a LiveRule, service: &ServiceName, slot: &Slot) -> Option<&'a str> {
    let owner = rule.owner();
    let serves = owner.is_some_and(|owner| owner.service == *service && owner.letter == slot.letter);
    let of_slot = rule.groups.iter().filter_map(|(arn, _)| {
        let purpose = rule.ours.get(arn).filter(|of| of.service == *service && of.letter == slot.letter)?;
        let registered = slot.groups.iter().any(|(known, _)| known == arn);
        let same = owner.is_some_and(|owner| owner.inlet == purpose.inlet);
        Some((!registered, same != serves, arn.as_str()))
    });
    of_slot.min().map(|(.., arn)| arn)
}

/// Whether a rule waits for a service to take it over from another one of its application: the service's target groups
/// are in it and have no weight.
fn is_claimed(rule: &LiveRule, service: &ServiceName) -> bool {
    let owned = rule.owner().is_some_and(|owner| owner.service != *service);
    owned && rule.ours.values().any(|purpose| purpose.service == *service)
}

#[cfg(test)]
mod tests {
    use deployer_core::RevisionId;

    use super::super::groups::{Inlet, Purpose};
    use super::*;

    /// A rule of the service `web` with these target groups: the slot's letter, the port, and the weight; no letter for somebody
    /// else's.
    fn rule(groups: &[(Option<char>, u16, i32)]) -> LiveRule {
        let arn = |letter: &Option<char>, port: &u16| format!("{}-{port}", letter.unwrap_or('?'));
        let purpose = |letter: char, port: u16| Purpose {
            app: "shop".parse().unwrap(),
            service: "web".parse().unwrap(),
            letter,
            inlet: Inlet::http(port),
        };
        let ours = groups.iter().filter_map(|(letter, port, _)| Some((arn(letter, port), purpose((*letter)?, *port))));
        let weights = groups.iter().map(|(letter, port, weight)| (arn(letter, port), *weight));
        LiveRule::of(weights.collect(), ours.collect())
    }

    #[test]
    fn what_somebody_else_gets_is_missing() {
        let web = "web".parse().unwrap();
        let fair = rule(&[(Some('a'), 80, 0), (Some('b'), 80, 3)]);
        assert_eq!((of_rule(&fair, &web), fair.stranger()), (BTreeMap::from([('b', 100)]), None));
        let strange = rule(&[(Some('a'), 80, 0), (Some('b'), 80, 75), (None, 1, 25)]);
        assert_eq!((of_rule(&strange, &web), strange.stranger()), (BTreeMap::from([('b', 75)]), Some("?-1")));
        assert_eq!(rule(&[(Some('b'), 80, 1), (None, 1, 0)]).stranger(), None);
    }

    #[test]
    fn a_route_that_goes_makes_no_weights_uneven() {
        let web = "web".parse().unwrap();
        let serves = rule(&[(Some('a'), 80, 0), (Some('c'), 80, 100)]);
        let (goes, zeroed) = (rule(&[(Some('a'), 90, 0)]), rule(&[(Some('a'), 80, 0), (Some('c'), 80, 0)]));
        assert_eq!(of_rules(&[&serves, &goes], &web), [BTreeMap::from([('c', 100)])]);
        // Somebody has moved the weights of one that stays.
        assert_eq!(of_rules(&[&serves, &zeroed], &web).len(), 2);
        assert_eq!(of_rules(&[&goes], &web), [BTreeMap::new()]);
    }

    #[test]
    fn traffic_enters_where_instances_are_registered() {
        let web = "web".parse().unwrap();
        let slot = |letter: char, ports: &[u16]| {
            let groups = ports.iter().map(|port| (format!("{letter}-{port}"), *port)).collect();
            Slot::of("web@0123456789ab".parse::<RevisionId>().unwrap(), letter, groups)
        };
        let both = rule(&[(Some('a'), 80, 100), (Some('b'), 80, 0), (Some('a'), 90, 0), (Some('b'), 90, 0)]);
        let entrances = [slot('a', &[80]), slot('b', &[90]), slot('b', &[80, 90]), slot('a', &[80, 90])]
            .map(|slot| entrance(&both, &web, &slot).map(str::to_owned));
        // What serves stays where it is, what comes takes the new port.
        assert_eq!(
            entrances.each_ref().map(Option::as_deref),
            [Some("a-80"), Some("b-90"), Some("b-90"), Some("a-80")]
        );
        assert_eq!(entrance(&rule(&[(Some('a'), 80, 1)]), &web, &slot('b', &[80])), None);
        // A route that the revision does not have.
        assert_eq!(entrance(&rule(&[(Some('a'), 90, 0), (Some('b'), 90, 1)]), &web, &slot('a', &[80])), Some("a-90"));
    }

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

//! Rules and target groups of a release: those that it needs, and no others.

use std::collections::{BTreeMap, BTreeSet};

use deployer_core::{
    AppName, Error, ErrorKind, Outcome, Release, Result, RetainRoutes, RevisionId, Route, ServiceName, ServiceRelease,
};
use futures_util::future::{try_join, try_join_all};

use super::groups::ports;
use super::rules::{LiveRule, Match};
use super::weights::of_letters;
use crate::ecs::Slot;
use crate::naming;
use crate::site::Site;

/// How many slots are made ready at once: one that serves, and one for what comes next. ECS accepts a target group only if
/// a rule refers to it.
const READY: usize = 2;

/// How many target groups a rule may have: <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>.
const GROUPS: usize = 5;

impl Site {
    pub(super) async fn ensure_routes(&self, release: &Release) -> Result<Outcome> {
        let routed: Vec<(&ServiceName, &ServiceRelease)> =
            release.services.iter().filter(|(_, service)| !service.routes.is_empty()).collect();
        if routed.is_empty() {
            return Ok(Outcome::AlreadyThere);
        }
        self.listener()?;
        let (rules, slots) = try_join(self.rules_now(), self.slots(&release.app)).await?;
        check_free(&release.app, &routed, &rules)?;
        let mut taken: BTreeSet<u32> = rules.iter().map(|rule| rule.priority).collect();
        let mut outcome = Outcome::AlreadyThere;
        for (name, service) in routed {
            let letters = letters(&slots, &service.revision(name));
            let wanted = ports(service).into_iter().flat_map(|port| letters.iter().map(move |letter| (port, *letter)));
            let groups = wanted.map(async |(port, letter)| {
                let (arn, made) = self.ensure_group(&release.app, name, service, (port, letter)).await?;
                Ok::<_, Error>((port, letter, arn, made))
            });
            let groups = try_join_all(groups).await?;
            if groups.iter().any(|(.., made)| *made) {
                outcome = outcome.and(Outcome::Created);
            }
            // A further route of a service has its weights at once.
            let owned =
                |rule: &&LiveRule| rule.owner().is_some_and(|owner| owner.app == release.app && owner.service == *name);
            let weights = of_letters(&rules.iter().filter(owned).collect::<Vec<_>>(), name);
            for route in &service.routes {
                let of_port = groups.iter().filter(|(port, ..)| *port == route.port);
                let of_port: Vec<(String, i32)> = of_port
                    .map(|(_, letter, arn, _)| (arn.clone(), weights.get(letter).copied().map_or(0, i32::from)))
                    .collect();
                outcome = outcome.and(self.ensure_rule(&rules, &Match::of(route), name, of_port, &mut taken).await?);
            }
        }
        let had = rules.iter().any(|rule| rule.owner().is_some_and(|owner| owner.app == release.app));
        Ok(if had && outcome == Outcome::Created { Outcome::Changed } else { outcome })
    }

    /// The rule for a route, with these target groups in it.
    async fn ensure_rule(
        &self,
        rules: &[LiveRule],
        matches: &Match,
        service: &ServiceName,
        groups: Vec<(String, i32)>,
        taken: &mut BTreeSet<u32>,
    ) -> Result<Outcome> {
        let Some(rule) = rules.iter().find(|rule| rule.matches.as_ref() == Some(matches)) else {
            self.create_rule(matches, &groups, taken).await?;
            return Ok(Outcome::Created);
        };
        let has = |arn: &String| rule.groups.iter().any(|(known, _)| known == arn);
        if groups.iter().all(|(arn, _)| has(arn)) {
            return Ok(Outcome::AlreadyThere);
        }
        // Where the port of a route changes, its old target groups have the traffic until the new ones get it.
        let mut all = rule.groups.clone();
        all.extend(groups.into_iter().filter(|(arn, _)| !has(arn)).map(|(arn, _)| (arn, 0)));
        let idle = |(arn, weight): &(String, i32)| {
            *weight == 0 && rule.ours.get(arn).is_some_and(|purpose| purpose.service != *service)
        };
        while all.len() > GROUPS {
            let Some(index) = all.iter().position(idle) else {
                return Err(Error::new(ErrorKind::Exhausted, "the rule of the route has five target groups already")
                    .with_resource(rule.arn.clone())
                    .with_help("deploy the move of the route on its own, and let it finish"));
            };
            all.remove(index);
        }
        self.modify_rule(rule, &all).await?;
        Ok(Outcome::Changed)
    }

    pub(super) async fn retain(&self, request: &RetainRoutes) -> Result<Outcome> {
        let (rules, slots) = try_join(self.rules_now(), self.slots(&request.app)).await?;
        let kept: BTreeMap<&ServiceName, &ServiceRelease> =
            request.release.iter().flat_map(|release| &release.services).collect();
        let wanted = |rule: &LiveRule| {
            rule.owner().is_some_and(|owner| {
                let routes = kept.get(&owner.service).map(|service| service.routes.as_slice()).unwrap_or_default();
                routes.iter().any(|route| rule.matches == Some(Match::of(route)) && route.port == owner.port)
            })
        };
        let ours = |rule: &&LiveRule| rule.owner().is_some_and(|owner| owner.app == request.app);
        let (stay, go): (Vec<&LiveRule>, Vec<&LiveRule>) = rules.iter().filter(ours).partition(|rule| wanted(rule));
        // What a rule has of other services and ports leaves it.
        let strip = stay.iter().filter_map(|rule| {
            let owner = rule.owner()?;
            let belongs = |arn: &String| {
                rule.ours.get(arn).is_some_and(|one| one.service == owner.service && one.port == owner.port)
            };
            let groups: Vec<(String, i32)> = rule.groups.iter().filter(|(arn, _)| belongs(arn)).cloned().collect();
            (groups.len() < rule.groups.len()).then_some((*rule, groups))
        });
        let strip: Vec<_> = strip.collect();
        let mut changed = !strip.is_empty() || !go.is_empty();
        let stripping = try_join_all(strip.iter().map(|(rule, groups)| self.modify_rule(rule, groups)));
        let deleting = try_join_all(go.iter().map(|rule| self.delete_rule(rule)));
        try_join(stripping, deleting).await?;
        // What no rule refers to any more.
        let referred = |arn: &String| {
            stay.iter().any(|rule| rule.groups.iter().any(|(known, _)| known == arn))
                && !strip.iter().any(|(rule, groups)| {
                    rule.groups.iter().any(|(known, _)| known == arn) && groups.iter().all(|(known, _)| known != arn)
                })
        };
        // Whoever was here before may have been stopped between a rule and its target groups.
        let of_app = self.groups_of_app(&request.app).await?;
        let orphans: Vec<&String> = of_app.iter().filter(|arn| !referred(arn)).collect();
        try_join_all(orphans.iter().map(|arn| self.delete_group(arn))).await?;
        // Before any slot is deleted: a scalable target would be left over.
        changed |= self.settle_scaling(&request.app, request.release.as_deref(), &slots).await?;
        // Slots of services that are gone.
        let gone = |slot: &Slot| slot.is_idle() && !kept.contains_key(&slot.service);
        let gone: Vec<Slot> = slots.into_iter().filter(gone).collect();
        changed |= !gone.is_empty();
        self.delete_slots(&request.app, &gone).await?;
        Ok(if changed { Outcome::Changed } else { Outcome::AlreadyThere })
    }
}

/// No other application has one of the routes.
fn check_free(app: &AppName, routed: &[(&ServiceName, &ServiceRelease)], rules: &[LiveRule]) -> Result<()> {
    for route in routed.iter().flat_map(|(_, service)| &service.routes) {
        let Taken::By(who) = Taken::of(app, route, rules) else { continue };
        let host = route.host.as_deref().unwrap_or("*");
        return Err(Error::new(ErrorKind::AlreadyExists, "somebody else has the route")
            .with_resource(format!("{host}{}", route.path))
            .with_context("taken by", who)
            .with_help("choose another host or path, or remove the other one"));
    }
    Ok(())
}

/// Who has a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nobody.
    Free,
    /// The application.
    Ours,
    /// Somebody else, in words.
    By(String),
}

impl Taken {
    /// Who has a route of an application.
    pub(crate) fn of(app: &AppName, route: &Route, rules: &[LiveRule]) -> Self {
        let Some(rule) = rules.iter().find(|rule| rule.matches == Some(Match::of(route))) else { return Self::Free };
        match rule.owner() {
            Some(owner) if owner.app == *app => Self::Ours,
            Some(owner) => Self::By(format!("{} of {}", owner.service, owner.app)),
            None => Self::By(format!("a rule that is not ours, {}", rule.arn)),
        }
    }
}

/// The slots that a service needs: those that there are, at least two, and one in which the revision can run.
fn letters(slots: &[Slot], revision: &RevisionId) -> Vec<char> {
    let of_service: Vec<&Slot> = slots.iter().filter(|slot| slot.service == *revision.service()).collect();
    let mut letters: BTreeSet<char> = of_service.iter().map(|slot| slot.letter).collect();
    letters.extend(naming::SLOTS.into_iter().take(READY));
    let busy = |letter: &char| of_service.iter().any(|slot| slot.letter == *letter && !slot.is_idle());
    let runs = of_service.iter().any(|slot| slot.holds(revision));
    if !runs && letters.iter().all(busy) {
        letters.extend(naming::SLOTS.into_iter().find(|letter| !letters.contains(letter)));
    }
    letters.into_iter().collect()
}

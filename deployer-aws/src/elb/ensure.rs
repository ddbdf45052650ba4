//! Rules and target groups of a release: those that it needs, and no others.

use std::collections::{BTreeMap, BTreeSet};

use deployer_core::{
    AppName, Error, ErrorKind, Outcome, Release, Result, RetainRoutes, RevisionId, ServiceName, ServiceRelease,
};
use futures_util::future::{try_join, try_join_all, try_join3};
use tokio::sync::Mutex;

use super::groups::{Inlet, Purpose, Settings, inlets};
use super::rules::{LiveRule, Match};
use super::weights::{mean, of_rules};
use crate::ecs::Slot;
use crate::naming;
use crate::site::Site;

/// How many slots are made ready at once: one that serves, and one for what comes next. ECS accepts a target group only if
/// a rule refers to it.
const READY: usize = 2;

/// How many target groups a rule may have: <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>.
const GROUPS: usize = 5;

impl Site {
    pub(super) async fn ensure_routes(&self, release: &Release, changing: &Mutex<()>) -> Result<Outcome> {
        let routed: Vec<(&ServiceName, &ServiceRelease)> =
            release.services.iter().filter(|(_, service)| !inlets(service).is_empty()).collect();
        if routed.is_empty() {
            return Ok(Outcome::AlreadyThere);
        }
        for (matches, _) in routed.iter().flat_map(|(_, service)| Match::all_of(service)) {
            self.entrance(&matches)?;
        }
        let (rules, slots) = try_join(self.rules(), self.slots(&release.app)).await?;
        let settled = routed.iter().all(|(name, service)| self.unsettled(name, service, &slots).is_empty());
        if settled && is_complete(&release.app, &routed, &rules, &slots) {
            return Ok(Outcome::AlreadyThere);
        }
        let _changing = changing.lock().await;
        let rules = self.rules_now().await?;
        check_free(&release.app, &routed, &rules)?;
        let mut taken: BTreeSet<u32> = rules.iter().map(|rule| rule.priority).collect();
        let mut outcome = Outcome::AlreadyThere;
        for (name, service) in routed {
            let letters = letters(&slots, &service.revision(name));
            let wanted =
                inlets(service).into_iter().flat_map(|inlet| letters.iter().map(move |letter| (inlet, *letter)));
            let groups = wanted.map(async |(inlet, letter)| {
                let (arn, made) = self.ensure_group(&release.app, name, service, (inlet, letter)).await?;
                Ok::<_, Error>((inlet, letter, arn, made))
            });
            let groups = try_join_all(groups).await?;
            if groups.iter().any(|(.., made)| *made) {
                outcome = outcome.and(Outcome::Created);
            }
            // A further route of a service has its weights at once.
            let of_service = owned(&rules, &release.app, name);
            let weights = mean(&of_rules(&of_service, name));
            // The target groups of a release that kept callers may be in a rule that is made anew as well.
            let kept = of_service.iter().any(|rule| !rule.is_listener() && rule.is_sticky());
            let sticky = kept || service.balancing.sticky.is_some();
            for (matches, inlet) in ways(service, &of_service) {
                let of_inlet = groups.iter().filter(|(of, ..)| *of == inlet);
                let of_inlet: Vec<(String, i32)> = of_inlet
                    .map(|(_, letter, arn, _)| (arn.clone(), weights.get(letter).copied().map_or(0, i32::from)))
                    .collect();
                let rule = (&matches, sticky);
                outcome = outcome.and(self.ensure_rule(&rules, rule, name, of_inlet, &mut taken).await?);
            }
            let unsettled = self.unsettled(name, service, &slots);
            try_join_all(unsettled.iter().map(|(arn, settings)| self.apply_settings(arn, settings))).await?;
            if !unsettled.is_empty() {
                outcome = outcome.and(Outcome::Changed);
            }
        }
        let had = rules.iter().any(|rule| rule.owner().is_some_and(|owner| owner.app == release.app));
        Ok(if had && outcome == Outcome::Created { Outcome::Changed } else { outcome })
    }

    /// The target groups of what runs of a service whose settings are not those of the release.
    fn unsettled(&self, name: &ServiceName, service: &ServiceRelease, slots: &[Slot]) -> Vec<(String, Settings)> {
        let revision = service.revision(name);
        let groups = slots.iter().filter(|slot| slot.holds(&revision)).flat_map(|slot| &slot.groups);
        let memory = self.memory();
        let unsettled = groups.filter_map(|(arn, _)| {
            let known = memory.groups.get(arn)?;
            let settings = Settings::of(service, known.of.as_ref()?.inlet);
            (known.settings.as_ref() != Some(&settings.hash())).then(|| (arn.clone(), settings))
        });
        unsettled.collect()
    }

    /// The rule for a route or a published port, with these target groups in it. Where callers stay with an instance, they stay
    /// with its target group for a second: ELB wants it so, and no longer, because weights would not move them.
    async fn ensure_rule(
        &self,
        rules: &[LiveRule],
        (matches, sticky): (&Match, bool),
        service: &ServiceName,
        groups: Vec<(String, i32)>,
        taken: &mut BTreeSet<u32>,
    ) -> Result<Outcome> {
        let Some(known) = rules.iter().find(|rule| rule.matches.as_ref() == Some(matches)) else {
            self.create_rule((matches, sticky), &groups, taken).await?;
            return Ok(Outcome::Created);
        };
        let has = |arn: &String| known.groups.iter().any(|(known, _)| known == arn);
        let rule = if sticky { known.made_sticky() } else { known.clone() };
        if groups.iter().all(|(arn, _)| has(arn)) && (!sticky || known.is_sticky()) {
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
        self.modify_rule(&rule, &all).await?;
        Ok(Outcome::Changed)
    }

    pub(super) async fn retain(&self, request: &RetainRoutes, changing: &Mutex<()>) -> Result<Outcome> {
        let found = try_join3(self.rules(), self.slots(&request.app), self.groups_of_app(&request.app));
        let (rules, slots, groups) = found.await?;
        let kept: BTreeMap<&ServiceName, &ServiceRelease> =
            request.release.iter().flat_map(|release| &release.services).collect();
        // What runs of a service that stays keeps its way in, whichever port it has: a rollback may bring it back.
        let busy = slots.iter().filter(|slot| !slot.is_idle() && kept.contains_key(&slot.service));
        let busy: BTreeSet<&String> = busy.flat_map(|slot| &slot.groups).map(|(arn, _)| arn).collect();
        let mut surplus = Surplus::of(&request.app, &kept, &rules, (&groups, &busy));
        let mut changed = false;
        if !surplus.is_empty() {
            let _changing = changing.lock().await;
            surplus = Surplus::of(&request.app, &kept, &self.rules_now().await?, (&groups, &busy));
            changed = !surplus.strip.is_empty() || !surplus.go.is_empty();
            let stripping = try_join_all(surplus.strip.iter().map(|(rule, groups)| self.modify_rule(rule, groups)));
            let deleting = try_join_all(surplus.go.iter().map(|rule| self.delete_rule(rule)));
            try_join(stripping, deleting).await?;
            try_join_all(surplus.orphans.iter().map(|arn| self.delete_group(arn))).await?;
        }
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

/// What the listener has of an application that it does not need.
struct Surplus {
    /// Rules in which there is something of other services and ports, and what shall stay in them.
    strip: Vec<(LiveRule, Vec<(String, i32)>)>,
    /// Rules of routes that are gone.
    go: Vec<LiveRule>,
    /// Target groups to which no rule refers then: whoever was here before may have been stopped between a rule and its
    /// target groups.
    orphans: Vec<String>,
}

impl Surplus {
    fn of(
        app: &AppName,
        kept: &BTreeMap<&ServiceName, &ServiceRelease>,
        rules: &[LiveRule],
        (groups, busy): (&BTreeSet<String>, &BTreeSet<&String>),
    ) -> Self {
        let wanted = |rule: &LiveRule| {
            rule.owner().is_some_and(|owner| {
                let all = kept.get(&owner.service).map(|service| Match::all_of(service)).unwrap_or_default();
                all.iter().any(|(matches, inlet)| rule.matches.as_ref() == Some(matches) && *inlet == owner.inlet)
            })
        };
        let ours = |rule: &&LiveRule| rule.owner().is_some_and(|owner| owner.app == *app);
        let (stay, go): (Vec<&LiveRule>, Vec<&LiveRule>) = rules.iter().filter(ours).partition(|rule| wanted(rule));
        let mut strip = Vec::new();
        let mut referred: BTreeSet<&String> = BTreeSet::new();
        for rule in stay {
            let belongs = |arn: &String| {
                let of = rule.ours.get(arn).zip(rule.owner());
                of.is_some_and(|(one, owner)| {
                    one.service == owner.service && (one.inlet == owner.inlet || busy.contains(arn))
                })
            };
            let (stays, leaves): (Vec<_>, Vec<_>) = rule.groups.iter().partition(|(arn, _)| belongs(arn));
            referred.extend(stays.iter().map(|(arn, _)| arn));
            if !leaves.is_empty() {
                strip.push((rule.clone(), stays.into_iter().cloned().collect()));
            }
        }
        let orphans = groups.iter().filter(|arn| !referred.contains(arn) && !busy.contains(arn)).cloned().collect();
        Self { strip, go: go.into_iter().cloned().collect(), orphans }
    }

    fn is_empty(&self) -> bool {
        self.strip.is_empty() && self.go.is_empty() && self.orphans.is_empty()
    }
}

/// The rules of a service.
fn owned<'a>(rules: &'a [LiveRule], app: &AppName, service: &ServiceName) -> Vec<&'a LiveRule> {
    let of = |rule: &&LiveRule| rule.owner().is_some_and(|owner| owner.app == *app && owner.service == *service);
    rules.iter().filter(of).collect()
}

/// What brings traffic to a service: what its release says, and what only another release of it has said. That moves with the
/// rest until it is gone, as far as there is a port for it.
fn ways(service: &ServiceRelease, owned: &[&LiveRule]) -> Vec<(Match, Inlet)> {
    let (mut ways, inlets) = (Match::all_of(service), inlets(service));
    let others = owned.iter().filter_map(|rule| Some((rule.matches.clone()?, rule.owner()?.inlet)));
    let others: Vec<(Match, Inlet)> = others
        .filter(|(matches, inlet)| inlets.contains(inlet) && ways.iter().all(|(known, _)| known != matches))
        .collect();
    ways.extend(others);
    ways
}

/// Whether every route and published port has its rule, with a target group for each slot in it.
fn is_complete(app: &AppName, routed: &[(&ServiceName, &ServiceRelease)], rules: &[LiveRule], slots: &[Slot]) -> bool {
    routed.iter().all(|(name, service)| {
        let letters = letters(slots, &service.revision(name));
        let has = |rule: &LiveRule, letter: char, inlet: Inlet| {
            let purpose = Purpose { app: app.clone(), service: (*name).clone(), letter, inlet };
            rule.owner().is_some_and(|owner| owner.app == *app) && rule.ours.values().any(|one| *one == purpose)
        };
        ways(service, &owned(rules, app, name)).into_iter().all(|(matches, inlet)| {
            let rule = rules.iter().find(|rule| rule.matches.as_ref() == Some(&matches));
            let sticky = |rule: &LiveRule| service.balancing.sticky.is_none() || rule.is_sticky();
            rule.is_some_and(|rule| sticky(rule) && letters.iter().all(|letter| has(rule, *letter, inlet)))
        })
    })
}

/// No other application has one of the routes and published ports.
fn check_free(app: &AppName, routed: &[(&ServiceName, &ServiceRelease)], rules: &[LiveRule]) -> Result<()> {
    for (matches, _) in routed.iter().flat_map(|(_, service)| Match::all_of(service)) {
        let Taken::By(who) = Taken::of(app, &matches, rules) else { continue };
        let kind = match matches {
            Match::Requests { .. } => ErrorKind::AlreadyExists,
            Match::Connections { .. } => ErrorKind::Exhausted,
        };
        return Err(Error::new(kind, format!("somebody else has the {}", matches.kind()))
            .with_resource(matches.to_string())
            .with_context("taken by", who)
            .with_help(format!("choose another {}, or remove the other one", matches.choice())));
    }
    Ok(())
}

/// Who has a route or a published port.
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
    /// Who has a route or a published port of an application.
    pub(crate) fn of(app: &AppName, matches: &Match, rules: &[LiveRule]) -> Self {
        let Some(rule) = rules.iter().find(|rule| rule.matches.as_ref() == Some(matches)) else { return Self::Free };
        match rule.owner() {
            Some(owner) if owner.app == *app => Self::Ours,
            Some(owner) => Self::By(format!("{} of {}", owner.service, owner.app)),
            None => {
                let what = if rule.is_listener() { "listener" } else { "rule" };
                Self::By(format!("a {what} that is not ours, {}", rule.arn))
            }
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

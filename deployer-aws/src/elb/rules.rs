//! Rules of the listener, one for each route, and listeners of the Network Load Balancer, one for each published port.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, ForwardActionConfig, HostHeaderConditionConfig, Listener, PathPatternConditionConfig,
    ProtocolEnum, Rule, RuleCondition, TargetGroupStickinessConfig, TargetGroupTuple,
};
use deployer_core::{Error, ErrorKind, Result, Route, Service, Transport};
use futures_util::future::try_join;

use super::groups::{Inlet, Purpose};
use crate::failure::{failed, is};
use crate::site::Site;

/// A rule of the listener, or a listener of the Network Load Balancer, as it is now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LiveRule {
    pub(super) arn: String,
    /// A rule's; 0 for a listener, which has no other beside it.
    pub(super) priority: u32,
    /// What it takes, if it is like ours.
    pub(super) matches: Option<Match>,
    /// The target groups that it forwards to, with their weights.
    pub(super) groups: Vec<(String, i32)>,
    /// Those of them that are ours, by ARN.
    pub(super) ours: BTreeMap<String, Purpose>,
    /// What else it does, which others have chosen and which stays.
    beside: Beside,
}

/// What a rule does beside forwarding by weights.
#[derive(Clone, Debug, Default, PartialEq)]
struct Beside {
    /// What comes before, such as a login.
    before: Vec<Action>,
    /// When the forwarding comes, if there is anything else.
    order: Option<i32>,
    /// Whether callers stay with a target group.
    sticky: Option<TargetGroupStickinessConfig>,
}

/// A login with the secret that it has: ELB does not tell it, and takes nothing for it but the word that it stays.
fn with_its_secret(mut action: Action) -> Action {
    if let Some(login) = &mut action.authenticate_oidc_config {
        (login.client_secret, login.use_existing_client_secret) = (None, Some(true));
    }
    action
}

/// The shortest time for which callers stay with a target group.
fn moment() -> TargetGroupStickinessConfig {
    TargetGroupStickinessConfig::builder().enabled(true).duration_seconds(1).build()
}

impl Beside {
    /// What a rule of ours does.
    fn new(sticky: bool) -> Self {
        Self { sticky: sticky.then(moment), ..Self::default() }
    }

    fn read(actions: &[Action]) -> Self {
        let forwards = |action: &&Action| action.r#type() == Some(&ActionTypeEnum::Forward);
        let forward = actions.iter().find(forwards);
        Self {
            before: actions.iter().filter(|action| !forwards(action)).cloned().map(with_its_secret).collect(),
            order: forward.and_then(Action::order),
            sticky: forward
                .and_then(|action| action.forward_config()?.target_group_stickiness_config())
                .filter(|sticky| sticky.enabled() == Some(true))
                .cloned(),
        }
    }

    /// The actions of the rule with these weights.
    fn actions(&self, groups: &[(String, i32)]) -> Vec<Action> {
        let tuples = groups
            .iter()
            .map(|(arn, weight)| TargetGroupTuple::builder().target_group_arn(arn).weight(*weight).build());
        let config = ForwardActionConfig::builder()
            .set_target_groups(Some(tuples.collect()))
            .set_target_group_stickiness_config(self.sticky.clone())
            .build();
        let forward = Action::builder().r#type(ActionTypeEnum::Forward).forward_config(config);
        let order = self.order.filter(|_| !self.before.is_empty());
        self.before.iter().cloned().chain([forward.set_order(order).build()]).collect()
    }
}

/// What a rule or a listener takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// Requests to a host, or to every one, whose paths begin so.
    Requests { host: Option<String>, path: String },
    /// Connections to a port of the Network Load Balancer.
    Connections { port: u16 },
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests { host, path } => write!(f, "{}{path}", host.as_deref().unwrap_or("*")),
            Self::Connections { port } => write!(f, "{port}"),
        }
    }
}

impl Match {
    pub(crate) fn of(route: &Route) -> Self {
        let host = route.host.as_ref().map(|host| host.to_ascii_lowercase());
        Self::Requests { host, path: route.path.clone() }
    }

    /// What brings traffic to a service, and where in it: its routes and its published TCP ports.
    pub(crate) fn all_of<I>(service: &Service<I>) -> Vec<(Self, Inlet)> {
        let routes = service.routes.iter().map(|route| (Self::of(route), Inlet::http(route.port)));
        let tcp = service.workload.ports.iter().filter(|port| port.transport == Transport::Tcp);
        let published = tcp.filter_map(|port| {
            let published = port.published.as_ref()?;
            Some((Self::Connections { port: published.port }, Inlet::tcp(port.target)))
        });
        routes.chain(published).collect()
    }

    /// What it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Requests { .. } => "route",
            Self::Connections { .. } => "published port",
        }
    }

    /// What of it can be chosen, in words.
    pub(crate) fn choice(&self) -> &'static str {
        match self {
            Self::Requests { .. } => "host or path",
            Self::Connections { .. } => "port",
        }
    }

    /// What conditions take, if they are of the form that [`conditions`] has.
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
        Some(Self::Requests { host, path })
    }
}

/// The first priority for a rule that takes such requests, and how many there are: those with a host before those without,
/// longer paths before shorter ones, because the first rule that fits takes a request.
fn priorities(host: Option<&str>, path: &str) -> std::ops::Range<u32> {
    let length = u32::try_from(path.trim_end_matches('/').len()).unwrap_or(u32::MAX).min(BANDS - 1);
    let first = 1 + (BANDS - 1 - length) * BAND + if host.is_some() { 0 } else { BANDS * BAND };
    first..first + BAND
}

/// The conditions of a rule that takes such requests.
fn conditions(host: Option<&str>, path: &str) -> Vec<RuleCondition> {
    let mut conditions = Vec::new();
    if let Some(host) = host {
        let config = HostHeaderConditionConfig::builder().values(host).build();
        conditions.push(RuleCondition::builder().field("host-header").host_header_config(config).build());
    }
    if path != "/" || conditions.is_empty() {
        let path = path.trim_end_matches('/');
        // `/api` takes `/api` and what is below it, and not `/apix`.
        let patterns = if path.is_empty() { vec!["/*".to_owned()] } else { vec![path.into(), format!("{path}/*")] };
        let config = PathPatternConditionConfig::builder().set_values(Some(patterns)).build();
        conditions.push(RuleCondition::builder().field("path-pattern").path_pattern_config(config).build());
    }
    conditions
}

/// How many lengths of paths are told apart, and how many rules of the same length there may be.
const BANDS: u32 = 128;
const BAND: u32 = 190;

impl LiveRule {
    #[cfg(test)]
    pub(super) fn of(groups: Vec<(String, i32)>, ours: BTreeMap<String, Purpose>) -> Self {
        Self { arn: "rule".to_owned(), priority: 1, matches: None, groups, ours, beside: Beside::default() }
    }

    /// What the rule's first target group of ours is for.
    pub(super) fn owner(&self) -> Option<&Purpose> {
        let weighted = self.groups.iter().find(|(arn, weight)| *weight > 0 && self.ours.contains_key(arn));
        let first = || self.groups.iter().find(|(arn, _)| self.ours.contains_key(arn));
        weighted.or_else(first).and_then(|(arn, _)| self.ours.get(arn))
    }

    /// A target group that gets something and is not ours.
    pub(super) fn stranger(&self) -> Option<&str> {
        let mut groups = self.groups.iter();
        let strange = groups.find(|(arn, weight)| *weight > 0 && !self.ours.contains_key(arn));
        strange.map(|(arn, _)| arn.as_str())
    }

    /// Whether callers stay with a target group, which ELB wants of a rule where they stay with a target. A Network Load
    /// Balancer keeps whole connections anyway.
    pub(super) fn is_sticky(&self) -> bool {
        self.is_listener() || self.beside.sticky.is_some()
    }

    /// The same, with callers who stay with a target group for a moment at least.
    pub(super) fn made_sticky(&self) -> Self {
        let mut rule = self.clone();
        if !self.is_sticky() {
            rule.beside.sticky = Some(moment());
        }
        rule
    }

    /// Whether it is a listener of the Network Load Balancer.
    pub(crate) fn is_listener(&self) -> bool {
        self.priority == 0
    }

    /// Whether it forwards to these target groups.
    fn forwards_to(&self, groups: &[(String, i32)]) -> bool {
        groups.iter().all(|(arn, _)| self.groups.iter().any(|(known, _)| known == arn))
    }

    /// The route that it is, if it is one of ours.
    pub(super) fn route(&self) -> Option<Route> {
        let Match::Requests { host, path } = self.matches.as_ref()? else { return None };
        let mut route = Route::new(self.owner()?.inlet.port).with_path(path);
        route.host.clone_from(host);
        Some(route)
    }
}

impl Site {
    /// The ARN of what takes this.
    pub(super) fn entrance(&self, matches: &Match) -> Result<&str> {
        match matches {
            Match::Requests { .. } => self.listener(),
            Match::Connections { .. } => self.network_balancer(),
        }
    }

    /// The ARN of the Network Load Balancer.
    fn network_balancer(&self) -> Result<&str> {
        self.options.network_balancer.as_deref().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "the environment has no load balancer on which a port could be published",
            )
            .with_help("name one with `AwsOptions::with_network_balancer`")
        })
    }

    /// The ARN of the listener.
    pub(crate) fn listener(&self) -> Result<&str> {
        self.options.listener.as_deref().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the environment has no listener that could serve a route")
                .with_help("name one with `AwsOptions::with_listener`")
        })
    }

    /// All rules of the listener but its default one, in the order in which they are tried, and the listeners of the Network
    /// Load Balancer, as they were a moment ago; none without either.
    pub(crate) async fn rules(&self) -> Result<Vec<LiveRule>> {
        self.rules.get("", async { Ok((self.read_rules().await?, self.moment())) }).await
    }

    /// The rules as they are now, for everybody.
    pub(super) async fn rules_now(&self) -> Result<Vec<LiveRule>> {
        drop(self.rules.changing(""));
        self.rules().await
    }

    async fn read_rules(&self) -> Result<Vec<LiveRule>> {
        let (rules, listeners) = try_join(self.describe_rules(), self.describe_listeners()).await?;
        let of_rule = |rule: &Rule| rule.actions().iter().flat_map(weights).collect::<Vec<_>>();
        let of_listener = |listener: &Listener| listener.default_actions().iter().flat_map(weights).collect::<Vec<_>>();
        let groups = rules.iter().flat_map(of_rule).chain(listeners.iter().flat_map(of_listener));
        let known = self.known_groups(&groups.map(|(arn, _)| arn).collect()).await?;
        let ours = |groups: &[(String, i32)]| {
            let ours = groups.iter().filter_map(|(arn, _)| Some((arn.clone(), known.get(arn)?.of.clone()?)));
            ours.collect::<BTreeMap<_, _>>()
        };
        let mut found: Vec<LiveRule> = listeners
            .iter()
            .filter_map(|listener| {
                let (arn, port) = (listener.listener_arn()?.to_owned(), u16::try_from(listener.port()?).ok()?);
                let (groups, udp) = (of_listener(listener), listener.protocol() == Some(&ProtocolEnum::Udp));
                let matches = (!udp).then_some(Match::Connections { port });
                let beside = Beside::read(listener.default_actions());
                Some(LiveRule { arn, priority: 0, matches, ours: ours(&groups), groups, beside })
            })
            .collect();
        found.extend(rules.iter().filter_map(|rule| {
            let (arn, priority) = (rule.rule_arn()?.to_owned(), rule.priority()?.parse().ok()?);
            let groups = of_rule(rule);
            let (matches, beside) = (Match::read(rule.conditions()), Beside::read(rule.actions()));
            Some(LiveRule { arn, priority, matches, ours: ours(&groups), groups, beside })
        }));
        found.sort_by_key(|rule| rule.priority);
        Ok(found)
    }

    async fn describe_rules(&self) -> Result<Vec<Rule>> {
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
                return Ok(found);
            }
        }
    }

    async fn describe_listeners(&self) -> Result<Vec<Listener>> {
        let Some(balancer) = &self.options.network_balancer else { return Ok(Vec::new()) };
        let mut found: Vec<Listener> = Vec::new();
        let mut pages = self.elb.describe_listeners().load_balancer_arn(balancer).into_paginator().send();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => found.extend(page.listeners.unwrap_or_default()),
                // Whoever wants a port of it is told.
                Err(error) if is(&error, &["LoadBalancerNotFound", "LoadBalancerNotFoundException"]) => break,
                Err(error) => {
                    return Err(failed("elasticloadbalancing:DescribeListeners", balancer.as_str(), error));
                }
            }
        }
        Ok(found)
    }

    pub(super) async fn create_rule(
        &self,
        (matches, sticky): (&Match, bool),
        groups: &[(String, i32)],
        taken: &mut BTreeSet<u32>,
    ) -> Result<()> {
        let _changing = self.rules.changing("");
        let (host, path) = match matches {
            Match::Requests { host, path } => (host.as_deref(), path),
            Match::Connections { port } => return self.create_listener(matches, *port, groups).await,
        };
        let listener = self.listener()?;
        let mut free =
            priorities(host, path).filter(|priority| !taken.contains(priority)).collect::<Vec<_>>().into_iter();
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
                .set_conditions(Some(conditions(host, path)))
                .set_actions(Some(Beside::new(sticky).actions(groups)));
            match call.send().await {
                Ok(_) => return Ok(()),
                // Somebody else was faster, or it was made by an attempt of which nobody has heard.
                Err(error) if is(&error, &["PriorityInUse", "PriorityInUseException"]) => {
                    if self.has_come(matches, groups).await? {
                        return Ok(());
                    }
                }
                Err(error) => return Err(failed("elasticloadbalancing:CreateRule", listener, error)),
            }
        }
    }

    async fn create_listener(&self, matches: &Match, port: u16, groups: &[(String, i32)]) -> Result<()> {
        let balancer = self.network_balancer()?;
        let call = self.elb.create_listener().load_balancer_arn(balancer).protocol(ProtocolEnum::Tcp).port(port.into());
        match call.set_default_actions(Some(Beside::default().actions(groups))).send().await {
            Ok(_) => Ok(()),
            Err(error) if is(&error, &["DuplicateListener", "DuplicateListenerException"]) => {
                if self.has_come(matches, groups).await? {
                    return Ok(());
                }
                Err(failed("elasticloadbalancing:CreateListener", balancer, error))
            }
            Err(error) => Err(failed("elasticloadbalancing:CreateListener", balancer, error)),
        }
    }

    /// Whether a rule that could not be made is there: by an attempt of which nobody has heard.
    async fn has_come(&self, matches: &Match, groups: &[(String, i32)]) -> Result<bool> {
        let rules = self.rules_now().await?;
        match rules.iter().find(|rule| rule.matches.as_ref() == Some(matches)) {
            Some(same) if same.forwards_to(groups) => Ok(true),
            Some(same) => Err(taken_meanwhile(same)),
            None => Ok(false),
        }
    }

    pub(super) async fn modify_rule(&self, rule: &LiveRule, groups: &[(String, i32)]) -> Result<()> {
        let changing = self.rules.changing("");
        let actions = rule.beside.actions(groups);
        if rule.is_listener() {
            let call = self.elb.modify_listener().listener_arn(&rule.arn).set_default_actions(Some(actions));
            let answer = call.send().await;
            answer.map_err(|error| failed("elasticloadbalancing:ModifyListener", rule.arn.as_str(), error))?;
        } else {
            let call = self.elb.modify_rule().rule_arn(&rule.arn).set_actions(Some(actions));
            let answer = call.send().await;
            answer.map_err(|error| failed("elasticloadbalancing:ModifyRule", rule.arn.as_str(), error))?;
        }
        let ours: BTreeMap<String, Purpose> = {
            let memory = self.memory();
            let ours = groups.iter().filter_map(|(arn, _)| Some((arn.clone(), memory.groups.get(arn)?.of.clone()?)));
            ours.collect()
        };
        changing.made(|rules| {
            let Some(known) = rules.iter_mut().find(|known| known.arn == rule.arn) else { return false };
            (known.groups, known.ours, known.beside) = (groups.to_vec(), ours, rule.beside.clone());
            true
        });
        Ok(())
    }

    pub(super) async fn delete_rule(&self, rule: &LiveRule) -> Result<()> {
        let _changing = self.rules.changing("");
        if rule.is_listener() {
            return match self.elb.delete_listener().listener_arn(&rule.arn).send().await {
                Ok(_) => Ok(()),
                Err(error) if is(&error, &["ListenerNotFound", "ListenerNotFoundException"]) => Ok(()),
                Err(error) => Err(failed("elasticloadbalancing:DeleteListener", rule.arn.as_str(), error)),
            };
        }
        match self.elb.delete_rule().rule_arn(&rule.arn).send().await {
            Ok(_) => Ok(()),
            Err(error) if is(&error, &["RuleNotFound", "RuleNotFoundException"]) => Ok(()),
            Err(error) => Err(failed("elasticloadbalancing:DeleteRule", rule.arn.as_str(), error)),
        }
    }
}

/// Somebody else has made a rule for the same since the rules were looked at.
fn taken_meanwhile(rule: &LiveRule) -> Error {
    let what = rule.matches.as_ref().map_or("route", Match::kind);
    Error::new(ErrorKind::Conflict, format!("somebody else has taken the {what}")).with_resource(rule.arn.clone())
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

#[cfg(test)]
mod tests {
    use aws_sdk_elasticloadbalancingv2::types::AuthenticateOidcActionConfig;

    use super::*;

    #[test]
    fn conditions_can_be_read_back() {
        for (host, path) in
            [(None, "/"), (None, "/api"), (Some("shop.example"), "/"), (Some("shop.example"), "/api/v1")]
        {
            let matches = Match::Requests { host: host.map(str::to_owned), path: path.to_owned() };
            assert_eq!(Match::read(&conditions(host, path)), Some(matches));
        }
    }

    #[test]
    fn what_a_rule_does_beside_forwarding_stays() {
        let oidc = AuthenticateOidcActionConfig::builder().issuer("https://id.example").client_id("shop").build();
        let login = Action::builder().r#type(ActionTypeEnum::AuthenticateOidc).order(1).authenticate_oidc_config(oidc);
        let login = login.build();
        let sticky = TargetGroupStickinessConfig::builder().enabled(true).duration_seconds(60).build();
        let config = ForwardActionConfig::builder().target_group_stickiness_config(sticky.clone());
        let config = config.target_groups(TargetGroupTuple::builder().target_group_arn("a").weight(1).build()).build();
        let forward = Action::builder().r#type(ActionTypeEnum::Forward).order(2).forward_config(config).build();
        let groups = [("a".to_owned(), 30), ("b".to_owned(), 70)];
        let actions = Beside::read(&[login, forward]).actions(&groups);
        assert_eq!((actions.len(), actions[0].order(), actions[1].order()), (2, Some(1), Some(2)));
        let kept = actions[0].authenticate_oidc_config().unwrap();
        assert_eq!((kept.client_id(), kept.use_existing_client_secret()), (Some("shop"), Some(true)));
        assert_eq!(actions[1].forward_config().unwrap().target_group_stickiness_config(), Some(&sticky));
        assert_eq!(weights(&actions[1]), groups);
        // A rule of ours alone has neither order nor stickiness.
        let [plain] = Beside::default().actions(&groups).try_into().unwrap();
        assert_eq!((plain.order(), plain.forward_config().unwrap().target_group_stickiness_config()), (None, None));
        assert_eq!(Beside::read(&[plain]), Beside::default());
    }

    #[test]
    fn the_more_particular_rule_is_tried_first() {
        let rising = [
            (Some("shop.example"), "/api/v1"),
            (Some("shop.example"), "/api"),
            (Some("shop.example"), "/"),
            (None, "/api/v1"),
            (None, "/api"),
            (None, "/"),
        ];
        let ranges: Vec<_> = rising.iter().map(|(host, path)| priorities(*host, path)).collect();
        assert!(ranges.is_sorted_by(|one, other| one.end <= other.start), "{ranges:?}");
        assert!(ranges.iter().all(|range| range.start >= 1 && range.end <= 50_000), "{ranges:?}");
        let longest = priorities(None, &format!("/{}", "x".repeat(300)));
        assert!(longest.start >= 1);
    }
}

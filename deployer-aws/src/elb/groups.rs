//! Target groups: one for each inlet and slot of a service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use aws_sdk_elasticloadbalancingv2::types::{
    Matcher, ProtocolEnum, Tag, TargetGroup, TargetGroupAttribute, TargetHealthReasonEnum, TargetHealthStateEnum,
    TargetTypeEnum,
};
use deployer_core::{AppName, Digest, Error, ErrorKind, Probe, Result, ServiceName, ServiceRelease};
use futures_util::future::try_join_all;

use super::rules::Match;
use crate::failure::{failed, is};
use crate::naming::{self, tag};
use crate::site::Site;

/// How many resources' tags ELB tells in one call:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTags.html>.
const DESCRIBED: usize = 20;

/// How many target groups ELB tells of in one call:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTargetGroups.html>.
const PAGE: i32 = 400;

/// The shortest time between two questions of the load balancer to a target.
const PROBED: Duration = Duration::from_secs(5);

/// Who made a target group, and for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownGroup {
    /// What it is for, unless it is not ours: that of an application of the same name in another cluster is not.
    pub(crate) of: Option<Purpose>,
    /// Its settings, as a hash.
    pub(crate) settings: Option<String>,
}

/// What a target group is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Purpose {
    pub(crate) app: AppName,
    pub(crate) service: ServiceName,
    pub(crate) letter: char,
    pub(crate) inlet: Inlet,
}

/// A port inside instances, and what a load balancer sends there. A target group belongs to one load balancer, so a port with
/// routes that is published as well is two inlets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Inlet {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// Requests, from an Application Load Balancer.
    Http,
    /// Connections, from a Network Load Balancer.
    Tcp,
}

impl Inlet {
    pub(super) const fn http(port: u16) -> Self {
        Self { port, protocol: Protocol::Http }
    }

    pub(super) const fn tcp(port: u16) -> Self {
        Self { port, protocol: Protocol::Tcp }
    }

    /// Reads what [`Display`](fmt::Display) writes.
    fn read(text: &str) -> Option<Self> {
        match text.strip_suffix("/tcp") {
            Some(port) => Some(Self::tcp(port.parse().ok()?)),
            None => Some(Self::http(text.parse().ok()?)),
        }
    }
}

impl fmt::Display for Inlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Http => write!(f, "{}", self.port),
            Protocol::Tcp => write!(f, "{}/tcp", self.port),
        }
    }
}

/// What the load balancer says of one target.
#[derive(Clone, Debug)]
pub(crate) struct TargetHealth {
    pub(crate) address: String,
    state: TargetHealthStateEnum,
    reason: Option<TargetHealthReasonEnum>,
    description: Option<String>,
}

impl TargetHealth {
    pub(crate) fn is_healthy(&self) -> bool {
        self.state == TargetHealthStateEnum::Healthy
    }

    /// Whether nobody has asked it yet.
    pub(crate) fn is_starting(&self) -> bool {
        matches!(self.state, TargetHealthStateEnum::Initial | TargetHealthStateEnum::Unused)
    }

    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.state, TargetHealthStateEnum::Draining | TargetHealthStateEnum::UnhealthyDraining)
    }

    /// In the load balancer's words.
    pub(crate) fn words(&self) -> String {
        let parts = [self.description.as_deref(), self.reason.as_ref().map(TargetHealthReasonEnum::as_str)];
        let words: Vec<&str> = parts.into_iter().flatten().collect();
        if words.is_empty() { self.state.as_str().to_owned() } else { words.join(" / ") }
    }
}

/// How a target group's targets are asked and let go.
pub(super) struct Settings {
    /// How they are asked.
    check: ProtocolEnum,
    /// For what, if that is HTTP.
    path: Option<String>,
    /// Which answers are good.
    codes: Option<Matcher>,
    interval: i32,
    timeout: i32,
    /// How many probes in a row change what is thought of a target.
    thresholds: (i32, i32),
    /// By AWS's names, those that are as they are by themselves included: a rollback may bring them back.
    attributes: Vec<(&'static str, String)>,
}

impl Settings {
    pub(super) fn of(service: &ServiceRelease, inlet: Inlet) -> Self {
        let readiness = service.effective_readiness();
        let probed = match &readiness.probe {
            Some(Probe::Http { path, port }) if *port == inlet.port => Some(path.clone()),
            _ => None,
        };
        let codes = |codes: &str| Some(Matcher::builder().http_code(codes).build());
        let (check, path, codes) = match (probed, inlet.protocol) {
            (Some(path), _) => (ProtocolEnum::Http, Some(path), codes("200-399")),
            // An Application Load Balancer asks no other way: every answer that it knows tells that somebody answers.
            (None, Protocol::Http) => (ProtocolEnum::Http, Some("/".to_owned()), codes("200-499")),
            (None, Protocol::Tcp) => (ProtocolEnum::Tcp, None, None),
        };
        let whole = |time: Duration| i32::try_from(time.as_secs() + u64::from(time.subsec_nanos() > 0)).unwrap_or(300);
        // ELB asks every 5 to 300 s and waits 2 to 120 s, less than until it asks again.
        let interval = whole(readiness.interval).clamp(5, 300);
        let timeout = whole(readiness.timeout).clamp(2, 120).min(interval - 1);
        let seconds = |time: Duration| time.as_secs() + u64::from(time.subsec_nanos() > 0);
        let balancing = &service.balancing;
        let mut attributes =
            vec![("deregistration_delay.timeout_seconds", seconds(service.effective_drain()).min(3_600).to_string())];
        attributes.push(("stickiness.enabled", balancing.sticky.is_some().to_string()));
        match inlet.protocol {
            Protocol::Http => {
                attributes.push(("slow_start.duration_seconds", seconds(balancing.slow_start).to_string()));
                if let Some(sticky) = balancing.sticky {
                    attributes.push(("stickiness.type", "lb_cookie".to_owned()));
                    attributes.push(("stickiness.lb_cookie.duration_seconds", seconds(sticky).to_string()));
                }
            }
            Protocol::Tcp if balancing.sticky.is_some() => attributes.push(("stickiness.type", "source_ip".to_owned())),
            Protocol::Tcp => {}
        }
        let threshold = |probes: Option<u8>| i32::from(probes.unwrap_or(2)).clamp(2, 10);
        let thresholds = (threshold(balancing.healthy_after), threshold(balancing.unhealthy_after));
        Self { check, path, codes, interval, timeout, thresholds, attributes }
    }

    pub(super) fn hash(&self) -> String {
        let Self { check, path, codes, interval, timeout, thresholds, attributes } = self;
        let codes = codes.as_ref().and_then(Matcher::http_code);
        let all = format!("{check:?} {path:?} {codes:?} {interval} {timeout} {thresholds:?} {attributes:?}");
        Digest::of(all.as_bytes()).short().to_owned()
    }
}

impl Site {
    /// What is known of these target groups; what is not is asked for.
    pub(crate) async fn known_groups(&self, arns: &BTreeSet<String>) -> Result<BTreeMap<String, KnownGroup>> {
        let unknown: Vec<String> = {
            let memory = self.memory();
            arns.iter().filter(|arn| !memory.groups.contains_key(*arn)).cloned().collect()
        };
        let calls = unknown.chunks(DESCRIBED).map(async |arns| {
            let call = self.elb.describe_tags().set_resource_arns(Some(arns.to_vec()));
            match call.send().await {
                Ok(answer) => Ok(answer.tag_descriptions.unwrap_or_default()),
                // One of them has gone meanwhile.
                Err(error) if is(&error, &["TargetGroupNotFound", "TargetGroupNotFoundException"]) => Ok(Vec::new()),
                Err(error) => Err(failed("elasticloadbalancing:DescribeTags", "target groups", error)),
            }
        });
        let answers = try_join_all(calls).await?;
        let mut memory = self.memory();
        for description in answers.into_iter().flatten() {
            let (Some(arn), tags) = (description.resource_arn(), description.tags()) else { continue };
            memory.groups.insert(arn.to_owned(), known(self.options.cluster_name(), tags));
        }
        Ok(arns.iter().filter_map(|arn| Some((arn.clone(), memory.groups.get(arn)?.clone()))).collect())
    }

    /// Whether a target group is one of an Application Load Balancer, unless it is known that it is not.
    pub(crate) fn takes_requests(&self, arn: &str) -> bool {
        let memory = self.memory();
        let purpose = memory.groups.get(arn).and_then(|group| group.of.as_ref());
        purpose.is_none_or(|purpose| purpose.inlet.protocol == Protocol::Http)
    }

    /// What the load balancer says of the targets of these groups, or has said a moment ago.
    pub(crate) async fn target_health(&self, arns: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<TargetHealth>>> {
        let answers = arns.iter().map(async |arn| {
            let ask = async {
                let targets = self.ask_for_health(arn).await?;
                // The load balancer does not ask more often itself.
                let steady = !targets.is_empty() && targets.iter().all(TargetHealth::is_healthy);
                let good_for = if steady { self.moment().max(PROBED / 2) } else { self.moment() };
                Ok((targets, good_for))
            };
            Ok::<_, Error>((arn.clone(), self.health.get(arn, ask).await?))
        });
        Ok(try_join_all(answers).await?.into_iter().collect())
    }

    async fn ask_for_health(&self, arn: &str) -> Result<Vec<TargetHealth>> {
        let descriptions = match self.elb.describe_target_health().target_group_arn(arn).send().await {
            Ok(answer) => answer.target_health_descriptions.unwrap_or_default(),
            Err(error) if is(&error, &["TargetGroupNotFound", "TargetGroupNotFoundException"]) => Vec::new(),
            Err(error) => return Err(failed("elasticloadbalancing:DescribeTargetHealth", arn, error)),
        };
        let targets = descriptions.into_iter().filter_map(|description| {
            let health = description.target_health?;
            Some(TargetHealth {
                address: description.target?.id?,
                state: health.state?,
                reason: health.reason,
                description: health.description,
            })
        });
        Ok(targets.collect())
    }

    /// The target groups of a slot with the settings of a release, and the port of each. They exist already, and the slot is
    /// idle.
    pub(crate) async fn groups_of(
        &self,
        app: &AppName,
        service: &ServiceName,
        release: &ServiceRelease,
        letter: char,
    ) -> Result<Vec<(String, u16)>> {
        let groups = inlets(release).into_iter().map(async |inlet| {
            let arn = self.ensure_group(app, service, release, (inlet, letter)).await?.0;
            self.apply_settings(&arn, &Settings::of(release, inlet)).await?;
            Ok::<_, Error>((arn, inlet.port))
        });
        try_join_all(groups).await
    }

    /// The target group of an inlet and slot, made unless it is there; and whether it was made.
    pub(super) async fn ensure_group(
        &self,
        app: &AppName,
        service: &ServiceName,
        release: &ServiceRelease,
        (inlet, letter): (Inlet, char),
    ) -> Result<(String, bool)> {
        let purpose = Purpose { app: app.clone(), service: service.clone(), letter, inlet };
        let known = || {
            let memory = self.memory();
            let mut groups = memory.groups.iter();
            groups.find(|(_, group)| group.of.as_ref() == Some(&purpose)).map(|(arn, _)| arn.clone())
        };
        if let Some(arn) = known() {
            return Ok((arn, false));
        }
        let cluster = self.options.cluster_name();
        let name = naming::target_group(cluster, app, service, &inlet.to_string(), letter);
        if let Some(arn) = self.find_group(&name).await? {
            self.known_groups(&BTreeSet::from([arn.clone()])).await?;
            return match known() {
                Some(arn) => Ok((arn, false)),
                None => Err(Error::new(ErrorKind::AlreadyExists, "somebody else's target group has the name")
                    .with_resource(name)),
            };
        }
        let settings = Settings::of(release, inlet);
        let protocol = match inlet.protocol {
            Protocol::Http => ProtocolEnum::Http,
            Protocol::Tcp => ProtocolEnum::Tcp,
        };
        let tag = |key: &str, value: String| Tag::builder().key(key).value(value).build();
        let call = self
            .elb
            .create_target_group()
            .name(&name)
            .protocol(protocol)
            .port(inlet.port.into())
            .vpc_id(&self.options.vpc)
            .target_type(TargetTypeEnum::Ip)
            .health_check_protocol(settings.check)
            .set_health_check_path(settings.path)
            .health_check_interval_seconds(settings.interval)
            .health_check_timeout_seconds(settings.timeout)
            .healthy_threshold_count(settings.thresholds.0)
            .unhealthy_threshold_count(settings.thresholds.1)
            .set_matcher(settings.codes)
            .tags(tag(tag::CLUSTER, cluster.to_owned()))
            .tags(tag(tag::APP, app.to_string()))
            .tags(tag(tag::SERVICE, service.to_string()))
            .tags(tag(tag::SLOT, letter.to_string()))
            .tags(tag(tag::PORT, inlet.to_string()));
        let answer = call.send().await;
        let answer = answer.map_err(|error| failed("elasticloadbalancing:CreateTargetGroup", name.as_str(), error))?;
        let arn = answer.target_groups().first().and_then(|group| group.target_group_arn()).unwrap_or_default();
        self.memory().groups.insert(arn.to_owned(), KnownGroup { of: Some(purpose), settings: None });
        Ok((arn.to_owned(), true))
    }

    async fn find_group(&self, name: &str) -> Result<Option<String>> {
        match self.elb.describe_target_groups().names(name).send().await {
            Ok(answer) => {
                Ok(answer.target_groups().first().and_then(|group| group.target_group_arn()).map(str::to_owned))
            }
            Err(error) if is(&error, &["TargetGroupNotFound", "TargetGroupNotFoundException"]) => Ok(None),
            Err(error) => Err(failed("elasticloadbalancing:DescribeTargetGroups", name, error)),
        }
    }

    /// The ARNs of an application's target groups, those included to which no rule refers.
    pub(super) async fn groups_of_app(&self, app: &AppName) -> Result<BTreeSet<String>> {
        let prefix = naming::target_group_prefix(app);
        let mut found = BTreeSet::new();
        let mut pages = self.elb.describe_target_groups().page_size(PAGE).into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| failed("elasticloadbalancing:DescribeTargetGroups", app.as_str(), e))?;
            let named = |group: &&TargetGroup| group.target_group_name().is_some_and(|name| name.starts_with(&prefix));
            let arns = page.target_groups().iter().filter(named).filter_map(TargetGroup::target_group_arn);
            found.extend(arns.map(str::to_owned));
        }
        let known = self.known_groups(&found).await?;
        found.retain(|arn| known.get(arn).and_then(|group| group.of.as_ref()).is_some_and(|of| of.app == *app));
        Ok(found)
    }

    /// Gives a target group the settings of a release, unless it has them. A tag says which it has, written last.
    pub(super) async fn apply_settings(&self, arn: &str, settings: &Settings) -> Result<()> {
        let hash = settings.hash();
        let has = self.memory().groups.get(arn).and_then(|group| group.settings.clone());
        if has.as_ref() == Some(&hash) {
            return Ok(());
        }
        let attribute = |(key, value): &(&str, String)| TargetGroupAttribute::builder().key(*key).value(value).build();
        let attributes = settings.attributes.iter().map(attribute).collect();
        let call = self.elb.modify_target_group_attributes().target_group_arn(arn);
        let attributes = call.set_attributes(Some(attributes));
        let attributes = async {
            let answer = attributes.send().await;
            answer.map_err(|error| failed("elasticloadbalancing:ModifyTargetGroupAttributes", arn, error)).map(drop)
        };
        let check = self
            .elb
            .modify_target_group()
            .target_group_arn(arn)
            .health_check_protocol(settings.check.clone())
            .set_health_check_path(settings.path.clone())
            .health_check_interval_seconds(settings.interval)
            .health_check_timeout_seconds(settings.timeout)
            .healthy_threshold_count(settings.thresholds.0)
            .unhealthy_threshold_count(settings.thresholds.1)
            .set_matcher(settings.codes.clone());
        let check = async {
            let answer = check.send().await;
            answer.map_err(|error| failed("elasticloadbalancing:ModifyTargetGroup", arn, error)).map(drop)
        };
        futures_util::future::try_join(attributes, check).await?;
        let tag = Tag::builder().key(tag::SETTINGS).value(&hash).build();
        let tagged = self.elb.add_tags().resource_arns(arn).tags(tag).send().await;
        tagged.map_err(|error| failed("elasticloadbalancing:AddTags", arn, error))?;
        if let Some(group) = self.memory().groups.get_mut(arn) {
            group.settings = Some(hash);
        }
        Ok(())
    }

    pub(super) async fn delete_group(&self, arn: &str) -> Result<()> {
        match self.elb.delete_target_group().target_group_arn(arn).send().await {
            Ok(_) => {}
            Err(error) if is(&error, &["TargetGroupNotFound", "TargetGroupNotFoundException"]) => {}
            Err(error) => return Err(failed("elasticloadbalancing:DeleteTargetGroup", arn, error)),
        }
        self.memory().groups.remove(arn);
        Ok(())
    }
}

/// The inlets of a service: ports with routes, and published ones.
pub(super) fn inlets(service: &ServiceRelease) -> BTreeSet<Inlet> {
    Match::all_of(service).into_iter().map(|(_, inlet)| inlet).collect()
}

fn known(cluster: &str, tags: &[Tag]) -> KnownGroup {
    let value = |key: &str| tags.iter().find(|tag| tag.key() == Some(key)).and_then(Tag::value);
    let purpose = || {
        value(tag::CLUSTER).filter(|of| *of == cluster)?;
        Some(Purpose {
            app: AppName::new(value(tag::APP)?).ok()?,
            service: ServiceName::new(value(tag::SERVICE)?).ok()?,
            letter: value(tag::SLOT)?.chars().next()?,
            inlet: Inlet::read(value(tag::PORT)?)?,
        })
    };
    KnownGroup { of: purpose(), settings: value(tag::SETTINGS).map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use deployer_core::{Digest, PinnedImage, Port, Route, ServiceSpec};

    use super::*;

    fn release(service: ServiceSpec) -> ServiceRelease {
        let digest = Digest::of(b"image");
        service.with_image(PinnedImage::new("shop:v1", format!("shop@{digest}"), digest))
    }

    #[test]
    fn a_port_with_routes_that_is_published_is_two_inlets() {
        let service = ServiceSpec::image("shop:v1").with_route(Route::new(80)).with_ports(Port::published(80, 8080));
        let service = release(service.with_ports(Port::published(5432, 5432)).with_port(9000));
        let found: Vec<Inlet> = inlets(&service).into_iter().collect();
        assert_eq!(found, [Inlet::http(80), Inlet::tcp(80), Inlet::tcp(5432)]);
        for inlet in found {
            assert_eq!(Inlet::read(&inlet.to_string()), Some(inlet));
        }
        assert_eq!((Inlet::read("/tcp"), Inlet::read("http")), (None, None));
    }

    #[test]
    fn a_published_port_is_asked_as_the_service_is_probed() {
        let service = ServiceSpec::image("shop:v1").with_ports(Port::published(80, 8080));
        let plain = Settings::of(&release(service.clone()), Inlet::tcp(80));
        assert_eq!((plain.check, plain.path, plain.codes), (ProtocolEnum::Tcp, None, None));
        let probed = Settings::of(&release(service.with_http_probe("/healthz", 80)), Inlet::tcp(80));
        assert_eq!((probed.check, probed.path), (ProtocolEnum::Http, Some("/healthz".to_owned())));
    }
}

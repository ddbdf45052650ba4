//! The operations of Elastic Load Balancing: forms in, XML out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::balancer::{Group, Rule, State};
use super::{Cloud, LISTENER, NETWORK, Refusal, Tags, arn};

type Answer = Result<String, Refusal>;

/// The fields of a form, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Form(BTreeMap<String, String>);

impl Form {
    pub(super) fn read(body: &str) -> Self {
        let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(key, value)| (decoded(key), decoded(value))).collect())
    }

    pub(super) fn get(&self, key: &str) -> &str {
        self.0.get(key).map(String::as_str).unwrap_or_default()
    }

    fn has(&self, prefix: &str) -> bool {
        self.0.keys().any(|key| key.starts_with(prefix))
    }

    /// The prefixes of a list's members: `Names.member.1` and so on.
    fn members(&self, list: &str) -> Vec<String> {
        let prefixes = (1..).map(|number| format!("{list}.member.{number}"));
        prefixes.take_while(|prefix| self.has(&format!("{prefix}.")) || self.0.contains_key(prefix)).collect()
    }

    fn values(&self, list: &str) -> Vec<String> {
        self.members(list).iter().map(|member| self.get(member).to_owned()).collect()
    }

    fn tags(&self) -> Tags {
        let pair = |member: &String| {
            (self.get(&format!("{member}.Key")).to_owned(), self.get(&format!("{member}.Value")).to_owned())
        };
        self.members("Tags").iter().map(pair).collect()
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let digits = String::from_utf8_lossy(&digits).into_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::rude("ValidationError", message)
}

fn no_group(arn: &str) -> Refusal {
    Refusal::fair("TargetGroupNotFound", format!("One or more target groups not found: {arn}"))
}

/// What of a request says how a target group is.
const SETTINGS: [&str; 10] = [
    "Protocol",
    "Port",
    "VpcId",
    "TargetType",
    "HealthCheckProtocol",
    "HealthCheckPath",
    "HealthCheckIntervalSeconds",
    "Matcher.HttpCode",
    "HealthyThresholdCount",
    "UnhealthyThresholdCount",
];

impl Cloud {
    pub(super) fn elb(&mut self, action: &str, form: &Form) -> Option<Answer> {
        Some(match action {
            "DescribeListeners" => self.describe_listeners(form),
            "CreateListener" => self.create_listener(form),
            "ModifyListener" => self.modify_listener(form),
            "DeleteListener" => self.delete_listener(form),
            "DescribeRules" => self.describe_rules(form),
            "CreateRule" => self.create_rule(form),
            "ModifyRule" => self.modify_rule(form),
            "DeleteRule" => self.delete_rule(form),
            "DescribeTargetGroups" => self.describe_groups(form),
            "CreateTargetGroup" => self.create_group(form),
            "ModifyTargetGroup" => self.modify_group(form),
            "ModifyTargetGroupAttributes" => self.modify_attributes(form),
            "DeleteTargetGroup" => self.delete_group(form),
            "DescribeTargetHealth" => self.describe_health(form),
            "DescribeTags" => self.describe_tags(form),
            "AddTags" => self.add_tags(form),
            _ => return None,
        })
    }

    fn describe_rules(&self, form: &Form) -> Answer {
        if form.get("ListenerArn") != LISTENER {
            return Err(Refusal::rude("ListenerNotFound", "One or more listeners not found"));
        }
        // Short pages, so that there are several.
        let from: usize = form.get("Marker").parse().unwrap_or_default();
        let most = form.get("PageSize").parse().unwrap_or(100).min(100);
        let mut text = "<Rules>".to_owned();
        let rules: Vec<&Rule> = self.rules.values().filter(|rule| rule.priority > 0).collect();
        for rule in rules.iter().skip(from).take(most) {
            text += &show_rule(rule);
        }
        if from + most >= rules.len() {
            let _infallible = write!(
                text,
                "<member><RuleArn>{LISTENER}/default</RuleArn><Priority>default</Priority><IsDefault>true</IsDefault>\
                 <Conditions/><Actions><member><Type>fixed-response</Type><FixedResponseConfig><StatusCode>404</StatusCode>\
                 </FixedResponseConfig></member></Actions></member>"
            );
        }
        text += "</Rules>";
        if from + most < rules.len() {
            let _infallible = write!(text, "<NextMarker>{}</NextMarker>", from + most);
        }
        Ok(text)
    }

    fn describe_listeners(&self, form: &Form) -> Answer {
        if form.get("LoadBalancerArn") != NETWORK {
            return Err(Refusal::rude("LoadBalancerNotFound", "One or more load balancers not found"));
        }
        let listeners: String = self.rules.values().filter(|rule| rule.priority == 0).map(show_listener).collect();
        Ok(format!("<Listeners>{listeners}</Listeners>"))
    }

    fn create_listener(&mut self, form: &Form) -> Answer {
        if form.get("LoadBalancerArn") != NETWORK || form.get("Protocol") != "TCP" {
            return Err(invalid("only listeners for TCP, on the Network Load Balancer, are known here"));
        }
        let port = form.get("Port").to_owned();
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(invalid(format!("{port:?} is no port")));
        }
        let groups = self.read_forward(form, "DefaultActions", "TCP")?;
        if self.rules.values().any(|rule| rule.port() == Some(&port)) {
            let message = "A listener already exists on this port for this load balancer";
            return Err(Refusal::fair("DuplicateListener", message));
        }
        let arn = format!("{}/{:04}", NETWORK.replace(":loadbalancer/", ":listener/"), self.next());
        let conditions = vec![("port".to_owned(), vec![port])];
        let listener =
            Rule { arn: arn.clone(), priority: 0, conditions, forwards: vec![(self.now, groups)], sticky: None };
        let shown = show_listener(&listener);
        self.rules.insert(arn, listener);
        Ok(format!("<Listeners>{shown}</Listeners>"))
    }

    fn modify_listener(&mut self, form: &Form) -> Answer {
        let groups = self.read_forward(form, "DefaultActions", "TCP")?;
        let now = self.now;
        let listener = self.rules.get_mut(form.get("ListenerArn")).filter(|rule| rule.priority == 0);
        let listener = listener.ok_or_else(no_listener)?;
        let before = listener.forward().to_vec();
        listener.forwards.push((now, groups.clone()));
        let shown = show_listener(listener);
        self.check_flip(&before, &groups);
        Ok(format!("<Listeners>{shown}</Listeners>"))
    }

    fn delete_listener(&mut self, form: &Form) -> Answer {
        let arn = form.get("ListenerArn");
        if self.rules.get(arn).is_none_or(|rule| rule.priority > 0) {
            return Err(no_listener());
        }
        self.rules.remove(arn);
        Ok(String::new())
    }

    fn read_forward(&self, form: &Form, list: &str, protocol: &str) -> Result<Vec<(String, u32)>, Refusal> {
        let actions = form.members(list);
        let [action] = actions.as_slice() else { return Err(invalid("there must be one action")) };
        if form.get(&format!("{action}.Type")) != "forward" {
            return Err(invalid("only forward actions are known here"));
        }
        let mut groups: Vec<(String, u32)> = Vec::new();
        for member in form.members(&format!("{action}.ForwardConfig.TargetGroups")) {
            let group = form.get(&format!("{member}.TargetGroupArn")).to_owned();
            let weight: u32 =
                form.get(&format!("{member}.Weight")).parse().map_err(|_| invalid("a weight is no number"))?;
            if weight > 999 {
                return Err(invalid("a weight is more than 999"));
            }
            let Some(known) = self.groups.get(&group) else { return Err(no_group(&group)) };
            if known.settings.get("Protocol").map(String::as_str) != Some(protocol) {
                return Err(Refusal::rude("InvalidConfigurationRequest", format!("{group} is not for {protocol}")));
            }
            if groups.iter().any(|(known, _)| *known == group) {
                return Err(invalid("a target group is there twice"));
            }
            groups.push((group, weight));
        }
        match groups.len() {
            0 => Err(invalid("A target group must be specified")),
            1..=5 => Ok(groups),
            more => Err(Refusal::rude("TooManyTargetGroups", format!("{more} target groups are too many"))),
        }
    }

    /// A rule with several target groups must keep callers with them if one of those keeps them with its targets.
    fn check_sticky(&self, groups: &[(String, u32)], sticky: Option<u32>) -> Result<(), Refusal> {
        let keeps = |(arn, _): &(String, u32)| self.groups.get(arn).is_some_and(Group::is_sticky);
        if sticky.is_none() && groups.len() > 1 && groups.iter().any(keeps) {
            let message = "You must enable group stickiness on a rule if you enabled target stickiness on one of its target groups";
            return Err(Refusal::rude("InvalidLoadBalancerAction", message));
        }
        Ok(())
    }

    fn create_rule(&mut self, form: &Form) -> Answer {
        if form.get("ListenerArn") != LISTENER {
            return Err(Refusal::rude("ListenerNotFound", "One or more listeners not found"));
        }
        let priority: u32 = form.get("Priority").parse().map_err(|_| invalid("the priority is no number"))?;
        if !(1..=50_000).contains(&priority) {
            return Err(invalid("the priority is out of range"));
        }
        let mut conditions = Vec::new();
        for member in form.members("Conditions") {
            let field = form.get(&format!("{member}.Field")).to_owned();
            let values = match field.as_str() {
                "host-header" => form.values(&format!("{member}.HostHeaderConfig.Values")),
                "path-pattern" => form.values(&format!("{member}.PathPatternConfig.Values")),
                other => return Err(invalid(format!("there is no condition {other}"))),
            };
            if values.is_empty() || values.iter().any(|value| value.is_empty() || value.len() > 128) {
                return Err(invalid("the values of a condition are not valid"));
            }
            conditions.push((field, values));
        }
        let count: usize = conditions.iter().map(|(_, values)| values.len()).sum();
        if !(1..=5).contains(&count) {
            return Err(invalid("a rule has one to five values in its conditions"));
        }
        let (groups, sticky) = (self.read_forward(form, "Actions", "HTTP")?, read_sticky(form));
        self.check_sticky(&groups, sticky)?;
        if self.rules.values().any(|rule| rule.priority == priority) {
            return Err(Refusal::fair("PriorityInUse", format!("Priority '{priority}' is currently in use")));
        }
        if self.rules.len() >= 100 {
            return Err(Refusal::rude("TooManyRules", "The maximum number of rules on the load balancer is reached"));
        }
        if self.rules.values().any(|rule| rule.conditions == conditions) {
            self.breaks(format!("there is a second rule for {conditions:?}"));
        }
        let arn = format!("{}/{:04}", LISTENER.replace("listener/", "listener-rule/"), self.next());
        let forwards = vec![(self.now, groups)];
        let rule = Rule { arn: arn.clone(), priority, conditions, forwards, sticky };
        let shown = show_rule(&rule);
        self.rules.insert(arn, rule);
        Ok(format!("<Rules>{shown}</Rules>"))
    }

    fn modify_rule(&mut self, form: &Form) -> Answer {
        let (groups, sticky) = (self.read_forward(form, "Actions", "HTTP")?, read_sticky(form));
        self.check_sticky(&groups, sticky)?;
        let now = self.now;
        let Some(rule) = self.rules.get_mut(form.get("RuleArn")) else { return Err(no_rule()) };
        rule.sticky = sticky;
        let before = rule.forward().to_vec();
        rule.forwards.push((now, groups.clone()));
        let shown = show_rule(rule);
        self.check_flip(&before, &groups);
        Ok(format!("<Rules>{shown}</Rules>"))
    }

    fn delete_rule(&mut self, form: &Form) -> Answer {
        self.rules.remove(form.get("RuleArn")).map(|_| String::new()).ok_or_else(no_rule)
    }

    fn describe_groups(&self, form: &Form) -> Answer {
        let names = form.values("Names");
        let mut text = "<TargetGroups>".to_owned();
        if names.is_empty() {
            let from: usize = form.get("Marker").parse().unwrap_or_default();
            let most = form.get("PageSize").parse().unwrap_or(100).min(400);
            text.extend(self.groups.values().skip(from).take(most).map(show_group));
            text += "</TargetGroups>";
            if from + most < self.groups.len() {
                let _infallible = write!(text, "<NextMarker>{}</NextMarker>", from + most);
            }
            return Ok(text);
        }
        for name in &names {
            let found = self.groups.values().find(|group| group.name == *name);
            text += &show_group(found.ok_or_else(|| no_group(name))?);
        }
        Ok(text + "</TargetGroups>")
    }

    fn create_group(&mut self, form: &Form) -> Answer {
        let name = form.get("Name").to_owned();
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty()
            || name.len() > 32
            || !name.chars().all(valid)
            || name.starts_with('-')
            || name.ends_with('-')
        {
            return Err(invalid(format!("Target group name '{name}' is not valid")));
        }
        self.check_settings(form)?;
        let tags = form.tags();
        super::ecs_api::check_tags(&tags).map_err(invalid)?;
        let settings: BTreeMap<String, String> =
            SETTINGS.iter().map(|key| ((*key).to_owned(), form.get(key).to_owned())).collect();
        if let Some(group) = self.groups.values().find(|group| group.name == name) {
            if group.settings == settings {
                return Ok(format!("<TargetGroups>{}</TargetGroups>", show_group(group)));
            }
            let message = format!("A target group with the same name '{name}' exists, but with different settings");
            return Err(Refusal::rude("DuplicateTargetGroupName", message));
        }
        if self.groups.len() >= 100 {
            self.breaks("a load balancer has 100 target groups at most");
        }
        let arn = arn("elasticloadbalancing", &format!("targetgroup/{name}/{:016x}", self.next()));
        let group = Group {
            arn: arn.clone(),
            name,
            tags,
            settings,
            drain: 300_000,
            attributes: Tags::new(),
            interval: form.get("HealthCheckIntervalSeconds").parse::<u64>().unwrap_or(30) * 1_000,
            killed: None,
            targets: BTreeMap::new(),
        };
        let shown = show_group(&group);
        self.groups.insert(arn, group);
        Ok(format!("<TargetGroups>{shown}</TargetGroups>"))
    }

    fn check_settings(&self, form: &Form) -> Result<(), Refusal> {
        let number = |key: &str| form.get(key).parse::<u32>().unwrap_or_default();
        let (interval, timeout) = (number("HealthCheckIntervalSeconds"), number("HealthCheckTimeoutSeconds"));
        if !(5..=300).contains(&interval) || !(2..=120).contains(&timeout) || timeout >= interval {
            return Err(invalid("Health check interval must be greater than the timeout."));
        }
        if form.get("HealthCheckProtocol") == "TCP" {
            let asks = form.has("HealthCheckPath") || form.has("Matcher");
            return if asks { Err(invalid("a check by TCP has no path and no codes")) } else { Ok(()) };
        }
        let path = form.get("HealthCheckPath");
        if !path.starts_with('/') || path.len() > 1_024 {
            return Err(invalid(format!("the health check path {path:?} is not valid")));
        }
        let code = form.get("Matcher.HttpCode");
        let valid = |code: &str| code.parse::<u32>().is_ok_and(|code| (200..=499).contains(&code));
        if !code.split(['-', ',']).all(valid) {
            return Err(invalid(format!("Health check matcher HTTP code '{code}' must be within the range '200-499'")));
        }
        Ok(())
    }

    fn modify_group(&mut self, form: &Form) -> Answer {
        self.check_settings(form)?;
        let arn = form.get("TargetGroupArn");
        let Some(group) = self.groups.get_mut(arn) else { return Err(no_group(arn)) };
        for key in SETTINGS.iter().filter(|key| form.has(key)) {
            group.settings.insert((*key).to_owned(), form.get(key).to_owned());
        }
        group.interval = form.get("HealthCheckIntervalSeconds").parse::<u64>().unwrap_or(30) * 1_000;
        let shown = show_group(group);
        Ok(format!("<TargetGroups>{shown}</TargetGroups>"))
    }

    fn modify_attributes(&mut self, form: &Form) -> Answer {
        let arn = form.get("TargetGroupArn");
        let loose = |rule: &Rule| rule.sticky.is_none() && rule.forward().len() > 1;
        let in_a_loose_rule =
            self.rules.values().any(|rule| loose(rule) && rule.forward().iter().any(|(group, _)| group == arn));
        let Some(group) = self.groups.get_mut(arn) else { return Err(no_group(arn)) };
        let http = group.settings.get("Protocol").map(String::as_str) == Some("HTTP");
        for member in form.members("Attributes") {
            let (key, value) = (form.get(&format!("{member}.Key")), form.get(&format!("{member}.Value")));
            let number = value.parse::<u64>().ok();
            let valid = match key {
                "deregistration_delay.timeout_seconds" => number.is_some_and(|seconds| seconds <= 3_600),
                "slow_start.duration_seconds" => {
                    http && number.is_some_and(|seconds| seconds == 0 || (30..=900).contains(&seconds))
                }
                "stickiness.enabled" => ["true", "false"].contains(&value),
                "stickiness.type" => value == if http { "lb_cookie" } else { "source_ip" },
                "stickiness.lb_cookie.duration_seconds" => {
                    http && number.is_some_and(|seconds| (1..=604_800).contains(&seconds))
                }
                _ => false,
            };
            if !valid {
                return Err(invalid(format!("{key} cannot be {value}")));
            }
            if key == "stickiness.enabled" && value == "true" && http && in_a_loose_rule {
                let message = "You must enable group stickiness on a rule if you enabled target stickiness on one of its target groups";
                return Err(Refusal::rude("InvalidConfigurationRequest", message));
            }
            if key == "deregistration_delay.timeout_seconds" {
                group.drain = number.unwrap_or_default() * 1_000;
            }
            group.attributes.insert(key.to_owned(), value.to_owned());
        }
        Ok("<Attributes/>".to_owned())
    }

    fn delete_group(&mut self, form: &Form) -> Answer {
        let arn = form.get("TargetGroupArn");
        if self.in_a_rule(arn) {
            let message = format!("Target group '{arn}' is currently in use by a listener or a rule");
            return Err(Refusal::fair("ResourceInUse", message));
        }
        // Deleting what is not there is no error.
        if let Some(group) = self.groups.remove(arn)
            && group.targets.values().any(|target| !matches!(target.state, State::Draining(..)))
        {
            self.breaks(format!("{} is deleted with targets in it", group.name));
        }
        Ok(String::new())
    }

    fn describe_health(&self, form: &Form) -> Answer {
        let arn = form.get("TargetGroupArn");
        let Some(group) = self.groups.get(arn) else { return Err(no_group(arn)) };
        let mut text = "<TargetHealthDescriptions>".to_owned();
        for ((address, port), target) in &group.targets {
            let (state, reason) = match target.state {
                State::Unused => ("unused", "<Reason>Target.NotInUse</Reason>"),
                State::Initial => ("initial", "<Reason>Elb.InitialHealthChecking</Reason>"),
                State::Healthy => ("healthy", ""),
                State::Unhealthy => (
                    "unhealthy",
                    "<Reason>Target.ResponseCodeMismatch</Reason><Description>Health checks failed with these codes: \
                     [503]</Description>",
                ),
                State::Draining(..) => ("draining", "<Reason>Target.DeregistrationInProgress</Reason>"),
            };
            let _infallible = write!(
                text,
                "<member><Target><Id>{address}</Id><Port>{port}</Port></Target><HealthCheckPort>{port}</HealthCheckPort>\
                 <TargetHealth><State>{state}</State>{reason}</TargetHealth></member>"
            );
        }
        Ok(text + "</TargetHealthDescriptions>")
    }

    fn describe_tags(&self, form: &Form) -> Answer {
        let arns = form.values("ResourceArns");
        if arns.is_empty() || arns.len() > 20 {
            return Err(invalid(format!("the tags of {} resources cannot be described at once", arns.len())));
        }
        let mut text = "<TagDescriptions>".to_owned();
        for arn in &arns {
            let group = self.groups.get(arn).ok_or_else(|| no_group(arn))?;
            let _infallible = write!(text, "<member><ResourceArn>{arn}</ResourceArn><Tags>");
            for (key, value) in &group.tags {
                let _infallible = write!(text, "<member><Key>{key}</Key><Value>{value}</Value></member>");
            }
            text += "</Tags></member>";
        }
        Ok(text + "</TagDescriptions>")
    }

    fn add_tags(&mut self, form: &Form) -> Answer {
        let tags = form.tags();
        for arn in form.values("ResourceArns") {
            let group = self.groups.get_mut(&arn).ok_or_else(|| no_group(&arn))?;
            group.tags.extend(tags.clone());
            super::ecs_api::check_tags(&group.tags).map_err(invalid)?;
        }
        Ok(String::new())
    }
}

fn no_rule() -> Refusal {
    Refusal::fair("RuleNotFound", "One or more rules not found")
}

fn no_listener() -> Refusal {
    Refusal::fair("ListenerNotFound", "One or more listeners not found")
}

fn show_listener(listener: &Rule) -> String {
    format!(
        "<member><ListenerArn>{}</ListenerArn><LoadBalancerArn>{NETWORK}</LoadBalancerArn><Port>{}</Port>\
         <Protocol>TCP</Protocol><DefaultActions>{}</DefaultActions></member>",
        listener.arn,
        listener.port().unwrap_or_default(),
        show_forward(listener)
    )
}

fn show_forward(rule: &Rule) -> String {
    let tuples = rule.forward().iter().map(|(arn, weight)| {
        format!("<member><TargetGroupArn>{arn}</TargetGroupArn><Weight>{weight}</Weight></member>")
    });
    let tuples: String = tuples.collect();
    let duration = rule.sticky.map(|seconds| format!("<DurationSeconds>{seconds}</DurationSeconds>"));
    let (enabled, duration) = (rule.sticky.is_some(), duration.unwrap_or_default());
    let sticky = format!("<Enabled>{enabled}</Enabled>{duration}");
    format!(
        "<member><Type>forward</Type><Order>1</Order><ForwardConfig><TargetGroups>{tuples}</TargetGroups>\
         <TargetGroupStickinessConfig>{sticky}</TargetGroupStickinessConfig></ForwardConfig></member>"
    )
}

/// How long callers stay with a target group, if they do.
fn read_sticky(form: &Form) -> Option<u32> {
    let action = form.members("Actions").into_iter().next()?;
    let config = format!("{action}.ForwardConfig.TargetGroupStickinessConfig");
    let enabled = form.get(&format!("{config}.Enabled")) == "true";
    enabled.then(|| form.get(&format!("{config}.DurationSeconds")).parse().unwrap_or_default())
}

fn show_rule(rule: &Rule) -> String {
    let mut text = format!(
        "<member><RuleArn>{}</RuleArn><Priority>{}</Priority><IsDefault>false</IsDefault><Conditions>",
        rule.arn, rule.priority
    );
    for (field, values) in &rule.conditions {
        let values: String = values.iter().map(|value| format!("<member>{value}</member>")).collect();
        let config = if field == "host-header" { "HostHeaderConfig" } else { "PathPatternConfig" };
        let _infallible = write!(
            text,
            "<member><Field>{field}</Field><Values>{values}</Values><{config}><Values>{values}</Values></{config}></member>"
        );
    }
    text + "</Conditions><Actions>" + &show_forward(rule) + "</Actions></member>"
}

fn show_group(group: &Group) -> String {
    format!(
        "<member><TargetGroupArn>{}</TargetGroupArn><TargetGroupName>{}</TargetGroupName><TargetType>ip</TargetType></member>",
        group.arn, group.name
    )
}

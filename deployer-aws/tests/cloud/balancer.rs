//! The load balancer: target groups, what it finds out about targets, and rules.

use std::collections::BTreeMap;

use super::tasks::Task;
use super::{Cloud, Tags};

/// How long the load balancer still gives requests to a target that is being taken away.
const UNHEARD: u64 = 300;

#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) arn: String,
    pub(crate) name: String,
    pub(crate) tags: Tags,
    /// What it was made with: port, path and so on.
    pub(crate) settings: BTreeMap<String, String>,
    /// Milliseconds.
    pub(crate) drain: u64,
    /// Other attributes, by AWS's names.
    pub(crate) attributes: Tags,
    pub(crate) interval: u64,
    /// When somebody at a console has killed one of its instances.
    pub(crate) killed: Option<u64>,
    /// By address and port.
    pub(crate) targets: BTreeMap<(String, u16), Target>,
}

impl Group {
    /// Whether callers stay with a target.
    pub(super) fn is_sticky(&self) -> bool {
        self.attributes.get("stickiness.enabled").is_some_and(|value| value == "true")
            && self.settings.get("Protocol").is_some_and(|protocol| protocol == "HTTP")
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) task: String,
    pub(crate) state: State,
    probe: u64,
    passed: u32,
    failed: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Unused,
    Initial,
    Healthy,
    Unhealthy,
    /// Since then, and until then.
    Draining(u64, u64),
}

impl Group {
    pub(super) fn next(&self) -> impl Iterator<Item = u64> {
        self.targets.values().map(|target| match target.state {
            State::Draining(_, until) => until,
            _ => target.probe,
        })
    }
}

impl Target {
    /// Whether requests are sent to it.
    pub(super) fn takes(&self, now: u64) -> bool {
        match self.state {
            State::Healthy => true,
            // Not all nodes have heard of it.
            State::Draining(since, _) => now < since + UNHEARD && self.passed > 0,
            _ => false,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) arn: String,
    /// 0 for a listener.
    pub(crate) priority: u32,
    /// Fields and values, as they were sent.
    pub(crate) conditions: Vec<(String, Vec<String>)>,
    /// Target groups with weights, and since when; the newest last.
    pub(crate) forwards: Vec<(u64, Vec<(String, u32)>)>,
    /// How long callers stay with a target group, in seconds.
    pub(crate) sticky: Option<u32>,
}

impl Rule {
    pub(crate) fn forward(&self) -> &[(String, u32)] {
        self.forwards.last().map(|(_, groups)| groups.as_slice()).unwrap_or_default()
    }

    /// What a node of the load balancer knows that hears of changes so late.
    pub(super) fn forward_of(&self, now: u64, lag: u64) -> &[(String, u32)] {
        let known = self.forwards.iter().rev().find(|(at, _)| at + lag <= now).or(self.forwards.first());
        known.map(|(_, groups)| groups.as_slice()).unwrap_or_default()
    }

    /// The port of a listener.
    pub(crate) fn port(&self) -> Option<&str> {
        let ports = self.conditions.iter().find(|(field, _)| field == "port");
        ports.and_then(|(_, values)| values.first()).map(String::as_str)
    }

    pub(crate) fn host(&self) -> Option<&str> {
        let hosts = self.conditions.iter().find(|(field, _)| field == "host-header");
        hosts.and_then(|(_, values)| values.first()).map(String::as_str)
    }

    pub(crate) fn path(&self) -> &str {
        let paths = self.conditions.iter().find(|(field, _)| field == "path-pattern");
        let shortest = paths.and_then(|(_, values)| values.iter().min_by_key(|value| value.len()));
        shortest.map_or("/", |path| if path == "/*" { "/" } else { path.as_str() })
    }

    pub(super) fn takes(&self, host: Option<&str>, path: &str) -> bool {
        self.conditions.iter().all(|(field, values)| match field.as_str() {
            "host-header" | "port" => values.iter().any(|value| Some(value.as_str()) == host),
            _ => values.iter().any(|value| match value.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => path == value,
            }),
        })
    }
}

impl Cloud {
    pub(crate) fn in_a_rule(&self, group: &str) -> bool {
        self.rules.values().any(|rule| rule.forward().iter().any(|(arn, _)| arn == group))
    }

    fn targets_of<'a>(&'a self, task: &'a Task) -> impl Iterator<Item = &'a Target> {
        self.groups.values().flat_map(|group| group.targets.values()).filter(move |target| target.task == task.id)
    }

    /// Whether ECS takes a task for healthy.
    pub(crate) fn is_healthy(&self, task: &Task) -> bool {
        let runs = task.phase == super::tasks::Phase::Running;
        let routed = task.service.as_ref().and_then(|name| self.services.get(name)).map_or(0, |one| one.groups.len());
        runs && self.targets_of(task).filter(|target| target.state == State::Healthy).count() >= routed
    }

    pub(super) fn is_unhealthy(&self, task: &Task) -> bool {
        self.targets_of(task).any(|target| target.state == State::Unhealthy)
    }

    pub(super) fn register(&mut self, task: &Task) {
        let groups = task.service.as_ref().and_then(|name| self.services.get(name)).map(|it| it.groups.clone());
        for (arn, _, port) in groups.into_iter().flatten() {
            let probe = self.now + self.profile.first_probe;
            let Some(group) = self.groups.get_mut(&arn) else {
                self.breaks(format!("a task cannot be registered: its target group is gone, {arn}"));
                continue;
            };
            let target = Target { task: task.id.clone(), state: State::Unused, probe, passed: 0, failed: 0 };
            group.targets.insert((task.address.clone(), port), target);
        }
    }

    /// Marks the target groups of a task that somebody kills.
    pub(super) fn mark_killed(&mut self, task: &str) {
        let now = self.now;
        for group in self.groups.values_mut().filter(|group| group.targets.values().any(|one| one.task == task)) {
            group.killed = Some(now);
        }
    }

    /// Takes a task's targets away, and answers how long that takes.
    pub(super) fn deregister(&mut self, task: &str) -> u64 {
        let now = self.now;
        let mut longest = 0;
        for group in self.groups.values_mut() {
            for target in group.targets.values_mut().filter(|target| target.task == task) {
                if !matches!(target.state, State::Draining(..)) {
                    target.state = State::Draining(now, now + group.drain);
                    longest = longest.max(group.drain);
                }
            }
        }
        longest
    }

    pub(super) fn step_targets(&mut self) {
        let now = self.now;
        let used: Vec<String> = self.groups.keys().filter(|arn| self.in_a_rule(arn)).cloned().collect();
        let ready: std::collections::BTreeSet<String> =
            self.tasks.values().filter(|task| task.is_ready(now)).map(|task| task.id.clone()).collect();
        for group in self.groups.values_mut() {
            let used = used.contains(&group.arn);
            let interval = group.interval;
            group.targets.retain(|_, target| !matches!(target.state, State::Draining(_, until) if until <= now));
            for target in group.targets.values_mut() {
                target.step(now, used, interval, ready.contains(&target.task));
            }
        }
    }
}

impl Target {
    fn step(&mut self, now: u64, used: bool, interval: u64, ready: bool) {
        if matches!(self.state, State::Draining(..)) {
            return;
        }
        match (used, self.state) {
            (false, _) => (self.state, self.passed, self.failed) = (State::Unused, 0, 0),
            (true, State::Unused) => self.state = State::Initial,
            _ => {}
        }
        if self.probe > now {
            return;
        }
        self.probe = now + interval;
        if !used {
            return;
        }
        if ready {
            (self.passed, self.failed) = (self.passed + 1, 0);
            // A new one is trusted after its first answer.
            if self.state == State::Initial || self.passed >= 2 {
                self.state = State::Healthy;
            }
        } else {
            (self.passed, self.failed) = (0, self.failed + 1);
            if self.failed >= 2 {
                self.state = State::Unhealthy;
            }
        }
    }
}

//! From events to what a person cares about: a few lines for each service, not every entry of the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use deployer_core::{
    Action, ChangeKind, DivertReason, Entry, Event, EventKind, GateAnswer, Health, HookPoint, Human, InheritedState,
    InstanceId, InstancePhase, JournalEvent, Outcome, Plan, RevisionId, ServiceName, Step, StepId, Timestamp,
};

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// How long after the first event.
    pub(crate) at: Duration,
    /// The service it is about.
    pub(crate) service: Option<ServiceName>,
    /// What happened.
    pub(crate) text: String,
    /// Whether it is worth a line of its own; if not, it only says what is going on right now.
    pub(crate) lasting: bool,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6.1}s  ", self.at.as_secs_f64())?;
        match &self.service {
            Some(service) => write!(f, "{service}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// What has been told so far.
#[derive(Debug, Default)]
pub(crate) struct Story {
    began: Option<Timestamp>,
    plan: Option<Plan>,
    done: BTreeSet<StepId>,
    preparing: BTreeSet<ServiceName>,
    ready: BTreeMap<RevisionId, BTreeSet<InstanceId>>,
    /// What was last told about an instance that is in trouble, and about a gate, so that it is not told again.
    troubles: BTreeMap<InstanceId, String>,
    gates: BTreeMap<(StepId, String), &'static str>,
}

impl Story {
    /// Takes in what happened before, of which nothing is told any more.
    pub(crate) fn catch_up(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.journal(&entry.event);
        }
    }

    /// How many steps of a service are done, and how many there are; none before there is a plan.
    pub(crate) fn steps(&self, service: &ServiceName) -> Option<(usize, usize)> {
        let steps = self.plan.as_ref()?.steps.iter().filter(|step| step.action.service() == Some(service));
        Some(steps.fold((0, 0), |(done, all), step| (done + usize::from(self.done.contains(&step.id)), all + 1)))
    }

    /// What an event has to tell.
    pub(crate) fn tell(&mut self, event: &Event) -> Vec<Line> {
        let at = event.at.since(*self.began.get_or_insert(event.at));
        let told = match &event.kind {
            EventKind::Preparing { service, progress } => {
                let mut told = Vec::new();
                if self.preparing.insert(service.clone()) {
                    told.push(about(service, "making its image ready"));
                }
                told.push(about(service, format!("{} {}", progress.item, progress.message)).passing());
                told
            }
            EventKind::Pinned { service, image } => vec![about(service, image.as_str())],
            EventKind::Released { release } => vec![whole(format!("this is release {release}"))],
            EventKind::WaitingForLease { holder, until } => {
                let most = Human(until.since(event.at));
                vec![whole(format!("waiting for {holder} to let go, {most} at most"))]
            }
            EventKind::Journal { entry } => self.journal(&entry.event),
            EventKind::Instance { id, name, revision, phase, health, detail } => {
                self.instance(id, name, revision, *phase, *health, detail.as_deref())
            }
            other => vec![whole(other.to_string())],
        };
        told.into_iter().map(|told| told.at(at)).collect()
    }

    fn journal(&mut self, event: &JournalEvent) -> Vec<Told> {
        match event {
            JournalEvent::Opened { kind, baseline, plan, .. } => {
                self.follow(plan);
                let mut text = kind.word().to_owned();
                if let Some(target) = plan.target {
                    text.push_str(&format!(" {target}"));
                }
                if let Some(baseline) = baseline.filter(|baseline| Some(*baseline) != plan.target) {
                    text.push_str(&format!(", {baseline} serves now"));
                }
                let mut told = vec![whole(text)];
                told.extend(changes(plan));
                told
            }
            JournalEvent::Diverted { reason, plan } => {
                self.follow(plan);
                vec![match reason {
                    // The step that failed has told why.
                    DivertReason::Failed { .. } => whole("bringing back what was there before"),
                    DivertReason::Cancelled { .. } => whole(event.to_string()),
                }]
            }
            JournalEvent::StepStarted { step, attempt: 1 } => self.step(*step).and_then(begins).into_iter().collect(),
            JournalEvent::StepFinished { step, outcome, detail } => {
                self.done.insert(*step);
                let plan = self.plan.as_ref();
                let Some((plan, step)) = plan.and_then(|plan| Some((plan, plan.step(*step)?))) else {
                    return Vec::new();
                };
                detail.iter().map(|line| of(step, format!("| {line}"))).chain(ends(plan, step, *outcome)).collect()
            }
            JournalEvent::StepRetried { step, error, .. } => {
                let Some(step) = self.step(*step) else { return Vec::new() };
                vec![of(step, format!("trying again to {}: {error}", step.action))]
            }
            JournalEvent::StepFailed { step, failure } => {
                let Some(step) = self.step(*step) else { return Vec::new() };
                vec![of(step, format!("failed: {}", failure.summary))]
            }
            JournalEvent::GateAsked { step, gate, answer } => {
                let word = match answer {
                    Ok(GateAnswer::Pass { .. }) => "pass",
                    Ok(GateAnswer::Fail { .. }) => "fail",
                    Ok(GateAnswer::Inconclusive { .. }) => "inconclusive",
                    Err(_) => "error",
                };
                let news = self.gates.insert((*step, gate.clone()), word) != Some(word);
                let told = match self.step(*step) {
                    Some(step) => of(step, event.to_string()),
                    None => whole(event.to_string()),
                };
                vec![if news { told } else { told.passing() }]
            }
            JournalEvent::Resumed { .. } | JournalEvent::Signalled { .. } => vec![whole(event.to_string())],
            // The verdict is told by who awaits it.
            _ => Vec::new(),
        }
    }

    fn instance(
        &mut self,
        id: &InstanceId,
        name: &str,
        revision: &RevisionId,
        phase: Option<InstancePhase>,
        health: Health,
        detail: Option<&str>,
    ) -> Vec<Told> {
        let ready = self.ready.entry(revision.clone()).or_default();
        let is_ready = phase == Some(InstancePhase::Running) && health == Health::Healthy;
        let grew = if is_ready {
            ready.insert(id.clone())
        } else {
            ready.remove(id);
            false
        };
        let count = ready.len();
        let service = revision.service();
        let Some(wanted) = self.awaited(revision) else {
            let what = if phase.is_none() { "gone" } else { "on its way out" };
            return vec![about(service, format!("{name} is {what}")).passing()];
        };
        if grew {
            self.troubles.remove(id);
            let told = about(service, format!("{count} of {wanted} ready"));
            return vec![if count < wanted as usize { told.passing() } else { told }];
        }
        let trouble = match (phase, health) {
            (Some(InstancePhase::Exited), _) => "has exited",
            (Some(InstancePhase::Restarting), _) => "has exited and is started again",
            (Some(InstancePhase::Running), Health::Unhealthy) => "is unhealthy",
            _ => return Vec::new(),
        };
        let text = detail.map_or_else(|| format!("{name} {trouble}"), |detail| format!("{name} {trouble}: {detail}"));
        let news = self.troubles.insert(id.clone(), text.clone()).as_ref() != Some(&text);
        if news { vec![about(service, text)] } else { Vec::new() }
    }

    fn follow(&mut self, plan: &Plan) {
        self.plan = Some(plan.clone());
        self.done.clear();
        self.gates.clear();
    }

    fn step(&self, id: StepId) -> Option<&Step> {
        self.plan.as_ref()?.step(id)
    }

    /// How many instances of a revision the plan waits for in the end, if it waits for any.
    fn awaited(&self, revision: &RevisionId) -> Option<u32> {
        let steps = self.plan.iter().flat_map(|plan| &plan.steps);
        let awaited = steps.filter_map(|step| match &step.action {
            Action::AwaitHealthy { revision: of, instances, .. } if of == revision => Some(*instances),
            _ => None,
        });
        awaited.max()
    }
}

/// What a plan changes, service by service.
fn changes(plan: &Plan) -> Vec<Told> {
    let changes = plan.changes.iter().filter(|change| change.kind != ChangeKind::Keep).map(|change| {
        let word = match change.kind {
            ChangeKind::Add => "new",
            ChangeKind::Replace => "changed",
            ChangeKind::Scale => "scaled or repaired",
            ChangeKind::Remove => "removed",
            ChangeKind::Keep => "unchanged",
        };
        let differences = change.differences.join("; ");
        let text = if differences.is_empty() { word.to_owned() } else { format!("{word} ({differences})") };
        about(&change.service, text)
    });
    changes.chain(plan.notes.iter().map(|note| whole(format!("note: {note}")))).collect()
}

/// What a step that begins has to tell.
fn begins(step: &Step) -> Option<Told> {
    let text = match &step.action {
        Action::Launch { instances: 1, .. } => "starting 1 instance".to_owned(),
        Action::Launch { instances, .. } => format!("starting {instances} instances"),
        Action::RunHook { hook, .. } => {
            let point = match hook.point {
                HookPoint::PreDeploy => "pre-deploy",
                HookPoint::PostDeploy => "post-deploy",
                HookPoint::PreStop => "pre-stop",
            };
            format!("running the {point} hook {}", hook.name)
        }
        Action::Ask { gate, .. } => format!("asking gate {}", gate.name),
        Action::Hold { weight, duration, gates, .. } => {
            let mut text = format!("holding for {} with {weight} % of the traffic", Human(*duration));
            if !gates.is_empty() {
                let names: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
                text.push_str(&format!(", asking {}", names.join(", ")));
            }
            text
        }
        action => return Some(of(step, action.to_string()).passing()),
    };
    Some(of(step, text))
}

/// What a step that is done has to tell.
fn ends(plan: &Plan, step: &Step, outcome: Outcome) -> Option<Told> {
    if outcome == Outcome::AlreadyThere && !matches!(step.action, Action::Verify { .. }) {
        return None;
    }
    let text = match &step.action {
        Action::Shift { service, weights, .. } => {
            let change = plan.changes.iter().find(|change| change.service == *service);
            let wanted = change.and_then(|change| change.to.as_ref());
            match wanted.map(|wanted| (wanted, weights.get(wanted).copied().unwrap_or(0))) {
                Some((wanted, 100)) => format!("all traffic goes to {}", wanted.hash()),
                Some((wanted, weight)) => format!("{weight} % of the traffic goes to {}", wanted.hash()),
                None => "no traffic any more".to_owned(),
            }
        }
        Action::RunHook { hook, .. } => format!("hook {} is done", hook.name),
        Action::Reduce { revision, keep: 0, .. } => format!("{} is stopped", revision.hash()),
        Action::Reduce { revision, keep, .. } => format!("{} is reduced to {keep}", revision.hash()),
        Action::Verify { release, .. } => format!("verified: {release} is what serves"),
        Action::SetInherited { instances, state, .. } => {
            let names: Vec<&str> = instances.iter().map(|instance| instance.name.as_str()).collect();
            let what = match state {
                InheritedState::Stopped => "stopped",
                InheritedState::Running => "started again",
                InheritedState::Removed => "removed",
            };
            format!("{} of {}: {what}", names.join(", "), instances.first()?.tool)
        }
        Action::RemoveApp { volumes: true } => "networks and volumes are removed".to_owned(),
        Action::RemoveApp { volumes: false } => "networks are removed".to_owned(),
        _ => return None,
    };
    Some(of(step, text))
}

/// Something to tell, as yet without a time.
#[derive(Debug)]
struct Told {
    service: Option<ServiceName>,
    text: String,
    lasting: bool,
}

impl Told {
    fn passing(self) -> Self {
        Self { lasting: false, ..self }
    }

    fn at(self, at: Duration) -> Line {
        Line { at, service: self.service, text: self.text, lasting: self.lasting }
    }
}

fn about(service: &ServiceName, text: impl Into<String>) -> Told {
    Told { service: Some(service.clone()), text: text.into(), lasting: true }
}

fn whole(text: impl Into<String>) -> Told {
    Told { service: None, text: text.into(), lasting: true }
}

fn of(step: &Step, text: String) -> Told {
    Told { service: step.action.service().cloned(), text, lasting: true }
}

#[cfg(test)]
mod tests {
    use deployer_core::{AppSpec, DeployOptions, Deployer, Route, ServiceSpec};
    use deployer_testkit::{Behaviour, World, simulate};

    use super::*;

    fn shop(image: &str) -> AppSpec {
        let web = ServiceSpec::image(image).with_route(Route::new(80)).with_http_probe("/", 80).with_replicas(3);
        AppSpec::new("shop").unwrap().with_service("web", web).unwrap()
    }

    /// What is told of deployments one after the other, each in one text.
    fn told(images: &[&str]) -> Vec<String> {
        let world = World::new();
        for image in images {
            world.add_image(image);
        }
        world.on_image("shop:bad", Behaviour::crash_loop(3));
        simulate(async {
            let deployer = Deployer::builder(world.backend()).clock(world.clock()).build();
            let mut texts = Vec::new();
            for image in images {
                let mut deployment = deployer.deploy(shop(image), DeployOptions::default());
                let (mut story, mut text) = (Story::default(), String::new());
                while let Some(event) = deployment.next_event().await {
                    for line in story.tell(&event).iter().filter(|line| line.lasting) {
                        let service = line.service.as_ref().map_or("", AsRef::as_ref);
                        text.push_str(&format!("{service}: {}\n", without_hashes(&line.text)));
                    }
                }
                deployment.finished().await.unwrap();
                texts.push(text);
            }
            texts
        })
    }

    /// Hashes change with every field that the model gets.
    fn without_hashes(text: &str) -> String {
        let is_hash = |word: &str| word.len() == 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
        let words = text.split_inclusive([' ', '@']).map(|word| {
            let bare = word.trim_end_matches([' ', '@', ':', ',']);
            if is_hash(bare) { word.replace(bare, "...") } else { word.to_owned() }
        });
        words.collect()
    }

    /// The revision in the first instance's name.
    fn revision(text: &str) -> &str {
        text.strip_prefix("web: shop-web-").and_then(|rest| rest.split_once('-')).unwrap().0
    }

    #[test]
    fn a_deployment_is_told_in_a_few_lines() {
        let told = told(&["shop:v1", "shop:v2", "shop:bad"]);
        let first = "\
web: making its image ready
web: shop:v1 is ...
: this is release v1
: deploy v1
web: new
web: starting 3 instances
web: 3 of 3 ready
web: all traffic goes to ...
: verified: v1 is what serves
";
        assert_eq!(told[0], first);
        let second = "\
web: making its image ready
web: shop:v2 is ...
: this is release v2
: deploy v2, v1 serves now
web: changed (image: shop:v1 -> shop:v2)
web: starting 3 instances
web: 3 of 3 ready
web: all traffic goes to ...
: verified: v2 is what serves
web: ... is stopped
";
        assert_eq!(told[1], second);
    }

    #[test]
    fn a_deployment_that_fails_says_why_once() {
        let told = told(&["shop:v1", "shop:bad"]);
        let (_, failed) = told[1].split_once("web: starting 3 instances\n").unwrap();
        let instance =
            |ordinal| format!("web: shop-web-{}-{ordinal} has exited and is started again\n", revision(failed));
        let expected = format!(
            "{}{}{}web: failed: shop-web-{revision}-1 of web@...: exited with code 3\n\
             : bringing back what was there before\n: verified: v1 is what serves\nweb: ... is stopped\n",
            instance(1),
            instance(2),
            instance(3),
            revision = revision(failed),
        );
        assert_eq!(failed, expected);
    }

    #[test]
    fn lines_are_aligned_by_their_time() {
        let line = |millis, service: Option<&str>| Line {
            at: Duration::from_millis(millis),
            service: service.map(|name| ServiceName::new(name).unwrap()),
            text: "3 of 3 ready".to_owned(),
            lasting: true,
        };
        assert_eq!(line(12_345, Some("web")).to_string(), "  12.3s  web: 3 of 3 ready");
        assert_eq!(line(50, None).to_string(), "   0.1s  3 of 3 ready");
    }
}

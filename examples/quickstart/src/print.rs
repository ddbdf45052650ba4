//! What is printed: progress while a deployment runs, the table at the end, and the last line, which is for machines.

use std::error::Error;
use std::fmt::Display;
use std::time::Duration;

use deployer_core::{
    Action, DeploymentRecord, Event, EventKind, Failure, Human, JournalEvent, Outcome, Plan, Timestamp, Verdict,
};

use crate::traffic::Moved;

/// Prints a line for each step that did something.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    began: Option<Timestamp>,
    plan: Option<Plan>,
}

impl Progress {
    pub(crate) fn event(&mut self, event: &Event) {
        let at = event.at.since(*self.began.get_or_insert(event.at));
        let line = |text: &dyn Display| println!("  {:>5.1}s  {text}", at.as_secs_f64());
        match &event.kind {
            EventKind::Pinned { .. } | EventKind::Released { .. } => line(&event.kind),
            EventKind::Journal { entry } => match &entry.event {
                JournalEvent::Opened { plan, .. } => self.plan = Some(plan.clone()),
                JournalEvent::Diverted { plan, .. } => {
                    self.plan = Some(plan.clone());
                    line(&entry.event);
                }
                JournalEvent::StepFinished { step, outcome, .. } => {
                    let step = self.plan.as_ref().and_then(|plan| plan.step(*step));
                    if let Some(step) = step.filter(|step| is_news(&step.action, *outcome)) {
                        line(&step.action);
                    }
                }
                JournalEvent::StepRetried { .. } | JournalEvent::StepFailed { .. } => line(&entry.event),
                JournalEvent::Closed { verdict } => line(&verdict.word()),
                _ => {}
            },
            _ => {}
        }
    }
}

fn is_news(action: &Action, outcome: Outcome) -> bool {
    match action {
        Action::Prepare { .. } | Action::Drain { .. } | Action::Tidy { .. } => false,
        Action::AwaitHealthy { .. } | Action::Verify { .. } => true,
        _ => outcome != Outcome::AlreadyThere,
    }
}

/// One step of the story.
#[derive(Debug)]
pub(crate) struct Chapter {
    name: &'static str,
    verdict: &'static str,
    took: Duration,
    moved: Option<Moved>,
}

impl Chapter {
    pub(crate) fn new(name: &'static str, record: &DeploymentRecord) -> Self {
        let took = record.finished_at.map_or(Duration::ZERO, |finished| finished.since(record.started_at));
        Self { name, verdict: record.verdict.as_ref().map_or("none", Verdict::word), took, moved: None }
    }

    /// Says what it meant for visitors.
    pub(crate) fn with_traffic(mut self, moved: Moved) -> Self {
        self.moved = Some(moved);
        self
    }

    /// How many visitors were not served, if any came.
    pub(crate) fn lost(&self) -> Option<u64> {
        self.moved.map(|moved| moved.lost)
    }
}

/// What happened, step by step.
pub(crate) fn table(chapters: &[Chapter]) {
    if chapters.is_empty() {
        return;
    }
    let row = |cells: [&str; 7]| {
        let [name, verdict, took, first, all, sent, lost] = cells;
        let line = format!("{name:<19} {verdict:<12} {took:>8} {first:>15} {all:>15} {sent:>9} {lost:>6}");
        println!("{}", line.trim_end());
    };
    println!();
    row(["", "", "", "first request", "all requests", "requests", ""]);
    row(["step", "verdict", "verdict", "on new version", "on new version", "sent", "lost"]);
    for chapter in chapters {
        let time =
            |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), |time| format!("{} ms", time.as_millis()));
        let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let moved = chapter.moved;
        row([
            chapter.name,
            chapter.verdict,
            &Human(chapter.took).to_string(),
            &time(moved.and_then(|moved| moved.first)),
            &time(moved.and_then(|moved| moved.all)),
            &count(moved.map(|moved| moved.sent)),
            &count(moved.map(|moved| moved.lost)),
        ]);
    }
}

/// The line for machines; none, if the story did not come to its end.
pub(crate) fn summary(chapters: &[Chapter]) -> Option<String> {
    let all = |name: &str| chapters.iter().find(|chapter| chapter.name == name)?.moved?.all;
    let (deploy, rollback) = (all("deploy v2")?, all("roll back to v1")?);
    let sum = |of: fn(&Moved) -> u64| chapters.iter().filter_map(|chapter| chapter.moved.as_ref()).map(of).sum::<u64>();
    let (sent, lost) = (sum(|moved| moved.sent), sum(|moved| moved.lost));
    let (deploy, rollback) = (deploy.as_millis(), rollback.as_millis());
    Some(format!("quickstart: deploy_ms={deploy} rollback_ms={rollback} sent={sent} lost={lost}"))
}

/// Why a version was rolled back.
pub(crate) fn diagnosis(failure: &Failure) {
    println!("\n{}", indented(&failure.to_string()).trim_end_matches('\n'));
}

/// An error with its causes and what to do about it.
pub(crate) fn failure(error: &(dyn Error + 'static)) {
    eprintln!("\nerror: {error}");
    let mut next = error.source();
    while let Some(cause) = next {
        eprintln!("  because: {cause}");
        next = cause.source();
    }
    if let Some(help) = error.downcast_ref::<deployer_core::Error>().and_then(deployer_core::Error::help) {
        eprintln!("  help: {help}");
    }
}

/// What the audience should know before it reads on.
pub(crate) fn remark(remark: Option<&str>) {
    if let Some(remark) = remark {
        println!("{remark}");
    }
}

/// Lines with some space before each.
pub(crate) fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

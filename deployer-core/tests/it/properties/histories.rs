//! Random histories of deployments, by a model of what a deployment may do: it enumerates every move there is, where
//! the journal's table judges entries. Neither knows of the other.

use std::collections::BTreeSet;

use deployer_core::{
    Entry, ErrorKind, ErrorReport, Failure, GateAnswer, JournalEvent, Outcome, Plan, Signal, StepId, Timestamp, Verdict,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// What a deployment may do, as far as it matters to what may come after it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Move {
    Open,
    Resume,
    Start(usize, u32),
    Postpone(usize, u32),
    Finish(usize),
    Fail(usize),
    Ask(usize, String),
    Signal(Signal),
    Turn { cancelled: bool },
    Close(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Idle,
    Running(u32),
    Waiting(u32),
    Done,
    Broken,
}

/// A step, as far as the model cares.
#[derive(Clone, Debug)]
struct Step {
    after: Vec<usize>,
    required: bool,
    proves: bool,
    gates: Vec<String>,
}

/// What has happened to a deployment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    open: bool,
    pub(crate) closed: bool,
    entries: u64,
    fence: u64,
    turned: Option<bool>,
    steps: Vec<Step>,
    progress: Vec<Progress>,
    signals: Vec<Signal>,
}

fn signals() -> [Signal; 4] {
    let by = || "ann".to_owned();
    [
        Signal::Cancel { by: by() },
        Signal::Cancel { by: "bob".to_owned() },
        Signal::Promote { by: by() },
        Signal::Supersede { by: by() },
    ]
}

impl Model {
    fn settled(&self, step: usize) -> bool {
        match self.progress.get(step) {
            Some(Progress::Done) => true,
            Some(Progress::Broken) => !self.steps[step].required,
            _ => false,
        }
    }

    /// Everything that may happen next.
    fn moves(&self) -> BTreeSet<Move> {
        let mut moves = BTreeSet::new();
        if !self.open {
            moves.insert(Move::Open);
            return moves;
        }
        if self.closed {
            return moves;
        }
        moves.insert(Move::Resume);
        for (index, step) in self.steps.iter().enumerate() {
            let last = match self.progress[index] {
                Progress::Idle => Some(0),
                Progress::Running(attempt) | Progress::Waiting(attempt) => Some(attempt),
                Progress::Done | Progress::Broken => None,
            };
            if let Some(last) = last
                && step.after.iter().all(|after| self.settled(*after))
            {
                moves.insert(Move::Start(index, last + 1));
            }
            if let Progress::Running(attempt) = self.progress[index] {
                moves.insert(Move::Postpone(index, attempt));
                moves.insert(Move::Finish(index));
                moves.extend(step.gates.iter().map(|gate| Move::Ask(index, gate.clone())));
            }
            if matches!(self.progress[index], Progress::Running(_) | Progress::Waiting(_)) {
                moves.insert(Move::Fail(index));
            }
        }
        moves.extend(signals().into_iter().filter(|signal| !self.signals.contains(signal)).map(Move::Signal));
        let all = (0..self.steps.len()).all(|step| self.settled(step));
        let proven = (0..self.steps.len()).any(|step| self.steps[step].proves && self.progress[step] == Progress::Done);
        let stuck =
            (0..self.steps.len()).any(|step| self.steps[step].required && self.progress[step] == Progress::Broken);
        moves.insert(Move::Close("superseded"));
        if stuck {
            moves.insert(Move::Close("needs-attention"));
        }
        match self.turned {
            None => {
                moves.insert(Move::Turn { cancelled: false });
                moves.insert(Move::Turn { cancelled: true });
                if all || proven {
                    moves.insert(Move::Close("promoted"));
                }
            }
            Some(cancelled) if all => {
                moves.insert(Move::Close(if cancelled { "cancelled" } else { "rolled-back" }));
            }
            Some(_) => {}
        }
        moves
    }

    /// Takes an entry, or answers that it may not happen now.
    pub(crate) fn take(&mut self, entry: &Entry) -> bool {
        let numbered = entry.seq == self.entries + 1 && entry.format <= 1;
        let fenced = entry.fence >= self.fence;
        let (made, plan) = read(&entry.event);
        if !numbered || !fenced || !self.moves().contains(&made) {
            return false;
        }
        self.entries += 1;
        self.fence = entry.fence;
        if let Some(plan) = plan {
            self.steps = plan;
            self.progress = vec![Progress::Idle; self.steps.len()];
        }
        match made {
            Move::Open => self.open = true,
            Move::Start(step, attempt) => self.progress[step] = Progress::Running(attempt),
            Move::Postpone(step, attempt) => self.progress[step] = Progress::Waiting(attempt),
            Move::Finish(step) => self.progress[step] = Progress::Done,
            Move::Fail(step) => self.progress[step] = Progress::Broken,
            Move::Signal(signal) => self.signals.push(signal),
            Move::Turn { cancelled } => self.turned = Some(cancelled),
            Move::Close(_) => self.closed = true,
            Move::Resume | Move::Ask(..) => {}
        }
        true
    }
}

/// What an entry does in the model's words, and the plan that it brings.
fn read(event: &JournalEvent) -> (Move, Option<Vec<Step>>) {
    let steps = |plan: &Plan| {
        let steps = plan.steps.iter().map(|step| Step {
            after: step.after.iter().map(|after| after.0 as usize).collect(),
            required: step.weight == deployer_core::StepWeight::Required,
            proves: step.action.name() == "verify",
            gates: step.gates().map(|gate| gate.name.clone()).collect(),
        });
        Some(steps.collect())
    };
    let made = match event {
        JournalEvent::Opened { plan, .. } => return (Move::Open, steps(plan)),
        JournalEvent::Diverted { reason, plan } => {
            let cancelled = matches!(reason, deployer_core::DivertReason::Cancelled { .. });
            return (Move::Turn { cancelled }, steps(plan));
        }
        JournalEvent::Resumed { .. } => Move::Resume,
        JournalEvent::StepStarted { step, attempt } => Move::Start(step.0 as usize, *attempt),
        JournalEvent::StepRetried { step, attempt, .. } => Move::Postpone(step.0 as usize, *attempt),
        JournalEvent::StepFinished { step, .. } => Move::Finish(step.0 as usize),
        JournalEvent::StepFailed { step, .. } => Move::Fail(step.0 as usize),
        JournalEvent::GateAsked { step, gate, .. } => Move::Ask(step.0 as usize, gate.clone()),
        JournalEvent::Signalled { signal } => Move::Signal(signal.clone()),
        JournalEvent::Closed { verdict } => Move::Close(verdict.word()),
        other => panic!("the model does not know {other:?}"),
    };
    (made, None)
}

/// A plan of these steps: what each waits for, its weight, and what kind of step it is.
fn plan(steps: &[(Vec<Index>, bool, u8, bool)]) -> Plan {
    let gate = |name: &str| {
        json!({
            "name": name, "check": {"type": "callback", "name": "ask"}, "at": "holding", "interval": 1000,
            "failures_allowed": 0, "on_inconclusive": "fail",
        })
    };
    let steps = steps.iter().enumerate().map(|(id, (after, required, kind, astray))| {
        let mut after: BTreeSet<usize> = after.iter().filter(|_| id > 0).map(|after| after.index(id.max(1))).collect();
        if *astray {
            // A plan that nobody has made: its step can never begin.
            after.insert(99);
        }
        let action = match kind {
            0 => json!({"do": "verify", "release": 1, "timeout": 1000}),
            1 => json!({"do": "ask", "revision": "web@0123456789ab", "gate": gate("first")}),
            2 => json!({
                "do": "hold", "revision": "web@0123456789ab", "weight": 10, "duration": 1000, "instances": 1,
                "gates": [gate("first"), gate("second")],
            }),
            _ => json!({"do": "remove-app", "volumes": false}),
        };
        json!({"id": id, "after": after, "weight": if *required { "required" } else { "clean-up" }, "action": action})
    });
    let steps: Vec<Value> = steps.collect();
    let basis = format!("sha256:{}", "0".repeat(64));
    serde_json::from_value(json!({
        "app": "shop", "target": 1, "changes": [], "steps": steps, "notes": [], "basis": basis,
    }))
    .unwrap()
}

fn plans() -> impl Strategy<Value = Plan> {
    let step = (vec(any::<Index>(), 0..3), proptest::bool::weighted(0.7), 0..5_u8, proptest::bool::weighted(0.02));
    vec(step, 0..6).prop_map(|steps| plan(&steps))
}

fn failure() -> Box<Failure> {
    Box::new(Failure::new("try", ErrorKind::Workload, "it crashes"))
}

fn report() -> ErrorReport {
    deployer_core::Error::new(ErrorKind::Unavailable, "no answer").report()
}

/// An event that makes this move.
fn event(made: Move, plan: &Plan, choice: u8) -> JournalEvent {
    let id = |step: usize| StepId(u32::try_from(step).unwrap());
    match made {
        Move::Open => serde_json::from_value(json!({
            "event": "opened", "deployment": "d1", "app": "shop", "kind": {"kind": "deploy"}, "target": 1,
            "baseline": null, "owner": "a test", "plan": plan,
        }))
        .unwrap(),
        Move::Resume => JournalEvent::Resumed { owner: "another".into() },
        Move::Start(step, attempt) => JournalEvent::StepStarted { step: id(step), attempt },
        Move::Postpone(step, attempt) => JournalEvent::StepRetried {
            step: id(step),
            attempt,
            error: report(),
            retry_at: Timestamp::from_millis(i64::from(choice)),
        },
        Move::Finish(step) => {
            JournalEvent::StepFinished { step: id(step), outcome: Outcome::Changed, detail: Vec::new() }
        }
        Move::Fail(step) => JournalEvent::StepFailed { step: id(step), failure: failure() },
        Move::Ask(step, gate) => {
            let detail = "seen".to_owned();
            let answer = match choice % 4 {
                0 => Ok(GateAnswer::Pass { detail }),
                1 => Ok(GateAnswer::Fail { detail }),
                2 => Ok(GateAnswer::Inconclusive { detail }),
                _ => Err(report()),
            };
            JournalEvent::GateAsked { step: id(step), gate, answer }
        }
        Move::Signal(signal) => JournalEvent::Signalled { signal },
        Move::Turn { cancelled } => {
            let reason = if cancelled {
                deployer_core::DivertReason::Cancelled { by: "ann".into() }
            } else {
                deployer_core::DivertReason::Failed { cause: failure() }
            };
            JournalEvent::Diverted { reason, plan: plan.clone() }
        }
        Move::Close(word) => JournalEvent::Closed { verdict: verdict(word) },
    }
}

fn verdict(word: &str) -> Verdict {
    match word {
        "promoted" => Verdict::Promoted { leftovers: Vec::new() },
        "rolled-back" => Verdict::RolledBack { cause: failure() },
        "cancelled" => Verdict::Cancelled { by: "ann".into() },
        "superseded" => Verdict::Superseded { by: "d2".into() },
        _ => Verdict::NeedsAttention { cause: failure(), rollback: None },
    }
}

/// A legal history: a random walk over the model.
pub(crate) fn history() -> impl Strategy<Value = Vec<Entry>> {
    (plans(), plans(), vec((any::<Index>(), any::<u8>(), proptest::bool::weighted(0.05)), 1..60)).prop_map(
        |(forward, back, choices)| {
            let (mut model, mut fence) = (Model::default(), 1);
            let mut entries = Vec::new();
            for (index, choice, taken_over) in choices {
                let moves: Vec<Move> = model.moves().into_iter().collect();
                // Ends, and turns, are rarer than they would be by chance alone.
                let rare = |made: &Move| matches!(made, Move::Close(_) | Move::Turn { .. } | Move::Signal(_));
                let usual: Vec<Move> = moves.iter().filter(|made| !rare(made)).cloned().collect();
                let from = if choice % 4 > 0 && !usual.is_empty() { usual } else { moves };
                if from.is_empty() {
                    break;
                }
                fence += u64::from(taken_over);
                let made = from[index.index(from.len())].clone();
                let plan = if made == Move::Open { &forward } else { &back };
                let at = Timestamp::from_millis(i64::from(choice) * 10);
                let entry = Entry::new(entries.len() as u64 + 1, at, fence, event(made, plan, choice));
                assert!(model.take(&entry), "the model refuses its own move: {entry:?}");
                entries.push(entry);
            }
            entries
        },
    )
}

/// Damage to a history.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    Drop(Index),
    Repeat(Index, Index),
    Swap(Index, Index),
    Number(Index, u64),
    Fence(Index, u64),
    Form(Index, u16),
    Step(Index, u32),
    Attempt(Index, u32),
    Gate(Index),
    Verdict(Index, u8),
    Insert(Index, u8, u32),
}

pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        at().prop_map(Damage::Drop),
        (at(), at()).prop_map(|(from, to)| Damage::Repeat(from, to)),
        (at(), at()).prop_map(|(one, other)| Damage::Swap(one, other)),
        (at(), prop_oneof![0..70_u64, Just(u64::MAX)]).prop_map(|(at, number)| Damage::Number(at, number)),
        (at(), prop_oneof![0..4_u64, Just(u64::MAX)]).prop_map(|(at, fence)| Damage::Fence(at, fence)),
        (at(), 0..3_u16).prop_map(|(at, form)| Damage::Form(at, form)),
        (at(), prop_oneof![0..7_u32, Just(u32::MAX)]).prop_map(|(at, step)| Damage::Step(at, step)),
        (at(), prop_oneof![0..4_u32, Just(u32::MAX)]).prop_map(|(at, attempt)| Damage::Attempt(at, attempt)),
        at().prop_map(Damage::Gate),
        (at(), 0..5_u8).prop_map(|(at, word)| Damage::Verdict(at, word)),
        (at(), 0..9_u8, 0..7_u32).prop_map(|(at, what, step)| Damage::Insert(at, what, step)),
    ]
}

const WORDS: [&str; 5] = ["promoted", "rolled-back", "cancelled", "superseded", "needs-attention"];

/// Damages a history; with `renumber`, the numbers are put in order again, so that only what the entries say is wrong.
pub(crate) fn damaged(mut entries: Vec<Entry>, damages: &[Damage], renumber: bool) -> Vec<Entry> {
    for damage in damages {
        let length = entries.len();
        if length == 0 {
            break;
        }
        match damage {
            Damage::Drop(at) => drop(entries.remove(at.index(length))),
            Damage::Repeat(from, to) => {
                let entry = entries[from.index(length)].clone();
                entries.insert(to.index(length), entry);
            }
            Damage::Swap(one, other) => entries.swap(one.index(length), other.index(length)),
            Damage::Number(at, number) => entries[at.index(length)].seq = *number,
            Damage::Fence(at, fence) => entries[at.index(length)].fence = *fence,
            Damage::Form(at, form) => entries[at.index(length)].format = *form,
            Damage::Step(at, to) => {
                if let JournalEvent::StepStarted { step, .. }
                | JournalEvent::StepRetried { step, .. }
                | JournalEvent::StepFinished { step, .. }
                | JournalEvent::StepFailed { step, .. }
                | JournalEvent::GateAsked { step, .. } = &mut entries[at.index(length)].event
                {
                    *step = StepId(*to);
                }
            }
            Damage::Attempt(at, to) => {
                if let JournalEvent::StepStarted { attempt, .. } | JournalEvent::StepRetried { attempt, .. } =
                    &mut entries[at.index(length)].event
                {
                    *attempt = *to;
                }
            }
            Damage::Gate(at) => {
                if let JournalEvent::GateAsked { gate, .. } = &mut entries[at.index(length)].event {
                    gate.push('x');
                }
            }
            Damage::Verdict(at, word) => {
                if let JournalEvent::Closed { verdict: closed } = &mut entries[at.index(length)].event {
                    *closed = verdict(WORDS[usize::from(*word)]);
                }
            }
            Damage::Insert(at, what, step) => {
                let step = *step as usize;
                let made = match what {
                    0 => Move::Finish(step),
                    1 => Move::Fail(step),
                    2 => Move::Start(step, 1),
                    3 => Move::Postpone(step, 1),
                    4 => Move::Ask(step, "first".into()),
                    5 => Move::Turn { cancelled: step.is_multiple_of(2) },
                    6 => Move::Signal(signals()[step % 4].clone()),
                    _ => Move::Close(WORDS[step % 5]),
                };
                let at = at.index(length);
                let (seq, fence) = (entries[at].seq, entries[at].fence);
                entries.insert(at, Entry::new(seq, Timestamp::default(), fence, event(made, &plan(&[]), 0)));
            }
        }
    }
    if renumber {
        for (entry, seq) in entries.iter_mut().zip(1..) {
            entry.seq = seq;
        }
    }
    entries
}

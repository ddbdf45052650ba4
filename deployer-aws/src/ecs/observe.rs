//! What runs: tasks as the instances of revisions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ecs::types::{DesiredStatus, HealthStatus};
use deployer_core::{
    AppName, ExitDetail, Health, InstanceId, InstancePhase, ObserveApp, ObservedApp, ObservedInstance, ObservedTask,
    Readiness, ReleaseNumber, Result, RevisionId, TaskId, Timestamp,
};
use futures_util::future::{try_join, try_join_all};
use tokio::time::Instant;

use super::definition::KnownDefinition;
use super::slots::Slot;
use super::task::{KnownTask, Of, Status};
use crate::elb::TargetHealth;
use crate::naming;
use crate::site::Site;

/// How long ECS tells of what has ended, and a little more.
const FORGOTTEN: Duration = Duration::from_secs(2 * 3_600);

/// How long it is believed that there are no one-off tasks but those that this process has started.
const ERRANDS: Duration = Duration::from_secs(60);

/// How many slots and more are not asked for one by one: ECS takes 20 listings a second, of everybody together.
const CROWD: usize = 10;

impl Site {
    pub(super) async fn observe_app(&self, request: &ObserveApp) -> Result<ObservedApp> {
        let slots = self.slots(&request.app).await?;
        self.look_at_tasks(&request.app, &slots).await?;
        let known: Vec<KnownTask> =
            self.memory().tasks.get(&request.app).map(|tasks| tasks.values().cloned().collect()).unwrap_or_default();
        let runs = |slot: &Slot| {
            known.iter().any(|task| task.status == Status::Running && task.slot.as_ref() == Some(&slot.name))
        };
        let probed: BTreeSet<String> = slots
            .iter()
            .filter(|slot| request.probe.contains_key(&slot.revision) && runs(slot))
            .flat_map(|slot| slot.groups.iter().map(|(arn, _)| arn.clone()))
            .collect();
        let definitions = self.definitions(&slots, &known);
        let (health, definitions) = try_join(self.target_health(&probed), definitions).await?;
        let instances = slots.iter().flat_map(|slot| instances(request, slot, &known, &health, &definitions));
        let removed = self.memory().removed.clone();
        let tasks = known.iter().filter(|task| !removed.contains_key(&task.id)).filter_map(errand);
        let mut tasks: Vec<ObservedTask> = tasks.collect();
        tasks.sort_by(|one, other| one.task.cmp(&other.task));
        Ok(ObservedApp::new(instances.collect(), tasks))
    }

    /// Brings what is known of tasks up to date, unless that was done a moment ago.
    pub(crate) async fn look_at_tasks(&self, app: &AppName, slots: &[Slot]) -> Result<()> {
        self.looked.get(app.as_str(), async { Ok((self.ask_for_tasks(app, slots).await?, self.moment())) }).await
    }

    /// Asks for tasks in as few calls as that takes: not at all for slots in which everything runs and of which ECS has
    /// nothing new to tell, nor for those in which it has not started anything yet.
    async fn ask_for_tasks(&self, app: &AppName, slots: &[Slot]) -> Result<()> {
        let starter = naming::starter(app);
        let steady: BTreeSet<String> =
            slots.iter().filter(|slot| self.is_steady(app, slot)).map(|it| it.name.clone()).collect();
        let quiet: BTreeSet<&str> = {
            let memory = self.memory();
            let quiet = |slot: &&Slot| memory.searched.get(&slot.name).is_some_and(|print| slot.is_quiet(print));
            slots.iter().filter(quiet).map(|slot| slot.name.as_str()).collect()
        };
        let searched: Vec<&Slot> = slots.iter().filter(|slot| !quiet.contains(slot.name.as_str())).collect();
        let stirring = searched.iter().filter(|slot| !steady.contains(&slot.name));
        let (mut wanted, errands) = {
            let memory = self.memory();
            let mut listings: Vec<(Of<'_>, DesiredStatus)> = Vec::new();
            for slot in stirring {
                let known = memory.searched.contains_key(&slot.name);
                if !slot.is_idle() {
                    listings.push((Of::Slot(&slot.name), DesiredStatus::Running));
                }
                // Those that have stopped are asked for where something has failed, and when nothing is known of the slot.
                let failed = slot.failures > 0 || slot.running + slot.pending < slot.desired;
                if !known || (failed && !slot.is_idle()) {
                    listings.push((Of::Slot(&slot.name), DesiredStatus::Stopped));
                }
            }
            let errands = memory.errands.get(app).is_none_or(|at| at.elapsed() > ERRANDS);
            if errands {
                listings.push((Of::Starter(&starter), DesiredStatus::Running));
                listings.push((Of::Starter(&starter), DesiredStatus::Stopped));
            }
            (listings, errands)
        };
        if wanted.len() > CROWD {
            let stopped = wanted.iter().any(|(_, desired)| *desired == DesiredStatus::Stopped);
            wanted = vec![(Of::Anybody, DesiredStatus::Running)];
            wanted.extend(stopped.then_some((Of::Anybody, DesiredStatus::Stopped)));
        }
        let lists = wanted.drain(..).map(|(of, desired)| self.list_tasks(of, desired));
        let listed: BTreeSet<String> = try_join_all(lists).await?.into_iter().flatten().collect();
        let arns: Vec<String> = {
            let mut memory = self.memory();
            memory.removed.retain(|_, at| at.elapsed() < FORGOTTEN);
            let removed: BTreeSet<String> = memory.removed.keys().cloned().collect();
            let strangers = memory.strangers.entry(app.clone()).or_default();
            strangers.retain(|arn| listed.contains(arn));
            let strangers = strangers.clone();
            let known = memory.tasks.entry(app.clone()).or_default();
            // One that ended in an earlier deployment of its slot tells nothing any more, nor one that was removed.
            known.retain(|_, task| {
                let current = || slots.iter().any(|slot| slot.deployment == task.deployment);
                let errand = task.task.is_some() && !removed.contains(&task.id);
                task.status != Status::Stopped || errand || current()
            });
            let ended = |arn: &String| known.get(arn).is_some_and(|task| task.status == Status::Stopped);
            let still = |task: &KnownTask| task.slot.as_ref().is_some_and(|slot| steady.contains(slot));
            let open = known.iter().filter(|(_, task)| task.status != Status::Stopped && !still(task));
            let open = open.map(|(arn, _)| arn.clone());
            let asked: BTreeSet<String> =
                listed.difference(&strangers).filter(|arn| !ended(arn)).cloned().chain(open).collect();
            asked.into_iter().collect()
        };
        self.describe_tasks(app, arns).await?;
        let mut memory = self.memory();
        memory.searched.extend(searched.iter().map(|slot| (slot.name.clone(), slot.print.clone())));
        if errands {
            memory.errands.insert(app.clone(), Instant::now());
        }
        let known = memory.tasks.entry(app.clone()).or_default();
        let others: Vec<String> = known.extract_if(.., |_, task| !task.may_be_of(app)).map(|(arn, _)| arn).collect();
        memory.strangers.entry(app.clone()).or_default().extend(others);
        Ok(())
    }

    /// Whether there may be something in a slot that has a target.
    pub(crate) fn has_tasks(&self, app: &AppName, slot: &Slot) -> bool {
        let of_slot = |task: &KnownTask| task.slot.as_ref() == Some(&slot.name) && task.status != Status::Stopped;
        slot.running + slot.pending > 0 || self.memory().tasks.get(app).is_some_and(|tasks| tasks.values().any(of_slot))
    }

    /// Whether everything in a slot is as it was when its tasks were looked at, and nothing of it is on its way.
    fn is_steady(&self, app: &AppName, slot: &Slot) -> bool {
        let memory = self.memory();
        if memory.searched.get(&slot.name) != Some(&slot.print) {
            return false;
        }
        let of_slot = |task: &&KnownTask| task.slot.as_ref() == Some(&slot.name) && task.status != Status::Stopped;
        let tasks: Vec<&KnownTask> =
            memory.tasks.get(app).into_iter().flat_map(|tasks| tasks.values()).filter(of_slot).collect();
        let checked = |task: &KnownTask| memory.definitions.get(&task.definition).is_none_or(|known| known.checked);
        let settled = |task: &KnownTask| {
            let healthy = task.health == Some(HealthStatus::Healthy) || !checked(task);
            task.status == Status::Running && task.address.is_some() && healthy
        };
        tasks.len() == slot.desired as usize && tasks.into_iter().all(settled)
    }

    /// The task definitions of what runs.
    async fn definitions(&self, slots: &[Slot], known: &[KnownTask]) -> Result<BTreeMap<String, KnownDefinition>> {
        let running = known.iter().filter(|task| task.status != Status::Stopped && task.task.is_none());
        let of_slots = slots.iter().filter(|slot| !slot.is_idle()).map(|slot| &slot.definition);
        let definitions: BTreeSet<&String> = running.map(|task| &task.definition).chain(of_slots).collect();
        let asked = definitions.into_iter().map(async |definition| {
            let known = self.known_definition(definition).await?;
            Ok::<_, deployer_core::Error>((definition.clone(), known))
        });
        Ok(try_join_all(asked).await?.into_iter().collect())
    }
}

/// A task that is running, or about to, and what became of those whose place it took.
#[derive(Debug)]
struct Seat<'a> {
    task: &'a KnownTask,
    /// When the first one in this place was made, and its id, for those made at once: so the order stays over restarts.
    since: (Timestamp, &'a str),
    crashes: u32,
    /// How the one before ended.
    exit: Option<&'a ExitDetail>,
}

/// The instances of a slot: its tasks, each in the place of the one that it replaces.
fn instances(
    request: &ObserveApp,
    slot: &Slot,
    known: &[KnownTask],
    health: &BTreeMap<String, Vec<TargetHealth>>,
    definitions: &BTreeMap<String, KnownDefinition>,
) -> Vec<ObservedInstance> {
    let of_slot = |task: &&KnownTask| task.slot.as_deref() == Some(&slot.name);
    let mut tasks: Vec<&KnownTask> = known.iter().filter(of_slot).collect();
    tasks.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
    let seats = seats(&tasks, &slot.deployment);
    let (mut living, mut dead): (Vec<Seat<'_>>, Vec<Seat<'_>>) =
        seats.into_iter().partition(|seat| seat.task.status != Status::Stopped && !seat.is_ending());
    let ending: Vec<Seat<'_>> = dead.extract_if(.., |seat| seat.task.status != Status::Stopped).collect();
    // The last that ended stand for what is missing.
    let missing = (slot.desired as usize).saturating_sub(living.len());
    dead.retain(|seat| seat.task.definition == slot.definition);
    dead.sort_by_key(|seat| seat.task.end.as_ref().and_then(|(exit, _)| exit.at));
    living.extend(dead.split_off(dead.len().saturating_sub(missing)));
    living.sort_by_key(|seat| seat.since);
    living.extend(ending);

    let mut ordinals: BTreeMap<RevisionId, u32> = BTreeMap::new();
    let mut found = Vec::new();
    for seat in &living {
        let Some(revision) = revision_of(slot, seat.task) else { continue };
        let ordinal = ordinals.entry(revision.clone()).or_default();
        *ordinal += 1;
        let definition = definitions.get(&seat.task.definition).copied().unwrap_or_default();
        let health = slot.groups.iter().filter_map(|(arn, _)| health.get(arn)).flatten();
        let readiness = request.probe.get(&revision);
        let mut instance = seen(slot, seat, &revision, definition.release, *ordinal);
        judge(&mut instance, seat.task, definition.checked, readiness, (!slot.groups.is_empty()).then_some(health));
        found.push(instance);
    }
    // ECS has taken them, and has not made them yet.
    let ordinal = ordinals.entry(slot.revision.clone()).or_default();
    let definition = definitions.get(&slot.definition).copied().unwrap_or_default();
    while *ordinal < slot.desired {
        *ordinal += 1;
        found.extend(awaited(slot, definition.release, *ordinal));
    }
    found
}

impl Seat<'_> {
    /// Whether it goes because it was asked to.
    fn is_ending(&self) -> bool {
        self.task.status == Status::Stopping && self.task.end.as_ref().is_none_or(|(_, crashed)| !crashed)
    }
}

/// Puts every task in the place of the one that crashed before it.
fn seats<'a>(tasks: &[&'a KnownTask], deployment: &str) -> Vec<Seat<'a>> {
    let mut empty: Vec<Seat<'a>> = Vec::new();
    let mut taken: Vec<Seat<'a>> = Vec::new();
    for task in tasks {
        let mut seat = Seat { task, since: (task.created, &task.id), crashes: 0, exit: None };
        let before = empty.iter().position(|ended| {
            ended.task.definition == task.definition && ended.task.left.is_none_or(|left| left <= task.created)
        });
        if let Some(before) = before.map(|index| empty.remove(index)) {
            (seat.since, seat.crashes) = (before.since, before.crashes);
            seat.exit = before.task.end.as_ref().map(|(exit, _)| exit);
        }
        match &task.end {
            Some((exit, true)) if task.status == Status::Stopped && task.deployment == deployment => {
                seat.crashes += 1;
                seat.exit = Some(exit);
                empty.push(seat);
            }
            _ if task.status == Status::Stopped => {}
            _ => taken.push(seat),
        }
    }
    taken.extend(empty);
    taken
}

fn revision_of(slot: &Slot, task: &KnownTask) -> Option<RevisionId> {
    let hash = naming::revision_of(naming::family_of(&task.definition))?;
    format!("{}@{hash}", slot.service).parse().ok()
}

fn seen(slot: &Slot, seat: &Seat<'_>, revision: &RevisionId, release: ReleaseNumber, ordinal: u32) -> ObservedInstance {
    let task = seat.task;
    let phase = match task.status {
        Status::Pending => InstancePhase::Pending,
        Status::Running => InstancePhase::Running,
        Status::Stopping if seat.is_ending() => InstancePhase::Stopping,
        // ECS starts no other once it has given up.
        _ if slot.given_up.is_some() => InstancePhase::Exited,
        _ => InstancePhase::Restarting,
    };
    let id = InstanceId::new(&task.id).unwrap_or_else(|_| unreachable!("the id of a task is an id"));
    let name = naming::instance(&slot.service, &task.id);
    let mut instance = ObservedInstance::new(id, name, revision.clone(), release, ordinal, phase);
    instance.address.clone_from(&task.address);
    instance.started_at = task.started;
    instance.crashes = seat.crashes;
    instance.exit = seat.exit.cloned();
    instance.image.clone_from(&task.image);
    instance
}

/// An instance that ECS has been asked for and has not made yet.
fn awaited(slot: &Slot, release: ReleaseNumber, ordinal: u32) -> Option<ObservedInstance> {
    let id = InstanceId::new(format!("awaited-{}-{ordinal}", slot.name)).ok()?;
    let name = format!("{}-{ordinal}", slot.service);
    let phase = if slot.given_up.is_some() { InstancePhase::Exited } else { InstancePhase::Pending };
    let mut instance = ObservedInstance::new(id, name, slot.revision.clone(), release, ordinal, phase);
    instance.health_detail = slot.given_up.clone().or_else(|| slot.event.clone());
    Some(instance)
}

/// Says whether an instance is ready: by its own check, and by the load balancer's where it is probed.
fn judge<'a>(
    instance: &mut ObservedInstance,
    task: &KnownTask,
    checked: bool,
    readiness: Option<&Readiness>,
    health: Option<impl Iterator<Item = &'a TargetHealth>>,
) {
    if instance.phase != InstancePhase::Running {
        return;
    }
    let (health, detail) = match task.health {
        Some(HealthStatus::Unhealthy) => (Health::Unhealthy, Some("its own check fails".to_owned())),
        ref other if checked && *other != Some(HealthStatus::Healthy) => {
            (Health::Starting, Some("its own check has not passed yet".to_owned()))
        }
        _ => match health.filter(|_| readiness.is_some_and(|readiness| readiness.probe.is_some())) {
            Some(targets) => by_targets(task, targets),
            None => (Health::Healthy, None),
        },
    };
    instance.health = health;
    instance.health_detail = detail;
}

/// What the load balancer's checks say of an instance: those of all ports that it is registered with.
fn by_targets<'a>(task: &KnownTask, targets: impl Iterator<Item = &'a TargetHealth>) -> (Health, Option<String>) {
    let mut registered = false;
    for target in targets.filter(|target| Some(&target.address) == task.address.as_ref()) {
        registered = true;
        if !target.is_healthy() {
            let health = if target.is_starting() { Health::Starting } else { Health::Unhealthy };
            return (health, Some(target.words()));
        }
    }
    match registered {
        true => (Health::Healthy, None),
        false => (Health::Starting, Some("it is not registered with the load balancer yet".to_owned())),
    }
}

/// A one-off task.
fn errand(task: &KnownTask) -> Option<ObservedTask> {
    let id = TaskId(task.task.clone()?);
    let instance = InstanceId::new(&task.id).ok()?;
    let exit = task.end.as_ref().filter(|_| task.status == Status::Stopped).map(|(exit, _)| exit.clone());
    Some(ObservedTask::new(id, instance, task.started.or(Some(task.created)), exit))
}

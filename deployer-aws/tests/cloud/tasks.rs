//! Task definitions, and tasks from their beginning to their end.

use serde_json::Value;

use super::{Cloud, Line, Tags, arn};

/// How long ECS tells of a task that has stopped.
const REMEMBERED: u64 = 3_600_000;
/// How long a task takes to stop once it was told to.
const STOPPING: u64 = 300;
/// What becomes of a command that is not there.
const NO_PROGRAM: &str = "CannotStartContainerError: exec: \"/nope\": stat /nope: no such file or directory";
/// How long a one-off task runs.
const ERRAND: u64 = 1_000;
/// How long one runs that goes on for minutes.
const LASTING: u64 = 600_000;

#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) arn: String,
    pub(crate) family: String,
    pub(crate) request: Value,
    pub(crate) tags: Tags,
    /// Whether nobody has deregistered it.
    pub(crate) active: bool,
}

impl Definition {
    pub(super) fn containers(&self) -> impl Iterator<Item = &Value> {
        self.request["containerDefinitions"].as_array().into_iter().flatten()
    }

    pub(crate) fn env(&self, name: &str) -> Option<&str> {
        let all = self.containers().filter_map(|container| container["environment"].as_array()).flatten();
        all.filter(|pair| pair["name"] == name).find_map(|pair| pair["value"].as_str())
    }

    /// The first container's image.
    pub(crate) fn image(&self) -> &str {
        self.containers().next().and_then(|container| container["image"].as_str()).unwrap_or_default()
    }

    fn manner(&self) -> Manner {
        match self.env("BROKEN") {
            Some("exit") => Manner::Exits,
            Some("never") => Manner::NeverReady,
            Some("stubborn") => Manner::Stubborn,
            _ => Manner::Serves,
        }
    }
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Serves,
    /// Exits soon after its start.
    Exits,
    NeverReady,
    /// Serves, and does not end when it is told to.
    Stubborn,
    /// Does something and ends with this code.
    Ends(i32),
    /// Goes on for minutes.
    Lasts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Provisioning,
    Pending,
    Running,
    /// Waits until its targets have drained.
    Deactivating,
    /// Was told to end, or has ended.
    Stopping,
    Stopped,
}

#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) definition: String,
    pub(crate) service: Option<String>,
    pub(crate) started_by: String,
    pub(crate) group: String,
    pub(crate) tags: Tags,
    pub(crate) manner: Manner,
    /// Why it cannot be started, if it cannot.
    trouble: Option<String>,
    pub(crate) phase: Phase,
    pub(crate) created: u64,
    pub(crate) started: Option<u64>,
    pub(crate) stopping: Option<u64>,
    pub(crate) stopped: Option<u64>,
    pub(crate) exit: Option<i32>,
    pub(crate) stop_code: &'static str,
    pub(crate) reason: String,
    /// Whether somebody at a console did it.
    pub(crate) by_hand: bool,
    pub(crate) address: String,
    /// When it changes by itself.
    pub(crate) next: Option<u64>,
}

impl Task {
    pub(crate) fn arn(&self) -> String {
        arn("ecs", &format!("task/{}/{}", super::CLUSTER, self.id))
    }

    /// Whether it shall be there.
    pub(crate) fn is_wanted(&self) -> bool {
        self.phase <= Phase::Running
    }

    /// Whether it answers requests.
    pub(crate) fn is_ready(&self, now: u64) -> bool {
        let serves = matches!(self.manner, Manner::Serves | Manner::Stubborn);
        let answers = matches!(self.phase, Phase::Running | Phase::Deactivating) && serves;
        answers && self.started.is_some_and(|started| started + 400 <= now)
    }
}

impl Cloud {
    pub(crate) fn definition(&self, name: &str) -> Option<&Definition> {
        let name = name.rsplit('/').next().unwrap_or(name);
        match name.split_once(':') {
            None => self.definitions.get(name)?.iter().rfind(|definition| definition.active),
            Some((family, number)) => {
                let index = number.parse::<usize>().ok()?.checked_sub(1)?;
                self.definitions.get(family)?.get(index)
            }
        }
    }

    /// The lowest address that no task has: it is used again as soon as it is free.
    fn free_address(&self) -> String {
        let there = self.tasks.values().filter(|task| task.phase != Phase::Stopped);
        let used: std::collections::BTreeSet<&str> = there.map(|task| task.address.as_str()).collect();
        let mut all = (0_u32..60_000).map(|n| format!("10.0.{}.{}", n / 250, n % 250 + 4));
        all.find(|address| !used.contains(address.as_str())).unwrap_or_default()
    }

    pub(super) fn start_task(
        &mut self,
        definition: &str,
        service: Option<&str>,
        started_by: &str,
        group: String,
        tags: Tags,
        command: Option<&str>,
    ) -> String {
        let number = self.next();
        // Ids do not sort by age.
        let id = format!("{:016x}{number:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let full = self.definition(definition);
        let nothing = match command {
            Some(command) => command.starts_with('/'),
            None => full.is_some_and(|definition| definition.env("BROKEN") == Some("nothing")),
        };
        let container = full.and_then(|definition| definition.containers().next());
        let trouble = container.and_then(|container| self.start_trouble(container));
        let trouble = trouble.or_else(|| nothing.then(|| NO_PROGRAM.to_owned()));
        let manner = match command {
            Some("fail") => Manner::Ends(7),
            Some("last") => Manner::Lasts,
            Some(_) => Manner::Ends(0),
            None => full.map_or(Manner::Serves, Definition::manner),
        };
        let task = Task {
            id: id.clone(),
            definition: definition.to_owned(),
            service: service.map(str::to_owned),
            started_by: started_by.to_owned(),
            group,
            tags,
            manner,
            trouble,
            phase: Phase::Provisioning,
            created: self.now,
            started: None,
            stopping: None,
            stopped: None,
            exit: None,
            stop_code: "",
            reason: String::new(),
            by_hand: false,
            address: self.free_address(),
            next: Some(self.now + self.profile.provisioning),
        };
        self.tasks.insert(id.clone(), task);
        if let Some(service) = service {
            self.of_service.entry(service.to_owned()).or_default().push(id.clone());
        }
        id
    }

    /// Lets tasks go on that are due.
    pub(super) fn step_tasks(&mut self) {
        let now = self.now;
        let due: Vec<String> = self
            .tasks
            .values()
            .filter(|task| task.next.is_some_and(|next| next <= now))
            .map(|one| one.id.clone())
            .collect();
        for id in due {
            self.step_task(&id);
        }
    }

    fn step_task(&mut self, id: &str) {
        let (now, pulling) = (self.now, self.profile.pulling);
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.next = None;
        match task.phase {
            Phase::Provisioning => (task.phase, task.next) = (Phase::Pending, Some(now + pulling)),
            Phase::Pending if task.trouble.is_some() => {
                let reason = task.trouble.clone().unwrap_or_default();
                self.exit(id, 127, "TaskFailedToStart", &reason);
            }
            Phase::Pending => {
                (task.phase, task.started) = (Phase::Running, Some(now));
                match task.manner {
                    Manner::Serves | Manner::NeverReady | Manner::Stubborn => {}
                    Manner::Lasts => task.next = Some(now + LASTING),
                    Manner::Exits => task.next = Some(now + 300),
                    Manner::Ends(_) => task.next = Some(now + ERRAND),
                }
                let task = task.clone();
                self.register(&task);
                self.write(&task);
            }
            Phase::Running => {
                let code = match task.manner {
                    Manner::Ends(code) => code,
                    Manner::Lasts => 0,
                    _ => 3,
                };
                self.exit(id, code, "EssentialContainerExited", "Essential container in task exited");
            }
            Phase::Deactivating => {
                self.end(id);
            }
            Phase::Stopping => {
                (task.phase, task.stopped) = (Phase::Stopped, Some(now));
                task.next = Some(now + REMEMBERED);
            }
            Phase::Stopped => {
                self.tasks.remove(id);
                self.of_service.values_mut().for_each(|ids| ids.retain(|known| known != id));
            }
        }
    }

    fn write(&mut self, task: &Task) {
        let Some(definition) = self.definition(&task.definition) else { return };
        let Some(container) = definition.containers().next() else { return };
        let prefix = container["logConfiguration"]["options"]["awslogs-stream-prefix"].as_str().unwrap_or_default();
        let stream = format!("{prefix}/{}/{}", container["name"].as_str().unwrap_or_default(), task.id);
        let text = match task.manner {
            Manner::Exits | Manner::Ends(7) => "FATAL: no database",
            Manner::Ends(_) => "done",
            _ => "ready",
        };
        self.lines.push(Line { stream, at: self.now, text: text.to_owned() });
    }

    /// A task ends at once: it has crashed, or somebody has killed it.
    pub(super) fn exit(&mut self, id: &str, code: i32, stop_code: &'static str, reason: &str) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        (task.stop_code, task.reason) = (stop_code, reason.to_owned());
        task.exit = Some(code).filter(|_| task.started.is_some());
        (task.phase, task.stopping, task.next) = (Phase::Stopping, Some(self.now), Some(self.now + STOPPING));
        let by_hand = task.by_hand;
        self.deregister(id);
        self.cut(id, by_hand);
        self.count_failure(id);
    }

    /// ECS lets a task go: out of rotation first, and told to end when it has drained.
    pub(super) fn retire(&mut self, id: &str, reason: &str) {
        let Some(task) = self.tasks.get_mut(id).filter(|task| task.is_wanted()) else { return };
        (task.stop_code, task.reason) = ("ServiceSchedulerInitiated", reason.to_owned());
        task.stopping = Some(self.now);
        let ran = task.started.is_some();
        let wait = if ran { self.deregister(id) } else { 0 };
        let Some(task) = self.tasks.get_mut(id) else { return };
        if wait > 0 {
            (task.phase, task.next) = (Phase::Deactivating, Some(self.now + wait));
        } else {
            self.end(id);
        }
    }

    /// How long a task may take to end, in milliseconds.
    fn grace_of(&self, task: &Task) -> u64 {
        let container = self.definition(&task.definition).and_then(|definition| definition.containers().next());
        container.and_then(|container| container["stopTimeout"].as_u64()).unwrap_or(30) * 1_000
    }

    /// Tells a task to end. Whatever it was doing it does not finish.
    pub(super) fn end(&mut self, id: &str) {
        let grace = self.tasks.get(id).map_or(0, |task| self.grace_of(task));
        let Some(task) = self.tasks.get_mut(id) else { return };
        let stubborn = task.manner == Manner::Stubborn;
        task.exit = Some(if stubborn { 137 } else { 143 }).filter(|_| task.started.is_some());
        (task.phase, task.next) = (Phase::Stopping, Some(self.now + if stubborn { grace } else { STOPPING }));
        task.stopping = task.stopping.or(Some(self.now));
        let by_hand = task.by_hand;
        self.cut(id, by_hand);
    }

    /// The program of a task is killed, by nobody whom AWS knows.
    pub(crate) fn kill(&mut self, id: &str) {
        if self.tasks.get(id).is_some_and(|task| matches!(task.phase, Phase::Running | Phase::Deactivating)) {
            self.exit(id, 137, "EssentialContainerExited", "Essential container in task exited");
        }
    }

    /// Somebody kills a task at a console.
    pub(crate) fn kill_by_hand(&mut self, id: &str) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.by_hand = true;
        }
        self.mark_killed(id);
        self.exit(id, 137, "UserInitiated", "Task stopped by user");
    }
}

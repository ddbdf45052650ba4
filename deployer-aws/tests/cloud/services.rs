//! ECS services and their scheduler.

use super::tasks::{Phase, Task};
use super::{Cloud, Tags, arn};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Active,
    Draining,
    Inactive,
}

#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) status: Status,
    pub(crate) desired: u32,
    pub(crate) tags: Tags,
    /// The newest first.
    pub(crate) deployments: Vec<Deployment>,
    /// Target group, container and port.
    pub(crate) groups: Vec<(String, String, u16)>,
    /// The registry in which its tasks have a name.
    pub(crate) registry: Option<String>,
    /// How long the load balancer's checks are not held against a task.
    pub(crate) grace: u64,
    pub(crate) created: u64,
    pub(crate) deleted: Option<u64>,
    pub(crate) events: Vec<(u64, String)>,
    /// No task is started before, because the last ones have failed.
    pub(crate) retry: u64,
    /// Failures in a row.
    pub(crate) failures: u32,
}

/// ECS's own kind of deployment.
#[derive(Clone, Debug)]
pub(crate) struct Deployment {
    pub(crate) id: String,
    pub(crate) definition: String,
    pub(crate) created: u64,
    pub(crate) rollout: &'static str,
    pub(crate) reason: String,
    pub(crate) failed: u32,
}

impl Service {
    pub(crate) fn arn(&self) -> String {
        arn("ecs", &format!("service/{}/{}", super::CLUSTER, self.name))
    }

    pub(super) fn next(&self, now: u64) -> Option<u64> {
        let retry = Some(self.retry).filter(|retry| *retry > now && self.status == Status::Active);
        let gone = self.deleted.filter(|_| self.status == Status::Draining);
        retry.into_iter().chain(gone).min()
    }

    pub(super) fn tell(&mut self, now: u64, text: String) {
        self.events.insert(0, (now, format!("(service {}) {text}", self.name)));
        self.events.truncate(100);
    }
}

impl Cloud {
    pub(crate) fn tasks_of<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a Task> {
        let ids = self.of_service.get(service).into_iter().flatten();
        ids.filter_map(|id| self.tasks.get(id))
    }

    /// How many tasks run and how many are on their way.
    pub(super) fn counts(&self, service: &str) -> (usize, usize) {
        let counts = |task: &&Task| {
            task.phase == Phase::Running || (task.phase == Phase::Deactivating && self.profile.draining_counts)
        };
        let running = self.tasks_of(service).filter(counts).count();
        let pending = self.tasks_of(service).filter(|task| task.phase < Phase::Running).count();
        (running, pending)
    }

    pub(super) fn begin_deployment(&mut self, service: &str, definition: String) {
        let deployment = Deployment {
            id: format!("ecs-svc/{:019}", self.next()),
            definition,
            created: self.now,
            rollout: "IN_PROGRESS",
            reason: "ECS deployment in progress.".to_owned(),
            failed: 0,
        };
        if let Some(service) = self.services.get_mut(service) {
            service.deployments.insert(0, deployment);
            (service.retry, service.failures) = (0, 0);
        }
    }

    pub(super) fn step_services(&mut self) {
        let names: Vec<String> = self.services.keys().cloned().collect();
        for name in names {
            match self.services.get(&name).map(|service| service.status) {
                Some(Status::Active) => self.schedule(&name),
                Some(Status::Draining) => self.drain_service(&name),
                _ => {}
            }
        }
    }

    fn drain_service(&mut self, name: &str) {
        let (now, deletion) = (self.now, self.profile.deletion);
        let wanted: Vec<String> =
            self.tasks_of(name).filter(|task| task.is_wanted()).map(|task| task.id.clone()).collect();
        for id in wanted {
            self.retire(&id, "Scaling activity initiated by deletion of the service");
        }
        let left = self.tasks_of(name).any(|task| task.phase < Phase::Stopped);
        let Some(service) = self.services.get_mut(name) else { return };
        match service.deleted {
            _ if left => service.deleted = None,
            None => service.deleted = Some(now + deletion),
            Some(at) if at <= now => service.status = Status::Inactive,
            Some(_) => {}
        }
    }

    /// Starts what is missing and lets go what is too much.
    fn schedule(&mut self, name: &str) {
        let now = self.now;
        let Some(service) = self.services.get(name) else { return };
        let (desired, grace, retry, tags) =
            (service.desired as usize, service.grace, service.retry, service.tags.clone());
        let Some(primary) = service.deployments.first().cloned() else { return };
        // What the load balancer finds unhealthy is replaced.
        let failing: Vec<String> = self
            .tasks_of(name)
            .filter(|task| task.phase == Phase::Running && task.started.is_some_and(|at| at + grace <= now))
            .filter(|task| self.is_unhealthy(task))
            .map(|task| task.id.clone())
            .collect();
        for id in failing {
            self.retire(&id, "Task failed ELB health checks");
            self.count_failure(&id);
        }
        let mut ours: Vec<Task> =
            self.tasks_of(name).filter(|one| one.is_wanted() && one.started_by == primary.id).cloned().collect();
        ours.sort_by_key(|task| (task.phase == Phase::Running, task.created));
        let reason = format!("Scaling activity initiated by (deployment {})", primary.id);
        for task in ours.iter().take(ours.len().saturating_sub(desired)) {
            self.retire(&task.id, &reason);
        }
        let given_up = self
            .services
            .get(name)
            .and_then(|service| service.deployments.first())
            .is_some_and(|d| d.rollout == "FAILED");
        if ours.len() < desired && !given_up && retry <= now {
            for _ in ours.len()..desired {
                let group = format!("service:{name}");
                self.start_task(&primary.definition, Some(name), &primary.id, group, tags.clone(), None);
            }
        }
        self.replace_older(name, &primary, desired);
        let healthy = ours.iter().filter(|task| self.is_healthy(task)).count();
        let alone = self.services.get(name).is_some_and(|service| service.deployments.len() == 1);
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(primary) = service.deployments.first_mut() else { return };
        if primary.rollout == "IN_PROGRESS" && healthy == desired && ours.len() == desired && alone {
            (primary.rollout, primary.reason) = ("COMPLETED", format!("ECS deployment {} completed.", primary.id));
            service.failures = 0;
            service.tell(now, "has reached a steady state.".to_owned());
        }
    }

    /// Lets tasks of earlier deployments go, as far as new ones have taken their place.
    fn replace_older(&mut self, name: &str, primary: &Deployment, desired: usize) {
        let older: Vec<Task> =
            self.tasks_of(name).filter(|one| one.is_wanted() && one.started_by != primary.id).cloned().collect();
        let healthy = self.tasks_of(name).filter(|task| task.is_wanted() && self.is_healthy(task)).count();
        let reason = format!("Scaling activity initiated by (deployment {})", primary.id);
        for task in older.iter().take(healthy.saturating_sub(desired)) {
            self.retire(&task.id, &reason);
        }
        // Those that do not work need no place.
        for task in older {
            if desired == 0 || !self.is_healthy(&task) {
                self.retire(&task.id, &reason);
            }
        }
        let left = self.tasks_of(name).any(|task| task.is_wanted() && task.started_by != primary.id);
        if let Some(service) = self.services.get_mut(name).filter(|_| !left) {
            service.deployments.truncate(1);
        }
    }

    /// A task has failed: ECS waits longer and longer with the next ones, and gives up in the end.
    pub(super) fn count_failure(&mut self, id: &str) {
        let now = self.now;
        let Some(task) = self.tasks.get(id) else { return };
        let (by_hand, started_by, Some(name)) = (task.by_hand, task.started_by.clone(), task.service.clone()) else {
            return;
        };
        let Some(service) = self.services.get_mut(&name) else { return };
        let threshold = service.desired.div_ceil(2).clamp(3, 200);
        let Some(primary) = service.deployments.first_mut().filter(|primary| primary.id == started_by) else { return };
        if by_hand {
            return;
        }
        primary.failed += 1;
        service.failures += 1;
        if primary.rollout == "IN_PROGRESS" && primary.failed >= threshold {
            primary.rollout = "FAILED";
            primary.reason = "ECS deployment circuit breaker: tasks failed to start.".to_owned();
            let id = primary.id.clone();
            service.tell(now, format!("(deployment {id}) deployment failed: tasks failed to start."));
        }
        if service.failures >= 2 {
            let wait = 2_000_u64 << service.failures.min(8);
            service.retry = now + wait;
            service.tell(now, "is unable to consistently start tasks successfully.".to_owned());
        }
    }
}

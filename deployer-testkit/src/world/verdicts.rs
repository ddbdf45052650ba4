//! What tests say of a deployment that has ended: its verdict, its hooks, its journal.

use deployer_core::{Action, DeploymentId, DeploymentRecord, Failure, JournalEvent, State, TaskId, Verdict};

use super::World;

/// Why a deployment failed, for further assertions.
#[derive(Clone, Debug)]
pub struct Cause<'a> {
    world: World,
    failure: &'a Failure,
}

impl Cause<'_> {
    /// Asserts that the failure's text says this: its summary, its evidence (exit codes, the probe's answers, the last
    /// lines written) or its hint.
    ///
    /// # Panics
    /// If it does not, with the whole text and a table of what there is.
    #[track_caller]
    pub fn because(self, reason: &str) -> Self {
        let text = self.failure.to_string();
        assert!(text.contains(reason), "the cause should say {reason:?}, but it is: {text}\n{}", self.world.describe());
        self
    }
}

/// # Assertions about a deployment
impl World {
    /// Asserts that the wanted release serves and that nothing is left over.
    ///
    /// # Panics
    /// If the verdict is another, with a table of what there is.
    #[track_caller]
    pub fn assert_promoted(&self, record: &DeploymentRecord) {
        match &record.verdict {
            Some(Verdict::Promoted { leftovers }) if leftovers.is_empty() => {}
            _ => self.wrong_verdict(record, "promoted"),
        }
    }

    /// Asserts that it failed and that what was there before serves again. Go on with [`Cause::because`].
    ///
    /// # Panics
    /// If the verdict is another, with a table of what there is.
    #[track_caller]
    pub fn assert_rolled_back<'a>(&self, record: &'a DeploymentRecord) -> Cause<'a> {
        match &record.verdict {
            Some(Verdict::RolledBack { cause }) => Cause { world: self.clone(), failure: cause },
            _ => self.wrong_verdict(record, "rolled back"),
        }
    }

    /// Asserts that somebody with this name cancelled it and that what was there before serves again.
    ///
    /// # Panics
    /// If the verdict is another, with a table of what there is.
    #[track_caller]
    pub fn assert_cancelled(&self, record: &DeploymentRecord, by: &str) {
        match &record.verdict {
            Some(Verdict::Cancelled { by: found }) if found == by => {}
            _ => self.wrong_verdict(record, &format!("cancelled by {by}")),
        }
    }

    /// Asserts that the other deployment went on from where it was.
    ///
    /// # Panics
    /// If the verdict is another, with a table of what there is.
    #[track_caller]
    pub fn assert_superseded(&self, record: &DeploymentRecord, by: &DeploymentId) {
        match &record.verdict {
            Some(Verdict::Superseded { by: found }) if found == by.as_str() => {}
            _ => self.wrong_verdict(record, &format!("superseded by {by}")),
        }
    }

    /// Asserts that it failed and that what was there before could not be brought back. Go on with [`Cause::because`].
    ///
    /// # Panics
    /// If the verdict is another, with a table of what there is.
    #[track_caller]
    pub fn assert_needs_attention<'a>(&self, record: &'a DeploymentRecord) -> Cause<'a> {
        match &record.verdict {
            Some(Verdict::NeedsAttention { cause, .. }) => Cause { world: self.clone(), failure: cause },
            _ => self.wrong_verdict(record, "in need of attention"),
        }
    }

    #[track_caller]
    fn wrong_verdict(&self, record: &DeploymentRecord, wanted: &str) -> ! {
        let found =
            record.verdict.as_ref().map_or_else(|| "has no verdict".to_owned(), |verdict| format!("is {verdict}"));
        panic!("{} of {} should be {wanted}, but {found}\n{}", record.kind.word(), record.app, self.describe());
    }

    /// Asserts that a deployment's hook of this name was executed exactly once, in each service that has it, however
    /// often it was begun.
    ///
    /// # Panics
    /// If it was not, or the deployment has no such hook, with a table of what there is.
    #[track_caller]
    pub fn assert_hook_ran_once(&self, record: &DeploymentRecord, hook: &str) {
        let tasks = self.tasks_of(&record.id, hook);
        assert!(!tasks.is_empty(), "no plan of {} has a hook {hook}\n{}", record.id, self.describe());
        for task in tasks {
            let count = self.executions(record.app.as_str(), &task);
            assert!(count == 1, "{task} should have been executed once, but was {count} times\n{}", self.describe());
        }
    }

    /// The tasks by which the plans of a deployment run a hook.
    #[track_caller]
    fn tasks_of(&self, deployment: &DeploymentId, hook: &str) -> Vec<TaskId> {
        let entries = self.store().entries(deployment);
        let entries = entries.unwrap_or_else(|error| panic!("the journal of {deployment} cannot be read: {error}"));
        let plans = entries.iter().filter_map(|entry| match &entry.event {
            JournalEvent::Opened { plan, .. } | JournalEvent::Diverted { plan, .. } => Some(plan),
            _ => None,
        });
        let tasks = plans.flat_map(|plan| &plan.steps).filter_map(|step| match &step.action {
            Action::RunHook { task, hook: planned, .. } if planned.name == hook => Some(task.clone()),
            _ => None,
        });
        tasks.collect()
    }

    /// Asserts that a deployment's journal in the world's [store](World::store) is a legal history, and that its record
    /// says the same.
    ///
    /// # Panics
    /// If an entry may not follow those before it, or the record says something else.
    #[track_caller]
    pub fn assert_journal_legal(&self, record: &DeploymentRecord) {
        let entries = self.store().entries(&record.id);
        let folded = entries.and_then(|entries| State::fold(&entries));
        match folded {
            Ok(state) => assert_eq!(&state.record, record, "the journal of {} says another record", record.id),
            Err(error) => panic!("the journal of {} is no legal history: {error}\n{}", record.id, self.describe()),
        }
    }
}

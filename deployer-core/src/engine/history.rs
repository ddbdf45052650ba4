//! What the records of an application's deployments say: what serves, what was good, what may go.

use std::collections::BTreeSet;

use crate::journal::{DeploymentKind, DeploymentRecord, Verdict};
use crate::model::{ReleaseNumber, Timestamp};

/// An application's deployments, newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(pub(crate) Vec<DeploymentRecord>);

impl History {
    /// The deployment that has no verdict yet.
    pub(crate) fn open(&self) -> Option<&DeploymentRecord> {
        self.0.iter().find(|record| record.verdict.is_none())
    }

    /// Says how the deployment ends that has no verdict yet.
    pub(crate) fn close(&mut self, verdict: Verdict) {
        if let Some(open) = self.0.iter_mut().find(|record| record.verdict.is_none()) {
            open.verdict = Some(verdict);
        }
    }

    /// The release that serves, as far as records can tell: while a deployment is under way, the one before it.
    pub(crate) fn serving(&self) -> Option<ReleaseNumber> {
        let newest = self.0.first()?;
        if newest.verdict.is_some() { newest.serving() } else { newest.baseline }
    }

    /// The deployment that brought what serves; not one that found it serving already.
    pub(crate) fn promoted(&self) -> Option<&DeploymentRecord> {
        let serving = self.serving()?;
        let brought = |record: &&DeploymentRecord| record.target == Some(serving) && record.baseline != Some(serving);
        self.0.iter().find(|record| is_promoted(record) && brought(record))
    }

    /// Releases that were promoted and not rolled back from since, newest promotion first.
    pub(crate) fn good(&self) -> Vec<ReleaseNumber> {
        let mut good = Vec::new();
        let mut judged = BTreeSet::new();
        for record in self.0.iter().filter(|record| is_promoted(record)) {
            if let Some(target) = record.target
                && judged.insert(target)
            {
                good.push(target);
            }
            if let DeploymentKind::Rollback { from: Some(from) } = record.kind {
                judged.insert(from);
            }
        }
        good
    }

    /// The release that a rollback goes to unless one is named: from the middle of a deployment what served before it, else the
    /// last known good one. What was cut short in favour of a deployment that never began is the middle of one too.
    pub(crate) fn way_back(&self) -> Option<ReleaseNumber> {
        let midway = self.0.first().is_some_and(|newest| matches!(newest.verdict, Some(Verdict::Superseded { .. })));
        self.serving().filter(|_| midway).or_else(|| self.last_known_good())
    }

    /// The newest good release but the one that serves.
    pub(crate) fn last_known_good(&self) -> Option<ReleaseNumber> {
        let serving = self.serving();
        self.good().into_iter().find(|release| Some(*release) != serving)
    }

    /// The release whose revisions were left without traffic by the last promotion, and since when.
    pub(crate) fn standby(&self) -> Option<(ReleaseNumber, Timestamp)> {
        let promoted = self.promoted()?;
        Some((promoted.baseline?, promoted.finished_at?))
    }
}

fn is_promoted(record: &DeploymentRecord) -> bool {
    record.verdict.as_ref().is_some_and(Verdict::is_promoted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Failure;
    use crate::model::{AppName, DeploymentId};

    fn record(kind: DeploymentKind, target: u64, baseline: u64, promoted: bool) -> DeploymentRecord {
        let number = |number| (number > 0).then_some(ReleaseNumber(number));
        let cause = Box::new(Failure::new("launch", crate::ErrorKind::Workload, "it crashes"));
        DeploymentRecord {
            id: DeploymentId::new("d").unwrap(),
            app: AppName::new("shop").unwrap(),
            kind,
            target: number(target),
            baseline: number(baseline),
            owner: String::new(),
            started_at: Timestamp::default(),
            finished_at: Some(Timestamp::default()),
            verdict: Some(if promoted {
                Verdict::Promoted { leftovers: Vec::new() }
            } else {
                Verdict::RolledBack { cause }
            }),
            last_seq: 1,
        }
    }

    #[test]
    fn a_release_that_was_rolled_back_from_is_not_good() {
        let deploy = DeploymentKind::Deploy;
        let mut records = vec![record(deploy, 1, 0, true)];
        let history = |records: &Vec<DeploymentRecord>| History(records.iter().rev().cloned().collect());
        assert_eq!(history(&records).last_known_good(), None);

        records.push(record(deploy, 2, 1, true));
        records.push(record(deploy, 3, 2, false));
        assert_eq!(history(&records).serving(), Some(ReleaseNumber(2)));
        assert_eq!(history(&records).last_known_good(), Some(ReleaseNumber(1)));

        records.push(record(DeploymentKind::Rollback { from: Some(ReleaseNumber(2)) }, 1, 2, true));
        assert_eq!(history(&records).serving(), Some(ReleaseNumber(1)));
        assert_eq!(history(&records).last_known_good(), None, "v2 was found wanting, v3 never served");

        records.push(record(deploy, 4, 1, true));
        assert_eq!(history(&records).last_known_good(), Some(ReleaseNumber(1)));
        assert_eq!(history(&records).good(), [ReleaseNumber(4), ReleaseNumber(1)]);
    }
}

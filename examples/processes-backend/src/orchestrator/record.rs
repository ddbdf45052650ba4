//! What is written down about an instance or task when it is made.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

use deployer_core::{AppName, Digest, InstanceId, ReleaseNumber, RevisionId, ServiceName, TaskId};
use serde::{Deserialize, Serialize};

use crate::files::{self, Durable};
use crate::keeper::Kept;
use crate::layout::Layout;

/// Which instance or task it is. Never changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: InstanceId,
    pub(super) name: String,
    pub(super) service: ServiceName,
    pub(super) role: Role,
    pub(super) release: ReleaseNumber,
    pub(super) image: Digest,
    pub(super) address: Ipv4Addr,
    /// Whether it is checked from inside.
    pub(super) checked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    Instance { revision: RevisionId, ordinal: u32 },
    Task { task: TaskId },
}

/// An instance or task that is there.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) record: Record,
    pub(super) kept: Kept,
}

const RECORD: &str = "instance.json";
/// There once somebody has begun to stop it for good.
const CONDEMNED: &str = "condemned";

impl Found {
    pub(super) fn write(record: Record, kept: Kept) -> io::Result<Self> {
        files::replace(&kept.directory().join(RECORD), &record, Durable::No)?;
        Ok(Self { record, kept })
    }

    /// The ordinal if it is an instance of this revision.
    pub(super) fn ordinal_in(&self, wanted: &RevisionId) -> Option<u32> {
        match &self.record.role {
            Role::Instance { revision, ordinal } if revision == wanted => Some(*ordinal),
            _ => None,
        }
    }

    pub(super) fn is_task(&self, wanted: &TaskId) -> bool {
        matches!(&self.record.role, Role::Task { task } if task == wanted)
    }

    /// Says that it is to be stopped and removed, before that is begun: whoever comes after a deployer that was killed
    /// knows it for one that is going, and not for one that has crashed.
    pub(super) fn condemn(&self) -> io::Result<()> {
        std::fs::write(self.kept.directory().join(CONDEMNED), "")
    }

    pub(super) fn is_condemned(&self) -> io::Result<bool> {
        self.kept.directory().join(CONDEMNED).try_exists()
    }
}

/// Everything that is there of an application.
pub(super) fn all(layout: &Layout, app: &AppName) -> io::Result<Vec<Found>> {
    let directory = layout.instances(app);
    let mut found = Vec::new();
    for name in files::names(&directory)? {
        let kept = Kept::new(directory.join(name));
        // It may be removed while we look.
        if let Some(record) = files::read(&kept.directory().join(RECORD))? {
            found.push(Found { record, kept });
        }
    }
    Ok(found)
}

/// The instances of a revision by rising ordinal.
pub(super) fn of_revision(layout: &Layout, app: &AppName, revision: &RevisionId) -> io::Result<Vec<(u32, Found)>> {
    let found = all(layout, app)?.into_iter();
    let mut found: Vec<_> = found.filter_map(|found| Some((found.ordinal_in(revision)?, found))).collect();
    found.sort_by_key(|(ordinal, _)| *ordinal);
    Ok(found)
}

/// The images that instances and tasks of any application run.
pub(crate) fn images_in_use(layout: &Layout) -> io::Result<BTreeSet<Digest>> {
    let mut images = BTreeSet::new();
    for name in files::names(&layout.apps())? {
        let Ok(app) = AppName::new(name) else { continue };
        images.extend(all(layout, &app)?.into_iter().map(|found| found.record.image));
    }
    Ok(images)
}

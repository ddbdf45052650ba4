//! Releases.

use std::fs;
use std::path::{Path, PathBuf};

use deployer_core::{Error, ErrorKind, Release, ReleaseNumber, ReleaseQuery, Result};
use serde::Deserialize;

use super::Books;
use crate::failure::io;
use crate::files::{self, Durable};

/// What can be read of every stored form.
#[derive(Deserialize)]
struct Format {
    format: u16,
}

impl Books {
    pub(super) fn put_release(&self, mut release: Release, fence: u64) -> Result<Release> {
        let mut page = self.check_fence(fence)?;
        if let Some(newest) = self.numbers()?.last()
            && let Some(newest) = self.release(*newest)?
            && newest.content_hash() == release.content_hash()
        {
            return Ok(newest);
        }
        page.last_release += 1;
        release.number = ReleaseNumber(page.last_release);
        // In this order: a process that is killed in between leaves a file that the next release replaces, and no gap.
        let written = files::replace(&self.release_file(release.number), &release, Durable::Yes);
        written.map_err(io("write the release"))?;
        self.write(page)?;
        Ok(release)
    }

    pub(super) fn release(&self, number: ReleaseNumber) -> Result<Option<Release>> {
        // A number that was not given yet is a file that a killed process left.
        if number.0 > self.page()?.last_release {
            return Ok(None);
        }
        let path = self.release_file(number);
        let Some(text) = files::absent(fs::read(&path)).map_err(io("read the release"))? else { return Ok(None) };
        let unreadable = |error: serde_json::Error| {
            Error::new(ErrorKind::Corrupt, format!("release {number} cannot be read"))
                .with_resource(self.app.as_str())
                .with_source(error)
        };
        let Format { format } = serde_json::from_slice(&text).map_err(unreadable)?;
        if format > Release::FORMAT {
            return Err(unreadable(serde::de::Error::custom("a newer program has written it")));
        }
        serde_json::from_slice(&text).map(Some).map_err(unreadable)
    }

    pub(super) fn releases(&self, query: &ReleaseQuery) -> Result<Vec<Release>> {
        let numbers = self.numbers()?.into_iter().rev();
        let wanted = numbers.filter(|number| query.before.is_none_or(|before| *number < before));
        wanted.take(query.limit as usize).filter_map(|number| self.release(number).transpose()).collect()
    }

    pub(super) fn remove_releases(&self, numbers: &[ReleaseNumber], fence: u64) -> Result<()> {
        self.check_fence(fence)?;
        for number in numbers {
            files::absent(fs::remove_file(self.release_file(*number))).map_err(io("remove a release"))?;
        }
        sync(&self.directory.join("releases"))
    }

    /// Whether an application has anything that would be worth listing.
    pub(super) fn is_known(directory: &Path) -> bool {
        ["releases", "journals"]
            .iter()
            .any(|kind| files::names(&directory.join(kind)).is_ok_and(|names| !names.is_empty()))
    }

    pub(super) fn forget(&self, fence: u64) -> Result<()> {
        self.check_fence(fence)?;
        for kind in ["releases", "journals", "signals"] {
            files::remove_tree(&self.directory.join(kind)).map_err(io("forget the application"))?;
        }
        sync(&self.directory)
    }

    /// The numbers of the releases that are kept, rising.
    fn numbers(&self) -> Result<Vec<ReleaseNumber>> {
        let last = self.page()?.last_release;
        let names = files::names(&self.directory.join("releases")).map_err(io("list the releases"))?;
        let numbers = names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok());
        let mut numbers: Vec<u64> = numbers.filter(|number| *number <= last).collect();
        numbers.sort_unstable();
        Ok(numbers.into_iter().map(ReleaseNumber).collect())
    }

    fn release_file(&self, number: ReleaseNumber) -> PathBuf {
        self.directory.join("releases").join(format!("{}.json", number.0))
    }
}

fn sync(directory: &Path) -> Result<()> {
    let synced = files::absent(files::sync_directory(directory));
    synced.map_err(io("make sure that what was removed stays so")).map(|_| ())
}

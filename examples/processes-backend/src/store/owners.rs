//! Tells whether the owner of a lease still lives: whoever was granted one holds a lock on a file, which the system takes
//! away when the process ends, however it ends.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use deployer_core::Digest;

use crate::files;

/// The owners that this handle of the store speaks for.
#[derive(Debug)]
pub(super) struct Owners {
    directory: PathBuf,
    held: HashMap<String, File>,
}

impl Owners {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, held: HashMap::new() }
    }

    /// Shows that an owner lives.
    pub(super) fn hold(&mut self, owner_id: &str) -> io::Result<()> {
        if self.held.contains_key(owner_id) {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        let _turn = self.turn()?;
        // If another handle holds it, that one speaks for the same owner.
        if let Some(file) = files::try_lock(&self.path(owner_id))? {
            self.held.insert(owner_id.to_owned(), file);
        }
        Ok(())
    }

    /// Whether nobody speaks for this owner any more.
    pub(super) fn is_dead(&self, owner_id: &str) -> io::Result<bool> {
        if self.held.contains_key(owner_id) {
            return Ok(false);
        }
        fs::create_dir_all(&self.directory)?;
        let _turn = self.turn()?;
        Ok(!files::is_locked(&self.path(owner_id))?)
    }

    /// Speaks for an owner no more: it has nothing to lose.
    pub(super) fn let_go(&mut self, owner_id: &str) {
        if self.held.remove(owner_id).is_some() {
            // Best effort: an empty file that stays says the same.
            let _ = fs::remove_file(self.path(owner_id));
        }
    }

    /// Looking takes the lock for a moment: without turns, an owner could be kept from taking its own.
    fn turn(&self) -> io::Result<File> {
        files::lock(&self.directory.join(".turn"))
    }

    /// An owner's name is anything, a file's is not.
    fn path(&self, owner_id: &str) -> PathBuf {
        self.directory.join(Digest::of(owner_id.as_bytes()).as_str().replace(':', "-"))
    }
}

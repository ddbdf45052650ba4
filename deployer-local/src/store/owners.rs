//! Tells whether the owner of a lease still lives: each holds an operating system lock on a file of its own, and the
//! system lets go of it when the process ends, however it ends.
//!
//! Files are made, probed and swept only inside a write transaction of the database, so that no two processes do it at
//! the same time.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use deployer_core::Digest;

/// The owners whose locks this handle of the store holds.
#[derive(Debug)]
pub(super) struct Owners {
    directory: PathBuf,
    held: HashMap<String, File>,
}

impl Owners {
    /// The locks beside this database.
    pub(super) fn beside(database: &Path) -> Self {
        let mut directory = OsString::from(database);
        directory.push(".owners");
        Self { directory: PathBuf::from(directory), held: HashMap::new() }
    }

    /// Keeps others from preparing the database until the file is dropped. Blocks.
    pub(super) fn lock_opening(&self) -> io::Result<File> {
        fs::create_dir_all(&self.directory)?;
        let file = open(&self.directory.join(".opening"))?;
        file.lock()?;
        Ok(file)
    }

    /// Takes the lock of an owner of this process, unless it is held already, and sweeps what dead ones left.
    pub(super) fn hold(&mut self, owner_id: &str) -> io::Result<()> {
        if self.held.contains_key(owner_id) {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        self.sweep()?;
        let file = open(&self.path(owner_id))?;
        match file.try_lock() {
            Ok(()) => {
                self.held.insert(owner_id.to_owned(), file);
                Ok(())
            }
            // Another handle speaks for the same owner and holds it: it lives.
            Err(TryLockError::WouldBlock) => Ok(()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether nobody holds the lock of this owner any more.
    pub(super) fn is_dead(&self, owner_id: &str) -> io::Result<bool> {
        if self.held.contains_key(owner_id) {
            return Ok(false);
        }
        is_free(&self.path(owner_id))
    }

    fn sweep(&self) -> io::Result<()> {
        for file in fs::read_dir(&self.directory)? {
            let file = file?;
            if !file.file_name().to_string_lossy().starts_with('.') && is_free(&file.path())? {
                remove(&file.path())?;
            }
        }
        Ok(())
    }

    fn path(&self, owner_id: &str) -> PathBuf {
        let plain = !owner_id.is_empty()
            && owner_id.len() <= 100
            && !owner_id.starts_with('.')
            && owner_id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if plain {
            self.directory.join(owner_id)
        } else {
            self.directory.join(Digest::of(owner_id.as_bytes()).as_str().replace(':', "-"))
        }
    }
}

impl Drop for Owners {
    fn drop(&mut self) {
        for owner_id in self.held.keys() {
            // Best effort: what stays is swept by the next owner.
            let _ = fs::remove_file(self.path(owner_id));
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

fn is_free(path: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_live_as_long_as_their_handle() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("db");
        let (mut first, second) = (Owners::beside(&database), Owners::beside(&database));
        assert!(second.is_dead("one").unwrap());
        first.hold("one").unwrap();
        assert!(!second.is_dead("one").unwrap());
        assert!(!first.is_dead("one").unwrap());
        drop(first);
        assert!(second.is_dead("one").unwrap());
        assert!(!second.path("one").exists());
    }

    #[test]
    fn a_second_handle_of_an_owner_does_not_end_it() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("db");
        let (mut first, mut second) = (Owners::beside(&database), Owners::beside(&database));
        first.hold("one").unwrap();
        second.hold("one").unwrap();
        drop(second);
        assert!(!Owners::beside(&database).is_dead("one").unwrap());
    }

    #[test]
    fn what_dead_owners_left_is_swept_and_the_living_stay() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("db");
        let mut owners = Owners::beside(&database);
        owners.hold("living").unwrap();
        fs::write(owners.path("dead"), "").unwrap();
        Owners::beside(&database).hold("new").unwrap();
        assert!(!owners.path("dead").exists());
        assert!(owners.path("living").exists());
    }

    #[test]
    fn ids_do_not_leave_the_directory() {
        let owners = Owners::beside(Path::new("db"));
        for id in ["../x", ".opening", "", "a/b", &"x".repeat(300)] {
            assert_eq!(owners.path(id).parent(), Some(Path::new("db.owners")), "{id}");
            assert!(owners.path(id).file_name().unwrap().to_string_lossy().starts_with("sha256-"), "{id}");
        }
        assert_eq!(owners.path("a-1.b_2"), Path::new("db.owners/a-1.b_2"));
    }
}

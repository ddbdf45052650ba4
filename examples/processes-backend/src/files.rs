//! Files that several processes read and write: replaced in one step, locked by the operating system.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Whether what is written must be there after the machine lost its power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    /// It must.
    Yes,
    /// It says something about processes, which are gone then as well.
    No,
}

/// Replaces a file: readers see the old content or the new one, never a part.
pub(crate) fn replace<T: Serialize>(path: &Path, value: &T, durable: Durable) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    // Another writer may be at it at the same moment: each has a file of its own.
    let temporary = path.with_extension(format!("new-{}", unique()));
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        if durable == Durable::Yes {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    } else if durable == Durable::Yes {
        sync_directory(directory)?;
    }
    written
}

/// Makes what was created, renamed or removed in a directory stay so after a loss of power.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Reads a file, if it is there.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match absent(fs::read(path))? {
        Some(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::from),
        None => Ok(None),
    }
}

/// Makes an answer of "there is no such file".
pub(crate) fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        // The second one: a directory was replaced by a file, or the other way round, while we looked.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names in a directory, in order; none if it is not there. Those that begin with a dot are being made or removed.
pub(crate) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let Some(entries) = absent(fs::read_dir(directory))? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Waits for a lock, which is held until the file is dropped or its process ends, however it ends. Blocks.
pub(crate) fn lock(path: &Path) -> io::Result<File> {
    loop {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let Some(file) = absent(open(path))? else { continue };
        file.lock()?;
        if is_still_there(&file, path)? {
            return Ok(file);
        }
    }
}

/// Takes a lock if nobody holds it.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Whether somebody holds the lock.
pub(crate) fn is_locked(path: &Path) -> io::Result<bool> {
    let Some(file) = absent(OpenOptions::new().read(true).open(path))? else { return Ok(false) };
    // Shared, so that two who look do not mistake each other for a holder.
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(fs::TryLockError::WouldBlock) => Ok(true),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
}

/// Whether nobody has removed the file, directory and all, while we waited for its lock.
fn is_still_there(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let Some(now) = absent(fs::metadata(path))? else { return Ok(false) };
    let ours = file.metadata()?;
    Ok((ours.dev(), ours.ino()) == (now.dev(), now.ino()))
}

/// Removes a directory with everything in it, in one step for those who look.
pub(crate) fn remove_tree(directory: &Path) -> io::Result<bool> {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else { return Ok(false) };
    let hidden = parent.join(format!(".old-{}-{}", name.to_string_lossy(), unique()));
    if absent(fs::rename(directory, &hidden))?.is_none() {
        return Ok(false);
    }
    // Programs may have made directories that even their owner may not write to; that stays in the way of nobody.
    absent(fs::remove_dir_all(&hidden))?;
    Ok(true)
}

/// Copies a directory with everything in it. Symbolic links stay what they are.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
        } else {
            let what = format!("{} is neither a file, a directory nor a link", entry.path().display());
            return Err(io::Error::new(ErrorKind::InvalidInput, what));
        }
    }
    Ok(())
}

/// Twelve digits that no other call has, in this process or another.
pub(crate) fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now();
    let seed = (now, std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed));
    deployer_core::Digest::of(format!("{seed:?}").as_bytes()).short().to_owned()
}

//! The archive: equal files make equal bytes, whoever owns them and whenever they were written, so that the builder's
//! cache holds. It is read from the disk while it is sent.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use deployer_core::{Error, ErrorKind, Result};
use futures_core::Stream;
use futures_util::stream;
use hyper::body::Bytes;
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;

use super::{BuildContext, Item, Kind, unreadable};

/// How much is read at a time, and a quarter of what waits to be sent at most.
const CHUNK_BYTES: usize = 128 * 1024;

/// Why the archive was not sent to its end, if the reason is on this side.
#[derive(Clone, Debug, Default)]
pub(crate) struct SendFailure(Arc<Mutex<Option<Error>>>);

impl SendFailure {
    /// The reason, once.
    pub(crate) fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, error: Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

impl BuildContext {
    /// The archive in pieces. Reading ends when the stream is dropped.
    pub(crate) fn stream(
        self: &Arc<Self>,
    ) -> (impl Stream<Item = io::Result<Bytes>> + Send + 'static + use<>, SendFailure) {
        let (sender, receiver) = mpsc::channel(4);
        let failure = SendFailure::default();
        let (context, reason) = (Arc::clone(self), failure.clone());
        tokio::task::spawn_blocking(move || {
            let mut to = BufWriter::with_capacity(CHUNK_BYTES, Sender(&sender));
            let done = context.write(&mut to).and_then(|()| to.flush().map_err(Stop::Writing));
            // What is buffered must not be sent after a failure.
            let (_, _) = to.into_parts();
            let error = match done {
                Ok(()) => return,
                Err(Stop::Reading(error)) => error,
                // Whoever took it has gone, and knows why.
                Err(Stop::Writing(error)) if error.kind() == io::ErrorKind::BrokenPipe => return,
                Err(Stop::Writing(error)) => {
                    Error::new(ErrorKind::InvalidInput, "the build context cannot be packed").with_source(error)
                }
            };
            reason.set(error);
            // The request must not look complete.
            let _ = sender.blocking_send(Err(io::Error::other("the build context could not be read")));
        });
        (stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|chunk| (chunk, receiver))), failure)
    }

    /// Writes the archive. Blocks.
    fn write(&self, to: impl Write) -> Result<(), Stop> {
        let mut archive = Builder::new(to);
        for item in &self.items {
            append(&mut archive, item)?;
        }
        if let Some(text) = &self.own_dockerfile {
            let mut header = header(EntryType::Regular, 0o644, text.len() as u64);
            archive.append_data(&mut header, &self.dockerfile, text.as_bytes()).map_err(Stop::Writing)?;
        }
        archive.finish().map_err(Stop::Writing)
    }
}

struct Sender<'a>(&'a mpsc::Sender<io::Result<Bytes>>);

impl Write for Sender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
enum Stop {
    /// A file cannot be read.
    Reading(Error),
    /// Nobody takes the archive any more, or a file does not fit into one.
    Writing(io::Error),
}

fn append(archive: &mut Builder<impl Write>, item: &Item) -> Result<(), Stop> {
    let failed = |error| Stop::Reading(unreadable("a file of the build context cannot be read", &item.path, error));
    match item.kind {
        Kind::Directory => {
            let mode = mode(&fs::metadata(&item.path).map_err(failed)?, 0o755);
            let mut header = header(EntryType::Directory, mode, 0);
            archive.append_data(&mut header, format!("{}/", item.name), io::empty()).map_err(Stop::Writing)
        }
        Kind::Link => {
            let target = fs::read_link(&item.path).map_err(failed)?;
            let mut header = header(EntryType::Symlink, 0o777, 0);
            archive.append_link(&mut header, &item.name, target).map_err(Stop::Writing)
        }
        Kind::File => {
            let file = File::open(&item.path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            let mut header = header(EntryType::Regular, mode(&metadata, 0o644), metadata.len());
            // The header has promised a size, so a file that changes meanwhile must not break the archive.
            let mut content = Exactly { file: file.take(metadata.len()), path: &item.path, failed: None };
            let result = archive.append_data(&mut header, &item.name, &mut content);
            match (result, content.failed, content.file.limit()) {
                (_, Some(error), _) => Err(failed(error)),
                (Err(error), None, _) => Err(Stop::Writing(error)),
                (Ok(()), None, 0) => Ok(()),
                (Ok(()), None, _) => Err(failed(io::Error::other("it became shorter while it was read"))),
            }
        }
    }
}

/// Tells a failure to read from one to write, which `tar` does not.
struct Exactly<'a> {
    file: io::Take<File>,
    path: &'a Path,
    failed: Option<io::Error>,
}

impl io::Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer).map_err(|error| {
            let shown = io::Error::new(error.kind(), self.path.display().to_string());
            self.failed = Some(error);
            shown
        })
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(unix)]
fn mode(metadata: &Metadata, _: u32) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o7777
}

#[cfg(not(unix))]
fn mode(_: &Metadata, usual: u32) -> u32 {
    usual
}

//! What a program writes: read from two pipes with names, written down line by line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use deployer_core::{OutputStream, Timestamp};
use rustix::fs::{CWD, Mode};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::unix::pipe::{self, Receiver};

use crate::files::absent;

/// A file of this size is put aside, and the one that was put aside before is gone.
const ROTATE_BYTES: u64 = 4 << 20;
/// A longer line is cut into several.
const LINE_BYTES: usize = 16 << 10;

/// One line of a program's output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) at: Timestamp,
    pub(crate) stream: OutputStream,
    pub(crate) text: String,
}

/// All lines that are kept, oldest first.
pub(super) fn read(directory: &Path) -> io::Result<Vec<Written>> {
    let mut lines = Vec::new();
    for name in [OLD, CURRENT] {
        let Some(text) = absent(fs::read(directory.join(name)))? else { continue };
        // The last line may be half written.
        lines.extend(text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()));
    }
    Ok(lines)
}

const CURRENT: &str = "output.jsonl";
const OLD: &str = "output.1.jsonl";

/// The reading ends of a program's two pipes.
#[derive(Debug)]
pub(super) struct Output {
    directory: PathBuf,
    pipes: [Pipe; 2],
    file: File,
    size: u64,
}

#[derive(Debug)]
struct Pipe {
    stream: OutputStream,
    receiver: Receiver,
    begun: Vec<u8>,
}

impl Output {
    /// Opens the pipes, and makes them first if need be.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let pipe = |stream, name: &str| {
            let path = directory.join(name);
            match rustix::fs::mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR) {
                Err(error) if error != rustix::io::Errno::EXIST => return Err(error.into()),
                _ => {}
            }
            // For writing as well: so there is always a writer, and what the program leaves behind is not lost.
            let receiver = pipe::OpenOptions::new().read_write(true).open_receiver(&path)?;
            io::Result::Ok(Pipe { stream, receiver, begun: Vec::new() })
        };
        let pipes = [pipe(OutputStream::Stdout, "stdout")?, pipe(OutputStream::Stderr, "stderr")?];
        let (file, size) = open(directory)?;
        Ok(Self { directory: directory.to_owned(), pipes, file, size })
    }

    /// What the program gets as its standard output or error. For reading as well: so it is never told that nobody
    /// listens, and waits for the next keeper if it writes more than the pipe holds.
    pub(super) fn writer(directory: &Path, stream: OutputStream) -> io::Result<File> {
        let name = match stream {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        };
        OpenOptions::new().read(true).write(true).open(directory.join(name))
    }

    /// Waits for output and writes it down. Cancel safe.
    pub(super) async fn pump(&mut self) -> io::Result<()> {
        let [out, err] = &self.pipes;
        tokio::select! {
            ready = out.receiver.ready(Interest::READABLE) => ready?,
            ready = err.receiver.ready(Interest::READABLE) => ready?,
        };
        self.take(false)
    }

    /// Writes down what is left in the pipes, unfinished lines too.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        self.take(true)
    }

    fn take(&mut self, to_the_end: bool) -> io::Result<()> {
        let mut lines = Vec::new();
        for pipe in &mut self.pipes {
            loop {
                let mut buffer = [0; 8 << 10];
                match pipe.receiver.try_read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => pipe.begun.extend_from_slice(&buffer[..count]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
                pipe.split(&mut lines);
            }
            if to_the_end && !pipe.begun.is_empty() {
                pipe.begun.push(b'\n');
                pipe.split(&mut lines);
            }
        }
        self.write(&lines)
    }

    fn write(&mut self, lines: &[Written]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        if self.size + text.len() as u64 > ROTATE_BYTES {
            fs::rename(self.directory.join(CURRENT), self.directory.join(OLD))?;
            (self.file, self.size) = open(&self.directory)?;
        }
        self.size += text.len() as u64;
        self.file.write_all(&text)
    }
}

impl Pipe {
    /// Moves every line that is complete.
    fn split(&mut self, lines: &mut Vec<Written>) {
        let at = Timestamp::from_system(SystemTime::now());
        loop {
            let end = self.begun.iter().position(|byte| *byte == b'\n');
            let (end, next) = match end {
                Some(end) if end <= LINE_BYTES => (end, end + 1),
                None if self.begun.len() <= LINE_BYTES => return,
                _ => (LINE_BYTES, LINE_BYTES),
            };
            let line: Vec<u8> = self.begun.drain(..next).take(end).collect();
            let text = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            lines.push(Written { at, stream: self.stream, text });
        }
    }
}

fn open(directory: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(directory.join(CURRENT))?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

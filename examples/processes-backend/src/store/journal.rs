//! Journals, the records of their deployments, and signals.

use std::fs::{self, File, OpenOptions};
use std::io::{self as std_io, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use deployer_core::{
    Append, DeploymentId, DeploymentQuery, DeploymentRecord, Entry, Error, ErrorKind, Result, Retry, SendSignal, Signal,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Books;
use crate::failure::io;
use crate::files;

/// One append: one line. So record and entries are there together, or neither is.
#[derive(Serialize)]
struct Line<'a> {
    record: &'a DeploymentRecord,
    entries: &'a [Entry],
}

/// A line that is read. Which entries somebody wants is known before each of them is looked into.
#[derive(Deserialize)]
struct Read {
    record: DeploymentRecord,
    entries: Vec<Value>,
}

pub(super) fn file(app: &Path, deployment: &DeploymentId) -> PathBuf {
    app.join("journals").join(format!("{deployment}.jsonl"))
}

impl Books {
    pub(super) fn append(&self, request: &Append) -> Result<()> {
        let Append { record, fence, entries, .. } = request;
        self.check_fence(*fence)?;
        let path = file(&self.directory, &record.id);
        let next = last_record(&path, &record.id)?.map_or(0, |record| record.last_seq) + 1;
        let refused = |kind, message: &'static str| {
            let error = Error::new(kind, message).with_resource(record.id.as_str());
            error.with_context("next number", next.to_string()).with_retry(Retry::Never)
        };
        let mut seq = next;
        for (index, entry) in entries.iter().enumerate() {
            if entry.seq != seq {
                return Err(match index {
                    0 => refused(ErrorKind::Conflict, "the journal has moved on"),
                    _ => refused(ErrorKind::InvalidInput, "the entries are not numbered without gaps"),
                });
            }
            seq += 1;
        }
        if record.last_seq != seq - 1 {
            return Err(refused(ErrorKind::InvalidInput, "the record does not name the last entry"));
        }
        if next == 1 {
            append_line(&self.opened(), &record.id).map_err(io("note that the journal is opened"))?;
        }
        append_line(&path, &Line { record, entries }).map_err(io("append to the journal"))
    }

    /// Where the deployments are listed in the order in which their journals were opened.
    fn opened(&self) -> PathBuf {
        self.directory.join("opened.jsonl")
    }

    pub(super) fn journal(&self, deployment: &DeploymentId, from: u64) -> Result<Vec<Entry>> {
        let lines = complete_lines(&file(&self.directory, deployment)).map_err(io("read the journal"))?;
        let unreadable = |error| corrupt("an entry", deployment).with_source(error);
        let mut wanted = Vec::new();
        for line in lines {
            let Read { record, entries } = serde_json::from_slice(&line).map_err(unreadable)?;
            let first = (record.last_seq + 1).saturating_sub(entries.len() as u64);
            for (_, entry) in (first..).zip(entries).filter(|(seq, _)| *seq >= from) {
                if entry["format"].as_u64() > Some(Entry::FORMAT.into()) {
                    return Err(unreadable(serde::de::Error::custom("a newer program has written it")));
                }
                wanted.push(serde_json::from_value(entry).map_err(unreadable)?);
            }
        }
        Ok(wanted)
    }

    pub(super) fn deployments(&self, query: &DeploymentQuery) -> Result<Vec<DeploymentRecord>> {
        let lines = complete_lines(&self.opened()).map_err(io("list the deployments"))?;
        let mut ids: Vec<DeploymentId> =
            lines.iter().rev().filter_map(|line| serde_json::from_slice(line).ok()).collect();
        // One whose process was killed before its first entry is listed again by the next attempt.
        ids.dedup();
        let after = match &query.before {
            Some(before) => ids.iter().position(|id| id == before).map_or(ids.len(), |index| index + 1),
            None => 0,
        };
        let wanted = ids.into_iter().skip(after);
        // A journal whose first line was not written to its end is one of a deployment that never began.
        let records = wanted.filter_map(|id| last_record(&file(&self.directory, &id), &id).transpose());
        records.take(query.limit as usize).collect()
    }

    pub(super) fn send_signal(&self, request: &SendSignal) -> Result<()> {
        let sent = self.signals(&request.deployment)?;
        if sent.contains(&request.signal) {
            return Ok(());
        }
        append_line(&self.signal_file(&request.deployment), &request.signal).map_err(io("leave the signal"))
    }

    pub(super) fn signals(&self, deployment: &DeploymentId) -> Result<Vec<Signal>> {
        let lines = complete_lines(&self.signal_file(deployment)).map_err(io("read the signals"))?;
        let parse =
            |line: Vec<u8>| serde_json::from_slice(&line).map_err(|e| corrupt("a signal", deployment).with_source(e));
        lines.into_iter().map(parse).collect()
    }

    fn signal_file(&self, deployment: &DeploymentId) -> PathBuf {
        self.directory.join("signals").join(format!("{deployment}.jsonl"))
    }
}

/// What is read of a line to list it.
#[derive(Deserialize)]
struct RecordOnly {
    record: DeploymentRecord,
}

/// The record as it was written last. Without the entries: one that cannot be read any more does not keep anybody from
/// listing.
fn last_record(path: &Path, deployment: &DeploymentId) -> Result<Option<DeploymentRecord>> {
    let Some(line) = complete_lines(path).map_err(io("read a record"))?.pop() else { return Ok(None) };
    let parsed = serde_json::from_slice(&line).map_err(|error| corrupt("a record", deployment).with_source(error));
    parsed.map(|RecordOnly { record }| Some(record))
}

fn corrupt(what: &str, deployment: &DeploymentId) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{what} cannot be read")).with_resource(deployment.as_str())
}

/// The lines that were written to their end.
fn complete_lines(path: &Path) -> std_io::Result<Vec<Vec<u8>>> {
    let Some(text) = files::absent(fs::read(path))? else { return Ok(Vec::new()) };
    let complete = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    Ok(text[..complete].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
}

/// Appends one line, in place of one that was not written to its end.
fn append_line<T: Serialize>(path: &Path, value: &T) -> std_io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
    let end = complete_length(&mut file)?;
    file.set_len(end)?;
    file.seek(std_io::SeekFrom::Start(end))?;
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let written = file.write_all(&line).and_then(|()| file.sync_data());
    if written.is_err() {
        // It was refused: it must not be found there later on.
        file.set_len(end)?;
    } else if end == 0 {
        files::sync_directory(directory)?;
        files::sync_directory(directory.parent().unwrap_or(Path::new(".")))?;
    }
    written
}

fn complete_length(file: &mut File) -> std_io::Result<u64> {
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end as u64 + 1))
}

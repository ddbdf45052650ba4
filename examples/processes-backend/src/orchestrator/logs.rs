//! What instances and tasks have written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io as std_io;
use std::time::Duration;

use deployer_core::{InstanceId, LogLine, LogQuery, LogStream, Result};
use futures_util::stream;

use super::ProcessOrchestrator;
use super::record::{self, Record};
use crate::failure::{blocking, io};
use crate::keeper::Written;
use crate::layout::Layout;

/// How often a stream that follows looks for more.
const LOOK: Duration = Duration::from_millis(100);

/// Where a stream is. It reads when it is polled: there is no task behind it that would outlive it.
struct Position {
    layout: Layout,
    query: LogQuery,
    ready: VecDeque<LogLine>,
    /// How many lines of each instance were taken already.
    taken: BTreeMap<InstanceId, Taken>,
    first: bool,
    /// Whether nothing can come any more: the one instance or task that is asked for has ended.
    over: bool,
}

/// Lines are told apart by what is left of them when old ones are put aside.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    last_at: i64,
    of_that_time: usize,
}

impl ProcessOrchestrator {
    pub(super) async fn open_logs(&self, query: LogQuery) -> Result<LogStream> {
        let layout = self.layout.clone();
        let mut position =
            Position { layout, query, ready: VecDeque::new(), taken: BTreeMap::new(), first: true, over: false };
        // At once, so that it is an error of the call if it cannot be read.
        position = position.look().await?;
        Ok(Box::pin(stream::try_unfold(position, |mut position| async move {
            loop {
                if let Some(line) = position.ready.pop_front() {
                    return Ok(Some((line, position)));
                }
                if !position.query.follow || position.over {
                    return Ok(None);
                }
                tokio::time::sleep(LOOK).await;
                position = position.look().await?;
            }
        })))
    }
}

impl Position {
    /// Takes what was written since the last look.
    async fn look(mut self) -> Result<Self> {
        blocking(move || {
            self.read().map_err(io("read what was written"))?;
            self.first = false;
            Ok(self)
        })
        .await
    }

    fn read(&mut self) -> std_io::Result<()> {
        let services: BTreeSet<_> = self.query.services.iter().collect();
        let mut lines: Vec<(i64, LogLine)> = Vec::new();
        self.over = self.query.instance.is_some();
        for found in record::all(&self.layout, &self.query.app)? {
            let record = &found.record;
            let asked = (services.is_empty() || services.contains(&record.service))
                && self.query.instance.as_ref().is_none_or(|id| *id == record.id);
            if !asked {
                continue;
            }
            // Before its output: what it wrote before it ended is there by then.
            self.over = self.over && found.kept.status()?.is_over();
            let taken = self.taken.entry(record.id.clone()).or_default();
            let mut new = taken.new_ones(found.kept.output()?);
            new.retain(|line| self.query.since.is_none_or(|since| line.at >= since));
            if let Some(tail) = self.query.tail.filter(|_| self.first) {
                new.drain(..new.len().saturating_sub(tail as usize));
            }
            lines.extend(new.into_iter().map(|line| (line.at.as_millis(), log_line(record, line))));
        }
        // Stable: lines of one instance stay in the order in which it wrote them.
        lines.sort_by_key(|(at, _)| *at);
        self.ready.extend(lines.into_iter().map(|(_, line)| line));
        Ok(())
    }
}

impl Taken {
    fn new_ones(&mut self, lines: Vec<Written>) -> Vec<Written> {
        let mut skip = self.of_that_time;
        let last_at = self.last_at;
        let new: Vec<Written> = lines
            .into_iter()
            .filter(|line| {
                let at = line.at.as_millis();
                if at == last_at && skip > 0 {
                    skip -= 1;
                    return false;
                }
                at >= last_at
            })
            .collect();
        for line in &new {
            let at = line.at.as_millis();
            self.of_that_time = if at == self.last_at { self.of_that_time + 1 } else { 1 };
            self.last_at = at;
        }
        new
    }
}

fn log_line(record: &Record, line: Written) -> LogLine {
    LogLine::new(record.name.clone(), line.stream, line.text).at(line.at).of(record.service.clone())
}

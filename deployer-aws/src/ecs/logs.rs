//! What instances and tasks have written, from CloudWatch Logs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use deployer_core::{LogLine, LogQuery, LogStream, OutputStream, Result, ServiceName, Timestamp};
use futures_util::stream;

use super::definition::log_prefix;
use crate::failure::{failed, is};
use crate::naming;
use crate::site::Site;

/// How many lines one call answers at most:
/// <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html>.
const PAGE: i32 = 10_000;
/// How many milliseconds later than what another instance has written a line may come to CloudWatch: agents send what they
/// have at the latest every few seconds.
const LATE: i64 = 30_000;
/// How often an instance that has ended must have nothing more to say.
const LAST: u32 = 3;

/// One line with what tells it from others.
#[derive(Clone, Debug)]
struct Event {
    id: String,
    at: i64,
    line: LogLine,
}

/// What was found in all pages.
#[derive(Debug, Default)]
struct Found {
    events: Vec<Event>,
    /// When the last of all that was looked through was written, others' included.
    newest: Option<i64>,
}

impl Site {
    pub(super) async fn read_logs(self: &Arc<Self>, query: LogQuery) -> Result<LogStream> {
        let since = query.since.map(Timestamp::as_millis);
        let Found { events: all, newest } = self.log_events(&query, since).await?;
        let mut read = Read { from: since, known: BTreeSet::new() };
        read.on(&all, newest);
        let lines = tail(all, query.tail);
        if !query.follow {
            return Ok(Box::pin(stream::iter(lines.into_iter().map(|event| Ok(event.line)))));
        }
        let site = Arc::clone(self);
        let follow = Follow { site, query, read, ready: lines.into(), quiet: 0 };
        Ok(Box::pin(stream::unfold(follow, |mut follow| async move { Some((follow.next().await?, follow)) })))
    }

    /// Everything that was written from a time on, oldest first.
    async fn log_events(&self, query: &LogQuery, from: Option<i64>) -> Result<Found> {
        let mut found = Found::default();
        let Some(group) = &self.options.log_group else { return Ok(found) };
        let call = self.logs.filter_log_events().log_group_name(group).limit(PAGE);
        // CloudWatch goes through all streams that it is asked for, a page at a time: not more of them than it must be.
        let call = match (self.stream_of(query), query.services.as_slice()) {
            (Some((stream, begun)), _) => call.log_stream_names(stream).start_time(from.unwrap_or_default().max(begun)),
            (None, [service]) => {
                call.log_stream_name_prefix(format!("{}/", log_prefix(&query.app, service))).set_start_time(from)
            }
            (None, _) => call.log_stream_name_prefix(format!("{}/", query.app)).set_start_time(from),
        };
        let mut pages = call.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = match page {
                Ok(page) => page,
                Err(error) if is(&error, &["ResourceNotFoundException"]) => break,
                Err(error) => return Err(failed("logs:FilterLogEvents", group.as_str(), error)),
            };
            for event in page.events() {
                // The first is the clock of whoever has written it, the second CloudWatch's.
                let came = [event.timestamp(), event.ingestion_time()].into_iter().flatten().min();
                found.newest = found.newest.max(came);
                let Some((service, task)) = event.log_stream_name().and_then(|name| writer(query, name)) else {
                    continue;
                };
                let at = event.timestamp().unwrap_or_default();
                let text = event.message().unwrap_or_default().trim_end_matches(['\n', '\r']);
                // CloudWatch does not tell the two streams apart.
                let line = LogLine::new(naming::instance(&service, task), OutputStream::Stdout, text);
                let line = line.of(service).at(Timestamp::from_millis(at));
                found.events.push(Event { id: event.event_id().unwrap_or_default().to_owned(), at, line });
            }
        }
        found.events.sort_by(|one, other| (one.at, &one.id).cmp(&(other.at, &other.id)));
        Ok(found)
    }

    /// The stream of the one instance that is asked for and when that was made, if it is known.
    fn stream_of(&self, query: &LogQuery) -> Option<(String, i64)> {
        let instance = query.instance.as_ref()?;
        let memory = self.memory();
        let task = memory.tasks.get(&query.app)?.values().find(|task| task.id == instance.as_str())?;
        let service = task.service.as_ref()?;
        let stream = format!("{}/{}/{}", log_prefix(&query.app, service), naming::container(service), task.id);
        Some((stream, task.created.as_millis()))
    }

    /// Whether an instance or task has ended.
    fn has_ended(&self, query: &LogQuery) -> bool {
        let Some(instance) = &query.instance else { return false };
        let memory = self.memory();
        let mut tasks = memory.tasks.get(&query.app).into_iter().flat_map(|tasks| tasks.values());
        tasks.any(|task| task.id == instance.as_str() && task.status == super::task::Status::Stopped)
    }
}

/// The service and the task that a stream is of, if it is asked for: `app/service/container/task`.
fn writer<'a>(query: &LogQuery, name: &'a str) -> Option<(ServiceName, &'a str)> {
    let mut parts = name.splitn(4, '/');
    let (app, service, _container, task) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let service = ServiceName::new(service).ok()?;
    let wanted = app == query.app.as_str()
        && (query.services.is_empty() || query.services.contains(&service))
        && query.instance.as_ref().is_none_or(|instance| instance.as_str() == task);
    wanted.then_some((service, task))
}

/// The last lines of each instance.
fn tail(events: Vec<Event>, lines: Option<u32>) -> Vec<Event> {
    let Some(lines) = lines else { return events };
    let mut left: BTreeMap<String, u32> = BTreeMap::new();
    let mut kept: Vec<Event> = events
        .into_iter()
        .rev()
        .filter(|event| {
            let count = left.entry(event.line.instance.clone()).or_default();
            *count += 1;
            *count <= lines
        })
        .collect();
    kept.reverse();
    kept
}

/// How far a stream has been read.
#[derive(Debug)]
struct Read {
    /// From when on is asked next: never by this machine's clock, which may be another.
    from: Option<i64>,
    /// What was shown from then on.
    known: BTreeSet<(i64, String)>,
}

impl Read {
    /// Goes on to what was looked through, less what may still come of other instances.
    fn on(&mut self, events: &[Event], newest: Option<i64>) {
        self.known.extend(events.iter().map(|event| (event.at, event.id.clone())));
        if let Some(from) = self.from.max(newest.map(|newest| newest - LATE)) {
            self.from = Some(from);
            self.known = self.known.split_off(&(from, String::new()));
        }
    }

    fn has(&self, event: &Event) -> bool {
        self.known.contains(&(event.at, event.id.clone()))
    }
}

/// A stream that goes on.
struct Follow {
    site: Arc<Site>,
    query: LogQuery,
    read: Read,
    ready: VecDeque<Event>,
    /// How often nothing more was there since the instance has ended.
    quiet: u32,
}

impl Follow {
    async fn next(&mut self) -> Option<Result<LogLine>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event.line));
            }
            let ended = self.site.has_ended(&self.query);
            // Its last words may still be on their way.
            if ended && self.quiet >= LAST {
                return None;
            }
            tokio::time::sleep(self.site.options.poll).await;
            let found = match self.site.log_events(&self.query, self.read.from).await {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            let new: Vec<Event> = found.events.into_iter().filter(|event| !self.read.has(event)).collect();
            self.read.on(&new, found.newest);
            self.quiet = if ended && new.is_empty() { self.quiet + 1 } else { 0 };
            self.ready.extend(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: i64, id: &str) -> Event {
        let line = LogLine::new("web-1".to_owned(), OutputStream::Stdout, id);
        Event { id: id.to_owned(), at, line }
    }

    #[test]
    fn what_comes_late_is_shown_and_nothing_twice() {
        let mut read = Read { from: None, known: BTreeSet::new() };
        read.on(&[], None);
        assert_eq!(read.from, None);
        read.on(&[event(50_000, "a"), event(100_000, "b")], Some(100_000));
        assert_eq!(read.from, Some(70_000));
        // Written before by another instance, and sent later.
        assert!(!read.has(&event(99_000, "c")) && read.has(&event(100_000, "b")));
        read.on(&[event(99_000, "c")], Some(100_000));
        assert!(read.has(&event(99_000, "c")));
        // Nothing is kept for ever.
        assert_eq!(read.known.len(), 2);
        // What was asked for is not gone back behind.
        let mut since = Read { from: Some(99_000), known: BTreeSet::new() };
        since.on(&[event(100_000, "b")], Some(100_000));
        assert_eq!(since.from, Some(99_000));
        // What others write is not read again and again.
        since.on(&[], Some(200_000));
        assert_eq!((since.from, since.known.len()), (Some(170_000), 0));
    }
}

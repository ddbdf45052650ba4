//! What containers have written, and go on writing.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error as DockerError;
use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptionsBuilder, LogsOptionsBuilder};
use deployer_core::{Clock, LogLine, LogQuery, LogStream, OutputStream, Result, ServiceName, SystemClock};
use futures_core::Stream;
use futures_util::future::join_all;
use futures_util::stream::{self, SelectAll, StreamExt};

use super::{DockerOrchestrator, answered};
use crate::engine::classify;
use crate::naming::{self, compose, ours};
use crate::time::EngineTime;

const LOGS: &str = "orchestrator.logs";

/// How far back events are asked for when following begins: further than listing the containers takes.
const EVENTS_SINCE_SECONDS: i64 = 2;

/// The longest line that is put together from the pieces in which the engine keeps it.
const LONGEST_LINE: usize = 1024 * 1024;

type Lines = Pin<Box<dyn Stream<Item = Result<Stamped>> + Send>>;

/// Events of the engine.
type Events = Pin<Box<dyn Stream<Item = Result<EventMessage, DockerError>> + Send>>;

/// A line with the engine's time of it.
type Stamped = (Option<EngineTime>, LogLine);

/// A container whose output is wanted.
#[derive(Clone, Debug)]
struct Writer {
    id: String,
    name: String,
    service: Option<ServiceName>,
}

impl Writer {
    /// The container if its output is asked for.
    fn wanted(
        query: &LogQuery,
        id: Option<&str>,
        name: Option<&str>,
        labels: &HashMap<String, String>,
    ) -> Option<Self> {
        let label = |name: &str| labels.get(name).map(String::as_str);
        let ours = label(ours::APP) == Some(query.app.as_str())
            && matches!(label(ours::ROLE), Some(ours::ROLE_INSTANCE | ours::ROLE_TASK));
        let service = label(compose::SERVICE).and_then(|service| ServiceName::new(service).ok());
        let of_service = query.services.is_empty() || service.as_ref().is_some_and(|is| query.services.contains(is));
        let of_instance = query.instance.as_ref().is_none_or(|instance| Some(instance.as_str()) == id);
        let name = name?.trim_start_matches('/').to_owned();
        (ours && of_service && of_instance).then_some(Self { id: id?.to_owned(), name, service })
    }
}

impl DockerOrchestrator {
    pub(super) async fn open_logs(&self, query: LogQuery) -> Result<LogStream> {
        let app = query.app.as_str();
        let opened = SystemClock.now().as_millis() / 1000;
        let listed = self.containers(LOGS, app, &[(ours::APP, app)]).await?;
        let writers = listed.iter().filter_map(|container| {
            let name = container.names.as_ref()?.first()?;
            Writer::wanted(&query, container.id.as_deref(), Some(name), container.labels.as_ref()?)
        });
        let docker = self.engine.docker().clone();
        let writers: Vec<Writer> = writers.collect();
        if query.follow {
            return Ok(follow(docker, query, writers, opened));
        }
        let sources = writers.iter().map(|writer| lines(&docker, writer, &query, Start::Asked)).collect();
        Ok(merge(sources))
    }
}

/// From where on a container's output is read.
enum Start {
    /// From where the query says.
    Asked,
    /// From the line after this one, or the first.
    After(Option<EngineTime>),
}

/// The lines of one container. It ends when the container is gone.
fn lines(docker: &Docker, writer: &Writer, query: &LogQuery, start: Start) -> Lines {
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).timestamps(true).follow(query.follow);
    let since = query.since.map(|since| since.as_millis());
    let (from_second, tail, after) = match start {
        Start::Asked => (since.map(|millis| millis.div_euclid(1000)), query.tail, None),
        Start::After(after) => (after.map(EngineTime::seconds), None, after),
    };
    let options = options
        .since(from_second.and_then(|second| i32::try_from(second).ok()).unwrap_or(0))
        .tail(&tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()))
        .build();
    // The engine counts whole seconds only.
    let late_enough = move |at: Option<EngineTime>| {
        let Some(at) = at else { return true };
        since.is_none_or(|since| at.timestamp().as_millis() >= since) && after.is_none_or(|after| at > after)
    };
    let frames = Box::pin(docker.logs(&writer.id, Some(options)));
    let reading = Reading { frames, pieces: Pieces::default(), ready: VecDeque::new(), ended: false };
    let writer = writer.clone();
    let lines = stream::unfold((reading, writer), |(mut reading, writer)| async move {
        let line = reading.next(&writer).await?;
        Some((line, (reading, writer)))
    });
    Box::pin(lines.filter(move |line| {
        let keep = line.as_ref().map_or(true, |(at, _)| late_enough(*at));
        std::future::ready(keep)
    }))
}

/// Reading one container's output.
struct Reading<S> {
    frames: S,
    pieces: Pieces,
    ready: VecDeque<Piece>,
    ended: bool,
}

impl<S: Stream<Item = Result<LogOutput, DockerError>> + Unpin> Reading<S> {
    async fn next(&mut self, writer: &Writer) -> Option<Result<Stamped>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(Ok(piece.line(writer)));
            }
            if self.ended {
                return None;
            }
            match self.frames.next().await {
                Some(Ok(frame)) => self.pieces.take(&frame, &mut self.ready),
                Some(Err(error)) if is_gone(&error) => self.end(),
                Some(Err(error)) => {
                    self.end();
                    return Some(Err(classify(LOGS, writer.name.as_str(), error)));
                }
                None => self.end(),
            }
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.pieces.rest(&mut self.ready);
    }
}

/// Whether the engine has no output to give because the container is being removed, or is.
fn is_gone(error: &DockerError) -> bool {
    answered(error, 404) || answered(error, 409)
}

/// One line, or what there is of it so far.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    at: Option<EngineTime>,
    stream: OutputStream,
    text: Vec<u8>,
}

impl Piece {
    fn line(self, writer: &Writer) -> Stamped {
        let text = self.text.strip_suffix(b"\r").unwrap_or(&self.text);
        let mut line = LogLine::new(writer.name.as_str(), self.stream, String::from_utf8_lossy(text));
        line.at = self.at.map(EngineTime::timestamp);
        line.service.clone_from(&writer.service);
        (self.at, line)
    }
}

/// Lines whose end has not come yet: the engine keeps long lines in pieces, each with a time of its own.
#[derive(Debug, Default)]
struct Pieces {
    out: Option<Piece>,
    err: Option<Piece>,
}

impl Pieces {
    fn take(&mut self, frame: &LogOutput, ready: &mut VecDeque<Piece>) {
        let (stream, open) = match frame {
            LogOutput::StdErr { .. } => (OutputStream::Stderr, &mut self.err),
            _ => (OutputStream::Stdout, &mut self.out),
        };
        for part in frame.as_ref().split_inclusive(|byte| *byte == b'\n') {
            let (at, text) = stamped(part);
            let piece = open.get_or_insert_with(|| Piece { at, stream, text: Vec::new() });
            piece.text.extend_from_slice(text.strip_suffix(b"\n").unwrap_or(text));
            if text.ends_with(b"\n") || piece.text.len() >= LONGEST_LINE {
                ready.extend(open.take());
            }
        }
    }

    fn rest(&mut self, ready: &mut VecDeque<Piece>) {
        ready.extend(self.out.take().into_iter().chain(self.err.take()));
    }
}

/// Takes the time off the beginning.
fn stamped(part: &[u8]) -> (Option<EngineTime>, &[u8]) {
    let Some(space) = part.iter().take(40).position(|byte| *byte == b' ') else { return (None, part) };
    let (time, rest) = part.split_at(space);
    match std::str::from_utf8(time).ok().and_then(EngineTime::parse) {
        Some(at) => (Some(at), &rest[1..]),
        None => (None, part),
    }
}

/// All lines of all sources by time. Each source is in order already, so only the first line of each is held.
fn merge(sources: Vec<Lines>) -> LogStream {
    let merging = stream::unfold((sources, Vec::new(), true), |(mut sources, mut heads, first)| async move {
        if first {
            heads = join_all(sources.iter_mut().map(StreamExt::next)).await;
        }
        // An error has no time and comes at once.
        let when = |head: &Option<Result<Stamped>>| match head {
            Some(Ok((at, _))) => Some(*at),
            Some(Err(_)) => Some(None),
            None => None,
        };
        let times = heads.iter().enumerate().filter_map(|(index, head)| Some((when(head)?, index)));
        let (_, index) = times.min()?;
        let head = heads[index].take()?;
        heads[index] = sources[index].next().await;
        Some((head.map(|(_, line)| line), (sources, heads, false)))
    });
    Box::pin(merging)
}

/// What comes while following.
enum Followed {
    Line(String, Result<Stamped>),
    Ended(String),
}

/// How far a container's output has been read.
#[derive(Debug, Default)]
struct Progress {
    last: Option<EngineTime>,
    open: bool,
    /// It was started again while the output of an earlier start was still being read.
    again: bool,
}

struct Follow {
    docker: Docker,
    query: LogQuery,
    sources: SelectAll<Pin<Box<dyn Stream<Item = Followed> + Send>>>,
    starts: Option<Events>,
    progress: HashMap<String, (Writer, Progress)>,
}

/// All lines as they come. One container is followed to its end, an application until the stream is dropped.
fn follow(docker: Docker, query: LogQuery, writers: Vec<Writer>, opened: i64) -> LogStream {
    let starts = query.instance.is_none().then(|| {
        let mut filters = naming::label_filter(&[(ours::APP, query.app.as_str())]);
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        filters.insert("event".to_owned(), vec!["start".to_owned()]);
        let since = (opened - EVENTS_SINCE_SECONDS).to_string();
        let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
        Box::pin(docker.events(Some(options))) as Events
    });
    let mut follow = Follow { docker, query, sources: SelectAll::new(), starts, progress: HashMap::new() };
    for writer in writers {
        follow.open(writer, Start::Asked);
    }
    Box::pin(stream::unfold(follow, |mut follow| async move {
        let line = follow.next().await?;
        Some((line, follow))
    }))
}

impl Follow {
    async fn next(&mut self) -> Option<Result<LogLine>> {
        loop {
            let starts = &mut self.starts;
            let start = async {
                match starts {
                    Some(starts) => starts.next().await,
                    None => None,
                }
            };
            tokio::select! {
                Some(followed) = self.sources.next() => {
                    if let Some(line) = self.seen(followed) {
                        return Some(line);
                    }
                }
                Some(event) = start => match event {
                    Ok(event) => self.started(event),
                    Err(error) => {
                        self.starts = None;
                        return Some(Err(classify(LOGS, self.query.app.as_str(), error)));
                    }
                },
                else => return None,
            }
        }
    }

    fn seen(&mut self, followed: Followed) -> Option<Result<LogLine>> {
        match followed {
            Followed::Line(id, line) => {
                if let (Some((_, progress)), Ok((Some(at), _))) = (self.progress.get_mut(&id), &line) {
                    progress.last = Some(*at);
                }
                Some(line.map(|(_, line)| line))
            }
            Followed::Ended(id) => {
                let (writer, progress) = self.progress.get_mut(&id)?;
                progress.open = false;
                if std::mem::take(&mut progress.again) {
                    let (writer, last) = (writer.clone(), progress.last);
                    self.open(writer, Start::After(last));
                }
                None
            }
        }
    }

    fn started(&mut self, event: EventMessage) {
        let Some(actor) = event.actor else { return };
        let labels = actor.attributes.unwrap_or_default();
        let name = labels.get("name").map(String::as_str);
        let Some(writer) = Writer::wanted(&self.query, actor.id.as_deref(), name, &labels) else { return };
        match self.progress.get_mut(&writer.id) {
            Some((_, progress)) if progress.open => progress.again = true,
            Some((_, progress)) => {
                let last = progress.last;
                self.open(writer, Start::After(last));
            }
            None => self.open(writer, Start::After(None)),
        }
    }

    fn open(&mut self, writer: Writer, start: Start) {
        let id = writer.id.clone();
        let lines = lines(&self.docker, &writer, &self.query, start);
        let (of, ended) = (id.clone(), Followed::Ended(id.clone()));
        let lines = lines.map(move |line| Followed::Line(of.clone(), line));
        self.sources.push(Box::pin(lines.chain(stream::iter([ended]))));
        let (_, progress) = self.progress.entry(id).or_insert_with(|| (writer, Progress::default()));
        progress.open = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(text: &'static str) -> LogOutput {
        LogOutput::StdOut { message: text.into() }
    }

    fn err(text: &'static str) -> LogOutput {
        LogOutput::StdErr { message: text.into() }
    }

    fn writer(name: &str) -> Writer {
        Writer { id: name.into(), name: name.into(), service: None }
    }

    #[test]
    fn pieces_become_lines_with_the_time_of_their_beginning() {
        let (mut pieces, mut ready) = (Pieces::default(), VecDeque::new());
        for frame in [
            out("2026-11-21T22:00:00.1Z one "),
            err("2026-11-21T22:00:00.2Z oops\r\n"),
            out("2026-11-21T22:00:00.3Z line\n"),
            out("2026-11-21T22:00:00.4Z\n"),
            out("2026-11-21T22:00:00.5Z no end"),
        ] {
            pieces.take(&frame, &mut ready);
        }
        pieces.rest(&mut ready);
        let lines: Vec<String> = ready
            .into_iter()
            .map(|piece| piece.line(&writer("w")).1)
            .map(|line| format!("{} {:?} {}", line.at.unwrap_or_default(), line.stream, line.text))
            .collect();
        assert_eq!(lines[0], "2026-11-21T22:00:00.200Z Stderr oops");
        assert_eq!(lines[1], "2026-11-21T22:00:00.100Z Stdout one line");
        assert_eq!(lines.last().unwrap(), "2026-11-21T22:00:00.500Z Stdout no end");
    }

    #[test]
    fn text_without_a_time_is_kept_whole() {
        assert_eq!(stamped(b"plain text\n"), (None, &b"plain text\n"[..]));
        assert_eq!(stamped(b""), (None, &b""[..]));
    }

    #[tokio::test]
    async fn sources_are_merged_by_time() {
        let source = |name: &str, times: &[&str]| -> Lines {
            let lines: Vec<_> = times
                .iter()
                .map(|time| {
                    let piece = Piece { at: EngineTime::parse(time), stream: OutputStream::Stdout, text: Vec::new() };
                    Ok(piece.line(&writer(name)))
                })
                .collect();
            Box::pin(stream::iter(lines))
        };
        let a = source("a", &["2026-11-21T22:00:01Z", "2026-11-21T22:00:04Z"]);
        let b = source("b", &["2026-11-21T22:00:02Z", "2026-11-21T22:00:03Z", "2026-11-21T22:00:05Z"]);
        let order: Vec<String> = merge(vec![a, b, source("c", &[])]).map(|line| line.unwrap().instance).collect().await;
        assert_eq!(order, ["a", "b", "b", "a", "b"]);
    }
}

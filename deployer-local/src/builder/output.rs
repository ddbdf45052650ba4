//! What a build says while it runs: progress for whoever watches, and the evidence in case it fails.

use std::collections::{HashMap, VecDeque};

use deployer_core::{Progress, ProgressSink};

use super::request::{Amount, Message};
use super::trace::{self, Log, Status, Trace, Vertex};

/// How much of a step's output is kept as evidence.
const LINES: usize = 20;
const LINE_BYTES: usize = 2_000;

/// Follows one build.
pub(super) struct Output<'a> {
    sink: &'a dyn ProgressSink,
    steps: HashMap<String, Step>,
    /// The key of the step that failed first.
    failed: Option<String>,
    /// The classic builder's step that runs.
    current: String,
    image: Option<String>,
    error: Option<String>,
}

#[derive(Default)]
struct Step {
    name: String,
    started: bool,
    ended: bool,
    /// Output after the last line's end.
    begun: Vec<u8>,
    last_lines: VecDeque<String>,
}

/// How a build ended that failed.
#[derive(Debug, Default)]
pub(super) struct Failed {
    /// The builder's words.
    pub(super) message: String,
    /// The step that failed, such as `[2/4] RUN make`.
    pub(super) step: Option<String>,
    /// The last lines that the step wrote.
    pub(super) last_lines: Vec<String>,
}

impl Failed {
    /// The failing instruction, such as `RUN make`.
    pub(super) fn instruction(&self) -> Option<&str> {
        let step = self.step.as_deref()?;
        match step.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            // `[internal]` and the like are not the Dockerfile's.
            Some((place, instruction)) if place.ends_with(|c: char| c.is_ascii_digit()) => Some(instruction),
            _ => None,
        }
    }
}

impl<'a> Output<'a> {
    pub(super) fn new(sink: &'a dyn ProgressSink) -> Self {
        Self { sink, steps: HashMap::new(), failed: None, current: String::new(), image: None, error: None }
    }

    /// Takes one line of the builder's answer.
    pub(super) fn take(&mut self, message: Message) {
        if message.id == "moby.buildkit.trace" {
            match message.aux.as_ref().and_then(|aux| aux.as_str()).and_then(trace::decode) {
                Some(trace) => self.trace(trace),
                None => tracing::debug!("a message of BuildKit is not understood"),
            }
        } else if let Some(id) = message.aux.as_ref().and_then(|aux| aux.get("ID")).and_then(|id| id.as_str()) {
            self.image = Some(id.to_owned());
        } else if !message.status.is_empty() {
            let Amount { current, total } = message.amount.unwrap_or_default();
            self.sink.progress(Progress::new(message.id, message.status).with_bytes(current, total));
        } else if !message.stream.is_empty() {
            self.classic(&message.stream);
        }
        if let Some(error) = message.error {
            self.error.get_or_insert(error);
        }
    }

    /// The image's id, or why there is none.
    pub(super) fn end(mut self) -> Result<String, Failed> {
        match (self.error.take(), self.image.take()) {
            (None, Some(image)) => Ok(image),
            (error, _) => Err(self.failure(error.unwrap_or_else(|| "the build ended without an image".to_owned()))),
        }
    }

    /// The evidence for a failure that is known by this message.
    pub(super) fn failure(mut self, message: String) -> Failed {
        let key = self.failed.take().unwrap_or(self.current);
        let Some(mut step) = self.steps.remove(&key) else {
            return Failed { message, ..Failed::default() };
        };
        step.output(b"\n", |_, _| {});
        Failed { message, step: Some(step.name), last_lines: step.last_lines.into() }
    }

    fn trace(&mut self, trace: Trace) {
        for vertex in &trace.vertexes {
            self.begins(vertex);
        }
        for Status { id, current, total, completed } in trace.statuses {
            let message = if completed { "done" } else { "started" };
            let bytes = |bytes: u64| (bytes > 0).then_some(bytes);
            self.sink.progress(Progress::new(id, message).with_bytes(bytes(current), bytes(total)));
        }
        for Log { vertex, text } in trace.logs {
            let step = self.steps.entry(vertex).or_default();
            step.output(&text, |name, line| self.sink.progress(Progress::new(name, line)));
        }
        // One message tells of a step's end and of its last output.
        for vertex in trace.vertexes {
            self.ends(vertex);
        }
    }

    fn begins(&mut self, vertex: &Vertex) {
        let step = self.steps.entry(vertex.digest.clone()).or_default();
        step.name.clone_from(&vertex.name);
        // The same is said more than once.
        if vertex.started && !step.started {
            step.started = true;
            self.sink.progress(Progress::new(&step.name, "started"));
        }
    }

    fn ends(&mut self, vertex: Vertex) {
        let step = self.steps.entry(vertex.digest.clone()).or_default();
        if vertex.completed && !step.ended {
            step.ended = true;
            step.output(b"\n", |name, line| self.sink.progress(Progress::new(name, line)));
            let message = match (vertex.error.as_str(), vertex.cached) {
                ("", true) => "cached",
                ("", false) => "done",
                (error, _) => error,
            };
            self.sink.progress(Progress::new(&step.name, message));
        }
        // Steps that run beside the one that fails are cancelled.
        if !vertex.error.is_empty() && !vertex.error.contains("context canceled") {
            self.failed.get_or_insert(vertex.digest);
        }
    }

    /// The classic builder says everything as text.
    fn classic(&mut self, text: &str) {
        let line = text.trim_end();
        if let Some((number, instruction)) = line.strip_prefix("Step ").and_then(|rest| rest.split_once(" : ")) {
            self.end_classic_step();
            self.current = format!("[{number}] {instruction}");
            let step = Step { name: self.current.clone(), started: true, ..Step::default() };
            self.steps.insert(self.current.clone(), step);
            self.sink.progress(Progress::new(&self.current, "started"));
        } else if let Some(step) = self.steps.get_mut(&self.current) {
            match line.trim_start() {
                "---> Using cache" => {
                    step.ended = true;
                    self.sink.progress(Progress::new(&self.current, "cached"));
                }
                // Ids of layers and containers.
                line if line.starts_with("---> ") || line.starts_with("Removing intermediate container ") => {}
                line if line.starts_with("Successfully built ") || line.starts_with("Successfully tagged ") => {
                    self.end_classic_step();
                }
                _ => step.output(text.as_bytes(), |name, line| self.sink.progress(Progress::new(name, line))),
            }
        }
    }

    fn end_classic_step(&mut self) {
        if let Some(step) = self.steps.get_mut(&self.current)
            && !step.ended
        {
            step.ended = true;
            self.sink.progress(Progress::new(&self.current, "done"));
        }
    }
}

impl Step {
    /// Adds output, and hands each line that it completes to `show`.
    fn output(&mut self, text: &[u8], show: impl Fn(&str, &str)) {
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            if self.begun.len() < LINE_BYTES {
                self.begun.extend_from_slice(&piece[..piece.len().min(LINE_BYTES)]);
            }
            if piece.ends_with(b"\n") {
                let line = String::from_utf8_lossy(&self.begun);
                // Programs draw progress bars over themselves: only the last drawing counts.
                let line = line.trim_end().rsplit('\r').next().unwrap_or_default();
                if !line.is_empty() {
                    show(&self.name, line);
                    if self.last_lines.len() == LINES {
                        self.last_lines.pop_front();
                    }
                    self.last_lines.push_back(line.to_owned());
                }
                self.begun.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);

    impl ProgressSink for Seen {
        fn progress(&self, progress: Progress) {
            self.0.lock().unwrap().push(format!("{}: {}", progress.item, progress.message));
        }
    }

    fn text(text: &str) -> Message {
        Message { stream: text.to_owned(), ..Message::default() }
    }

    fn vertex(digest: &str, name: &str, started: bool, completed: bool, error: &str) -> Vertex {
        let (digest, name, error) = (digest.to_owned(), name.to_owned(), error.to_owned());
        Vertex { digest, name, cached: false, started, completed, error }
    }

    #[test]
    fn the_classic_builder_is_followed() {
        let seen = Seen::default();
        let mut output = Output::new(&seen);
        for line in [
            "Step 1/3 : FROM busybox",
            "\n",
            " ---> 9c0bb40a2eae\n",
            "Step 2/3 : COPY x /",
            "\n",
            " ---> Using cache\n",
            " ---> aaaaaaaaaaaa\n",
            "Step 3/3 : RUN make",
            "\n",
            " ---> Running in bbbbbbbbbbbb\n",
            "one\ntw",
            "o\n10%\r20%\r\n",
        ] {
            output.take(text(line));
        }
        output.take(Message { error: Some("it failed".to_owned()), ..Message::default() });
        let failed = output.end().unwrap_err();
        assert_eq!(failed.message, "it failed");
        assert_eq!(failed.instruction(), Some("RUN make"));
        assert_eq!(failed.last_lines, ["one", "two", "20%"]);
        assert_eq!(
            *seen.0.lock().unwrap(),
            [
                "[1/3] FROM busybox: started",
                "[1/3] FROM busybox: done",
                "[2/3] COPY x /: started",
                "[2/3] COPY x /: cached",
                "[3/3] RUN make: started",
                "[3/3] RUN make: one",
                "[3/3] RUN make: two",
                "[3/3] RUN make: 20%",
            ]
        );
    }

    #[test]
    fn buildkit_is_followed_and_the_step_that_failed_first_is_blamed() {
        let seen = Seen::default();
        let mut output = Output::new(&seen);
        let (one, two) = ("[a 1/2] RUN one", "[stage-1 2/3] RUN two");
        let log = |text: &str| Log { vertex: "2".to_owned(), text: text.as_bytes().to_vec() };
        output.trace(Trace {
            vertexes: vec![vertex("1", one, true, false, ""), vertex("2", two, true, false, "")],
            logs: vec![log("a\nb")],
            ..Trace::default()
        });
        output.trace(Trace {
            vertexes: vec![
                vertex("1", one, true, false, ""),
                vertex("1", one, true, true, "context canceled"),
                vertex("2", two, true, true, "exit code: 7"),
                vertex("2", two, true, true, "exit code: 7"),
            ],
            logs: vec![log("\nlast")],
            ..Trace::default()
        });
        output.take(Message { error: Some("executor failed".to_owned()), ..Message::default() });
        assert_eq!(
            *seen.0.lock().unwrap(),
            [
                "[a 1/2] RUN one: started",
                "[stage-1 2/3] RUN two: started",
                "[stage-1 2/3] RUN two: a",
                "[stage-1 2/3] RUN two: b",
                "[a 1/2] RUN one: context canceled",
                "[stage-1 2/3] RUN two: last",
                "[stage-1 2/3] RUN two: exit code: 7",
            ]
        );
        let failed = output.end().unwrap_err();
        assert_eq!(failed.instruction(), Some("RUN two"));
        assert_eq!(failed.last_lines, ["a", "b", "last"]);
    }

    #[test]
    fn evidence_is_bounded() {
        let seen = Seen::default();
        let mut step = Step::default();
        for number in 0..100 {
            step.output(format!("{number} {}\n", "x".repeat(10_000)).as_bytes(), |name, line| {
                seen.progress(Progress::new(name, line));
            });
        }
        assert_eq!(step.last_lines.len(), LINES);
        assert!(step.last_lines[0].starts_with("80 ") && step.last_lines[0].len() <= LINE_BYTES);
        assert_eq!(seen.0.lock().unwrap().len(), 100);
    }

    #[test]
    fn only_the_dockerfiles_own_steps_are_instructions() {
        let instruction = |step: &str| {
            let failed = Failed { step: Some(step.to_owned()), ..Failed::default() };
            failed.instruction().map(str::to_owned)
        };
        assert_eq!(instruction("[2/4] RUN make").as_deref(), Some("RUN make"));
        assert_eq!(instruction("[build 2/4] COPY [a, b] /").as_deref(), Some("COPY [a, b] /"));
        assert_eq!(instruction("[internal] load metadata for docker.io/library/x"), None);
        assert_eq!(instruction("exporting to image"), None);
    }
}

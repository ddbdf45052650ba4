//! How simulated programs behave: what to break, and how.

use std::time::Duration;

use deployer_core::{ExitDetail, OutputStream};

/// How the instances of an image, or a one-off task, behave. Attach it with
/// [`World::on_image`](crate::World::on_image), [`on_env`](crate::World::on_env),
/// [`on_service`](crate::World::on_service) or [`on_command`](crate::World::on_command).
///
/// ```
/// use std::time::Duration;
/// use deployer_testkit::{Behaviour, World};
///
/// let world = World::new();
/// world.add_image("shop:v1");
/// world.on_image("shop:v2", Behaviour::slow_start(Duration::from_secs(40)));
/// world.on_image("shop:v3", Behaviour::crash_loop(3).with_log("FATAL: no database"));
/// world.on_command("migrate", Behaviour::task(Duration::from_secs(5), 1).with_log("relation exists"));
/// ```
#[derive(Clone, Debug)]
pub struct Behaviour {
    pub(crate) ready_after: Duration,
    pub(crate) never_ready: Option<String>,
    pub(crate) sick_after: Option<(Duration, String)>,
    pub(crate) end: Option<End>,
    pub(crate) start_error: Option<String>,
    pub(crate) stops_in: Duration,
    pub(crate) finishes_requests: bool,
    pub(crate) errors_permille: u16,
    pub(crate) answer: (u16, String),
    pub(crate) task: (Duration, i64),
    pub(crate) lines: Vec<(Duration, OutputStream, String)>,
}

/// How a program ends by itself.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) after: Duration,
    pub(crate) exit: ExitDetail,
    /// In how many of its first runs; in all, if there is no number.
    pub(crate) times: Option<u32>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::healthy()
    }
}

impl Behaviour {
    /// A program that is ready one second after its start, serves, and ends at once when it is told to, dropping the
    /// requests that it works on. Its tasks take a second and succeed.
    #[must_use]
    pub fn healthy() -> Self {
        Self {
            ready_after: Duration::from_secs(1),
            never_ready: None,
            sick_after: None,
            end: None,
            start_error: None,
            stops_in: Duration::ZERO,
            finishes_requests: false,
            errors_permille: 0,
            answer: (200, "ok".into()),
            task: (Duration::from_secs(1), 0),
            lines: Vec::new(),
        }
    }

    /// A program that needs so long to be ready.
    #[must_use]
    pub fn slow_start(ready_after: Duration) -> Self {
        Self { ready_after, ..Self::healthy() }
    }

    /// A program that exits with this code shortly after every start.
    #[must_use]
    pub fn crash_loop(code: i64) -> Self {
        let end = End { after: Duration::from_millis(50), exit: ExitDetail::code(code), times: None };
        Self { end: Some(end), ..Self::healthy() }
    }

    /// A program that exits with this code when it has run so long, after every start.
    #[must_use]
    pub fn crash_after(after: Duration, code: i64) -> Self {
        let end = End { after, exit: ExitDetail::code(code), times: None };
        Self { end: Some(end), ..Self::healthy() }
    }

    /// A program that is killed for want of memory when it has run so long, after every start.
    #[must_use]
    pub fn out_of_memory(after: Duration) -> Self {
        let mut exit = ExitDetail::code(137);
        exit.out_of_memory = true;
        Self { end: Some(End { after, exit, times: None }), ..Self::healthy() }
    }

    /// A program that runs and never passes a check; this is what the check says.
    #[must_use]
    pub fn never_healthy(detail: impl Into<String>) -> Self {
        Self { never_ready: Some(detail.into()), ..Self::healthy() }
    }

    /// A program that is ready in time and fails its checks from some time after its start on.
    #[must_use]
    pub fn sick_after(after: Duration, detail: impl Into<String>) -> Self {
        Self { sick_after: Some((after, detail.into())), ..Self::healthy() }
    }

    /// An image that cannot be started at all; these are the platform's words.
    #[must_use]
    pub fn start_error(error: impl Into<String>) -> Self {
        Self { start_error: Some(error.into()), ..Self::healthy() }
    }

    /// A program that needs so long to end when it is told to; longer than its grace period and it is killed.
    #[must_use]
    pub fn slow_stop(stops_in: Duration) -> Self {
        Self { stops_in, ..Self::healthy() }
    }

    /// A one-off task that takes so long and exits with this code.
    #[must_use]
    pub fn task(takes: Duration, code: i64) -> Self {
        Self { task: (takes, code), ..Self::healthy() }
    }

    /// Ends by itself only in so many of its first runs.
    #[must_use]
    pub fn times(mut self, runs: u32) -> Self {
        if let Some(end) = &mut self.end {
            end.times = Some(runs);
        }
        self
    }

    /// Sets how long it needs to be ready.
    #[must_use]
    pub fn with_ready_after(mut self, ready_after: Duration) -> Self {
        self.ready_after = ready_after;
        self
    }

    /// Finishes the requests that it works on when it is told to end, as long as its grace period lets it.
    #[must_use]
    pub fn finishing_requests(mut self) -> Self {
        self.finishes_requests = true;
        self
    }

    /// Answers so many of a thousand requests with a status of 500.
    #[must_use]
    pub fn with_errors_permille(mut self, share: u16) -> Self {
        self.errors_permille = share.min(1000);
        self
    }

    /// Sets what it answers to smoke requests.
    #[must_use]
    pub fn with_answer(mut self, status: u16, body: impl Into<String>) -> Self {
        self.answer = (status, body.into());
        self
    }

    /// Sets how long the one-off tasks of the image take and what code they exit with.
    #[must_use]
    pub fn with_task(mut self, takes: Duration, code: i64) -> Self {
        self.task = (takes, code);
        self
    }

    /// Writes this line to standard error at every start.
    #[must_use]
    pub fn with_log(self, line: impl Into<String>) -> Self {
        self.with_line_after(Duration::ZERO, OutputStream::Stderr, line)
    }

    /// Writes this line some time after every start.
    #[must_use]
    pub fn with_line_after(mut self, after: Duration, stream: OutputStream, line: impl Into<String>) -> Self {
        self.lines.push((after, stream, line.into()));
        self.lines.sort_by_key(|(after, ..)| *after);
        self
    }
}

/// Which behaviour belongs to what. The more particular wins: command, environment, image, service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviours {
    pub(crate) by_command: Vec<(String, Behaviour)>,
    pub(crate) by_env: Vec<(String, String, Behaviour)>,
    pub(crate) by_image: Vec<(deployer_core::Digest, Behaviour)>,
    pub(crate) by_service: Vec<(String, Behaviour)>,
}

impl Behaviours {
    /// How the instances of a service behave.
    pub(crate) fn of_service(
        &self,
        name: &deployer_core::ServiceName,
        service: &deployer_core::ServiceRelease,
    ) -> Behaviour {
        use deployer_core::EnvValue;
        let env = self.by_env.iter().rev().find(
            |(key, value, _)| matches!(service.workload.env.get(key), Some(EnvValue::Plain(plain)) if plain == value),
        );
        let image = self.by_image.iter().rev().find(|(digest, _)| *digest == service.image.digest);
        let by_name = self.by_service.iter().rev().find(|(service, _)| service == name.as_str());
        env.map(|(.., behaviour)| behaviour)
            .or(image.map(|(_, behaviour)| behaviour))
            .or(by_name.map(|(_, behaviour)| behaviour))
            .cloned()
            .unwrap_or_default()
    }

    /// How a one-off task of a service behaves.
    pub(crate) fn of_task(
        &self,
        name: &deployer_core::ServiceName,
        service: &deployer_core::ServiceRelease,
        command: &[String],
    ) -> Behaviour {
        let by_command = self.by_command.iter().rev().find(|(word, _)| command.iter().any(|part| part == word));
        match by_command {
            Some((_, behaviour)) => behaviour.clone(),
            None => {
                // An image that cannot serve may still be able to migrate: its tasks have an end of their own.
                let mut behaviour = self.of_service(name, service);
                behaviour.lines.clear();
                behaviour
            }
        }
    }
}

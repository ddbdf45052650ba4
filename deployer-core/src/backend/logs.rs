//! What instances and tasks write.

use std::fmt;
use std::pin::Pin;

use futures_core::Stream;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::model::{AppName, InstanceId, ServiceName, Timestamp};

/// Asks for output.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogQuery {
    /// The application.
    pub app: AppName,
    /// Only of these services; of all, if there are none.
    pub services: Vec<ServiceName>,
    /// Only of this instance or task.
    pub instance: Option<InstanceId>,
    /// Only so many lines of each instance, the last ones.
    pub tail: Option<u32>,
    /// Whether to go on with what is written from now on.
    pub follow: bool,
    /// Only what was written at or after this time.
    pub since: Option<Timestamp>,
}

impl LogQuery {
    /// All output of an application so far.
    #[must_use]
    pub fn new(app: AppName) -> Self {
        Self { app, services: Vec::new(), instance: None, tail: None, follow: false, since: None }
    }

    /// Only of these services.
    #[must_use]
    pub fn with_services(mut self, services: Vec<ServiceName>) -> Self {
        self.services = services;
        self
    }

    /// Only of this instance or task.
    #[must_use]
    pub fn with_instance(mut self, instance: InstanceId) -> Self {
        self.instance = Some(instance);
        self
    }

    /// Only so many lines of each instance, the last ones.
    #[must_use]
    pub fn with_tail(mut self, lines: u32) -> Self {
        self.tail = Some(lines);
        self
    }

    /// Only what was written at or after this time.
    #[must_use]
    pub fn with_since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    /// Goes on with what is written from now on.
    #[must_use]
    pub fn following(mut self) -> Self {
        self.follow = true;
        self
    }
}

/// Lines as they come.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<LogLine>> + Send>>;

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogLine {
    /// When it was written, if that is known.
    pub at: Option<Timestamp>,
    /// The service.
    pub service: Option<ServiceName>,
    /// The name of the instance or task.
    pub instance: String,
    /// Standard output or standard error.
    pub stream: OutputStream,
    /// The line without its end.
    pub text: String,
}

impl LogLine {
    /// A line that an instance wrote.
    #[must_use]
    pub fn new(instance: impl Into<String>, stream: OutputStream, text: impl Into<String>) -> Self {
        Self { at: None, service: None, instance: instance.into(), stream, text: text.into() }
    }

    /// Says when it was written.
    #[must_use]
    pub fn at(mut self, at: Timestamp) -> Self {
        self.at = Some(at);
        self
    }

    /// Says of which service it is.
    #[must_use]
    pub fn of(mut self, service: ServiceName) -> Self {
        self.service = Some(service);
        self
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {}", self.instance, self.text)
    }
}

/// Where a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

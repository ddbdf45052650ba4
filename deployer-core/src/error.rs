//! The one error type: what kind, whether it happened, whether to try again, and where.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Shorthand for results of this SDK.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Arc<dyn StdError + Send + Sync + 'static>;

/// What went wrong, in about a dozen classes; each has a [stable code](ErrorKind::code).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's input cannot be used as it is: a spec, an argument, a file.
    InvalidInput,
    /// Something that was named does not exist.
    NotFound,
    /// Something of that name exists already and is not ours or not the same.
    AlreadyExists,
    /// The world has moved since it was looked at: a version, a sequence number or a fence did not match.
    Conflict,
    /// Another deployment of the same application is under way.
    Busy,
    /// Credentials are missing, wrong, or do not allow this.
    PermissionDenied,
    /// The backend cannot be reached or answers that it cannot serve now.
    Unavailable,
    /// The backend asks to be called less often.
    Throttled,
    /// No answer within the deadline.
    Timeout,
    /// The backend cannot do this at all.
    Unsupported,
    /// A quota, disk, address pool or port is exhausted or taken.
    Exhausted,
    /// The workload itself is at fault: it does not start, build, or answer.
    Workload,
    /// It was cancelled before anything was touched.
    Cancelled,
    /// Stored data cannot be read or breaks its own rules.
    Corrupt,
    /// A defect of this SDK or of a backend.
    Internal,
}

impl ErrorKind {
    /// A stable code for programs and logs, such as `not-found`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid-input",
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::PermissionDenied => "permission-denied",
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::Unsupported => "unsupported",
            Self::Exhausted => "exhausted",
            Self::Workload => "workload",
            Self::Cancelled => "cancelled",
            Self::Corrupt => "corrupt",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Whether the failed operation had its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Nothing was changed.
    None,
    /// The change was made, though the operation failed afterwards.
    Done,
    /// Nobody can tell: observe before acting again.
    Unknown,
}

/// Whether the same call may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retry {
    /// It will fail the same way until somebody changes something.
    Never,
    /// It may succeed at once or after a short pause.
    Soon,
    /// The backend named the pause it wants.
    After(Duration),
    /// It was retried until the budget was used up.
    Exhausted,
}

/// An error of the SDK or of a backend.
///
/// [`Display`](fmt::Display) is one lower-case line that fits after "failed to ..."; the cause is in
/// [`source`](StdError::source), not in the line. Secrets cannot get in: their type does not print.
///
/// ```
/// use deployer_core::{Effect, Error, ErrorKind, Retry};
///
/// let error = Error::new(ErrorKind::NotFound, "no such image")
///     .with_operation("orchestrator.launch")
///     .with_resource("shop-web:v9")
///     .with_context("engine", "docker 20.10");
/// assert_eq!(error.to_string(), "orchestrator.launch shop-web:v9: no such image (engine: docker 20.10)");
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert_eq!(error.retry(), Retry::Never);
/// assert_eq!(error.effect(), Effect::None);
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    effect: Effect,
    retry: Retry,
    message: Cow<'static, str>,
    operation: Option<&'static str>,
    resource: Option<String>,
    context: Vec<(&'static str, String)>,
    help: Option<String>,
    source: Option<Source>,
}

impl Error {
    /// An error of this kind. Effect and retry start as what is usual for the kind: a timeout's effect is
    /// [`Effect::Unknown`], what is unavailable may be tried [`Retry::Soon`].
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let (effect, retry) = match kind {
            ErrorKind::Timeout => (Effect::Unknown, Retry::Soon),
            ErrorKind::Unavailable => (Effect::Unknown, Retry::Soon),
            ErrorKind::Throttled => (Effect::None, Retry::Soon),
            ErrorKind::Conflict => (Effect::None, Retry::Soon),
            _ => (Effect::None, Retry::Never),
        };
        Self(Box::new(Inner {
            kind,
            effect,
            retry,
            message: message.into(),
            operation: None,
            resource: None,
            context: Vec::new(),
            help: None,
            source: None,
        }))
    }

    /// Sets whether the operation had its effect.
    #[must_use]
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.0.effect = effect;
        self
    }

    /// Sets whether the call may succeed later.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Names the operation, such as `registry.resolve`, unless a deeper layer has named it already.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names what the operation was about, unless a deeper layer has named it already.
    #[must_use]
    pub fn with_resource(mut self, resource: impl Into<String>) -> Self {
        self.0.resource.get_or_insert_with(|| resource.into());
        self
    }

    /// Adds a fact that helps to understand the error.
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.0.context.push((key, value.into()));
        self
    }

    /// Says what the reader can do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Attaches the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// The class of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the operation had its effect.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// The message alone, without operation and context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The operation that failed, if it is known.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// What the operation was about, if it is known.
    #[must_use]
    pub fn resource(&self) -> Option<&str> {
        self.0.resource.as_deref()
    }

    /// The facts added on the way up.
    #[must_use]
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// What the reader can do about it, if anything is known.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// A serialisable copy for journals and events, with the causes as text.
    #[must_use]
    pub fn report(&self) -> ErrorReport {
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        ErrorReport {
            kind: self.kind(),
            effect: self.effect(),
            retry: self.retry(),
            message: self.to_string(),
            causes,
            help: self.0.help.clone(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.operation, &self.0.resource) {
            (Some(operation), Some(resource)) => write!(f, "{operation} {resource}: ")?,
            (Some(operation), None) => write!(f, "{operation}: ")?,
            (None, Some(resource)) => write!(f, "{resource}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.0.message)?;
        if !self.0.context.is_empty() {
            f.write_str(" (")?;
            for (index, (key, value)) in self.0.context.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                write!(f, "{comma}{key}: {value}")?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("effect", &self.0.effect)
            .field("retry", &self.0.retry)
            .field("operation", &self.0.operation)
            .field("resource", &self.0.resource)
            .field("message", &self.0.message)
            .field("context", &self.0.context)
            .field("help", &self.0.help)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| -> &(dyn StdError + 'static) { source.as_ref() })
    }
}

/// What is kept of an [`Error`] in journals and events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ErrorReport {
    /// The class of the error.
    pub kind: ErrorKind,
    /// Whether the operation had its effect.
    pub effect: Effect,
    /// Whether the same call might have succeeded later.
    pub retry: Retry,
    /// The error's line.
    pub message: String,
    /// The lines of its causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What the reader can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl fmt::Display for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

//! Why a command could not do its work, and how that is told.

use std::error::Error as _;
use std::fmt::Write as _;
use std::io;

use deployer_core::{Error, ErrorKind, Problems, compose};
use serde_json::json;

use crate::exit::Exit;
use crate::output;

/// Why a command could not do its work.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The SDK could not.
    Engine(Error),
    /// The Compose file cannot be used.
    Compose(Problems),
    /// Nobody reads what is written.
    Output(io::Error),
    /// Somebody did not want to wait for the end.
    Interrupted,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl From<Problems> for Fault {
    fn from(problems: Problems) -> Self {
        Self::Compose(problems)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Fault {
    /// Tells it, and says with which code to exit.
    pub(crate) fn tell(&self, json: bool) -> Exit {
        if json && let Some(document) = self.document() {
            // If that fails too, the exit code is all that is left to tell.
            let _ = output::json(&document);
        }
        match self {
            Self::Interrupted => Exit::Interrupted,
            Self::Engine(error) => {
                output::error(&render(error));
                error.kind().into()
            }
            Self::Compose(problems) => {
                output::error(&problems_text(problems));
                Exit::Failed
            }
            // `deployer logs | head` is no failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(error) => {
                output::error(&format!("error: standard output cannot be written to\n  because: {error}\n"));
                Exit::Failed
            }
        }
    }

    fn document(&self) -> Option<serde_json::Value> {
        match self {
            Self::Engine(error) => Some(json!({ "error": error.report() })),
            Self::Compose(problems) => {
                Some(json!({ "error": Error::from(problems.clone()).report(), "problems": problems }))
            }
            Self::Output(_) | Self::Interrupted => None,
        }
    }
}

/// An error of the program itself: the caller's input is at fault.
pub(crate) fn usage(message: impl Into<std::borrow::Cow<'static, str>>, help: &str) -> Fault {
    Fault::Engine(Error::new(ErrorKind::InvalidInput, message).with_help(help))
}

/// The problems of a Compose file with the lines that they are about.
pub(crate) fn problems_text(problems: &Problems) -> String {
    compose::render(problems, |file| std::fs::read_to_string(file).ok())
}

/// An error as people like to read it: what, why, what to do.
pub(crate) fn render(error: &Error) -> String {
    // Writing to a `String` cannot fail.
    let mut text = format!("error: {error}\n");
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string().replace('\n', "\n           ");
        let _ = writeln!(text, "  because: {cause_text}");
        next = cause.source();
    }
    if let Some(help) = error.help() {
        let _ = writeln!(text, "  help: {help}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        let error = Error::new(ErrorKind::Unavailable, "no engine answers")
            .with_operation("engine.connect")
            .with_source(Error::new(ErrorKind::Unavailable, "two lines:\none of them").with_source(refused))
            .with_help("start it");
        let expected = "\
error: engine.connect: no engine answers
  because: two lines:
           one of them
  because: connection refused
  help: start it
";
        assert_eq!(render(&error), expected);
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let closed = Fault::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(closed.tell(false), Exit::Done);
    }
}

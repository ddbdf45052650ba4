//! Standard output and standard error, which may be pipes that nobody reads any more.

use std::io::{self, Write as _};

use serde::Serialize;

/// Writes text as it is.
pub(crate) fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a JSON document as one line.
pub(crate) fn json(document: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(document)?;
    line.push('\n');
    text(&line)
}

/// Writes text to standard error. If nobody reads that, there is nobody to tell.
pub(crate) fn error(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

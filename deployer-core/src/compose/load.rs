//! Files, read with a bound on their size.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::source::MAX_FILE_BYTES;

/// The file's text; none if there is no such file.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn text(path: &Path) -> Result<Option<String>, String> {
    // A pipe or a device could keep the reader waiting for ever.
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err("this is no regular file".to_owned()),
        _ => {}
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("the file cannot be opened: {error}")),
    };
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| format!("the file cannot be read: {error}"))?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err("the file is larger than 1 MiB".to_owned());
    }
    String::from_utf8(bytes).map(Some).map_err(|_| "the file is not UTF-8 text".to_owned())
}

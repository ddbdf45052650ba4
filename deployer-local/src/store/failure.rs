//! What SQLite says, in our words.

use std::error::Error as StdError;

use deployer_core::{Effect, Error, ErrorKind, Retry};
use rusqlite::ErrorCode;

/// Says an error of SQLite in our words.
pub(super) fn sqlite(error: rusqlite::Error) -> Error {
    let said = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::new(ErrorKind::Unavailable, "another process kept the release store locked for too long")
                .with_effect(Effect::None)
        }
        Some(ErrorCode::DiskFull) => Error::new(ErrorKind::Exhausted, "no space is left for the release store"),
        Some(ErrorCode::DatabaseCorrupt) => Error::new(ErrorKind::Corrupt, "the release store's file is damaged")
            .with_help("restore the file from a backup, or move it away to begin with an empty store"),
        Some(ErrorCode::NotADatabase) => {
            Error::new(ErrorKind::Corrupt, "the release store's file is not a SQLite database")
                .with_help("name another file, or move this one away to begin with an empty store")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            Error::new(ErrorKind::PermissionDenied, "the release store's file may not be written")
                .with_help("SQLite needs to write the file and the directory that it is in")
        }
        Some(ErrorCode::CannotOpen) => Error::new(ErrorKind::Unavailable, "the release store's file cannot be opened")
            .with_effect(Effect::None)
            .with_retry(Retry::Never),
        Some(ErrorCode::SystemIoFailure) => {
            Error::new(ErrorKind::Unavailable, "the release store's file cannot be read or written")
        }
        _ => Error::new(ErrorKind::Internal, "the release store's database refused a statement"),
    };
    said.with_source(error)
}

/// A failure to use the files beside the database.
pub(super) fn files(error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "the files beside the release store cannot be used").with_effect(Effect::None).with_source(error)
}

/// Something that is kept cannot be understood.
pub(super) fn corrupt(what: impl Into<String>, cause: impl StdError + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Corrupt, "what is kept cannot be read").with_resource(what).with_source(cause)
}

/// Something that is kept was written by a newer version than this one.
pub(super) fn newer(what: impl Into<String>, format: u16, known: u16) -> Error {
    Error::new(ErrorKind::Corrupt, format!("it was written in format {format}, and only {known} and older are known"))
        .with_resource(what)
        .with_help("use the newest version of this program on all hosts that share the release store")
}

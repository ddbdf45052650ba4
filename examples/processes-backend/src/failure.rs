//! From what the operating system says to what the engine acts on.

use std::io;

use deployer_core::{Error, ErrorKind};

/// An error of the operating system. What it was about is added by the engine, which knows the operation.
///
/// Kind, effect and retry are what the engine goes by, so none of them is a guess: a file that could not be written has
/// had no effect, since every file is replaced in one step.
pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |error| {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
            io::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, format!("cannot {what}")).with_effect(deployer_core::Effect::None).with_source(error)
    }
}

/// Runs what blocks where that harms nobody. It runs to its end even if the future is dropped, so what it does in one
/// piece stays in one piece.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(ErrorKind::Internal, "the work was given up half-way")
            .with_effect(deployer_core::Effect::Unknown)
            .with_source(error)),
    }
}

//! Tests of the local backend against a real Docker Engine and real files, linked as one binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod images;

#[cfg(feature = "sqlite")]
mod store;
#[cfg(feature = "sqlite")]
mod store_processes;

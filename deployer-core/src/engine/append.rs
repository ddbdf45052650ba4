//! Appending to a journal: the only commit point.

use std::time::Duration;

use super::act::SHORT;
use super::calls::Calls;
use crate::backend::{Append, Backend};
use crate::error::{ErrorKind, Result, Retry};

/// How often an append is tried.
const ATTEMPTS: u32 = 5;
/// The pause before the second attempt; it doubles with each further one.
const BACKOFF: Duration = Duration::from_millis(100);

/// Appends to a journal. An append of which nobody knows whether it happened is looked up before it is tried again.
pub(crate) async fn append(backend: &Backend, calls: &Calls, request: Append) -> Result<()> {
    let id = request.record.id.clone();
    let mut pause = BACKOFF;
    for attempt in 1..=ATTEMPTS {
        let write = backend.store.append(request.clone());
        let error = match calls.make("store.append", id.to_string(), true, SHORT, write).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let first = request.entries.first().map_or(0, |entry| entry.seq);
        let read = backend.store.journal(&id, first);
        let found = calls.make("store.journal", id.to_string(), false, SHORT, read).await;
        if found.is_ok_and(|found| found == request.entries) {
            return Ok(());
        }
        let hopeless = matches!(error.retry(), Retry::Never | Retry::Exhausted) || error.kind() == ErrorKind::Conflict;
        if hopeless || attempt == ATTEMPTS {
            return Err(error);
        }
        calls.clock.sleep(pause).await;
        pause *= 2;
    }
    Ok(())
}

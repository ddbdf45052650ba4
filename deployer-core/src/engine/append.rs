//! Appending to a journal: the only commit point.

use super::act::SHORT;
use super::calls::{Access, Attempts, Calls};
use crate::backend::{Append, Backend};
use crate::error::Result;

/// Appends to a journal. An append of which nobody knows whether it happened is looked up before it is tried again.
pub(crate) async fn append(backend: &Backend, calls: &Calls, request: Append) -> Result<()> {
    let id = request.record.id.clone();
    let first = request.entries.first().map_or(0, |entry| entry.seq);
    let mut attempts = Attempts::default();
    loop {
        let write = || backend.store.append(request.clone());
        let error = match calls.make("store.append", &id, Access::Fenced, SHORT, write).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let read = || backend.store.journal(&id, first);
        let found = calls.make("store.journal", &id, Access::Read, SHORT, read).await;
        if found.is_ok_and(|found| found == request.entries) {
            return Ok(());
        }
        calls.pause(error, &mut attempts).await?;
    }
}

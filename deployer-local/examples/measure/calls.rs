//! Where the time of a deployment goes: every call that the engine makes, with its beginning and end.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use deployer_core::{CallInfo, Error, Intercept, Result};

/// Notes calls until they are printed.
#[derive(Debug, Default)]
pub(crate) struct Calls(Mutex<BTreeMap<u64, (String, Instant, Option<Instant>)>>);

impl Calls {
    /// Prints and forgets the calls that began before `until`, with times since `began`.
    pub(crate) fn print(&self, began: Instant, until: Instant) {
        let calls = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (what, start, end) in calls.into_values().filter(|(_, start, _)| (began..until).contains(start)) {
            let at = (start - began).as_secs_f64() * 1000.0;
            let took = end.map_or_else(String::new, |end| format!("{:.1}", (end - start).as_secs_f64() * 1000.0));
            println!("    {at:>8.1} {took:>8}  {what}");
        }
    }
}

#[async_trait]
impl Intercept for Calls {
    async fn before(&self, call: &CallInfo) -> Result<()> {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.insert(call.number, (format!("{} {}", call.operation, call.resource), Instant::now(), None));
        Ok(())
    }

    async fn after(&self, call: &CallInfo, _error: Option<&Error>) -> Result<()> {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, end)) = calls.get_mut(&call.number) {
            *end = Some(Instant::now());
        }
        Ok(())
    }
}

//! Where the time of a deployment goes: every call that the engine makes, with its beginning and end.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use deployer_core::{CallInfo, Intercept, Next, Result};

/// Notes calls until they are printed.
#[derive(Debug, Default)]
pub(crate) struct Calls(Mutex<BTreeMap<u64, Made>>);

#[derive(Debug)]
struct Made {
    what: String,
    start: Instant,
    end: Option<Instant>,
}

impl Calls {
    /// Prints and forgets the calls that began before `until`, with times since `began`.
    pub(crate) fn print(&self, began: Instant, until: Instant) {
        let calls = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for Made { what, start, end } in calls.into_values().filter(|made| (began..until).contains(&made.start)) {
            let at = (start - began).as_secs_f64() * 1000.0;
            let took = end.map_or_else(String::new, |end| format!("{:.1}", (end - start).as_secs_f64() * 1000.0));
            println!("    {at:>8.1} {took:>8}  {what}");
        }
    }
}

#[async_trait]
impl Intercept for Calls {
    async fn intercept(&self, call: &CallInfo, next: &mut Next<'_>) -> Result<()> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let what = format!("{} {}", call.operation, call.resource);
        lock().insert(call.number, Made { what, start: Instant::now(), end: None });
        let result = next.run().await;
        if let Some(made) = lock().get_mut(&call.number) {
            made.end = Some(Instant::now());
        }
        result
    }
}

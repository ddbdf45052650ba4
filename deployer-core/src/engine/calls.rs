//! The one place where backends are called: deadline, interception, span.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::Instrument;

use crate::backend::{Call, CallInfo, Clock, Intercept};
use crate::error::{Error, ErrorKind, Result};

/// Makes backend calls.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    pub(crate) clock: Arc<dyn Clock>,
    intercept: Option<Arc<dyn Intercept>>,
    made: Arc<AtomicU64>,
}

impl Calls {
    pub(crate) fn new(clock: Arc<dyn Clock>, intercept: Option<Arc<dyn Intercept>>) -> Self {
        Self { clock, intercept, made: Arc::default() }
    }

    /// The frame of a mutating call that may take so long.
    pub(crate) fn frame(&self, key: impl Into<String>, timeout: Duration) -> Call {
        Call::new(key, self.clock.now() + timeout)
    }

    /// Makes a call. A call that does not answer in time is dropped; nobody knows then whether it had its effect.
    pub(crate) async fn make<T>(
        &self,
        operation: &'static str,
        resource: impl Into<String>,
        mutating: bool,
        timeout: Duration,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let info = CallInfo::new(number, operation, resource, mutating);
        let span = tracing::debug_span!("call", operation, resource = %info.resource);
        let made = async {
            if let Some(intercept) = &self.intercept {
                intercept.before(&info).await?;
            }
            let result = tokio::select! {
                biased;
                result = call => result,
                () = self.clock.sleep(timeout) => {
                    let message = format!("no answer within {}", crate::model::Human(timeout));
                    Err(Error::new(ErrorKind::Timeout, message))
                }
            };
            if let Some(intercept) = &self.intercept {
                intercept.after(&info, result.as_ref().err()).await?;
            }
            result
        };
        let result = made.instrument(span).await;
        result.map_err(|error| {
            tracing::debug!(operation, resource = %info.resource, %error, "a call failed");
            error.with_operation(operation).with_resource(info.resource.clone())
        })
    }
}

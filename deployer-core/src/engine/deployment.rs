//! The handle of a deployment that runs in this process.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::event::Event;
use crate::error::Result;
use crate::journal::DeploymentRecord;
use crate::model::{AppName, DeploymentId};

/// A deployment that runs in this process. It is a stream of its [events](Event); its end is awaited with
/// [`finished`](Deployment::finished).
///
/// Dropping it stops driving the deployment where it is, as a crash of the process would: whatever has traffic keeps it,
/// and any process can [`resume`](crate::Deployer::resume) the deployment when the lease has expired. To stop it in
/// order, [`cancel`](Deployment::cancel) it.
#[must_use = "dropping a deployment stops driving it"]
pub struct Deployment {
    app: AppName,
    id: DeploymentId,
    events: mpsc::UnboundedReceiver<Event>,
    cancelled: watch::Sender<Option<String>>,
    task: JoinHandle<Result<DeploymentRecord>>,
}

impl Deployment {
    pub(crate) fn new(
        app: AppName,
        id: DeploymentId,
        events: mpsc::UnboundedReceiver<Event>,
        cancelled: watch::Sender<Option<String>>,
        task: JoinHandle<Result<DeploymentRecord>>,
    ) -> Self {
        Self { app, id, events, cancelled, task }
    }

    /// The application.
    #[must_use]
    pub fn app(&self) -> &AppName {
        &self.app
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &DeploymentId {
        &self.id
    }

    /// The next event; none when there will be no more. Cancel safe.
    pub async fn next_event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Asks the deployment to stop and to bring back what was there before. While it is still preparing, it ends with an
    /// error of kind [`Cancelled`](crate::ErrorKind::Cancelled): nothing was touched. Asking again changes nothing, and
    /// once the new release is verified it is too late. [`Deployer::cancel`](crate::Deployer::cancel) does the same for a
    /// deployment of another process.
    pub fn cancel(&self, by: impl Into<String>) {
        self.cancelled.send_if_modified(|wanted| {
            let first = wanted.is_none();
            if first {
                *wanted = Some(by.into());
            }
            first
        });
    }

    /// Waits for the end, and answers the deployment's record with its verdict. Events that were not read are dropped.
    ///
    /// # Errors
    /// If the engine could not do its job: the application cannot be prepared, another deployment is under way, the
    /// backend or the store cannot be reached, another process has taken over. A deployment that failed and was rolled
    /// back is no error but a [verdict](crate::Verdict).
    pub async fn finished(mut self) -> Result<DeploymentRecord> {
        self.events.close();
        let joined = (&mut self.task).await;
        match joined {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(crate::Error::new(crate::ErrorKind::Internal, "the deployment's task was stopped")
                    .with_source(error)),
            },
        }
    }
}

impl Stream for Deployment {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(context)
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deployment").field("app", &self.app).field("id", &self.id).finish_non_exhaustive()
    }
}

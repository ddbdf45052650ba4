//! What an embedder is told while a deployment runs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::backend::{Clock, Health, InstancePhase, Progress, ProgressSink};
use crate::journal::{Entry, JournalEvent};
use crate::model::{AppName, DeploymentId, InstanceId, ReleaseNumber, RevisionId, ServiceName, Timestamp};

/// One event of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// Its number in the stream, from 1, without gaps.
    pub index: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The application.
    pub app: AppName,
    /// The deployment.
    pub deployment: DeploymentId,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventKind {
    /// An image is being built, pulled or pushed.
    Preparing {
        /// The service it is for.
        service: ServiceName,
        /// The progress.
        progress: Progress,
    },
    /// The image of a service is pinned.
    Pinned {
        /// The service.
        service: ServiceName,
        /// What was named, and the digest it stands for.
        image: String,
    },
    /// Everything that the release needs is pinned.
    Released {
        /// Its number.
        release: ReleaseNumber,
    },
    /// Somebody else holds the lease, and the engine waits for it to end.
    WaitingForLease {
        /// The holder.
        holder: String,
        /// When it ends unless it is renewed.
        until: Timestamp,
    },
    /// Something was written to the journal.
    Journal {
        /// What.
        entry: Box<Entry>,
    },
    /// An instance changed.
    Instance {
        /// The instance.
        id: InstanceId,
        /// Its name.
        name: String,
        /// Its revision.
        revision: RevisionId,
        /// What it does; none if it is gone.
        phase: Option<InstancePhase>,
        /// Whether it is ready.
        health: Health,
        /// What the last check said, if it did not pass.
        detail: Option<String>,
    },
}

impl Event {
    /// What was written to the journal, if that is what happened.
    #[must_use]
    pub fn journal(&self) -> Option<&JournalEvent> {
        match &self.kind {
            EventKind::Journal { entry } => Some(&entry.event),
            _ => None,
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preparing { service, progress } => write!(f, "{service}: {} {}", progress.item, progress.message),
            Self::Pinned { service, image } => write!(f, "{service}: {image}"),
            Self::Released { release } => write!(f, "release {release}"),
            Self::WaitingForLease { holder, until } => write!(f, "waiting for {holder}, until {until} at most"),
            Self::Journal { entry } => entry.event.fmt(f),
            Self::Instance { name, phase: None, .. } => write!(f, "{name} is gone"),
            Self::Instance { name, phase: Some(phase), health, detail, .. } => {
                let phase = match (phase, health) {
                    (InstancePhase::Running, Health::Healthy) => "is ready",
                    (InstancePhase::Running, Health::Unhealthy) => "is unhealthy",
                    (InstancePhase::Running, _) => "runs, not ready yet",
                    (InstancePhase::Pending, _) => "is being started",
                    (InstancePhase::Restarting, _) => "is being restarted",
                    (InstancePhase::Stopping, _) => "is being stopped",
                    (InstancePhase::Exited, _) => "has exited",
                };
                write!(f, "{name} {phase}")?;
                detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
            }
        }
    }
}

impl fmt::Display for JournalEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { plan, .. } => write!(f, "the deployment begins, {} steps", plan.steps.len()),
            Self::Resumed { owner } => write!(f, "{owner} goes on with the deployment"),
            Self::StepStarted { step, attempt: 1 } => write!(f, "step {step} begins"),
            Self::StepStarted { step, attempt } => write!(f, "step {step} begins again, attempt {attempt}"),
            Self::StepRetried { step, attempt, error, .. } => {
                write!(f, "step {step}, attempt {attempt}, failed and will be tried again: {error}")
            }
            Self::StepFinished { step, .. } => write!(f, "step {step} is done"),
            Self::StepFailed { step, failure } => write!(f, "step {step} failed: {}", failure.summary),
            Self::GateAsked { gate, answer: Ok(answer), .. } => write!(f, "gate {gate}: {answer}"),
            Self::GateAsked { gate, answer: Err(error), .. } => write!(f, "gate {gate} could not be asked: {error}"),
            Self::Signalled { signal } => write!(f, "{signal}"),
            Self::Diverted { reason: crate::DivertReason::Failed { cause }, .. } => {
                write!(f, "it failed, bringing back what was there before: {}", cause.summary)
            }
            Self::Diverted { reason: crate::DivertReason::Cancelled { by }, .. } => {
                write!(f, "cancelled by {by}, bringing back what was there before")
            }
            Self::Closed { verdict } => write!(f, "{verdict}"),
        }
    }
}

/// Numbers events and hands them to whoever listens.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    app: AppName,
    deployment: DeploymentId,
    clock: Arc<dyn Clock>,
    last: Arc<AtomicU64>,
    sender: mpsc::UnboundedSender<Event>,
}

impl Events {
    pub(crate) fn new(
        app: AppName,
        deployment: DeploymentId,
        clock: Arc<dyn Clock>,
    ) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { app, deployment, clock, last: Arc::default(), sender }, receiver)
    }

    pub(crate) fn send(&self, kind: EventKind) {
        let index = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (app, deployment) = (self.app.clone(), self.deployment.clone());
        // Nobody has to listen.
        let _ = self.sender.send(Event { index, at: self.clock.now(), app, deployment, kind });
    }

    /// Where the progress of preparing a service goes.
    pub(crate) fn preparing(&self, service: &ServiceName) -> Arc<dyn ProgressSink> {
        Arc::new(Preparing { events: self.clone(), service: service.clone() })
    }
}

struct Preparing {
    events: Events,
    service: ServiceName,
}

impl ProgressSink for Preparing {
    fn progress(&self, progress: Progress) {
        self.events.send(EventKind::Preparing { service: self.service.clone(), progress });
    }
}

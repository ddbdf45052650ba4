//! The instances of the world and what time does to them.

use std::collections::BTreeSet;
use std::time::Duration;

use deployer_core::{
    AppName, CheckCommand, ExitDetail, Health, InstanceId, InstancePhase, ObservedInstance, OutputStream, PinnedImage,
    Readiness, ReleaseNumber, Restart, RevisionId, Timestamp,
};

use crate::scenario::Behaviour;

/// One running copy, or what is left of it.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) name: String,
    pub(crate) app: AppName,
    pub(crate) revision: RevisionId,
    pub(crate) release: ReleaseNumber,
    pub(crate) ordinal: u32,
    pub(crate) address: String,
    /// The host that it runs on.
    pub(crate) host: u32,
    pub(crate) image: PinnedImage,
    pub(crate) behaviour: Behaviour,
    pub(crate) restart: Restart,
    pub(crate) grace: Duration,
    /// Whether it has a check of its own, that is asked without a probe.
    pub(crate) has_check: bool,
    /// Whether its release wants it probed; unless somebody does, nobody knows how it is.
    pub(crate) wants_probe: bool,
    /// The named volumes that it writes to.
    pub(crate) volumes: BTreeSet<String>,
    pub(crate) life: Life,
    /// Whether it was told to end.
    pub(crate) stopped: bool,
    /// Until when it takes new requests although it was told to end: not everybody who passes them on knows.
    pub(crate) takes_until: Option<Timestamp>,
    /// Whether it passes its checks.
    pub(crate) ready: bool,
    /// Why it does not although it did, or was expected to.
    pub(crate) sick: Option<String>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) runs: u32,
    pub(crate) crashes: u32,
    pub(crate) exit: Option<ExitDetail>,
    /// What was written in the runs that are over.
    pub(crate) lines: Vec<(Timestamp, OutputStream, String)>,
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It could not be started.
    Pending,
    Running,
    Restarting {
        at: Timestamp,
    },
    Stopping {
        until: Timestamp,
    },
    Exited,
}

impl Instance {
    pub(crate) fn start(&mut self, now: Timestamp) {
        self.runs += 1;
        self.started_at = Some(now);
        self.ready = false;
        self.sick = None;
        if let Some(error) = &self.behaviour.start_error {
            let mut exit = ExitDetail::default();
            exit.error = Some(error.clone());
            exit.unrecoverable = true;
            exit.at = Some(now);
            self.exit = Some(exit);
            self.life = Life::Pending;
            self.started_at = None;
        } else {
            self.life = Life::Running;
        }
    }

    /// Whether a program runs, able to answer or not.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.life, Life::Running | Life::Stopping { .. })
    }

    /// Whether it takes new requests and answers them.
    pub(crate) fn serves(&self) -> bool {
        self.life == Life::Running && self.ready && self.sick.is_none()
    }

    /// Whether it answers requests that it is given now.
    pub(crate) fn answers(&self, at: Timestamp) -> bool {
        let ending = matches!(self.life, Life::Stopping { .. }) && self.sick.is_none();
        self.serves() || (ending && self.takes_until.is_some_and(|until| at < until))
    }

    fn ready_at(&self) -> Option<Timestamp> {
        let waits = !self.ready && self.behaviour.never_ready.is_none();
        self.started_at.filter(|_| waits).map(|started| started + self.behaviour.ready_after)
    }

    fn sick_at(&self) -> Option<Timestamp> {
        let (after, _) = self.behaviour.sick_after.as_ref().filter(|_| self.sick.is_none())?;
        self.started_at.map(|started| started + *after)
    }

    fn ends_at(&self) -> Option<Timestamp> {
        let end = self.behaviour.end.as_ref()?;
        let this_run = end.times.is_none_or(|times| self.runs <= times);
        self.started_at.filter(|_| this_run).map(|started| started + end.after)
    }

    /// When something happens to it next, if nobody touches it.
    pub(crate) fn next_change(&self) -> Option<Timestamp> {
        match self.life {
            Life::Running => [self.ready_at(), self.sick_at(), self.ends_at()].into_iter().flatten().min(),
            Life::Restarting { at } => Some(at),
            Life::Stopping { until } => Some(until),
            Life::Pending | Life::Exited => None,
        }
    }

    /// Makes happen what is due.
    pub(crate) fn change(&mut self, now: Timestamp) {
        match self.life {
            Life::Running => {
                if self.ready_at().is_some_and(|at| at <= now) {
                    self.ready = true;
                }
                if self.sick_at().is_some_and(|at| at <= now) {
                    self.sick = self.behaviour.sick_after.as_ref().map(|(_, detail)| detail.clone());
                }
                if self.ends_at().is_some_and(|at| at <= now)
                    && let Some(end) = self.behaviour.end.clone()
                {
                    self.crash(now, end.exit);
                }
            }
            Life::Restarting { at } if at <= now => self.start(now),
            Life::Stopping { until } if until <= now => {
                let started = self.started_at.unwrap_or(now);
                self.end_run(started, now);
                self.life = Life::Exited;
            }
            _ => {}
        }
    }

    /// Its program ends without having been told to.
    pub(crate) fn crash(&mut self, now: Timestamp, mut exit: ExitDetail) {
        let started = self.started_at.unwrap_or(now);
        self.end_run(started, now);
        self.crashes += 1;
        let code = exit.code;
        exit.at = Some(now);
        self.exit = Some(exit);
        let again = match self.restart {
            Restart::UnlessStopped | Restart::Always => true,
            Restart::OnFailure { max_retries } => code != Some(0) && max_retries.is_none_or(|max| self.runs <= max),
            Restart::No => false,
        };
        self.life = if again {
            // As Docker does it: a tenth of a second at first, twice as long after each crash, a minute at most.
            let doubled = 100_u64.saturating_mul(1 << (self.crashes - 1).min(10));
            Life::Restarting { at: now + Duration::from_millis(doubled.min(60_000)) }
        } else {
            Life::Exited
        };
    }

    /// It is told to end after `drain`, all of it if it may be given requests for some time; `busy` is how long its
    /// requests still take.
    pub(crate) fn stop(&mut self, now: Timestamp, busy: Duration, drain: Duration, propagation: Duration) {
        self.stopped = true;
        match self.life {
            Life::Running => {
                let drained = if propagation.is_zero() { busy.min(drain) } else { drain };
                let busy = busy.max(drained);
                self.takes_until = (self.ready && !drain.is_zero()).then(|| now + propagation.min(drained));
                let finishes = if self.behaviour.finishes_requests { busy - drained } else { Duration::ZERO };
                let needs = self.behaviour.stops_in.max(finishes);
                let killed = needs > self.grace;
                let mut exit = ExitDetail::code(if killed { 137 } else { 0 });
                let until = now + drained + needs.min(self.grace);
                exit.at = Some(until);
                self.exit = Some(exit);
                self.life = Life::Stopping { until };
                self.change(now);
            }
            Life::Restarting { .. } | Life::Pending => self.life = Life::Exited,
            Life::Stopping { .. } | Life::Exited => {}
        }
    }

    fn end_run(&mut self, started: Timestamp, now: Timestamp) {
        let written = written(&self.behaviour, started, now);
        self.lines.extend(written);
        self.ready = false;
    }

    /// Everything that it has written so far.
    pub(crate) fn output(&self, now: Timestamp) -> Vec<(Timestamp, OutputStream, String)> {
        let mut lines = self.lines.clone();
        if self.is_alive()
            && let Some(started) = self.started_at
        {
            lines.extend(written(&self.behaviour, started, now));
        }
        lines
    }

    /// How it is seen from outside, by somebody who probes it so, or does not.
    pub(crate) fn observed(&self, probe: Option<&Readiness>) -> ObservedInstance {
        let phase = match self.life {
            Life::Pending => InstancePhase::Pending,
            Life::Running => InstancePhase::Running,
            Life::Restarting { .. } => InstancePhase::Restarting,
            Life::Stopping { .. } => InstancePhase::Stopping,
            Life::Exited => InstancePhase::Exited,
        };
        let (id, revision) = (self.id.clone(), self.revision.clone());
        let mut seen = ObservedInstance::new(id, self.name.clone(), revision, self.release, self.ordinal, phase);
        let probed = probe.is_some_and(|readiness| readiness.probe.is_some());
        (seen.health, seen.health_detail) = self.health(probe.is_some(), probed);
        seen.address = self.is_alive().then(|| self.address.clone());
        seen.started_at = self.started_at;
        seen.crashes = self.crashes;
        seen.exit = self.exit.clone();
        seen.image = Some(self.image.digest.clone());
        seen
    }

    fn health(&self, asked: bool, probed: bool) -> (Health, Option<String>) {
        if self.life != Life::Running {
            return (Health::Unknown, None);
        }
        if !probed && !self.has_check {
            // With nothing to check, running is all there is to know; unless there is a probe that nobody used.
            let known = asked || !self.wants_probe;
            return (if known { Health::Healthy } else { Health::Unknown }, None);
        }
        match (&self.sick, &self.behaviour.never_ready) {
            (Some(detail), _) | (None, Some(detail)) => (Health::Unhealthy, Some(detail.clone())),
            _ if self.ready => (Health::Healthy, None),
            _ => (Health::Starting, Some("connection refused".into())),
        }
    }
}

fn written(behaviour: &Behaviour, started: Timestamp, until: Timestamp) -> Vec<(Timestamp, OutputStream, String)> {
    let lines = behaviour.lines.iter().map(|(after, stream, text)| (started + *after, *stream, text.clone()));
    lines.filter(|(at, ..)| *at <= until).collect()
}

/// Whether a service's instances are checked from inside.
pub(crate) fn has_check(service: &deployer_core::ServiceRelease) -> bool {
    service.workload.check.as_ref().is_some_and(|check| check.command != CheckCommand::Disabled)
}

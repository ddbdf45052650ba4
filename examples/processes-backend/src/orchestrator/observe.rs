//! What is there.

use std::collections::BTreeMap;

use deployer_core::{
    Health, InstancePhase, ObserveApp, ObservedApp, ObservedInstance, ObservedTask, Readiness, Result, RevisionId,
    SmokeAnswer, SmokeRequest,
};
use futures_util::future::join_all;

use super::ProcessOrchestrator;
use super::probe::{self, Probed};
use super::record::{self, Found, Role, of_revision};
use crate::failure::{blocking, io};
use crate::keeper::{Checked, Phase, Status};

/// The most of a smoke test's answer that is kept.
const BODY_BYTES: usize = 64 << 10;

impl ProcessOrchestrator {
    pub(super) async fn observe_directories(&self, request: &ObserveApp) -> Result<ObservedApp> {
        let (layout, app) = (self.layout.clone(), request.app.clone());
        let all = blocking(move || {
            let look = |found: Found| Ok((found.kept.status()?, found.is_condemned()?, found));
            let all = record::all(&layout, &app).map_err(io("look for instances"))?.into_iter().map(look);
            all.collect::<std::io::Result<Vec<_>>>().map_err(io("look at an instance"))
        })
        .await?;
        let (mut tasks, mut instances) = (Vec::new(), Vec::new());
        for (status, condemned, found) in all {
            match found.record.role.clone() {
                Role::Task { task } => {
                    let exit = status.exit.filter(|_| status.phase != Phase::Running);
                    tasks.push(ObservedTask::new(task, found.record.id, status.started_at, exit));
                }
                Role::Instance { revision, ordinal } => {
                    instances.push(self.instance(found, status, condemned, revision, ordinal, &request.probe));
                }
            }
        }
        // All at once: looking must not take as long as all probes together.
        let mut instances = join_all(instances).await;
        instances.sort_by(|one, other| (&one.revision, one.ordinal).cmp(&(&other.revision, other.ordinal)));
        Ok(ObservedApp::new(instances, tasks))
    }

    async fn instance(
        &self,
        found: Found,
        status: Status,
        condemned: bool,
        revision: RevisionId,
        ordinal: u32,
        probes: &BTreeMap<RevisionId, Readiness>,
    ) -> ObservedInstance {
        let record = &found.record;
        let readiness = probes.get(&revision);
        let phase = match status.phase {
            Phase::Running if condemned => InstancePhase::Stopping,
            Phase::Running => InstancePhase::Running,
            Phase::Pending => InstancePhase::Pending,
            Phase::Restarting => InstancePhase::Restarting,
            Phase::Exited => InstancePhase::Exited,
        };
        let (id, name, release) = (record.id.clone(), record.name.clone(), record.release);
        let mut observed = ObservedInstance::new(id, name, revision, release, ordinal, phase);
        if phase == InstancePhase::Running {
            let probed = match readiness.and_then(|readiness| readiness.probe.as_ref().map(|probe| (probe, readiness)))
            {
                Some((probe, readiness)) => Some(self.prober.ask(record, &status, probe, readiness).await),
                None => None,
            };
            (observed.health, observed.health_detail) = health(record.checked, status.check.as_ref(), probed);
        }
        observed.address = Some(record.address.to_string());
        observed.started_at = status.started_at;
        observed.crashes = status.crashes;
        observed.exit = status.exit;
        observed.image = Some(record.image.clone());
        observed
    }

    pub(super) async fn ask_instances(&self, request: &SmokeRequest) -> Result<Vec<SmokeAnswer>> {
        let there = of_revision(&self.layout, &request.app, &request.revision).map_err(io("look for instances"))?;
        let mut running = Vec::new();
        for (_, found) in there {
            let status = found.kept.status().map_err(io("look at an instance"))?;
            if status.phase == Phase::Running {
                running.push(found.record);
            }
        }
        Ok(join_all(running.into_iter().map(|record| async move {
            let at = (record.address, request.port).into();
            let answer = probe::get(at, &request.path, BODY_BYTES).await;
            let answer = answer.map(|(status, body)| (status, String::from_utf8_lossy(&body).into_owned()));
            SmokeAnswer { instance: record.id, answer }
        }))
        .await)
    }
}

/// Whether it is ready by every check there is for it, and what the one says that does not pass.
fn health(has_check: bool, checked: Option<&Checked>, probed: Option<Probed>) -> (Health, Option<String>) {
    let checked = match (has_check, checked) {
        (false, _) => None,
        (true, None) => Some((Health::Starting, Some("the check has not answered yet".to_owned()))),
        (true, Some(Checked::NotYet(detail))) => Some((Health::Starting, Some(detail.clone()))),
        (true, Some(Checked::Fails(detail))) => Some((Health::Unhealthy, Some(detail.clone()))),
        (true, Some(Checked::Passes)) => Some((Health::Healthy, None)),
    };
    let probed = probed.map(|probed| match probed {
        Probed::Passes => (Health::Healthy, None),
        Probed::NotYet(detail) => (Health::Starting, Some(detail)),
        Probed::Fails(detail) => (Health::Unhealthy, Some(detail)),
    });
    let answers = [checked, probed];
    let worst = |health| answers.iter().flatten().find(|(found, _)| *found == health).cloned();
    // One that is asked by nobody is healthy as long as it runs.
    worst(Health::Unhealthy).or_else(|| worst(Health::Starting)).unwrap_or((Health::Healthy, None))
}

//! Asking every instance of a revision the same question.

use std::net::SocketAddr;

use deployer_core::{Clock, InstanceId, Result, SmokeAnswer, SmokeRequest, SystemClock};
use futures_util::future::try_join_all;
use tokio::time::timeout;

use super::{DockerOrchestrator, probe, state};
use crate::naming::ours;
use crate::reach::Path;

const SMOKE: &str = "orchestrator.smoke";

/// How much of a body is kept.
const BODY_BYTES: usize = 64 * 1024;

impl DockerOrchestrator {
    pub(super) async fn ask_instances(&self, request: &SmokeRequest) -> Result<Vec<SmokeAnswer>> {
        let (app, revision) = (request.app.as_str(), request.revision.to_string());
        let of_revision = [(ours::APP, app), (ours::ROLE, ours::ROLE_INSTANCE), (ours::REVISION, revision.as_str())];
        let listed = self.containers(SMOKE, &revision, &of_revision).await?;
        let answers = try_join_all(listed.iter().map(async |container| {
            let Some(inspected) = self.inspect(container).await? else { return Ok(None) };
            if inspected.state.as_ref().and_then(|state| state.running) != Some(true) {
                return Ok(None);
            }
            let Ok(instance) = InstanceId::new(inspected.id.clone().unwrap_or_default()) else { return Ok(None) };
            let answer = match state::address(&inspected) {
                Some(address) => {
                    let path = self.reach.to(&request.app, request.revision.service());
                    self.ask(&path, SocketAddr::new(address, request.port), request).await
                }
                None => Err("it is not connected to its network".to_owned()),
            };
            Ok::<_, deployer_core::Error>(Some(SmokeAnswer { instance, answer }))
        }));
        Ok(answers.await?.into_iter().flatten().collect())
    }

    async fn ask(&self, path: &Path, at: SocketAddr, request: &SmokeRequest) -> Result<(u16, String), String> {
        let left = request.deadline.since(SystemClock.now());
        // A timer rounds up: an instance on this host could answer before it sees that no time is left.
        if left.is_zero() {
            return Err("no time is left to ask it".to_owned());
        }
        match timeout(left, probe::get(path, at, &request.path, BODY_BYTES)).await {
            Ok(Ok((status, body))) => Ok((status, String::from_utf8_lossy(&body).into_owned())),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("no answer within {} ms", left.as_millis())),
        }
    }
}

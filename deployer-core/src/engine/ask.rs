//! Asking gates that take a call.

use std::sync::Arc;

use super::act::SHORT;
use super::calls::{Access, Calls};
use crate::backend::{Backend, Gate, GateAnswer, GateQuestion, SmokeAnswer, SmokeRequest};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{GateCheck, GateSpec};

/// What asking a gate needs.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) backend: Backend,
    pub(super) calls: Calls,
    pub(super) question: GateQuestion,
    /// The gate that is registered under the name, if it is a callback.
    pub(super) callback: Option<Arc<dyn Gate>>,
}

impl Ask {
    /// Puts the question.
    pub(super) async fn put(self, gate: &GateSpec) -> Result<GateAnswer> {
        let resource = format!("gate {}", gate.name);
        match &gate.check {
            GateCheck::Callback { name } => {
                let callback = self.callback.ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, format!("no gate is registered under the name {name:?}"))
                        .with_help("register it with `DeployerBuilder::gate`")
                })?;
                let ask = || callback.ask(self.question.clone());
                self.calls.make("gate.ask", resource, Access::Read, SHORT, ask).await
            }
            GateCheck::Smoke { path, port, status, contains } => {
                let deadline = self.calls.clock.now() + SHORT;
                let GateQuestion { app, revision, .. } = self.question;
                let request = SmokeRequest::new(deadline, app, revision, *port, path.clone());
                let smoke = || self.backend.orchestrator.smoke(request.clone());
                let answers = self.calls.make("orchestrator.smoke", resource, Access::Read, SHORT, smoke).await?;
                Ok(judge_smoke(&answers, *status, contains.as_deref()))
            }
            _ => Err(Error::new(ErrorKind::Internal, "the gate is not asked by a call")),
        }
    }
}

fn judge_smoke(answers: &[SmokeAnswer], status: u16, contains: Option<&str>) -> GateAnswer {
    if answers.is_empty() {
        return GateAnswer::Inconclusive { detail: "no instance runs".to_owned() };
    }
    for answer in answers {
        let instance = &answer.instance;
        let short = instance.as_str().get(..12).unwrap_or(instance.as_str());
        let detail = match &answer.answer {
            Err(why) => format!("{short} did not answer: {why}"),
            Ok((found, _)) if *found != status => format!("{short} answered {found} instead of {status}"),
            Ok((_, body)) => match contains {
                Some(text) if !body.contains(text) => format!("the answer of {short} does not contain {text:?}"),
                _ => continue,
            },
        };
        return GateAnswer::Fail { detail };
    }
    GateAnswer::Pass { detail: format!("{} instances answered {status}", answers.len()) }
}

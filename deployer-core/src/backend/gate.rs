//! Questions that the embedding program answers.

use std::fmt::{self, Debug};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::model::{AppName, DeploymentId, RevisionId};

/// A question asked while a deployment holds, registered by name with
/// [`DeployerBuilder::gate`](crate::DeployerBuilder::gate).
#[async_trait]
pub trait Gate: Debug + Send + Sync {
    /// Answers whether the revision may go on.
    ///
    /// # Errors
    /// Being unable to ask is none of the three answers: it is asked again, and fails the deployment if that goes on.
    async fn ask(&self, question: GateQuestion) -> Result<GateAnswer>;
}

/// What a [`Gate`] is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GateQuestion {
    /// The application.
    pub app: AppName,
    /// The deployment that holds.
    pub deployment: DeploymentId,
    /// The new revision.
    pub revision: RevisionId,
    /// The percentage of new requests that it gets.
    pub weight: u8,
}

impl GateQuestion {
    /// Asks about this revision.
    #[must_use]
    pub fn new(app: AppName, deployment: DeploymentId, revision: RevisionId, weight: u8) -> Self {
        Self { app, deployment, revision, weight }
    }
}

/// A gate's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum GateAnswer {
    /// The revision is good.
    Pass {
        /// What was seen.
        detail: String,
    },
    /// The revision is not good.
    Fail {
        /// Why.
        detail: String,
    },
    /// It cannot be told yet.
    Inconclusive {
        /// Why not.
        detail: String,
    },
}

impl GateAnswer {
    /// What was seen, or why.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Pass { detail } | Self::Fail { detail } | Self::Inconclusive { detail } => detail,
        }
    }
}

impl fmt::Display for GateAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Pass { .. } => "pass",
            Self::Fail { .. } => "fail",
            Self::Inconclusive { .. } => "inconclusive",
        };
        write!(f, "{word}: {}", self.detail())
    }
}

//! A deployment in one row: what lists and look-ups need without reading its journal.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, ErrorReport};
use crate::model::{AppName, DeploymentId, ReleaseNumber, ServiceName, Timestamp};

/// One run of a plan towards a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeploymentRecord {
    /// Its id.
    pub id: DeploymentId,
    /// The application.
    pub app: AppName,
    /// What was asked for.
    pub kind: DeploymentKind,
    /// The release that was to serve; none, if nothing was to be left.
    pub target: Option<ReleaseNumber>,
    /// The release that served before, and that a failure brings back.
    pub baseline: Option<ReleaseNumber>,
    /// Who drives it, or drove it last.
    pub owner: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended, if it has.
    pub finished_at: Option<Timestamp>,
    /// How it ended, if it has.
    pub verdict: Option<Verdict>,
    /// The number of its journal's last entry.
    pub last_seq: u64,
}

impl DeploymentRecord {
    /// The release that serves after it: none if it has not ended, or if nothing is left.
    #[must_use]
    pub fn serving(&self) -> Option<ReleaseNumber> {
        match self.verdict.as_ref()? {
            Verdict::Promoted { .. } => self.target,
            _ => self.baseline,
        }
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DeploymentKind {
    /// A new release.
    Deploy,
    /// An earlier release.
    Rollback {
        /// The release that served and was found wanting.
        from: Option<ReleaseNumber>,
    },
    /// Nothing to be left.
    Destroy {
        /// Whether volumes, and with them the data, go too.
        volumes: bool,
    },
}

impl DeploymentKind {
    /// A word for tables.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Rollback { .. } => "rollback",
            Self::Destroy { .. } => "destroy",
        }
    }
}

/// How a deployment ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Verdict {
    /// The wanted release was observed to be what serves.
    Promoted {
        /// What could not be cleaned up; a later deployment tries again.
        leftovers: Vec<String>,
    },
    /// It failed, and what was there before was observed to serve again.
    RolledBack {
        /// Why it failed.
        cause: Box<Failure>,
    },
    /// Somebody wanted it to stop, and what was there before was observed to serve again.
    Cancelled {
        /// Who, and why.
        by: String,
    },
    /// Another deployment went on from where it was.
    Superseded {
        /// The other deployment.
        by: String,
    },
    /// It failed, and what was there before is not back: somebody has to look.
    NeedsAttention {
        /// Why it failed.
        cause: Box<Failure>,
        /// Why what was there before could not be brought back; none, if that was not tried.
        rollback: Option<Box<Failure>>,
    },
}

impl Verdict {
    /// A word for tables and programs.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Promoted { .. } => "promoted",
            Self::RolledBack { .. } => "rolled-back",
            Self::Cancelled { .. } => "cancelled",
            Self::Superseded { .. } => "superseded",
            Self::NeedsAttention { .. } => "needs-attention",
        }
    }

    /// Whether the wanted release serves.
    #[must_use]
    pub const fn is_promoted(&self) -> bool {
        matches!(self, Self::Promoted { .. })
    }

    /// Why it failed, if it did.
    #[must_use]
    pub fn cause(&self) -> Option<&Failure> {
        match self {
            Self::RolledBack { cause } | Self::NeedsAttention { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Promoted { leftovers } if leftovers.is_empty() => f.write_str("promoted"),
            Self::Promoted { leftovers } => write!(f, "promoted, with leftovers: {}", leftovers.join("; ")),
            Self::RolledBack { cause } => write!(f, "rolled back: {cause}"),
            Self::Cancelled { by } => write!(f, "cancelled by {by}"),
            Self::Superseded { by } => write!(f, "superseded by {by}"),
            Self::NeedsAttention { cause, rollback: None } => write!(f, "needs attention: {cause}"),
            Self::NeedsAttention { cause, rollback: Some(rollback) } => {
                write!(f, "needs attention: {cause}\nand the way back failed too: {rollback}")
            }
        }
    }
}

/// Why a deployment failed, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failure {
    /// The step that failed, in words.
    pub step: String,
    /// The class of the failure.
    pub kind: ErrorKind,
    /// What happened, in one line.
    pub summary: String,
    /// The service it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// What is known about the instances or tasks that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// The error of the backend call that failed, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure of a step, in one line.
    #[must_use]
    pub fn new(step: impl Into<String>, kind: ErrorKind, summary: impl Into<String>) -> Self {
        Self {
            step: step.into(),
            kind,
            summary: summary.into(),
            service: None,
            evidence: Vec::new(),
            error: None,
            hint: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)?;
        write!(f, "\n  while trying to {}", self.step)?;
        for evidence in &self.evidence {
            write!(f, "\n  {evidence}")?;
        }
        if let Some(error) = &self.error {
            for cause in &error.causes {
                write!(f, "\n  because: {cause}")?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// What is known about one instance or task that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Evidence {
    /// The instance or task, by the name that a person would use.
    pub subject: String,
    /// What it did, in one line: exit code, lack of memory, the probe's answer, the platform's words.
    pub what: String,
    /// The last lines it wrote.
    pub last_lines: Vec<String>,
}

impl Evidence {
    /// What is known about a subject.
    #[must_use]
    pub fn new(subject: impl Into<String>, what: impl Into<String>, last_lines: Vec<String>) -> Self {
        Self { subject: subject.into(), what: what.into(), last_lines }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.what)?;
        for line in &self.last_lines {
            write!(f, "\n    | {line}")?;
        }
        Ok(())
    }
}

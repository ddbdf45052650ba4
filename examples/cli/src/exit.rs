//! Exit codes that scripts can use.

use std::process::ExitCode;

use deployer_core::{ErrorKind, Verdict};

/// What `--help` says about them.
pub(crate) const HELP: &str = "\
Exit codes:
    0  promoted, or done
    1  could not work: what to deploy, the engine or the store is at fault
    2  wrong usage
    3  the new release failed and was rolled back
    4  cancelled, and what was there before serves again
    5  superseded by another deployment
    6  needs attention: what was there before could not be brought back
    7  busy: another deployment of the application is under way
  130  interrupted: the deployment is left where it is, and can be resumed";

/// How the program ends. Wrong usage is told by clap, which exits with 2 as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    RolledBack = 3,
    Cancelled = 4,
    Superseded = 5,
    NeedsAttention = 6,
    Busy = 7,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<&Verdict> for Exit {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Promoted { .. } => Self::Done,
            Verdict::RolledBack { .. } => Self::RolledBack,
            Verdict::Cancelled { .. } => Self::Cancelled,
            Verdict::Superseded { .. } => Self::Superseded,
            // A verdict that this program does not know is one to look at.
            _ => Self::NeedsAttention,
        }
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Busy => Self::Busy,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use deployer_core::Failure;

    use super::*;

    #[test]
    fn every_verdict_has_a_code_of_its_own() {
        let cause = || Box::new(Failure::new("start", ErrorKind::Workload, "it crashes"));
        let verdicts = [
            (Verdict::Promoted { leftovers: vec!["a network".to_owned()] }, 0),
            (Verdict::RolledBack { cause: cause() }, 3),
            (Verdict::Cancelled { by: "me".to_owned() }, 4),
            (Verdict::Superseded { by: "other".to_owned() }, 5),
            (Verdict::NeedsAttention { cause: cause(), rollback: None }, 6),
        ];
        for (verdict, code) in verdicts {
            assert_eq!(Exit::from(&verdict) as u8, code, "{verdict}");
            assert!(HELP.contains(&format!("\n{code:>5}  ")), "the help says what {code} means");
        }
    }

    #[test]
    fn only_busy_errors_are_worth_waiting_for() {
        assert_eq!(Exit::from(ErrorKind::Busy) as u8, 7);
        for kind in [ErrorKind::InvalidInput, ErrorKind::Unavailable, ErrorKind::Conflict] {
            assert_eq!(Exit::from(kind) as u8, 1, "{kind}");
        }
    }
}

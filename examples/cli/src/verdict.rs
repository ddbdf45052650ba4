//! How a deployment ended, for people.

use std::fmt::Write as _;
use std::time::Duration;

use deployer_core::{DeploymentKind, DeploymentRecord, Failure, Human, ReleaseNumber, Timestamp, Verdict};

/// The last words of a deployment, with the diagnosis if it failed.
pub(crate) fn text(record: &DeploymentRecord) -> String {
    let app = &record.app;
    let release = |number: Option<ReleaseNumber>| number.map_or_else(|| "nothing".to_owned(), |n| n.to_string());
    let (target, baseline) = (release(record.target), release(record.baseline));
    let subject = match record.target {
        Some(target) => format!("{app} {target}"),
        None => app.to_string(),
    };
    let back = match record.baseline {
        Some(baseline) => format!("{baseline} serves, as before"),
        None => "nothing is left of it, as before".to_owned(),
    };
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = match &record.verdict {
        Some(Verdict::Promoted { leftovers }) => {
            let _ = match record.kind {
                DeploymentKind::Destroy { volumes: true } => write!(text, "{app} is removed, with its volumes"),
                DeploymentKind::Destroy { volumes: false } => write!(text, "{app} is removed; its volumes are kept"),
                DeploymentKind::Rollback { .. } => write!(text, "{app} is back on {target}"),
                _ => write!(text, "{subject} is promoted: it serves"),
            };
            let _ = writeln!(text, "{}", took(record));
            for leftover in leftovers {
                let _ = writeln!(text, "  left over, for the next deployment to clear away: {leftover}");
            }
            Ok(())
        }
        Some(Verdict::RolledBack { cause }) => {
            let _ = writeln!(text, "{subject} failed and is rolled back; {back}{}", took(record));
            let _ = writeln!(text);
            text.push_str(&diagnosis(cause));
            Ok(())
        }
        Some(Verdict::Cancelled { by }) => writeln!(text, "{subject} is cancelled by {by}; {back}{}", took(record)),
        Some(Verdict::Superseded { by }) => {
            writeln!(text, "{subject} is superseded: deployment {by} goes on from where it was")
        }
        Some(Verdict::NeedsAttention { cause, rollback }) => {
            let _ = writeln!(text, "{subject} needs attention: it failed, and {baseline} is not back{}", took(record));
            let _ = writeln!(text);
            text.push_str(&diagnosis(cause));
            if let Some(rollback) = rollback {
                let _ = writeln!(text, "\n  The way back failed too:\n");
                text.push_str(&diagnosis(rollback));
            }
            Ok(())
        }
        Some(other) => writeln!(text, "{subject}: {other}"),
        None => writeln!(text, "{subject} has no verdict yet"),
    };
    text
}

/// A failure with its evidence, indented.
fn diagnosis(failure: &Failure) -> String {
    failure.to_string().lines().map(|line| format!("  {line}\n")).collect()
}

/// How long a deployment took, or has taken until now.
pub(crate) fn duration(record: &DeploymentRecord, now: Timestamp) -> Duration {
    record.finished_at.unwrap_or(now).since(record.started_at)
}

fn took(record: &DeploymentRecord) -> String {
    match record.finished_at {
        Some(finished) => format!(" (after {})", Human(finished.since(record.started_at))),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record(kind: Value, target: Option<u64>, baseline: Option<u64>, verdict: Value) -> DeploymentRecord {
        let record = json!({
            "id": "d1", "app": "shop", "kind": kind, "target": target, "baseline": baseline, "owner": "me",
            "started_at": 0, "finished_at": 3400, "verdict": verdict, "last_seq": 9,
        });
        serde_json::from_value(record).unwrap()
    }

    fn cause() -> Value {
        json!({
            "step": "start 3 instances of web@aaaaaaaaaaaa", "kind": "workload",
            "summary": "web exits at once with code 3", "hint": "look at its configuration",
            "evidence": [{ "subject": "shop-web-1", "what": "exited with code 3", "last_lines": ["FATAL: no scheme"] }],
        })
    }

    #[test]
    fn a_rollback_comes_with_its_diagnosis() {
        let verdict = json!({ "verdict": "rolled-back", "cause": cause() });
        let expected = "\
shop v3 failed and is rolled back; v2 serves, as before (after 3.4s)

  web exits at once with code 3
    while trying to start 3 instances of web@aaaaaaaaaaaa
    shop-web-1: exited with code 3
      | FATAL: no scheme
    hint: look at its configuration
";
        assert_eq!(text(&record(json!({ "kind": "deploy" }), Some(3), Some(2), verdict)), expected);
    }

    #[test]
    fn a_way_back_that_failed_is_told_too() {
        let verdict = json!({ "verdict": "needs-attention", "cause": cause(), "rollback": cause() });
        let text = text(&record(json!({ "kind": "deploy" }), Some(3), Some(2), verdict));
        assert!(text.starts_with("shop v3 needs attention: it failed, and v2 is not back (after 3.4s)\n"), "{text}");
        assert_eq!(text.matches("  web exits at once with code 3\n").count(), 2, "{text}");
    }

    #[test]
    fn good_ends_take_one_line() {
        let promoted = json!({ "verdict": "promoted", "leftovers": [] });
        let ends = [
            (json!({ "kind": "deploy" }), Some(2), "shop v2 is promoted: it serves (after 3.4s)\n"),
            (json!({ "kind": "rollback", "from": 2 }), Some(1), "shop is back on v1 (after 3.4s)\n"),
            (json!({ "kind": "destroy", "volumes": true }), None, "shop is removed, with its volumes (after 3.4s)\n"),
        ];
        for (kind, target, expected) in ends {
            assert_eq!(text(&record(kind, target, Some(2), promoted.clone())), expected);
        }
        let cancelled = json!({ "verdict": "cancelled", "by": "me" });
        let first = record(json!({ "kind": "deploy" }), Some(1), None, cancelled);
        assert_eq!(text(&first), "shop v1 is cancelled by me; nothing is left of it, as before (after 3.4s)\n");
    }
}

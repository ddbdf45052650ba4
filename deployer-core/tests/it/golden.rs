//! What earlier versions have stored can be read for ever. The files are never changed; a new form gets new ones.

use deployer_core::{DeploymentRecord, Entry, Release, State};

fn entries(text: &str) -> Vec<Entry> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every journal of form 1: what it folds to, and that writing it again gives the same text.
#[test]
fn journals_of_form_1_are_read() {
    for (text, verdict) in [
        (include_str!("golden/journal-1-promoted.jsonl"), "promoted"),
        (include_str!("golden/journal-1-rolled-back.jsonl"), "rolled-back"),
        (include_str!("golden/journal-1-cancelled.jsonl"), "cancelled"),
    ] {
        let entries = entries(text);
        let state = State::fold(&entries).unwrap();
        assert_eq!(state.record.verdict.as_ref().map(deployer_core::Verdict::word), Some(verdict));
        for (entry, line) in entries.iter().zip(text.lines()) {
            assert_eq!(serde_json::to_string(entry).unwrap(), line);
        }
        let record = serde_json::to_string(&state.record).unwrap();
        assert_eq!(serde_json::from_str::<DeploymentRecord>(&record).unwrap(), state.record);
    }
}

#[test]
fn releases_of_form_1_are_read() {
    let text = include_str!("golden/release-1.json");
    let release: Release = serde_json::from_str(text).unwrap();
    assert_eq!(release.number.0, 2);
    assert_eq!(serde_json::to_string(&release).unwrap(), text.trim_end());
    // The names of revisions must not change either: containers carry them.
    let revisions: Vec<String> = release.revisions().values().map(ToString::to_string).collect();
    assert_eq!(revisions, REVISIONS);
}

/// That of `web` changed once, before the first release: ports with routes became a part of it.
const REVISIONS: [&str; 3] = ["cache@7467c4a67798", "web@cb1951699064", "worker@0575b72a65d2"];

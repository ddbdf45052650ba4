//! What is stored is read as it was written.

use std::fmt::Debug;

use deployer_core::{Plan, PlanRequest, Release, State, plan_back, plan_forward};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::apps::case;
use super::histories::{damage, damaged, history};

/// A value survives text and a tree of values, and its text is always the same.
fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Result<(), TestCaseError> {
    let text = serde_json::to_string(value).unwrap();
    let read: T = serde_json::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
    prop_assert_eq!(&read, value);
    prop_assert_eq!(serde_json::to_string(&read).unwrap(), text);
    // Stores may keep it inside of something else, with keys in another order.
    let tree = serde_json::to_value(value).unwrap();
    let read: T = serde_json::from_value(tree).unwrap();
    prop_assert_eq!(&read, value);
    Ok(())
}

proptest! {
    #[test]
    fn plans_releases_and_what_they_are_made_from_survive_json(case in case()) {
        let observed = case.stage.observed();
        let (app, id) = ("shop".parse().unwrap(), "d1".parse().unwrap());
        let baseline = case.baseline.as_ref();
        let request = PlanRequest::new(&app, &id, Some(&case.target), baseline, &observed, &case.warm);
        let plans: [Plan; 2] = [plan_forward(&request), plan_back(&request)];
        plans.iter().try_for_each(survives)?;
        survives(&observed)?;
        let releases: Vec<&Release> = [Some(&case.target), baseline, case.standby.as_ref()].into_iter().flatten().collect();
        for release in releases {
            survives(release)?;
            let read: Release = serde_json::from_str(&serde_json::to_string(release).unwrap()).unwrap();
            prop_assert_eq!(read.content_hash(), release.content_hash());
            prop_assert_eq!(read.revisions(), release.revisions());
        }
    }

    #[test]
    fn journals_and_their_states_survive_json(
        entries in history(), damages in vec(damage(), 0..2), renumber in any::<bool>(),
    ) {
        entries.iter().try_for_each(survives)?;
        let state = State::fold(&entries).unwrap();
        survives(&state)?;
        survives(&state.record)?;
        // What is refused before it is stored is refused afterwards, and for the same reason.
        let entries = damaged(entries, &damages, renumber);
        let read: Vec<_> = entries.iter().map(|entry| serde_json::from_str(&serde_json::to_string(entry).unwrap()).unwrap()).collect();
        let words = |entries: &[deployer_core::Entry]| State::fold(entries).map_err(|error| error.to_string());
        prop_assert_eq!(words(&entries).map(|state| state.record), words(&read).map(|state| state.record));
    }
}

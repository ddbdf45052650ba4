//! The fold of a journal accepts exactly the histories that the model of a deployment allows.

use deployer_core::{Entry, ErrorKind, State, Transition};
use proptest::collection::vec;
use proptest::prelude::*;

use super::histories::{Model, damage, damaged, history};

/// The number of entries that the model allows.
fn allowed(entries: &[Entry]) -> usize {
    let mut model = Model::default();
    entries.iter().take_while(|entry| model.take(entry)).count()
}

/// Checks every prefix of a journal against the model.
fn agrees(entries: &[Entry]) -> Result<(), TestCaseError> {
    let allowed = allowed(entries);
    let mut state: Option<State> = None;
    let mut model = Model::default();
    for (index, entry) in entries.iter().enumerate() {
        let judged = Transition::of(state.as_ref(), entry);
        prop_assert_eq!(judged.is_ok(), index < allowed, "{:?} at {}: {:?}", judged, index, entry);
        let before = state.clone();
        let applied = match &mut state {
            None => State::open(entry).map(|opened| state = Some(opened)),
            Some(state) => state.apply(entry),
        };
        match (judged, applied) {
            (Ok(_), Ok(())) => {}
            (Err(refusal), Err(error)) => {
                prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
                prop_assert_eq!(error.message(), refusal.reason());
                let place = format!("entry {}", entry.seq);
                prop_assert_eq!(error.resource(), Some(place.as_str()));
                prop_assert_eq!(&state, &before, "a refused entry leaves the state as it was");
                break;
            }
            (judged, applied) => prop_assert!(false, "{:?}, but {:?}", judged, applied),
        }
        model.take(entry);
        let state = state.as_ref().unwrap();
        prop_assert_eq!(state.record.last_seq, index as u64 + 1);
        prop_assert_eq!(state.fence, entry.fence);
        prop_assert_eq!(state.record.verdict.is_some(), model.closed);
        prop_assert_eq!(state.steps.len(), state.plan.steps.len());
    }
    let whole = State::fold(entries);
    prop_assert_eq!(whole.is_ok(), allowed == entries.len() && allowed > 0);
    let transitions = Transition::of_journal(entries);
    match (whole, transitions) {
        (Ok(whole), Ok(transitions)) => {
            prop_assert_eq!(Some(whole), state);
            prop_assert_eq!(transitions.len(), entries.len());
        }
        (Err(folded), Err(listed)) => prop_assert_eq!(folded.to_string(), listed.to_string()),
        (folded, listed) => prop_assert!(false, "{:?}, but {:?}", folded, listed),
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_history_that_the_model_allows_is_folded(entries in history()) {
        prop_assert_eq!(allowed(&entries), entries.len());
        agrees(&entries)?;
    }

    #[test]
    fn a_damaged_history_is_folded_as_far_as_the_model_allows(
        entries in history(), damages in vec(damage(), 1..4), renumber in any::<bool>(),
    ) {
        agrees(&damaged(entries, &damages, renumber))?;
    }

    #[test]
    fn two_histories_mixed_are_folded_as_far_as_the_model_allows(
        one in history(), other in history(), from in any::<prop::sample::Index>(), renumber in any::<bool>(),
    ) {
        let mut entries = one;
        entries.truncate(from.index(entries.len() + 1));
        entries.extend(other.into_iter().skip(entries.len()));
        agrees(&damaged(entries, &[], renumber))?;
    }
}

//! The journal decoder: from bytes to entries to a state. What decodes folds or is refused, never both, and what is
//! refused is refused with its entry.

use deployer_core::{Entry, ErrorKind, State, Transition};

pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut entries = Vec::new();
    for line in text.lines() {
        match serde_json::from_str::<Entry>(line) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                // As a store does: the place is the line, and the reader's words say where in it.
                assert!(!error.to_string().is_empty());
                break;
            }
        }
    }
    let folded = State::fold(&entries);
    let transitions = Transition::of_journal(&entries);
    match (&folded, &transitions) {
        (Ok(state), Ok(transitions)) => {
            assert_eq!(transitions.len(), entries.len());
            assert_eq!(state.record.last_seq, entries.len() as u64);
            assert_eq!(state.steps.len(), state.plan.steps.len());
            let closed = transitions.iter().filter(|transition| transition.name().starts_with("close-")).count();
            assert_eq!(closed == 1, state.record.verdict.is_some());
            let stored = serde_json::to_string(state).expect("a state can be stored");
            assert_eq!(&serde_json::from_str::<State>(&stored).expect("it can be read again"), state);
        }
        (Err(one), Err(other)) => {
            assert_eq!(one.to_string(), other.to_string());
            assert_eq!(one.kind(), ErrorKind::Corrupt);
            assert_eq!(one.resource().is_some_and(|place| place.starts_with("entry ")), !entries.is_empty());
        }
        _ => panic!("it is folded and refused: {folded:?}, {transitions:?}"),
    }
    // Entry by entry it comes to the same end.
    let mut state: Option<State> = None;
    for entry in &entries {
        let judged = Transition::of(state.as_ref(), entry);
        let taken = match &mut state {
            None => State::open(entry).map(|opened| state = Some(opened)),
            Some(state) => state.apply(entry),
        };
        assert_eq!(judged.is_ok(), taken.is_ok());
        if taken.is_err() {
            assert!(folded.is_err());
            return;
        }
        let written = serde_json::to_string(entry).expect("an entry can be stored");
        assert_eq!(&serde_json::from_str::<Entry>(&written).expect("it can be read again"), entry);
    }
    if let Ok(folded) = folded {
        assert_eq!(Some(folded), state);
    }
}

//! The variables that values may refer to, and where each has its value from.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::model::{Note, Place};

/// Where a variable has its value from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The embedding program gave it.
    Program,
    /// It is the application's name.
    ProjectName,
    /// A line of a file such as `.env`.
    File { name: Rc<str>, line: u32 },
}

impl Origin {
    /// A note that says it, without the value, which may be secret.
    pub(super) fn note(&self, variable: &str) -> Note {
        match self {
            Self::Program => Note::new(format!("the program gave {variable}")),
            Self::ProjectName => Note::new(format!("{variable} is the application's name")),
            Self::File { name, line } => Note::new(format!("{variable} is set here")).at(Place {
                file: name.to_string(),
                line: *line,
                column: 1,
            }),
        }
    }
}

/// Variables by name.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Variables(BTreeMap<String, (Rc<str>, Origin)>);

impl Variables {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|(value, _)| &**value)
    }

    pub(super) fn value_and_origin(&self, name: &str) -> Option<&(Rc<str>, Origin)> {
        self.0.get(name)
    }

    pub(super) fn set(&mut self, name: impl Into<String>, value: impl Into<Rc<str>>, origin: Origin) {
        self.0.insert(name.into(), (value.into(), origin));
    }

    /// Adds those of the others whose names are not there yet.
    pub(super) fn fill(&mut self, others: Self) {
        for (name, variable) in others.0 {
            self.0.entry(name).or_insert(variable);
        }
    }
}

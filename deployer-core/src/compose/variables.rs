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
#[derive(Clone, Default)]
pub(super) struct Variables {
    /// Those that win. They are shared, because many files may be included.
    outer: Option<Rc<Variables>>,
    own: BTreeMap<String, (Rc<str>, Origin)>,
}

impl Variables {
    /// These variables, as far as `outer` has none of their names.
    pub(super) fn within(self, outer: &Rc<Self>) -> Rc<Self> {
        if self.own.is_empty() {
            return Rc::clone(outer);
        }
        Rc::new(Self { outer: Some(Rc::clone(outer)), own: self.own })
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.value_and_origin(name).map(|(value, _)| &**value)
    }

    pub(super) fn value_and_origin(&self, name: &str) -> Option<&(Rc<str>, Origin)> {
        let outer = self.outer.as_ref().and_then(|outer| outer.value_and_origin(name));
        outer.or_else(|| self.own.get(name))
    }

    pub(super) fn set(&mut self, name: impl Into<String>, value: impl Into<Rc<str>>, origin: Origin) {
        self.own.insert(name.into(), (value.into(), origin));
    }

    /// Adds those of the others whose names are not there yet.
    pub(super) fn fill(&mut self, others: Self) {
        for (name, variable) in others.own {
            self.own.entry(name).or_insert(variable);
        }
    }
}

//! Collects every problem with its place, and remembers which node made which part of the model.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;

use super::cursor::Cursor;
use super::node::Position;
use crate::model::{Note, Place, Problem, Problems, Severity};

/// How many errors are kept, and how many warnings. A file with more is not read by a person to the end.
const MAX_PROBLEMS: usize = 200;

/// The problems of one read.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The names of the files that were read, by [`Position::file`].
    pub(super) files: Vec<String>,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    more_errors: usize,
    more_warnings: usize,
    unset: BTreeSet<String>,
    /// What was said of which place.
    told: HashSet<(Place, String)>,
    /// The values of which enough was said.
    settled: BTreeSet<String>,
    marks: BTreeMap<String, Mark>,
    /// The values that were put in for variables, which may be secret.
    hidden: BTreeMap<String, Rc<str>>,
}

/// The shortest value that is not shown. Shorter ones are no secrets, but parts of many words.
const MIN_SECRET: usize = 4;

/// The node that made a part of the model.
#[derive(Clone, Debug)]
struct Mark {
    path: String,
    at: Position,
    notes: Vec<Note>,
}

/// The text with the names of variables instead of their values.
fn hidden_in(hidden: &BTreeMap<String, Rc<str>>, mut text: String) -> String {
    for (name, value) in hidden {
        if value.len() > text.len() {
            continue;
        }
        let name = format!("${{{name}}}");
        text = text.replace(&**value, &name);
        // Messages quote what was written as Rust does.
        if text.contains('\\') {
            text = text.replace(&value.escape_debug().to_string(), &name);
        }
    }
    text
}

/// Where the variables of this node come from.
fn notes(cursor: &Cursor<'_>) -> Vec<Note> {
    let template = cursor.scalar().and_then(|scalar| scalar.template.as_ref());
    template.iter().flat_map(|template| &template.variables).map(|(name, origin)| origin.note(name)).collect()
}

impl Report {
    pub(super) fn place(&self, at: Position) -> Place {
        let file = self.files.get(at.file).cloned().unwrap_or_default();
        Place { file, line: at.line, column: at.column }
    }

    /// Adds an error.
    pub(super) fn problem(
        &mut self,
        path: &str,
        at: Position,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        let mut problem = Problem::error(path, message).at(self.place(at));
        problem.help = help.into();
        self.add(problem);
    }

    pub(super) fn add(&mut self, mut problem: Problem) {
        if self.settled.contains(&problem.path) {
            return;
        }
        let (kept, more) = match problem.severity {
            Severity::Error => (&mut self.errors, &mut self.more_errors),
            Severity::Warning => (&mut self.warnings, &mut self.more_warnings),
        };
        if kept.len() >= MAX_PROBLEMS {
            *more += 1;
            return;
        }
        // A value that is there several times, by an alias or `extends`, is wrong once.
        if let Some(place) = &problem.place
            && !self.told.insert((place.clone(), problem.message.clone()))
        {
            return;
        }
        problem.message = hidden_in(&self.hidden, problem.message);
        kept.push(problem);
    }

    /// Keeps the value of this variable out of all messages.
    pub(super) fn hide(&mut self, name: &str, value: &Rc<str>) {
        if value.len() >= MIN_SECRET && !self.hidden.contains_key(name) {
            self.hidden.insert(name.to_owned(), Rc::clone(value));
        }
    }

    /// Drops what else may be found wrong with this value, because it would only follow from what was reported.
    pub(super) fn settle(&mut self, path: &str) {
        self.settled.insert(path.to_owned());
    }

    /// Whether further errors are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= MAX_PROBLEMS
    }

    /// Adds an error at this node.
    pub(super) fn error(&mut self, cursor: &Cursor<'_>, message: impl Into<String>) {
        let problem = Problem::error(cursor.path.as_str(), message);
        self.add_at(cursor, problem);
    }

    /// Adds an error at this node, with what to do about it.
    pub(super) fn error_with_help(&mut self, cursor: &Cursor<'_>, message: impl Into<String>, help: impl Into<String>) {
        let problem = Problem::error(cursor.path.as_str(), message).with_help(help);
        self.add_at(cursor, problem);
    }

    /// Adds an error at this node, with another place that belongs to it.
    pub(super) fn error_with_note(
        &mut self,
        cursor: &Cursor<'_>,
        message: impl Into<String>,
        help: impl Into<String>,
        (note, at): (&str, Position),
    ) {
        let note = Note::new(note).at(self.place(at));
        let problem = Problem::error(cursor.path.as_str(), message).with_help(help).with_note(note);
        self.add_at(cursor, problem);
    }

    /// Adds a problem of this node, with where its variables come from.
    fn add_at(&mut self, cursor: &Cursor<'_>, mut problem: Problem) {
        problem.place = Some(self.place(cursor.node.at));
        problem.notes.extend(notes(cursor));
        self.add(problem);
    }

    /// Adds a warning at this place.
    pub(super) fn warn_at(&mut self, path: &str, at: Position, message: impl Into<String>, help: Option<String>) {
        let mut problem = Problem::warning(path, message).at(self.place(at));
        problem.help = help;
        self.add(problem);
    }

    /// Adds a warning at this node.
    pub(super) fn warn(&mut self, cursor: &Cursor<'_>, message: impl Into<String>, help: impl Into<String>) {
        let problem = Problem::warning(cursor.path.as_str(), message).with_help(help);
        self.add_at(cursor, problem);
    }

    /// Warns of a variable without a value, once for each.
    pub(super) fn unset(&mut self, path: &str, at: Position, name: &str) {
        if self.unset.insert(name.to_owned()) {
            let message = format!("the variable {name} is not set; it counts as empty");
            let help = format!("set it, or give it a default: `${{{name}:-default}}`");
            self.warn_at(path, at, message, Some(help));
        }
    }

    /// Notes that the part of the model at `model_path` was made from this node.
    pub(super) fn mark(&mut self, model_path: impl Into<String>, cursor: &Cursor<'_>) {
        let mark = Mark { path: cursor.path.clone(), at: cursor.node.at, notes: notes(cursor) };
        self.marks.insert(model_path.into(), mark);
    }

    /// Notes that the part of the model at `model_path` was made from what is written there.
    pub(super) fn mark_at(&mut self, model_path: impl Into<String>, path: &str, at: Position) {
        self.marks.insert(model_path.into(), Mark { path: path.to_owned(), at, notes: Vec::new() });
    }

    /// Adds problems that were found in the model, each with the path and place in the file that made the part.
    pub(super) fn adopt(&mut self, problems: Problems) {
        for mut problem in problems.0 {
            let mut end = problem.path.len();
            loop {
                if let Some(mark) = self.marks.get(&problem.path[..end]) {
                    problem.place = Some(self.place(mark.at));
                    problem.notes.extend(mark.notes.iter().cloned());
                    problem.path = format!("{}{}", mark.path, hidden_in(&self.hidden, problem.path[end..].to_owned()));
                    break;
                }
                match problem.path[..end].rfind(['.', '[']) {
                    Some(shorter) => end = shorter,
                    None => break,
                }
            }
            self.add(problem);
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// All problems, in the order of the files.
    pub(super) fn finish(self) -> Problems {
        let mut problems = self.errors;
        problems.extend(self.warnings);
        let order =
            |problem: &Problem| problem.place.as_ref().map(|place| (place.file.clone(), place.line, place.column));
        problems.sort_by_key(order);
        if self.more_errors > 0 {
            let message = format!("there are {} more problems", self.more_errors + self.more_warnings);
            problems.push(Problem::error("", message).with_help("correct these first"));
        } else if self.more_warnings > 0 {
            problems.push(Problem::warning("", format!("there are {} more warnings", self.more_warnings)));
        }
        Problems(problems)
    }
}

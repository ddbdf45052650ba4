//! Loads files into one model: text becomes a tree, variables are put in, `include` and `extends` are resolved, and the
//! trees of several files are merged.

use std::collections::HashMap;

use super::budget::Budget;
use super::cursor::Cursor;
use super::node::{Node, Value};
use super::report::Report;
use super::sources::{Location, Scope, Sources};
use super::{extends, include, interpolate, load, merge, source, template};

/// How many Compose files are read for one application.
pub(super) const MAX_FILES: usize = 100;

/// What all files of one read share.
pub(super) struct Loader<'r> {
    pub(super) report: &'r mut Report,
    pub(super) sources: Sources,
    pub(super) budget: Budget,
    /// How much text variables may add.
    text_left: usize,
    /// The variables of included files, by the files that hold them and the variables that win; none if they cannot be
    /// read.
    pub(super) scopes: HashMap<(Vec<Location>, Scope), Option<Scope>>,
    /// How deep in `include` the files are that are being read.
    pub(super) depth: usize,
    /// Whether nothing is missing from the model.
    pub(super) complete: bool,
}

impl<'r> Loader<'r> {
    pub(super) fn new(report: &'r mut Report, sources: Sources) -> Self {
        let (budget, scopes) = (Budget::default(), HashMap::new());
        Self { report, sources, budget, text_left: template::MAX_BYTES, scopes, depth: 0, complete: true }
    }

    /// Makes trees of the documents in a file's text. None, reported, if it cannot be read.
    pub(super) fn parse(&mut self, name: String, text: &str, dir: Location, scope: Scope) -> Option<Vec<Node>> {
        let file = self.sources.add(dir, scope);
        self.report.files.push(name);
        match source::parse(text, file, &mut self.budget) {
            Ok(trees) => Some(trees),
            Err(faults) => {
                for fault in faults {
                    self.report.problem(&fault.path, fault.at, fault.message, fault.help.map(str::to_owned));
                }
                self.complete = false;
                None
            }
        }
    }

    /// Makes trees of the documents in the file that is named at the cursor. None, reported, if it cannot be read.
    pub(super) fn file(
        &mut self,
        cursor: &Cursor<'_>,
        file: &Location,
        dir: Location,
        scope: Scope,
    ) -> Option<Vec<Node>> {
        self.room(cursor)?;
        let why = match load::text(&file.absolute) {
            Ok(Some(text)) => return self.parse(file.shown(), &text, dir, scope),
            Ok(None) => format!("there is no file {}", file.shown()),
            Err(why) => format!("{}: {why}", file.shown()),
        };
        self.report.error(cursor, why);
        self.complete = false;
        None
    }

    /// Whether a further file may be read. None, reported, if not.
    pub(super) fn room(&mut self, cursor: &Cursor<'_>) -> Option<()> {
        if self.sources.count() < MAX_FILES {
            return Some(());
        }
        self.report.error(cursor, format!("no more than {MAX_FILES} Compose files are read"));
        self.complete = false;
        None
    }

    /// The model that the trees make together, each overriding those before it. `trail` are the files that are being
    /// read, the last of them these.
    pub(super) fn model(&mut self, trees: Vec<Node>, trail: &[Location]) -> Option<Node> {
        let mut model: Option<Node> = None;
        let empty = trees.iter().all(|tree| tree.value == Value::Null);
        if let Some(tree) = trees.first().filter(|_| empty) {
            let help = "it needs at least `services:` with one service".to_owned();
            self.report.problem("", tree.at, "the file is empty", help);
            self.complete = false;
        }
        for mut tree in trees {
            // Such as an overriding file of which everything is a comment.
            if tree.value == Value::Null {
                continue;
            }
            if !matches!(tree.value, Value::Map(_)) {
                self.report.problem("", tree.at, "a Compose file is a mapping", "begin with `services:`".to_owned());
                self.complete = false;
                continue;
            }
            self.interpolate(&mut tree, "");
            include::apply(self, &mut tree, trail);
            extends::apply(self, &mut tree);
            let mut merged = match model {
                Some(model) => merge::merge(self.report, model, tree, &[]),
                None => tree,
            };
            merge::settle(&mut merged);
            model = Some(merged);
        }
        model
    }

    /// Puts variables into every value of a tree.
    pub(super) fn interpolate(&mut self, node: &mut Node, path: &str) {
        let variables = self.sources.variables(node.at);
        interpolate::apply(node, path, variables, &mut self.text_left, self.report);
    }

    /// Where the path that is written at the cursor leads to. None, reported, if it is no file of this computer.
    pub(super) fn locate(&mut self, cursor: &Cursor<'_>) -> Option<Location> {
        let text = self.report.text(cursor)?;
        if text.is_empty() {
            self.report.error(cursor, "the path is empty");
        } else if text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/") {
            let help = "fetch it, and name the file";
            self.report.error_with_help(cursor, "only files of this computer are read", help);
        } else if text.starts_with('~') {
            let help = "write the path out, or use a variable: `${HOME}/...`";
            self.report.error_with_help(cursor, "`~` depends on who deploys", help);
        } else {
            return Some(self.sources.dir(cursor.node.at).join(text));
        }
        self.complete = false;
        None
    }
}

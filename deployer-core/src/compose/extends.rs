//! `extends`: a service begins as a copy of another, of the same file or of a further one.

use std::collections::HashMap;
use std::path::PathBuf;

use super::cursor::Cursor;
use super::loader::Loader;
use super::node::{Entry, Merging, Node, Value};
use super::sources::Scope;
use super::{check, keys, merge};

/// How many services may extend each other in a row.
const MAX_DEPTH: usize = 64;

/// Resolves `extends` in all services of a tree.
pub(super) fn apply(loader: &mut Loader<'_>, tree: &mut Node) {
    let Some(services) = tree.get_mut("services") else { return };
    let Value::Map(entries) = &mut services.value else { return };
    let entries = std::mem::take(entries);
    let mut resolver =
        Resolver { loader, books: vec![Book::new(entries, None)], files: HashMap::new(), trail: Vec::new() };
    for index in 0..resolver.books[0].services.len() {
        resolver.resolve(Id { book: 0, index });
    }
    services.value = Value::Map(resolver.books.swap_remove(0).services);
}

/// The services of a file.
struct Book {
    /// How messages name the file; none for the one whose services are resolved.
    file: Option<String>,
    services: Vec<Entry>,
    states: Vec<State>,
    index: HashMap<String, usize>,
}

/// How far a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// As it was written.
    Written,
    /// It has got what it extends, this many services in a row.
    Resolved(usize),
    /// What it extends cannot be found. That was reported, and what follows from it is not worth telling.
    Broken,
}

/// A service of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id {
    book: usize,
    index: usize,
}

struct Resolver<'l, 'r> {
    loader: &'l mut Loader<'r>,
    books: Vec<Book>,
    /// The books of further files, by path and variables; none for a file that cannot be read.
    files: HashMap<(PathBuf, Scope), Option<usize>>,
    /// The services that are being resolved, each extending the next.
    trail: Vec<Id>,
}

impl Book {
    fn new(services: Vec<Entry>, file: Option<String>) -> Self {
        let index = services.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)).collect();
        Self { file, states: vec![State::Written; services.len()], services, index }
    }
}

impl Resolver<'_, '_> {
    fn entry(&mut self, id: Id) -> &mut Entry {
        &mut self.books[id.book].services[id.index]
    }

    fn resolve(&mut self, id: Id) {
        let state = &mut self.books[id.book].states[id.index];
        if *state != State::Written {
            return;
        }
        *state = State::Resolved(0);
        if self.books[id.book].file.is_some() {
            // Only of what is used, so that the other services of the file may have variables of their own.
            let entry = &mut self.books[id.book].services[id.index];
            self.loader.interpolate(&mut entry.value, &format!("services.{}", entry.key));
        }
        let entry = self.entry(id);
        let path = format!("services.{}.extends", entry.key);
        let Some(extends) = entry.value.take("extends") else { return };
        let cursor = Cursor { node: &extends.value, path };
        if cursor.is_null() {
            return;
        }
        self.trail.push(id);
        let base = self.base(&cursor, id);
        if let Some(base) = base {
            self.resolve(base);
        }
        self.trail.pop();
        let state = match base.map(|base| (base, self.books[base.book].states[base.index])) {
            Some((base, State::Resolved(depth))) if depth < MAX_DEPTH => {
                self.join(&cursor, id, base);
                State::Resolved(depth + 1)
            }
            Some((_, State::Resolved(_))) => {
                self.too_deep(&cursor);
                State::Broken
            }
            _ => State::Broken,
        };
        if state == State::Broken {
            let path = format!("services.{}", self.entry(id).key);
            self.loader.report.settle(&path);
            self.loader.complete = false;
        }
        self.books[id.book].states[id.index] = state;
    }

    fn too_deep(&mut self, cursor: &Cursor<'_>) {
        let message = format!("more than {MAX_DEPTH} services extend each other in a row");
        self.loader.report.error(cursor, message);
    }

    /// The service that is extended. None, reported, if there is none.
    fn base(&mut self, cursor: &Cursor<'_>, id: Id) -> Option<Id> {
        let (name_at, file_at) = if cursor.scalar().is_some() {
            (cursor.clone(), None)
        } else {
            let fields = self.loader.report.fields(cursor, &keys::EXTENDS)?;
            (fields.require(self.loader.report, "service")?, fields.get("file"))
        };
        let name = self.loader.report.text(&name_at)?;
        let book = match file_at {
            Some(cursor) => self.book(&cursor)?,
            None => id.book,
        };
        let Some(index) = self.books[book].index.get(&name) else {
            let within = self.books[book].file.as_deref().unwrap_or("this file");
            let message = format!("there is no service {name} in {within}");
            let known = self.books[book].services.iter().map(|entry| entry.key.as_str());
            match check::nearest(&name, known) {
                Some(known) => self.loader.report.error_with_help(&name_at, message, format!("did you mean {known}?")),
                None => {
                    let help = "only one file is searched; name another with `file`";
                    self.loader.report.error_with_help(&name_at, message, help);
                }
            }
            return None;
        };
        let base = Id { book, index: *index };
        if let Some(start) = self.trail.iter().position(|id| *id == base) {
            let circle: Vec<String> = self.trail[start..].iter().chain([&base]).map(|id| self.named(*id)).collect();
            let message = format!("services extend each other: {}", circle.join(" -> "));
            self.loader.report.error_with_help(cursor, message, "let one of them stand alone");
            return None;
        }
        if self.trail.len() > MAX_DEPTH {
            self.too_deep(cursor);
            return None;
        }
        Some(base)
    }

    fn named(&self, id: Id) -> String {
        let book = &self.books[id.book];
        let name = &book.services[id.index].key;
        match &book.file {
            Some(file) => format!("{name} in {file}"),
            None => name.clone(),
        }
    }

    /// The services of the file that is named at the cursor.
    fn book(&mut self, cursor: &Cursor<'_>) -> Option<usize> {
        let file = self.loader.locate(cursor)?;
        let scope = self.loader.sources.scope_at(cursor.node.at);
        let key = (file.absolute.clone(), scope);
        if let Some(known) = self.files.get(&key) {
            return *known;
        }
        let book = self.loader.file(cursor, &file, file.parent(), scope).and_then(|trees| {
            let mut tree = trees.into_iter().reduce(|tree, over| merge::merge(self.loader.report, tree, over, &[]))?;
            match tree.take("services").map(|entry| entry.value.value) {
                Some(Value::Map(services)) => {
                    self.books.push(Book::new(services, Some(file.shown())));
                    Some(self.books.len() - 1)
                }
                _ => {
                    self.loader.report.error(cursor, format!("there are no services in {}", file.shown()));
                    None
                }
            }
        });
        self.files.insert(key, book);
        book
    }

    /// Lays a service over a copy of its base.
    fn join(&mut self, cursor: &Cursor<'_>, id: Id, base: Id) {
        let measure = self.entry(base).value.measure();
        if !self.loader.budget.take(measure.nodes, measure.bytes) {
            self.loader.report.error(cursor, "the application grows too large when `extends` is resolved");
            self.loader.complete = false;
            return;
        }
        let mut copy = self.entry(base).value.clone();
        merge::settle(&mut copy);
        let entry = self.entry(id);
        let (name, at) = (entry.key.clone(), entry.value.at);
        let service = std::mem::replace(&mut entry.value, Node::new(Value::Null, at));
        // A tag of the service itself is for the files that it is merged with.
        let merging = service.merging;
        let service = Node { merging: Merging::Merge, ..service };
        let merged = merge::merge(self.loader.report, copy, service, &["services", &name]);
        self.entry(id).value = Node { at, merging, ..merged };
    }
}

//! `include`: what other Compose files declare belongs to the application too.

use std::collections::HashMap;
use std::rc::Rc;

use super::cursor::Cursor;
use super::env_file::{self, Presence};
use super::loader::Loader;
use super::node::{Merging, Node, Position, Value};
use super::sources::{Location, Scope, Sources};
use super::variables::Variables;
use super::{check, keys};
use crate::model::{Note, Problem};

/// How deep files may include each other.
const MAX_DEPTH: usize = 16;

/// The parts of a file whose entries are included.
const PARTS: [&str; 6] = ["services", "networks", "volumes", "secrets", "configs", "models"];

/// Adds what the files under `include` declare to the tree. `trail` are the files that are being read.
pub(super) fn apply(loader: &mut Loader<'_>, tree: &mut Node, trail: &[Location]) {
    let Some(include) = tree.take("include") else { return };
    let cursor = Cursor { node: &include.value, path: "include".to_owned() };
    if cursor.is_null() {
        return;
    }
    for item in loader.report.items(&cursor) {
        match model(loader, &item, trail) {
            Some(model) => add(loader, tree, model),
            None => loader.complete = false,
        }
    }
}

/// Reads the files of one item. None, reported, if they cannot be read.
fn model(loader: &mut Loader<'_>, item: &Cursor<'_>, trail: &[Location]) -> Option<Node> {
    let (paths, directory, env_files) = if item.scalar().is_some() {
        (vec![item.clone()], None, None)
    } else {
        let fields = loader.report.fields(item, &keys::INCLUDE)?;
        let path = fields.require(loader.report, "path")?;
        (loader.report.one_or_more(&path), fields.get("project_directory"), fields.get("env_file"))
    };
    // Each path to its end, because all problems are to be found at once.
    let files: Vec<_> = paths.iter().map(|path| Some((path, file(loader, path, trail)?))).collect();
    let files: Vec<(&Cursor<'_>, Location)> = files.into_iter().collect::<Option<_>>()?;
    let Some((_, first)) = files.first() else {
        loader.report.error(item, "no file is named");
        return None;
    };
    // Before files of variables are read for it.
    loader.room(item)?;
    let directory = match directory {
        Some(cursor) => loader.locate(&cursor)?,
        None => first.parent(),
    };
    let scope = scope(loader, item.node.at, &directory, env_files)?;
    let trail: Vec<Location> = trail.iter().chain(files.iter().map(|(_, file)| file)).cloned().collect();
    let mut trees = Vec::new();
    for (path, file) in &files {
        trees.push(loader.file(path, file, directory.clone(), scope));
    }
    let mut trees: Vec<Node> = trees.into_iter().collect::<Option<Vec<_>>>()?.concat();
    for tree in &mut trees {
        // The application has one name, that of the including file.
        tree.take("name");
    }
    loader.depth += 1;
    let model = loader.model(trees, &trail);
    loader.depth -= 1;
    model
}

/// The file that is named at the cursor. None, reported, if it is being read already.
fn file(loader: &mut Loader<'_>, cursor: &Cursor<'_>, trail: &[Location]) -> Option<Location> {
    let file = loader.locate(cursor)?;
    if let Some(start) = trail.iter().position(|known| known.absolute == file.absolute) {
        let circle: Vec<String> = trail[start..].iter().chain([&file]).map(Location::shown).collect();
        let help = "move what both need into a file of its own";
        loader.report.error_with_help(cursor, format!("files include each other: {}", circle.join(" -> ")), help);
        return None;
    }
    if loader.depth >= MAX_DEPTH {
        loader.report.error(cursor, format!("files include each other deeper than {MAX_DEPTH} levels"));
        return None;
    }
    Some(file)
}

/// The variables for the included files: those of the including one, then those of `env_file`, or of `.env` in the
/// directory. None, reported, if they cannot be read.
fn scope(loader: &mut Loader<'_>, at: Position, directory: &Location, files: Option<Cursor<'_>>) -> Option<Scope> {
    let (files, presence) = match files {
        None => (vec![directory.join(".env")], Presence::Optional),
        Some(cursor) => {
            let mut items = loader.report.one_or_more(&cursor);
            // A usual way to say that there is none.
            items.retain(|item| item.scalar().is_none_or(|scalar| scalar.text != "/dev/null"));
            let files: Vec<Option<Location>> = items.iter().map(|item| loader.locate(item)).collect();
            (files.into_iter().collect::<Option<_>>()?, Presence::Required)
        }
    };
    let outer = loader.sources.scope_at(at);
    let key = (files, outer);
    if let Some(known) = loader.scopes.get(&key) {
        return *known;
    }
    let outer = Rc::clone(loader.sources.variables_in(outer));
    let mut own = Variables::default();
    let mut good = true;
    for file in &key.0 {
        good &= env_file::read(loader.report, file, presence, &outer, &mut own);
    }
    let scope = good.then(|| loader.sources.scope(own.within(&outer)));
    loader.scopes.insert(key, scope);
    scope
}

/// Adds what the model declares to the tree. What both declare must be the same, unless the tree overrides or resets it.
fn add(loader: &mut Loader<'_>, tree: &mut Node, mut model: Node) {
    check::keys(loader.report, &Cursor::root(&model), &keys::TOP);
    for part in PARTS.into_iter().filter(|part| keys::TOP.supports(part)) {
        let Some(included) = model.take(part) else { continue };
        let Value::Map(entries) = included.value.value else {
            let cursor = Cursor { node: &included.value, path: part.to_owned() };
            loader.report.entries(&cursor);
            continue;
        };
        let Some(own) = tree.entry(part, included.key_at) else { continue };
        if own.value == Value::Null {
            own.value = Value::Map(Vec::new());
        }
        // Something else is reported when the tree is read.
        let Value::Map(own) = &mut own.value else { continue };
        let index: HashMap<String, usize> =
            own.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)).collect();
        for entry in entries {
            match index.get(&entry.key) {
                None => own.push(entry),
                // A tag says what is meant.
                Some(index) if own[*index].value.merging != Merging::Merge => {}
                Some(index) if same(&loader.sources, part, &own[*index].value, &entry.value) => {}
                Some(index) => {
                    let path = format!("{part}.{}", entry.key);
                    let message = format!("{path} is declared in an included file and elsewhere");
                    let help =
                        "rename one; to change what is included, add a file: `path: [included.yaml, changes.yaml]`";
                    let note = Note::new("it is declared here too").at(loader.report.place(own[*index].key_at));
                    let place = loader.report.place(entry.key_at);
                    loader.report.add(Problem::error(path, message).at(place).with_help(help).with_note(note));
                }
            }
        }
    }
}

/// Whether both values mean the same. Those of services depend on the directory and the variables of their files.
fn same(sources: &Sources, part: &str, one: &Node, other: &Node) -> bool {
    let alike = |text: &str| part != "services" || sources.alike(text, one.at, other.at);
    match (&one.value, &other.value) {
        (Value::Null, Value::Null) => true,
        (Value::Scalar(a), Value::Scalar(b)) => a.text == b.text && alike(&a.text),
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(sources, part, a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|(a, b)| a.key == b.key && alike(&a.key) && same(sources, part, &a.value, &b.value))
        }
        _ => false,
    }
}

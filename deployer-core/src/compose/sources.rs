//! Which files were read, and what the values in each of them depend on: a directory and variables.

use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use super::cursor::Cursor;
use super::node::Position;
use super::report::Report;
use super::variables::Variables;

/// A file or directory: where it is, and how messages name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Location {
    pub(super) absolute: PathBuf,
    shown: PathBuf,
}

impl Location {
    /// The place that the program named; a relative one is looked for in the working directory.
    ///
    /// # Errors
    /// When there is no working directory.
    pub(super) fn new(path: &Path) -> std::io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Ok(Self { absolute: tidy(&std::path::absolute(path)?), shown: short(path) })
    }

    /// What is meant by this path when it is written in a file that belongs to this directory.
    pub(super) fn join(&self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        Self { absolute: tidy(&self.absolute.join(path)), shown: short(&self.shown.join(path)) }
    }

    /// The directory that it is in.
    pub(super) fn parent(&self) -> Self {
        let parent = |path: &Path| path.parent().unwrap_or(path).to_owned();
        // `..` has a parent that cannot be found by shortening it.
        let shown = if self.shown.file_name().is_some() { parent(&self.shown) } else { self.shown.join("..") };
        Self { absolute: parent(&self.absolute), shown }
    }

    /// How messages name it.
    pub(super) fn shown(&self) -> String {
        self.shown.display().to_string()
    }
}

/// The path without `.` and `..`. Links are not followed, as in Compose.
pub(super) fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                tidy.pop();
            }
            other => tidy.push(other),
        }
    }
    tidy
}

/// The path without `.`, and without `..` where a directory stands before it.
fn short(path: &Path) -> PathBuf {
    let mut short = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(short.components().next_back(), Some(Component::Normal(_))) => {
                short.pop();
            }
            other => short.push(other),
        }
    }
    short
}

/// A set of variables in [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scope(usize);

/// The files that were read, by [`Position::file`].
pub(super) struct Sources {
    files: Vec<Source>,
    scopes: Vec<Rc<Variables>>,
}

/// What the values of a file depend on.
struct Source {
    dir: Location,
    scope: Scope,
}

impl Sources {
    /// No files yet, and the variables of the files that the program names.
    pub(super) fn new(variables: Variables) -> Self {
        Self { files: Vec::new(), scopes: vec![Rc::new(variables)] }
    }

    /// The variables of the files that the program names.
    pub(super) const MAIN: Scope = Scope(0);

    /// Adds a file whose relative paths begin at `dir`, and answers its index.
    pub(super) fn add(&mut self, dir: Location, scope: Scope) -> usize {
        self.files.push(Source { dir, scope });
        self.files.len() - 1
    }

    /// The absolute path that is meant; none, reported, if there is no telling.
    pub(super) fn path(&self, report: &mut Report, cursor: &Cursor<'_>, text: &str) -> Option<String> {
        let at_home = (text == "~").then_some("").or_else(|| text.strip_prefix("~/"));
        let home = self.variables(cursor.node.at).get("HOME").filter(|home| !home.is_empty());
        let text = match (at_home, home) {
            (Some(rest), Some(home)) => &format!("{home}/{rest}"),
            (None, _) if !text.starts_with('~') => text,
            _ => {
                let help = "give the variable HOME, or write the path out";
                report.error_with_help(cursor, "`~` depends on who deploys", help);
                return None;
            }
        };
        if text.is_empty() {
            report.error(cursor, "the path is empty");
            return None;
        }
        match self.dir(cursor.node.at).join(text).absolute.into_os_string().into_string() {
            Ok(path) => Some(path),
            Err(_) => {
                report.error(cursor, "the project's directory is not named in UTF-8");
                None
            }
        }
    }

    /// How many files there are.
    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    /// The scope with these variables.
    pub(super) fn scope(&mut self, variables: Rc<Variables>) -> Scope {
        let known = self.scopes.iter().position(|known| Rc::ptr_eq(known, &variables));
        Scope(known.unwrap_or_else(|| {
            self.scopes.push(variables);
            self.scopes.len() - 1
        }))
    }

    /// The directory that relative paths begin at which are written there.
    pub(super) fn dir(&self, at: Position) -> &Location {
        &self.files[at.file].dir
    }

    /// The scope of what is written there.
    pub(super) fn scope_at(&self, at: Position) -> Scope {
        self.files[at.file].scope
    }

    /// Whether the same text means the same at both places, as a path and as the name of a variable.
    pub(super) fn alike(&self, text: &str, one: Position, other: Position) -> bool {
        self.dir(one).absolute == self.dir(other).absolute
            && self.variables(one).get(text) == self.variables(other).get(text)
    }

    pub(super) fn variables_in(&self, scope: Scope) -> &Rc<Variables> {
        &self.scopes[scope.0]
    }

    pub(super) fn variables_mut(&mut self, scope: Scope) -> &mut Variables {
        Rc::make_mut(&mut self.scopes[scope.0])
    }

    /// The variables that count for what is written there.
    pub(super) fn variables(&self, at: Position) -> &Rc<Variables> {
        self.variables_in(self.scope_at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_tidied() {
        for (path, expected) in [("/a/./b", "/a/b"), ("/a/../b", "/b"), ("/../..", "/"), ("/a//b/", "/a/b")] {
            assert_eq!(tidy(Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn messages_name_files_as_the_program_would() {
        for (dir, path, expected) in [
            ("", "compose.yaml", "compose.yaml"),
            ("", "./a/compose.yaml", "a/compose.yaml"),
            ("", "../a.yaml", "../a.yaml"),
            ("shop", "../a.yaml", "a.yaml"),
            ("../shop", "../a.yaml", "../a.yaml"),
            ("shop", "/srv/a.yaml", "/srv/a.yaml"),
            ("/srv/shop", "../a.yaml", "/srv/a.yaml"),
        ] {
            let location = Location::new(Path::new(dir)).unwrap().join(path);
            assert_eq!(location.shown(), expected, "{dir} and {path}");
        }
        let above = Location::new(Path::new("..")).unwrap();
        assert_eq!(above.join("compose.yaml").parent().shown(), "..");
        assert_eq!(above.parent().shown(), "../..");
    }
}

//! What all services of a file share: the directory, the variables, the secrets.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::cursor::Cursor;
use super::interpolate::Lookup;
use super::report::Report;

/// The surroundings of a service.
pub(super) struct Project<'a> {
    /// The absolute directory that relative paths begin at.
    pub(super) dir: &'a Path,
    pub(super) variables: Lookup<'a>,
    /// The names of external secrets, by the names that the file uses.
    pub(super) secrets: BTreeMap<String, String>,
    /// How many files may still be read.
    pub(super) reads_left: Cell<usize>,
    /// The services that are not left out.
    pub(super) services: BTreeSet<&'a str>,
}

impl Project<'_> {
    /// The absolute path that is meant; none, reported, if there is no telling.
    pub(super) fn path(&self, report: &mut Report, cursor: &Cursor<'_>, text: &str) -> Option<String> {
        if text.starts_with('~') {
            let help = "write the path out, or use a variable: `${HOME}/...`";
            report.error_with_help(cursor, "`~` depends on who deploys", help);
            return None;
        }
        if text.is_empty() {
            report.error(cursor, "the path is empty");
            return None;
        }
        match tidy(&self.dir.join(text)).into_os_string().into_string() {
            Ok(path) => Some(path),
            Err(_) => {
                report.error(cursor, "the project's directory is not named in UTF-8");
                None
            }
        }
    }
}

/// How many files all services together may name.
pub(super) const MAX_READS: usize = 1_000;

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

/// The name that Compose gives to a project in this directory: its last part, with only the characters that may be in
/// the name of a project.
pub(super) fn name_of(dir: &Path) -> String {
    let last = dir.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let kept = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let name: String = last.chars().filter(kept).collect();
    name.trim_start_matches(['-', '_']).chars().take(63).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_from_directories() {
        for (dir, name) in [("/srv/Shop", "shop"), ("/srv/_my app.2", "myapp2"), ("/", ""), ("/srv/über", "ber")] {
            assert_eq!(name_of(Path::new(dir)), name, "{dir}");
        }
    }

    #[test]
    fn paths_are_tidied() {
        for (path, expected) in [("/a/./b", "/a/b"), ("/a/../b", "/b"), ("/../..", "/"), ("/a//b/", "/a/b")] {
            assert_eq!(tidy(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}

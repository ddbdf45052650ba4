//! What all services of a file share: the directory, the variables, the secrets.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::cursor::Cursor;
use super::node::Position;
use super::report::Report;
use super::sources::Sources;

/// The surroundings of a service.
pub(super) struct Project<'a> {
    /// The files, with their directories and variables.
    pub(super) sources: &'a Sources,
    /// The names of external secrets, by the names that the file uses.
    pub(super) secrets: BTreeMap<String, String>,
    /// How many files may still be read.
    pub(super) reads_left: Cell<usize>,
    /// How many ports the services may still have.
    pub(super) ports_left: Cell<usize>,
    /// The services that are not left out.
    pub(super) services: BTreeSet<&'a str>,
    /// The services that are left out because of their profiles, which are the values.
    pub(super) left_out: BTreeMap<&'a str, Vec<String>>,
}

impl Project<'_> {
    /// The value that a variable has for what is written there.
    pub(super) fn variable(&self, at: Position, name: &str) -> Option<&str> {
        self.sources.variables(at).get(name)
    }

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
        match self.sources.dir(cursor.node.at).join(text).absolute.into_os_string().into_string() {
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
/// How many ports all services together may have after ranges are written out.
pub(super) const MAX_ALL_PORTS: usize = 20_000;

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
}

//! What all services of a file share: the directory, the variables, the secrets.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::cursor::Cursor;
use super::load;
use super::node::Position;
use super::report::Report;
use super::sources::Sources;
use crate::model::ServiceName;

/// The surroundings of a service.
pub(super) struct Project<'a> {
    /// The files, with their directories and variables.
    pub(super) sources: &'a Sources,
    /// The names of secrets for [`Secrets`](crate::Secrets), by the names that the file uses.
    pub(super) secrets: BTreeMap<String, String>,
    /// What configs hold, by their names.
    pub(super) configs: BTreeMap<String, String>,
    /// The services that others wait for to complete.
    pub(super) tasks: RefCell<BTreeSet<ServiceName>>,
    /// Further names under which a service wants to reach another one.
    pub(super) links: RefCell<Vec<Link>>,
    /// How many files may still be read.
    pub(super) reads_left: Cell<usize>,
    /// How many ports the services may still have.
    pub(super) ports_left: Cell<usize>,
    /// The services that are not left out.
    pub(super) services: BTreeSet<&'a str>,
    /// The services that are left out because of their profiles, which are the values.
    pub(super) left_out: BTreeMap<&'a str, Vec<String>>,
}

/// A further name under which a service wants to reach another one.
pub(super) struct Link {
    pub(super) from: ServiceName,
    pub(super) to: ServiceName,
    pub(super) alias: String,
}

impl Project<'_> {
    /// The value that a variable has for what is written there.
    pub(super) fn variable(&self, at: Position, name: &str) -> Option<&str> {
        self.sources.variables(at).get(name)
    }

    /// Whether one more file may be read; None, reported, if not.
    pub(super) fn may_read(&self, report: &mut Report, cursor: &Cursor<'_>) -> Option<()> {
        let Some(left) = self.reads_left.get().checked_sub(1) else {
            report.error(cursor, format!("no more than {MAX_READS} files are read"));
            return None;
        };
        self.reads_left.set(left);
        Some(())
    }

    /// The text of a file that is named at the cursor; none, reported, if it cannot be read.
    pub(super) fn file_text(&self, report: &mut Report, cursor: &Cursor<'_>, path: &str) -> Option<String> {
        self.may_read(report, cursor)?;
        let path = self.path(report, cursor, path)?;
        match load::text(Path::new(&path)) {
            Ok(Some(text)) => return Some(text),
            Ok(None) => report.error(cursor, format!("{path} does not exist")),
            Err(why) => report.error(cursor, format!("{path}: {why}")),
        }
        None
    }

    /// The absolute path that is meant; none, reported, if there is no telling.
    pub(super) fn path(&self, report: &mut Report, cursor: &Cursor<'_>, text: &str) -> Option<String> {
        self.sources.path(report, cursor, text)
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

//! The Compose files of a directory, by the names that Compose looks for.

use std::path::{Path, PathBuf};

use super::report::Report;
use crate::model::Problem;

const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];

/// The Compose file, and the one that overrides it if there is one. None, reported, if there is no Compose file.
pub(super) fn files(report: &mut Report, dir: &Path) -> Option<Vec<PathBuf>> {
    let Some(file) = first(report, dir, &NAMES) else {
        let help = format!("the names are {}", NAMES.join(", "));
        report.add(
            Problem::error(dir.display().to_string(), "there is no Compose file in the directory").with_help(help),
        );
        return None;
    };
    Some([file].into_iter().chain(first(report, dir, &OVERRIDES)).collect())
}

fn first(report: &mut Report, dir: &Path, names: &[&str]) -> Option<PathBuf> {
    // In the directory where the program runs they are called by their names alone.
    let dir = if dir == Path::new(".") { Path::new("") } else { dir };
    let mut found = names.iter().map(|name| dir.join(name)).filter(|path| path.is_file());
    let first = found.next()?;
    for other in found {
        let message = format!("the file is not read, because {} is there too", first.display());
        report.add(Problem::warning(other.display().to_string(), message).with_help("remove one of them"));
    }
    Some(first)
}

//! From the arguments to an application: which Compose file, what it says, how the application is called.

use std::path::{Path, PathBuf};

use deployer_core::AppName;
use deployer_core::compose::{ComposeApp, ComposeReader};

use crate::args::Global;
use crate::fault::{Fault, usage};

/// Where a Compose file is looked for, in this order.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// The Compose file that is meant.
pub(crate) fn path(global: &Global) -> Result<PathBuf, Fault> {
    if let Some(file) = &global.file {
        return Ok(file.clone());
    }
    NAMES.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
        usage(
            format!("there is no {} in this directory", NAMES.join(", nor ")),
            "name the Compose file with --file, or an application that is deployed already with --project",
        )
    })
}

/// The directory that the Compose file is in.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Reads the Compose file. The environment of this process counts, as its users expect.
pub(crate) fn read(global: &Global, path: &Path) -> Result<ComposeApp, Fault> {
    let mut reader = ComposeReader::new().with_env_map(variables());
    if let Some(name) = &global.project {
        reader = reader.with_project_name(name);
    }
    Ok(reader.read_file(path)?)
}

/// The application's name: what `--project` says, else what the Compose file says.
pub(crate) fn app(global: &Global) -> Result<AppName, Fault> {
    match &global.project {
        Some(name) => Ok(AppName::new(name)?),
        None => Ok(read(global, &path(global)?)?.spec.name),
    }
}

/// The environment, as far as it is text: `std::env::vars` panics at what is not.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

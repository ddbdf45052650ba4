//! From the arguments to an application: which Compose files, what they say, how the application is called.

use std::path::Path;

use deployer_core::AppName;
use deployer_core::compose::{ComposeApp, ComposeReader};

use crate::args::Global;
use crate::fault::{Fault, usage};

/// Where a Compose file is looked for, in this order.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// The directory that the Compose file is in.
pub(crate) fn directory(global: &Global) -> &Path {
    let parent = global.file.first().and_then(|file| file.parent());
    parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Reads the Compose files. The environment of this process counts, as its users expect.
pub(crate) fn read(global: &Global) -> Result<ComposeApp, Fault> {
    let mut reader = ComposeReader::new().with_env_map(variables()).with_compose_variables();
    if let Some(name) = &global.project {
        reader = reader.with_project_name(name);
    }
    for profile in &global.profile {
        reader = reader.with_profile(profile);
    }
    if !global.file.is_empty() {
        return Ok(reader.read_files(&global.file)?);
    }
    if std::env::var_os("COMPOSE_FILE").is_none() && !NAMES.iter().any(|name| Path::new(name).is_file()) {
        return Err(usage(
            format!("there is no {} in this directory", NAMES.join(", nor ")),
            "name the Compose file with --file, or an application that is deployed already with --project",
        ));
    }
    Ok(reader.read_dir(".")?)
}

/// The application's name: what `--project` says, else what the Compose files say.
pub(crate) fn app(global: &Global) -> Result<AppName, Fault> {
    match &global.project {
        Some(name) => Ok(AppName::new(name)?),
        None => Ok(read(global)?.spec.name),
    }
}

/// The environment, as far as it is text: `std::env::vars` panics at what is not.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

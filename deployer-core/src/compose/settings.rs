//! The variables by which users of Compose say what is read.

use super::variables::Variables;

/// The Compose files that `COMPOSE_FILE` names.
pub(super) fn files(variables: &Variables) -> Option<Vec<&str>> {
    let given = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    let usual = if cfg!(windows) { ";" } else { ":" };
    let separator = given("COMPOSE_PATH_SEPARATOR").unwrap_or(usual);
    let files = given("COMPOSE_FILE")?.split(separator).filter(|file| !file.is_empty());
    Some(files.collect())
}

/// The profiles that `COMPOSE_PROFILES` enables.
pub(super) fn profiles(variables: &Variables) -> impl Iterator<Item = String> {
    list(variables, "COMPOSE_PROFILES").map(str::to_owned)
}

/// The files of variables that `COMPOSE_ENV_FILES` names.
pub(super) fn env_files(variables: &Variables) -> impl Iterator<Item = &str> {
    list(variables, "COMPOSE_ENV_FILES")
}

/// Whether `COMPOSE_DISABLE_ENV_FILE` says that `.env` is not read.
pub(super) fn no_env_file(variables: &Variables) -> bool {
    let words = ["1", "t", "T", "true", "TRUE", "True"];
    variables.get("COMPOSE_DISABLE_ENV_FILE").is_some_and(|value| words.contains(&value))
}

fn list<'v>(variables: &'v Variables, name: &str) -> impl Iterator<Item = &'v str> {
    variables.get(name).unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty())
}

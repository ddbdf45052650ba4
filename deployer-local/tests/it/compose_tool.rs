//! The real Compose tool, beside what is deployed.

use std::path::Path;
use std::process::{Command, Output};

/// What the tool says about a project whose file is in this directory, with these variables set.
pub(crate) fn docker_compose(
    directory: &Path,
    project: &str,
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> String {
    let run = |program: &str, first: &[&str]| -> std::io::Result<Output> {
        let mut command = Command::new(program);
        command.current_dir(directory).envs(variables.iter().copied());
        command.args(first).args(["--ansi", "never", "-p", project]).args(arguments).output()
    };
    // Newer installations have it as a part of the `docker` command only.
    let output = run("docker-compose", &[]).or_else(|_| run("docker", &["compose"]));
    let output = output.expect("docker-compose must be installed");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "docker-compose {arguments:?}: {text}");
    text
}

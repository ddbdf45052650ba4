//! `quickstart --simulated`: the whole story, without Docker.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

/// Runs the quickstart where no Docker Engine answers.
fn quickstart(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    command.args(arguments).env("DOCKER_HOST", "unix:///nonexistent/docker.sock").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The numbers of the last line, by name.
fn number(line: &str, name: &str) -> u64 {
    let mut words = line.split(' ').filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    words.next().unwrap_or_else(|| panic!("{name} is not in {line}")).parse().unwrap()
}

#[test]
fn the_story_is_told_without_docker() {
    let output = quickstart(&["--simulated"]);
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    for expected in [
        "simulated, and so are all times",
        "deploy v1           promoted",
        "deploy v2           promoted",
        "deploy v3 (broken)  rolled-back",
        "roll back to v1     promoted",
        "exited with code 3",
        "FATAL: DATABASE_URL has no scheme",
        "    v1 1\n    v2 1\n    v3 1\n",
        "Clearing away.",
    ] {
        assert!(told.contains(expected), "{expected:?} is not in:\n{told}");
    }
    let last = told.lines().last().unwrap();
    assert!(last.starts_with("quickstart: deploy_ms="), "{last}");
    assert_eq!(number(last, "lost"), 0);
    assert!(number(last, "sent") > 1000 && number(last, "deploy_ms") > 0 && number(last, "rollback_ms") > 0, "{last}");
    // A warm rollback is a change of weights.
    assert!(number(last, "rollback_ms") < number(last, "deploy_ms"), "{last}");
}

#[test]
fn it_is_told_the_same_every_time() {
    let (one, other) = (quickstart(&["--simulated"]), quickstart(&["--simulated"]));
    let last = |output: &Output| text(&output.stdout).lines().last().unwrap().to_owned();
    assert_eq!(last(&one), last(&other));
}

#[test]
fn an_argument_that_it_does_not_know_is_refused() {
    for arguments in [&["--simulate"][..], &["--simulated", "twice"]] {
        let output = quickstart(arguments);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), String::new()));
        assert!(text(&output.stderr).contains("--simulated"));
    }
}

//! The program from outside, as far as it needs no engine: arguments, Compose files, exit codes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Output};

fn deployer(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_deployer")).args(args).current_dir(dir).env_clear().output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A directory with a Compose file.
fn project(name: &str, text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(name), text).unwrap();
    dir
}

const GOOD: &str = "name: shop\nservices:\n  web:\n    image: nginx\n  worker:\n    image: ${WORKER:-busybox}\n";

#[test]
fn wrong_usage_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &[][..],
        &["fly"],
        &["rollback", "--to", "latest"],
        &["deploy", "--keep", "3"],
        &["--http", "8080", "status"],
        &["--on", "moon", "status"],
    ] {
        let output = deployer(dir.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn help_names_every_subcommand_and_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let output = deployer(dir.path(), &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for word in [
        "check",
        "config",
        "plan",
        "deploy",
        "rollback",
        "status",
        "history",
        "logs",
        "cancel",
        "resume",
        "promote",
        "prune",
        "destroy",
        "Exit codes:",
    ] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
}

#[test]
fn check_finds_the_compose_file_by_any_of_its_names() {
    for name in ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"] {
        let dir = project(name, GOOD);
        let output = deployer(dir.path(), &["check"]);
        assert_eq!(text(&output.stdout), "shop can be deployed: web, worker\n", "{}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn config_writes_what_was_read() {
    let dir = project("compose.yaml", "services:\n  web: { image: \"web:${TAG:-1}\", tty: true }\n");
    let written = text(&deployer(dir.path(), &["-p", "shop", "config"]).stdout);
    assert!(written.contains("    image: web:1\n"), "{written}");
    std::fs::write(dir.path().join("written.yaml"), &written).unwrap();
    assert_eq!(text(&deployer(dir.path(), &["-f", "written.yaml", "config"]).stdout), written);
}

#[test]
fn options_stand_before_or_after_the_subcommand() {
    let dir = project("other.yaml", GOOD);
    for args in [&["-f", "other.yaml", "-p", "mine", "check"][..], &["check", "-p", "mine", "--file", "other.yaml"]] {
        let output = deployer(dir.path(), args);
        assert_eq!(text(&output.stdout), "mine can be deployed: web, worker\n", "{}", text(&output.stderr));
    }
}

#[test]
fn further_files_override_the_first_and_profiles_are_chosen() {
    let dir = project("compose.yaml", "name: shop\nservices:\n  web: { image: web:1 }\n");
    let more = "services:\n  web: { image: web:2 }\n  mail: { image: mail:1, profiles: [mail] }\n";
    std::fs::write(dir.path().join("more.yaml"), more).unwrap();
    let can = |args: &[&str]| text(&deployer(dir.path(), args).stdout);
    assert_eq!(can(&["check"]), "shop can be deployed: web\n");
    let both = ["-f", "compose.yaml", "-f", "more.yaml", "--profile", "mail", "check"];
    assert_eq!(can(&both), "shop can be deployed: mail, web\n");
    std::fs::rename(dir.path().join("more.yaml"), dir.path().join("compose.override.yaml")).unwrap();
    assert_eq!(can(&["--profile", "mail", "check"]), "shop can be deployed: mail, web\n");
}

#[test]
fn without_a_compose_file_the_way_out_is_told() {
    let dir = tempfile::tempdir().unwrap();
    // `-f` of `logs` is `--follow`, so the name after it is a service's.
    for args in [&["check"][..], &["logs", "-f", "web"]] {
        let output = deployer(dir.path(), args);
        assert_eq!(output.status.code(), Some(1));
        let told = text(&output.stderr);
        assert!(told.starts_with("error: there is no compose.yaml, nor compose.yml"), "{told}");
        assert!(told.contains("\n  help: name the Compose file with --file"), "{told}");
    }
}

#[test]
fn logs_takes_the_compose_file_in_the_long_form_and_in_front() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["logs", "-f", "--file", "gone.yaml"][..], &["-f", "gone.yaml", "logs", "-f"]] {
        let output = deployer(dir.path(), args);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stderr), "error: gone.yaml: the file does not exist\n", "{args:?}");
    }
}

#[test]
fn a_problem_is_shown_with_its_line() {
    let dir = project("compose.yaml", "services:\n  web:\n    imag: nginx\n    image: nginx\n");
    let output = deployer(dir.path(), &["-p", "shop", "check"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "\
error: services.web.imag: `imag` is no key of a service
 --> compose.yaml:3:5
  |
3 |     imag: nginx
  |     ^
  = help: did you mean `image`?
";
    assert_eq!(text(&output.stderr), expected);
    assert_eq!(text(&output.stdout), "");

    let output = deployer(dir.path(), &["-p", "shop", "check", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["error"]["kind"], "invalid-input");
    assert_eq!(document["problems"][0]["place"]["line"], 3);
}

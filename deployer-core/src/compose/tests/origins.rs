//! Messages tell where a variable has its value from, and never the value.

use super::{file, given, read};
use crate::compose::{ComposeReader, render};

#[test]
fn a_wrong_value_is_told_with_the_place_of_its_variable() {
    let dir = given(&[
        (
            "compose.yaml",
            "name: shop\nservices:\n  web:\n    image: web\n    init: ${SECRET}${GIVEN}\n    ports: ['${PORT}:80', '$COMPOSE_PROJECT_NAME:80']\n",
        ),
        (".env", "# ports\n\nSECRET=hunter2\nPORT='hunter3'\n"),
    ]);
    let reader = ComposeReader::new().with_env("GIVEN", "hunter4");
    let problems = reader.read_file(dir.path().join("compose.yaml")).unwrap_err();
    let notes: Vec<Vec<String>> = problems
        .0
        .iter()
        .map(|problem| {
            problem.notes.iter().map(|note| note.to_string().replace(dir.path().to_str().unwrap(), "")).collect()
        })
        .collect();
    assert_eq!(
        notes,
        [
            vec!["the program gave GIVEN", "SECRET is set here: /.env:3:1"],
            vec!["PORT is set here: /.env:4:1"],
            vec!["COMPOSE_PROJECT_NAME is the application's name"],
        ]
    );
    let shown = render(&problems, |file| std::fs::read_to_string(file).ok());
    assert!(shown.contains("${SECRET}${GIVEN}") && shown.contains("= note: the program gave GIVEN\n"), "{shown}");
    assert!(!format!("{shown}{problems}{problems:?}").contains("hunter"), "{shown}");
}

#[test]
fn what_is_wrong_between_values_is_told_with_the_places_of_variables_too() {
    let problems = read("services: {web: {image: x, networks: ['${SECRET}']}}\n").unwrap_err();
    let (problem, note) = (&problems.0[0], &problems.0[0].notes[0]);
    assert_eq!((problem.path.as_str(), note.message.as_str()), ("services.web.networks[0]", "the program gave SECRET"));
    assert_eq!(problem.message, "the network \"${SECRET}\" is not declared");
}

#[test]
fn no_message_shows_a_value() {
    for keys in [
        "volumes: ['data:/d:${SECRET}']",
        "volumes: ['${SECRET}:/d']",
        "tmpfs: '/d:${SECRET}'",
        "command: 'a ${SECRET} \\'b'",
        "depends_on: ['${SECRET}']",
        "env_file: '${SECRET}'",
        "extends: '${SECRET}'",
        "extends: {file: '${SECRET}', service: x}",
        "hostname: '-${SECRET}'",
        "restart: '${SECRET}'",
        "deploy: {mode: '${SECRET}'}",
        "x-deployer: {strategy: '${SECRET}'}",
        "x-deployer: {route: {host: '${SECRET}/'}}",
        "x-deployer: {gates: [{name: '${SECRET}', smoke: {path: 'x'}}]}",
        "user: '${SECRET:?${SECRET}}${NONE:?${SECRET}}'",
    ] {
        let problems = match read(&file(keys)) {
            Ok(app) => app.warnings,
            Err(problems) => problems,
        };
        assert!(!format!("{problems}{problems:?}").contains("hunter2"), "{keys}: {problems}");
    }
}

#[test]
fn no_path_shows_a_value() {
    let dir = given(&[
        ("a.yaml", "services: {web: {image: x, environment: ['${SECRET}=[']}}\n"),
        ("b.yaml", "services: {web: {environment: {A: b}, labels: ['${SECRET}=x'], networks: {n: }}}\n"),
        ("c.yaml", "services: {web: {labels: {b: [x]}, networks: ['${SECRET}']}}\nnetworks: {n: }\n"),
    ]);
    let reader = ComposeReader::new().with_env("SECRET", "hunter 2");
    let problems = reader.read_files(["a.yaml", "b.yaml", "c.yaml"].map(|name| dir.path().join(name))).unwrap_err();
    assert!(problems.errors().count() >= 3, "{problems}");
    assert!(!format!("{problems}{problems:?}").contains("hunter"), "{problems}");
}

#[test]
fn values_that_messages_would_quote_are_hidden_too() {
    let text = "services: {web: {image: x, networks: ['${SECRET}']}}\n";
    let reader = ComposeReader::new().with_env("SECRET", "hun\"ter\n2");
    let problems = reader.read_str(text, "f", "/nowhere").unwrap_err();
    assert_eq!(problems.0[0].message, "the network \"${SECRET}\" is not declared");
}

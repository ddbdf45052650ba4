//! Profiles, services that are named explicitly, and the variables by which users say what is read.

use super::{DIR, given, lines, read, told};
use crate::compose::{ComposeApp, ComposeReader};
use crate::model::Problems;

/// The example of the specification.
const FOUR: &str = "\
services:
  foo: {image: foo}
  bar: {image: bar, profiles: [test]}
  baz: {image: baz, depends_on: [bar], profiles: [test]}
  zot: {image: zot, depends_on: [bar], profiles: [debug]}
";

fn names(app: &ComposeApp) -> String {
    app.spec.services.keys().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn profiles_and_explicit_names_select_services() {
    for (profiles, services, expected) in [
        (&[][..], &[][..], Ok("foo")),
        (&["test"], &[], Ok("bar baz foo")),
        (&["test", "debug"], &[], Ok("bar baz foo zot")),
        (&["*"], &[], Ok("bar baz foo zot")),
        (&[], &["bar"], Ok("bar baz foo")),
        (&[], &["baz"], Ok("bar baz foo")),
        (&["test"], &["zot"], Ok("bar baz foo zot")),
        (&[], &["foo"], Ok("foo")),
        (&["debug"], &[], Err("bar is left out: none of its profiles is enabled: test")),
        (&[], &["zot"], Err("bar is left out: none of its profiles is enabled: test")),
        (&[], &["fooo"], Err("there is no service fooo, which was named explicitly")),
    ] {
        let mut reader = ComposeReader::new();
        for profile in profiles {
            reader = reader.with_profile(*profile);
        }
        for service in services {
            reader = reader.with_service(*service);
        }
        let found = reader.read_str(FOUR, "f", DIR);
        let found = found.as_ref().map(names).map_err(|problems| {
            let errors: Vec<&str> = problems.errors().map(|problem| problem.message.as_str()).collect();
            errors.join(", ")
        });
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(found, expected, "{profiles:?} {services:?}");
    }
}

#[test]
fn a_dependency_that_is_left_out_is_refused_unless_it_is_not_required() {
    let text = |depends_on: &str| {
        format!("services:\n  db: {{image: d, profiles: [a, b]}}\n  web:\n    image: w\n    depends_on: {depends_on}\n")
    };
    for depends_on in ["[db]", "{db: {condition: service_started}}", "{db: }"] {
        let problems = read(&text(depends_on)).unwrap_err();
        let problem = problems.errors().next().unwrap();
        assert_eq!(problem.message, "db is left out: none of its profiles is enabled: a, b");
        assert_eq!(problem.place.as_ref().unwrap().line, 5);
        assert!(problem.help.is_some());
        assert_eq!(problems.errors().count(), 1);
    }
    let app = read(&text("{db: {condition: service_healthy, required: false, restart: true}}")).unwrap();
    assert!(app.spec.services["web"].depends_on.is_empty());
    let restart = "depends_on.db.restart: `restart` has no effect: a deployment of one service does not restart those that depend on it";
    assert_eq!(
        lines(&app.warnings)[1..],
        ["depends_on.db: db is left out; nothing waits for it".to_owned(), restart.to_owned()]
    );
}

#[test]
fn an_extended_service_may_be_left_out() {
    let text = "services:\n  base: {image: b, profiles: [never]}\n  web: {extends: base, profiles: !override []}\n";
    assert_eq!(names(&read(text).unwrap()), "web");
}

#[test]
fn variables_of_compose_count_where_the_program_asks_for_it() {
    let dir = given(&[
        ("compose.yaml", FOUR),
        ("a.yaml", "services: {a: {image: 'a:${TAG:-none}'}}\n"),
        ("sub/b.yaml", "services: {b: {image: 'b:${TAG:-none}'}}\n"),
        ("one.env", "TAG=one\nCOMPOSE_PROFILES=test\n"),
        ("two.env", "TAG=${TAG}-two\n"),
        ("with/.env", "COMPOSE_FILE=../a.yaml,../sub/b.yaml\nCOMPOSE_PATH_SEPARATOR=,\nTAG=with\n"),
        ("with/compose.yaml", "services: {c: {image: c}}\n"),
    ]);
    let read = |variables: &[(&str, &str)], at: &str| {
        let reader = ComposeReader::new().with_env_map(variables.iter().copied());
        assert!(!reader.read_dir(dir.path()).unwrap().spec.services.contains_key("a"), "only if it is asked for");
        reader.with_compose_variables().read_dir(dir.path().join(at))
    };
    let images = |found: Result<ComposeApp, Problems>| {
        let app = found.unwrap_or_else(|problems| panic!("{:?}", told(&dir, &problems)));
        let image = |service: &crate::model::ServiceSpec| format!("{:?}", service.image).replace(['"', '(', ')'], "");
        app.spec.services.values().map(image).collect::<Vec<_>>().join(" ").replace("Reference", "")
    };
    assert_eq!(images(read(&[], "")), "foo");
    assert_eq!(images(read(&[("COMPOSE_PROFILES", " test ,")], "")), "bar baz foo");
    assert_eq!(images(read(&[("COMPOSE_FILE", "a.yaml:sub/b.yaml")], "")), "a:none b:none");
    assert_eq!(
        images(read(&[("COMPOSE_FILE", "sub/b.yaml|a.yaml"), ("COMPOSE_PATH_SEPARATOR", "|")], "")),
        "a:none b:none"
    );
    let both = [("COMPOSE_FILE", "a.yaml"), ("COMPOSE_ENV_FILES", "one.env,two.env")];
    assert_eq!(images(read(&both, "")), "a:one-two");
    assert_eq!(images(read(&[("COMPOSE_ENV_FILES", "one.env")], "")), "bar baz foo", "profiles of a file");
    assert_eq!(images(read(&[], "with")), "a:with b:with", "the files that `.env` names");
    assert_eq!(images(read(&[("COMPOSE_DISABLE_ENV_FILE", "true")], "with")), "c");
    let missing = read(&[("COMPOSE_ENV_FILES", "none.env")], "").unwrap_err();
    assert_eq!(told(&dir, &missing), ["none.env: the file does not exist"]);
    let missing = read(&[("COMPOSE_FILE", "none.yaml")], "").unwrap_err();
    assert_eq!(told(&dir, &missing), ["none.yaml: the file does not exist"]);

    let reader = ComposeReader::new().with_compose_variables().with_env("COMPOSE_PROFILES", "test");
    let app = reader.with_profile("none").read_dir(dir.path()).unwrap();
    assert_eq!(names(&app), "foo", "what the program says wins");
}

#[test]
fn several_files_of_variables_are_read_in_order() {
    let dir = given(&[
        ("compose.yaml", "services: {web: {image: '$A-$B-$C'}}\n"),
        ("1.env", "A=1\nB=1\n"),
        ("2.env", "B=2$A\nC=2\n"),
        (".env", "A=9\n"),
    ]);
    let at = |name: &str| dir.path().join(name);
    let reader = ComposeReader::new().with_env_file(at("1.env")).with_env_file(at("2.env")).with_env("C", "3");
    let app = reader.read_file(at("compose.yaml")).unwrap();
    assert_eq!(app.spec.services["web"].image, crate::model::ImageSource::Reference("1-21-3".into()));
}

//! Realistic files, read as a whole.

use std::path::Path;

use super::{DIR, env, given, lines, read};
use crate::compose::{ComposeReader, render};
use crate::model::{AppSpec, EnvValue};

const SHOP: &str = include_str!("shop.yaml");

#[test]
fn the_shop_is_read_to_the_last_key() {
    let app = read(SHOP).unwrap();
    assert_eq!(
        lines(&app.warnings),
        [
            "container_name: `container_name` has no effect: revisions run side by side, so each container has a name of its own"
        ]
    );
    insta::assert_json_snapshot!(app.spec);
}

#[test]
fn what_was_read_survives_json() {
    let spec = read(SHOP).unwrap().spec;
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<AppSpec>(&json).unwrap(), spec);
}

#[test]
fn json_is_read_too() {
    let text = r#"{
        "name": "shop",
        "services": {
            "web": {"image": "shop:${A}", "ports": ["8080:80"], "environment": {"N": 1, "B": true}}
        }
    }"#;
    let app = read(text).unwrap();
    let web = &app.spec.services["web"];
    assert_eq!(web.workload.env["N"], EnvValue::Plain("1".into()));
    assert_eq!(web.workload.ports[0].target, 80);
}

#[test]
fn problems_are_rendered_for_people() {
    let text = "\
name: shop
services:
  web:
    image: nginx:${TAG}
    ports:
      - 8080:80
      - 8080:http
    x-deployer:
      route: { host: https://shop.example, port: 80 }
      strategy: { type: canery }
    depends_on: [db]
";
    let problems = read(text).unwrap_err();
    let shown = render(&problems, |file| (file == "compose.yaml").then(|| text.to_owned()));
    let expected = "\
warning: services.web.image: the variable TAG is not set; it counts as empty
 --> compose.yaml:4:18
  |
4 |     image: nginx:${TAG}
  |                  ^
  = help: set it, or give it a default: `${TAG:-default}`

error: services.web.ports[1]: \"8080:http\" is not a port such as `8080:80`, `127.0.0.1:8080:80/tcp` or `80`
 --> compose.yaml:7:9
  |
7 |       - 8080:http
  |         ^

error: services.web.x-deployer.route.host: \"https://shop.example\" is not a host name
 --> compose.yaml:9:22
  |
9 |       route: { host: https://shop.example, port: 80 }
  |                      ^
  = help: write the name alone, without scheme and port

error: services.web.x-deployer.strategy.type: there is no strategy \"canery\"
  --> compose.yaml:10:25
   |
10 |       strategy: { type: canery }
   |                         ^
   = help: did you mean canary?

error: services.web.depends_on[0]: there is no service db
  --> compose.yaml:11:18
   |
11 |     depends_on: [db]
   |                  ^
";
    assert_eq!(shown, expected);
}

#[test]
fn the_name_comes_from_the_nearest_source() {
    let with_name = "name: ${A}-shop\nservices: {web: {image: x, hostname: \"${COMPOSE_PROJECT_NAME}\"}}\n";
    let without = "services: {web: {image: x}}\n";
    let name = |reader: ComposeReader, text: &str| {
        let app = reader.read_str(text, "f", DIR).unwrap_or_else(|problems| panic!("{problems}"));
        app.spec.name.to_string()
    };
    let reader = || ComposeReader::new().with_env("A", "a");
    assert_eq!(name(reader(), without), "shop", "the directory's");
    assert_eq!(name(reader(), with_name), "a-shop");
    assert_eq!(name(reader().with_env("COMPOSE_PROJECT_NAME", "v"), with_name), "v");
    assert_eq!(name(reader().with_env("COMPOSE_PROJECT_NAME", "v").with_project_name("p"), with_name), "p");
    let app = reader().read_str(with_name, "f", DIR).unwrap();
    assert_eq!(app.spec.services["web"].workload.hostname.as_deref(), Some("a-shop"));
    let problems = reader().read_str("name: Shop\nservices: {web: {image: x}}\n", "f", DIR).unwrap_err();
    assert_eq!(problems.0[0].path, "name");
    assert_eq!(problems.0[0].place.as_ref().unwrap().column, 7);
}

#[test]
fn files_beside_it_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(".env", "TAG=from-dotenv\nPORT=8080\nREF=${PORT}1\n");
    write("other.env", "TAG=from-other\nPORT=1\nREF=r\n");
    write("shop.env", "ONE=1\nTWO=${PORT}2\nTHREE='$PORT'\nTAG\n");
    write("raw.env", "RAW='$PORT' # not a comment\n");
    write(
        "compose.yaml",
        "
name: shop
services:
  web:
    image: web:${TAG}
    env_file:
      - shop.env
      - { path: ./raw.env, format: raw }
      - { path: missing.env, required: false }
    environment: { ONE: overruled, REF: null }
    volumes: [\"./conf:/etc/app:ro\"]
",
    );
    let file = dir.path().join("compose.yaml");
    let app = ComposeReader::new().read_file(&file).unwrap();
    let web = &app.spec.services["web"];
    let env: Vec<String> = web.workload.env.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
    assert_eq!(
        env,
        ["ONE=overruled", "RAW='$PORT' # not a comment", "REF=80801", "TAG=from-dotenv", "THREE=$PORT", "TWO=80802"]
    );
    assert_eq!(web.image, crate::model::ImageSource::Reference("web:from-dotenv".into()));

    let read = |reader: ComposeReader| reader.read_file(&file).unwrap().spec.services["web"].image.clone();
    let image = |tag: &str| crate::model::ImageSource::Reference(format!("web:{tag}"));
    assert_eq!(read(ComposeReader::new().with_env("TAG", "given")), image("given"), "what is given wins");
    assert_eq!(read(ComposeReader::new().with_env_file(dir.path().join("other.env"))), image("from-other"));
    let problems = ComposeReader::new().with_env_file(dir.path().join("none")).read_file(&file).unwrap_err();
    assert!(problems.to_string().contains("the file does not exist"), "{problems}");
}

fn plain(value: &EnvValue) -> &str {
    match value {
        EnvValue::Plain(value) => value,
        EnvValue::Secret(_) => panic!("not plain: {value:?}"),
    }
}

#[test]
fn files_that_cannot_be_read_are_problems() {
    let problems = ComposeReader::new().read_file(Path::new(DIR).join("compose.yaml")).unwrap_err();
    assert_eq!(problems.to_string(), "error: /nowhere/shop/compose.yaml: the file does not exist");
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("compose.yaml");
    std::fs::write(&bad, b"name: \xff\n").unwrap();
    assert!(ComposeReader::new().read_file(&bad).unwrap_err().to_string().ends_with("the file is not UTF-8 text"));
    std::fs::write(dir.path().join(".env"), "A=hunter2\nB C=hunter2\n").unwrap();
    let problems = ComposeReader::new().read_str("services: {a: {image: x}}", "f", dir.path()).unwrap_err();
    assert!(problems.to_string().contains("/.env: line 2: the name of the variable has"), "{problems}");
    assert!(!problems.to_string().contains("hunter2"));
}

#[test]
fn services_with_profiles_are_left_out_until_enabled() {
    let text = "services:\n  web: {image: x}\n  debug: {image: x, profiles: [dev], isolation: hyperv}\n  tool: {image: x, profiles: [ops, dev]}\n";
    let app = read(text).unwrap();
    assert_eq!(app.spec.services.len(), 1);
    assert_eq!(
        lines(&app.warnings),
        [
            "services.debug: debug is left out: none of its profiles is enabled",
            "services.tool: tool is left out: none of its profiles is enabled",
        ]
    );
    let app = ComposeReader::new().with_profile("ops").read_str(text, "f", DIR).unwrap();
    assert_eq!(app.spec.services.len(), 2);
    let problems = ComposeReader::new().with_profile("*").read_str(text, "f", DIR).unwrap_err();
    assert_eq!(lines(&problems), ["services.debug.isolation: `isolation` is not supported"]);
}

#[test]
fn variables_are_not_shown_in_messages() {
    let text = "services:\n  web:\n    image: x\n    ports: [\"${SECRET}\"]\n    stop_grace_period: ${SECRET}s\n";
    let problems = read(text).unwrap_err().to_string();
    assert!(problems.contains("${SECRET}") && !problems.contains("hunter2"), "{problems}");
    assert!(!format!("{:?}", ComposeReader::new().with_env("SECRET", "hunter2")).contains("hunter2"));
}

/// The example of the manual that has this word.
fn example(word: &str) -> &'static str {
    let manual = include_str!("../../../../docs/compose.md");
    let mut examples = manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    examples.find(|example| example.contains(word)).unwrap()
}

#[test]
fn the_examples_of_the_manual_are_read() {
    let app = read(example("x-deployer:")).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(app.spec.services["web"].gates.len(), 2);
    assert_eq!(app.warnings.0, []);

    let dir = given(&[
        ("shop/extends.yaml", example("extends:")),
        ("shop/common/base.yaml", "services: {web: {image: 'web:1', environment: {ROLE: none}}}"),
        ("shop/include.yaml", example("include:")),
        ("monitoring/compose.yaml", "services: {metrics: {image: m}}"),
        ("shop/database/compose.yaml", "services: {db: {image: 'db:$TAG'}}"),
        ("shop/database-changes.yaml", "services: {db: {command: [big]}}"),
        ("shop/database/production.env", "TAG=1"),
    ]);
    let app = ComposeReader::new().read_file(dir.path().join("shop/extends.yaml")).unwrap();
    assert_eq!(env(&app.spec.services["web"]), "ROLE=web");
    let app = ComposeReader::new().read_file(dir.path().join("shop/include.yaml")).unwrap();
    assert_eq!(app.spec.services["db"].image, crate::model::ImageSource::Reference("db:1".into()));
    assert_eq!(app.spec.services.len(), 2);
}

#[test]
fn lines_may_end_as_on_windows() {
    let text = "services:\r\n  web:\r\n    image: nginx\r\n    init: x\r\n";
    let problems = read(text).unwrap_err();
    assert_eq!(problems.to_string(), "compose.yaml:4:11: error: services.web.init: \"x\" is not `true` or `false`");
}

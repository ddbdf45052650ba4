//! Several files: merged, extended, included.

use super::{env, given, told};
use crate::compose::ComposeReader;
use crate::model::{ImageSource, MountSource, Port, Severity};

#[test]
fn later_files_override_earlier_ones() {
    let dir = given(&[
        (
            "compose.yaml",
            "name: shop\nservices:\n  web:\n    image: web:1\n    ports: [8080:80]\n    environment: [A=1, B=1]\n    volumes: [./a:/a]\n",
        ),
        (
            "more/production.yaml",
            "services:\n  web:\n    image: web:2\n    ports: ['8080:80/tcp', {target: 443, published: 8443}]\n    environment: {B: 2}\n    volumes: ['./b:/a', './c:/c']\n    env_file: x.env\n",
        ),
        ("x.env", "C=3\n"),
    ]);
    let app =
        ComposeReader::new().read_files([dir.path().join("compose.yaml"), dir.path().join("more/production.yaml")]);
    let web = &app.unwrap().spec.services["web"];
    assert_eq!(web.image, ImageSource::Reference("web:2".into()));
    assert_eq!(web.workload.ports, [Port::published(80, 8080), Port::published(443, 8443)]);
    assert_eq!(env(web), "A=1 B=2 C=3");
    // All paths begin at the directory of the first file.
    let sources: Vec<_> = web.workload.mounts.iter().map(|mount| mount.source.clone()).collect();
    let at = |name: &str| MountSource::Bind(dir.path().join(name).to_str().unwrap().to_owned());
    assert_eq!(sources, [at("b"), at("c")]);
}

#[test]
fn documents_of_one_file_override_each_other() {
    let dir = given(&[
        (
            "compose.yaml",
            "name: shop\ninclude: [more.yaml]\nservices:\n  web: &web { image: web:1, environment: { A: 1 } }\n---\n\
             services:\n  web: { image: web:2, environment: [B=2] }\n  admin:\n    extends: { file: base.yaml, service: base }\n\
             ---\n# Nothing.\n---\n",
        ),
        ("more.yaml", "services:\n  db: { image: db:1 }\n---\nservices:\n  db: { image: !override db:2 }\n"),
        ("base.yaml", "services:\n  base: { image: base:1 }\n---\nservices:\n  base: { environment: { C: 3 } }\n"),
    ]);
    let spec = ComposeReader::new().read_file(dir.path().join("compose.yaml")).unwrap().spec;
    let [admin, db, web] = ["admin", "db", "web"].map(|name| &spec.services[name]);
    let images = [admin, db, web].map(|service| service.image.clone());
    assert_eq!(images, ["base:1", "db:2", "web:2"].map(|image| ImageSource::Reference(image.into())));
    assert_eq!([env(admin), env(web)], ["C=3", "A=1 B=2"]);

    let dir = given(&[("compose.yaml", "services:\n  web: &web { image: web:1 }\n---\nservices:\n  db: *web\n")]);
    let problems = ComposeReader::new().read_file(dir.path().join("compose.yaml")).unwrap_err();
    assert_eq!(told(&dir, &problems).len(), 1, "an anchor is that of its document: {problems}");
}

#[test]
fn problems_are_at_the_place_in_the_file_that_they_come_from() {
    let dir = given(&[
        ("a.yaml", "services:\n  web:\n    image: web:1\n    ports: [x]\n    init: x\n    isolation: x\n"),
        (
            "b.yaml",
            "services:\n  web:\n    ports:\n      - y\n    init: true\n    isolation: x\n    depends_on: [db]\n",
        ),
    ]);
    let problems = ComposeReader::new().read_files([dir.path().join("a.yaml"), dir.path().join("b.yaml")]).unwrap_err();
    let needed = "is not a port such as `8080:80`, `127.0.0.1:8080:80/tcp` or `80`";
    assert_eq!(
        told(&dir, &problems),
        [
            format!("a.yaml:4:13: services.web.ports[0]: \"x\" {needed}"),
            format!("b.yaml:4:9: services.web.ports[1]: \"y\" {needed}"),
            "b.yaml:6:5: services.web.isolation: `isolation` is not supported".to_owned(),
            "b.yaml:7:18: services.web.depends_on[0]: there is no service db".to_owned(),
        ]
    );
}

#[test]
fn faults_in_all_files_are_found_at_once() {
    let dir = given(&[
        ("a.yaml", "services: [\n"),
        ("b.yaml", "- a\n"),
        ("c.yaml", "a: 1\na: 2\n"),
        ("e.yaml", "# services: {}\n"),
        ("f.yaml", "services: {a: {image: x}}\n"),
    ]);
    let read = |names: &[&str]| ComposeReader::new().read_files(names.iter().map(|name| dir.path().join(name)));
    let found = told(&dir, &read(&["a.yaml", "c.yaml"]).unwrap_err());
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(told(&dir, &read(&["b.yaml"]).unwrap_err()), ["b.yaml:1:1: : a Compose file is a mapping"]);
    assert_eq!(told(&dir, &read(&["e.yaml", "e.yaml"]).unwrap_err()), ["e.yaml:1:1: : the file is empty"]);
    assert_eq!(read(&["e.yaml", "f.yaml", "e.yaml"]).unwrap().spec.services.len(), 1);
    let found = told(&dir, &read(&["x.yaml", "y.yaml"]).unwrap_err());
    assert_eq!(found, ["x.yaml: the file does not exist", "y.yaml: the file does not exist"]);
    assert_eq!(told(&dir, &read(&[]).unwrap_err()), [": no Compose file is named"]);
}

#[test]
fn the_last_name_counts() {
    let text =
        |name: &str| format!("name: {name}\nservices: {{web: {{image: x, hostname: \"$COMPOSE_PROJECT_NAME\"}}}}\n");
    let dir = given(&[("a.yaml", &text("one")), ("b.yaml", &text("two")), ("c.yaml", "services: {}\n")]);
    let app =
        ComposeReader::new().read_files(["a.yaml", "b.yaml", "c.yaml"].map(|name| dir.path().join(name))).unwrap();
    assert_eq!(app.spec.name.as_str(), "two");
    assert_eq!(app.spec.services["web"].workload.hostname.as_deref(), Some("two"));
}

#[test]
fn values_can_be_reset_and_overridden() {
    let dir = given(&[
        (
            "a.yaml",
            "services:\n  web: {image: a, ports: [8080:80], environment: {A: 1, B: 1}, expose: [1]}\n  old: {image: o}\nvolumes: {v: {external: true}}\n",
        ),
        (
            "b.yaml",
            "services:\n  web: {ports: !override [8443:443], environment: {A: !reset null}, expose: !reset ['$NONE']}\n  old: !reset null\nvolumes: {v: !override {}}\n",
        ),
    ]);
    let app = ComposeReader::new().read_files([dir.path().join("a.yaml"), dir.path().join("b.yaml")]).unwrap();
    assert_eq!(app.warnings.0, [], "a value that is reset needs no variables");
    let web = &app.spec.services["web"];
    assert_eq!(web.workload.ports, [Port::published(443, 8443)]);
    assert_eq!(env(web), "B=1");
    assert_eq!(app.spec.services.len(), 1);
    assert!(!app.spec.volumes["v"].external);
}

#[test]
fn tags_of_an_extended_service_are_its_own() {
    let dir = given(&[
        ("a.yaml", "services: {web: {image: w, expose: [1]}}\n"),
        (
            "b.yaml",
            "services:\n  mid: {image: m, expose: !override [2], labels: !reset [a=b]}\n  web: {extends: mid, labels: [c=d]}\n",
        ),
    ]);
    let app = ComposeReader::new().read_files([dir.path().join("a.yaml"), dir.path().join("b.yaml")]).unwrap();
    let workload = &app.spec.services["web"].workload;
    assert_eq!(workload.ports, [Port::internal(1), Port::internal(2)]);
    assert_eq!(workload.labels.keys().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn the_files_of_a_directory_are_found_by_their_names() {
    let image = |tag: &str| format!("services: {{web: {{image: '{tag}'}}}}");
    let read = |files: &[(&str, &str)]| {
        let dir = given(files);
        ComposeReader::new().read_dir(dir.path()).map(|app| {
            let ImageSource::Reference(image) = app.spec.services["web"].image.clone() else { panic!("{app:?}") };
            (image, told(&dir, &app.warnings))
        })
    };
    let (a, b, c) = (image("a"), image("b"), image("c"));
    for (files, expected) in [
        (&[("compose.yaml", a.as_str()), ("docker-compose.yml", &b)][..], "a"),
        (&[("docker-compose.yml", &a), ("docker-compose.yaml", &b)], "a"),
        (&[("compose.yml", &a), ("docker-compose.override.yml", &b)], "b"),
        (&[("compose.yaml", &a), ("compose.override.yml", &b), ("compose.override.yaml", &c)], "b"),
    ] {
        assert_eq!(read(files).unwrap().0, expected, "{files:?}");
    }
    let (_, warnings) = read(&[("compose.yaml", &a), ("docker-compose.yml", &b)]).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("docker-compose.yml: the file is not read, because "), "{warnings:?}");
    let problems = read(&[("compose.override.yaml", &a)]).unwrap_err();
    assert_eq!(problems.0[0].message, "there is no Compose file in the directory");
}

#[test]
fn a_service_begins_as_a_copy_of_another() {
    let dir = given(&[
        (
            "compose.yaml",
            "services:\n  base: {image: b, environment: {A: 1}, depends_on: [db]}\n  mid: {extends: base, environment: {B: 2}, depends_on: !override [cache]}\n  web: {extends: {service: mid}, image: w, environment: {C: 3}, depends_on: [base]}\n  db: {image: d}\n  cache: {image: c}\n",
        ),
        ("over.yaml", "services: {web: {environment: {A: 9}}}\n"),
    ]);
    let app = ComposeReader::new().read_files([dir.path().join("compose.yaml"), dir.path().join("over.yaml")]).unwrap();
    let web = &app.spec.services["web"];
    assert_eq!(web.image, ImageSource::Reference("w".into()));
    assert_eq!(env(web), "A=9 B=2 C=3");
    let dependencies =
        |name: &str| -> Vec<String> { app.spec.services[name].depends_on.keys().map(ToString::to_string).collect() };
    assert_eq!((dependencies("mid"), dependencies("web")), (vec!["cache".into()], vec!["base".into(), "cache".into()]));
    assert_eq!(env(&app.spec.services["base"]), "A=1");
}

#[test]
fn what_is_extended_from_a_file_keeps_its_directory_and_places() {
    let dir = given(&[
        (
            "compose.yaml",
            "services:\n  web:\n    extends: {file: common/base.yaml, service: web}\n    volumes: ['./conf:/etc/web']\n    environment: [TAG]\n",
        ),
        (
            "common/base.yaml",
            "services:\n  web:\n    extends: {file: ../shared.yaml, service: it}\n    build: .\n    env_file: web.env\n    volumes: ['./data:/data']\n  other: {image: '${NOT_NEEDED:?at all}'}\n",
        ),
        ("shared.yaml", "services:\n  it: {hostname: '${TAG}', init: x, command: !reset [x]}\n"),
        ("common/web.env", "E=1\n"),
        (".env", "TAG=t\n"),
    ]);
    let reader = ComposeReader::new();
    let problems = reader.read_file(dir.path().join("compose.yaml")).unwrap_err();
    assert_eq!(told(&dir, &problems), ["shared.yaml:2:34: services.web.init: \"x\" is not `true` or `false`"]);

    std::fs::write(dir.path().join("shared.yaml"), "services: {it: {hostname: '${TAG}'}}\n").unwrap();
    let web = &reader.read_file(dir.path().join("compose.yaml")).unwrap().spec.services["web"];
    let ImageSource::Build(build) = &web.image else { panic!("{web:?}") };
    assert_eq!(build.context, dir.path().join("common"));
    assert_eq!(env(web), "E=1 TAG=t");
    assert_eq!(web.workload.hostname.as_deref(), Some("t"));
    let sources: Vec<_> = web.workload.mounts.iter().map(|mount| mount.source.clone()).collect();
    let at = |name: &str| MountSource::Bind(dir.path().join(name).to_str().unwrap().to_owned());
    assert_eq!(sources, [at("common/data"), at("conf")]);
}

#[test]
fn wrong_extends_are_refused() {
    let dir = given(&[
        ("x.yaml", "services: {a: {extends: {file: y.yaml, service: b}}}\n"),
        ("y.yaml", "services: {b: {extends: {file: x.yaml, service: a}}}\n"),
        ("none.yaml", "name: x\n"),
    ]);
    let common = "services:\n  db: {image: d}\n  web:\n    image: w\n    extends: ";
    for (extends, expected) in [
        ("bd", "compose.yaml:5:14: services.web.extends: there is no service bd in this file"),
        ("web", "services extend each other: web -> web"),
        ("{service: db, fil: x.yaml}", "`fil` is no key of `extends`"),
        ("{file: x.yaml}", "5:14: services.web.extends: `service` is missing"),
        ("{file: zz.yaml, service: a}", "there is no file zz.yaml"),
        ("{file: none.yaml, service: a}", "there are no services in none.yaml"),
        ("{file: x.yaml, service: c}", "there is no service c in x.yaml"),
        ("{file: 'https://example.org/x.yaml', service: c}", "only files of this computer are read"),
        ("{file: '~/x.yaml', service: c}", "`~` depends on who deploys"),
        (
            "{file: x.yaml, service: a}",
            "y.yaml:1:25: services.b.extends: services extend each other: a in x.yaml -> b in y.yaml -> a in x.yaml",
        ),
        ("[db]", "services.web.extends: a mapping is needed here, not a list"),
    ] {
        let text = format!("{common}{extends}\n");
        let problems = ComposeReader::new().read_str(&text, "compose.yaml", dir.path()).unwrap_err();
        let found = told(&dir, &problems);
        assert_eq!(found.len(), 1, "{extends}: {found:?}");
        assert!(found[0].contains(expected), "{extends}: {found:?}");
    }
    let text = "services:\n  a: {extends: b}\n  b: {extends: c}\n  c: {extends: a}\n";
    let problems = ComposeReader::new().read_str(text, "compose.yaml", dir.path()).unwrap_err();
    assert_eq!(
        told(&dir, &problems),
        ["compose.yaml:4:16: services.c.extends: services extend each other: a -> b -> c -> a"]
    );
}

#[test]
fn what_is_wrong_in_a_copied_service_is_told_once() {
    let text = "services:\n  a: {image: x, init: x}\n  b: {extends: a}\n  c: {extends: b}\n";
    let problems = ComposeReader::new().read_str(text, "compose.yaml", "/nowhere").unwrap_err();
    assert_eq!(problems.to_string(), "compose.yaml:2:23: error: services.a.init: \"x\" is not `true` or `false`");
}

#[test]
fn included_files_have_directories_and_variables_of_their_own() {
    let dir = given(&[
        (
            "compose.yaml",
            "name: shop\ninclude:\n  - common/compose.yaml\n  - path: [other/a.yaml, other/b.yaml]\n    project_directory: .\n    env_file: [other/x.env, other/y.env]\nservices:\n  web: {image: 'web:${TAG:-none}', depends_on: [db]}\n  copy: {extends: db, hostname: copy}\n",
        ),
        (".env", "BOTH=outer\n"),
        (
            "common/compose.yaml",
            "name: ignored\nservices:\n  db: {image: 'db:${TAG}-${BOTH}', volumes: ['./data:/d'], environment: [TAG], networks: [back]}\nnetworks: {back: {}}\n",
        ),
        ("common/.env", "TAG=inner\nBOTH=inner\n"),
        ("other/a.yaml", "services: {job: {build: ., environment: {V: $V, W: $W}}}\n"),
        ("other/b.yaml", "services: {job: {build: {target: '${COMPOSE_PROJECT_NAME}'}}}\n"),
        ("other/x.env", "V=x\nW=x\n"),
        ("other/y.env", "W=y${V}\n"),
    ]);
    let app =
        ComposeReader::new().read_file(dir.path().join("compose.yaml")).unwrap_or_else(|problems| panic!("{problems}"));
    let spec = app.spec;
    assert_eq!(spec.name.as_str(), "shop");
    assert_eq!(spec.services["web"].image, ImageSource::Reference("web:none".into()));
    for name in ["db", "copy"] {
        let db = &spec.services[name];
        assert_eq!(db.image, ImageSource::Reference("db:inner-outer".into()));
        assert_eq!(env(db), "TAG=inner");
        let data = dir.path().join("common/data").to_str().unwrap().to_owned();
        assert_eq!(db.workload.mounts[0].source, MountSource::Bind(data));
    }
    let ImageSource::Build(build) = &spec.services["job"].image else { panic!("{spec:?}") };
    assert_eq!((&build.context, build.target.as_deref()), (&dir.path().to_owned(), Some("shop")));
    assert_eq!(env(&spec.services["job"]), "V=x W=yx");
    assert!(spec.networks.contains_key("back"));
}

#[test]
fn what_is_included_twice_must_be_the_same() {
    let dir = given(&[
        ("compose.yaml", "include: [a/compose.yaml, b/compose.yaml]\nservices: {web: {image: x}}\n"),
        ("a/compose.yaml", "include: [../c/compose.yaml]\nnetworks: {n: {internal: true}}\n"),
        ("b/compose.yaml", "include: [../c/compose.yaml]\nnetworks: {n: {internal: true}}\n"),
        ("c/compose.yaml", "services: {db: {image: d, environment: {A: 1}, volumes: ['./x:/x']}}\n"),
        ("own.yaml", "include: [c/compose.yaml]\nservices:\n  db: {image: e}\n"),
        ("over.yaml", "services: {db: {image: f}}\n"),
        ("twins.yaml", "include: [d/compose.yaml, c/compose.yaml]\n"),
        ("d/compose.yaml", "services: {db: {image: d, environment: {A: 1}, volumes: ['./x:/x']}}\n"),
    ]);
    let read = |names: &[&str]| ComposeReader::new().read_files(names.iter().map(|name| dir.path().join(name)));
    assert_eq!(read(&["compose.yaml"]).unwrap().spec.services.len(), 2);

    let problems = read(&["own.yaml"]).unwrap_err();
    assert_eq!(
        told(&dir, &problems),
        ["c/compose.yaml:1:12: services.db: services.db is declared in an included file and elsewhere"]
    );
    assert_eq!(problems.0[0].notes[0].place.as_ref().unwrap().line, 3);
    // Variables of the files in between matter only where they are used.
    std::fs::write(dir.path().join("a/.env"), "B=1\n").unwrap();
    assert_eq!(read(&["compose.yaml"]).unwrap().spec.services.len(), 2);
    let named = "services: {db: {image: d, environment: {B: }}}\n";
    std::fs::write(dir.path().join("c/compose.yaml"), named).unwrap();
    assert!(read(&["compose.yaml"]).is_err());
    std::fs::write(dir.path().join("c/compose.yaml"), named.replace("{B: }", "[B]")).unwrap();
    assert!(read(&["compose.yaml"]).is_err());
    // The same text with another directory means something else.
    assert_eq!(read(&["twins.yaml"]).unwrap_err().0.len(), 1);
    // Tags say what is meant.
    std::fs::write(dir.path().join("own.yaml"), "include: [c/compose.yaml]\nservices: {db: !override {image: e}}\n")
        .unwrap();
    assert_eq!(read(&["own.yaml"]).unwrap().spec.services["db"].image, ImageSource::Reference("e".into()));
    std::fs::write(dir.path().join("own.yaml"), "include: [c/compose.yaml]\nservices: {db: !reset , x: {image: y}}\n")
        .unwrap();
    assert!(!read(&["own.yaml"]).unwrap().spec.services.contains_key("db"));
    // A further file may change what the first includes.
    std::fs::write(dir.path().join("own.yaml"), "include: [c/compose.yaml]\n").unwrap();
    let app = read(&["own.yaml", "over.yaml"]).unwrap();
    assert_eq!(app.spec.services["db"].image, ImageSource::Reference("f".into()));
}

#[test]
fn wrong_includes_are_refused() {
    let dir = given(&[
        ("a.yaml", "include: [sub/b.yaml]\n"),
        ("sub/b.yaml", "include:\n  - ../a.yaml\n"),
        ("keys.yaml", "servces: {}\nconfigs: {c: {}}\nservices: {x: {image: y}}\n"),
        ("list.yaml", "services: [x]\n"),
        ("bad/compose.yaml", "services: {x: {image: y}}\n"),
        ("bad/.env", "A B=hunter2\n"),
    ]);
    for (include, expected) in [
        ("x", &["compose.yaml:2:10: include: \"x\" is not a list"][..]),
        ("[none.yaml]", &["compose.yaml:2:11: include[0]: there is no file none.yaml"]),
        (
            "[{path: [none.yaml, '~/x', a.yaml, nil.yaml], env_file: [no.env, nil.env]}]",
            &["compose.yaml:2:30: include[0].path[1]: `~` depends on who deploys"],
        ),
        (
            "[{path: bad/compose.yaml, env_file: [no.env, nil.env]}]",
            &["no.env: the file does not exist", "nil.env: the file does not exist"],
        ),
        ("[{path: []}]", &["compose.yaml:2:11: include[0]: no file is named"]),
        ("[{env_file: x}]", &["compose.yaml:2:11: include[0]: `path` is missing"]),
        ("[[a.yaml]]", &["compose.yaml:2:11: include[0]: a mapping is needed here, not a list"]),
        ("[{path: bad/compose.yaml, env_file: no.env}]", &["no.env: the file does not exist"]),
        (
            "[bad/compose.yaml]",
            &[
                "bad/.env: line 1: the name of the variable has a character that is no letter, digit, `_`, `.`, `-`, `[` or `]`",
            ],
        ),
        ("['oci://example.org/x']", &["compose.yaml:2:11: include[0]: only files of this computer are read"]),
        ("[a.yaml]", &["sub/b.yaml:2:5: include[0]: files include each other: a.yaml -> sub/b.yaml -> a.yaml"]),
        (
            "[keys.yaml]",
            &[
                "keys.yaml:1:1: servces: `servces` is no key of the file",
                "keys.yaml:2:14: configs.c: the config has no content",
            ],
        ),
        ("[list.yaml]", &["list.yaml:1:11: services: a mapping is needed here, not a list"]),
    ] {
        let text = format!("services: {{web: {{image: w}}}}\ninclude: {include}\n");
        let problems = ComposeReader::new().read_str(&text, "compose.yaml", dir.path()).unwrap_err();
        let errors = problems.0.iter().filter(|problem| problem.severity == Severity::Error).count();
        assert_eq!(told(&dir, &problems), expected, "{include}");
        assert_eq!(errors, expected.len());
        assert!(!problems.to_string().contains("hunter2"));
    }
    let app = ComposeReader::new().read_str(
        "include: [{path: bad/compose.yaml, env_file: /dev/null}]\n",
        "compose.yaml",
        dir.path(),
    );
    assert_eq!(app.unwrap().spec.services.len(), 1);
}

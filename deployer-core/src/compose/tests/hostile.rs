//! Input that wants to do harm.

use proptest::prelude::*;

use super::{file, given, read};
use crate::compose::{ComposeReader, render};

const SHOP: &str = include_str!("shop.yaml");

/// Reads the text, and renders what is wrong with it.
fn survives(text: &str) {
    let problems = match read(text) {
        Ok(app) => app.warnings,
        Err(problems) => {
            assert!(problems.has_errors(), "{text}");
            problems
        }
    };
    let shown = render(&problems, |_| Some(text.to_owned()));
    assert_eq!(shown.is_empty(), problems.0.is_empty());
}

#[test]
fn large_values_are_read_or_refused_in_bounds() {
    for text in [
        file(&format!("command: {}", "x".repeat(500_000))),
        file(&format!("command: \"{}\"", "$A".repeat(200_000))),
        file(&format!("env_file: [{}]", "none, ".repeat(20_000))),
        file("env_file: /dev/zero"),
        file(&format!("labels: [{}]", "\"x=${A+${EMPTY:-$SECRET}}\", ".repeat(20_000))),
        file(&format!("hostname: \"{}\"", "${A:-".repeat(100_000))),
        file(&format!("ports: [{}]", "1-65535:1-65535, ".repeat(10_000))),
        file(&format!("expose: [{}]", "1-65535, ".repeat(10_000))),
        file(&format!("{}: 1", "k".repeat(1_000))),
        file(&format!("tmpfs: [{}]", "/x:size=1, ".repeat(20_000))),
        format!("services: {{{}}}", (0..20_000).map(|n| format!("s{n}: {{imag: x}}, ")).collect::<String>()),
        format!(
            "services: {{web: {{image: x, labels: {{{}}}}}}}",
            (0..20_000).map(|n| format!("l{n}: x, ")).collect::<String>()
        ),
    ] {
        survives(&text);
    }
}

#[test]
fn there_is_an_end_to_problems() {
    let text = format!("services: {{{}}}", (0..1_000).map(|n| format!("s{n}: {{imag: x}}, ")).collect::<String>());
    let problems = read(&text).unwrap_err();
    assert_eq!(problems.0.len(), 201);
    assert_eq!(problems.0[200].message, "there are 1800 more problems");
}

/// A file of about 10,000 lines, as one that a program writes could be.
fn long_file() -> String {
    let service = |n: usize| {
        format!(
            "  s{n}:\n    image: shop/s{n}:${{TAG}}\n    expose: [8080]\n    environment:\n      A: a\n      B: ${{TAG}}\n    \
             labels:\n      - a=b\n      - c=d\n    networks: [front, back]\n    volumes:\n      - data:/data\n      - ./s{n}:/etc/s\n    \
             depends_on:\n      - base\n    healthcheck:\n      test: [CMD, check]\n      interval: 10s\n    restart: always\n"
        )
    };
    let services: String = (0..526).map(service).collect();
    format!("services:\n  base: {{image: base}}\n{services}networks: {{front: , back: }}\nvolumes: {{data: }}\n")
}

#[test]
fn long_files_are_read() {
    let text = long_file();
    assert!(text.lines().count() > 9_990, "{}", text.lines().count());
    let dir = given(&[("a.yaml", &text), ("b.yaml", &text)]);
    let reader = ComposeReader::new().with_env("TAG", "1");
    let app = reader.read_file(dir.path().join("a.yaml")).unwrap();
    assert_eq!(app.spec.services.len(), 527);
    let app = reader.read_files(["a.yaml", "b.yaml"].map(|name| dir.path().join(name))).unwrap();
    assert_eq!(app.spec.services["s7"].workload.mounts.len(), 2);
}

#[test]
fn chains_of_extends_end() {
    let forth: String = (1..5_000).map(|n| format!("  s{n}: {{extends: s{}}}\n", n - 1)).collect();
    let back: String = (0..5_000).map(|n| format!("  s{n}: {{extends: s{}}}\n", n + 1)).collect();
    for text in [format!("services:\n  s0: {{image: x}}\n{forth}"), format!("services:\n{back}  s5000: {{image: x}}\n")]
    {
        let problems = read(&text).unwrap_err();
        assert_eq!(problems.0[0].message, "more than 64 services extend each other in a row");
    }
    let many = "X".repeat(20);
    let big: String = (0..2_000).map(|n| format!("      {many}{n}: x\n")).collect();
    let copies: String = (0..2_000).map(|n| format!("  s{n}: {{extends: big}}\n")).collect();
    let text = format!("services:\n  big:\n    image: x\n    environment:\n{big}{copies}");
    let problems = read(&text).unwrap_err();
    assert_eq!(problems.0[0].message, "the application grows too large when `extends` is resolved");
}

#[test]
fn files_that_include_many_files_end() {
    let mut files = Vec::new();
    for level in 0..20 {
        let next = level + 1;
        let text = format!("include: [a{next}.yaml, b{next}.yaml]\nservices: {{s: {{image: x}}}}\n");
        files.push((format!("a{level}.yaml"), text.clone()));
        files.push((format!("b{level}.yaml"), text));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let dir = given(&files);
    let problems = ComposeReader::new().read_file(dir.path().join("a0.yaml")).unwrap_err();
    let has = |wanted: &str| problems.0.iter().any(|problem| problem.message.contains(wanted));
    assert!(has("files include each other deeper than 16 levels"), "{problems}");
    assert!(has("no more than 100 Compose files are read"), "{problems}");
}

#[test]
fn files_that_include_one_file_often_end() {
    let variables: String = (0..100_000).map(|n| format!("V{n}=\n")).collect();
    let list = "a/x.yaml, ".repeat(10_000);
    let dir = given(&[
        ("compose.yaml", &format!("include: [{list}]\n")),
        ("a/x.yaml", "services: {s: {image: x}}\n"),
        ("a/.env", &format!("{variables}OWN=1\n")),
        (".env", &variables),
    ]);
    let problems = ComposeReader::new().read_file(dir.path().join("compose.yaml")).unwrap_err();
    assert_eq!(problems.0[0].message, "no more than 100 Compose files are read");
}

#[test]
fn paths_may_lead_anywhere_but_only_to_files() {
    let dir =
        given(&[("a/compose.yaml", "services: {web: {extends: {file: ../../../../../../../dev/zero, service: x}}}\n")]);
    let problems = ComposeReader::new().read_file(dir.path().join("a/compose.yaml")).unwrap_err();
    assert!(problems.0[0].message.ends_with("this is no regular file"), "{problems}");
    for path in ["/dev/stdin", "/proc", ".", "\\0"] {
        let text = format!("include: [{{path: \"{path}\"}}]\n");
        assert!(ComposeReader::new().read_str(&text, "f", dir.path()).unwrap_err().has_errors(), "{path}");
    }
}

#[test]
fn values_of_a_megabyte_are_survived_everywhere() {
    let big = "x".repeat(900_000);
    for keys in
        ["init: '${BIG}'", "extends: '${BIG}'", "ports: ['${BIG}']", "environment: ['${BIG}']", "labels: {a: '${BIG}'}"]
    {
        let text = file(keys);
        let result = ComposeReader::new().with_env("BIG", big.as_str()).read_str(&text, "f", "/nowhere");
        if let Err(problems) = result {
            assert!(problems.to_string().len() < 2_000, "{keys}");
        }
    }
    let variables: String = (0..50_000).map(|n| format!("V{n}=\n")).collect();
    let uses: String = (0..50_000).map(|n| format!("$V{n}")).collect();
    let dir = given(&[(".env", &variables)]);
    let text = file(&format!("ports: ['{uses}1000-1900:1000-1900']\ninit: '{uses}x'"));
    let problems = ComposeReader::new().read_str(&text, "f", dir.path()).unwrap_err();
    assert!(problems.0.iter().all(|problem| problem.notes.len() <= 8), "{problems}");
}

#[test]
fn many_services_with_many_ports_end() {
    let text: String = (0..5_000).map(|n| format!("  s{n}: {{image: x, expose: [1-1000]}}\n")).collect();
    let problems = read(&format!("services:\n{text}")).unwrap_err();
    assert_eq!(problems.0[0].message, "all services together have at most 20000 ports");
}

#[test]
fn many_warnings_are_no_error() {
    let text: String = (0..300).map(|n| format!("  s{n}: {{image: x, container_name: c}}\n")).collect();
    let app = read(&format!("services:\n{text}")).unwrap();
    assert_eq!(app.warnings.0.len(), 201);
    assert_eq!(app.warnings.0[200].message, "there are 100 more warnings");
    let problems = read(&format!("services:\n{text}  last: {{imag: x}}\n")).unwrap_err();
    assert!(problems.errors().any(|problem| problem.path == "services.last.imag"), "warnings hide no error");
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "\\PC{0,200}") {
        survives(&text);
    }

    #[test]
    fn any_yaml_like_text_is_survived(text in "[a-c:\\-\\[\\]{}&*!|>'\"%#?,$ \n]{0,120}") {
        survives(&text);
        survives(&file(&text));
    }

    #[test]
    fn any_damage_to_a_file_is_survived(
        at in 0..SHOP.len(), length in 0_usize..40, put in "[a-z0-9:\\-\\[\\]{}&*!|>'\"$~ \n]{0,10}",
    ) {
        let start = SHOP.floor_char_boundary(at);
        let end = SHOP.floor_char_boundary((start + length).min(SHOP.len()));
        survives(&format!("{}{put}{}", &SHOP[..start], &SHOP[end..]));
    }

    #[test]
    fn any_two_files_are_survived(
        one in "[a-c:\\-\\[\\]{}&*!|<'\"$ \n]{0,80}", other in "(web|db|ports|command|: |- |!reset |!override |[\\[\\]{}a1,\n ]){0,30}",
    ) {
        let dir = given(&[("a.yaml", &file(&one)), ("b.yaml", &file(&other)), ("c.yaml", &other)]);
        let at = |name: &str| dir.path().join(name);
        for names in [&["a.yaml", "b.yaml"][..], &["b.yaml", "c.yaml", "a.yaml"]] {
            if let Err(problems) = ComposeReader::new().read_files(names.iter().map(|name| at(name))) {
                prop_assert!(problems.has_errors());
            }
        }
    }

    #[test]
    fn any_value_of_any_key_is_survived(key in 0_usize..80, value in "\\PC{0,40}") {
        let keys: Vec<&str> = crate::compose::keys::SERVICE.supported().collect();
        let text = serde_json::to_string(&value).unwrap();
        survives(&file(&format!("{}: {text}", keys[key % keys.len()])));
    }
}

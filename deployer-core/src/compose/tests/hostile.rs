//! Input that wants to do harm.

use proptest::prelude::*;

use super::{file, read};
use crate::compose::render;

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
    fn any_value_of_any_key_is_survived(key in 0_usize..80, value in "\\PC{0,40}") {
        let keys: Vec<&str> = crate::compose::keys::SERVICE.supported().collect();
        let text = serde_json::to_string(&value).unwrap();
        survives(&file(&format!("{}: {text}", keys[key % keys.len()])));
    }
}

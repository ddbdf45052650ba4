//! The Compose reader: any bytes are read or refused, within bounds, and what is refused is refused with its place.

use deployer_core::Severity;
use deployer_core::compose::{ComposeReader, render};

/// The most that an application may grow to, as text: aliases are resolved, ranges of ports spelt out.
const MOST: usize = 64 << 20;

pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let reader = ComposeReader::new().with_env("TAG", "1").with_env("EMPTY", "").with_profile("*");
    // Nothing is there: files that it names are missing.
    let (spec, problems) = match reader.read_str(&text, "compose.yaml", "/nowhere/project") {
        Ok(app) => (Some(app.spec), app.warnings),
        Err(problems) => (None, problems),
    };
    assert_eq!(spec.is_none(), problems.has_errors(), "it is read or refused, never both");
    assert!(problems.0.len() <= 201, "there is an end to problems");
    for problem in &problems.0 {
        assert!(!problem.message.is_empty());
        let Some(place) = &problem.place else {
            assert!(problem.severity == Severity::Warning || problem.message.starts_with("there are "), "{problem}");
            continue;
        };
        assert_eq!(place.file, "compose.yaml");
        assert!(place.line >= 1 && place.column >= 1, "{problem}");
        assert!(place.line as usize <= text.lines().count().max(1) + 1, "{problem}");
    }
    let shown = render(&problems, |_| Some(text.to_string()));
    assert_eq!(shown.is_empty(), problems.0.is_empty());
    if let Some(spec) = spec {
        let stored = serde_json::to_string(&spec).expect("an application can be stored");
        assert!(stored.len() <= MOST, "it grows to {} bytes", stored.len());
        let again: deployer_core::AppSpec = serde_json::from_str(&stored).expect("it can be read again");
        assert!(again == spec && spec.validate().is_ok());
    }
}

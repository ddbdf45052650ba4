//! The Compose reader: any bytes are read or refused, within bounds, and what is refused is refused with its place.
//!
//! Where the bytes hold the line `# next file`, they are two files, the second overriding the first.

use deployer_core::compose::{ComposeReader, render};
use deployer_core::{AppSpec, Problems, Severity};

/// The most that an application may grow to, as text: aliases are resolved, ranges of ports spelt out.
const MOST: usize = 64 << 20;

pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.split_once("# next file\n") {
        Some((one, other)) => two(one, other),
        None => one(&text),
    }
}

fn reader() -> ComposeReader {
    ComposeReader::new().with_env("TAG", "1").with_env("EMPTY", "").with_profile("*")
}

fn two(one: &str, other: &str) {
    let dir = std::env::temp_dir().join(format!("deployer-fuzz-compose-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("there is a directory for temporary files");
    let files = [dir.join("a.yaml"), dir.join("b.yaml")];
    for (file, text) in files.iter().zip([one, other]) {
        std::fs::write(file, text).expect("a file can be written");
    }
    let (spec, problems) = match reader().read_files(&files) {
        Ok(app) => (Some(app.spec), app.warnings),
        Err(problems) => (None, problems),
    };
    assert_eq!(spec.is_none(), problems.has_errors(), "it is read or refused, never both");
    check(spec, &problems);
    for place in problems.0.iter().filter_map(|problem| problem.place.as_ref()) {
        assert!(place.line >= 1 && place.column >= 1, "{place}");
    }
}

fn one(text: &str) {
    let reader = reader();
    // Nothing is there: files that it names are missing.
    let (spec, problems) = match reader.read_str(text, "compose.yaml", "/nowhere/project") {
        Ok(app) => (Some(app.spec), app.warnings),
        Err(problems) => (None, problems),
    };
    assert_eq!(spec.is_none(), problems.has_errors(), "it is read or refused, never both");
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
    check(spec, &problems);
}

/// There is an end to problems, and an application can be stored.
fn check(spec: Option<AppSpec>, problems: &Problems) {
    assert!(problems.0.len() <= 401, "there is an end to problems");
    if let Some(spec) = spec {
        let stored = serde_json::to_string(&spec).expect("an application can be stored");
        assert!(stored.len() <= MOST, "it grows to {} bytes", stored.len());
        let again: AppSpec = serde_json::from_str(&stored).expect("it can be read again");
        assert!(again == spec && spec.validate().is_ok());
    }
}

//! The guide for authors of backends quotes this backend: what it quotes must be there.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn guide() -> String {
    std::fs::read_to_string(docs().join("backends.md")).unwrap()
}

/// The targets of the links to files in a line.
fn links(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// A text without what formatting changes.
fn plain(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_file_that_the_guide_names_is_there() {
    let guide = guide();
    let links: Vec<&str> = guide.lines().flat_map(links).collect();
    assert!(links.len() > 20, "{} links were found", links.len());
    let gone: Vec<_> = links.iter().filter(|link| !docs().join(link).exists()).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

#[test]
fn every_piece_of_code_in_the_guide_is_in_the_file_named_before_it() {
    let (guide, mut quoted) = (guide(), 0);
    let mut named = None;
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        named = links(line).last().copied().or(named);
        if line == "```rust" {
            let code: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let file = named.expect("a file is named before its code");
            let source = std::fs::read_to_string(docs().join(file)).unwrap();
            assert!(plain(&source).contains(&plain(&code.join("\n"))), "{file} has not:\n{}", code.join("\n"));
            quoted += 1;
        }
    }
    assert!(quoted >= 6, "{quoted} pieces of code were found");
}

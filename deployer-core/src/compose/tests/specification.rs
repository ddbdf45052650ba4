//! The table of keys is complete: `specification.txt` has the path of every key in the schema of the Compose
//! Specification (of July 2026), where `*` is any name and `[]` any item.

use crate::compose::fates::{SECTIONS, fates};
use crate::compose::keys::{Fate, Section};

const PATHS: &str = include_str!("specification.txt");

fn section(path: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|(known, _)| *known == path).map(|(_, section)| *section)
}

/// What becomes of the key at this path, which may follow from one above it.
fn fate(path: &str) -> Option<Fate> {
    let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
    let mut fate = None;
    for end in ends {
        let (parent, key) = path[..end].rsplit_once('.').unwrap_or(("", &path[..end]));
        let key = key.trim_end_matches("[]");
        if key == "*" {
            continue;
        }
        fate = section(parent)?.fate(key);
        if !matches!(fate, Some(Fate::Deployed | Fate::Translated(_))) {
            return fate;
        }
    }
    fate
}

#[test]
fn every_key_of_the_specification_is_in_the_table() {
    // The old form of `external`, a mapping, is refused where it is read.
    let missing: Vec<&str> =
        PATHS.lines().filter(|path| !path.ends_with(".external.name") && fate(path).is_none()).collect();
    assert_eq!(missing, [""; 0]);
    assert!(PATHS.lines().count() > 300);
}

#[test]
fn the_table_has_no_other_keys() {
    for (path, section) in SECTIONS {
        for key in section.known().filter(|key| *key != "x-deployer") {
            let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            assert!(PATHS.lines().any(|known| known == path), "{path}");
        }
    }
}

fn cell(fate: Fate) -> String {
    match fate {
        Fate::Deployed => "yes".to_owned(),
        Fate::Translated(how) => format!("yes: {how}"),
        Fate::Ignored(why) => format!("ignored: {why}"),
        Fate::Refused(instead) => format!("refused: {instead}"),
    }
}

/// The table of `docs/compose.md`. With `DEPLOYER_WRITE_DOCS=1` it is written.
#[test]
fn the_document_has_the_table() {
    const BEGIN: &str = "<!-- Keys: written by the test `the_document_has_the_table` with DEPLOYER_WRITE_DOCS=1 -->\n";
    const END: &str = "<!-- End of the keys -->\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compose.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table has a place");
    let (there, after) = rest.split_once(END).expect("the table has an end");
    let mut table = "\n| key | Docker | ECS |\n| --- | --- | --- |\n".to_owned();
    for key in fates() {
        let ecs = if key.ecs == key.docker { "the same".to_owned() } else { cell(key.ecs) };
        table.push_str(&format!("| `{}` | {} | {ecs} |\n", key.path, cell(key.docker)));
    }
    table.push('\n');
    if std::env::var_os("DEPLOYER_WRITE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(there, table, "run the tests with DEPLOYER_WRITE_DOCS=1");
    }
}

//! The table of keys is complete: `specification.txt` has the path of every key in the schema of the Compose
//! Specification (of July 2026), where `*` is any name and `[]` any item.

use crate::compose::keys::{self, Fate, Section};

const PATHS: &str = include_str!("specification.txt");

/// The tables of mappings with fixed keys, by their paths.
const SECTIONS: &[(&str, &Section)] = &[
    ("", &keys::TOP),
    ("include[]", &keys::INCLUDE),
    ("networks.*", &keys::NETWORK),
    ("secrets.*", &keys::SECRET),
    ("services.*", &keys::SERVICE),
    ("services.*.build", &keys::BUILD),
    ("services.*.build.secrets[]", &keys::BUILD_SECRET),
    ("services.*.depends_on.*", &keys::DEPENDENCY),
    ("services.*.deploy", &keys::DEPLOY),
    ("services.*.deploy.resources", &keys::RESOURCES),
    ("services.*.deploy.resources.limits", &keys::LIMITS),
    ("services.*.deploy.resources.reservations", &keys::RESERVATIONS),
    ("services.*.env_file[]", &keys::ENV_FILE),
    ("services.*.extends", &keys::EXTENDS),
    ("services.*.healthcheck", &keys::HEALTHCHECK),
    ("services.*.networks.*", &keys::SERVICE_NETWORK),
    ("services.*.ports[]", &keys::PORT),
    ("services.*.volumes[]", &keys::MOUNT),
    ("services.*.volumes[].bind", &keys::MOUNT_BIND),
    ("services.*.volumes[].tmpfs", &keys::MOUNT_TMPFS),
    ("services.*.volumes[].volume", &keys::MOUNT_VOLUME),
    ("volumes.*", &keys::VOLUME),
];

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
        if fate != Some(Fate::Supported) {
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

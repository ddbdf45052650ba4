//! What is said about keys that are not read.

use super::cursor::{Cursor, Field};
use super::keys::{Fate, Section};
use super::report::Report;
use crate::model::Problem;

/// Reports every key of the mapping that is not supported.
pub(super) fn keys(report: &mut Report, map: &Cursor<'_>, section: &Section) {
    for Field { key, key_at, value } in map.entries() {
        match section.fate(key) {
            Some(Fate::Deployed | Fate::Translated(_)) => {}
            Some(Fate::Ignored(why)) => {
                report.warn_at(&value.path, key_at, format!("`{key}` has no effect: {why}"), None);
            }
            // Null and `false` ask for what is so anyway.
            Some(Fate::Refused(_))
                if value.is_null() || value.scalar().is_some_and(|scalar| scalar.text == "false") => {}
            Some(Fate::Refused(instead)) => {
                report.problem(&value.path, key_at, format!("`{key}` is not supported"), instead.to_owned());
            }
            None if section.extensible && key == "x-deployer" => {
                let help = "move it into a service".to_owned();
                report.problem(&value.path, key_at, format!("`x-deployer` is no key of {}", section.name), help);
            }
            None if section.extensible && key.starts_with("x-") => {
                let own = section.known().filter(|known| known.starts_with("x-"));
                if let Some(meant) = nearest(key, own) {
                    let help = format!("if `{meant}` was meant, correct it");
                    report.warn_at(&value.path, key_at, format!("`{key}` is of no known tool"), Some(help));
                }
            }
            None => {
                if report.is_full() {
                    report.add(Problem::error(value.path, "unknown key"));
                    continue;
                }
                let help = match nearest(key, section.known()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => {
                        let names: Vec<String> = section.supported().map(|known| format!("`{known}`")).collect();
                        format!("{} may have {}", section.name, names.join(", "))
                    }
                };
                report.problem(&value.path, key_at, format!("`{key}` is no key of {}", section.name), help);
            }
        }
    }
}

/// The candidate nearest to `word`, if one is so near that it was probably meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Long words are no typing errors of short ones, and measuring them would take long.
    if word.len() > 40 {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let word = plain(word);
    let near = |candidate: &&str| distance(&word, &plain(candidate));
    let best = candidates.into_iter().min_by_key(near)?;
    (near(&best) <= (best.len() / 3).clamp(1, 3)).then_some(best)
}

/// How many characters must be added, removed, replaced or swapped with their neighbour to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = last[j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::super::keys::SERVICE;
    use super::*;

    #[test]
    fn nearest_names_are_found() {
        for (word, expected) in [
            ("imag", Some("image")),
            ("Image", Some("image")),
            ("prots", Some("ports")),
            ("healtcheck", Some("healthcheck")),
            ("depends-on", Some("depends_on")),
            ("enviroment", Some("environment")),
            ("zzz", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, SERVICE.known()), expected, "{word}");
        }
    }
}

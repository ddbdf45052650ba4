//! Which items of two lists are the same thing.

use super::node::{Node, Value};
use super::rules::{ItemKey, Rule};

/// What tells this item from others of such a list; none if it is like no other, or if there is no telling.
pub(super) fn key(item: &Node, rule: Rule) -> Option<String> {
    let key = match rule {
        Rule::Items(key) => key,
        Rule::Merged(key) => ItemKey::Key(key),
        Rule::Pairs => ItemKey::Pair,
        Rule::Names(_) => ItemKey::Text,
        Rule::Replace | Rule::Mapping { .. } => return None,
    };
    match (&item.value, key) {
        (Value::Scalar(scalar), _) => Some(of_text(&scalar.text, key)),
        (Value::Map(_), ItemKey::Key(name)) => text(item, name).map(str::to_owned),
        (Value::Map(_), ItemKey::Target) => text(item, "target").map(str::to_owned),
        (Value::Map(_), ItemKey::File(dir)) => match text(item, "target") {
            Some(target) => Some(target.to_owned()),
            None => text(item, "source").map(|source| format!("{dir}{source}")),
        },
        _ => None,
    }
}

fn of_text(text: &str, key: ItemKey) -> String {
    match key {
        ItemKey::Text | ItemKey::Key(_) => text.to_owned(),
        ItemKey::Pair => text.split('=').next().unwrap_or(text).to_owned(),
        ItemKey::Target => text.split(':').nth(1).unwrap_or(text).to_owned(),
        ItemKey::Tmpfs => text.split(':').next().unwrap_or(text).to_owned(),
        ItemKey::File(dir) => format!("{dir}{text}"),
        // Both `NAME=ADDRESS` and `NAME:ADDRESS` are right.
        ItemKey::Host => text.replacen(['=', ':'], "=", 1),
    }
}

/// The text under this key of a mapping.
fn text<'n>(item: &'n Node, key: &str) -> Option<&'n str> {
    let Value::Map(entries) = &item.value else { return None };
    entries.iter().find(|entry| entry.key == key)?.value.text()
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::super::source::parse;
    use super::*;

    #[test]
    fn items_are_told_apart_by_their_keys() {
        for (wanted, item, expected) in [
            (ItemKey::Text, "a=b", Some("a=b")),
            (ItemKey::Text, "[a]", None),
            (ItemKey::Pair, "a=b=c", Some("a")),
            (ItemKey::Pair, "a", Some("a")),
            (ItemKey::Target, "/x", Some("/x")),
            (ItemKey::Target, "data:/x:ro", Some("/x")),
            (ItemKey::Target, "{type: bind, source: a, target: /x}", Some("/x")),
            (ItemKey::Target, "{type: bind}", None),
            (ItemKey::Tmpfs, "/x:size=1m", Some("/x")),
            (ItemKey::File("/run/secrets/"), "a", Some("/run/secrets/a")),
            (ItemKey::File("/run/secrets/"), "{source: a}", Some("/run/secrets/a")),
            (ItemKey::File("/run/secrets/"), "{source: a, target: /b}", Some("/b")),
            (ItemKey::Host, "\"a:10.0.0.1\"", Some("a=10.0.0.1")),
            (ItemKey::Host, "\"a=::1\"", Some("a=::1")),
            (ItemKey::Key("path"), "a", Some("a")),
            (ItemKey::Key("path"), "{path: a, required: false}", Some("a")),
            (ItemKey::Key("path"), "{path: [a]}", None),
        ] {
            let node = parse(item, 0, &mut Budget::default()).unwrap().remove(0);
            assert_eq!(key(&node, Rule::Items(wanted)).as_deref(), expected, "{item}");
        }
    }
}

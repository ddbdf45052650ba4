//! Values that may be written in several forms, brought into one, so that they can be merged.

use std::collections::HashMap;

use super::node::{Entry, Node, Position, Scalar, Template, Value};
use super::rules::{ItemKey, Listed, Rule};

/// Brings both values into the form that the rule merges. What has no such form stays as it is.
pub(super) fn common(base: Node, over: Node, rule: Rule) -> (Node, Node) {
    match rule {
        Rule::Replace => (base, over),
        Rule::Items(key) => (list(base, key), list(over, key)),
        Rule::Mapping { short, .. } => (mapping(base, short), mapping(over, short)),
        Rule::Pairs | Rule::Names(_) if is_list(&base) && is_list(&over) => (base, over),
        Rule::Pairs => (by_name(base, pair), by_name(over, pair)),
        Rule::Names(listed) => {
            let entry = |scalar, at| named(scalar, at, listed);
            (by_name(base, entry), by_name(over, entry))
        }
    }
}

fn is_list(node: &Node) -> bool {
    matches!(node.value, Value::List(_))
}

/// One value becomes a list of it; hosts with their addresses become a list of `NAME=ADDRESS`.
fn list(mut node: Node, key: ItemKey) -> Node {
    node.value = match node.value {
        Value::Scalar(scalar) => Value::List(vec![Node::new(Value::Scalar(scalar), node.at)]),
        Value::Map(entries) if key == ItemKey::Host => Value::List(entries.into_iter().flat_map(hosts).collect()),
        other => other,
    };
    node
}

fn hosts(entry: Entry) -> Vec<Node> {
    let addresses = match entry.value.value {
        Value::List(addresses) => addresses,
        _ => vec![entry.value],
    };
    let host = |mut address: Node| {
        if let Value::Scalar(scalar) = &mut address.value {
            scalar.text = format!("{}={}", entry.key, scalar.text);
            scalar.offset = None;
        }
        address
    };
    addresses.into_iter().map(host).collect()
}

/// Text becomes a mapping in which it is the value of `short`.
fn mapping(mut node: Node, short: Option<&'static str>) -> Node {
    node.value = match (node.value, short) {
        (Value::Scalar(scalar), Some(key)) => {
            let value = Node::new(Value::Scalar(scalar), node.at);
            Value::Map(vec![Entry { key: key.to_owned(), key_at: node.at, value }])
        }
        (other, _) => other,
    };
    node
}

/// A list of texts becomes a mapping.
fn by_name(mut node: Node, entry: impl Fn(Scalar, Position) -> Entry) -> Node {
    let Value::List(items) = node.value else { return node };
    if items.iter().any(|item| item.text().is_none()) {
        return Node { value: Value::List(items), ..node };
    }
    let mut entries: Vec<Entry> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for item in items {
        let Value::Scalar(scalar) = item.value else { continue };
        let entry = entry(scalar, item.at);
        match known.get(&entry.key) {
            Some(index) => entries[*index] = entry,
            None => {
                known.insert(entry.key.clone(), entries.len());
                entries.push(entry);
            }
        }
    }
    node.value = Value::Map(entries);
    node
}

/// `NAME=value`, or a name alone.
fn pair(scalar: Scalar, at: Position) -> Entry {
    let Some((name, value)) = scalar.text.split_once('=') else {
        return Entry { key: scalar.text, key_at: at, value: Node::new(Value::Null, at) };
    };
    let value_at = match (scalar.offset, &scalar.template) {
        (Some(offset), None) => at.plus(offset + name.chars().count() + 1),
        _ => at,
    };
    let template = scalar.template.map(|template| Template {
        text: template.text.split_once('=').map_or(template.text.as_str(), |(_, value)| value).to_owned(),
        ..template
    });
    let value = Scalar { text: value.to_owned(), offset: None, template };
    Entry { key: name.to_owned(), key_at: at, value: Node::new(Value::Scalar(value), value_at) }
}

/// A name, with what the short form sets.
fn named(scalar: Scalar, at: Position, listed: Listed) -> Entry {
    let value = match listed {
        Listed::Bare => Value::Null,
        Listed::Dependency => Value::Map(vec![
            Entry { key: "condition".to_owned(), key_at: at, value: Node::scalar("service_started", at) },
            Entry { key: "required".to_owned(), key_at: at, value: Node::scalar("true", at) },
        ]),
    };
    Entry { key: scalar.text, key_at: at, value: Node::new(value, at) }
}

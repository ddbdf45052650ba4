//! Values that may be written in several forms, brought into one, so that they can be merged.

use std::collections::HashMap;

use super::node::{Entry, Node, Position, Scalar, Template, Value};
use super::rules::{ItemKey, Listed, Rule};

/// Brings both values into the form that the rule merges. What has no such form stays as it is.
pub(super) fn common(base: Node, over: Node, rule: Rule) -> (Node, Node) {
    match rule {
        Rule::Replace | Rule::Merged(_) => (base, over),
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
        Value::Map(mut entries) if key == ItemKey::Host => {
            // As with Compose, because a mapping has no order.
            entries.sort_by(|one, other| one.key.cmp(&other.key));
            Value::List(entries.into_iter().flat_map(hosts).collect())
        }
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
            Value::Map(vec![Entry::new(key, node.at, value)])
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
        let shown = scalar.template.map(|template| template.text);
        return Entry { template: shown, ..Entry::new(scalar.text, at, Node::new(Value::Null, at)) };
    };
    let value_at = match (scalar.offset, &scalar.template) {
        (Some(offset), None) => at.plus(offset + name.chars().count() + 1),
        _ => at,
    };
    let (mut shown, mut template) = (None, None);
    if let Some(whole) = scalar.template {
        // A `=` may also stand in a default or come from a variable. Then both show the whole.
        let (before, after) = whole.text.split_once('=').unwrap_or((&whole.text, &whole.text));
        let parts = if before.contains('$') { (whole.text.as_str(), whole.text.as_str()) } else { (before, after) };
        shown = Some(parts.0.to_owned());
        template = Some(Template { text: parts.1.to_owned(), variables: whole.variables });
    }
    let value = Scalar { text: value.to_owned(), offset: None, template };
    Entry { template: shown, ..Entry::new(name, at, Node::new(Value::Scalar(value), value_at)) }
}

/// A name, with what the short form sets.
fn named(scalar: Scalar, at: Position, listed: Listed) -> Entry {
    let value = match listed {
        Listed::Bare => Value::Null,
        Listed::Dependency => Value::Map(vec![
            Entry::new("condition", at, Node::scalar("service_started", at)),
            Entry::new("required", at, Node::scalar("true", at)),
        ]),
    };
    let shown = scalar.template.map(|template| template.text);
    Entry { template: shown, ..Entry::new(scalar.text, at, Node::new(value, at)) }
}

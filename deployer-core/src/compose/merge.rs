//! Two trees become one: those of two files, or of a service and the one that it extends.

use std::collections::HashMap;

use super::cursor::Cursor;
use super::node::{Entry, Merging, Node, Value};
use super::report::Report;
use super::rules::{self, Rule};
use super::{forms, items};

/// Merges `over` into `base`; where both say something, `over` counts. `base` has no tags any more. Those of `over` stay,
/// because they count for what the result is merged with next.
pub(super) fn merge(report: &mut Report, base: Node, over: Node, path: &[&str]) -> Node {
    let path = path.iter().map(|key| (*key).to_owned()).collect();
    Merger { report, path }.nodes(base, over)
}

/// Drops what is reset, and all tags with it.
pub(super) fn settle(node: &mut Node) {
    if std::mem::take(&mut node.merging) == Merging::Reset {
        node.value = Value::Null;
    }
    match &mut node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::List(items) => items.iter_mut().for_each(settle),
        Value::Map(entries) => {
            entries.retain(|entry| entry.value.merging != Merging::Reset);
            entries.iter_mut().for_each(|entry| settle(&mut entry.value));
        }
    }
}

struct Merger<'r> {
    report: &'r mut Report,
    /// The keys that lead to the values which are merged.
    path: Vec<String>,
}

impl Merger<'_> {
    fn nodes(&mut self, base: Node, over: Node) -> Node {
        let rule = rules::of(&self.path);
        if over.merging != Merging::Merge || rule == Some(Rule::Replace) || base.value == Value::Null {
            return over;
        }
        if over.value == Value::Null {
            return base;
        }
        let (base, over) = match rule {
            Some(rule) => forms::common(base, over, rule),
            None => (base, over),
        };
        let value = match (base.value, over.value) {
            (Value::Scalar(_), Value::Scalar(scalar)) => return Node::new(Value::Scalar(scalar), over.at),
            (Value::List(earlier), Value::List(later)) => Value::List(self.lists(earlier, later, rule)),
            (Value::Map(earlier), Value::Map(later)) if another_kind(&earlier, &later, rule) => {
                return Node::new(Value::Map(later), over.at);
            }
            (Value::Map(earlier), Value::Map(later)) => Value::Map(self.maps(earlier, later, rule)),
            (earlier, later) => {
                let over = Node::new(later, over.at);
                let message = format!("{} cannot be merged with {}", over.value.shape(), earlier.shape());
                let help = "write both in the same form, or let this one replace the other: `!override`";
                let note = ("the earlier value is here", base.at);
                self.report.error_with_note(&Cursor { node: &over, path: self.path.join(".") }, message, help, note);
                return over;
            }
        };
        Node::new(value, base.at)
    }

    fn maps(&mut self, mut entries: Vec<Entry>, later: Vec<Entry>, rule: Option<Rule>) -> Vec<Entry> {
        let index: HashMap<String, usize> =
            entries.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)).collect();
        for entry in later {
            let Some(index) = index.get(&entry.key) else {
                entries.push(entry);
                continue;
            };
            let known = &mut entries[*index];
            if rule == Some(Rule::Pairs) {
                // Also a name without a value: it takes one from the variables.
                *known = entry;
                continue;
            }
            self.path.push(entry.shown().to_owned());
            let earlier = std::mem::replace(&mut known.value, Node::new(Value::Null, entry.key_at));
            let at = entry.value.at;
            known.value = self.nodes(earlier, entry.value);
            if known.value.at == at {
                known.key_at = entry.key_at;
            }
            self.path.pop();
        }
        entries
    }
    /// Appends the later items, or puts them in the place of those that are the same thing.
    fn lists(&mut self, mut items: Vec<Node>, later: Vec<Node>, rule: Option<Rule>) -> Vec<Node> {
        let key = |item: &Node| rule.and_then(|rule| items::key(item, rule));
        let mut known: HashMap<String, usize> =
            items.iter().enumerate().filter_map(|(index, item)| Some((key(item)?, index))).collect();
        for item in later {
            // Only once: what is there twice in one list is for the reader to judge.
            let Some(index) = key(&item).and_then(|key| known.remove(&key)) else {
                items.push(item);
                continue;
            };
            if !matches!(rule, Some(Rule::Merged(_))) {
                items[index] = item;
                continue;
            }
            self.path.push("[]".to_owned());
            let earlier = std::mem::replace(&mut items[index], Node::new(Value::Null, item.at));
            items[index] = self.nodes(earlier, item);
            self.path.pop();
        }
        items
    }
}

/// Whether both mappings say of which kind they are, and it is not the same.
fn another_kind(earlier: &[Entry], later: &[Entry], rule: Option<Rule>) -> bool {
    let Some(Rule::Mapping { kind: Some(kind), .. }) = rule else { return false };
    let of = |entries: &[Entry]| {
        let entry = entries.iter().find(|entry| entry.key == kind)?;
        entry.value.text().map(str::to_owned)
    };
    matches!((of(earlier), of(later)), (Some(earlier), Some(later)) if earlier != later)
}

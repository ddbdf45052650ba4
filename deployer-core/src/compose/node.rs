//! The tree that every later stage works on: what was written, and where.

use super::variables::Origin;

/// Where something begins in one of the files that were read. Lines and columns count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The index of the file in [`Report`](super::report::Report).
    pub(super) file: usize,
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Position {
    /// The place `chars` characters further on the same line.
    pub(super) fn plus(self, chars: usize) -> Self {
        Self { column: self.column.saturating_add(u32::try_from(chars).unwrap_or(u32::MAX)), ..self }
    }
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) at: Position,
    pub(super) merging: Merging,
}

/// What becomes of the value of an earlier file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Merging {
    /// Both are merged by the rules of the key.
    #[default]
    Merge,
    /// `!override`: this value alone counts.
    Override,
    /// `!reset`: neither value counts.
    Reset,
}

/// The four shapes of YAML that Compose knows. Scalars keep their text: what `0755`, `1.10` or `no` means depends on
/// the key, not on a guess of the YAML reader.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

impl Value {
    /// The shape's name for messages.
    pub(super) fn shape(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a plain value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// A scalar's text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// How many characters after the node's place the text begins, where text and source match character by character.
    pub(super) offset: Option<usize>,
    /// What variables were put into.
    pub(super) template: Option<Template>,
}

/// A text before variables were put in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template {
    pub(super) text: String,
    /// The variables with a value that it names, and where they have it from.
    pub(super) variables: Vec<(String, Origin)>,
}

impl Scalar {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), offset: None, template: None }
    }

    /// The text as messages may show it: with variables' names, because their values may be secret.
    pub(super) fn shown(&self) -> &str {
        self.template.as_ref().map_or(&self.text, |template| &template.text)
    }
}

/// A key and its value. Keys are unique within a mapping and in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Position,
    pub(super) value: Node,
    /// The key before variables were put in, if it was an item of a list.
    pub(super) template: Option<String>,
}

impl Entry {
    pub(super) fn new(key: impl Into<String>, key_at: Position, value: Node) -> Self {
        Self { key: key.into(), key_at, value, template: None }
    }

    /// The key as messages may show it.
    pub(super) fn shown(&self) -> &str {
        self.template.as_ref().unwrap_or(&self.key)
    }
}

impl Node {
    pub(super) fn new(value: Value, at: Position) -> Self {
        Self { value, at, merging: Merging::Merge }
    }

    pub(super) fn scalar(text: impl Into<String>, at: Position) -> Self {
        Self::new(Value::Scalar(Scalar::new(text)), at)
    }

    /// A plain value's text.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The value of this key of a mapping.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Value::Map(entries) = &mut self.value else { return None };
        entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
    }

    /// The value of this key of a mapping, which is added if it is missing, with that place.
    pub(super) fn entry(&mut self, key: &str, at: Position) -> Option<&mut Self> {
        let Value::Map(entries) = &mut self.value else { return None };
        let index = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
            let value = Self::new(Value::Null, at);
            entries.push(Entry::new(key, at, value));
            entries.len() - 1
        });
        Some(&mut entries[index].value)
    }

    /// Takes a key and its value out of a mapping.
    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        let Value::Map(entries) = &mut self.value else { return None };
        let index = entries.iter().position(|entry| entry.key == key)?;
        Some(entries.remove(index))
    }

    /// How many nodes the tree has, how deep it is, and how many bytes of text it holds.
    pub(super) fn measure(&self) -> Measure {
        let mut total = Measure { nodes: 1, height: 1, bytes: 0 };
        let mut add = |child: &Node| {
            let part = child.measure();
            total.nodes += part.nodes;
            total.height = total.height.max(part.height + 1);
            total.bytes += part.bytes;
        };
        match &self.value {
            Value::Null => {}
            Value::Scalar(scalar) => total.bytes = scalar.text.len(),
            Value::List(items) => items.iter().for_each(add),
            Value::Map(entries) => {
                entries.iter().for_each(|entry| add(&entry.value));
                total.bytes += entries.iter().map(|entry| entry.key.len()).sum::<usize>();
            }
        }
        total
    }
}

/// What [`Node::measure`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measure {
    pub(super) nodes: usize,
    pub(super) height: usize,
    pub(super) bytes: usize,
}

//! The tree that every later stage works on: what was written, and where.

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
    /// The text before variables were put in.
    pub(super) template: Option<String>,
}

impl Scalar {
    /// The text as messages may show it: with variables' names, because their values may be secret.
    pub(super) fn shown(&self) -> &str {
        self.template.as_deref().unwrap_or(&self.text)
    }
}

/// A key and its value. Keys are unique within a mapping and in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Position,
    pub(super) value: Node,
}

impl Node {
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

//! A node with its path, and the typed reads of it that report what does not fit.

use std::str::FromStr;
use std::time::Duration;

use super::keys::Section;
use super::node::{Node, Position, Scalar, Value};
use super::report::Report;
use super::{check, formats};

/// A node and where it is in the document, such as `services.web.ports[0]`.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    pub(super) node: &'a Node,
    pub(super) path: String,
}

/// An entry of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) key: &'a str,
    pub(super) key_at: Position,
    pub(super) value: Cursor<'a>,
}

/// A mapping whose keys were checked against its [`Section`].
#[derive(Debug)]
pub(super) struct Fields<'a> {
    section: &'static Section,
    pub(super) cursor: Cursor<'a>,
}

impl<'a> Cursor<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self { node, path: String::new() }
    }

    fn child(&self, node: &'a Node, key: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { node, path: format!("{}{dot}{key}", self.path) }
    }

    pub(super) fn is_null(&self) -> bool {
        self.node.value == Value::Null
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    pub(super) fn scalar(&self) -> Option<&'a Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The value of this key, unless it is missing or null, which mean the same in Compose.
    fn find(&self, key: &str) -> Option<Self> {
        let Value::Map(entries) = &self.node.value else { return None };
        let entry = entries.iter().find(|entry| entry.key == key)?;
        Some(self.child(&entry.value, key)).filter(|cursor| !cursor.is_null())
    }

    /// Whether the mapping has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// The entries of a mapping; none if it is something else.
    pub(super) fn entries(&self) -> Vec<Field<'a>> {
        let Value::Map(entries) = &self.node.value else { return Vec::new() };
        let field = |entry: &'a super::node::Entry| Field {
            key: &entry.key,
            key_at: entry.key_at,
            value: self.child(&entry.value, entry.shown()),
        };
        entries.iter().map(field).collect()
    }

    /// The items of a list; none if it is something else.
    pub(super) fn items(&self) -> Vec<Self> {
        let Value::List(items) = &self.node.value else { return Vec::new() };
        let item = |(index, node)| Self { node, path: format!("{}[{index}]", self.path) };
        items.iter().enumerate().map(item).collect()
    }
}

impl<'a> Fields<'a> {
    /// The value of this key, unless it is missing or null.
    ///
    /// Only keys that the section calls supported can be asked for, so that the table tells the truth.
    pub(super) fn get(&self, key: &str) -> Option<Cursor<'a>> {
        debug_assert!(self.section.supports(key), "{key} is not in the table of {}", self.section.name);
        self.cursor.find(key)
    }

    pub(super) fn text(&self, report: &mut Report, key: &str) -> Option<String> {
        report.text(&self.get(key)?)
    }

    pub(super) fn flag(&self, report: &mut Report, key: &str) -> Option<bool> {
        report.flag(&self.get(key)?)
    }

    pub(super) fn number<T: FromStr>(&self, report: &mut Report, key: &str) -> Option<T> {
        report.number(&self.get(key)?)
    }

    pub(super) fn duration(&self, report: &mut Report, key: &str) -> Option<Duration> {
        report.duration(&self.get(key)?)
    }

    /// Like [`Fields::get`], for a key that has to be there.
    pub(super) fn require(&self, report: &mut Report, key: &str) -> Option<Cursor<'a>> {
        let found = self.get(key);
        if found.is_none() {
            report.error(&self.cursor, format!("`{key}` is missing"));
        }
        found
    }
}

impl Report {
    /// Reports that something else is needed here.
    pub(super) fn mismatch<T>(&mut self, cursor: &Cursor<'_>, needed: &str) -> Option<T> {
        let message = match cursor.scalar() {
            Some(scalar) => format!("{:?} is not {needed}", scalar.shown()),
            None => format!("{} is needed here, not {}", needed, cursor.node.value.shape()),
        };
        self.error(cursor, message);
        None
    }

    /// Reads a value by `parse`; `needed` says what it should be, with an example.
    pub(super) fn parsed<T>(
        &mut self,
        cursor: &Cursor<'_>,
        needed: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        match cursor.scalar().and_then(|scalar| parse(&scalar.text)) {
            Some(value) => Some(value),
            None => self.mismatch(cursor, needed),
        }
    }

    pub(super) fn text(&mut self, cursor: &Cursor<'_>) -> Option<String> {
        self.parsed(cursor, "text", |text| Some(text.to_owned()))
    }

    pub(super) fn flag(&mut self, cursor: &Cursor<'_>) -> Option<bool> {
        self.parsed(cursor, "`true` or `false`", formats::flag)
    }

    pub(super) fn number<T: FromStr>(&mut self, cursor: &Cursor<'_>) -> Option<T> {
        self.parsed(cursor, "a whole number in range", |text| text.parse().ok())
    }

    pub(super) fn port(&mut self, cursor: &Cursor<'_>) -> Option<u16> {
        self.parsed(cursor, "a port from 1 to 65535", |text| text.parse().ok().filter(|port| *port > 0))
    }

    pub(super) fn duration(&mut self, cursor: &Cursor<'_>) -> Option<Duration> {
        self.parsed(cursor, "a duration such as `1m30s` or `200ms`", formats::duration)
    }

    pub(super) fn bytes(&mut self, cursor: &Cursor<'_>) -> Option<u64> {
        self.parsed(cursor, "a size such as `512m` or `1gb`", formats::bytes)
    }

    pub(super) fn cpu_millis(&mut self, cursor: &Cursor<'_>) -> Option<u64> {
        self.parsed(cursor, "a number of cores such as `0.5`", formats::cpu_millis)
    }

    /// A mapping, with its keys checked against the section.
    pub(super) fn fields<'a>(&mut self, cursor: &Cursor<'a>, section: &'static Section) -> Option<Fields<'a>> {
        if !cursor.is_map() {
            return self.mismatch(cursor, "a mapping");
        }
        check::keys(self, cursor, section);
        Some(Fields { section, cursor: cursor.clone() })
    }

    /// The entries of a mapping whose keys are names; null counts as an empty one.
    pub(super) fn entries<'a>(&mut self, cursor: &Cursor<'a>) -> Vec<Field<'a>> {
        if !cursor.is_map() && !cursor.is_null() {
            let _: Option<()> = self.mismatch(cursor, "a mapping");
        }
        cursor.entries()
    }

    /// The items of a list.
    pub(super) fn items<'a>(&mut self, cursor: &Cursor<'a>) -> Vec<Cursor<'a>> {
        if !cursor.is_list() {
            let _: Option<()> = self.mismatch(cursor, "a list");
        }
        cursor.items()
    }

    /// The texts of a list.
    pub(super) fn texts(&mut self, cursor: &Cursor<'_>) -> Vec<String> {
        let items = self.items(cursor);
        items.iter().filter_map(|item| self.text(item)).collect()
    }

    /// The items of a list, or the one value that stands for a list of one.
    pub(super) fn one_or_more<'a>(&mut self, cursor: &Cursor<'a>) -> Vec<Cursor<'a>> {
        if cursor.scalar().is_some() || cursor.is_map() { vec![cursor.clone()] } else { self.items(cursor) }
    }

    /// Names with values, written as a mapping or as a list of `NAME=value`. The value is missing where only the name
    /// is written.
    pub(super) fn pairs<'a>(&mut self, cursor: &Cursor<'a>) -> Vec<(String, Option<String>, Cursor<'a>)> {
        let mut pairs = Vec::new();
        if cursor.is_map() {
            for field in cursor.entries() {
                let value = if field.value.is_null() {
                    None
                } else {
                    let Some(text) = self.text(&field.value) else { continue };
                    Some(text)
                };
                pairs.push((field.key.to_owned(), value, field.value));
            }
        } else {
            for item in self.items(cursor) {
                let Some(text) = self.text(&item) else { continue };
                match text.split_once('=') {
                    Some((name, value)) => pairs.push((name.to_owned(), Some(value.to_owned()), item)),
                    None => pairs.push((text, None, item)),
                }
            }
        }
        for (name, _, at) in &pairs {
            if name.is_empty() || name.contains(char::is_whitespace) {
                self.error(at, "the name before `=` is empty or has a space in it");
            }
        }
        pairs
    }
}

//! A tree, and how it is written as YAML: in blocks, with quotes wherever a reader of YAML 1.1 or 1.2 could take a text
//! for something else. No anchors, no tags, no flow style but `[]` and `{}`.

use std::collections::BTreeMap;

/// The longest key, in bytes, that every reader takes for one when it sees the `:` behind it.
const MAX_KEY: usize = 1_000;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Yaml {
    /// Text, whatever it looks like. A `$` in it is a plain one.
    Text(String),
    /// A number, `true` or `false`.
    Plain(String),
    List(Vec<Yaml>),
    Map(Map),
}

/// A mapping, in the order in which its keys were put in.
#[derive(Clone, Debug, Default)]
pub(super) struct Map(Vec<(String, Yaml)>);

impl Map {
    pub(super) fn put(&mut self, key: impl Into<String>, value: impl Into<Yaml>) {
        self.0.push((key.into(), value.into()));
    }

    /// Puts it in if there is one.
    pub(super) fn put_some<T: Into<Yaml>>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    /// Puts it in, unless it is what a reader takes for granted.
    pub(super) fn put_unless<T: Into<Yaml> + PartialEq>(&mut self, key: &str, value: T, default: T) {
        if value != default {
            self.put(key, value);
        }
    }

    /// Puts it in, unless it is empty.
    pub(super) fn put_filled(&mut self, key: &str, value: impl Into<Yaml>) {
        let value = value.into();
        let empty = match &value {
            Yaml::List(items) => items.is_empty(),
            Yaml::Map(map) => map.0.is_empty(),
            Yaml::Text(_) | Yaml::Plain(_) => false,
        };
        if !empty {
            self.put(key, value);
        }
    }

    /// The same, by keys.
    pub(super) fn sorted(mut self) -> Self {
        self.0.sort_by(|one, other| one.0.cmp(&other.0));
        self
    }
}

impl<K: Into<String>, V: Into<Yaml>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl From<Map> for Yaml {
    fn from(map: Map) -> Self {
        Self::Map(map)
    }
}

impl From<&str> for Yaml {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Yaml {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for Yaml {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

macro_rules! plain {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Yaml {
            fn from(value: $kind) -> Self {
                Self::Plain(value.to_string())
            }
        })*
    };
}

plain!(bool, i64, u8, u16, u32, u64);

impl<T: Into<Yaml>> From<Vec<T>> for Yaml {
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

impl<'a, T> From<&'a [T]> for Yaml
where
    &'a T: Into<Yaml>,
{
    fn from(items: &'a [T]) -> Self {
        Self::List(items.iter().map(Into::into).collect())
    }
}

impl From<&BTreeMap<String, String>> for Yaml {
    fn from(map: &BTreeMap<String, String>) -> Self {
        Self::Map(map.iter().collect())
    }
}

/// The text of a document that is this mapping.
pub(super) fn document(map: &Map) -> String {
    let mut out = String::new();
    entries(&mut out, map, 0, 0);
    out
}

fn indent(out: &mut String, columns: usize) {
    out.extend(std::iter::repeat_n(' ', columns));
}

/// Writes the entries of a mapping, the first of them where `out` has got to `at`.
fn entries(out: &mut String, map: &Map, at: usize, mut column: usize) {
    for (key, entry) in &map.0 {
        indent(out, at - column);
        let key = scalar(key);
        // Longer ones have to be announced.
        if key.len() > MAX_KEY {
            out.push_str(&format!("? {key}\n"));
            indent(out, at);
        } else {
            out.push_str(&key);
        }
        out.push(':');
        value(out, entry, at);
        column = 0;
    }
}

/// Writes the value of a key, or an item, that begins at the column `at`.
fn value(out: &mut String, value: &Yaml, at: usize) {
    match value {
        Yaml::Plain(text) => out.push_str(&format!(" {text}\n")),
        Yaml::Text(text) => self::text(out, &text.replace('$', "$$"), at + 2),
        Yaml::List(items) if items.is_empty() => out.push_str(" []\n"),
        Yaml::Map(map) if map.0.is_empty() => out.push_str(" {}\n"),
        Yaml::List(items) => {
            out.push('\n');
            for item in items {
                indent(out, at + 2);
                out.push('-');
                match item {
                    Yaml::Map(map) if !map.0.is_empty() => {
                        out.push(' ');
                        entries(out, map, at + 4, at + 4);
                    }
                    _ => self::value(out, item, at + 2),
                }
            }
        }
        Yaml::Map(map) => {
            out.push('\n');
            entries(out, map, at + 2, 0);
        }
    }
}

/// Writes a text after its key: lines as they are if that is safe.
fn text(out: &mut String, text: &str, at: usize) {
    if !is_block(text) {
        out.push_str(&format!(" {}\n", scalar(text)));
        return;
    }
    out.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
    for line in text.lines() {
        if !line.is_empty() {
            indent(out, at);
            out.push_str(line);
        }
        out.push('\n');
    }
}

/// Whether the lines of a text can stand as they are. Spaces that nobody sees cannot.
fn is_block(text: &str) -> bool {
    text.trim_end_matches('\n').contains('\n')
        && !text.starts_with([' ', '\t', '\n'])
        && !text.ends_with("\n\n")
        && text.split('\n').all(|line| !line.ends_with([' ', '\t']))
        && text.chars().all(|c| matches!(c, '\n' | '\t') || is_visible(c))
}

/// A text on one line.
fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    // Single quotes know no escapes, which makes them good for what is full of quotes.
    if text.contains(['"', '\\']) && text.chars().all(is_visible) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            _ if is_visible(c) => quoted.push(c),
            _ => {
                let code = u32::from(c);
                quoted.push_str(&match code {
                    0..=0xff => format!("\\x{code:02x}"),
                    0x100..=0xffff => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                });
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Whether people see the character as what it is.
fn is_visible(c: char) -> bool {
    !c.is_control() && c.escape_debug().nth(1) != Some('u')
}

/// Whether a text without quotes is itself to every reader.
fn is_plain(text: &str) -> bool {
    let first = |c: char| c.is_alphanumeric() || "/_.$-".contains(c);
    let other = |c: char| c.is_alphanumeric() || "/_.$-:@+=,%~(){} ".contains(c);
    text.starts_with(first)
        && text.chars().all(other)
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !["- ", "--- ", "... "].iter().any(|mark| format!("{text} ").starts_with(mark))
        && !is_special(text)
}

/// Whether a reader could take a text for a boolean, nothing, a number, a date or a time.
fn is_special(text: &str) -> bool {
    const WORDS: [&str; 12] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", ".inf", ".nan"];
    let text = text.to_ascii_lowercase();
    let text = text.strip_prefix(['-', '+']).unwrap_or(&text);
    let digits = |c: char| c.is_ascii_hexdigit() || "xo_.:+-tz ".contains(c);
    WORDS.contains(&text) || text.starts_with(|c: char| c.is_ascii_digit() || c == '.') && text.chars().all(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_where_they_could_be_something_else() {
        for plain in [
            "a",
            "redis:7",
            "/srv/a b",
            "--option=a",
            "1m30s",
            "60%",
            "172.28.0.0/16",
            "./x",
            "über",
            "${A}",
            "a(b)",
            "-x",
        ] {
            assert_eq!(scalar(plain), plain);
        }
        for quoted in [
            "",
            " a",
            "a ",
            "~",
            "null",
            "Yes",
            "n",
            "off",
            "1",
            "-1",
            "+1",
            "1.10",
            ".5",
            "1_000",
            "0x1f",
            "0o17",
            "1e3",
            "-.inf",
            "22:22",
            "2001-01-01",
            "2001-12-14t21:59:43.10-05:00",
            "127.0.0.1",
            "a: b",
            "a:",
            "a #b",
            "#",
            "-",
            "- a",
            "---",
            "--- a",
            "...",
            "?",
            "*",
            "&a",
            "!a",
            "|",
            ">",
            "@a",
            "`a",
            "%a",
            "[a]",
            "{a}",
            "a'b",
            "<<",
            "=",
        ] {
            assert_eq!(scalar(quoted), format!("\"{quoted}\""));
        }
        for (text, expected) in [
            ("{\"a\": 'b'}", "'{\"a\": ''b''}'"),
            ("a\\b", "'a\\b'"),
            ("a\n", "\"a\\n\""),
            ("\"\t\r", "\"\\\"\\t\\r\""),
            ("\u{7}\u{85}\u{2028}\u{feff}\u{e0001}", "\"\\x07\\x85\\u2028\\ufeff\\U000e0001\""),
        ] {
            assert_eq!(scalar(text), expected);
        }
    }

    #[test]
    fn lines_stay_lines_where_that_is_safe() {
        let mut map = Map::default();
        for text in ["a\n\n\tb\n", "# a\nb: $x", "a\n b \n", " a\nb", "a\nb\n\n", "a\r\nb", "\n\n"] {
            map.put("k", vec![text]);
            map.put("l", text);
        }
        let written = document(&map);
        assert!(written.starts_with("k:\n  - |\n    a\n\n    \tb\nl: |\n  a\n\n  \tb\n"), "{written}");
        assert!(written.contains("l: |-\n  # a\n  b: $$x\nk:\n"), "{written}");
        assert!(written.ends_with("k:\n  - \"\\n\\n\"\nl: \"\\n\\n\"\n"), "{written}");
        assert_eq!(written.matches('|').count(), 4, "{written}");
    }

    #[test]
    fn mappings_and_lists_stand_in_blocks() {
        let item: Map = [("a", "x"), ("b", "z")].into_iter().collect();
        let mut map = Map::default();
        map.put("list", vec![item.clone(), Map::default(), item.clone()]);
        map.put("map", item);
        map.put("nothing", Vec::<Yaml>::new());
        map.put("1", true);
        map.put_filled("empty", Map::default());
        map.put_unless("same", 1_u32, 1);
        map.put_some("none", None::<&str>);
        let expected = "\
list:
  - a: x
    b: z
  - {}
  - a: x
    b: z
map:
  a: x
  b: z
nothing: []
\"1\": true
";
        assert_eq!(document(&map), expected);
    }
}

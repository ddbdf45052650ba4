//! From YAML text to a tree: anchors and `<<` merges are resolved here, and hostile input ends here.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag, options};

use super::budget::Budget;
use super::node::{Entry, Merging, Node, Position, Scalar, Value};

/// The longest file that is read.
pub(super) const MAX_FILE_BYTES: usize = 1 << 20;
/// How deep a tree may be. It bounds the recursion of every later stage.
const MAX_DEPTH: usize = 64;

/// What is wrong with the text itself.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: Position,
    /// The path of the node that was being read.
    pub(super) path: String,
    pub(super) message: String,
    pub(super) help: Option<&'static str>,
}

/// Reads the documents in `text`; without any there is one that is null. What their trees take comes out of the budget.
///
/// # Errors
/// Every fault that could be found. After one of syntax nothing more can be.
pub(super) fn parse(text: &str, file: usize, budget: &mut Budget) -> Result<Vec<Node>, Vec<Fault>> {
    let start = Position { file, line: 1, column: 1 };
    let fault = |message: &str, help| {
        Err(vec![Fault { at: start, path: String::new(), message: message.to_owned(), help: Some(help) }])
    };
    if text.len() > MAX_FILE_BYTES {
        return fault("the file is larger than 1 MiB", "a Compose file is text of a few kilobytes");
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let options = options! { block_nesting_limit: MAX_DEPTH, flow_nesting_limit: MAX_DEPTH };
    let mut builder = Builder::new(text, file, budget);
    for event in Parser::new_from_str_with_options(text, options) {
        let taken = match event {
            Ok((event, span)) => builder.take(event, span),
            Err(error) => {
                let at = builder.position(error.marker().line(), error.marker().col());
                builder.fault(at, error.info(), None);
                Err(Stop)
            }
        };
        if taken.is_err() {
            break;
        }
    }
    if !builder.faults.is_empty() {
        return Err(builder.faults);
    }
    if builder.documents.is_empty() {
        builder.documents.push(Node::new(Value::Null, start));
    }
    Ok(builder.documents)
}

/// The rest of the text is not worth reading.
struct Stop;

struct Builder<'t, 'b> {
    text: &'t str,
    file: usize,
    stack: Vec<Frame>,
    documents: Vec<Node>,
    anchors: HashMap<usize, Node>,
    budget: &'b mut Budget,
    faults: Vec<Fault>,
}

/// A list or mapping whose end has not been seen.
struct Frame {
    at: Position,
    anchor: usize,
    merging: Merging,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashSet<String>, merges: Vec<Node>, key: Option<Key> },
}

/// The key whose value comes next.
enum Key {
    Text(String, Position),
    Merge,
    /// It was refused; its value is read and dropped.
    Refused,
}

impl<'t, 'b> Builder<'t, 'b> {
    fn new(text: &'t str, file: usize, budget: &'b mut Budget) -> Self {
        Self {
            text,
            file,
            stack: Vec::new(),
            documents: Vec::new(),
            anchors: HashMap::new(),
            budget,
            faults: Vec::new(),
        }
    }

    fn position(&self, line: usize, column_from_0: usize) -> Position {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Position { file: self.file, line: number(line.max(1)), column: number(column_from_0.saturating_add(1)) }
    }

    fn start_of(&self, span: &Span) -> Position {
        self.position(span.start.line(), span.start.col())
    }

    fn fault(&mut self, at: Position, message: impl Into<String>, help: Option<&'static str>) {
        let path = self.path();
        self.faults.push(Fault { at, path, message: message.into(), help });
    }

    /// The path of what is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.stack {
            match &frame.kind {
                Kind::List(items) => path.push_str(&format!("[{}]", items.len())),
                Kind::Map { key: Some(Key::Text(key, _)), .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                Kind::Map { .. } => {}
            }
        }
        path
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            // Anchors are those of their document.
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Alias(id) => return self.alias(id, self.start_of(&span)),
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(&text, style, tag.as_deref(), &span)?;
                self.remember(anchor, &node)?;
                let merge = style == ScalarStyle::Plain && tag.is_none() && text == "<<";
                return self.place(node, merge);
            }
            Event::SequenceStart(_, anchor, tag) => {
                return self.open(Kind::List(Vec::new()), anchor, tag.as_deref(), "seq", &span);
            }
            Event::MappingStart(_, anchor, tag) => {
                let kind = Kind::Map { entries: Vec::new(), seen: HashSet::new(), merges: Vec::new(), key: None };
                return self.open(kind, anchor, tag.as_deref(), "map", &span);
            }
            Event::SequenceEnd | Event::MappingEnd => return self.close(),
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, kind: Kind, anchor: usize, tag: Option<&Tag>, own: &str, span: &Span) -> Result<(), Stop> {
        let at = self.start_of(span);
        let mut merging = Merging::Merge;
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema_tag(own)) {
            merging = self.merging(tag, at);
        }
        self.count(at, 1, 0)?;
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.too_deep(at));
        }
        self.stack.push(Frame { at, anchor, merging, kind });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Stop> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let value = match frame.kind {
            Kind::List(items) => Value::List(items),
            Kind::Map { mut entries, mut seen, merges, .. } => {
                for merge in merges {
                    let maps = match merge.value {
                        Value::Map(_) => vec![merge],
                        Value::List(maps) => maps,
                        _ => vec![merge],
                    };
                    for map in maps {
                        let Value::Map(merged) = map.value else {
                            self.fault(map.at, "`<<` merges mappings, and this is none", None);
                            continue;
                        };
                        entries.extend(merged.into_iter().filter(|entry| seen.insert(entry.key.clone())));
                    }
                }
                Value::Map(entries)
            }
        };
        let node = Node { value, at: frame.at, merging: frame.merging };
        self.remember(frame.anchor, &node)?;
        self.place(node, false)
    }

    /// Keeps a copy of the node for its aliases; the copies count, because anchors may be nested.
    fn remember(&mut self, anchor: usize, node: &Node) -> Result<(), Stop> {
        if anchor != 0 {
            let measure = node.measure();
            self.count(node.at, measure.nodes, measure.bytes)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, at: Position) -> Result<(), Stop> {
        // An anchor is known once its node is complete, so an alias inside its own node finds none.
        let Some(measure) = self.anchors.get(&id).map(Node::measure) else {
            self.fault(at, "the alias refers to a value that contains it", None);
            return Err(Stop);
        };
        self.count(at, measure.nodes, measure.bytes)?;
        if self.stack.len() + measure.height > MAX_DEPTH {
            return Err(self.too_deep(at));
        }
        let node = self.anchors[&id].clone();
        self.place(node, false)
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Result<Node, Stop> {
        let at = self.start_of(span);
        self.count(at, 1, text.len())?;
        if text.contains('\0') {
            self.fault(at, "the value contains a NUL character", None);
        }
        let mut plain = style == ScalarStyle::Plain;
        let mut merging = Merging::Merge;
        match tag {
            None => {}
            Some(tag) if tag.is_yaml_core_schema_tag("null") => return Ok(Node::new(Value::Null, at)),
            Some(tag) if tag.is_yaml_core_schema_tag("str") || tag.original() == "!" => plain = false,
            Some(tag) if ["int", "float", "bool"].iter().any(|name| tag.is_yaml_core_schema_tag(name)) => {}
            Some(tag) => merging = self.merging(tag, at),
        }
        if plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
            return Ok(Node { value: Value::Null, at, merging });
        }
        let source = span.slice(self.text).unwrap_or_default();
        let offset = match style {
            ScalarStyle::Plain if source == text => Some(0),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted
                if source.get(1..source.len().saturating_sub(1)) == Some(text) =>
            {
                Some(1)
            }
            _ => None,
        };
        let value = Value::Scalar(Scalar { text: text.to_owned(), offset, template: None });
        Ok(Node { value, at, merging })
    }

    /// Puts a complete node where it belongs: it is the root, an item, a key or a value.
    fn place(&mut self, node: Node, merge: bool) -> Result<(), Stop> {
        if node.merging != Merging::Merge && !self.awaits_value() {
            let help = "`!reset` and `!override` stand before the value of a key";
            self.fault(node.at, "there is nothing here that could be merged", Some(help));
        }
        let Some(frame) = self.stack.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match &mut frame.kind {
            Kind::List(items) => items.push(node),
            Kind::Map { entries, seen, merges, key } => match key.take() {
                Some(Key::Text(text, key_at)) => entries.push(Entry::new(text, key_at, node)),
                Some(Key::Merge) => merges.push(node),
                Some(Key::Refused) => {}
                None if merge => *key = Some(Key::Merge),
                None => {
                    let text = match node.value {
                        Value::Scalar(scalar) => scalar.text,
                        Value::Null => "null".to_owned(),
                        Value::List(_) | Value::Map(_) => {
                            *key = Some(Key::Refused);
                            self.fault(node.at, "a key is a plain value", None);
                            return Ok(());
                        }
                    };
                    if seen.insert(text.clone()) {
                        *key = Some(Key::Text(text, node.at));
                    } else {
                        *key = Some(Key::Refused);
                        self.fault(node.at, format!("the key `{text}` is there twice"), Some("keep one of them"));
                    }
                }
            },
        }
        Ok(())
    }

    /// Whether what comes next is the value of a key.
    fn awaits_value(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { kind: Kind::Map { key: Some(Key::Text(..) | Key::Refused), .. }, .. }))
    }

    /// What a tag says about merging. Others are refused.
    fn merging(&mut self, tag: &Tag, at: Position) -> Merging {
        match tag.original().as_str() {
            "!reset" => Merging::Reset,
            "!override" => Merging::Override,
            other => {
                self.fault(at, format!("the tag `{other}` is not supported"), Some("remove it"));
                Merging::Merge
            }
        }
    }

    fn count(&mut self, at: Position, nodes: usize, bytes: usize) -> Result<(), Stop> {
        if self.budget.take(nodes, bytes) {
            return Ok(());
        }
        self.fault(at, "the file grows too large when its aliases are resolved", None);
        Err(Stop)
    }

    fn too_deep(&mut self, at: Position) -> Stop {
        self.fault(at, format!("values are nested deeper than {MAX_DEPTH} levels"), None);
        Stop
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::show;
    use super::*;

    fn parse(text: &str, file: usize) -> Result<Node, Vec<Fault>> {
        let mut documents = super::parse(text, file, &mut Budget::default())?;
        assert_eq!(documents.len(), 1, "{text}");
        Ok(documents.remove(0))
    }

    fn faults(text: &str) -> Vec<String> {
        let show = |fault: &Fault| format!("{}:{} {}: {}", fault.at.line, fault.at.column, fault.path, fault.message);
        parse(text, 0).unwrap_err().iter().map(show).collect()
    }

    #[test]
    fn scalars_keep_their_text() {
        for (text, tree) in [
            ("a: 0755", r#"{a: "0755"}"#),
            ("a: 1.10", r#"{a: "1.10"}"#),
            ("a: no", r#"{a: "no"}"#),
            ("a: 22:22", r#"{a: "22:22"}"#),
            ("a:\nb: ~\nc: null\nd: \"\"\ne: \"null\"\nf: !!str ~", r#"{a: ~, b: ~, c: ~, d: "", e: "null", f: "~"}"#),
            ("a: |\n  x\n  y\nb: >-\n  x\n  y\n", r#"{a: "x\ny\n", b: "x y"}"#),
            (r#"{"a": [1, "2", true, null]}"#, r#"{a: ["1", "2", "true", ~]}"#),
        ] {
            assert_eq!(show(&parse(text, 0).unwrap()), tree, "{text}");
        }
    }

    #[test]
    fn aliases_and_merges_are_resolved() {
        let text = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: *x\none: {<<: *x, b: 9}\ntwo: {<<: [*x, *y], d: 5}\n";
        let tree = show(&parse(text, 0).unwrap());
        assert!(tree.contains(r#"z: {a: "1", b: "2"}"#), "{tree}");
        assert!(tree.contains(r#"one: {b: "9", a: "1"}"#), "{tree}");
        assert!(tree.contains(r#"two: {d: "5", a: "1", b: "2", c: "4"}"#), "{tree}");
    }

    #[test]
    fn tags_say_how_values_are_merged() {
        let root = parse("a: !reset\nb: !reset []\nc: !override {d: 1}\ne: !override x\nf: 1\n", 0).unwrap();
        let Value::Map(entries) = &root.value else { panic!("{root:?}") };
        let found: Vec<Merging> = entries.iter().map(|entry| entry.value.merging).collect();
        use Merging::{Merge, Override, Reset};
        assert_eq!(found, [Reset, Reset, Override, Override, Merge]);
    }

    #[test]
    fn positions_count_characters_from_1() {
        let root = parse("ä: ü\nservices:\n  web:\n    image: \"nginx\"\n", 0).unwrap();
        let Value::Map(top) = &root.value else { panic!("{root:?}") };
        assert_eq!((top[0].value.at.line, top[0].value.at.column), (1, 4));
        let Value::Map(services) = &top[1].value.value else { panic!("{root:?}") };
        let Value::Map(web) = &services[0].value.value else { panic!("{root:?}") };
        assert_eq!((web[0].key_at.line, web[0].key_at.column), (4, 5));
        assert_eq!((web[0].value.at.line, web[0].value.at.column), (4, 12));
    }

    #[test]
    fn what_is_wrong_with_the_text_is_said() {
        for (text, expected) in [
            ("a: &a 1\n---\nb: 2\nb: 3\n", "4:1 : the key `b` is there twice"),
            ("a: 1\nb: 2\na: 3\n", "3:1 : the key `a` is there twice"),
            ("a: {b: 1, b: 2}", "1:11 a: the key `b` is there twice"),
            ("a: &a [*a]", "1:8 a[0]: the alias refers to a value that contains it"),
            ("a: !binary 1", "1:12 a: the tag `!binary` is not supported"),
            ("a: [!reset 1]", "1:12 a[0]: there is nothing here that could be merged"),
            ("!override a: 1", "1:11 : there is nothing here that could be merged"),
            ("a: {<<: 3}", "1:9 a: `<<` merges mappings, and this is none"),
            ("? [1, 2]\n: 3\n", "1:3 : a key is a plain value"),
            ("a: \"\\0\"", "1:4 a: the value contains a NUL character"),
        ] {
            assert_eq!(faults(text), [expected], "{text}");
        }
        assert_eq!(faults("a: 1\na: 2\nb: 1\nb: 2\n").len(), 2, "all at once");
    }

    #[test]
    fn faults_of_syntax_have_a_place() {
        for (text, line) in
            [("a: [1, 2\nb: 3\n", 2), ("a:\n\t- b\n", 2), ("a: 'x\n", 1), ("a: b: c\n", 1), ("x: *none\n", 1)]
        {
            let faults = parse(text, 0).unwrap_err();
            assert_eq!(faults.len(), 1, "{text}");
            assert!(faults[0].at.line >= line && faults[0].at.line <= line + 1, "{text}: {:?}", faults[0]);
            assert!(!faults[0].message.is_empty());
        }
    }

    #[test]
    fn hostile_text_is_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..30 {
            let alias = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 10].join(", ")));
        }
        assert!(faults(&bomb)[0].ends_with("the file grows too large when its aliases are resolved"));

        let mut ladder = "a0: &a0 [x]\n".to_owned();
        for level in 1..200 {
            ladder.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        assert!(faults(&ladder)[0].ends_with("values are nested deeper than 64 levels"));

        let nested = format!("{}{}{}", "&a [".repeat(60), "1,".repeat(20_000), "]".repeat(60));
        assert!(faults(&nested)[0].ends_with("the file grows too large when its aliases are resolved"));

        let long = format!("t: &t {}\nl: [{}]\n", "x".repeat(200_000), vec!["*t"; 1000].join(", "));
        assert!(faults(&long)[0].ends_with("the file grows too large when its aliases are resolved"));

        assert!(parse(&"[".repeat(100_000), 0).is_err());
        assert!(parse(&"- ".repeat(100_000), 0).is_err());
        assert!(parse(&"{a: ".repeat(100_000), 0).is_err());
        assert!(parse(&"x".repeat(MAX_FILE_BYTES + 1), 0).is_err());
    }
}

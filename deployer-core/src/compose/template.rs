//! Variables in values: `$V`, `${V}`, `${V:-default}`, `${V-default}`, `${V:?message}`, `${V?message}`,
//! `${V:+replacement}`, `${V+replacement}`, `$$`, nested at will.

use std::borrow::Cow;
use std::collections::BTreeSet;

/// How deep `${A:-${B:-...}}` may be nested.
const MAX_DEPTH: usize = 32;
/// How much text one read may produce by putting variables in.
pub(super) const MAX_BYTES: usize = 4 << 20;

/// Where the variables' values come from.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<&'a str>;

/// Why a text could not be expanded, and how many characters after its beginning.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) message: String,
    pub(super) help: Option<&'static str>,
}

/// Puts variables into texts.
pub(super) struct Expander<'a> {
    lookup: Lookup<'a>,
    /// How much more text may be produced.
    left: usize,
}

/// A text with its variables put in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// The variables that have no value, each with its offset in characters.
    pub(super) unset: Vec<(String, usize)>,
    /// The variables that have a value.
    pub(super) used: BTreeSet<String>,
}

impl<'a> Expander<'a> {
    #[cfg(test)]
    fn new(lookup: Lookup<'a>) -> Self {
        Self::with_budget(lookup, MAX_BYTES)
    }

    /// An expander that may produce this much text.
    pub(super) fn with_budget(lookup: Lookup<'a>, bytes: usize) -> Self {
        Self { lookup, left: bytes }
    }

    /// How much more text may be produced. Once it is nothing, that was reported, and no more should be expanded.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Puts the variables into `template`.
    pub(super) fn expand(&mut self, template: &str) -> Result<Expanded, Fault> {
        let chars: Vec<char> = template.chars().collect();
        let (unset, used) = (Vec::new(), BTreeSet::new());
        let mut run = Run { lookup: self.lookup, chars: &chars, at: 0, left: self.left, unset, used };
        let text = run.text(chars.len(), true, 0);
        self.left = run.left;
        Ok(Expanded { text: text?, unset: run.unset, used: run.used })
    }
}

struct Run<'a, 't> {
    lookup: Lookup<'a>,
    chars: &'t [char],
    at: usize,
    left: usize,
    unset: Vec<(String, usize)>,
    used: BTreeSet<String>,
}

const DOLLAR_HELP: &str = "write `$$` for a plain dollar sign";

impl<'a> Run<'a, '_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn fault<T>(&self, offset: usize, message: impl Into<String>, help: Option<&'static str>) -> Result<T, Fault> {
        Err(Fault { offset, message: message.into(), help })
    }

    fn push(&mut self, out: &mut String, text: &str) -> Result<(), Fault> {
        let Some(left) = self.left.checked_sub(text.len()) else {
            self.left = 0;
            return self.fault(self.at, "the text grows too large when variables are put in", None);
        };
        self.left = left;
        out.push_str(text);
        Ok(())
    }

    /// Expands up to `end`. A branch that is not `live` is only checked.
    fn text(&mut self, end: usize, live: bool, depth: usize) -> Result<String, Fault> {
        let mut out = String::new();
        let mut buffer = [0; 4];
        while self.at < end {
            let start = self.at;
            let next = self.chars[start];
            self.at += 1;
            match (next, self.chars[self.at..end].first()) {
                ('$', Some('$')) => {
                    self.at += 1;
                    if live {
                        self.push(&mut out, "$")?;
                    }
                }
                ('$', Some('{')) => {
                    self.at += 1;
                    let value = self.braced(start, end, live, depth)?;
                    self.push(&mut out, &value)?;
                }
                ('$', Some(first)) if first.is_ascii_alphabetic() || *first == '_' => {
                    let name = self.name();
                    if let Some(value) = self.value(&name, start, live) {
                        self.push(&mut out, value)?;
                    }
                }
                // A `$` before anything else stands for itself, as in Compose.
                _ if live => self.push(&mut out, next.encode_utf8(&mut buffer))?,
                _ => {}
            }
        }
        Ok(out)
    }

    /// Where the `}` is that closes the braces which were opened before this place. Braces in between are pairs, if they
    /// can be.
    fn closing(&self, end: usize) -> Option<usize> {
        let mut open = 1_usize;
        for index in self.at..end {
            match self.chars[index] {
                '{' => open += 1,
                '}' => open -= 1,
                _ => {}
            }
            if open == 0 {
                return Some(index);
            }
        }
        self.chars[self.at..end].iter().rposition(|c| *c == '}').map(|index| self.at + index)
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(next) = self.peek() {
            if !(next.is_ascii_alphabetic() || next == '_' || (!name.is_empty() && next.is_ascii_digit())) {
                break;
            }
            name.push(next);
            self.at += 1;
        }
        name
    }

    /// The variable's value, if it is wanted. One without a value is noted.
    fn value(&mut self, name: &str, start: usize, live: bool) -> Option<&'a str> {
        let value = self.look_up(name, live);
        if live && value.is_none() {
            self.unset.push((name.to_owned(), start));
        }
        value.filter(|_| live)
    }

    fn look_up(&mut self, name: &str, live: bool) -> Option<&'a str> {
        let value = (self.lookup)(name);
        if live && value.is_some() {
            self.used.insert(name.to_owned());
        }
        value
    }

    /// Expands what follows `${`, with the closing brace.
    fn braced(&mut self, start: usize, end: usize, live: bool, depth: usize) -> Result<Cow<'a, str>, Fault> {
        if depth >= MAX_DEPTH {
            return self.fault(start, format!("variables are nested deeper than {MAX_DEPTH} levels"), None);
        }
        let Some(end) = self.closing(end) else {
            return self.fault(start, "the `}` that closes `${` is missing", Some(DOLLAR_HELP));
        };
        let name = self.name();
        if name.is_empty() {
            return self.fault(start, "`${` is not followed by the name of a variable", Some(DOLLAR_HELP));
        }
        let colon = self.peek() == Some(':');
        if colon {
            self.at += 1;
        }
        let found = self.look_up(&name, live);
        // With a colon, an empty value counts as none.
        let set = found.filter(|value| !(colon && value.is_empty()));
        let value = match self.peek() {
            Some('}') if !colon => self.value(&name, start, live).unwrap_or_default().into(),
            Some('-') => {
                self.at += 1;
                let default = self.text(end, live && set.is_none(), depth + 1)?;
                set.filter(|_| live).map_or(default.into(), Cow::Borrowed)
            }
            Some('+') => {
                self.at += 1;
                self.text(end, live && set.is_some(), depth + 1)?.into()
            }
            Some('?') => {
                self.at += 1;
                // As it is written, because the values of its variables may be secret.
                let start_of_message = self.at;
                self.text(end, false, depth + 1)?;
                let message: String = self.chars[start_of_message..self.at].iter().collect();
                match set {
                    _ if !live => Cow::default(),
                    Some(value) => value.into(),
                    None => {
                        let colon = if message.is_empty() { "" } else { ": " };
                        let message = format!("the variable {name} is required{colon}{message}");
                        return self.fault(start, message, Some("set it in the environment or in `.env`"));
                    }
                }
            }
            Some(_) => {
                let help = Some("after the name comes `}`, `:-`, `-`, `:?`, `?`, `:+` or `+`");
                return self.fault(start, format!("`${{{name}` goes on in an unknown way"), help);
            }
            None => Cow::default(),
        };
        self.at = end + 1;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<&'static str> {
        match name {
            "A" => Some("a"),
            "B" => Some("b"),
            "EMPTY" => Some(""),
            "DOLLAR" => Some("$A"),
            _ => None,
        }
    }

    fn expand(template: &str) -> Result<Expanded, Fault> {
        Expander::new(&lookup).expand(template)
    }

    #[test]
    fn every_form_expands() {
        for (template, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$A", "a"),
            ("${A}", "a"),
            ("$A$B", "ab"),
            ("$A-$B.", "a-b."),
            ("x${A}y", "xay"),
            ("$$A", "$A"),
            ("$$$$", "$$"),
            ("$$${A}", "$a"),
            ("${A:-x}", "a"),
            ("${NONE:-x}", "x"),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY-x}", ""),
            ("${NONE-x}", "x"),
            ("${NONE:-}", ""),
            ("${NONE-}", ""),
            ("${A:?e}", "a"),
            ("${EMPTY?e}", ""),
            ("${A:+x}", "x"),
            ("${EMPTY:+x}", ""),
            ("${EMPTY+x}", "x"),
            ("${NONE+x}", ""),
            ("${NONE:-${B}}", "b"),
            ("${NONE:-${NONE2:-${B}c}d}e", "bcde"),
            ("${A:+${B:+both}}", "both"),
            ("${NONE:-$$}", "$"),
            ("${NONE:-a b:c-d?e}", "a b:c-d?e"),
            ("${A:-${NONE:?not asked}}", "a"),
            ("${NONE:-{x}}", "{x}"),
            ("${A:-{x}}", "a"),
            ("${NONE:-{x}", "{x"),
            ("$", "$"),
            ("a $1 $", "a $1 $"),
            ("${NONE:-$}", "$"),
            ("$DOLLAR", "$A"),
            ("${NONE:-ü}ö", "üö"),
        ] {
            let expanded = expand(template).unwrap();
            assert_eq!((expanded.text.as_str(), expanded.unset.len()), (expected, 0), "{template}");
        }
    }

    #[test]
    fn unset_variables_are_noted() {
        let expanded = expand("ü$NONE ${NONE2} ${A:-$NONE3}").unwrap();
        assert_eq!(expanded.text, "ü  a");
        assert_eq!(expanded.unset, [("NONE".to_owned(), 1), ("NONE2".to_owned(), 7)]);
    }

    #[test]
    fn wrong_forms_are_refused_at_their_place() {
        for (template, offset, message) in [
            ("${", 0, "the `}` that closes `${` is missing"),
            ("${}", 0, "`${` is not followed by the name of a variable"),
            ("${1}", 0, "`${` is not followed by the name of a variable"),
            ("ab${A", 2, "the `}` that closes `${` is missing"),
            ("${A:-x", 0, "the `}` that closes `${` is missing"),
            ("${A!}", 0, "`${A` goes on in an unknown way"),
            ("${A:}", 0, "`${A` goes on in an unknown way"),
            ("${A:-${B}", 5, "the `}` that closes `${` is missing"),
            ("${NONE:?}", 0, "the variable NONE is required"),
            ("x${NONE?set $B}", 1, "the variable NONE is required: set $B"),
            ("${EMPTY:?no}", 0, "the variable EMPTY is required: no"),
        ] {
            let fault = expand(template).unwrap_err();
            assert_eq!((fault.offset, fault.message.as_str()), (offset, message), "{template}");
        }
    }

    #[test]
    fn growth_and_depth_are_bounded() {
        let deep = format!("{}x{}", "${NONE:-".repeat(1000), "}".repeat(1000));
        assert!(expand(&deep).unwrap_err().message.contains("nested deeper"));
        let big = "x".repeat(100_000);
        let lookup = |_: &str| Some(big.as_str());
        let fault = Expander::new(&lookup).expand(&"$A".repeat(1000)).unwrap_err();
        assert!(fault.message.contains("too large"));
    }
}

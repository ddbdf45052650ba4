//! `.env` and `env_file`, with Compose's rules for quotes, comments and variables.
//!
//! Such files hold passwords, so no fault quotes a value.

use super::template::{Expander, Lookup};

/// How the values of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Quotes, inline comments and variables have a meaning.
    Compose,
    /// What follows the `=` is the value.
    Raw,
}

/// A variable of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: String,
    /// None if the name stands alone.
    pub(super) value: Option<String>,
    pub(super) line: usize,
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Reads the variables of a file's text, in its order. Variables in values are taken from `given`, else from earlier
/// lines, else from `earlier` files.
///
/// # Errors
/// Every line that is wrong.
pub(super) fn parse<'a>(
    text: &str,
    format: Format,
    given: Lookup<'a>,
    earlier: Lookup<'a>,
) -> Result<Vec<Variable>, Vec<Fault>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (line, variables, left) = (1, Vec::new(), MAX_TOTAL);
    let mut reader = Reader { rest: text, line, format, given, earlier, variables, left };
    let mut faults = Vec::new();
    while let Some(line) = reader.next_statement() {
        if let Err(message) = reader.statement(line) {
            faults.push(Fault { line, message });
            reader.skip_line();
        }
        if reader.left == 0 {
            break;
        }
    }
    if faults.is_empty() { Ok(reader.variables) } else { Err(faults) }
}

/// How much text all values of a file may have together.
const MAX_TOTAL: usize = 4 << 20;

struct Reader<'t, 'l> {
    rest: &'t str,
    line: usize,
    format: Format,
    given: Lookup<'l>,
    earlier: Lookup<'l>,
    variables: Vec<Variable>,
    left: usize,
}

/// White space within a line.
fn is_space(c: char) -> bool {
    c != '\n' && c.is_whitespace()
}

impl<'t> Reader<'t, '_> {
    fn advance(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    /// Skips empty lines and comments, and answers the line of what comes next.
    fn next_statement(&mut self) -> Option<usize> {
        loop {
            let space = self.rest.len() - self.rest.trim_start().len();
            self.advance(space);
            if self.rest.is_empty() {
                return None;
            }
            if !self.rest.starts_with('#') {
                return Some(self.line);
            }
            self.skip_line();
        }
    }

    fn skip_line(&mut self) {
        let end = self.rest.find('\n').map_or(self.rest.len(), |end| end + 1);
        self.advance(end);
    }

    fn statement(&mut self, begin: usize) -> Result<(), String> {
        let end_of_line = self.rest.find('\n').unwrap_or(self.rest.len());
        let line = &self.rest[..end_of_line];
        if self.format == Format::Raw {
            let line = line.strip_suffix('\r').unwrap_or(line);
            let (name, value) = match line.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (line, None),
            };
            check_name(name.trim_end())?;
            self.advance(end_of_line);
            return self.add(name.trim_end(), value, begin);
        }
        if let Some(rest) = line.strip_prefix("export")
            && rest.starts_with(is_space)
        {
            let rest = rest.trim_start_matches(is_space);
            self.advance(line.len() - rest.len());
        }
        let end = self.rest.find(['=', ':', '\n']).unwrap_or(self.rest.len());
        let name = self.rest[..end].trim_end();
        // A name alone may have a comment behind it.
        let alone = !self.rest[end..].starts_with(['=', ':']);
        let name = if alone { name.split(" #").next().unwrap_or(name).trim_end() } else { name };
        check_name(name)?;
        if alone {
            self.advance(end);
            return self.add(name, None, begin);
        }
        self.advance(end + 1);
        let space = self.rest.len() - self.rest.trim_start_matches(is_space).len();
        self.advance(space);
        let value = match self.rest.chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
            // Compose takes such a comment for the value, which nobody means.
            Some('#') if space > 0 => {
                self.skip_line();
                String::new()
            }
            _ => self.plain()?,
        };
        self.add(name, Some(value), begin)
    }

    fn add(&mut self, name: &str, value: Option<String>, line: usize) -> Result<(), String> {
        let size = value.as_ref().map_or(0, String::len);
        let Some(left) = self.left.checked_sub(size) else {
            self.left = 0;
            return Err("the values grow too large".to_owned());
        };
        self.left = left;
        self.variables.push(Variable { name: name.to_owned(), value, line });
        Ok(())
    }

    /// An unquoted value: to the end of the line, or to a `#` after a space.
    fn plain(&mut self) -> Result<String, String> {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        let line = self.advance(end);
        self.expand(line.split(" #").next().unwrap_or(line).trim_end())
    }

    /// A quoted value, which may go over several lines; only a comment may follow it.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut value = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        let mut end = None;
        while let Some((index, c)) = chars.next() {
            match c {
                c if c == quote => {
                    end = Some(index + 1);
                    break;
                }
                '\\' if quote == '\'' => match chars.next() {
                    Some((_, '\'')) => value.push('\''),
                    Some((_, other)) => value.extend(['\\', other]),
                    None => value.push('\\'),
                },
                '\\' => match chars.next() {
                    Some((_, 'a')) => value.push('\x07'),
                    Some((_, 'b')) => value.push('\x08'),
                    Some((_, 'f')) => value.push('\x0c'),
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, 'r')) => value.push('\r'),
                    Some((_, 't')) => value.push('\t'),
                    Some((_, 'v')) => value.push('\x0b'),
                    Some((_, '$')) => value.push_str("$$"),
                    Some((_, other @ ('"' | '\\'))) => value.push(other),
                    Some((index, '0')) if octal(&self.rest[index + 1..]).is_some() => {
                        value.extend(octal(&self.rest[index + 1..]));
                        chars.nth(2);
                    }
                    Some((_, other)) => value.extend(['\\', other]),
                    None => value.push('\\'),
                },
                c => value.push(c),
            }
        }
        let end = end.ok_or("the quote is never closed")?;
        self.advance(end);
        let line_end = self.rest.find('\n').unwrap_or(self.rest.len());
        let after = self.advance(line_end).trim();
        if !after.is_empty() && !after.starts_with('#') {
            return Err("something follows the closing quote".to_owned());
        }
        if quote == '"' { self.expand(&value) } else { Ok(value) }
    }

    fn expand(&mut self, value: &str) -> Result<String, String> {
        if !value.contains('$') {
            return Ok(value.to_owned());
        }
        let lookup = |name: &str| {
            let own = || self.variables.iter().rev().find(|known| known.name == name)?.value.as_deref();
            (self.given)(name).or_else(own).or_else(|| (self.earlier)(name))
        };
        // A variable that is nowhere is empty, as in the Compose file itself.
        let mut expander = Expander::with_budget(&lookup, self.left);
        let expanded = expander.expand(value);
        self.left = expander.left();
        expanded.map(|expanded| expanded.text).map_err(|fault| fault.message)
    }
}

/// The character that three octal digits at the beginning stand for.
fn octal(text: &str) -> Option<char> {
    let digits = text.get(..3).filter(|digits| digits.bytes().all(|digit| (b'0'..b'8').contains(&digit)))?;
    u8::from_str_radix(digits, 8).ok().map(char::from)
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the name of the variable is missing".to_owned());
    }
    match name.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']'))) {
        Some(_) => {
            Err("the name of the variable has a character that is no letter, digit, `_`, `.`, `-`, `[` or `]`"
                .to_owned())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<&'static str> {
        (name == "OUTER").then_some("outer")
    }

    fn values(text: &str, format: Format) -> Vec<String> {
        let show = |Variable { name, value, .. }: Variable| match value {
            Some(value) => format!("{name}={value}"),
            None => name,
        };
        parse(text, format, &lookup, &|_| None).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn values_follow_the_rules_of_compose() {
        for (text, expected) in [
            ("A=b", "A=b"),
            ("A = b ", "A=b"),
            ("A: b", "A=b"),
            ("export A=b", "A=b"),
            ("exported=b", "exported=b"),
            ("A=", "A="),
            ("A", "A"),
            ("A # inherited", "A"),
            ("A=b # comment", "A=b"),
            ("A=b# none", "A=b# none"),
            ("A= # comment", "A="),
            ("A=b\r\n", "A=b"),
            ("A=b=c", "A=b=c"),
            ("A=http://x:80/#y", "A=http://x:80/#y"),
            ("A=\"b c\" # comment", "A=b c"),
            ("A='b # c'", "A=b # c"),
            ("A=\"b\\nc\\t\\\"d\\\"\\\\\"", "A=b\nc\t\"d\"\\"),
            ("A='b\\nc'", "A=b\\nc"),
            ("A='Let\\'s go'", "A=Let's go"),
            ("A=\"two\nlines\"", "A=two\nlines"),
            ("A=$OUTER", "A=outer"),
            ("A=\"${OUTER}-${NONE:-x}\"", "A=outer-x"),
            ("A='$OUTER'", "A=$OUTER"),
            ("A=\"\\$OUTER\"", "A=$OUTER"),
            ("A=$$", "A=$"),
            ("A.b-c=1", "A.b-c=1"),
        ] {
            assert_eq!(values(text, Format::Compose), [expected], "{text:?}");
        }
    }

    #[test]
    fn later_lines_see_earlier_ones() {
        let text = "# comment\n\nA=1\n  B=${A}2\nC='x\ny'\nA=3\nD=$A$B\n";
        assert_eq!(values(text, Format::Compose), ["A=1", "B=12", "C=x\ny", "A=3", "D=312"]);
    }

    #[test]
    fn raw_values_are_taken_as_they_are() {
        let text = "# comment\nA='b' # c\nB=$OUTER\nC\nD=\n";
        assert_eq!(values(text, Format::Raw), ["A='b' # c", "B=$OUTER", "C", "D="]);
    }

    #[test]
    fn every_wrong_line_is_named_without_its_value() {
        let text = "A=1\nB C=secret\n=secret\nD=\"secret\" secret\nE=${\nF='secret\n";
        let faults = parse(text, Format::Compose, &lookup, &|_| None).unwrap_err();
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        assert!(!format!("{faults:?}").contains("secret"));
    }

    #[test]
    fn doubling_is_bounded() {
        let mut text = "A0=xxxxxxxxxxxxxxxx\n".to_owned();
        for level in 1..64 {
            text.push_str(&format!("A{level}=$A{0}$A{0}\n", level - 1));
        }
        let faults = parse(&text, Format::Compose, &lookup, &|_| None).unwrap_err();
        assert!(faults[0].message.contains("too large"), "{faults:?}");
    }
}

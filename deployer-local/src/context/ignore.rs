//! Which files `.dockerignore` leaves out, by the rules of the Docker Engine's own matcher.
//!
//! The engine does not apply the file to an archive that it is sent. The rules differ from those of `.gitignore`:
//! patterns begin at the root of the context, the last one that matches decides, and `!` brings back files even below a
//! directory that is left out. See <https://docs.docker.com/build/concepts/context/#dockerignore-files>.

use std::iter::Peekable;
use std::str::Chars;

/// The patterns of one file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ignore {
    patterns: Vec<Pattern>,
}

/// A pattern that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadPattern {
    /// The number of its line, from 1.
    pub(crate) line: usize,
    /// The pattern.
    pub(crate) pattern: String,
    /// What is wrong with it.
    pub(crate) problem: &'static str,
}

#[derive(Clone, Debug)]
struct Pattern {
    /// It begins with `!`.
    brings_back: bool,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug)]
enum Token {
    Is(char),
    /// `?`
    AnyButSlash,
    /// `*`
    Star,
    /// Only before [`UpToSlash`](Self::UpToSlash), which it makes optional. Together they are `**/`.
    MaybeNext,
    /// Anything that ends with a slash.
    UpToSlash,
    /// `**` at the end: anything.
    Rest,
    /// `[a-z]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Ignore {
    /// Reads the text of a `.dockerignore` file.
    pub(crate) fn parse(text: &str) -> Result<Self, BadPattern> {
        let mut patterns = Vec::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let pattern = line.trim();
            if line.starts_with('#') || pattern.is_empty() {
                continue;
            }
            let bad = |problem| BadPattern { line: index + 1, pattern: pattern.to_owned(), problem };
            let (brings_back, path) = match pattern.strip_prefix('!') {
                Some(path) => (true, path.trim()),
                None => (false, pattern),
            };
            if path.is_empty() {
                return Err(bad("`!` needs a pattern after it"));
            }
            let path = clean(path);
            let path = if path.len() > 1 { path.strip_prefix('/').unwrap_or(&path) } else { &path };
            patterns.push(Pattern { brings_back, tokens: tokens(path).map_err(bad)? });
        }
        Ok(Self { patterns })
    }

    /// Whether a directory that is left out may still hold files that are not.
    pub(crate) fn brings_back(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.brings_back)
    }

    /// Whether this path, relative to the context and with slashes, is left out.
    pub(crate) fn leaves_out(&self, path: &str) -> bool {
        let parents = path.match_indices('/').map(|(end, _)| &path[..end]);
        let candidates: Vec<&str> = parents.chain([path]).collect();
        self.patterns.iter().fold(false, |out, pattern| {
            // A pattern is asked only if its answer would change something, which is also what makes the last one win.
            if pattern.brings_back == out && candidates.iter().any(|candidate| matches(&pattern.tokens, candidate)) {
                !pattern.brings_back
            } else {
                out
            }
        })
    }
}

/// The shortest spelling of a path, without looking at the disk: what Go's `filepath.Clean` answers.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

fn tokens(pattern: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut rest = pattern.chars().peekable();
    // `**x` with nothing special in `x` matches every path that ends with it, even within a name.
    if let Some(suffix) = pattern.strip_prefix("**")
        && !suffix.is_empty()
        && !suffix.starts_with('/')
        && !suffix.contains(['*', '?', '[', ']', '\\'])
    {
        tokens.push(Token::Rest);
        tokens.extend(suffix.chars().map(Token::Is));
        return Ok(tokens);
    }
    while let Some(next) = rest.next() {
        let token = match next {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                if rest.peek().is_none() {
                    Token::Rest
                } else {
                    tokens.push(Token::MaybeNext);
                    Token::UpToSlash
                }
            }
            '*' => Token::Star,
            '?' => Token::AnyButSlash,
            '[' => class(&mut rest)?,
            '\\' => Token::Is(rest.next().ok_or("nothing follows the `\\` at its end")?),
            other => Token::Is(other),
        };
        tokens.push(token);
    }
    Ok(tokens)
}

fn class(rest: &mut Peekable<Chars<'_>>) -> Result<Token, &'static str> {
    const OPEN: &str = "its `[` is not closed";
    fn literal(rest: &mut Peekable<Chars<'_>>) -> Result<Option<char>, &'static str> {
        match rest.next().ok_or(OPEN)? {
            ']' => Ok(None),
            '\\' => rest.next().map(Some).ok_or(OPEN),
            other => Ok(Some(other)),
        }
    }
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while let Some(low) = literal(rest)? {
        let high = match rest.next_if_eq(&'-') {
            Some(_) => literal(rest)?.ok_or("its range has no end")?,
            None => low,
        };
        if high < low {
            return Err("its range ends before it begins");
        }
        ranges.push((low, high));
    }
    if ranges.is_empty() { Err("its `[]` holds nothing") } else { Ok(Token::Class { negated, ranges }) }
}

/// Follows all ways through the tokens at once, so that no pattern takes more than tokens times characters.
fn matches(tokens: &[Token], path: &str) -> bool {
    let mut at = vec![false; tokens.len() + 1];
    at[0] = true;
    pass_optional(tokens, &mut at);
    for next in path.chars() {
        let mut then = vec![false; tokens.len() + 1];
        for (index, token) in tokens.iter().enumerate().filter(|(index, _)| at[*index]) {
            match token {
                Token::Is(wanted) => then[index + 1] |= next == *wanted,
                Token::AnyButSlash => then[index + 1] |= next != '/',
                Token::Class { negated, ranges } => {
                    let within = ranges.iter().any(|(low, high)| (*low..=*high).contains(&next));
                    then[index + 1] |= within != *negated;
                }
                Token::Star => then[index] |= next != '/',
                Token::Rest => then[index] = true,
                Token::UpToSlash => {
                    then[index] = true;
                    then[index + 1] |= next == '/';
                }
                Token::MaybeNext => {}
            }
        }
        pass_optional(tokens, &mut then);
        at = then;
    }
    at[tokens.len()]
}

/// Where something may also match nothing, goes on behind it too.
fn pass_optional(tokens: &[Token], at: &mut [bool]) {
    for (index, token) in tokens.iter().enumerate() {
        if at[index] {
            match token {
                Token::Star | Token::Rest => at[index + 1] = true,
                Token::MaybeNext => {
                    at[index + 1] = true;
                    at[index + 2] = true;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_patterns() {
        for (pattern, path, out) in [
            // The root of the context is where a pattern begins; what is below a match matches.
            ("foo", "foo", true),
            ("foo", "foo/a/b", true),
            ("foo", "a/foo", false),
            ("foo", "foobar", false),
            ("/foo", "foo", true),
            ("./foo/", "foo/x", true),
            ("a/../foo", "foo", true),
            ("a//b/./c", "a/b/c", true),
            ("../foo", "foo", false),
            ("/", "foo", false),
            (".", "foo", false),
            // One star and question marks stay within a name.
            ("*.md", "README.md", true),
            ("*.md", "docs/a.md", false),
            ("*/*.md", "docs/a.md", true),
            ("*/*.md", "a/b/c.md", false),
            ("*", "a", true),
            ("*", "a/b", true),
            ("a*", "a", true),
            ("temp?", "temp1", true),
            ("temp?", "temp", false),
            ("temp?", "temp/", false),
            ("a?b", "a/b", false),
            // Two stars cross directories.
            ("**", "a/b/c", true),
            ("**/", "a", true),
            ("**/x", "x", true),
            ("**/x", "a/b/x", true),
            ("**/x", "a/b/x/y", true),
            ("**/x", "ax", false),
            ("**x", "a/bx", true),
            ("**x", "xa", false),
            ("**.log", "a/b.log", true),
            ("**/*.log", "b.log", true),
            ("**/*.log", "a/b/c.log", true),
            ("**/*.log", "a/b/c.logs", false),
            ("**/a/**/b", "a/b", true),
            ("**/a/**/b", "x/a/y/z/b", true),
            ("**/a/**/b", "x/a/yb", false),
            ("**/**/b", "a/b", true),
            ("foo/**", "foo/a/b", true),
            ("foo/**", "foo", false),
            ("foo**", "foobar/x", true),
            ("a**/*.txt", "a/x.txt", true),
            ("a**/*.txt", "ab/c/x.txt", true),
            ("a**/*.txt", "b/x.txt", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "az", false),
            // Classes and escapes.
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aee", false),
            ("a[^b-d]e", "axe", true),
            ("a[^b-d]e", "ace", false),
            ("[\\]x]", "]", true),
            ("[a\\-c]", "-", true),
            ("[a\\-c]", "b", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a.b", "axb", false),
            ("a+(b)|$", "a+(b)|$", true),
            ("ä?", "äö", true),
            // The whole line counts, but not the space around it.
            ("  foo  ", "foo", true),
            ("#foo", "#foo", false),
            (" #foo", "#foo", true),
            ("a b", "a b", true),
            ("Foo", "foo", false),
            (".git", ".git/config", true),
            (".git", "sub/.git/config", false),
        ] {
            assert_eq!(Ignore::parse(pattern).unwrap().leaves_out(path), out, "{pattern:?} and {path:?}");
        }
    }

    #[test]
    fn several_patterns() {
        for (text, path, out) in [
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README.md", "OTHER.md", true),
            ("!README.md\n*.md", "README.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-open.md", false),
            ("keep\n!keep/k.txt", "keep/k.txt", false),
            ("keep\n!keep/k.txt", "keep/other", true),
            ("**\n!util/docker/web", "util/docker/web/a/b", false),
            ("**\n!util/docker/web", "util/docker/x", true),
            ("*\n!src\nsrc/target", "src/target/x", true),
            ("*\n!src\nsrc/target", "src/main.rs", false),
            ("*\n! src", "src/main.rs", false),
            ("*\n!/src/", "src/main.rs", false),
            ("*\n!**/*.rs", "a/b.rs", false),
            ("*\n!**/*.rs", "a/b.c", true),
            ("!a", "a", false),
            ("a\n\n# a comment\r\n!a/b\r\n", "a/b", false),
            ("\u{feff}a\n", "a", true),
            ("", "a", false),
        ] {
            assert_eq!(Ignore::parse(text).unwrap().leaves_out(path), out, "{text:?} and {path:?}");
        }
    }

    #[test]
    fn bad_patterns_are_named_with_their_line() {
        for (text, line, pattern) in [
            ("a\n!", 2, "!"),
            ("[a", 1, "[a"),
            ("x\ny\n[]z", 3, "[]z"),
            ("a\\", 1, "a\\"),
            ("[b-a]", 1, "[b-a]"),
            ("[a-]", 1, "[a-]"),
            ("[a\\", 1, "[a\\"),
        ] {
            let bad = Ignore::parse(text).unwrap_err();
            assert_eq!((bad.line, bad.pattern.as_str()), (line, pattern), "{text:?}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_longer_than_others() {
        let pattern = "**/*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b".repeat(3);
        assert!(!Ignore::parse(&pattern).unwrap().leaves_out(&"a".repeat(2_000)));
    }
}

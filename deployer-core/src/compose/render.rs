//! Problems as people like to read them: with the line, and a mark under the place.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::model::{Problem, Problems, Severity};

/// How much of a line is shown before and after the place.
const WINDOW: usize = 60;

/// Renders problems with the lines that they are about. `source` answers the text of a file by the name that
/// [`Place::file`](crate::Place::file) has; a problem whose file it does not know is shown without the line.
///
/// Control characters in the source are shown as `\u{fffd}`, so that a file cannot write to the terminal.
///
/// ```
/// use deployer_core::compose::{ComposeReader, render};
///
/// let text = "services:\n  web:\n    imag: nginx\n    image: nginx\n";
/// let problems = ComposeReader::new().read_str(text, "compose.yaml", "/srv/shop").unwrap_err();
/// assert_eq!(
///     render(&problems, |file| (file == "compose.yaml").then(|| text.to_owned())),
///     "\
/// error: services.web.imag: `imag` is no key of a service
///  --> compose.yaml:3:5
///   |
/// 3 |     imag: nginx
///   |     ^
///   = help: did you mean `image`?
/// "
/// );
/// ```
#[must_use]
pub fn render(problems: &Problems, mut source: impl FnMut(&str) -> Option<String>) -> String {
    let mut sources: BTreeMap<&str, Option<String>> = BTreeMap::new();
    let mut out = String::new();
    for problem in &problems.0 {
        if !out.is_empty() {
            out.push('\n');
        }
        let text = problem
            .place
            .as_ref()
            .and_then(|place| sources.entry(&place.file).or_insert_with(|| source(&place.file)).as_deref());
        one(&mut out, problem, text);
    }
    out
}

fn one(out: &mut String, problem: &Problem, text: Option<&str>) {
    let severity = match problem.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let path = if problem.path.is_empty() { String::new() } else { format!("{}: ", printable(&problem.path)) };
    let mut gutter = 1;
    // Writing to a `String` cannot fail.
    let _ = writeln!(out, "{severity}: {path}{}", printable(&problem.message));
    if let Some(place) = &problem.place {
        gutter = place.line.to_string().len();
        let _ = writeln!(out, "{:gutter$}--> {}", "", printable(&place.to_string()));
        let index = usize::try_from(place.line).unwrap_or(usize::MAX).saturating_sub(1);
        if let Some(line) = text.and_then(|text| text.lines().nth(index)) {
            let column = usize::try_from(place.column).unwrap_or(usize::MAX).saturating_sub(1);
            let (line, column) = window(line.trim_end(), column);
            let _ = writeln!(out, "{:gutter$} |", "");
            let _ = writeln!(out, "{} | {line}", place.line);
            let _ = writeln!(out, "{:gutter$} | {:column$}^", "", "");
        }
    }
    if let Some(help) = &problem.help {
        let _ = writeln!(out, "{:gutter$} = help: {}", "", printable(help));
    }
    // The line of a note is not shown: in `.env` it may hold a password.
    for note in &problem.notes {
        let _ = writeln!(out, "{:gutter$} = note: {}", "", printable(&note.to_string()));
    }
}

/// The part of the line around the column, with one character for each column, and the column in it.
fn window(line: &str, column: usize) -> (String, usize) {
    let start = column.saturating_sub(WINDOW);
    let shown = line.chars().skip(start).take(2 * WINDOW);
    let shown: String = shown.map(|c| if c == '\t' { ' ' } else { harmless(c) }).collect();
    if start == 0 { (shown, column) } else { (format!("...{shown}"), column - start + 3) }
}

fn printable(text: &str) -> String {
    text.chars().map(harmless).collect()
}

fn harmless(c: char) -> char {
    if c.is_control() { '\u{fffd}' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Place;

    fn place(line: u32, column: u32) -> Place {
        Place { file: "f.yaml".to_owned(), line, column }
    }

    #[test]
    fn a_problem_without_a_source_has_no_line() {
        let problems = Problems(vec![
            Problem::error("services", "an application needs at least one service").at(place(12, 1)),
            Problem::warning("", "it is late").with_help("go home"),
        ]);
        let expected = "\
error: services: an application needs at least one service
  --> f.yaml:12:1

warning: it is late
  = help: go home
";
        assert_eq!(render(&problems, |_| None), expected);
    }

    #[test]
    fn long_and_hostile_lines_are_tamed() {
        let text = format!("{}\u{1b}[31mX{}", "a".repeat(500), "b".repeat(500));
        let problems = Problems(vec![Problem::error("x", "bad").at(place(1, 506))]);
        let shown = render(&problems, |_| Some(text.clone()));
        assert!(!shown.contains('\u{1b}'));
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[3].chars().count() < 140);
        let caret = lines[4].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[3].chars().nth(caret), Some('X'));
    }
}

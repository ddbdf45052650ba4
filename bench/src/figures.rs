//! Numbers about many numbers, tables, and their place in the document.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// What was measured several times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(pub(crate) Vec<f64>);

impl Series {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn seconds(&mut self, time: Duration) {
        self.add(time.as_secs_f64());
    }

    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            length if length % 2 == 1 => sorted[middle],
            _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
        }
    }

    pub(crate) fn most(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }

    /// The median, with the least and the most where there are several.
    pub(crate) fn cell(&self, digits: usize) -> String {
        if self.0.is_empty() {
            return "-".to_owned();
        }
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let median = self.median();
        if self.0.len() == 1 {
            return format!("{median:.digits$}");
        }
        format!("**{median:.digits$}** ({least:.digits$} to {:.digits$})", self.most())
    }
}

/// A table in Markdown.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", heading.join(" | "), " --- |".repeat(heading.len()));
    for row in rows {
        writeln!(text, "| {} |", row.join(" | ")).unwrap();
    }
    text
}

/// A part of the document.
pub(crate) struct Section {
    /// By this it is found again.
    pub(crate) name: String,
    pub(crate) text: String,
    /// The last line, for machines.
    pub(crate) figures: String,
    /// A file beside the document, and what is in it.
    pub(crate) picture: Option<(String, String)>,
}

impl Section {
    /// Puts it where it was, or at the end.
    pub(crate) fn write(&self) {
        let path = documents().join("benchmarks.md");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|_| INTRODUCTION.to_owned());
        let (begin, end) = (format!("<!-- {} -->\n", self.name), format!("<!-- end of {} -->\n", self.name));
        let body = format!("{begin}{}\n```text\n{}\n```\n{end}", self.text, self.figures);
        let place = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
        let text = match place {
            Some((before, after)) => format!("{before}{body}{after}"),
            None => format!("{text}\n{body}"),
        };
        std::fs::write(path, text).unwrap();
        if let Some((file, svg)) = &self.picture {
            std::fs::write(documents().join(file), svg).unwrap();
        }
    }
}

/// Where documents are, pictures in a directory beside them.
pub(crate) fn documents() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"))
}

const INTRODUCTION: &str = "\
# Benchmarks

Written by the programs that measure, `scripts/bench WHAT --write`; what else is promised and measured stands in
[measurements.md](measurements.md). Times on machines that others share differ from run to run, which is why all tools have their
turns in one run, in changing order: compare the rows of a table, not tables.
";

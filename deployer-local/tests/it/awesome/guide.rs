//! The table in `docs/compose.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use deployer_core::Problems;
use deployer_core::compose::ComposeApp;

use super::sample::Sample;

const HEAD: &str =
    "| sample | read | deployed | updated | rolled back | destroyed |\n| --- | --- | --- | --- | --- | --- |\n";
const BEGIN: &str = "<!-- samples: written by deployer-local/tests/it/awesome -->\n";
const END: &str = "<!-- end of samples -->\n";

/// Set it to write down what is seen instead of comparing it.
const WRITE: &str = "DEPLOYER_WRITE_DOCS";

pub(super) const HOW_TO_ACCEPT: &str = "docs/compose.md says otherwise; if it should say this: \
     DEPLOYER_WRITE_DOCS=1 cargo test -p deployer-local --test it what_becomes";

/// What became of a sample, step by step.
pub(super) struct Row(Vec<String>);

impl Row {
    pub(super) fn of(sample: &Sample) -> Self {
        Self(vec![format!("`{}`", sample.name)])
    }

    /// Adds what came of a step: the first line, without what is different each time. All of it is for who looks at the test.
    pub(super) fn tell(&mut self, what: &str) {
        println!("{}: {what}", self.0[0]);
        let line = what.lines().next().unwrap_or_default();
        // Revisions are written `web@0123456789ab`.
        let words = line.split(' ').map(|word| word.split_once('@').map_or(word, |(service, _)| service));
        self.0.push(words.collect::<Vec<_>>().join(" ").replace('|', "\\|"));
    }

    fn text(&self) -> String {
        let untold = std::iter::repeat_n("-", 6 - self.0.len());
        let cells: Vec<&str> = self.0.iter().map(String::as_str).chain(untold).collect();
        format!("| {} |\n", cells.join(" | "))
    }
}

/// That it is read, and what is to be known of it.
pub(super) fn read(app: &ComposeApp) -> String {
    // What follows the colon says why.
    let warnings = app.warnings.warnings().filter_map(|warning| warning.message.split(": ").next());
    let warnings: BTreeSet<&str> = warnings.collect();
    let warnings = warnings.into_iter().collect::<Vec<_>>().join(", ");
    if warnings.is_empty() { "yes".to_owned() } else { format!("yes; {warnings}") }
}

/// That it is not, and why: the keys that would have to be supported, as far as it is them.
pub(super) fn refused(problems: &Problems) -> String {
    let key = |message: &str| message.strip_suffix(" is not supported").unwrap_or(message).to_owned();
    let problems: BTreeSet<String> = problems.errors().map(|problem| key(&problem.message)).collect();
    format!("no: {}", problems.into_iter().collect::<Vec<_>>().join(", "))
}

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compose.md"))
}

/// The guide before its table, the table, and what comes after.
fn parts() -> [String; 3] {
    let text = fs::read_to_string(path()).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the guide has a place for the table");
    let (table, after) = rest.split_once(END).expect("the table has an end");
    [before, table, after].map(str::to_owned)
}

/// The cells of the table.
pub(super) fn rows() -> Vec<Vec<String>> {
    let [_, table, _] = parts();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    rows.map(|row| format!("`{row}").split(" | ").map(str::to_owned).collect()).collect()
}

/// The guide has to say what became of the samples.
pub(super) fn assert_told(rows: &[Row]) {
    let all = rows.iter().map(Row::text).collect::<String>();
    let (count, well) = (rows.len(), rows.iter().filter(|row| row.0.len() == 6 && row.0[5] == "yes").count());
    let table = format!("Of {count} samples {well} went all the way.\n\n{HEAD}{all}");
    let [before, told, after] = parts();
    if std::env::var_os(WRITE).is_some() {
        fs::write(path(), format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(told, table, "{HOW_TO_ACCEPT}");
    }
}

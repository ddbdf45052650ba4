//! Aligned tables.

use std::fmt;

/// Rows of cells, shown in columns that are as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    heads: Vec<Head>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug)]
struct Head {
    text: &'static str,
    right: bool,
}

impl Table {
    /// A table with these columns. One whose name begins with `>` is aligned to the right.
    pub(crate) fn new<const N: usize>(heads: [&'static str; N]) -> Self {
        let head = |text: &'static str| match text.strip_prefix('>') {
            Some(text) => Head { text, right: true },
            None => Head { text, right: false },
        };
        Self { heads: heads.into_iter().map(head).collect(), rows: Vec::new() }
    }

    /// Adds a row. Cells that it does not have are empty.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert!(N <= self.heads.len(), "a cell without a column");
        // A line break within a cell would tear the table apart.
        self.rows.push(cells.into_iter().map(|cell| cell.replace(['\n', '\r', '\t'], " ")).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A column without any content is left out.
        let cell = |row: &'_ Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
        let shown: Vec<usize> =
            (0..self.heads.len()).filter(|column| self.rows.iter().any(|row| !cell(row, *column).is_empty())).collect();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row.get(column).map_or(0, |cell| cell.chars().count()));
            cells.max().unwrap_or(0).max(self.heads[column].text.chars().count())
        };
        let mut write = |text: &dyn Fn(usize) -> String| {
            let cells = shown.iter().map(|column| {
                let (text, width) = (text(*column), width(*column));
                if self.heads[*column].right { format!("{text:>width$}") } else { format!("{text:<width$}") }
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())
        };
        write(&|column| self.heads[column].text.to_owned())?;
        for row in &self.rows {
            write(&|column| cell(row, column))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["SERVICE", ">TRAFFIC", "STATE"]);
        table.row(["web".into(), "100 %".into(), "serves".into()]);
        table.row(["a-long-name".into(), "0 %".into(), "über\nzwei".into()]);
        table.row(["x".into()]);
        let expected = "\
SERVICE      TRAFFIC  STATE
web            100 %  serves
a-long-name      0 %  über zwei
x
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_column_that_says_nothing_is_left_out() {
        let mut table = Table::new(["A", "B", "C"]);
        table.row(["1".into(), String::new(), "3".into()]);
        assert_eq!(table.to_string(), "A  C\n1  3\n");
    }
}

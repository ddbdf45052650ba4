//! A few numbers about many.

use std::time::Duration;

/// Times, in milliseconds.
#[derive(Default)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) -> f64 {
        let millis = time.as_secs_f64() * 1000.0;
        self.0.push(millis);
        millis
    }

    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
    }

    /// One row of a table: median, least, most.
    pub(crate) fn row(&self, name: &str) -> String {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(0.0, f64::max);
        format!("{name:<44} {:>9.1} {least:>9.1} {most:>9.1}", self.median())
    }

    pub(crate) fn heading() -> String {
        format!("{:<44} {:>9} {:>9} {:>9}", "milliseconds", "median", "least", "most")
    }
}

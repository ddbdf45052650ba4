//! `x-deployer.balancing`: how a load balancer treats the instances.

use super::cursor::Cursor;
use super::keys;
use super::report::Report;
use crate::model::Balancing;

pub(super) fn read(report: &mut Report, cursor: &Cursor<'_>, model: &str) -> Option<Balancing> {
    let fields = report.fields(cursor, &keys::BALANCING)?;
    for key in ["slow-start", "sticky", "healthy-after", "unhealthy-after"] {
        if let Some(cursor) = fields.get(key) {
            report.mark(format!("{model}.balancing.{}", key.replace('-', "_")), &cursor);
        }
    }
    Some(Balancing {
        slow_start: fields.duration(report, "slow-start").unwrap_or_default(),
        sticky: fields.duration(report, "sticky"),
        healthy_after: fields.number(report, "healthy-after"),
        unhealthy_after: fields.number(report, "unhealthy-after"),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{complaints, web};
    use super::*;

    #[test]
    fn every_key_is_read() {
        let keys = "{slow-start: 30s, sticky: 1h, healthy-after: 3, unhealthy-after: 5}";
        let expected = Balancing::default()
            .with_slow_start(Duration::from_secs(30))
            .with_sticky(Duration::from_secs(3_600))
            .with_thresholds(3, 5);
        assert_eq!(web(&format!("x-deployer: {{balancing: {keys}}}")).balancing, expected);
        assert_eq!(web("x-deployer: {balancing: {}}").balancing, Balancing::default());
        let found = complaints("x-deployer: {balancing: {healthy-after: 0}}");
        assert!(found[0].contains("one probe at least"), "{found:?}");
    }
}

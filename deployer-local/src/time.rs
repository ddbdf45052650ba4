//! Points in time as the engine writes them.

use deployer_core::Timestamp;

/// Nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EngineTime(i64);

impl EngineTime {
    /// Reads RFC 3339 in UTC, such as `2026-11-21T22:29:49.757358734Z`. The engine's "never", the year 1, is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
        let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let [year, month, day] = numbers(date, '-')?;
        let [hour, minute, second] = numbers(seconds, ':')?;
        if year < 1970 || !(1..=12).contains(&month) || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
        // Howard Hinnant's "days from civil": years that begin in March have their leap day at the end.
        let year = if month <= 2 { year - 1 } else { year };
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
        let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
        Some(Self(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?))
    }

    /// As the model has it.
    pub(crate) fn timestamp(self) -> Timestamp {
        Timestamp::from_millis(self.0.div_euclid(1_000_000))
    }

    /// Whole seconds since the epoch.
    pub(crate) fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// As the engine's queries want it: seconds, a dot, nanoseconds.
    pub(crate) fn query(self) -> String {
        format!("{}.{:09}", self.seconds(), self.0.rem_euclid(1_000_000_000))
    }
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(|part| part.parse::<i64>().ok());
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_the_inverse_of_showing() {
        for millis in [0, 951_782_400_000, 1_709_164_800_123, 1_763_762_400_123, 4_102_444_799_999] {
            let shown = Timestamp::from_millis(millis).to_string();
            assert_eq!(EngineTime::parse(&shown).map(EngineTime::timestamp), Some(Timestamp::from_millis(millis)));
        }
    }

    #[test]
    fn every_digit_of_the_fraction_counts() {
        let time = EngineTime::parse("1970-01-01T00:00:01.5Z").unwrap();
        assert_eq!(time.query(), "1.500000000");
        assert!(time < EngineTime::parse("1970-01-01T00:00:01.500000001Z").unwrap());
    }

    #[test]
    fn never_and_nonsense_are_none() {
        for text in ["", "0001-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-11-21 22:29:49", "2026-11-21T22:29Z"] {
            assert_eq!(EngineTime::parse(text), None, "{text}");
        }
    }
}

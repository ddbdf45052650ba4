//! Durations, sizes and the other values that Compose writes as text.

use std::time::Duration;

use super::yaml::Yaml;

impl From<Duration> for Yaml {
    /// `1m30s`, by the milliseconds that are stored of it.
    fn from(duration: Duration) -> Self {
        let mut millis = duration.as_millis();
        let mut text = String::new();
        for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if millis >= size {
                text.push_str(&format!("{}{unit}", millis / size));
                millis %= size;
            }
        }
        Self::Text(if text.is_empty() { "0s".to_owned() } else { text })
    }
}

/// `512m`, in the largest unit that there is a whole number of.
pub(super) fn size(bytes: u64) -> Yaml {
    let unit =
        [("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)].into_iter().find(|(_, size)| bytes.is_multiple_of(*size));
    Yaml::Text(match unit.filter(|_| bytes > 0) {
        Some((unit, size)) => format!("{}{unit}", bytes / size),
        None => format!("{bytes}b"),
    })
}

/// `0.5`, of thousandths of a core.
pub(super) fn cores(millis: u64) -> Yaml {
    Yaml::Plain(decimal(millis, 1_000))
}

/// `0.5%`, of thousandths.
pub(super) fn percentage(permille: u16) -> Yaml {
    Yaml::Text(format!("{}%", decimal(permille.into(), 10)))
}

/// `0440`, as `chmod` takes it.
pub(super) fn mode(bits: u32) -> String {
    format!("{bits:04o}")
}

/// The quotient of a number and a power of ten.
fn decimal(number: u64, scale: u64) -> String {
    let digits = scale.ilog10() as usize;
    let text = format!("{}.{:0digits$}", number / scale, number % scale);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::super::formats;
    use super::*;

    fn text(value: Yaml) -> String {
        match value {
            Yaml::Text(text) | Yaml::Plain(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_are_written_as_they_are_read() {
        for (millis, expected) in
            [(0, "0s"), (200, "200ms"), (90_000, "1m30s"), (3_600_000, "1h"), (86_461_001, "24h1m1s1ms")]
        {
            let duration = Duration::from_millis(millis);
            assert_eq!(text(duration.into()), expected);
            assert_eq!(formats::duration(expected), Some(duration));
        }
        for (bytes, expected) in
            [(0, "0b"), (1, "1b"), (1 << 20, "1m"), (3 << 29, "1536m"), (1 << 40, "1024g"), (1025, "1025b")]
        {
            assert_eq!(text(size(bytes)), expected);
            assert_eq!(formats::bytes(expected), Some(bytes));
        }
        for (millis, expected) in [(500, "0.5"), (1_000, "1"), (250, "0.25"), (1_001, "1.001"), (10_000, "10")] {
            assert_eq!(text(cores(millis)), expected);
            assert_eq!(formats::cpu_millis(expected), Some(millis));
        }
        for (permille, expected) in [(0, "0%"), (5, "0.5%"), (10, "1%"), (1_000, "100%")] {
            assert_eq!(text(percentage(permille)), expected);
            assert_eq!(formats::permille(expected), Some(permille));
        }
        for (bits, expected) in [(0o440, "0440"), (0o7777, "7777"), (0, "0000")] {
            assert_eq!(mode(bits), expected);
            assert_eq!(formats::mode(expected), Some(bits));
        }
    }
}

//! Durations, sizes and the other values that Compose writes as text.

use std::time::Duration;

/// The longest duration that is taken: a hundred years.
const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Reads `1m30s`, `200ms`, `1.5h`. What is finer than a millisecond is rounded up, because that is the grain of the model.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let millis = u64::try_from(nanos(text)?.div_ceil(1_000_000)).ok()?;
    Some(Duration::from_millis(millis)).filter(|duration| *duration <= MAX_DURATION)
}

/// Reads a duration as microseconds.
pub(super) fn micros(text: &str) -> Option<i64> {
    i64::try_from(nanos(text)?.div_ceil(1_000)).ok()
}

fn nanos(text: &str) -> Option<u128> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (whole, fraction, unit) = number_and_unit(&mut rest)?;
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return None,
        };
        let part = u128::from(whole).checked_mul(scale)? + u128::from(fraction.0) * scale / u128::from(fraction.1);
        nanos = nanos.checked_add(part)?;
    }
    (!text.is_empty()).then_some(nanos)
}

/// Reads `512m`, `1gb`, `1.5g`, `1024`: units of 1024.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let mut rest = text;
    let (whole, fraction, unit) = number_and_unit(&mut rest)?;
    if !rest.is_empty() {
        return None;
    }
    let unit = unit.trim_start().to_ascii_lowercase();
    let scale: u64 = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "p" | "pb" | "pib" => 1 << 50,
        _ => return None,
    };
    let part = u128::from(fraction.0) * u128::from(scale) / u128::from(fraction.1);
    whole.checked_mul(scale)?.checked_add(u64::try_from(part).ok()?)
}

/// Reads `0.5` cores as 500 thousandths. What is finer is rounded up.
pub(super) fn cpu_millis(text: &str) -> Option<u64> {
    let mut rest = text;
    let (whole, fraction, unit) = number_and_unit(&mut rest)?;
    if !unit.is_empty() || !rest.is_empty() {
        return None;
    }
    whole.checked_mul(1_000)?.checked_add((fraction.0 * 1_000).div_ceil(fraction.1))
}

/// Reads `1%` or `0.5%` as thousandths.
pub(super) fn permille(text: &str) -> Option<u16> {
    let mut rest = text.strip_suffix('%')?.trim_end();
    let (whole, fraction, unit) = number_and_unit(&mut rest)?;
    if !unit.is_empty() || !rest.is_empty() || !(fraction.0 * 10).is_multiple_of(fraction.1) {
        return None;
    }
    let permille = whole.checked_mul(10)?.checked_add(fraction.0 * 10 / fraction.1)?;
    u16::try_from(permille).ok().filter(|permille| *permille <= 1_000)
}

/// Reads `true` and `false`, and the other words that YAML 1.1 has for them.
/// What may be done with a file: octal digits, as `chmod` takes them.
pub(super) fn mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten().filter(|mode| *mode <= 0o7777)
}

pub(super) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => Some(true),
        "false" | "no" | "off" | "n" => Some(false),
        _ => None,
    }
}

/// Takes `12.5ms` off the front: the whole number, the fraction as a quotient, and the unit up to the next digit.
fn number_and_unit<'t>(rest: &mut &'t str) -> Option<(u64, (u64, u64), &'t str)> {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole, after) = rest.split_at(digits(rest));
    let (fraction, after) = match after.strip_prefix('.') {
        Some(after) => after.split_at(digits(after)),
        None => ("", after),
    };
    // Nine digits are a billionth: more would change nothing.
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 {
        return None;
    }
    let number = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    let quotient = (number(fraction)?, 10_u64.pow(u32::try_from(fraction.len()).ok()?));
    let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
    *rest = after;
    Some((number(whole)?, quotient, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("1h5m30s20ms", 3_930_020),
            ("200ms", 200),
            ("1.5s", 1_500),
            (".5s", 500),
            ("1us", 1),
            ("2500us", 3),
            ("1d", 86_400_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "10x", "-1s", "1 s", "1s ", "1m 30s", "99999999999999999999s", "1000000d", "1..5s"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("1024", 1024),
            ("1b", 1),
            ("2k", 2048),
            ("512m", 512 << 20),
            ("64M", 64 << 20),
            ("1gb", 1 << 30),
            ("1.5g", 3 << 29),
            ("1 GiB", 1 << 30),
            ("0", 0),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1m1", "99999999999p", "0x10"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn cores_and_shares() {
        for (text, expected) in [("1", 1_000), ("0.50", 500), ("1.5", 1_500), ("0.0001", 1), ("0", 0)] {
            assert_eq!(cpu_millis(text), Some(expected), "{text}");
        }
        for text in ["", "half", "-1", "1m", "1e3"] {
            assert_eq!(cpu_millis(text), None, "{text}");
        }
        for (text, expected) in [("1%", 10), ("0.5%", 5), ("100%", 1_000), ("0%", 0)] {
            assert_eq!(permille(text), Some(expected), "{text}");
        }
        for text in ["1", "101%", "0.05%", "%", "-1%"] {
            assert_eq!(permille(text), None, "{text}");
        }
    }
}

//! How many instances a service has where the platform decides that: bounds, what is aimed at, and times.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// How the platform changes the number of a service's instances by itself, where it can
/// ([`OrchestratorCapabilities::scales`](crate::OrchestratorCapabilities::scales)); elsewhere it has no effect.
///
/// It is part of a release and comes back with it, but not of a revision: changing it replaces no instances. While a
/// deployment moves a service, the platform leaves its number alone; a new revision begins with at least as many
/// instances as serve then, and the platform goes on with it when the move is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Scaling {
    /// The fewest instances, 1 or more.
    pub min: u32,
    /// The most instances.
    pub max: u32,
    /// What is aimed at; where there are several, what needs the most instances counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<ScalingTarget>,
    /// When the bounds change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<ScalingSchedule>,
}

impl Scaling {
    /// From so many instances to so many, with nothing yet that says when.
    #[must_use]
    pub fn new(min: u32, max: u32) -> Self {
        Self { min, max, targets: Vec::new(), schedules: Vec::new() }
    }

    /// Adds something to aim at.
    #[must_use]
    pub fn with_target(mut self, target: ScalingTarget) -> Self {
        self.targets.push(target);
        self
    }

    /// Adds a time at which the bounds change.
    #[must_use]
    pub fn with_schedule(mut self, schedule: ScalingSchedule) -> Self {
        self.schedules.push(schedule);
        self
    }
}

/// What is aimed at: there are more instances while it is above, and fewer while it is below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ScalingTarget {
    /// How busy the processors are that the instances have reserved, on the mean.
    Cpu {
        /// 1 to 100.
        percent: u8,
    },
    /// How much is used of the memory that the instances have reserved, on the mean.
    Memory {
        /// 1 to 100.
        percent: u8,
    },
    /// How many requests the load balancer gives to each instance, on the mean.
    Requests {
        /// In a minute.
        per_minute: u32,
    },
}

impl ScalingTarget {
    /// Its name as it is written in files.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Cpu { .. } => "cpu",
            Self::Memory { .. } => "memory",
            Self::Requests { .. } => "requests",
        }
    }
}

/// A time at which the bounds change, until the next one changes them again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScalingSchedule {
    /// Its name, unique within the service.
    pub name: String,
    /// When.
    pub cron: Cron,
    /// The time zone, such as `Europe/Berlin`; none means UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// The fewest instances from then on; none leaves that as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// The most instances from then on; none leaves that as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

impl ScalingSchedule {
    /// A time in UTC at which nothing changes yet.
    #[must_use]
    pub fn new(name: impl Into<String>, cron: Cron) -> Self {
        Self { name: name.into(), cron, timezone: None, min: None, max: None }
    }

    /// Sets the fewest and the most instances from then on.
    #[must_use]
    pub fn with_bounds(mut self, min: u32, max: u32) -> Self {
        (self.min, self.max) = (Some(min), Some(max));
        self
    }

    /// Sets the time zone.
    #[must_use]
    pub fn with_timezone(mut self, timezone: impl Into<String>) -> Self {
        self.timezone = Some(timezone.into());
        self
    }
}

/// Recurring times in the five fields of cron: minute, hour, day of the month, month, day of the week.
///
/// A field is `*` or a list of numbers and ranges, each with a step if need be: `0,30`, `8-18`, `*/5`. Days of the week are
/// 0 to 7, Sunday first and last, or `sun` to `sat`; months may be `jan` to `dec`. One of the two kinds of days must be
/// `*`: what both together mean is not the same everywhere.
///
/// ```
/// use deployer_core::Cron;
/// let mornings: Cron = "30 7 * * mon-fri".parse()?;
/// assert_eq!(mornings.fields().weekdays.unwrap().len(), 5);
/// # Ok::<(), deployer_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron(String);

/// What the fields of a [`Cron`] allow; none means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CronFields {
    /// Minutes, from 0 to 59.
    pub minutes: Option<BTreeSet<u8>>,
    /// Hours, from 0 to 23.
    pub hours: Option<BTreeSet<u8>>,
    /// Days of the month, from 1 to 31.
    pub days: Option<BTreeSet<u8>>,
    /// Months, from 1 to 12.
    pub months: Option<BTreeSet<u8>>,
    /// Days of the week, from 0 to 6, Sunday first.
    pub weekdays: Option<BTreeSet<u8>>,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Cron {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What each field allows.
    #[must_use]
    pub fn fields(&self) -> CronFields {
        // It was read when it was made.
        read(&self.0).unwrap_or_default()
    }
}

impl FromStr for Cron {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match read(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(why) => Err(Error::new(ErrorKind::InvalidInput, why).with_resource(format!("{text:?}"))),
        }
    }
}

impl TryFrom<String> for Cron {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.0
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn read(text: &str) -> Result<CronFields, &'static str> {
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let [minutes, hours, days, months, weekdays] = fields[..] else {
        return Err("recurring times have five fields, such as `30 7 * * mon-fri`");
    };
    let weekdays = field(weekdays, 0, 7, &WEEKDAYS, 0).ok_or("a day of the week is 0 to 7, or `sun` to `sat`")?;
    let fields = CronFields {
        minutes: field(minutes, 0, 59, &[], 0).ok_or("a minute is 0 to 59")?,
        hours: field(hours, 0, 23, &[], 0).ok_or("an hour is 0 to 23")?,
        days: field(days, 1, 31, &[], 0).ok_or("a day of the month is 1 to 31")?,
        months: field(months, 1, 12, &MONTHS, 1).ok_or("a month is 1 to 12, or `jan` to `dec`")?,
        weekdays: weekdays.map(|days| days.into_iter().map(|day| day % 7).collect()),
    };
    if fields.days.is_some() && fields.weekdays.is_some() {
        return Err("a day of the month and a day of the week exclude each other");
    }
    Ok(fields)
}

/// What a field allows; none, if it is `*` alone. The first of its names stands for the number `base`.
fn field(text: &str, least: u8, most: u8, names: &[&str], base: u8) -> Option<Option<BTreeSet<u8>>> {
    if text == "*" {
        return Some(None);
    }
    let number = |text: &str| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let digits = || text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let number = named.and_then(|index| u8::try_from(index).ok()).map(|index| base + index).or_else(digits)?;
        (least..=most).contains(&number).then_some(number)
    };
    let mut allowed = BTreeSet::new();
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0)?),
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (number(from)?, number(to)?),
            None if range == "*" => (least, most),
            None if part == range => (number(range)?, number(range)?),
            // From there on.
            None => (number(range)?, most),
        };
        if from > to {
            return None;
        }
        allowed.extend((from..=to).step_by(step));
    }
    Some(Some(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recurring_times_are_read() {
        let fields = |text: &str| text.parse::<Cron>().unwrap().fields();
        let set = |numbers: &[u8]| Some(numbers.iter().copied().collect::<BTreeSet<u8>>());
        assert_eq!(fields("* * * * *"), CronFields::default());
        let read = fields("0,30 8-10 */10 jan,12 *");
        assert_eq!((read.minutes, read.hours), (set(&[0, 30]), set(&[8, 9, 10])));
        assert_eq!((read.days, read.months), (set(&[1, 11, 21, 31]), set(&[1, 12])));
        assert_eq!(fields("5/25 0 * * 5-7").weekdays, set(&[0, 5, 6]));
        assert_eq!(fields("5/25 0 * * 5-7").minutes, set(&[5, 30, 55]));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *"] {
            assert!(text.parse::<Cron>().is_err(), "{text}");
        }
        for text in ["a * * * *", "5-3 * * * *", "+1 * * * *", "1,, * * * *", "0 0 1 * mon", "- * * * *"] {
            assert!(text.parse::<Cron>().is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Cron>("\"@daily\"").is_err());
    }
}

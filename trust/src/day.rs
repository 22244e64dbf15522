//! Days, as people date things: since when a key is known, from when another follows it.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;
use time::format_description::well_known::Iso8601;
use time::{Date, OffsetDateTime};

/// A day of the calendar, in UTC. Its text is `2026-11-27`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(Date);

impl Day {
    /// The day of an instant, which the caller's clock gave.
    #[must_use]
    pub fn of(instant: SystemTime) -> Day {
        // OffsetDateTime's own conversion panics beyond the year 9999.
        let since = instant.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        Day(OffsetDateTime::from_unix_timestamp(seconds).map_or(Date::MAX, OffsetDateTime::date))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0.year(), u8::from(self.0.month()), self.0.day())
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a day is written 2026-11-27")]
pub struct DayError;

impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Day, DayError> {
        let day = Date::parse(text, &Iso8601::DATE).map(Day).map_err(|_| DayError)?;
        // The standard has other forms of the same day; one form is enough, and can be compared as text.
        if day.to_string() == text { Ok(day) } else { Err(DayError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_form() {
        let day: Day = "2026-11-27".parse().unwrap();
        assert_eq!(day.to_string(), "2026-11-27");
        for bad in [
            "",
            "20261127",
            "2026-W48-5",
            "2026-331",
            "2026-11-31",
            "2026-1-2",
            "+002026-11-27",
            "27.11.2026",
        ] {
            assert_eq!(bad.parse::<Day>(), Err(DayError), "{bad}");
        }
    }

    #[test]
    fn every_instant_has_a_day() {
        let after = |seconds| Day::of(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
        assert_eq!(after(0), "1970-01-01");
        assert_eq!(after(1_795_824_000 - 1), "2026-11-27");
        assert_eq!(after(1_795_824_000), "2026-11-28");
        assert_eq!(after(1 << 40), "9999-12-31");
        assert_eq!(Day::of(SystemTime::UNIX_EPOCH - Duration::from_secs(9)).to_string(), "1970-01-01");
    }
}

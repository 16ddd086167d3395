//! Points in time, and where they come from.
//!
//! Code that decides by time takes a [`Clock`]; only [`SystemClock`] reads the machine's.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since the Unix epoch, UTC. Stored as the number, shown as RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Parses RFC 3339 with an offset (`2026-11-24T09:00:00+08:00`). Fractions under a millisecond are dropped.
    ///
    /// # Errors
    /// When the text is not such a time; a time without an offset is refused.
    pub fn parse(text: &str) -> Result<Self, InvalidTime> {
        if !is_rfc_3339(text) {
            return Err(InvalidTime);
        }
        text.parse::<jiff::Timestamp>().map(|t| Self(t.as_millisecond())).map_err(|_| InvalidTime)
    }

    /// The time since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

/// Whether a text has the form of RFC 3339 §5.6. The parser behind takes more: ISO 8601's short forms, a time zone's
/// name.
fn is_rfc_3339(text: &str) -> bool {
    let fits = |text: &str, form: &str| {
        let fits = |(c, form): (u8, u8)| if form == b'0' { c.is_ascii_digit() } else { c == form };
        text.len() == form.len() && text.bytes().zip(form.bytes()).all(fits)
    };
    let Some((time, rest)) = text.split_at_checked(19) else { return false };
    let offset = match rest.strip_prefix('.') {
        Some(fraction) => {
            let offset = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if offset.len() == fraction.len() {
                return false;
            }
            offset
        }
        None => rest,
    };
    fits(&time.to_ascii_uppercase(), "0000-00-00T00:00:00")
        && (offset.eq_ignore_ascii_case("z") || fits(offset, "+00:00") || fits(offset, "-00:00"))
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(rhs.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.to_jiff())
    }
}

/// Not an RFC 3339 time with an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time with an offset, such as 2026-11-24T09:00:00+08:00")]
pub struct InvalidTime;

/// Where the present comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present.
    fn now(&self) -> Timestamp;
}

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_millisecond())
    }
}

/// Follows tokio's clock, so that a test which pauses and advances it moves this one too.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    start: Timestamp,
    started: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that shows `start` now. Needs a tokio runtime.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self { start, started: tokio::time::Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.start + self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_read_with_its_offset_and_shown_in_utc() {
        let at = Timestamp::parse("2026-11-24T09:00:00.25+08:00").unwrap();
        assert_eq!(at.to_string(), "2026-11-24T01:00:00.250Z");
    }

    #[test]
    fn time_without_an_offset_is_refused() {
        assert_eq!(Timestamp::parse("2026-11-24T09:00:00"), Err(InvalidTime));
        assert_eq!(Timestamp::parse("tomorrow"), Err(InvalidTime));
    }

    #[test]
    fn only_the_form_of_rfc_3339_is_taken() {
        for good in [
            "2026-11-24T09:00:00Z",
            "2026-11-24t09:00:00z",
            "2026-11-24T09:00:00.5-00:00",
            "2026-11-24T09:00:00.123456789+05:45",
        ] {
            assert!(Timestamp::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "2026-11-24",
            "2026-11-24T09:00Z",
            "20261124T090000Z",
            "2026-11-24T09:00:00.Z",
            "2026-11-24T09:00:00,5Z",
            "2026-11-24T09:00:00+08",
            "2026-11-24T09:00:00+0800",
            "2026-11-24T09:00:00+08:00[Asia/Shanghai]",
            "2026-11-24T25:00:00Z",
            "2026-02-30T09:00:00Z",
            "２026-11-24T09:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(bad), Err(InvalidTime), "{bad}");
        }
    }
}

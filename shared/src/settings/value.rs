//! The forms that values are written in.

use std::time::Duration;

/// A duration: a number and `ms`, `s`, `m`, `h` or `d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const ALLOWED: &str = "a duration such as 500ms, 30s, 1m, 24h or 7d is expected";
    let (number, unit) = split(text);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(ALLOWED.into()),
    };
    let number: u64 = number.parse().map_err(|_| ALLOWED.to_owned())?;
    // A thousand years are enough, and leave room to add.
    let total = number.checked_mul(millis).filter(|total| *total <= 365_000 * 86_400_000);
    total.map(Duration::from_millis).ok_or_else(|| "at most 365000d is allowed".into())
}

/// A size in bytes: a number, alone or with `KiB`, `MiB` or `GiB`.
pub(super) fn size(text: &str) -> Result<usize, String> {
    const ALLOWED: &str = "a size such as 1048576, 512KiB or 20MiB is expected";
    let (number, unit) = split(text);
    let bytes: usize = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(ALLOWED.into()),
    };
    let number: usize = number.parse().map_err(|_| ALLOWED.to_owned())?;
    number.checked_mul(bytes).ok_or_else(|| ALLOWED.into())
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("1m", 60_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "5", "s", "-1s", "1.5s", "1 week", "99999999999999999999s", "999999999d", "1S"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("10", 10), ("512KiB", 524_288), ("20MiB", 20_971_520), ("20 MiB", 20_971_520)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "20MB", "-1", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}

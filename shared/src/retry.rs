//! When a job is tried again: pure arithmetic.

use std::time::Duration;

/// How often, and after what delays, a deferred job is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Retries after the first attempt.
    pub max_retries: u32,
    /// The delay before the first retry.
    pub base_delay: Duration,
    /// The longest delay, before jitter.
    pub max_delay: Duration,
    /// What each delay is multiplied by to give the next. At least 1.
    pub multiplier: f64,
    /// The share of the delay by which chance may lengthen or shorten it. From 0 to 1.
    pub jitter: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 3,
            base_delay: Duration::from_mins(1),
            max_delay: Duration::from_mins(30),
            multiplier: 2.0,
            jitter: 0.1,
        }
    }
}

impl RetryPolicy {
    /// The delay before retry `n` (from 1): min(base × multiplier^(n−1), max) × (1 ± jitter).
    ///
    /// `chance` is uniform in 0 ≤ x < 1. The jitter comes after the cap, so that retries at the cap spread too.
    #[must_use]
    pub fn delay(&self, n: u32, chance: f64) -> Duration {
        let exponent = i32::try_from(n.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.base_delay.as_secs_f64() * self.multiplier.powi(exponent);
        // `min` also turns an overflow to infinity into the cap.
        let capped = grown.min(self.max_delay.as_secs_f64());
        let spread = 1.0 + self.jitter * (2.0 * chance - 1.0);
        Duration::try_from_secs_f64(capped * spread).unwrap_or(self.max_delay)
    }

    /// Attempts at most, the first one included.
    #[must_use]
    pub const fn max_attempts(&self) -> u32 {
        self.max_retries.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn defaults_double_from_a_minute_to_half_an_hour() {
        let policy = RetryPolicy::default();
        let minutes: Vec<u64> = (1..=7).map(|n| policy.delay(n, 0.5).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(policy.max_attempts(), 4);
    }

    proptest! {
        #[test]
        fn delay_stays_within_the_jitter_of_the_capped_value(
            n in 1u32..10_000, chance in 0.0f64..1.0, base_ms in 1u64..100_000, max_ms in 1u64..10_000_000,
            multiplier in 1.0f64..10.0, jitter in 0.0f64..=1.0,
        ) {
            let policy = RetryPolicy {
                max_retries: 3,
                base_delay: Duration::from_millis(base_ms),
                max_delay: Duration::from_millis(max_ms),
                multiplier,
                jitter,
            };
            let exact = policy.delay(n, 0.5).as_secs_f64();
            let got = policy.delay(n, chance).as_secs_f64();
            prop_assert!(exact <= policy.max_delay.as_secs_f64() + 1e-6);
            prop_assert!((got - exact).abs() <= exact * jitter + 1e-6);
            prop_assert!(policy.delay(n + 1, 0.5) >= policy.delay(n, 0.5));
        }
    }
}

//! From what happened to what becomes of the job: pure.

use shared::classify::Meaning;
use shared::job::{OnAmbiguous, Reason};
use shared::queue::Verdict;
use shared::retry::RetryPolicy;

/// What a decision rests on beside the meaning of what happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case<'a> {
    /// The ordinal of this attempt, from 1.
    pub(crate) attempt: u32,
    /// Attempts at most.
    pub(crate) max_attempts: u32,
    /// What to do when the relay may have the message.
    pub(crate) on_ambiguous: OnAmbiguous,
    /// The delays.
    pub(crate) retry: &'a RetryPolicy,
}

/// Decides. `chance` is uniform in 0 ≤ x < 1.
///
/// [`Meaning::Reconnect`] and [`Meaning::OurFault`] are decided as after their second time: whoever can try once more
/// on a new connection does so before.
pub(crate) fn verdict(meaning: Meaning, case: Case<'_>, chance: f64) -> Verdict {
    match meaning {
        Meaning::Deferred | Meaning::Reconnect => retry(case, chance),
        Meaning::Rejected | Meaning::OurFault => Verdict::Fail(Reason::Permanent),
        Meaning::Throttled { .. } | Meaning::RelayDown => Verdict::Release,
        Meaning::Ambiguous => match case.on_ambiguous {
            OnAmbiguous::Resend => retry(case, chance),
            OnAmbiguous::Hold => Verdict::Hold,
        },
    }
}

fn retry(case: Case<'_>, chance: f64) -> Verdict {
    if case.attempt >= case.max_attempts {
        Verdict::Fail(Reason::RetriesExhausted)
    } else {
        Verdict::Retry { delay: case.retry.delay(case.attempt, chance) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn decide(meaning: Meaning, attempt: u32, on_ambiguous: OnAmbiguous) -> Verdict {
        let retry = RetryPolicy::default();
        verdict(meaning, Case { attempt, max_attempts: 4, on_ambiguous, retry: &retry }, 0.5)
    }

    #[test]
    fn each_meaning_has_its_verdict() {
        use OnAmbiguous::{Hold, Resend};
        let minute = Duration::from_mins(1);
        let wait = Duration::from_secs(9);
        for (meaning, attempt, policy, expected) in [
            (Meaning::Deferred, 1, Resend, Verdict::Retry { delay: minute }),
            (Meaning::Deferred, 3, Hold, Verdict::Retry { delay: 4 * minute }),
            (Meaning::Deferred, 4, Resend, Verdict::Fail(Reason::RetriesExhausted)),
            (Meaning::Reconnect, 1, Resend, Verdict::Retry { delay: minute }),
            (Meaning::Rejected, 1, Resend, Verdict::Fail(Reason::Permanent)),
            (Meaning::OurFault, 1, Resend, Verdict::Fail(Reason::Permanent)),
            (Meaning::Throttled { wait }, 4, Resend, Verdict::Release),
            (Meaning::RelayDown, 4, Resend, Verdict::Release),
            (Meaning::Ambiguous, 1, Resend, Verdict::Retry { delay: minute }),
            (Meaning::Ambiguous, 4, Resend, Verdict::Fail(Reason::RetriesExhausted)),
            (Meaning::Ambiguous, 1, Hold, Verdict::Hold),
        ] {
            assert_eq!(
                decide(meaning, attempt, policy),
                expected,
                "{meaning:?} at attempt {attempt} with {policy}"
            );
        }
    }
}

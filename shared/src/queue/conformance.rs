//! The conformance suite: what every backend of the queue must do, one case for each promise.
//!
//! A backend implements [`Harness`] and stamps the suite into its tests, where each case becomes a test of its own
//! on a fresh store:
//!
//! ```ignore
//! shared::queue::conformance::suite!(MyHarness::start());
//! ```
//!
//! A case speaks in [`Harness::unit`]s of time, so that it runs on a paused clock as well as on a server's. It calls
//! [`Consumer::maintain`](super::Consumer::maintain) itself, as a worker's loop does; a backend may do that work earlier.
//! What the contract leaves open (the order within a priority, the wording of a timeline's details) no case asks for.

#![expect(clippy::panic, clippy::missing_panics_doc, reason = "a case fails by a panic, as any test does")]

pub mod claims;
pub mod intake;

mod bench;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Limits, Queue};
use crate::clock::Timestamp;

pub use crate::conformance_suite as suite;

/// What a backend gives to the suite.
#[async_trait]
pub trait Harness: Send + Sync {
    /// `handles` queues, as of so many processes, on one store that is fresh and empty.
    async fn open(&self, limits: Limits, handles: usize) -> Vec<Arc<dyn Queue>>;

    /// Lets time pass, for the queue's clock.
    async fn pass(&self, time: Duration);

    /// The present, by the queue's clock.
    fn now(&self) -> Timestamp;

    /// The time that delays, leases and tolerances of the cases are multiples of: long beside what one step of the
    /// backend takes. A minute where [`Harness::pass`] costs nothing, 100–200 ms where it sleeps.
    fn unit(&self) -> Duration;

    /// How long after the last step the ledger balances. Zero: at every moment, since each step is atomic.
    fn ledger_settles_in(&self) -> Duration {
        Duration::ZERO
    }
}

/// Stamps the suite: one `#[tokio::test]` per case. The expression gives a future of a [`Harness`], anew in each test.
#[macro_export]
macro_rules! conformance_suite {
    ($harness:expr) => {
        $crate::conformance_suite! { @stamp $harness;
            intake {
                accepted_batch_is_queued_whole
                batch_that_does_not_fit_is_refused_whole
                batch_larger_than_the_queue_is_refused_as_such
                schedule_has_a_limit_of_its_own
                every_state_but_scheduled_and_ended_takes_a_place
                due_job_moves_over_into_a_full_queue
                time_that_is_not_in_the_future_is_as_none
                repeated_enqueue_of_a_batch_changes_nothing
                same_key_and_body_answers_the_first_again
                same_key_with_another_body_is_refused
                key_is_forgotten_after_its_time
                key_of_a_scheduled_batch_is_kept_from_its_time
                refused_batch_leaves_no_key
                replay_is_answered_by_a_full_queue
                concurrent_batches_never_pass_the_limit
                concurrent_requests_with_one_key_make_one_batch
            }
            claims {
                each_job_is_handed_out_once
                delivery_carries_all_that_sending_needs
                claim_takes_no_more_than_asked
                high_job_comes_out_past_fifty_thousand_due_bulk_jobs
                high_job_overtakes_a_backlog
                bulk_never_starves
                nothing_is_handed_out_while_paused
                lost_claim_answer_is_found_again
            }
        }
    };
    (@stamp $harness:expr; $($module:ident { $($case:ident)* })*) => {$($(
        #[tokio::test]
        async fn $case() {
            let harness = $harness.await;
            $crate::queue::conformance::$module::$case(&harness).await;
        }
    )*)*};
}

#[cfg(test)]
mod tests {
    /// A case that is written and not stamped would never run.
    #[test]
    fn every_case_is_stamped() {
        let stamped = include_str!("conformance.rs");
        for module in [include_str!("conformance/claims.rs"), include_str!("conformance/intake.rs")] {
            for line in module.lines().filter_map(|l| l.strip_prefix("pub async fn ")) {
                let name = line.split('(').next().unwrap();
                assert!(stamped.lines().any(|l| l.trim() == name), "{name} is not stamped");
            }
        }
    }
}

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
pub mod control;
pub mod intake;
pub mod leases;
pub mod outbox;
pub mod relays;
pub mod settling;
pub mod time;
pub mod waiting;
pub mod walk;

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

    /// The seed of the first walk.
    fn seed(&self) -> u64 {
        1
    }

    /// How many random walks are gone, each with a seed of its own.
    fn walks(&self) -> u64 {
        5
    }

    /// How many steps each has.
    fn walk_steps(&self) -> usize {
        3_000
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
            waiting {
                ready_returns_at_once_when_a_job_is_there
                ready_returns_after_the_time_given
                ready_wakes_for_a_new_job
                ready_wakes_for_a_due_job
                ready_wakes_on_release_and_requeue
                ready_wakes_on_resume
                every_waiting_consumer_finds_its_job
                no_wake_up_is_lost
            }
            settling {
                sent_job_is_final
                retry_waits_at_least_its_delay
                released_job_is_ready_at_once_and_costs_nothing
                failed_job_tells_its_reason
                message_that_cannot_be_built_costs_no_attempt
                suppressed_job_is_final
                held_job_waits_for_a_person
                exact_replay_of_a_settlement_changes_nothing
                replay_of_an_earlier_end_does_not_end_the_next_attempt
                unknown_job_is_lost
                answers_come_in_order
                zombie_can_do_nothing_but_succeed
                late_success_is_taken_wherever_the_job_is
                late_success_leaves_a_cancelled_job_cancelled
            }
            leases {
                renewed_lease_is_not_reclaimed
                lapsed_lease_is_reclaimed_without_costing_an_attempt
                job_is_reclaimed_by_one_consumer_only
                reclaim_takes_no_more_than_asked
                mark_is_seen_by_the_next_holder
                mark_ends_with_the_delivery
                repeated_mark_changes_nothing
                mark_and_extend_name_what_is_not_held
                fifth_reclaim_is_poison
                fifth_reclaim_of_a_marked_hold_job_holds_it
                outcome_resets_the_reclaims
                nothing_is_reclaimed_into_hands_while_paused
                workers_are_those_heard_of_within_a_lease
                consumer_that_leaves_keeps_what_it_holds
            }
            time {
                scheduled_job_is_not_handed_out_before_its_time
                scheduled_job_can_be_moved
                scheduled_job_can_be_moved_to_now
                move_to_now_needs_a_place
                only_a_scheduled_job_can_be_moved
                old_job_expires
                job_in_hand_does_not_expire
                retrying_job_expires
                scheduled_job_expires_from_its_time
                paused_time_does_not_count_for_expiry
                ended_records_are_removed_by_time
                ended_records_are_removed_by_number
                maintenance_tells_when_the_next_job_is_due
            }
            control {
                only_waiting_jobs_can_be_cancelled
                cancelled_job_is_never_handed_out
                cancel_and_claim_never_both_win
                batch_can_be_cancelled
                only_failed_and_held_jobs_can_be_requeued
                requeued_job_starts_anew
                requeue_needs_a_place_unless_it_is_held
                unknown_ids_are_unknown
                listing_goes_from_the_newest_to_the_oldest
                listing_filters
                listing_looks_at_a_bounded_number
                batch_counts_its_jobs_by_status
                timeline_keeps_the_newest
                stats_tell_what_is_ready_and_how_old
                pause_is_seen_by_all
                ledger_balances_at_every_moment
                durability_is_told
            }
            relays {
                paused_relay_is_seen_by_all
                relay_that_is_down_stays_so_until_resumed
                throttled_relay_is_not_taken_for_down
                one_consumer_probes
                probe_of_a_dead_consumer_is_taken_over
            }
            outbox {
                kept_messages_come_newest_first
                second_message_of_a_job_takes_the_place_of_the_first
                outbox_keeps_a_bounded_number
                outbox_keeps_a_bounded_size
            }
            walk {
                random_walk_keeps_every_promise
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
        for module in [
            include_str!("conformance/claims.rs"),
            include_str!("conformance/control.rs"),
            include_str!("conformance/intake.rs"),
            include_str!("conformance/leases.rs"),
            include_str!("conformance/outbox.rs"),
            include_str!("conformance/relays.rs"),
            include_str!("conformance/settling.rs"),
            include_str!("conformance/time.rs"),
            include_str!("conformance/waiting.rs"),
            include_str!("conformance/walk.rs"),
        ] {
            for line in module.lines().filter_map(|l| l.strip_prefix("pub async fn ")) {
                let name = line.split('(').next().unwrap();
                assert!(stamped.lines().any(|l| l.trim() == name), "{name} is not stamped");
            }
        }
    }
}

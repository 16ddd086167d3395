//! Who gets the next job, and which: a session with an open connection before one without, the last used first; the
//! more urgent job before the others that wait here.
//!
//! So a modest load keeps one connection warm and opens no more, and a job waits here only while every session is
//! busy: a session that looks ahead takes nothing that an idle one could send now.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::job::Priority;
use shared::queue::ByPriority;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Hands items to whoever waits for them.
pub(crate) struct Dispatch<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    waiting: ByPriority<VecDeque<T>>,
    /// Sessions that wait, by how willingly an item is given to them.
    sessions: [Vec<Waiter<T>>; 3],
    /// Tells waiters apart.
    last: u64,
    closed: bool,
}

impl<T> State<T> {
    fn pop(&mut self) -> Option<T> {
        let ByPriority { high, normal, bulk } = &mut self.waiting;
        high.pop_front().or_else(|| normal.pop_front()).or_else(|| bulk.pop_front())
    }
}

struct Waiter<T> {
    number: u64,
    sender: oneshot::Sender<T>,
}

/// Who waits, in the order in which they are served; of each kind the last that came first.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// With an open connection.
    Warm,
    /// Without one.
    Cold,
    /// With one that is busy: what it takes goes behind another message.
    Ahead,
}

/// What waiting brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// An item.
    Item(T),
    /// Nothing came in time.
    Idle,
    /// Nothing will come.
    Closed,
}

impl<T> Dispatch<T> {
    pub(crate) fn new() -> Self {
        let sessions = [Vec::new(), Vec::new(), Vec::new()];
        Self { state: Mutex::new(State { waiting: ByPriority::default(), sessions, last: 0, closed: false }) }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an item to a waiting session, or keeps it for the next that asks.
    pub(crate) fn send(&self, priority: Priority, mut item: T) {
        let mut state = self.state();
        while let Some(session) = state.sessions.iter_mut().find_map(Vec::pop) {
            // One that has stopped waiting hands the item back.
            match session.sender.send(item) {
                Ok(()) => return,
                Err(back) => item = back,
            }
        }
        state.waiting.of_mut(priority).push_back(item);
    }

    /// How many items wait for a session.
    pub(crate) fn waiting(&self) -> usize {
        let ByPriority { high, normal, bulk } = &self.state().waiting;
        high.len() + normal.len() + bulk.len()
    }

    /// An item that waits.
    pub(crate) fn try_next(&self) -> Option<T> {
        self.state().pop()
    }

    /// The next item. `until` says until when the caller keeps its open connection; none: it has none.
    pub(crate) async fn next(&self, until: Option<Instant>) -> Next<T> {
        self.wait(if until.is_some() { Kind::Warm } else { Kind::Cold }, until).await
    }

    /// An item that no idle session could send now, if one comes in time.
    pub(crate) async fn next_ahead(&self, at_most: Duration) -> Next<T> {
        self.wait(Kind::Ahead, Some(Instant::now() + at_most)).await
    }

    async fn wait(&self, kind: Kind, until: Option<Instant>) -> Next<T> {
        let (number, mut receiver) = {
            let mut state = self.state();
            if let Some(item) = state.pop() {
                return Next::Item(item);
            }
            if state.closed {
                return Next::Closed;
            }
            let (sender, receiver) = oneshot::channel();
            state.last += 1;
            let number = state.last;
            state.sessions[kind as usize].push(Waiter { number, sender });
            (number, receiver)
        };
        tokio::select! {
            item = &mut receiver => return item.map_or(Next::Closed, Next::Item),
            () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
        }
        receiver.close();
        self.state().sessions[kind as usize].retain(|waiter| waiter.number != number);
        // It may have come just now.
        receiver.try_recv().map_or(Next::Idle, Next::Item)
    }

    /// Nothing more will come; what waits is still handed out.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.sessions.iter_mut().for_each(Vec::clear);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    async fn settled() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn warm_session_is_served_before_a_cold_one_and_the_last_used_first() {
        let dispatch = Arc::new(Dispatch::new());
        let until = Instant::now() + Duration::from_mins(1);
        let mut sessions = Vec::new();
        for until in [None, Some(until), Some(until)] {
            let dispatch = Arc::clone(&dispatch);
            sessions.push(tokio::spawn(async move { dispatch.next(until).await }));
            settled().await;
        }
        dispatch.send(Priority::Normal, 1);
        dispatch.send(Priority::Normal, 2);
        dispatch.send(Priority::Normal, 3);
        dispatch.send(Priority::Normal, 4);
        let got: Vec<_> = futures::future::join_all(sessions).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(got, [Next::Item(3), Next::Item(2), Next::Item(1)]);
        assert_eq!((dispatch.waiting(), dispatch.try_next()), (1, Some(4)));
    }

    #[tokio::test]
    async fn more_urgent_items_come_first_and_others_in_their_order() {
        let dispatch = Dispatch::new();
        let items = [(Priority::Bulk, 1), (Priority::Normal, 2), (Priority::High, 3), (Priority::Normal, 4)];
        for (priority, item) in items {
            dispatch.send(priority, item);
        }
        assert_eq!(dispatch.waiting(), 4);
        assert_eq!(dispatch.next(None).await, Next::Item(3));
        assert_eq!(
            [dispatch.try_next(), dispatch.try_next(), dispatch.try_next()],
            [Some(2), Some(4), Some(1)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn session_that_looks_ahead_is_served_last_and_leaves_nothing_behind() {
        let dispatch = Arc::new(Dispatch::new());
        let (idle, ahead) = (Arc::clone(&dispatch), Arc::clone(&dispatch));
        let cold = tokio::spawn(async move { idle.next(None).await });
        let ahead = tokio::spawn(async move { ahead.next_ahead(Duration::from_millis(5)).await });
        settled().await;
        dispatch.send(Priority::Normal, 1);
        assert_eq!(cold.await.unwrap(), Next::Item(1));
        assert_eq!(ahead.await.unwrap(), Next::Idle);
        assert!(dispatch.state().sessions.iter().all(Vec::is_empty));
    }

    #[tokio::test(start_paused = true)]
    async fn session_that_stopped_waiting_gets_nothing_and_nothing_is_lost() {
        let dispatch = Dispatch::new();
        let until = Instant::now() + Duration::from_secs(1);
        assert_eq!(dispatch.next(Some(until)).await, Next::Idle);
        dispatch.send(Priority::Normal, 1);
        assert_eq!(dispatch.next(None).await, Next::Item(1));
    }

    #[tokio::test(start_paused = true)]
    async fn closing_ends_the_waiting_after_what_waits() {
        let dispatch = Arc::new(Dispatch::new());
        let other = Arc::clone(&dispatch);
        let session = tokio::spawn(async move { other.next(None).await });
        settled().await;
        dispatch.close();
        assert_eq!(session.await.unwrap(), Next::Closed);
        dispatch.send(Priority::Normal, 1);
        assert_eq!((dispatch.next(None).await, dispatch.next(None).await), (Next::Item(1), Next::Closed));
    }
}

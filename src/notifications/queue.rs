//! What waits for one endpoint.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::metrics::EndpointMetrics;

/// What waits at most: a day of a busy household, or some minutes of a busy company.
const MAX_EVENTS: usize = 10_000;
const MAX_BYTES: usize = 16 << 20;

/// Envelopes in the order of their events. When it is full, the oldest goes.
pub(super) struct Queue {
    endpoint: String,
    metrics: EndpointMetrics,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    events: VecDeque<Bytes>,
    bytes: usize,
    /// Taken out and not delivered yet.
    in_hand: usize,
    closed: bool,
    /// Events were dropped since the last one was delivered: said once.
    overflowing: bool,
}

impl Queue {
    pub(super) fn new(endpoint: &str, metrics: EndpointMetrics) -> Self {
        Queue {
            endpoint: endpoint.to_owned(),
            metrics,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits. Nothing is taken any more once the queue is closed.
    pub(super) fn push(&self, event: Bytes) {
        let mut state = self.state();
        if state.closed {
            self.metrics.dropped(1);
            return;
        }
        let mut dropped = 0;
        while state.events.len() >= MAX_EVENTS || state.bytes + event.len() > MAX_BYTES {
            let Some(oldest) = state.events.pop_front() else {
                break;
            };
            state.bytes -= oldest.len();
            dropped += 1;
        }
        state.bytes += event.len();
        state.events.push_back(event);
        self.metrics.queued();
        self.metrics.dropped(dropped);
        self.metrics.pending(state.pending());
        let say_so = dropped > 0 && !state.overflowing;
        state.overflowing |= say_so;
        drop(state);
        self.changed.notify_one();
        if say_so {
            log::warn!(
                "notifications: the queue of {} is full: its oldest events are dropped until it answers",
                self.endpoint
            );
        }
    }

    /// The oldest; none when the queue is closed and empty. To be followed by `delivered`.
    pub(super) async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut state = self.state();
                if let Some(event) = state.events.pop_front() {
                    state.bytes -= event.len();
                    state.in_hand = 1;
                    return Some(event);
                }
                if state.closed {
                    return None;
                }
            }
            // A change since then is remembered.
            self.changed.notified().await;
        }
    }

    pub(super) fn delivered(&self) {
        let mut state = self.state();
        state.in_hand = 0;
        state.overflowing = false;
        self.metrics.pending(state.pending());
    }

    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    pub(super) fn pending(&self) -> usize {
        self.state().pending()
    }
}

impl State {
    fn pending(&self) -> usize {
        self.events.len() + self.in_hand
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn queue() -> (Metrics, Queue) {
        let metrics = Metrics::new("1");
        let queue = Queue::new("hook", metrics.endpoint("hook"));
        (metrics, queue)
    }

    fn dropped(metrics: &Metrics) -> String {
        let text = metrics.encode(|| None);
        let series = "registry_notifications_events_total{type=\"Dropped\",to=\"hook\"} ";
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    #[tokio::test]
    async fn the_oldest_goes_when_there_are_too_many() {
        let (metrics, queue) = queue();
        for n in 0..MAX_EVENTS + 5 {
            queue.push(Bytes::from(n.to_string()));
        }
        assert_eq!(queue.pending(), MAX_EVENTS);
        assert_eq!(dropped(&metrics), "5");
        assert_eq!(queue.next().await.unwrap(), "5");
        assert_eq!(queue.pending(), MAX_EVENTS, "one is in hand");
        queue.delivered();
        assert_eq!(queue.pending(), MAX_EVENTS - 1);
    }

    #[tokio::test]
    async fn large_events_are_bounded_by_their_bytes() {
        let (metrics, queue) = queue();
        let large = Bytes::from(vec![b' '; MAX_BYTES / 4]);
        for _ in 0..6 {
            queue.push(large.clone());
        }
        assert_eq!(queue.pending(), 4);
        assert_eq!(dropped(&metrics), "2");
        // One that no queue could hold is the only one.
        queue.push(Bytes::from(vec![b' '; MAX_BYTES + 1]));
        assert_eq!(queue.pending(), 1);
    }

    #[tokio::test]
    async fn a_closed_queue_gives_what_it_has_and_takes_nothing() {
        let (metrics, queue) = queue();
        queue.push(Bytes::from_static(b"1"));
        queue.close();
        queue.push(Bytes::from_static(b"2"));
        assert_eq!(queue.next().await.unwrap(), "1");
        queue.delivered();
        assert_eq!(queue.next().await, None);
        assert_eq!(dropped(&metrics), "1");
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let (_metrics, queue) = queue();
        let (event, ()) = tokio::join!(queue.next(), async {
            tokio::task::yield_now().await;
            queue.push(Bytes::from_static(b"1"));
        });
        assert_eq!(event.unwrap(), "1");
        let (event, ()) = tokio::join!(queue.next(), async {
            tokio::task::yield_now().await;
            queue.close();
        });
        assert_eq!(event, None);
    }
}

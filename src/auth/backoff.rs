//! Who guesses passwords has to wait: longer after each failure, and only them.
//!
//! What is counted is a user's name together with the address it came from (IPv6: the network, which is one customer's).
//! So nobody is locked out by what others do from elsewhere, and a whole network behind one address is not locked out by
//! one of its machines. What an address can have hashed at the same time is bounded as well, which slows down whoever
//! tries one password on many names; others behind that address wait in the same short line.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

/// Failures that cost nothing: people mistype.
const FREE: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// After this long without a failure all is forgotten.
const FORGET: Duration = Duration::from_secs(900);
/// Pairs that are counted, at some 150 bytes each.
const COUNTED: usize = 16_384;
/// Passwords that one address may have waiting to be hashed: docker and its kind send four requests or so at once.
const IN_LINE: usize = 8;
/// And all addresses together.
const IN_ALL: usize = 128;

#[derive(Debug)]
pub(super) struct Backoff {
    failures: Mutex<LruCache<(Source, Box<str>), Failures>>,
    line: Arc<Mutex<HashMap<Source, usize>>>,
}

/// An address as it is counted: of IPv6 the network of 64 bits, which is one customer's. None is a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Source(Option<IpAddr>);

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

/// A place in the line, given back when dropped.
#[derive(Debug)]
pub(super) struct InLine {
    line: Arc<Mutex<HashMap<Source, usize>>>,
    source: Source,
}

impl From<Option<IpAddr>> for Source {
    fn from(address: Option<IpAddr>) -> Self {
        Source(address.map(|address| match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
            v4 => v4,
        }))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("unix"),
            Some(IpAddr::V6(network)) => write!(f, "{network}/64"),
            Some(address) => write!(f, "{address}"),
        }
    }
}

impl Backoff {
    pub(super) fn new() -> Self {
        let capacity = NonZeroUsize::new(COUNTED).unwrap_or(NonZeroUsize::MIN);
        Backoff {
            failures: Mutex::new(LruCache::new(capacity)),
            line: Arc::default(),
        }
    }

    /// How long this name has still to wait there, if it has to.
    pub(super) fn wait(&self, source: Source, name: &str, now: Instant) -> Option<Duration> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = *failures.get(&(source, name.into()))?;
        let end = failed.last + failed.delay()?;
        (end > now).then(|| end - now)
    }

    pub(super) fn failed(&self, source: Source, name: &str, now: Instant) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = failures.get_or_insert_mut((source, name.into()), || Failures {
            count: 0,
            last: now,
        });
        if now.saturating_duration_since(failed.last) > FORGET {
            failed.count = 0;
        }
        failed.count += 1;
        failed.last = now;
    }

    pub(super) fn succeeded(&self, source: Source, name: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.pop(&(source, name.into()));
    }

    /// A place in the line for the hash; none when it is too long already.
    pub(super) fn line_up(&self, source: Source) -> Option<InLine> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.values().sum::<usize>() >= IN_ALL {
            return None;
        }
        let here = line.entry(source).or_insert(0);
        if *here >= IN_LINE {
            return None;
        }
        *here += 1;
        Some(InLine {
            line: self.line.clone(),
            source,
        })
    }
}

impl Failures {
    fn delay(self) -> Option<Duration> {
        let doublings = self.count.checked_sub(FREE)?.min(16);
        Some((FIRST_WAIT * (1 << doublings)).min(LONGEST_WAIT))
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = line.get_mut(&self.source) {
            *here -= 1;
            if *here == 0 {
                line.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Some(text.parse().unwrap()).into()
    }

    #[test]
    fn only_the_name_at_the_address_waits() {
        let (backoff, now) = (Backoff::new(), Instant::now());
        let lan = source("192.168.1.5");
        for n in 0..FREE {
            assert_eq!(backoff.wait(lan, "alice", now), None, "failure {n}");
            backoff.failed(lan, "alice", now);
        }
        assert_eq!(backoff.wait(lan, "alice", now), Some(FIRST_WAIT));
        assert_eq!(backoff.wait(lan, "bob", now), None);
        assert_eq!(backoff.wait(source("192.168.1.6"), "alice", now), None);
        assert_eq!(backoff.wait(lan, "alice", now + FIRST_WAIT), None);
        for _ in 0..100 {
            backoff.failed(lan, "alice", now);
        }
        assert_eq!(backoff.wait(lan, "alice", now), Some(LONGEST_WAIT));
        backoff.failed(lan, "alice", now + FORGET + LONGEST_WAIT);
        assert_eq!(
            backoff.wait(lan, "alice", now + FORGET + LONGEST_WAIT),
            None
        );
        backoff.succeeded(lan, "alice");
        assert_eq!(backoff.wait(lan, "alice", now), None);
    }

    #[test]
    fn a_customers_network_is_one_address() {
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
    }

    #[test]
    fn the_line_is_short_and_fair() {
        let backoff = Backoff::new();
        let mut mine: Vec<_> = (0..IN_LINE)
            .map(|_| backoff.line_up(source("10.0.0.1")))
            .collect();
        assert!(mine.iter().all(Option::is_some));
        assert!(backoff.line_up(source("10.0.0.1")).is_none());
        assert!(backoff.line_up(source("10.0.0.2")).is_some());
        mine.pop();
        assert!(backoff.line_up(source("10.0.0.1")).is_some());
        drop(mine);
        let held: Vec<_> = (0..IN_ALL as u32)
            .map(|n| backoff.line_up(Some(IpAddr::from(n.to_be_bytes())).into()))
            .collect();
        assert!(held.iter().all(Option::is_some));
        assert!(backoff.line_up(source("10.0.0.1")).is_none());
        drop(held);
        assert!(backoff.line.lock().unwrap().is_empty());
    }

    #[test]
    fn what_is_counted_is_bounded() {
        let (backoff, now) = (Backoff::new(), Instant::now());
        for n in 0..COUNTED + 100 {
            backoff.failed(source("10.0.0.1"), &n.to_string(), now);
        }
        assert_eq!(backoff.failures.lock().unwrap().len(), COUNTED);
    }
}

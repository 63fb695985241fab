//! How many connections there are, and who has them: a seat each.
//!
//! Every connection is taken from the kernel at once, and judged before a byte of it is read. While there is room it gets a
//! seat, as long as its address has fewer than its share. Otherwise it may take the seat of another one, in this order:
//!
//! 1. at its address's limit, the one that has waited longest for a request *there*: who opens many connections and does
//!    nothing with them only displaces their own, and those who share the address with them still get in;
//! 2. with all seats taken, one that waits for a request, of the address that has most;
//! 3. with a request on all of them, the one that moved least recently, of the address that has most.
//!
//! In 2 and 3 nobody displaces an address that has less than they have themselves. So the seats end up in equal shares
//! among the addresses that want them, however many connections come.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::auth::{Hop, Network, Source};
use crate::metrics::{Metrics, TurnedAway};

use super::settings::Limits;

/// How often it is said that connections are turned away.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The seats of an address that is served.
#[derive(Clone)]
pub(super) struct Seats(Arc<Inner>);

struct Inner {
    limits: Shares,
    trusted: Vec<Network>,
    metrics: Metrics,
    /// What times are counted from.
    start: Instant,
    taken: Mutex<Taken>,
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    all: usize,
    /// From one address; of IPv6 from one network of 64 bits, which is one customer's.
    address: usize,
    /// From this machine, or from a proxy that is trusted: they speak for others, and yet not for all.
    spokesman: usize,
}

#[derive(Default)]
struct Taken {
    by: HashMap<Source, Vec<Arc<Sitter>>>,
    count: usize,
    said: Option<Instant>,
    /// Since it was said.
    unsaid: u64,
}

/// A connection that has a seat, and gives it back when dropped.
pub(super) struct Seat {
    seats: Seats,
    source: Source,
    sitter: Arc<Sitter>,
}

/// What others see of a connection.
pub(super) struct Sitter {
    doing: AtomicU8,
    start: Instant,
    /// Since when it does that, in milliseconds after `start`.
    since: AtomicU64,
    /// When a byte last went through, in the same way.
    moved: AtomicU64,
    gone: Notify,
}

/// Waits for its first request; there may never be one.
const NEW: u8 = 0;
/// Had one, and waits for the next.
const IDLE: u8 = 1;
/// A request is served.
const BUSY: u8 = 2;

impl Shares {
    fn of(limits: &Limits) -> Self {
        let all = limits.max_connections.max(1);
        let quarter = (all / 4).max(1);
        let address = limits.max_connections_per_address.unwrap_or(quarter);
        let address = address.clamp(1, all);
        Shares {
            all,
            address,
            spokesman: address.max(all - quarter).max(1),
        }
    }
}

impl Seats {
    /// `trusted` are `http.trustedproxies`.
    pub(super) fn new(limits: &Limits, trusted: Vec<Network>, metrics: Metrics) -> Self {
        Seats(Arc::new(Inner {
            limits: Shares::of(limits),
            trusted,
            metrics,
            start: Instant::now(),
            taken: Mutex::default(),
        }))
    }

    /// A seat for a connection from `client` (none: a Unix socket), `own`: it sits on this machine. None when there is none
    /// to have.
    pub(super) fn take(&self, client: Option<SocketAddr>, own: bool) -> Option<Seat> {
        let address = client.map(|client| client.ip().to_canonical());
        let source = Source::from(address);
        let limit = self.limit(address, own);
        let mut taken = self.taken();
        let here = taken.by.get(&source).map_or(0, Vec::len);
        let full = taken.count >= self.0.limits.all;
        if here >= limit || full {
            let found = if here >= limit {
                taken.waiting_at(&source)
            } else {
                taken.waiting(here).or_else(|| taken.serving(here))
            };
            let why = match (&found, full) {
                (Some(_), _) => TurnedAway::Replaced,
                (None, true) => TurnedAway::Full,
                (None, false) => TurnedAway::Share,
            };
            self.say(&mut taken, why);
            let (of, sitter) = found?;
            taken.remove(&of, &sitter);
            sitter.gone.notify_one();
        }
        let sitter = Arc::new(Sitter::new(self.0.start));
        taken.by.entry(source).or_default().push(sitter.clone());
        taken.count += 1;
        self.0.metrics.connections_open(taken.count);
        Some(Seat {
            seats: self.clone(),
            source,
            sitter,
        })
    }

    fn limit(&self, address: Option<IpAddr>, own: bool) -> usize {
        let hop = match (address, own) {
            (address, true) => Hop::Own(address),
            (Some(address), false) => Hop::Address(address),
            (None, false) => Hop::Unknown,
        };
        let is_trusted = || self.0.trusted.iter().any(|network| network.contains(&hop));
        if own || is_trusted() {
            self.0.limits.spokesman
        } else {
            self.0.limits.address
        }
    }

    fn say(&self, taken: &mut Taken, why: TurnedAway) {
        self.0.metrics.connection_turned_away(why);
        taken.unsaid += 1;
        if taken.said.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            return;
        }
        let most = taken.by.iter().max_by_key(|(_, sitters)| sitters.len());
        if let Some((source, sitters)) = most {
            log::warn!(
                "{} connections of {} (http.maxconnections) are open, {} of them from {source}: {} turned away since this \
                 was last said",
                taken.count,
                self.0.limits.all,
                sitters.len(),
                taken.unsaid
            );
        }
        taken.said = Some(Instant::now());
        taken.unsaid = 0;
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// The one that has waited longest for a request at `source`; one that had none yet goes first.
    fn waiting_at(&self, source: &Source) -> Option<(Source, Arc<Sitter>)> {
        let waiting = self.by.get(source)?.iter().filter(|one| one.is_waiting());
        let longest = waiting.min_by_key(|one| one.doing_since())?;
        Some((*source, longest.clone()))
    }

    /// The same at the address that has most connections, and more than `here`.
    fn waiting(&self, here: usize) -> Option<(Source, Arc<Sitter>)> {
        let of_many = self.by.iter().filter(|(_, all)| all.len() > here);
        let waiting = of_many.flat_map(|(source, all)| {
            let waiting = all.iter().filter(|one| one.is_waiting());
            waiting.map(move |one| (Reverse(all.len()), one.doing_since(), source, one))
        });
        let (.., source, one) = waiting.min_by_key(|(count, since, ..)| (*count, *since))?;
        Some((*source, one.clone()))
    }

    /// The one that moved least recently, of the address that has most connections, and will still have as many as `here`
    /// then has.
    fn serving(&self, here: usize) -> Option<(Source, Arc<Sitter>)> {
        let (source, sitters) = self.by.iter().max_by_key(|(_, all)| all.len())?;
        if sitters.len() <= here + 1 {
            return None;
        }
        let slowest = sitters
            .iter()
            .min_by_key(|one| one.moved.load(Ordering::Relaxed))?;
        Some((*source, slowest.clone()))
    }

    /// Does nothing when it is gone already.
    fn remove(&mut self, source: &Source, sitter: &Arc<Sitter>) {
        let Some(sitters) = self.by.get_mut(source) else {
            return;
        };
        if let Some(place) = sitters.iter().position(|one| Arc::ptr_eq(one, sitter)) {
            sitters.swap_remove(place);
            self.count -= 1;
        }
        if sitters.is_empty() {
            self.by.remove(source);
        }
    }
}

impl Seat {
    pub(super) fn sitter(&self) -> Arc<Sitter> {
        self.sitter.clone()
    }

    /// Ends when somebody else got the seat.
    pub(super) async fn lost(&self) {
        self.sitter.gone.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.remove(&self.source, &self.sitter);
        self.seats.0.metrics.connections_open(taken.count);
    }
}

impl Sitter {
    fn new(start: Instant) -> Self {
        let sitter = Sitter {
            doing: AtomicU8::new(NEW),
            start,
            since: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            gone: Notify::new(),
        };
        sitter.does(NEW);
        sitter.moved(Instant::now());
        sitter
    }

    pub(super) fn is_busy(&self) {
        self.does(BUSY);
    }

    pub(super) fn is_idle(&self) {
        self.does(IDLE);
    }

    /// A byte went through.
    pub(super) fn moved(&self, now: Instant) {
        let at = now.saturating_duration_since(self.start).as_millis() as u64;
        self.moved.store(at, Ordering::Relaxed);
    }

    fn does(&self, what: u8) {
        let since = self.start.elapsed().as_millis() as u64;
        self.since.store(since, Ordering::Relaxed);
        self.doing.store(what, Ordering::Relaxed);
    }

    fn is_waiting(&self) -> bool {
        self.doing.load(Ordering::Relaxed) != BUSY
    }

    fn doing_since(&self) -> (u8, u64) {
        let doing = self.doing.load(Ordering::Relaxed);
        (doing, self.since.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Sitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sitter({:?})", self.doing_since())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(all: usize, trusted: &[&str]) -> Seats {
        let limits = Limits {
            max_connections: all,
            ..Limits::default()
        };
        let trusted = trusted.iter().map(|text| text.parse().unwrap()).collect();
        Seats::new(&limits, trusted, Metrics::new("test"))
    }

    fn at(address: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(address.parse().unwrap(), 4000))
    }

    fn is_lost(seat: &Seat) -> bool {
        let taken = seat.seats.taken();
        let sitters = taken.by.get(&seat.source);
        !sitters.is_some_and(|all| all.iter().any(|one| Arc::ptr_eq(one, &seat.sitter)))
    }

    fn count(seats: &Seats) -> usize {
        seats.taken().count
    }

    #[test]
    fn an_address_has_a_share_and_displaces_its_own() {
        let seats = seats(16, &["10.0.0.9"]);
        let first = seats.take(at("10.0.0.1"), false).unwrap();
        first.sitter.is_busy();
        let mut rest: Vec<_> = (0..3)
            .map(|_| seats.take(at("10.0.0.1"), false).unwrap())
            .collect();
        rest[0].sitter.is_busy();
        rest[0].sitter.is_idle();
        // One that had a request is kept rather than one that had none.
        rest.push(seats.take(at("10.0.0.1"), false).unwrap());
        assert_eq!(
            rest.iter().map(is_lost).collect::<Vec<_>>(),
            [false, true, false, false]
        );
        assert!(!is_lost(&first));
        assert_eq!(count(&seats), 4);
        rest.iter().for_each(|seat| seat.sitter.is_busy());
        assert!(
            seats.take(at("10.0.0.1"), false).is_none(),
            "all of them are at work"
        );
        assert!(seats.take(at("10.0.0.2"), false).is_some());
        drop((first, rest));
        assert_eq!(count(&seats), 0);
        assert!(seats.taken().by.is_empty());
    }

    #[test]
    fn a_customers_network_is_one_address_and_who_speaks_for_others_has_more() {
        for (addresses, own, share) in [
            (["2001:db8::1", "2001:db8::ffff"], false, 4),
            (["2001:db8::1", "2001:db8:0:1::1"], false, 8),
            (["10.0.0.9", "::ffff:10.0.0.9"], false, 12),
            (["10.0.0.8", "::ffff:10.0.0.8"], false, 4),
            (["127.0.0.1", "127.0.0.1"], true, 12),
        ] {
            let seats = seats(16, &["10.0.0.9"]);
            let held: Vec<_> = (0..20)
                .filter_map(|n| {
                    let seat = seats.take(at(addresses[n % 2]), own)?;
                    seat.sitter.is_busy();
                    Some(seat)
                })
                .collect();
            assert_eq!(held.len(), share, "{addresses:?}");
        }
    }

    #[test]
    fn a_newcomer_takes_from_who_has_most() {
        let seats = seats(16, &[]);
        let many: Vec<Vec<Seat>> = (1..=4)
            .map(|n| {
                let from = format!("10.0.0.{n}");
                (0..4)
                    .map(|_| seats.take(at(&from), false).unwrap())
                    .collect()
            })
            .collect();
        many.iter().flatten().for_each(|seat| seat.sitter.is_busy());
        many[2][1].sitter.is_idle();
        let lost = || -> Vec<usize> {
            many.iter()
                .map(|seats| seats.iter().filter(|seat| is_lost(seat)).count())
                .collect()
        };
        let new: Vec<Seat> = (0..3)
            .map(|_| {
                let seat = seats.take(at("10.0.0.5"), false).unwrap();
                seat.sitter.is_busy();
                seat
            })
            .collect();
        assert!(is_lost(&many[2][1]), "it waited for a request");
        assert!(lost().iter().all(|lost| *lost <= 1), "{:?}", lost());
        assert_eq!((lost().iter().sum::<usize>(), count(&seats)), (3, 16));
        assert!(
            seats.take(at("10.0.0.5"), false).is_none(),
            "it has as many as the others now"
        );
        assert!(new.iter().all(|seat| !is_lost(seat)));
    }

    #[tokio::test]
    async fn who_is_displaced_is_told() {
        let seats = seats(1, &[]);
        let first = seats.take(at("10.0.0.1"), false).unwrap();
        let second = seats.take(at("10.0.0.1"), false).unwrap();
        first.lost().await;
        drop(first);
        assert_eq!(count(&seats), 1);
        assert!(!is_lost(&second));
    }

    proptest::proptest! {
        /// Whoever comes alone gets in, whatever the others hold.
        #[test]
        fn nobody_is_locked_out(crowd in proptest::collection::vec((0u8..20, 0u8..3), 0..200)) {
            let seats = seats(16, &[]);
            let mut held = Vec::new();
            for (from, doing) in crowd {
                if let Some(seat) = seats.take(at(&format!("10.0.1.{from}")), false) {
                    seat.sitter.does(doing);
                    held.push(seat);
                }
                proptest::prop_assert!(count(&seats) <= 16);
                let most = seats.taken().by.values().map(Vec::len).max();
                proptest::prop_assert!(most.unwrap_or(0) <= 4);
            }
            let crowded = seats.taken().by.values().all(|all| all.len() == 1);
            proptest::prop_assert!(crowded || seats.take(at("10.0.2.1"), false).is_some());
        }
    }
}

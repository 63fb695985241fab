//! Room in memory for the bodies that are received at once.
//!
//! An upload works with two batches, and a manifest is read whole. So a body waits until there is room for it, before its file
//! is opened and before it is read from the connection. Room goes to the address that has least of it, and there to the
//! connection that has least, so that who opens many requests waits behind those who do not. No address and no connection can
//! have all of it. While others wait, who has room and sends next to nothing loses it.

use std::collections::HashMap;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::auth::Source;

/// What room is counted in, in bytes.
const UNIT: u64 = 64 << 10;
/// All there is: 32 MiB, or 64 uploads.
const ALL: u32 = 512;
/// What an address can have, which may be a proxy's, and what a connection can have.
const OF_ADDRESS: u32 = ALL / 2;
const OF_CONNECTION: u32 = ALL / 4;
/// What an upload takes: two batches of 256 KiB.
pub(super) const UPLOAD: u64 = 512 << 10;

/// How often who waits looks for somebody who has room for nothing.
const LOOK: Duration = Duration::from_secs(1);
/// How long room is had before it can be lost.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes a second that are worth the room while others wait.
const WORTH: f64 = 16.0 * 1024.0;

/// The room of a server; clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Room(Arc<Mutex<Taken>>);

/// Whose body it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    address: Source,
    connection: u64,
}

impl Whose {
    /// `client` none: a Unix socket.
    pub(super) fn new(client: Option<SocketAddr>, connection: u64) -> Self {
        let address = client.map(|client| client.ip().to_canonical());
        Whose {
            address: Source::from(address),
            connection,
        }
    }
}

#[derive(Default)]
struct Taken {
    units: u32,
    addresses: HashMap<Source, u32>,
    connections: HashMap<u64, u32>,
    shares: HashMap<u64, Arc<Held>>,
    waiting: Vec<Waiting>,
    last: u64,
}

struct Waiting {
    whose: Whose,
    units: u32,
    grant: oneshot::Sender<Share>,
}

/// Room that somebody has, given back when dropped.
pub(super) struct Share {
    room: Room,
    id: u64,
    whose: Whose,
    units: u32,
    held: Arc<Held>,
}

struct Held {
    whose: Whose,
    units: u32,
    since: Instant,
    received: AtomicU64,
    is_lost: AtomicBool,
    lost: Notify,
}

impl Held {
    fn rate(&self, now: Instant) -> Option<f64> {
        let time = now.saturating_duration_since(self.since);
        if time < GRACE || self.is_lost.load(Ordering::Relaxed) {
            return None;
        }
        Some(self.received.load(Ordering::Relaxed) as f64 / time.as_secs_f64())
    }
}

impl Room {
    /// Waits for room for `bytes`. Ready at once while there is enough and nobody waits who would come first.
    pub(super) async fn take(&self, whose: Whose, bytes: u64) -> Share {
        let units = bytes.div_ceil(UNIT).clamp(1, u64::from(OF_CONNECTION)) as u32;
        let (grant, mut granted) = oneshot::channel();
        self.taken().waiting.push(Waiting {
            whose,
            units,
            grant,
        });
        self.serve();
        loop {
            match timeout(LOOK, &mut granted).await {
                Ok(Ok(share)) => return share,
                // The room is never gone before those who wait for it.
                Ok(Err(_)) => pending().await,
                Err(_) => {
                    self.taken().take_away(whose, units);
                    // Who left while waiting may have been in the way.
                    self.serve();
                }
            }
        }
    }

    /// Gives what there is to those who wait.
    fn serve(&self) {
        loop {
            let Some((waiting, id, held)) = self.taken().next() else {
                return;
            };
            let share = Share {
                room: self.clone(),
                id,
                whose: waiting.whose,
                units: waiting.units,
                held,
            };
            // Who does not wait any more gives it back.
            let _ = waiting.grant.send(share);
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn has(&self, whose: &Whose) -> (u32, u32) {
        (
            self.addresses.get(&whose.address).copied().unwrap_or(0),
            self.connections
                .get(&whose.connection)
                .copied()
                .unwrap_or(0),
        )
    }

    /// Who gets room now; counted as taken. Nobody overtakes who comes next and needs more than there is.
    fn next(&mut self) -> Option<(Waiting, u64, Arc<Held>)> {
        self.waiting.retain(|waiting| !waiting.grant.is_closed());
        let entitled = |waiting: &&Waiting| {
            let (address, connection) = self.has(&waiting.whose);
            address + waiting.units <= OF_ADDRESS && connection + waiting.units <= OF_CONNECTION
        };
        let at = |waiting: &Waiting| self.has(&waiting.whose);
        let (index, first) = self
            .waiting
            .iter()
            .enumerate()
            .filter(|(_, waiting)| entitled(waiting))
            .min_by_key(|(_, waiting)| at(waiting))?;
        if self.units + first.units > ALL {
            return None;
        }
        let waiting = self.waiting.remove(index);
        self.units += waiting.units;
        *self.addresses.entry(waiting.whose.address).or_default() += waiting.units;
        *self
            .connections
            .entry(waiting.whose.connection)
            .or_default() += waiting.units;
        let held = Arc::new(Held {
            whose: waiting.whose,
            units: waiting.units,
            since: Instant::now(),
            received: AtomicU64::new(0),
            is_lost: AtomicBool::new(false),
            lost: Notify::new(),
        });
        self.last += 1;
        self.shares.insert(self.last, held.clone());
        Some((waiting, self.last, held))
    }

    fn give_back(&mut self, id: u64, whose: &Whose, units: u32) {
        self.shares.remove(&id);
        self.units -= units;
        if let Some(has) = self.addresses.get_mut(&whose.address) {
            *has -= units;
            if *has == 0 {
                self.addresses.remove(&whose.address);
            }
        }
        if let Some(has) = self.connections.get_mut(&whose.connection) {
            *has -= units;
            if *has == 0 {
                self.connections.remove(&whose.connection);
            }
        }
    }

    /// Ends bodies that are not worth their room, the slowest first, until there will be so much of it for `whose`. Who has
    /// all that one connection or one address can have makes room among their own.
    fn take_away(&mut self, whose: Whose, units: u32) {
        let now = Instant::now();
        let (address, connection) = self.has(&whose);
        let is_of_connection = connection + units > OF_CONNECTION;
        let is_of_address = address + units > OF_ADDRESS;
        let is_in_the_way = |other: Whose| match (is_of_connection, is_of_address) {
            (true, _) => other.connection == whose.connection,
            (false, true) => other.address == whose.address,
            (false, false) => true,
        };
        let mut slow: Vec<(f64, &Held)> = self
            .shares
            .values()
            .filter(|held| is_in_the_way(held.whose))
            .filter_map(|held| Some((held.rate(now)?, &**held)))
            .filter(|(rate, _)| *rate < WORTH)
            .collect();
        slow.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let mut free = 0;
        for (_, held) in slow {
            if free >= units {
                break;
            }
            free += held.units;
            held.is_lost.store(true, Ordering::Relaxed);
            held.lost.notify_one();
        }
    }
}

impl Share {
    pub(super) fn received(&self, bytes: usize) {
        self.held
            .received
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Ends when others need the room more.
    pub(super) async fn lost(&self) {
        self.held.lost.notified().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room
            .taken()
            .give_back(self.id, &self.whose, self.units);
        self.room.serve();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(address: u8, connection: u64) -> Whose {
        Whose::new(Some(SocketAddr::from(([10, 0, 0, address], 1))), connection)
    }

    async fn taken_now(room: &Room, whose: Whose, bytes: u64) -> Option<Share> {
        tokio::select! {
            biased;
            share = room.take(whose, bytes) => Some(share),
            () = tokio::task::yield_now() => None,
        }
    }

    #[tokio::test]
    async fn no_connection_and_no_address_takes_all() {
        let room = Room::default();
        let mut shares = Vec::new();
        for (address, connection, most) in [
            (1, 1, 16),
            (1, 2, 16),
            (1, 3, 0),
            (2, 4, 16),
            (3, 5, 16),
            (4, 6, 0),
        ] {
            let mut count = 0;
            while let Some(share) = taken_now(&room, whose(address, connection), UPLOAD).await {
                shares.push(share);
                count += 1;
            }
            assert_eq!(count, most, "address {address}, connection {connection}");
        }
        drop(shares);
        let taken = room.taken();
        assert_eq!(taken.units, 0);
        assert!(
            taken.shares.is_empty() && taken.addresses.is_empty() && taken.connections.is_empty()
        );
    }

    #[tokio::test]
    async fn room_goes_to_the_address_that_has_least_whoever_came_first() {
        let room = Room::default();
        let mut shares = Vec::new();
        for connection in 0..4 {
            for _ in 0..16 {
                let address = 1 + connection as u8 / 2;
                shares.push(room.take(whose(address, connection), UPLOAD).await);
            }
        }
        let many = tokio::spawn({
            let room = room.clone();
            async move { room.take(whose(1, 7), UPLOAD).await }
        });
        tokio::task::yield_now().await;
        let few = tokio::spawn({
            let room = room.clone();
            async move { room.take(whose(9, 8), UPLOAD).await }
        });
        tokio::task::yield_now().await;
        drop(shares.pop());
        let share = few.await.unwrap();
        assert!(!many.is_finished());
        drop((share, shares));
        many.await.unwrap();
    }

    #[tokio::test]
    async fn a_large_body_is_not_overtaken_for_ever_and_none_is_too_large() {
        let room = Room::default();
        let mut shares = Vec::new();
        for connection in 0..32 {
            for _ in 0..2 {
                let address = connection as u8;
                shares.push(room.take(whose(address, connection), UPLOAD).await);
            }
        }
        let large = tokio::spawn({
            let room = room.clone();
            async move { room.take(whose(99, 99), u64::MAX).await }
        });
        tokio::task::yield_now().await;
        drop(shares.pop());
        assert!(taken_now(&room, whose(98, 98), 1).await.is_none());
        shares.truncate(48);
        assert_eq!(large.await.unwrap().units, OF_CONNECTION);
    }

    #[tokio::test]
    async fn who_left_while_waiting_takes_nothing() {
        let room = Room::default();
        let mut shares = Vec::new();
        for _ in 0..16 {
            shares.push(room.take(whose(1, 1), UPLOAD).await);
        }
        assert!(taken_now(&room, whose(1, 1), UPLOAD).await.is_none());
        drop(shares);
        let taken = room.taken();
        assert_eq!((taken.units, taken.waiting.len()), (0, 0));
    }
}

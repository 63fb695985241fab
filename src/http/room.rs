//! Room in memory for the bodies that are received at once.
//!
//! An upload works with two batches, and a manifest is read whole. So a body waits until there is room for it, before its file
//! is opened and before it is read from the connection. Room goes to the address that has least of it, and there to the
//! connection that has least, so that who opens many requests waits behind those who do not. No address can have all of it, and
//! some of it is for small bodies alone: a manifest comes last in a push, and should not have to wait for uploads. While others
//! wait, who has room and sends next to nothing loses it.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use crate::auth::Source;

use super::pace::Pace;

/// What room is counted in, in bytes.
const UNIT: u64 = 64 << 10;
/// All there is, and what an address can have, which may be a proxy's: 32 MiB, or 64 uploads, and 2 MiB for bodies of one unit.
const ALL: Limit = Limit {
    any: 512,
    small: 32,
};
const OF_ADDRESS: Limit = Limit {
    any: ALL.any / 2,
    small: ALL.small / 2,
};
/// The largest share: a manifest of 8 MiB. Larger ones, which `validation.manifests.maxsize` may allow, count as if they were
/// no larger.
const MOST: u64 = 128;
/// What an upload takes: two batches of 256 KiB.
pub(super) const UPLOAD: u64 = 512 << 10;

/// How many may wait. Then the last one goes of the address that has most of them.
const WAITING: usize = 1024;
/// How often those who wait look for somebody who has room for nothing.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes a second that are worth the room while others wait, and how long they may pause.
const WORTH: u64 = 16 << 10;
const PAUSE: Duration = Duration::from_secs(5);

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

struct Limit {
    any: u32,
    /// Beside `any`.
    small: u32,
}

impl Limit {
    fn of(&self, units: u32) -> u32 {
        if units == 1 {
            self.any + self.small
        } else {
            self.any
        }
    }
}

/// More wait than may.
#[derive(Debug)]
pub(super) struct Crowded;

#[derive(Default)]
struct Taken {
    units: u32,
    addresses: HashMap<Source, u32>,
    connections: HashMap<u64, u32>,
    shares: HashMap<u64, Arc<Held>>,
    waiting: Vec<Waiting>,
    last: u64,
    looked: Option<Instant>,
}

struct Waiting {
    whose: Whose,
    units: u32,
    grant: oneshot::Sender<Share>,
}

/// Room that somebody has, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    room: Room,
    id: u64,
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    whose: Whose,
    units: u32,
    client: Mutex<Client>,
    lost: Notify,
}

/// What the one who sends makes of the room.
#[derive(Debug)]
struct Client {
    pace: Pace,
    /// Since when this server waits for bytes.
    waits_since: Option<Instant>,
    is_lost: bool,
}

impl Held {
    /// For how long the client has not been worth the room.
    fn overdue(&self, now: Instant) -> Option<Duration> {
        let client = self.client();
        let waited = now.saturating_duration_since(client.waits_since?);
        waited
            .checked_sub(client.pace.patience())
            .filter(|_| !client.is_lost)
    }

    fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

impl Room {
    /// Waits for room for `bytes`. Ready at once while there is enough and nobody waits who would come first.
    ///
    /// # Errors
    /// [`Crowded`].
    pub(super) async fn take(&self, whose: Whose, bytes: u64) -> Result<Share, Crowded> {
        let units = bytes.div_ceil(UNIT).clamp(1, MOST) as u32;
        let (grant, mut granted) = oneshot::channel();
        let may_be_next = self.taken().wait(Waiting {
            whose,
            units,
            grant,
        });
        if may_be_next {
            self.serve();
        }
        loop {
            match timeout(LOOK, &mut granted).await {
                Ok(share) => return share.map_err(|_| Crowded),
                // Who left while waiting may have been in the way.
                Err(_) if self.taken().look(Instant::now()) => self.serve(),
                Err(_) => {}
            }
        }
    }

    /// Gives what there is to those who wait.
    fn serve(&self) {
        loop {
            let Some((grant, id, held)) = self.taken().next() else {
                return;
            };
            let share = Share {
                room: self.clone(),
                id,
                held,
            };
            // Who does not wait any more gives it back.
            let _ = grant.send(share);
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

    /// Whether there is room for the new one, if nobody comes first.
    fn wait(&mut self, new: Waiting) -> bool {
        let fits = self.is_entitled(&new.whose, new.units) && self.fits(new.units);
        self.waiting.retain(|waiting| !waiting.grant.is_closed());
        self.waiting.push(new);
        if self.waiting.len() <= WAITING {
            return fits;
        }
        let mut counts: HashMap<Source, usize> = HashMap::new();
        for waiting in &self.waiting {
            *counts.entry(waiting.whose.address).or_default() += 1;
        }
        let most = counts.values().copied().max();
        let last = self
            .waiting
            .iter()
            .rposition(|waiting| counts.get(&waiting.whose.address).copied() == most);
        if let Some(last) = last {
            self.waiting.remove(last);
        }
        fits
    }

    /// Whether the address may have so much more.
    fn is_entitled(&self, whose: &Whose, units: u32) -> bool {
        self.has(whose).0 + units <= OF_ADDRESS.of(units)
    }

    fn fits(&self, units: u32) -> bool {
        self.units + units <= ALL.of(units)
    }

    /// Who gets room now; counted as taken. Nobody overtakes who comes next and needs more than there is, but for those who
    /// have room of their own.
    fn next(&mut self) -> Option<(oneshot::Sender<Share>, u64, Arc<Held>)> {
        self.waiting.retain(|waiting| !waiting.grant.is_closed());
        let candidates = self
            .waiting
            .iter()
            .enumerate()
            .filter(|(_, waiting)| self.is_entitled(&waiting.whose, waiting.units));
        let by_share = |(_, waiting): &(usize, &Waiting)| (self.has(&waiting.whose), waiting.units);
        let (index, _) = candidates
            .clone()
            .min_by_key(by_share)
            .filter(|(_, first)| self.fits(first.units))
            .or_else(|| {
                candidates
                    .filter(|(_, waiting)| waiting.units == 1 && self.fits(1))
                    .min_by_key(by_share)
            })?;
        let Waiting {
            whose,
            units,
            grant,
        } = self.waiting.remove(index);
        self.units += units;
        *self.addresses.entry(whose.address).or_default() += units;
        *self.connections.entry(whose.connection).or_default() += units;
        let held = Arc::new(Held {
            whose,
            units,
            client: Mutex::new(Client {
                pace: Pace::of(WORTH, PAUSE),
                waits_since: None,
                is_lost: false,
            }),
            lost: Notify::new(),
        });
        self.last += 1;
        self.shares.insert(self.last, held.clone());
        Some((grant, self.last, held))
    }

    fn give_back(&mut self, id: u64) {
        let Some(held) = self.shares.remove(&id) else {
            return;
        };
        self.units -= held.units;
        give_back(&mut self.addresses, held.whose.address, held.units);
        give_back(&mut self.connections, held.whose.connection, held.units);
    }

    /// Once in a while, for those who wait: ends bodies that are not worth the room, the slowest first, until there will be
    /// enough for one more on each connection. An address that has all it can have makes room among its own. Says whether it
    /// was time.
    fn look(&mut self, now: Instant) -> bool {
        if self.looked.is_some_and(|looked| now < looked + LOOK) {
            return false;
        }
        self.looked = Some(now);
        self.waiting.retain(|waiting| !waiting.grant.is_closed());
        let mut seen = HashSet::new();
        let mut needed = 0;
        let mut needed_of: HashMap<Source, u32> = HashMap::new();
        for Waiting { whose, units, .. } in &self.waiting {
            if !seen.insert(whose.connection) {
                continue;
            }
            if self.is_entitled(whose, *units) {
                needed += units;
            } else {
                *needed_of.entry(whose.address).or_default() += units;
            }
        }
        if seen.is_empty() {
            return true;
        }
        let mut slow: Vec<(Duration, &Held)> = self
            .shares
            .values()
            .filter_map(|held| Some((held.overdue(now)?, &**held)))
            .collect();
        slow.sort_by_key(|(overdue, _)| Reverse(*overdue));
        for (_, held) in slow {
            let needed = match needed_of.get_mut(&held.whose.address) {
                Some(needed @ 1..) => needed,
                _ => &mut needed,
            };
            if *needed == 0 {
                continue;
            }
            *needed = needed.saturating_sub(held.units);
            held.client().is_lost = true;
            held.lost.notify_one();
        }
        true
    }
}

fn give_back<K: Hash + Eq>(counts: &mut HashMap<K, u32>, key: K, units: u32) {
    if let Some(has) = counts.get_mut(&key) {
        *has -= units;
        if *has == 0 {
            counts.remove(&key);
        }
    }
}

impl Share {
    /// This server waits for bytes from now on.
    pub(super) fn wait(&self) {
        self.held.client().waits_since = Some(Instant::now());
    }

    /// So many came, or none will.
    pub(super) fn received(&self, bytes: usize) {
        let mut client = self.held.client();
        if let Some(since) = client.waits_since.take() {
            client.pace.moved(bytes, since.elapsed());
        }
    }

    /// Ends when others need the room more.
    pub(super) async fn lost(&self) {
        self.held.lost.notified().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.taken().give_back(self.id);
        self.room.serve();
    }
}

#[cfg(test)]
mod tests;

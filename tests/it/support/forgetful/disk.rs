//! The model: a tree of inodes that is kept twice, as processes see it and as it lies on the platter.
//!
//! Nothing in here knows FUSE. The rules (strict POSIX, weaker than any journaling file system keeps them):
//!
//! * File data becomes durable by `fsync`/`fdatasync` of that file, and by nothing else.
//! * A directory entry (made, replaced or removed) becomes durable by `fsync` of the directory that holds it, and by nothing
//!   else; a rename between directories is two entries.
//! * What was not synced may nevertheless have reached the platter: every name separately, every page of a file separately.
//! * After a failed `fsync` of a file the data it was about is gone from the cache (as on Linux): a later `fsync` succeeds
//!   and makes nothing of it durable.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ffi::{OsStr, OsString},
    fmt::Write as _,
    sync::Arc,
    time::SystemTime,
};

use super::{super::seed::Rng, Luck, Sync, SyncKind};

pub(super) type Ino = u64;
pub(super) type Errno = i32;
pub(super) type Result<T> = std::result::Result<T, Errno>;

pub(super) const ROOT: Ino = 1;
/// What tears apart when the power goes: a page is old or new.
const PAGE: usize = 4096;
/// How many operations the log remembers.
const LOG: usize = 600;
/// What `statfs` says the disk holds.
const CAPACITY: u64 = 4 << 30;

#[derive(Clone, Debug)]
pub(super) struct Meta {
    pub(super) perm: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) atime: SystemTime,
    pub(super) mtime: SystemTime,
    pub(super) ctime: SystemTime,
}

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) meta: Meta,
    pub(super) node: Node,
    /// Names in the volatile tree.
    pub(super) links: u32,
    /// Where it was seen last, for the log: the path of a name that may be gone.
    place: (Ino, OsString),
    /// What the kernel holds: lookups and open handles. The inode stays until both are zero.
    lookups: u64,
    handles: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(File),
    Dir(Dir),
}

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) now: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    dirty: bool,
    /// An fsync failed since the file was last empty: no later one makes it durable.
    doomed: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    pub(super) now: BTreeMap<OsString, Ino>,
    durable: BTreeMap<OsString, Ino>,
    /// What happened to names since the last fsync, in order.
    pending: Vec<(OsString, Option<Ino>)>,
}

impl Dir {
    fn set(&mut self, name: &OsStr, ino: Ino) {
        self.now.insert(name.to_owned(), ino);
        self.pending.push((name.to_owned(), Some(ino)));
    }

    fn remove(&mut self, name: &OsStr) {
        self.now.remove(name);
        self.pending.push((name.to_owned(), None));
    }
}

/// Mutating calls that fail: number `from` up to `until` (exclusive).
#[derive(Clone, Copy, Debug)]
struct Fault {
    from: u64,
    until: u64,
    errno: Errno,
}

pub(super) struct Disk {
    inodes: HashMap<Ino, Inode>,
    next: Ino,
    pub(super) powered: bool,
    cut_at: Option<u64>,
    /// Mutating calls so far, failed ones too.
    pub(super) calls: u64,
    fault: Option<Fault>,
    full: bool,
    pub(super) syncs: Vec<Sync>,
    log: VecDeque<String>,
    logged: u64,
    freed: u64,
}

impl Disk {
    pub(super) fn new(uid: u32, gid: u32) -> Self {
        let now = SystemTime::now();
        let meta = Meta {
            perm: 0o755,
            uid,
            gid,
            atime: now,
            mtime: now,
            ctime: now,
        };
        let root = Inode {
            meta,
            node: Node::Dir(Dir::default()),
            links: 1,
            place: (ROOT, OsString::new()),
            lookups: 1,
            handles: 0,
        };
        Self {
            inodes: HashMap::from([(ROOT, root)]),
            next: ROOT + 1,
            powered: true,
            cut_at: None,
            calls: 0,
            fault: None,
            full: false,
            syncs: Vec::new(),
            log: VecDeque::new(),
            logged: 0,
            freed: 0,
        }
    }

    // --- power, faults, log ---

    /// The power goes before the `n`-th mutating call from now has had any effect.
    pub(super) fn cut_at(&mut self, n: u64) {
        self.cut_at = Some(self.calls + n);
    }

    pub(super) fn cut(&mut self) {
        self.powered = false;
        self.cut_at = None;
        self.note(|_| "--- power cut ---".to_owned(), Ok(()));
    }

    pub(super) fn fail(&mut self, nth: u64, count: u64, errno: Errno) {
        let from = self.calls + nth;
        self.fault = Some(Fault {
            from,
            until: from.saturating_add(count),
            errno,
        });
    }

    pub(super) fn heal(&mut self) {
        self.fault = None;
        self.full = false;
    }

    pub(super) fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Whether the call that `fail` named has been reached.
    pub(super) fn fault_reached(&self) -> bool {
        self.fault.is_some_and(|fault| self.calls >= fault.from)
    }

    pub(super) fn log(&self) -> String {
        let mut out = String::new();
        for line in &self.log {
            out.push_str(line);
            out.push('\n');
        }
        out
    }

    pub(super) fn note<T>(&mut self, what: impl FnOnce(&Self) -> String, outcome: Result<T>) {
        let mut line = format!("{:6} {}", self.logged, what(self));
        if let Err(errno) = outcome {
            let _ = write!(line, " = {}", std::io::Error::from_raw_os_error(errno));
        }
        self.logged += 1;
        if self.log.len() == LOG {
            self.log.pop_front();
        }
        self.log.push_back(line);
    }

    /// What stands before every call that changes something: the power, then the fault that was asked for.
    pub(super) fn admit(&mut self, takes_space: bool) -> Result<()> {
        if !self.powered {
            return Err(libc::EIO);
        }
        self.calls += 1;
        if self.cut_at.is_some_and(|at| self.calls >= at) {
            self.cut();
            return Err(libc::EIO);
        }
        match self.fault {
            Some(fault) if (fault.from..fault.until).contains(&self.calls) => Err(fault.errno),
            _ if self.full && takes_space => Err(libc::ENOSPC),
            _ => Ok(()),
        }
    }

    /// What stands before every call that only looks.
    pub(super) fn alive(&self) -> Result<()> {
        if self.powered { Ok(()) } else { Err(libc::EIO) }
    }

    // --- looking ---

    pub(super) fn inode(&self, ino: Ino) -> Result<&Inode> {
        self.inodes.get(&ino).ok_or(libc::ESTALE)
    }

    fn inode_mut(&mut self, ino: Ino) -> Result<&mut Inode> {
        self.inodes.get_mut(&ino).ok_or(libc::ESTALE)
    }

    pub(super) fn dir(&self, ino: Ino) -> Result<&Dir> {
        match &self.inode(ino)?.node {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(libc::ENOTDIR),
        }
    }

    fn dir_mut(&mut self, ino: Ino) -> Result<&mut Dir> {
        match &mut self.inode_mut(ino)?.node {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(libc::ENOTDIR),
        }
    }

    pub(super) fn file(&self, ino: Ino) -> Result<&File> {
        match &self.inode(ino)?.node {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(libc::EISDIR),
        }
    }

    fn file_mut(&mut self, ino: Ino) -> Result<&mut File> {
        match &mut self.inode_mut(ino)?.node {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(libc::EISDIR),
        }
    }

    fn child(&self, parent: Ino, name: &OsStr) -> Result<Ino> {
        self.dir(parent)?.now.get(name).copied().ok_or(libc::ENOENT)
    }

    /// A name looked up for the kernel, which remembers it until it says `forget`.
    pub(super) fn lookup(&mut self, parent: Ino, name: &OsStr) -> Result<Ino> {
        let ino = self.child(parent, name)?;
        self.inode_mut(ino)?.lookups += 1;
        Ok(ino)
    }

    pub(super) fn parent(&self, ino: Ino) -> Ino {
        self.inodes.get(&ino).map_or(ROOT, |inode| inode.place.0)
    }

    /// The path by which `ino` was last known, relative to the root of the disk.
    pub(super) fn path(&self, ino: Ino) -> String {
        let mut names = Vec::new();
        let mut at = ino;
        while at != ROOT && names.len() < 64 {
            let Some(inode) = self.inodes.get(&at) else {
                names.push("?".into());
                break;
            };
            names.push(inode.place.1.to_string_lossy());
            at = inode.place.0;
        }
        names.reverse();
        if names.is_empty() {
            ".".to_owned()
        } else {
            names.join("/")
        }
    }

    pub(super) fn path_of(&self, parent: Ino, name: &OsStr) -> String {
        format!("{}/{}", self.path(parent), name.to_string_lossy())
    }

    /// (capacity, free) in bytes.
    pub(super) fn space(&self) -> (u64, u64) {
        let used: u64 = self
            .inodes
            .values()
            .map(|inode| {
                if let Node::File(file) = &inode.node {
                    file.now.len() as u64
                } else {
                    PAGE as u64
                }
            })
            .sum();
        (
            CAPACITY,
            if self.full {
                0
            } else {
                CAPACITY.saturating_sub(used)
            },
        )
    }

    // --- changing ---

    pub(super) fn make(
        &mut self,
        parent: Ino,
        name: &OsStr,
        node: Node,
        perm: u16,
        uid: u32,
        gid: u32,
    ) -> Result<Ino> {
        if self.dir(parent)?.now.contains_key(name) {
            return Err(libc::EEXIST);
        }
        let ino = self.next;
        self.next += 1;
        let now = SystemTime::now();
        let meta = Meta {
            perm,
            uid,
            gid,
            atime: now,
            mtime: now,
            ctime: now,
        };
        self.inodes.insert(
            ino,
            Inode {
                meta,
                node,
                links: 1,
                place: (parent, name.to_owned()),
                lookups: 1,
                handles: 0,
            },
        );
        self.dir_mut(parent)?.set(name, ino);
        self.touch(parent);
        Ok(ino)
    }

    pub(super) fn link(&mut self, ino: Ino, parent: Ino, name: &OsStr) -> Result<()> {
        self.file(ino).map_err(|_| libc::EPERM)?;
        if self.dir(parent)?.now.contains_key(name) {
            return Err(libc::EEXIST);
        }
        self.dir_mut(parent)?.set(name, ino);
        self.touch(parent);
        let inode = self.inode_mut(ino)?;
        inode.links += 1;
        inode.lookups += 1;
        inode.place = (parent, name.to_owned());
        Ok(())
    }

    pub(super) fn unlink(&mut self, parent: Ino, name: &OsStr) -> Result<()> {
        let ino = self.child(parent, name)?;
        self.file(ino)?;
        self.dir_mut(parent)?.remove(name);
        self.touch(parent);
        self.inode_mut(ino)?.links -= 1;
        self.sweep_soon();
        Ok(())
    }

    pub(super) fn rmdir(&mut self, parent: Ino, name: &OsStr) -> Result<()> {
        let ino = self.child(parent, name)?;
        if !self.dir(ino)?.now.is_empty() {
            return Err(libc::ENOTEMPTY);
        }
        self.dir_mut(parent)?.remove(name);
        self.touch(parent);
        self.inode_mut(ino)?.links -= 1;
        self.sweep_soon();
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        from: Ino,
        name: &OsStr,
        to: Ino,
        new: &OsStr,
        replace: bool,
    ) -> Result<()> {
        let ino = self.child(from, name)?;
        if let Ok(old) = self.child(to, new) {
            if !replace {
                return Err(libc::EEXIST);
            }
            if old == ino {
                return Ok(());
            }
            match (&self.inode(ino)?.node, &self.inode(old)?.node) {
                (Node::Dir(_), Node::File(_)) => return Err(libc::ENOTDIR),
                (Node::File(_), Node::Dir(_)) => return Err(libc::EISDIR),
                (Node::Dir(_), Node::Dir(dir)) if !dir.now.is_empty() => {
                    return Err(libc::ENOTEMPTY);
                }
                _ => self.inode_mut(old)?.links -= 1,
            }
        }
        self.dir_mut(to)?.set(new, ino);
        self.dir_mut(from)?.remove(name);
        self.touch(from);
        self.touch(to);
        self.inode_mut(ino)?.place = (to, new.to_owned());
        self.sweep_soon();
        Ok(())
    }

    pub(super) fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> Result<()> {
        let offset = usize::try_from(offset).map_err(|_| libc::EFBIG)?;
        let file = self.file_mut(ino)?;
        let now = Arc::make_mut(&mut file.now);
        let end = offset + data.len();
        if now.len() < end {
            now.resize(end, 0);
        }
        now[offset..end].copy_from_slice(data);
        file.dirty = true;
        self.touch(ino);
        Ok(())
    }

    pub(super) fn resize(&mut self, ino: Ino, size: u64) -> Result<()> {
        let size = usize::try_from(size).map_err(|_| libc::EFBIG)?;
        let file = self.file_mut(ino)?;
        if file.now.len() != size {
            Arc::make_mut(&mut file.now).resize(size, 0);
            file.dirty = true;
        }
        if size == 0 {
            file.doomed = false;
        }
        self.touch(ino);
        Ok(())
    }

    pub(super) fn set_meta(&mut self, ino: Ino, set: impl FnOnce(&mut Meta)) -> Result<()> {
        let meta = &mut self.inode_mut(ino)?.meta;
        set(meta);
        meta.ctime = SystemTime::now();
        Ok(())
    }

    /// fsync or fdatasync of a file, or fsync of a directory. `admitted` is what `admit` said: a refused call is counted too.
    pub(super) fn sync(&mut self, ino: Ino, kind: SyncKind, admitted: Result<()>) -> Result<()> {
        let path = self.path(ino);
        self.syncs.push(Sync { kind, path });
        let powered = self.powered;
        match &mut self.inode_mut(ino)?.node {
            Node::File(file) => {
                if admitted.is_err() {
                    file.doomed |= file.dirty && powered;
                } else if !file.doomed {
                    file.durable = Arc::clone(&file.now);
                    file.dirty = false;
                }
            }
            Node::Dir(dir) => {
                if admitted.is_ok() {
                    for (name, ino) in dir.pending.drain(..) {
                        match ino {
                            Some(ino) => dir.durable.insert(name, ino),
                            None => dir.durable.remove(&name),
                        };
                    }
                }
            }
        }
        self.sweep_soon();
        admitted
    }

    /// All that is visible is durable.
    pub(super) fn settle(&mut self) {
        for inode in self.inodes.values_mut() {
            match &mut inode.node {
                Node::File(file) => {
                    file.durable = Arc::clone(&file.now);
                    (file.dirty, file.doomed) = (false, false);
                }
                Node::Dir(dir) => {
                    dir.durable = dir.now.clone();
                    dir.pending.clear();
                }
            }
        }
        self.note(|_| "--- settled ---".to_owned(), Ok(()));
    }

    fn touch(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.meta.mtime = SystemTime::now();
            inode.meta.ctime = inode.meta.mtime;
        }
    }

    // --- what the kernel holds ---

    pub(super) fn hold(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.handles += 1;
        }
    }

    pub(super) fn release(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.handles -= 1;
        }
    }

    pub(super) fn forget(&mut self, ino: Ino, lookups: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.lookups = inode.lookups.saturating_sub(lookups);
        }
    }

    /// Every now and then drops the inodes that nothing can reach any more, on neither side.
    fn sweep_soon(&mut self) {
        self.freed += 1;
        if self.freed < 4096 {
            return;
        }
        self.freed = 0;
        let mut kept: HashSet<Ino> = HashSet::new();
        let held = self
            .inodes
            .iter()
            .filter(|(_, inode)| inode.lookups > 0 || inode.handles > 0);
        let mut todo: Vec<Ino> = held.map(|(ino, _)| *ino).chain([ROOT]).collect();
        while let Some(ino) = todo.pop() {
            if !kept.insert(ino) {
                continue;
            }
            if let Ok(dir) = self.dir(ino) {
                todo.extend(dir.now.values().chain(dir.durable.values()).copied());
                todo.extend(dir.pending.iter().filter_map(|(_, ino)| *ino));
            }
        }
        self.inodes.retain(|ino, _| kept.contains(ino));
    }

    // --- the other side of a power cut ---

    /// The disk as it is found when the power comes back. Everything on it is durable then.
    pub(super) fn after_cut(&mut self, luck: Luck) {
        let mut rng = Rng::new(match luck {
            Luck::Random(seed) => seed,
            Luck::Lost | Luck::Kept => 0,
        });
        let mut inodes: HashMap<Ino, Inode> = HashMap::new();
        let mut todo = vec![ROOT];
        while let Some(ino) = todo.pop() {
            if inodes.contains_key(&ino) {
                continue;
            }
            let Some(found) = self.inodes.get(&ino) else {
                continue;
            };
            let mut inode = Inode {
                lookups: u64::from(ino == ROOT),
                handles: 0,
                ..found.clone()
            };
            match &mut inode.node {
                Node::File(file) => {
                    file.durable = Arc::new(surviving_data(file, luck, &mut rng));
                    file.now = Arc::clone(&file.durable);
                    file.dirty = false;
                    file.doomed = false;
                }
                Node::Dir(dir) => {
                    dir.durable = surviving_names(dir, luck, &mut rng);
                    dir.now = dir.durable.clone();
                    dir.pending.clear();
                    todo.extend(dir.now.values());
                }
            }
            inodes.insert(ino, inode);
        }
        // A directory has one name. A rename that is durable on one side only left two: its latest place counts.
        let mut names: Vec<(Ino, OsString, Ino)> = Vec::new();
        for (parent, inode) in &inodes {
            if let Node::Dir(dir) = &inode.node {
                names.extend(
                    dir.now
                        .iter()
                        .map(|(name, ino)| (*parent, name.clone(), *ino)),
                );
            }
        }
        names.sort();
        let mut places: HashMap<Ino, Vec<(Ino, OsString)>> = HashMap::new();
        for (parent, name, ino) in names {
            places.entry(ino).or_default().push((parent, name));
        }
        for (ino, places) in places {
            let Some(inode) = inodes.get_mut(&ino) else {
                continue;
            };
            let keep = places
                .iter()
                .position(|place| *place == inode.place)
                .unwrap_or(0);
            inode.place = places[keep].clone();
            if matches!(inode.node, Node::File(_)) {
                inode.links = u32::try_from(places.len()).unwrap_or(u32::MAX);
                continue;
            }
            inode.links = 1;
            for (n, (parent, name)) in places.iter().enumerate() {
                if n != keep
                    && let Some(Inode {
                        node: Node::Dir(dir),
                        ..
                    }) = inodes.get_mut(parent)
                {
                    dir.now.remove(name);
                    dir.durable.remove(name);
                }
            }
        }
        self.inodes = inodes;
        self.powered = true;
        self.cut_at = None;
        self.heal();
        self.note(|_| format!("--- power on, {luck:?} ---"), Ok(()));
    }
}

/// Every name of a directory stands at some point of its history since the last fsync, whatever the others do.
fn surviving_names(dir: &Dir, luck: Luck, rng: &mut Rng) -> BTreeMap<OsString, Ino> {
    match luck {
        Luck::Lost => return dir.durable.clone(),
        Luck::Kept => return dir.now.clone(),
        Luck::Random(_) => {}
    }
    let mut histories: BTreeMap<&OsStr, Vec<Option<Ino>>> = BTreeMap::new();
    for (name, ino) in &dir.pending {
        histories
            .entry(name)
            .or_insert_with(|| vec![dir.durable.get(name).copied()])
            .push(*ino);
    }
    let mut names = dir.durable.clone();
    for (name, history) in histories {
        match rng.pick(&history) {
            Some(ino) => names.insert(name.to_owned(), *ino),
            None => names.remove(name),
        };
    }
    names
}

/// What is in a file that was not synced: the old or the new bytes, a beginning of the new ones, or pages of either, of
/// zeroes even, in the new length.
fn surviving_data(file: &File, luck: Luck, rng: &mut Rng) -> Vec<u8> {
    let (old, new) = (&*file.durable, &*file.now);
    if !file.dirty {
        return old.clone();
    }
    match luck {
        Luck::Lost => return old.clone(),
        Luck::Kept => return new.clone(),
        Luck::Random(_) => {}
    }
    match rng.below(5) {
        0 => old.clone(),
        1 if !file.doomed => new.clone(),
        2 => Vec::new(),
        3 => new[..rng.index(new.len() + 1)].to_vec(),
        _ => {
            let mut mixed = vec![0; new.len()];
            for (n, page) in mixed.chunks_mut(PAGE).enumerate() {
                let from = n * PAGE;
                match rng.below(3) {
                    0 => {}
                    1 => page.copy_from_slice(&new[from..from + page.len()]),
                    _ => {
                        let end = old.len().min(from + page.len());
                        if from < end {
                            page[..end - from].copy_from_slice(&old[from..end]);
                        }
                    }
                }
            }
            mixed
        }
    }
}

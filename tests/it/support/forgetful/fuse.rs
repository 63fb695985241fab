//! The model as a FUSE file system: takes the kernel's calls, one at a time.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::{
    SyncKind,
    disk::{Dir, Disk, File, Ino, Node, Result},
};

/// How long the kernel may believe what it was told. Everything that changes the tree goes through this kernel and this
/// mount, and a power cut mounts anew: nothing becomes stale.
const TTL: Duration = Duration::from_secs(3600);
const BLOCK: u32 = 4096;

/// The directory stream of a handle: as the directory was when it was read from the start.
type Listing = Vec<(Ino, FileType, OsString)>;

pub(super) struct Fuse {
    disk: Arc<Mutex<Disk>>,
    listings: Mutex<(u64, HashMap<u64, Listing>)>,
}

impl Fuse {
    pub(super) fn new(disk: Arc<Mutex<Disk>>) -> Self {
        Self {
            disk,
            listings: Mutex::default(),
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn listings(&self) -> MutexGuard<'_, (u64, HashMap<u64, Listing>)> {
        self.listings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// One mutating call: the power and the faults first, then the call, then the log.
    fn change<T>(
        &self,
        takes_space: bool,
        what: impl FnOnce(&Disk) -> String,
        call: impl FnOnce(&mut Disk) -> Result<T>,
    ) -> Result<T> {
        let mut disk = self.disk();
        let was_on = disk.powered;
        // Before the call: afterwards a removed thing has no path.
        let what = what(&disk);
        let outcome = disk.admit(takes_space).and_then(|()| call(&mut disk));
        if was_on {
            disk.note(
                |_| what,
                outcome.as_ref().map(|_| ()).map_err(|errno| *errno),
            );
        }
        outcome
    }

    fn look<T>(&self, call: impl FnOnce(&mut Disk) -> Result<T>) -> Result<T> {
        let mut disk = self.disk();
        disk.alive()?;
        call(&mut disk)
    }

    fn attr(disk: &Disk, ino: Ino) -> Result<FileAttr> {
        let inode = disk.inode(ino)?;
        let (kind, size, nlink) = match &inode.node {
            Node::File(file) => (FileType::RegularFile, file.now.len() as u64, inode.links),
            Node::Dir(_) => (FileType::Directory, u64::from(BLOCK), inode.links * 2),
        };
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(512),
            atime: inode.meta.atime,
            mtime: inode.meta.mtime,
            ctime: inode.meta.ctime,
            crtime: inode.meta.ctime,
            kind,
            perm: inode.meta.perm,
            nlink,
            uid: inode.meta.uid,
            gid: inode.meta.gid,
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        })
    }

    fn make(
        &self,
        req: &Request,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        umask: u32,
        dir: bool,
    ) -> Result<FileAttr> {
        let perm = u16::try_from(mode & !umask & 0o7777).unwrap_or(0o644);
        let (call, node) = if dir {
            ("mkdir", Node::Dir(Dir::default()))
        } else {
            ("create", Node::File(File::default()))
        };
        self.change(
            true,
            |disk| format!("{call} {}", disk.path_of(parent, name)),
            |disk| {
                let ino = disk.make(parent, name, node, perm, req.uid(), req.gid())?;
                Self::attr(disk, ino)
            },
        )
    }

    fn sync(&self, ino: Ino, kind: SyncKind) -> Result<()> {
        let mut disk = self.disk();
        let was_on = disk.powered;
        let admitted = disk.admit(false);
        let outcome = disk.sync(ino, kind, admitted);
        if was_on {
            disk.note(
                |disk| format!("{} {}", kind.name(), disk.path(ino)),
                outcome,
            );
        }
        outcome
    }
}

fn errno(code: i32) -> Errno {
    Errno::from_i32(code)
}

fn empty(outcome: Result<()>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(code) => reply.error(errno(code)),
    }
}

fn entry(outcome: Result<FileAttr>, reply: ReplyEntry) {
    match outcome {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(code) => reply.error(errno(code)),
    }
}

fn time(given: TimeOrNow) -> SystemTime {
    match given {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

impl Filesystem for Fuse {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Write-through (the kernel's default without FUSE_WRITEBACK_CACHE): a write that returned has arrived here.
        let _ = config.set_max_write(1 << 20);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.look(|disk| {
            let ino = disk.lookup(parent.0, name)?;
            Self::attr(disk, ino)
        });
        entry(found, reply);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.disk().forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.look(|disk| Self::attr(disk, ino.0)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let what = |disk: &Disk| match size {
            Some(size) => format!("truncate {} to {size}", disk.path(ino.0)),
            None => format!("setattr {}", disk.path(ino.0)),
        };
        let outcome = self.change(false, what, |disk| {
            if let Some(size) = size {
                disk.resize(ino.0, size)?;
            }
            disk.set_meta(ino.0, |meta| {
                meta.perm = mode
                    .and_then(|mode| u16::try_from(mode & 0o7777).ok())
                    .unwrap_or(meta.perm);
                meta.uid = uid.unwrap_or(meta.uid);
                meta.gid = gid.unwrap_or(meta.gid);
                meta.atime = atime.map_or(meta.atime, time);
                meta.mtime = mtime.map_or(meta.mtime, time);
            })?;
            Self::attr(disk, ino.0)
        });
        match outcome {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        if mode & libc::S_IFMT != libc::S_IFREG {
            return reply.error(Errno::EPERM);
        }
        entry(self.make(req, parent.0, name, mode, umask, false), reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        entry(self.make(req, parent.0, name, mode, umask, true), reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let what = |disk: &Disk| format!("unlink {}", disk.path_of(parent.0, name));
        empty(
            self.change(false, what, |disk| disk.unlink(parent.0, name)),
            reply,
        );
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let what = |disk: &Disk| format!("rmdir {}", disk.path_of(parent.0, name));
        empty(
            self.change(false, what, |disk| disk.rmdir(parent.0, name)),
            reply,
        );
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !(flags & !RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let replace = flags.is_empty();
        let what = |disk: &Disk| {
            format!(
                "rename {} -> {}",
                disk.path_of(parent.0, name),
                disk.path_of(newparent.0, newname)
            )
        };
        empty(
            self.change(false, what, |disk| {
                disk.rename(parent.0, name, newparent.0, newname, replace)
            }),
            reply,
        );
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let what = |disk: &Disk| {
            format!(
                "link {} -> {}",
                disk.path(ino.0),
                disk.path_of(newparent.0, newname)
            )
        };
        let outcome = self.change(true, what, |disk| {
            disk.link(ino.0, newparent.0, newname)?;
            Self::attr(disk, ino.0)
        });
        entry(outcome, reply);
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let outcome = self.look(|disk| {
            disk.file(ino.0)?;
            disk.hold(ino.0);
            Ok(())
        });
        match outcome {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_NOFLUSH),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make(req, parent.0, name, mode, umask, false) {
            Ok(attr) => {
                self.disk().hold(attr.ino.0);
                reply.created(
                    &TTL,
                    &attr,
                    Generation(0),
                    FileHandle(0),
                    FopenFlags::FOPEN_NOFLUSH,
                );
            }
            Err(code) => reply.error(errno(code)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.look(|disk| Ok(Arc::clone(&disk.file(ino.0)?.now))) {
            Ok(data) => {
                let from = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(data.len());
                let to = from.saturating_add(size as usize).min(data.len());
                reply.data(&data[from..to]);
            }
            Err(code) => reply.error(errno(code)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let what = |disk: &Disk| format!("write {} {}+{}", disk.path(ino.0), offset, data.len());
        match self.change(true, what, |disk| disk.write(ino.0, offset, data)) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(code) => reply.error(errno(code)),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.disk().release(ino.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let kind = if datasync {
            SyncKind::FileData
        } else {
            SyncKind::File
        };
        empty(self.sync(ino.0, kind), reply);
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(self.sync(ino.0, SyncKind::Directory), reply);
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode & !libc::FALLOC_FL_KEEP_SIZE != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let what = |disk: &Disk| format!("fallocate {} {offset}+{length}", disk.path(ino.0));
        let outcome = self.change(true, what, |disk| {
            let size = disk.file(ino.0)?.now.len() as u64;
            if mode == 0 && offset + length > size {
                disk.resize(ino.0, offset + length)
            } else {
                Ok(())
            }
        });
        empty(outcome, reply);
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let outcome = self.look(|disk| {
            disk.dir(ino.0)?;
            disk.hold(ino.0);
            Ok(())
        });
        match outcome {
            Ok(()) => {
                let mut listings = self.listings();
                listings.0 += 1;
                reply.opened(FileHandle(listings.0), FopenFlags::empty());
            }
            Err(code) => reply.error(errno(code)),
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut listings = self.listings();
        if offset == 0 {
            let listing = self.look(|disk| {
                let mut listing: Listing = vec![
                    (ino.0, FileType::Directory, ".".into()),
                    (disk.parent(ino.0), FileType::Directory, "..".into()),
                ];
                for (name, child) in &disk.dir(ino.0)?.now {
                    listing.push((*child, Self::attr(disk, *child)?.kind, name.clone()));
                }
                Ok(listing)
            });
            match listing {
                Ok(listing) => listings.1.insert(fh.0, listing),
                Err(code) => return reply.error(errno(code)),
            };
        } else if let Err(code) = self.look(|_| Ok(())) {
            return reply.error(errno(code));
        }
        let listing = listings.1.get(&fh.0).map_or(&[][..], Vec::as_slice);
        for (n, (child, kind, name)) in (1u64..)
            .zip(listing)
            .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        {
            if reply.add(INodeNo(*child), n, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings().1.remove(&fh.0);
        self.disk().release(ino.0);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.look(|disk| Ok(disk.space())) {
            Ok((total, free)) => {
                let block = u64::from(BLOCK);
                reply.statfs(
                    total / block,
                    free / block,
                    free / block,
                    1 << 20,
                    1 << 20,
                    BLOCK,
                    255,
                    BLOCK,
                );
            }
            Err(code) => reply.error(errno(code)),
        }
    }
}

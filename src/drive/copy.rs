//! Images from one disk to another: copied, flushed, read back, and only then given their names. What has its name was
//! copied rightly, so a copy that was interrupted goes on where it stopped.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::syncfs;

use super::{Error, Say, at};
use crate::storage::{Part, staging};

/// Files that wait for one flush: bytes, and how many.
const BATCH_BYTES: u64 = 64 << 20;
const BATCH_FILES: usize = 256;
/// Up to this many bytes files are compared by their content; larger ones are blobs, whose content follows from their name,
/// and uploads, which grow.
const COMPARED: u64 = 64 << 10;

/// What a copy found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) files: usize,
    /// Of the files copied now, and not before.
    pub(super) bytes: u64,
    /// Blobs that were damaged already where they came from.
    pub(super) damaged: usize,
}

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// All, while somebody may still be writing: what vanishes is passed over, and nothing is removed from the copy.
    Live,
    /// All.
    Whole,
    /// The registry's own, of a drive that may hold other things.
    Tree,
}

pub(super) struct Copy<'a> {
    from: &'a Path,
    to: &'a Path,
    what: What,
    say: Say<'a>,
    waiting: Vec<Waiting>,
    waiting_bytes: u64,
    copied: Copied,
    total: u64,
}

/// A file written under a name that nobody reads.
struct Waiting {
    staged: PathBuf,
    target: PathBuf,
    hash: [u8; 32],
    source: Metadata,
}

/// Makes `to` hold what `from` holds.
///
/// # Errors
/// Room, the file systems, and what was not read back as it was written. What was copied by then stays.
pub(super) fn copy(from: &Path, to: &Path, what: What, say: Say<'_>) -> Result<Copied, Error> {
    let mut copy = Copy {
        from,
        to,
        what,
        say,
        waiting: Vec::new(),
        waiting_bytes: 0,
        copied: Copied::default(),
        total: 0,
    };
    copy.run()?;
    Ok(copy.copied)
}

impl Copy<'_> {
    fn run(&mut self) -> Result<(), Error> {
        let mut entries = entries(self.from)?;
        if self.what == What::Tree {
            entries.retain(|entry| Part::of(&entry.path) != Part::Other);
        }
        let wanted: Vec<&Entry> = entries
            .iter()
            .filter(|entry| !self.is_there(entry))
            .collect();
        self.total = wanted.iter().map(|entry| entry.meta.len()).sum();
        let staging = staging(self.to);
        // What an attempt before left without a name.
        match fs::remove_dir_all(&staging) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(&staging)(e)),
            _ => {}
        }
        self.check_room()?;
        fs::create_dir_all(&staging).map_err(at(&staging))?;
        for entry in &entries {
            if entry.meta.is_dir() {
                self.folder(entry)?;
            }
        }
        for entry in wanted {
            match self.file(entry) {
                Err(Error::Io { source, .. })
                    if self.what == What::Live && source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        self.settle()?;
        if self.what != What::Live {
            self.prune(&entries)?;
        }
        self.flush()
    }

    fn check_room(&self) -> Result<(), Error> {
        let stat = nix::sys::statvfs::statvfs(self.to).map_err(|e| at(self.to)(e.into()))?;
        #[allow(
            clippy::useless_conversion,
            reason = "the width differs between machines"
        )]
        let have =
            u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size()));
        // Small files take whole blocks, and folders take some too.
        let need = self.total + self.total / 20;
        if need > have {
            return Err(Error::NoRoom {
                need: need >> 20,
                have: have >> 20,
            });
        }
        Ok(())
    }

    /// Whether `entry` was copied before, and has not changed since.
    fn is_there(&self, entry: &Entry) -> bool {
        if entry.meta.is_dir() {
            return true;
        }
        let target = self.to.join(&entry.path);
        let Ok(meta) = fs::symlink_metadata(&target) else {
            return false;
        };
        if meta.file_type() != entry.meta.file_type() || meta.len() != entry.meta.len() {
            return false;
        }
        if entry.meta.len() > COMPARED {
            return meta.mtime() == entry.meta.mtime();
        }
        let source = self.from.join(&entry.path);
        if entry.meta.is_symlink() {
            return fs::read_link(source).ok() == fs::read_link(target).ok();
        }
        matches!((fs::read(source), fs::read(target)), (Ok(a), Ok(b)) if a == b)
    }

    fn folder(&self, entry: &Entry) -> Result<(), Error> {
        let target = self.to.join(&entry.path);
        match fs::create_dir(&target) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            other => other.map_err(at(&target))?,
        }
        fs::set_permissions(&target, entry.meta.permissions()).map_err(at(&target))?;
        own(&target, &entry.meta)
    }

    fn file(&mut self, entry: &Entry) -> Result<(), Error> {
        let (source, target) = (self.from.join(&entry.path), self.to.join(&entry.path));
        if entry.meta.is_symlink() {
            let to = fs::read_link(&source).map_err(at(&source))?;
            let _ = fs::remove_file(&target); // of an attempt before
            symlink(to, &target).map_err(at(&target))?;
            return lchown(&target, Some(entry.meta.uid()), Some(entry.meta.gid()))
                .map_err(at(&target));
        }
        if !entry.meta.is_file() {
            return Err(Error::Refused(format!(
                "{} is neither a file nor a folder; move it away first",
                source.display()
            )));
        }
        let mut file = File::open(&source).map_err(at(&source))?;
        let staged = staging(self.to).join(uuid::Uuid::new_v4().to_string());
        let mut into = File::create(&staged).map_err(at(&staged))?;
        let (hash, len) = transfer(&mut file, Some(&mut into)).map_err(at(&source))?;
        // Of the file as it was read: it may have grown since the list was made.
        let meta = file.metadata().map_err(at(&source))?;
        if let Part::Blob(digest) = Part::of(&entry.path)
            && digest.algorithm() == crate::oci::Algorithm::Sha256
            && digest.hex() != hex(&hash)
        {
            self.copied.damaged += 1;
        }
        self.waiting_bytes += len;
        self.waiting.push(Waiting {
            staged,
            target,
            hash,
            source: meta,
        });
        if self.waiting_bytes >= BATCH_BYTES || self.waiting.len() >= BATCH_FILES {
            self.settle()?;
            let (done, total) = (self.copied.bytes >> 20, self.total >> 20);
            (self.say)(&format!("copied and verified {done} of {total} MB"));
        }
        Ok(())
    }

    /// Flushes what waits, reads it back from the disk, and gives it its names.
    fn settle(&mut self) -> Result<(), Error> {
        self.flush()?;
        for waiting in std::mem::take(&mut self.waiting) {
            let path = &waiting.staged;
            let mut file = File::open(path).map_err(at(path))?;
            // From the disk, not from memory.
            let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            let (hash, len) = transfer(&mut file, None).map_err(at(path))?;
            if hash != waiting.hash {
                return Err(Error::Unsound {
                    path: waiting.target,
                });
            }
            own(path, &waiting.source)?;
            let times =
                fs::FileTimes::new().set_modified(waiting.source.modified().map_err(at(path))?);
            let mode = fs::Permissions::from_mode(waiting.source.mode());
            let file = File::options().write(true).open(path).map_err(at(path))?;
            file.set_permissions(mode).map_err(at(path))?;
            file.set_times(times).map_err(at(path))?;
            fs::rename(path, &waiting.target).map_err(at(&waiting.target))?;
            self.copied.files += 1;
            self.copied.bytes += len;
        }
        self.waiting_bytes = 0;
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        let folder = File::open(self.to).map_err(at(self.to))?;
        syncfs(&folder).map_err(|e| at(self.to)(e.into()))
    }

    /// Removes what was copied by an earlier attempt and has been removed from the source since.
    fn prune(&self, entries: &[Entry]) -> Result<(), Error> {
        let known: HashSet<&Path> = entries.iter().map(|entry| entry.path.as_path()).collect();
        let mut there = walk(self.to)?;
        there.reverse(); // what is in a folder before the folder
        for entry in there {
            let ours = matches!(Part::of(&entry.path), Part::Tree | Part::Blob(_));
            if !ours || known.contains(entry.path.as_path()) {
                continue;
            }
            let path = self.to.join(&entry.path);
            if entry.meta.is_dir() {
                fs::remove_dir(&path).map_err(at(&path))?;
            } else {
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }
}

struct Entry {
    /// Below the root.
    path: PathBuf,
    meta: Metadata,
}

/// What there is to copy below `root`, folders before what is in them.
fn entries(root: &Path) -> Result<Vec<Entry>, Error> {
    let mut entries = walk(root)?;
    entries.retain(|entry| {
        let made_by_mkfs = entry.path.starts_with("lost+found");
        Part::of(&entry.path) != Part::Volatile && !made_by_mkfs
    });
    Ok(entries)
}

/// Everything below `root`, folders before what is in them. What vanishes meanwhile is not in it.
fn walk(root: &Path) -> Result<Vec<Entry>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let names = match fs::read_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(at(&path))?,
        };
        for entry in names {
            let entry = entry.map_err(at(&path))?;
            let below = folder.join(entry.file_name());
            let meta = match entry.metadata() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(at(&path))?,
            };
            if meta.is_dir() {
                folders.push(below.clone());
            }
            found.push(Entry { path: below, meta });
        }
    }
    Ok(found)
}

fn own(path: &Path, like: &Metadata) -> Result<(), Error> {
    chown(path, Some(like.uid()), Some(like.gid())).map_err(at(path))
}

/// Reads to the end, writes if there is something to write to, and returns the SHA-256 and the number of the bytes.
fn transfer(from: &mut File, mut into: Option<&mut File>) -> io::Result<([u8; 32], u64)> {
    use sha2::{Digest as _, Sha256};
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut len = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok((hash.finalize().into(), len)),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hash.update(&buffer[..read]);
        if let Some(into) = &mut into {
            into.write_all(&buffer[..read])?;
        }
        len += read as u64;
    }
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::content;

    fn quiet(_: &str) {}

    fn put(root: &Path, path: &str, bytes: &[u8]) {
        let path = content(root).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn listing(root: &Path) -> Vec<(PathBuf, Vec<u8>, u32, i64)> {
        let mut all: Vec<_> = entries(root)
            .unwrap()
            .into_iter()
            .filter(|entry| entry.meta.is_file())
            .map(|entry| {
                let bytes = fs::read(root.join(&entry.path)).unwrap();
                (entry.path, bytes, entry.meta.mode(), entry.meta.mtime())
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_copy_is_the_same_and_the_second_time_nothing_is_copied() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, to) = (from.path(), to.path());
        put(from, "repositories/a/link", b"sha256:1");
        put(from, "blobs/sha256/aa/aaaa/data", &vec![7; 200_000]);
        fs::create_dir_all(staging(from)).unwrap();
        fs::write(staging(from).join("half"), b"x").unwrap();
        fs::write(from.join("note"), b"somebody's own").unwrap();
        let first = copy(from, to, What::Whole, &quiet).unwrap();
        assert_eq!((first.files, first.bytes), (3, 200_022));
        assert_eq!(first.damaged, 0, "what is no digest cannot be compared");
        assert_eq!(listing(from), listing(to));
        assert_eq!(
            copy(from, to, What::Whole, &quiet).unwrap(),
            Copied::default()
        );
        // Of the same length, within the same second.
        put(from, "repositories/a/link", b"sha256:2");
        fs::remove_dir_all(content(from).join("blobs/sha256")).unwrap();
        put(from, "repositories/b/link", b"");
        assert_eq!(copy(from, to, What::Live, &quiet).unwrap().files, 2);
        assert!(content(to).join("blobs/sha256/aa/aaaa/data").exists());
        copy(from, to, What::Whole, &quiet).unwrap();
        assert_eq!(listing(from), listing(to));
        assert!(!content(to).join("blobs/sha256").exists());
    }

    #[test]
    fn what_is_on_the_drive_already_and_is_not_ours_stays() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        put(from.path(), "repositories/a/link", b"sha256:1");
        fs::create_dir_all(to.path().join("photos")).unwrap();
        fs::write(to.path().join("photos/one"), b"jpeg").unwrap();
        copy(from.path(), to.path(), What::Whole, &quiet).unwrap();
        assert_eq!(fs::read(to.path().join("photos/one")).unwrap(), b"jpeg");
    }

    #[test]
    fn damaged_blobs_are_counted_and_copied_as_they_are() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let good = crate::oci::Algorithm::Sha256.digest(b"good");
        for (n, bytes) in [b"good", b"evil"].into_iter().enumerate() {
            let name = if n == 0 {
                good.hex().to_owned()
            } else {
                format!("{n:064x}")
            };
            put(
                from.path(),
                &format!("blobs/sha256/{}/{name}/data", &name[..2]),
                bytes,
            );
        }
        let copied = copy(from.path(), to.path(), What::Whole, &quiet).unwrap();
        assert_eq!((copied.files, copied.damaged), (2, 1));
        assert_eq!(listing(from.path()), listing(to.path()));
    }
}

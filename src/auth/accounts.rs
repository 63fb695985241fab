//! Who has credentials: the files of users, groups, robots and log-outs, read again when they change.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use std::{fs, io};

use data_encoding::BASE64URL_NOPAD;

use super::htpasswd::{BadLine, Groups, Users};
use super::identity::{ROBOT_PREFIX, Subject};
use super::logouts::Logouts;
use super::robots::Robots;
use super::settings::Htpasswd;

/// How often the files are looked at while somebody asks; so long a user lives on who was removed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Far above any list of people; what is larger is another file.
const MAX_FILE: u64 = 4 << 20;

#[derive(Debug)]
pub(super) struct Accounts {
    files: Mutex<Files>,
    current: RwLock<Arc<Snapshot>>,
}

/// What the files said when they were last read.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) users: Users,
    groups: Groups,
    pub(super) robots: Robots,
    logouts: Logouts,
    /// Another one for every change: what was found out with an older one does not count.
    pub(super) generation: u64,
}

type Paths = [PathBuf; 4];
type Stamps = [Option<Stamp>; 4];

#[derive(Debug)]
struct Files {
    paths: Paths,
    stamps: Stamps,
    looked: Instant,
}

/// Enough to see that a file is not the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A file of credentials cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}, which the registry's user has to be able to", path.display())]
pub(crate) struct FileError {
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    /// Whoever looks has no right to: the registry's user may have it.
    pub(crate) fn is_denied(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }
}

impl Accounts {
    /// A file that is not there has nobody in it, and may come later.
    ///
    /// # Errors
    /// One that is there and cannot be read.
    pub(super) fn open(settings: &Htpasswd) -> Result<Self, FileError> {
        let paths = paths(settings);
        if !paths[0].exists() {
            log::warn!(
                "auth.htpasswd.path: {} is not there, so no user can log in: `registry user add NAME` makes it",
                paths[0].display()
            );
        }
        let stamps = paths.each_ref().map(|path| stamp(path));
        let snapshot = read(&paths, 1)?;
        Ok(Accounts {
            files: Mutex::new(Files {
                paths,
                stamps,
                looked: Instant::now(),
            }),
            current: RwLock::new(Arc::new(snapshot)),
        })
    }

    /// Reads the files again if they have changed, and it is time to look.
    pub(super) fn current(&self) -> Arc<Snapshot> {
        if let Ok(mut files) = self.files.try_lock()
            && files.looked.elapsed() >= LOOK_EVERY
        {
            files.looked = Instant::now();
            let stamps = files.paths.each_ref().map(|path| stamp(path));
            if stamps != files.stamps {
                self.reread(&mut files, stamps);
            }
        }
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    fn reread(&self, files: &mut Files, stamps: Stamps) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        match read(&files.paths, current.generation + 1) {
            Ok(snapshot) => {
                log::info!(
                    "users and robots read again: {} and {}",
                    snapshot.users.len(),
                    snapshot.robots.iter().count()
                );
                *current = Arc::new(snapshot);
                files.stamps = stamps;
            }
            // Those who were let in before still are; it is tried again.
            Err(error) => log::error!("{error}: {}; the old list stays in use", error.source),
        }
    }
}

impl Snapshot {
    /// Of the stored password or key, and of the last log-out: half of its SHA-256. A token that carries it says nothing about the password, since the
    /// hash that it is made of has a salt that stays here.
    pub(super) fn fingerprint(&self, name: &str) -> Option<String> {
        let mut stored = match name.strip_prefix(ROBOT_PREFIX) {
            Some(robot) => self.robots.get(robot)?.hash().to_vec(),
            None => self.users.get(name)?.as_str().as_bytes().to_vec(),
        };
        stored.extend_from_slice(self.logouts.of(name).as_bytes());
        let hash = ring::digest::digest(&ring::digest::SHA256, &stored);
        Some(BASE64URL_NOPAD.encode(&hash.as_ref()[..16]))
    }

    /// As [`super::Identity::name`] spells it; none if there is no such user or robot (any more).
    pub(super) fn subject(&self, name: &str) -> Option<Subject> {
        if let Some(name) = name.strip_prefix(ROBOT_PREFIX) {
            let robot = self.robots.get(name)?;
            return (!robot.has_expired(time::OffsetDateTime::now_utc())).then(|| Subject::Robot {
                name: name.into(),
                scope: robot.scope(),
            });
        }
        self.users.contains(name).then(|| Subject::User {
            name: name.into(),
            groups: self.groups.of(name),
        })
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: meta.ino(),
        len: meta.len(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

fn paths(settings: &Htpasswd) -> Paths {
    [
        settings.path.clone(),
        settings.groups_path(),
        settings.robots_path(),
        settings.logouts_path(),
    ]
}

/// A line of one of the files that counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: lets nobody in: {}", path.display(), line.line, line.text)]
pub(crate) struct Complaint {
    path: PathBuf,
    line: BadLine,
}

/// What is wrong with the files.
///
/// # Errors
/// One that is there and cannot be read: nothing could be served.
pub(crate) fn complaints(settings: &Htpasswd) -> Result<Vec<Complaint>, FileError> {
    let paths = paths(settings);
    let [users, groups, robots, logouts] = &paths;
    let mut complaints = Vec::new();
    for (path, bad) in [
        (users, parse(users, Users::parse)?.1),
        (groups, parse(groups, Groups::parse)?.1),
        (robots, parse(robots, Robots::parse)?.1),
        (logouts, parse(logouts, Logouts::parse)?.1),
    ] {
        let path = path.clone();
        complaints.extend(bad.into_iter().map(|line| Complaint {
            path: path.clone(),
            line,
        }));
    }
    Ok(complaints)
}

fn read(paths: &Paths, generation: u64) -> Result<Snapshot, FileError> {
    let [users, groups, robots, logouts] = paths;
    Ok(Snapshot {
        users: parsed(users, Users::parse)?,
        groups: parsed(groups, Groups::parse)?,
        robots: parsed(robots, Robots::parse)?,
        logouts: parsed(logouts, Logouts::parse)?,
        generation,
    })
}

fn parsed<T>(path: &Path, with: fn(&str) -> (T, Vec<BadLine>)) -> Result<T, FileError> {
    let (parsed, bad) = parse(path, with)?;
    for line in bad {
        let path = path.to_owned();
        log::warn!("{}", Complaint { path, line });
    }
    Ok(parsed)
}

fn parse<T>(
    path: &Path,
    with: fn(&str) -> (T, Vec<BadLine>),
) -> Result<(T, Vec<BadLine>), FileError> {
    let text = match text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => {
            return Err(FileError {
                path: path.to_owned(),
                source,
            });
        }
    };
    Ok(with(&text))
}

fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut file = fs::File::open(path)?.take(MAX_FILE + 1);
    file.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is too large",
        ));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

//! Who has credentials: the files of users, groups and robots, read again when they change.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use std::{fs, io};

use data_encoding::BASE64URL_NOPAD;

use super::htpasswd::{BadLine, Groups, Users};
use super::identity::{ROBOT_PREFIX, Subject};
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
    /// Another one for every change: what was found out with an older one does not count.
    pub(super) generation: u64,
}

#[derive(Debug)]
struct Files {
    paths: [PathBuf; 3],
    stamps: [Option<Stamp>; 3],
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

impl Accounts {
    /// A file that is not there has nobody in it, and may come later.
    ///
    /// # Errors
    /// One that is there and cannot be read.
    pub(super) fn open(settings: &Htpasswd) -> Result<Self, FileError> {
        let paths = [
            settings.path.clone(),
            settings.groups_path(),
            settings.robots_path(),
        ];
        if !paths[0].exists() {
            log::warn!(
                "auth.htpasswd.path: {} is not there, so no user can log in: `registry user add NAME` makes it",
                paths[0].display()
            );
        }
        let stamps = [0, 1, 2].map(|i| stamp(&paths[i]));
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
            let stamps = [0, 1, 2].map(|i| stamp(&files.paths[i]));
            if stamps != files.stamps {
                self.reread(&mut files, stamps);
            }
        }
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    fn reread(&self, files: &mut Files, stamps: [Option<Stamp>; 3]) {
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
    /// Of the stored password or key: half of its SHA-256. A token that carries it says nothing about the password, since the
    /// hash that it is made of has a salt that stays here.
    pub(super) fn fingerprint(&self, name: &str) -> Option<String> {
        let stored = match name.strip_prefix(ROBOT_PREFIX) {
            Some(robot) => self.robots.get(robot)?.hash().to_vec(),
            None => self.users.get(name)?.as_str().as_bytes().to_vec(),
        };
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

fn read(paths: &[PathBuf; 3], generation: u64) -> Result<Snapshot, FileError> {
    let [users, groups, robots] = paths;
    Ok(Snapshot {
        users: parsed(users, Users::parse)?,
        groups: parsed(groups, Groups::parse)?,
        robots: parsed(robots, Robots::parse)?,
        generation,
    })
}

fn parsed<T>(path: &Path, parse: fn(&str) -> (T, Vec<BadLine>)) -> Result<T, FileError> {
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
    let (parsed, bad) = parse(&text);
    for BadLine { line, text } in bad {
        log::warn!("{}:{line}: lets nobody in: {text}", path.display());
    }
    Ok(parsed)
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

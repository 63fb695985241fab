//! The external drive of a machine: which ones there are, and how one becomes the place of the images, and stops to be.
//!
//! Taking a drive into use is a row of steps each of which can be done twice. Which come next is read from what is on the
//! disks, never from a memory of our own, so that whoever was interrupted begins again and goes on:
//!
//! | on the drive | on the machine | the truth is | next |
//! | --- | --- | --- | --- |
//! | no marker | no expectation | in the directory | mark the drive as *incoming*, copy |
//! | incoming | no expectation | in the directory | copy what is missing, verify, write the expectation: **the switch** |
//! | incoming | expectation | on the drive | mark the drive as complete |
//! | complete | expectation | on the drive | set the directory aside, mount, start |
//!
//! Between the switch and the last step the server serves nothing (`storage/drive`), and never from the wrong place.

mod adopt;
mod candidate;
mod copy;
mod durably;
mod expectation;
mod format;
mod lsblk;
mod place;
mod programs;
mod release;
mod service;
mod speed;
mod stage;
mod status;
mod unit;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use adopt::{Both, Done, adopt};
pub(crate) use candidate::{
    Candidate, NeedsFormat, Verdict, candidate, candidates, unsuitable_mount,
};
pub(crate) use expectation::Expectation;
pub(crate) use format::format;
pub(crate) use lsblk::{find, list};
pub(crate) use release::{Images, release};
pub(crate) use status::{Presence, Status, status};

/// Where the images belong, and where that is remembered.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// `storage.filesystem.rootdirectory`, absolute.
    pub(crate) root: PathBuf,
    /// `storage.filesystem.drive`.
    pub(crate) expectation: PathBuf,
}

/// Is told what is being done, for people to read.
pub(crate) type Say<'a> = &'a (dyn Fn(&str) + Sync);

/// Why a drive is not set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{program}: {reason}")]
    Program { program: String, reason: String },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error(transparent)]
    Expectation(#[from] expectation::ExpectationError),
    #[error("{0}")]
    InUse(String),
    #[error("{0}")]
    Refused(String),
    #[error(
        "{path} was not copied rightly: what was read back is not what was written. The drive, its cable or its power supply is \
         not sound; nothing was changed"
    )]
    Unsound { path: PathBuf },
    #[error("the images need {need} MB, but there are only {have} MB of room; nothing was changed")]
    NoRoom { need: u64, have: u64 },
}

fn io_error(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io {
        what: what.to_string(),
        source,
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    io_error(path.display())
}

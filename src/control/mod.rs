//! How commands reach the server that owns the tree: a Unix socket beside it.
//!
//! A command sends one line of JSON, a [`Request`]; the server answers with lines, each an `Event`, and closes. Whoever
//! closes before stops the task. Only root and the user that the server runs as are listened to: the kernel says who it is.

mod client;
mod server;
mod task;

use serde::{Deserialize, Serialize};

pub(crate) use client::{CallError, call};
pub(crate) use server::listen;
pub(crate) use task::carry_out;

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// One collection, now.
    /// One check of what is stored, now.
    Verify {
        contents: bool,
        dry_run: bool,
        /// Mend whatever can be.
        mend: bool,
        repos: Vec<String>,
    },
    GarbageCollect {
        dry_run: bool,
        untagged: bool,
        #[serde(default)]
        forget_undo: bool,
        /// In place of `gc.grace`, in milliseconds.
        #[serde(default)]
        grace: Option<u64>,
    },
    /// What a tag pointed to.
    History { repository: String, tag: String },
    /// That it points to something of before again: to `to`, a digest, or to the last. `reference` is a tag, or the digest
    /// of a manifest that was deleted.
    Undo {
        repository: String,
        reference: String,
        to: Option<String>,
    },
    /// That images go. `older_than` in seconds; what was pushed after `not_after`, in milliseconds since 1970, is not meant.
    Remove {
        patterns: Vec<String>,
        older_than: Option<u64>,
        not_after: Option<u64>,
        force: bool,
        purge: bool,
        dry_run: bool,
    },
    /// That what the rules of `retention` say goes now.
    Retention { dry_run: bool },
}

/// Longer requests are nobody's, in bytes.
const REQUEST_LIMIT: u64 = 64 * 1024;

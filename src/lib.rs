//! A container registry: OCI distribution over HTTP, on a disk laid out as CNCF distribution lays it out.
//!
//! One straight line from socket to bytes, and a folder for each step (`docs/ARCHITECTURE.md` draws who may call whom):
//!
//! ```text
//! socket -> http (Op::parse -> dispatch -> handler -> Reply) -> registry (one verb) -> storage (a few calls) -> disk
//! ```
//!
//! `oci` is the vocabulary of all of them, `config` is read by `cli` alone, and `cli` puts the parts together.

mod auth;
mod causes;
mod cli;
mod config;
mod control;
mod drive;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod http;
mod logging;
mod maintenance;
mod metrics;
mod notifications;
pub mod oci;
mod registry;
mod secret;
mod storage;
mod systemd;
mod tls;
mod upstream;

pub use cli::{command, run};

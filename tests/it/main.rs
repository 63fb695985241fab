//! Stories through the front door: the real binary, real sockets, real files.
#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

mod clients;
mod config;
mod crash;
mod support;

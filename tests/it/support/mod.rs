//! What the integration tests stand on: a raw HTTP/1.1 client, the real binary as a child process, deterministic images,
//! and disks that fail.
#![allow(
    dead_code,
    reason = "shared by every test file; none of them uses all of it"
)]

pub(crate) mod forgetful;
pub(crate) mod http;
pub(crate) mod image;
pub(crate) mod seed;
pub(crate) mod server;

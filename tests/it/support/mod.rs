//! What the integration tests stand on: a raw HTTP/1.1 client, the real binary as a child process, deterministic images,
//! what a registry owes its clients, and disks that fail.
#![allow(
    dead_code,
    reason = "shared by every test file; none of them uses all of it"
)]

pub(crate) mod command;
pub(crate) mod crowd;
pub(crate) mod forgetful;
pub(crate) mod http;
pub(crate) mod image;
pub(crate) mod jwt;
pub(crate) mod ledger;
pub(crate) mod loop_disk;
pub(crate) mod machine;
pub(crate) mod owner;
pub(crate) mod seed;
pub(crate) mod server;
pub(crate) mod tree;
pub(crate) mod upstream;
pub(crate) mod usb;
pub(crate) mod worker;

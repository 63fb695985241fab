//! Stories through the front door: the real binary, real sockets, real files.
#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

mod access;
mod admin;
mod architecture;
mod auth;
mod clients;
mod config;
mod connections;
mod crash;
mod damage;
mod disk;
mod drive;
mod drive_command;
mod errors;
mod flood;
mod gc;
mod immutable;
mod lan;
mod listings;
mod manage;
mod manifests;
mod memory;
mod migrate;
mod notifications;
mod oci_client;
mod pipelining;
mod proxy;
mod pull;
mod push;
mod quota;
mod recipes;
mod referrers;
mod retention;
mod rm;
mod service;
mod support;
mod systemd;
mod tls;
mod token;
mod trust;
mod undo;
mod unreadable;
mod uploads;
mod users;

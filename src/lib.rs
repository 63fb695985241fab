//! registry

mod auth;
mod cli;
mod config;
mod http;
mod logging;
mod metrics;
mod notifications;
mod registry;
mod secret;
mod storage;
mod upstream;

pub use cli::run;

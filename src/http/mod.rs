//! The HTTP server.
pub(crate) mod settings;

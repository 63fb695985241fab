//! Webhooks.
pub(crate) mod settings;

//! Where the bytes are.
pub(crate) mod settings;

//! The domain.
pub(crate) mod settings;

//! Who may do what.
pub(crate) mod settings;
pub(crate) mod token;

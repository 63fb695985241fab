//! Who may do what.
pub(crate) mod settings;
pub(crate) mod token;

pub(crate) use token::Scopes;

//! Other registries that content is fetched from.
pub(crate) mod settings;

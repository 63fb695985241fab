//! What the registry does when nobody asks.

mod expire;
mod mirror;

pub(crate) use expire::purge_uploads;
pub(crate) use mirror::expire_fetched;

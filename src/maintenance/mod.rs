//! What the registry does when nobody asks.

mod expire;

pub(crate) use expire::purge_uploads;

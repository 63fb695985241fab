//! The time, on machines that have no battery for their clock.

use time::OffsetDateTime;

/// Seconds since 1970 at which the sources of this version were there: the time is never before it. A build that sets
/// `SOURCE_DATE_EPOCH` says it more precisely, and stays reproducible.
const RELEASED: i64 = 1_795_219_200;

/// The later of the clock and the time this program was built: a Raspberry Pi without a network starts in the past, and
/// what is valid from then on would have ended when others look at it.
pub(super) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc().max(built())
}

fn built() -> OffsetDateTime {
    let epoch = option_env!("SOURCE_DATE_EPOCH").and_then(|seconds| seconds.parse().ok());
    OffsetDateTime::from_unix_timestamp(epoch.unwrap_or(RELEASED).max(RELEASED))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

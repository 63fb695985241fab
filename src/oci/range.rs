//! Byte ranges: the `Range` of a download (RFC 9110, section 14) and the `Content-Range` of an upload's chunk
//! (distribution-spec, "Pushing a blob in chunks").

use std::ops::Range;
use std::str::FromStr;

/// One range of a `Range: bytes=...` header, before the size of the content is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// `a-b`, both ends inclusive. One that ends before it begins has no byte, and lies in no content.
    Between(u64, u64),
    /// `a-`
    From(u64),
    /// `-n`: the last n bytes.
    Last(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// To be ignored, as RFC 9110 asks of what a server does not understand.
    #[error("the range is not a byte range of the form bytes=a-b")]
    Malformed,
    #[error("the range lies outside of the content")]
    Unsatisfiable,
}

impl ByteRange {
    /// Parses the header's value. Several ranges at once answer `Malformed`, so that the whole content is sent: a
    /// server may ignore `Range`, and every client seen sending several (zstd:chunked) copes with a 200.
    pub fn parse(header: &str) -> Result<Self, RangeError> {
        let (unit, spec) = header.split_once('=').ok_or(RangeError::Malformed)?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Err(RangeError::Malformed);
        }
        let (first, last) = spec.trim().split_once('-').ok_or(RangeError::Malformed)?;
        match (first, last) {
            ("", n) => Ok(ByteRange::Last(number(n)?)),
            (a, "") => Ok(ByteRange::From(number(a)?)),
            (a, b) => Ok(ByteRange::Between(number(a)?, number(b)?)),
        }
    }

    /// The bytes meant in content of `len` bytes, as a half-open range that is never empty.
    pub fn within(self, len: u64) -> Result<Range<u64>, RangeError> {
        let range = match self {
            ByteRange::Between(a, b) => a..b.saturating_add(1).min(len),
            ByteRange::From(a) => a..len,
            ByteRange::Last(n) => len.saturating_sub(n)..len,
        };
        if range.start < range.end {
            Ok(range)
        } else {
            Err(RangeError::Unsatisfiable)
        }
    }
}

/// `Content-Range` of a chunk: `a-b`, inclusive. Docker's older `bytes a-b/total` is taken too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    pub first: u64,
    pub last: u64,
}

impl ContentRange {
    /// Length of the chunk in bytes, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a parsed range is never empty")]
    pub fn len(self) -> u64 {
        self.last - self.first + 1
    }
}

impl FromStr for ContentRange {
    type Err = RangeError;

    fn from_str(header: &str) -> Result<Self, RangeError> {
        let spec = header.trim();
        let spec = spec
            .strip_prefix("bytes")
            .map_or(spec, |rest| rest.trim_start_matches([' ', '=']));
        let spec = spec.split_once('/').map_or(spec, |(range, _)| range);
        let (first, last) = spec.split_once('-').ok_or(RangeError::Malformed)?;
        let range = ContentRange {
            first: number(first)?,
            last: number(last)?,
        };
        if range.first <= range.last && range.last < u64::MAX {
            Ok(range)
        } else {
            Err(RangeError::Malformed)
        }
    }
}

/// Digits only: `u64::from_str` would take a plus sign. A number that is too large for one lies behind every end, as the
/// largest does.
fn number(text: &str) -> Result<u64, RangeError> {
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
        return Err(RangeError::Malformed);
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_three_forms() {
        assert_eq!(ByteRange::parse("bytes=0-4"), Ok(ByteRange::Between(0, 4)));
        assert_eq!(ByteRange::parse("bytes=7-"), Ok(ByteRange::From(7)));
        assert_eq!(ByteRange::parse("bytes=-3"), Ok(ByteRange::Last(3)));
        for bad in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "lines=0-1",
            "bytes=0-1,3-4",
        ] {
            assert_eq!(ByteRange::parse(bad), Err(RangeError::Malformed), "{bad}");
        }
    }

    #[test]
    fn is_cut_to_the_content_or_unsatisfiable() {
        let within = |header: &str, len| ByteRange::parse(header).unwrap().within(len);
        assert_eq!(within("bytes=0-99", 10), Ok(0..10));
        assert_eq!(within("bytes=9-", 10), Ok(9..10));
        assert_eq!(within("bytes=-99", 10), Ok(0..10));
        let huge = "99999999999999999999999";
        assert_eq!(within(&format!("bytes=3-{huge}"), 10), Ok(3..10));
        assert_eq!(within(&format!("bytes=-{huge}"), 10), Ok(0..10));
        assert_eq!(
            within(&format!("bytes={huge}-"), 10),
            Err(RangeError::Unsatisfiable)
        );
        for (header, len) in [
            ("bytes=10-", 10),
            ("bytes=10-11", 10),
            ("bytes=-0", 10),
            ("bytes=5-0", 10),
            ("bytes=5-4", 10),
            ("bytes=0-", 0),
            ("bytes=-1", 0),
        ] {
            assert_eq!(
                within(header, len),
                Err(RangeError::Unsatisfiable),
                "{header} of {len}"
            );
        }
    }

    #[test]
    fn content_ranges() {
        assert_eq!(
            "0-4194303".parse(),
            Ok(ContentRange {
                first: 0,
                last: 4_194_303
            })
        );
        assert_eq!(
            "bytes 5-9/10".parse(),
            Ok(ContentRange { first: 5, last: 9 })
        );
        for bad in [
            "",
            "-",
            "1",
            "3-2",
            "-5",
            "5-",
            "0-18446744073709551615",
            "0-99999999999999999999999",
            "a-b",
        ] {
            assert_eq!(
                bad.parse::<ContentRange>(),
                Err(RangeError::Malformed),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_satisfied_range_lies_inside(header in "bytes=[0-9]{0,25}-[0-9]{0,25}", len: u64) {
            if let Ok(range) = ByteRange::parse(&header).and_then(|r| r.within(len)) {
                prop_assert!(range.start < range.end && range.end <= len);
            }
        }

        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = ByteRange::parse(&text).map(|r| r.within(5));
            let _ = text.parse::<ContentRange>().map(ContentRange::len);
        }
    }
}

//! Spans of time and sizes as people write them; what is parsed is printed back to the same value.

use std::fmt;
use std::time::Duration;

/// A length of time: Go's strings (`168h`, `1h30m`, `1.5s`, `300ms`) and `d` for 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// Longest first, for printing. `d` is parsed and not printed: Go would not read it.
const SPAN_UNITS: [(&str, u64); 8] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("µs", 1_000),
    ("d", 86_400_000_000_000),
];

impl Span {
    /// Go's limit, 292 years; also what keeps sums with a clock from overflowing.
    const MAX: u128 = i64::MAX as u128;

    pub(crate) fn parse(text: &str) -> Result<Span, String> {
        let wrong = || format!("`{text}` is no duration");
        if text.starts_with('-') {
            return Err(format!("`{text}` is negative"));
        }
        if text == "0" {
            return Ok(Span(Duration::ZERO));
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut nanos: u128 = 0;
        while !rest.is_empty() {
            let number_end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let (number, tail) = rest.split_at(number_end);
            let unit_end = tail
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            if unit.is_empty() {
                return Err(format!("`{text}` lacks a unit (h, m, s, ms)"));
            }
            // U+03BC and U+00B5 are both in use, as in Go.
            let unit = if unit == "\u{3bc}s" { "us" } else { unit };
            let scale = SPAN_UNITS.iter().find(|(name, _)| *name == unit);
            let (_, scale) =
                scale.ok_or_else(|| format!("`{text}` has the unknown unit `{unit}`"))?;
            nanos = scaled(number, u128::from(*scale))
                .and_then(|n| nanos.checked_add(n))
                .ok_or_else(wrong)?;
            if nanos > Span::MAX {
                return Err(format!("`{text}` is longer than 292 years"));
            }
            rest = tail;
        }
        let nanos = u64::try_from(nanos).map_err(|_| wrong())?;
        Ok(Span(Duration::from_nanos(nanos)))
    }
}

/// `number` (digits, with or without a fraction) times `scale`, what is below one cut off.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    // Further digits are below a nanosecond of a day, and a byte of an exbibyte.
    let fraction = &fraction[..fraction.len().min(18)];
    let part = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<u128>().ok()?.checked_mul(scale)?
            / 10u128.pow(u32::try_from(fraction.len()).ok()?)
    };
    whole.checked_mul(scale)?.checked_add(part)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        for (name, scale) in &SPAN_UNITS[..6] {
            let count = nanos / u128::from(*scale);
            nanos %= u128::from(*scale);
            if count > 0 {
                write!(f, "{count}{name}")?;
            }
        }
        Ok(())
    }
}

/// A number of bytes: `4MiB`, `10GiB`, `1.5GB` (KB, MB, GB, TB count in thousands), `512B`, `512`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteSize(pub(crate) u64);

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    pub(crate) fn parse(text: &str) -> Result<ByteSize, String> {
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim_start();
        let scale = match SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        {
            Some((_, scale)) => *scale,
            None if unit.is_empty() => 1,
            // `10G` means either, depending on who reads it.
            None => {
                return Err(format!(
                    "`{text}` lacks a known unit (KiB, MiB, GiB, TiB; KB, MB, GB, TB)"
                ));
            }
        };
        let bytes =
            scaled(number, u128::from(scale)).ok_or_else(|| format!("`{text}` is no size"))?;
        let bytes = u64::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes <= i64::MAX as u64);
        bytes
            .map(ByteSize)
            .ok_or_else(|| format!("`{text}` is more than any file system holds"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZE_UNITS
            .iter()
            .find(|(_, scale)| self.0 != 0 && self.0.is_multiple_of(*scale));
        let (name, scale) = exact.unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / scale)
    }
}

#[cfg(test)]
mod tests {
    use super::{ByteSize, Span};
    use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
    use std::time::Duration;

    #[test]
    fn spans_are_gos_strings_and_days() {
        let cases = [
            ("168h", 604_800_000_000_000),
            ("7d", 604_800_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5m", 30_000_000_000),
            ("10ms", 10_000_000),
            ("3us", 3_000),
            ("3µs", 3_000),
            ("3μs", 3_000),
            ("1d12h", 129_600_000_000_000),
            ("0", 0),
            ("0s", 0),
            ("+5s", 5_000_000_000),
        ];
        for (text, nanos) in cases {
            assert_eq!(
                Span::parse(text),
                Ok(Span(Duration::from_nanos(nanos))),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_span_says_why() {
        for (text, why) in [
            ("", "no duration"),
            ("5", "lacks a unit"),
            ("-5s", "negative"),
            ("5 s", "unknown unit ` s`"),
            ("1w", "unknown unit `w`"),
            ("h", "no duration"),
            (".s", "no duration"),
            ("1..5s", "no duration"),
            ("99999999h", "292 years"),
            ("999999999999999999999999999999999999999999h", "no duration"),
        ] {
            let err = Span::parse(text).unwrap_err();
            assert!(err.contains(why), "{text}: {err}");
        }
    }

    #[test]
    fn sizes_count_in_1024_or_1000_and_never_guess() {
        for (text, bytes) in [
            ("4MiB", 4 << 20),
            ("10GiB", 10 << 30),
            ("1.5KiB", 1536),
            ("1.5GB", 1_500_000_000),
            ("512", 512),
            ("512B", 512),
            ("4 mib", 4 << 20),
            ("0", 0),
        ] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
        }
        for text in [
            "",
            "MiB",
            "4M",
            "10G",
            "-1",
            "4MiBs",
            "9999999999TiB",
            "1.2.3MiB",
        ] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
        assert_eq!(ByteSize(4 << 20).to_string(), "4MiB");
        assert_eq!(ByteSize(0).to_string(), "0B");
        assert_eq!(Span(Duration::from_secs(604_800)).to_string(), "168h");
        assert_eq!(Span(Duration::from_secs(90)).to_string(), "1m30s");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn spans_round_trip(nanos in 0..=i64::MAX as u64) {
            let span = Span(Duration::from_nanos(nanos));
            prop_assert_eq!(Span::parse(&span.to_string()), Ok(span));
        }

        #[test]
        fn sizes_round_trip(bytes in 0..=i64::MAX as u64, shift in 0u32..40) {
            let size = ByteSize(bytes >> shift << shift);
            prop_assert_eq!(ByteSize::parse(&size.to_string()), Ok(size));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = Span::parse(&text);
            let _ = ByteSize::parse(&text);
        }

        #[test]
        fn nor_does_almost_a_unit(text in "[0-9.]{0,30}[a-zA-Zµ]{0,4}[0-9.]{0,30}[hmsd]?") {
            let _ = Span::parse(&text);
            let _ = ByteSize::parse(&text);
        }
    }
}

use proptest::prelude::*;

use super::*;

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A literal field with a name of its own, not indexed.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        let len = text.len();
        if len < 127 {
            out.push(len as u8);
        } else {
            let rest = len - 127;
            out.extend_from_slice(&[127, 0x80 | (rest & 127) as u8, (rest >> 7) as u8]);
        }
        out.extend_from_slice(text.as_bytes());
    }
    out
}

fn read(frames: &[Vec<u8>], step: usize) -> Result<Frames, Excess> {
    let bytes = [HELLO, &frames.concat()].concat();
    let mut read = Frames::new();
    for part in bytes.chunks(step) {
        read.read(part)?;
    }
    Ok(read)
}

#[test]
fn ordinary_requests_pass_however_they_are_cut() {
    let block = [
        vec![0x82, 0x86, 0x84, 0x41, 0x01, b'x', 0x3f, 0x80, 0x00],
        field("authorization", &"t".repeat(16 << 10)),
        vec![0x40, 0x81, 0x11, 0x00],
        vec![0x7f, 0x01, 0x02, b'a', b'b'],
    ]
    .concat();
    let padded = [&[7, 0, 0, 0, 0, 16][..], &block[..9], &[0; 7]].concat();
    let frames = [
        frame(SETTINGS, 0, 0, &[0; 6]),
        frame(HEADERS, PADDED | PRIORITY | 1, 1, &padded),
        frame(CONTINUATION, 0, 1, &block[9..200]),
        frame(CONTINUATION, END_HEADERS, 1, &block[200..]),
        frame(DATA, 0, 1, &[9; 1000]),
        frame(HEADERS, END_HEADERS | 1, 1, &[]),
        frame(HEADERS, END_HEADERS, 3, &block),
        frame(77, 0, 0, &[9; 3]),
    ];
    for step in [1, 2, 7, 1000, usize::MAX] {
        let mut read = read(&frames, step).unwrap();
        assert_eq!(
            (read.opened(), read.take_data(), read.take_data()),
            (2, 1000, 0)
        );
        assert!(read.have == 0 && read.block.is_none());
    }
}

#[test]
fn fields_are_counted_whatever_they_are() {
    let cases: [&[u8]; 5] = [
        &[0x82],
        &[0x40, 0x01, b'a', 0x00],
        &[0x00, 0x81, 0x1f, 0x01, b'b'],
        &[0x1f, 0x00, 0x00],
        &[0xff, 0x00],
    ];
    for field in cases {
        let block = field.repeat(MAX_FIELDS as usize);
        let one = |block: &[u8]| read(&[frame(HEADERS, END_HEADERS, 1, block)], 100);
        assert!(one(&block).is_ok(), "{field:?}");
        let more = [&block, field].concat();
        assert_eq!(one(&more).unwrap_err(), Excess::Fields, "{field:?}");
        let (first, last) = more.split_at(more.len() / 2);
        let two = [
            frame(HEADERS, 0, 1, first),
            frame(CONTINUATION, END_HEADERS, 1, last),
        ];
        assert_eq!(read(&two, 9).unwrap_err(), Excess::Fields);
    }
    // A change of the table's size is none.
    let sizes = [0x20; 5000];
    assert!(read(&[frame(HEADERS, END_HEADERS, 1, &sizes)], 100).is_ok());
}

#[test]
fn blocks_are_limited_and_counted_anew() {
    let part = [0x20; 16 << 10];
    let mut frames = vec![frame(HEADERS, 0, 1, &part)];
    frames.extend(vec![frame(CONTINUATION, 0, 1, &part); 3]);
    assert!(read(&frames, usize::MAX).is_ok());
    frames.push(frame(CONTINUATION, END_HEADERS, 1, &[0x20]));
    assert_eq!(read(&frames, usize::MAX).unwrap_err(), Excess::Block);
    let many: Vec<_> = (0..100)
        .map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &[0x82; 200]))
        .collect();
    assert_eq!(read(&many, usize::MAX).unwrap().opened(), 100);
}

#[test]
fn clients_push_nothing_and_numbers_end() {
    let push = frame(PUSH_PROMISE, END_HEADERS, 1, &[0; 4]);
    assert_eq!(read(&[push], 3).unwrap_err(), Excess::Push);
    let number = frame(HEADERS, END_HEADERS, 1, &[0xff; 12]);
    assert_eq!(read(&[number], 3).unwrap_err(), Excess::Malformed);
}

#[test]
fn streams_are_counted_as_long_as_they_are_under_way() {
    assert_eq!(check_streams(TOO_MANY_STREAMS + 5, 5), Ok(()));
    assert_eq!(check_streams(TOO_MANY_STREAMS + 6, 5), Err(Excess::Streams));
    assert_eq!(check_streams(3, u32::MAX - 3), Ok(()));
}

#[test]
fn the_limits_are_announced_in_the_first_settings() {
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 16, 0, 0]);
    let update = frame(8, 0, 0, &[0, 1, 0, 0]);
    let (out, replaced) = announce(&[settings.clone(), update].concat()).unwrap();
    assert_eq!(replaced, settings.len());
    let expected = [0, 4, 0, 16, 0, 0, 0, 3, 0, 0, 0, 32, 0, 6, 0, 1, 0, 0];
    assert_eq!(out, frame(SETTINGS, 0, 0, &expected));
    for other in [
        &frame(SETTINGS, ACK, 0, &[])[..],
        b"HTTP/1.1 200 OK\r\n",
        &settings[..12],
        b"",
    ] {
        assert_eq!(announce(other), None);
    }
}

proptest! {
    #[test]
    fn how_bytes_are_cut_makes_no_difference(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        kinds in prop::collection::vec((0..12u8, any::<u8>(), 0..40usize), 0..20),
        step in 1..50usize,
    ) {
        let mut at = 0;
        let mut frames: Vec<Vec<u8>> = Vec::new();
        for (kind, flags, len) in kinds {
            let end = bytes.len().min(at + len);
            frames.push(frame(kind, flags, 1, &bytes[at..end]));
            at = end;
        }
        frames.push(bytes);
        let whole = read(&frames, usize::MAX).map(|mut read| (read.opened(), read.take_data()));
        let parts = read(&frames, step).map(|mut read| (read.opened(), read.take_data()));
        prop_assert_eq!(whole, parts);
    }

    /// Nothing passes that has more fields than allowed: counted here from what was put in.
    #[test]
    fn fields_in_random_shapes(
        names in prop::collection::vec(("[a-z]{0,9}", "[A-Z]{0,3}"), 0..400),
        cut in 0..5000usize,
    ) {
        let block: Vec<u8> = names.iter().flat_map(|(name, value)| field(name, value)).collect();
        let (first, last) = block.split_at(cut.min(block.len()));
        let frames = [frame(HEADERS, 0, 1, first), frame(CONTINUATION, END_HEADERS, 1, last)];
        let passes = names.len() <= MAX_FIELDS as usize && block.len() <= MAX_BLOCK as usize;
        prop_assert_eq!(read(&frames, 100).is_ok(), passes);
    }
}

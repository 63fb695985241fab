use proptest::prelude::*;

use super::*;

const NONE: Answered = Answered {
    begun: 0,
    whole: 0,
    is_last: false,
};

fn answered(whole: u32) -> Answered {
    Answered {
        begun: whole,
        whole,
        is_last: false,
    }
}

const GET: &[u8] = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
const HEAD: &[u8] = b"HEAD /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
const SIZED: &[u8] = b"PUT /a HTTP/1.1\r\nHost: x\r\ncontent-LENGTH: 5\r\n\r\nabcde";
const CHUNKED: &[u8] =
    b"PATCH /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=b\r\nabcde\r\n00A \r\n0123456789\r\n0\r\nT: x\r\nU: y\r\n\r\n";

#[test]
fn the_next_request_waits_for_the_answer() {
    for first in [GET, HEAD, SIZED, CHUNKED, b"\r\nGET / HTTP/1.0\n\n"] {
        let mut requests = Requests::new();
        let bytes = [first, HEAD, GET].concat();
        assert_eq!(requests.pass(&bytes, NONE, 0), first.len());
        assert_eq!(requests.turn(NONE, 0), Turn::Wait);
        let begun = Answered { begun: 1, ..NONE };
        assert_eq!(requests.turn(begun, 0), Turn::Wait);
        assert_eq!(requests.turn(answered(1), 0), Turn::Held);
        let held = requests.take_held(usize::MAX);
        assert_eq!(requests.pass(&held, answered(1), 0), HEAD.len());
        assert_eq!(requests.turn(answered(1), 0), Turn::Wait);
        assert_eq!(requests.turn(answered(2), 0), Turn::Held);
        let held = requests.take_held(usize::MAX);
        assert_eq!(requests.pass(&held, answered(2), 0), GET.len());
        assert_eq!(requests.turn(answered(2), 0), Turn::Read);
    }
}

#[test]
fn after_the_last_answer_nothing_is_held() {
    let mut requests = Requests::new();
    requests.pass(&[GET, HEAD].concat(), NONE, 0);
    let last = Answered {
        is_last: true,
        ..answered(1)
    };
    assert_eq!(requests.turn(last, 0), Turn::Held);
    let held = requests.take_held(usize::MAX);
    assert_eq!(requests.pass(&held, last, 0), HEAD.len());
    assert_eq!(requests.pass(GET, last, 0), GET.len());
}

#[test]
fn what_was_held_is_passed_on_in_order_however_little_fits() {
    let mut requests = Requests::new();
    let bytes = [GET, SIZED, CHUNKED].concat();
    let mut passed = requests.pass(&bytes, NONE, 0);
    for whole in 1..3 {
        // Whatever comes is wanted.
        while requests.turn(answered(whole), passed as u32) == Turn::Held {
            let held = requests.take_held(7);
            assert!(bytes[passed..].starts_with(&held));
            let n = requests.pass(&held, answered(whole), passed as u32);
            assert!(n > 0);
            passed += n;
        }
    }
    assert_eq!(passed, bytes.len());
}

#[test]
fn a_body_that_nobody_wants_stays_outside() {
    let mut requests = Requests::new();
    assert_eq!(
        requests.pass(&SIZED[..SIZED.len() - 3], NONE, 7),
        SIZED.len() - 3
    );
    assert_eq!(requests.turn(NONE, 7), Turn::Wait);
    assert_eq!(requests.turn(NONE, 8), Turn::Read, "wanted");
    let mut requests = Requests::new();
    requests.pass(&SIZED[..SIZED.len() - 3], NONE, 7);
    let begun = Answered { begun: 1, ..NONE };
    assert_eq!(requests.turn(begun, 7), Turn::Read, "refused");
    let mut requests = Requests::new();
    requests.pass(SIZED, NONE, 7);
    assert_eq!(requests.turn(NONE, 7), Turn::Read, "all of it is here");
}

#[test]
fn malformed_chunks_are_the_end() {
    for chunks in [
        "x",
        "5x",
        "5\rx",
        "5\r\nabcdeX",
        "5\r\nabcde\rX",
        "fffffffffffffffff\r\n",
        "5;\x01",
        "0\r\n\rX",
        "\r\n",
        "0\r\na\rX",
    ] {
        let head = "PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut requests = Requests::new();
        let bytes = format!("{head}{chunks}");
        assert!(
            requests.pass(bytes.as_bytes(), NONE, 0) < bytes.len(),
            "{chunks:?}"
        );
        assert!(requests.is_broken());
        assert_eq!(requests.turn(NONE, 1), Turn::End);
    }
}

#[test]
fn what_is_uncertain_is_passed_on() {
    for head in [
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nContent-Length: 3\r\n\r\n",
        "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        "not a request\r\n\r\n",
        "\x16\x03\x01",
    ] {
        let mut requests = Requests::new();
        let bytes = [head.as_bytes(), GET, HEAD].concat();
        assert_eq!(requests.pass(&bytes, NONE, 0), bytes.len(), "{head}");
        assert_eq!(requests.turn(NONE, 0), Turn::Read);
    }
    let mut requests = Requests::new();
    let endless = [b'a'; MAX_HEAD + 1];
    assert_eq!(requests.pass(&endless, NONE, 0), endless.len());
    assert_eq!(requests.pass(GET, NONE, 0), GET.len());
}

proptest! {
    /// However the bytes are cut, each request ends where it ends.
    #[test]
    fn requests_end_where_they_end(
        kinds in prop::collection::vec(0..5usize, 1..6),
        cuts in prop::collection::vec(1..40usize, 1..200),
    ) {
        let all = [GET, HEAD, SIZED, CHUNKED, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"];
        let bytes: Vec<u8> = kinds.iter().flat_map(|kind| all[*kind].to_vec()).collect();
        let mut requests = Requests::new();
        let (mut at, mut cut) = (0, cuts.iter().cycle());
        for (whole, kind) in kinds.iter().enumerate() {
            let whole = whole as u32;
            let mut got = Vec::new();
            // Each poll: as much as there is of this request, wanted at once.
            loop {
                match requests.turn(answered(whole), got.len() as u32) {
                    Turn::Held => {
                        let held = requests.take_held(*cut.next().unwrap());
                        let n = requests.pass(&held, answered(whole), got.len() as u32);
                        prop_assert!(n > 0);
                        got.extend_from_slice(&held[..n]);
                    }
                    Turn::Read if at < bytes.len() && got.len() < all[*kind].len() => {
                        let end = bytes.len().min(at + cut.next().unwrap());
                        let n = requests.pass(&bytes[at..end], answered(whole), got.len() as u32);
                        got.extend_from_slice(&bytes[at..at + n]);
                        at = end;
                    }
                    Turn::Wait if got.len() < all[*kind].len() => {
                        // The body is wanted now.
                        prop_assert!(requests.turn(answered(whole), u32::MAX) != Turn::Wait);
                    }
                    _ => break,
                }
            }
            prop_assert_eq!(&got, all[*kind]);
        }
    }

    #[test]
    fn no_bytes_are_lost_or_made_up(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..300usize) {
        let mut requests = Requests::new();
        let cut = cut.min(bytes.len());
        for part in [&bytes[..cut], &bytes[cut..]] {
            let passed = requests.pass(part, answered(u32::MAX), 0);
            prop_assert!(passed == part.len() || requests.is_broken());
        }
    }
}

//! RFC 6455 on `/ws` of the real binary, byte by byte, in the groups of Autobahn's test suite. Where the suite expects an
//! echo, the ack of a request stands for it: what arrived was read as it was meant. The suite itself runs in
//! `src/http/tests/autobahn.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::time::Instant;

use support::raw_websocket::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RawWebSocket, TEXT, announcing, close, frame, request,
};
use support::{PATIENCE, Server};

/// Largest message.
const LARGEST: usize = 128 * 1024;
/// What went wrong is the peer's framing, its text, its size.
const PROTOCOL: u16 = 1002;
const NOT_UTF8: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// Sends bytes on a connection of its own; gives the code it is closed with.
#[track_caller]
fn closes(server: &Server, bytes: &[u8]) -> u16 {
    let mut socket = RawWebSocket::of(server.http, "ana");
    socket.write(bytes);
    socket.closed()
}

/// A message in frames of at most `size` bytes.
fn fragments(message: &[u8], size: usize) -> Vec<Vec<u8>> {
    let last = message.len().div_ceil(size) - 1;
    let pieces = message.chunks(size).enumerate();
    let head = |at| if at == 0 { TEXT } else { CONTINUATION } | if at == last { FIN } else { 0 };
    pieces.map(|(at, piece)| frame(head(at), piece)).collect()
}

#[test]
fn group_1_text_of_every_form_of_length_is_read() {
    let server = Server::start("");
    let mut socket = RawWebSocket::of(server.http, "ana");
    for size in [100, 125, 126, 127, 128, 65_535, 65_536, LARGEST] {
        let id = size.to_string();
        socket.write(&frame(FIN | TEXT, request(&id, size).as_bytes()));
        socket.acked(&id);
    }
    for (size, piece) in [(200, 1), (65_536, 997), (65_536, 4096)] {
        socket.write_in_pieces(&frame(FIN | TEXT, request("pieces", size).as_bytes()), piece);
        socket.acked("pieces");
    }
    // A text of nothing is text, and no frame of the protocol.
    socket.write(&frame(FIN | TEXT, b""));
    assert_eq!(socket.closed(), 4400);
}

#[test]
fn group_1_2_a_binary_message_is_not_supported() {
    let server = Server::start("");
    for payload in [b"".as_slice(), request("1", 100).as_bytes(), &[0xfe; 65_536]] {
        assert_eq!(closes(&server, &frame(FIN | BINARY, payload)), 4400);
    }
}

#[test]
fn group_2_pings_are_answered_with_what_they_carry_and_pongs_are_not() {
    let server = Server::start("");
    let mut socket = RawWebSocket::of(server.http, "ana");
    for payload in [b"".as_slice(), b"Hello, world!", &[0, 0xff, 0xfe, 0xfd], &[0xfe; 125]] {
        socket.write(&frame(FIN | PING, payload));
        socket.ponged(payload);
        socket.write_in_pieces(&frame(FIN | PING, payload), 1);
        socket.ponged(payload);
    }
    socket.write(&frame(FIN | PONG, b""));
    socket.write(&frame(FIN | PONG, b"nobody asked"));
    socket.write(&frame(FIN | PING, b"and this is asked"));
    socket.ponged(b"and this is asked");
    socket.write(&(0..10).flat_map(|n| frame(FIN | PING, &[n])).collect::<Vec<u8>>());
    (0..10).for_each(|n| socket.ponged(&[n]));
    socket.write(&frame(FIN | PING, &[0xfe; 126]));
    assert_eq!(socket.closed(), PROTOCOL);
}

#[test]
fn group_3_reserved_bits_close() {
    let server = Server::start("");
    for bits in 1..8 {
        for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
            let head = FIN | bits << 4 | opcode;
            if opcode != TEXT && bits != 1 {
                continue;
            }
            // What came before is answered, what comes after is not.
            let mut socket = RawWebSocket::of(server.http, "ana");
            socket.write(&frame(FIN | TEXT, request("before", 100).as_bytes()));
            socket.acked("before");
            socket.write(&frame(head, b""));
            socket.write(&frame(FIN | PING, b"after"));
            assert_eq!(socket.closed(), PROTOCOL, "{head:#x}");
        }
    }
}

#[test]
fn group_4_reserved_opcodes_close() {
    let server = Server::start("");
    for opcode in (3..8).chain(11..16) {
        for payload in [b"".as_slice(), b"reserved"] {
            let mut socket = RawWebSocket::of(server.http, "ana");
            socket.write(&frame(FIN | TEXT, request("before", 100).as_bytes()));
            socket.acked("before");
            socket.write(&frame(FIN | opcode, payload));
            socket.write(&frame(FIN | PING, b"after"));
            assert_eq!(socket.closed(), PROTOCOL, "{opcode:#x}");
        }
    }
}

#[test]
fn group_5_fragments_make_a_message_and_control_frames_may_stand_between_them() {
    let server = Server::start("");
    let mut socket = RawWebSocket::of(server.http, "ana");
    let message = request("whole", 300);
    for size in [1, 7, 150, 299] {
        let frames = fragments(message.as_bytes(), size);
        frames.iter().for_each(|frame| socket.write(frame));
        socket.acked("whole");
        for (at, piece) in frames.iter().enumerate() {
            socket.write(piece);
            if at + 1 < frames.len() && at < 10 {
                socket.write(&frame(FIN | PING, &[at as u8]));
                socket.ponged(&[at as u8]);
                socket.write(&frame(FIN | PONG, b"unasked"));
            }
        }
        socket.acked("whole");
        socket.write_in_pieces(&frames.concat(), 1);
        socket.acked("whole");
    }
    // Fragments of nothing belong to a message too.
    let (nothing, end) = (frame(CONTINUATION, b""), frame(FIN | CONTINUATION, b""));
    let whole = [frame(TEXT, b""), nothing, frame(CONTINUATION, message.as_bytes()), end];
    socket.write(&whole.concat());
    socket.acked("whole");
}

#[test]
fn group_5_fragments_out_of_place_close() {
    let server = Server::start("");
    let text = request("1", 100);
    let (text, half) = (text.as_bytes(), frame(TEXT, b"{"));
    for (what, bytes) in [
        ("a ping in fragments", [frame(PING, b"fra"), frame(FIN | CONTINUATION, b"gment")].concat()),
        ("a pong in fragments", [frame(PONG, b"fra"), frame(FIN | CONTINUATION, b"gment")].concat()),
        ("a close in fragments", [frame(CLOSE, b"\x03"), frame(FIN | CONTINUATION, b"\xe8")].concat()),
        ("an end of nothing", frame(FIN | CONTINUATION, text)),
        ("a continuation of nothing", [frame(CONTINUATION, text), frame(FIN | TEXT, text)].concat()),
        ("a message inside another", [half.clone(), frame(FIN | TEXT, text)].concat()),
        ("a beginning inside another", [half.clone(), frame(TEXT, b"}")].concat()),
        ("a binary end of a text", [half, frame(FIN | BINARY, b"}")].concat()),
    ] {
        assert_eq!(closes(&server, &bytes), PROTOCOL, "{what}");
    }
    // A message that has ended is not continued.
    let mut socket = RawWebSocket::of(server.http, "ana");
    socket.write(&frame(FIN | TEXT, text));
    socket.acked("1");
    socket.write(&frame(FIN | CONTINUATION, text));
    assert_eq!(socket.closed(), PROTOCOL);
}

#[test]
fn group_5_what_is_not_masked_closes() {
    let server = Server::start("");
    for head in [FIN | TEXT, FIN | PING] {
        assert_eq!(closes(&server, &[&[head, 2], b"{}".as_slice()].concat()), PROTOCOL);
    }
}

#[test]
fn group_6_text_is_utf8_across_fragments() {
    let server = Server::start("");
    let mut socket = RawWebSocket::of(server.http, "ana");
    for words in ["Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\u{10ffff}\u{0}\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}😀"]
    {
        let payload = serde_json::json!({ "v": 1, "t": "call:heartbeat", "id": "é😀", "p": { "x": words } });
        let message = payload.to_string();
        // A cut inside of a character is no mistake.
        for size in [1, 2, 3, 5, 1000] {
            socket.write(&fragments(message.as_bytes(), size).concat());
            socket.acked("é😀");
        }
    }
}

#[test]
fn group_6_text_that_is_not_utf8_closes() {
    let server = Server::start("");
    for bad in [
        b"\x80".as_slice(),
        b"\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        // Cut short at the end of the message.
        b"\xce",
        b"\xf0\x9f\x98",
    ] {
        assert_eq!(closes(&server, &frame(FIN | TEXT, bad)), NOT_UTF8, "{bad:x?}");
        let last = bad.len() - 1;
        let cut = [frame(TEXT, &bad[..last]), frame(FIN | CONTINUATION, &bad[last..])].concat();
        assert_eq!(closes(&server, &cut), NOT_UTF8, "{bad:x?} in fragments");
    }
    // What cannot become text any more is not waited for.
    assert_eq!(closes(&server, &[frame(TEXT, b"{"), frame(CONTINUATION, b"\xff")].concat()), NOT_UTF8);
}

#[test]
fn group_7_a_close_is_answered_with_its_code() {
    let server = Server::start("");
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999] {
        assert_eq!(closes(&server, &close(code, b"")), code);
    }
    assert_eq!(closes(&server, &close(1000, "auf Wiedersehen, ñandú".as_bytes())), 1000);
    assert_eq!(closes(&server, &close(1000, &[b'x'; 123])), 1000);
    assert_eq!(closes(&server, &frame(FIN | CLOSE, b"")), 1005, "no code is answered with none");
    // What comes after a close does not exist.
    let after = [close(1000, b""), frame(FIN | PING, b"after"), frame(FIN | TEXT, b"{"), close(4000, b"")];
    assert_eq!(closes(&server, &after.concat()), 1000);
    // Nor does a message it cuts short.
    assert_eq!(closes(&server, &[frame(TEXT, b"{"), close(1000, b"")].concat()), 1000);
    // What came before is answered.
    let mut socket = RawWebSocket::of(server.http, "ana");
    socket.write(&[frame(FIN | PING, b"1"), close(1000, b"")].concat());
    socket.ponged(b"1");
    assert_eq!(socket.closed(), 1000);
    server.await_metric("passerelle_signaling_connections", &[], 0.0);
}

#[test]
fn group_7_a_close_that_is_none_is_a_protocol_error() {
    let server = Server::start("");
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        assert_eq!(closes(&server, &close(code, b"")), PROTOCOL, "{code}");
    }
    assert_eq!(closes(&server, &frame(FIN | CLOSE, b"\x03")), PROTOCOL, "half a code");
    assert_eq!(closes(&server, &close(1000, &[b'x'; 124])), PROTOCOL, "126 bytes");
    let code = closes(&server, &close(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80"));
    assert!([PROTOCOL, NOT_UTF8].contains(&code), "a reason that is not UTF-8: {code}");
}

#[test]
fn group_9_a_message_of_128_kib_is_read_and_one_byte_more_closes() {
    let server = Server::start("");
    let mut socket = RawWebSocket::of(server.http, "ana");
    for size in [LARGEST, 60_000, 1000] {
        fragments(request("largest", LARGEST).as_bytes(), size).iter().for_each(|frame| socket.write(frame));
        socket.acked("largest");
    }
    let (large, whole) = (request("larger", LARGEST + 1), usize::MAX);
    for size in [whole, LARGEST, 60_000, 1000] {
        let mut socket = RawWebSocket::of(server.http, "ana");
        fragments(large.as_bytes(), size.min(large.len())).iter().for_each(|frame| socket.write(frame));
        assert_eq!(socket.closed(), TOO_BIG, "in pieces of {size}");
    }
}

#[test]
fn group_9_a_length_that_is_announced_is_judged_before_it_is_sent() {
    let server = Server::start("");
    let started = Instant::now();
    for length in [LARGEST as u64 + 1, 1 << 31, 1 << 32, (1 << 63) - 1] {
        let mut socket = RawWebSocket::of(server.http, "ana");
        socket.write(&announcing(FIN | TEXT, length));
        let (head, payload) = socket.frame().expect("a close frame");
        assert_eq!((head, &payload[..2]), (FIN | CLOSE, &TOO_BIG.to_be_bytes()[..]), "{length}");
    }
    // The highest bit of a length is never set.
    let mut socket = RawWebSocket::of(server.http, "ana");
    socket.write(&announcing(FIN | TEXT, u64::MAX));
    let (head, payload) = socket.frame().expect("a close frame");
    assert_eq!(head, FIN | CLOSE);
    assert!([TOO_BIG, PROTOCOL].map(u16::to_be_bytes).contains(&[payload[0], payload[1]]), "{payload:?}");
    assert!(started.elapsed() < PATIENCE, "it waited for bytes that never come");
}

#[test]
fn noise_in_the_place_of_frames_hurts_nobody_else() {
    let server = Server::start("");
    let mut random = 11_u64;
    let mut bits = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 32) as usize
    };
    let mut healthy = RawWebSocket::of(server.http, "bruno");
    for _ in 0..50 {
        let mut socket = RawWebSocket::of(server.http, "ana");
        for _ in 0..20 {
            let (head, size) = (bits() as u8, bits() % 300);
            let mut bytes = match bits() % 4 {
                0 => (0..size).map(|_| bits() as u8).collect(),
                1 => announcing(head, size as u64),
                2 => frame(head, &vec![bits() as u8; size]),
                _ => frame(FIN | TEXT, request("fine", 100 + size).as_bytes()),
            };
            let at = bits() % bytes.len().max(1);
            if bits() % 3 == 0 && !bytes.is_empty() {
                bytes[at] ^= 1 << (bits() % 8);
            }
            socket.write(&bytes);
        }
        healthy.write(&frame(FIN | PING, b"still there"));
        healthy.ponged(b"still there");
    }
    healthy.write(&frame(FIN | TEXT, request("well", 100).as_bytes()));
    healthy.acked("well");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

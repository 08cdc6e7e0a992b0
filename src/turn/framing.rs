//! Messages in a stream of bytes (RFC 8489 section 6.2.2, RFC 8656 section 12.5). Pure: it looks at bytes and says
//! where the first message ends.

use super::channel_data;
use crate::stun::{HEADER_LENGTH, MAGIC_COOKIE};

/// The longest message a stream can carry: a STUN header and the most that its LENGTH can say.
pub const MAX_FRAME: usize = HEADER_LENGTH + 0xFFFF;

/// What the start of a stream's unread bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Not a whole message yet.
    Incomplete,
    /// A message of this many bytes, the padding of ChannelData included.
    Whole(usize),
    /// Nothing that can become a message: the stream has lost its frame for good.
    Invalid,
}

/// Finds the first message. Any split of a stream gives the same messages.
pub fn first_frame(bytes: &[u8]) -> Frame {
    let Some(first) = bytes.first() else { return Frame::Incomplete };
    match first {
        0x00..=0x3F => stun(bytes),
        0x40..=0x7F => channel_data(bytes),
        _ => Frame::Invalid,
    }
}

fn stun(bytes: &[u8]) -> Frame {
    let cookie = MAGIC_COOKIE.to_be_bytes();
    // As early as can be: what is no STUN shall not be waited for.
    if bytes.iter().skip(4).zip(cookie).any(|(found, expected)| *found != expected) {
        return Frame::Invalid;
    }
    let Some([_, _, high, low]) = bytes.first_chunk() else { return Frame::Incomplete };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length % 4 != 0 {
        return Frame::Invalid;
    }
    whole(bytes, HEADER_LENGTH + length)
}

fn channel_data(bytes: &[u8]) -> Frame {
    let Some([_, _, high, low]) = bytes.first_chunk() else { return Frame::Incomplete };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    whole(bytes, channel_data::HEADER_LENGTH + length.next_multiple_of(4))
}

const fn whole(bytes: &[u8], length: usize) -> Frame {
    if bytes.len() < length { Frame::Incomplete } else { Frame::Whole(length) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The messages of a stream that arrives in pieces cut at `cuts`.
    fn frames(stream: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Frame) {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
        ends.push(stream.len());
        ends.sort_unstable();
        let (mut unread, mut at, mut found) = (Vec::new(), 0, Vec::new());
        for end in ends {
            unread.extend_from_slice(&stream[at..end]);
            at = end;
            loop {
                match first_frame(&unread) {
                    Frame::Whole(length) => found.push(unread.drain(..length).collect()),
                    Frame::Incomplete => break,
                    Frame::Invalid => return (found, Frame::Invalid),
                }
            }
        }
        (found, Frame::Incomplete)
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        (any::<bool>(), 0..300usize, any::<u8>()).prop_map(|(stun, length, fill)| {
            let mut bytes = Vec::new();
            if stun {
                let body = length.next_multiple_of(4);
                bytes.extend_from_slice(&[0, 1]);
                bytes.extend_from_slice(&(body as u16).to_be_bytes());
                bytes.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
                bytes.extend_from_slice(&[fill; 12]);
                bytes.resize(20 + body, fill);
            } else {
                bytes.extend_from_slice(&[0x40, fill]);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
                bytes.resize(4 + length.next_multiple_of(4), fill);
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_messages(messages in prop::collection::vec(message(), 0..8), cuts: Vec<usize>) {
            let stream = messages.concat();
            prop_assert_eq!(frames(&stream, &cuts), (messages, Frame::Incomplete));
        }

        #[test]
        fn any_split_of_any_bytes_gives_the_same_messages_and_the_same_verdict(stream: Vec<u8>, cuts: Vec<usize>) {
            let whole = frames(&stream, &[]);
            prop_assert_eq!(frames(&stream, &cuts), whole);
        }
    }

    #[test]
    fn the_longest_lengths_do_not_wrap() {
        for length in 0xFFFC..=0xFFFFu16 {
            let [high, low] = length.to_be_bytes();
            let mut channel = vec![0x40, 0, high, low];
            assert_eq!(first_frame(&channel), Frame::Incomplete);
            channel.resize(4 + 0x1_0000, 0);
            assert_eq!(first_frame(&channel), Frame::Whole(4 + usize::from(length).next_multiple_of(4)));
            let mut stun = [&[0, 1, high, low], MAGIC_COOKIE.to_be_bytes().as_slice()].concat();
            stun.resize(MAX_FRAME, 0);
            let expected =
                if length % 4 == 0 { Frame::Whole(20 + usize::from(length)) } else { Frame::Invalid };
            assert_eq!(first_frame(&stun), expected);
        }
    }

    #[test]
    fn what_cannot_become_a_message_is_told_at_once() {
        for bytes in [
            &[0x80][..],
            &[0xFF],
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
            &[0, 1, 0, 0, 0x21, 0x13],
            &[0, 1, 0, 3],
        ] {
            assert_eq!(first_frame(bytes), Frame::Invalid, "{bytes:?}");
        }
        for bytes in [&[][..], &[0], &[0x40, 0, 0], &[0, 1, 0, 0, 0x21, 0x12]] {
            assert_eq!(first_frame(bytes), Frame::Incomplete, "{bytes:?}");
        }
    }
}

//! A stream: the first byte says how it is cut into pieces, and any cut has to give the same frames.

use passerelle::turn::{Frame, MAX_FRAME, first_frame};

pub(super) fn run(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let whole = frames(stream, stream.len().max(1));
    assert_eq!(whole, frames(stream, usize::from(*cut).max(1)));
    assert_eq!(whole, frames(stream, 1 + usize::from(*cut) % 7));
}

/// The lengths of a stream's frames, and whether it was lost, when it comes in pieces of `step` bytes.
fn frames(stream: &[u8], step: usize) -> (Vec<usize>, bool) {
    let (mut lengths, mut unread) = (Vec::new(), Vec::new());
    for piece in stream.chunks(step) {
        unread.extend_from_slice(piece);
        loop {
            match first_frame(&unread) {
                Frame::Whole(length) => {
                    assert!((4..=MAX_FRAME).contains(&length) && length % 4 == 0 && length <= unread.len());
                    unread.drain(..length);
                    lengths.push(length);
                }
                Frame::Incomplete => break,
                Frame::Invalid => return (lengths, true),
            }
        }
        assert!(unread.len() < MAX_FRAME, "more is waited for than a frame can have");
    }
    (lengths, false)
}

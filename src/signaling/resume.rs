//! The key that proves a transport to be the next one of a session.

use std::fmt;

use subtle::ConstantTimeEq as _;

use super::SessionId;

/// Bytes of a key.
const LENGTH: usize = 16;

/// The wish of a transport to go on with a session, as the client sent it. All of it is untrusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// `sid` of the session.
    pub sid: String,
    /// `resume.key` of its last `session:ready`.
    pub key: ResumeKey,
    /// Number of the last event the client has received; 0 for none.
    pub seq: u64,
}

/// A resume key on the wire. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ResumeKey(pub String);

impl fmt::Debug for ResumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeKey")
    }
}

/// A session that was opened for a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// What the transport is called from now on. A resumed session has a new name: inputs of its old transport that
    /// come late are nobody's.
    pub session: SessionId,
    /// What came of the wish to resume; `None` if there was none.
    pub resumption: Option<Resumption>,
}

/// What came of the wish to resume a session. Anything but `Resumed` opened a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// The session goes on, and nothing is lost.
    Resumed,
    /// The session is over, or its key was used already: what an honest client that comes late looks like.
    Expired,
    /// The session is there, but events the client has missed are not.
    Beyond,
    /// The session is there, and this is not its key or not its owner: the only outcome that may count as an attack.
    Wrong,
}

impl Resumption {
    /// Label of `passerelle_signaling_session_resume_total{result}`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Resumed => "resumed",
            Self::Expired => "expired",
            Self::Beyond => "beyond",
            Self::Wrong => "wrong_key",
        }
    }
}

/// 128 random bits.
#[derive(Clone, Copy)]
struct Key([u8; LENGTH]);

/// The key of a session and the one before it. A key is good once; but until the client has shown that it received the
/// next one, its transport may have died before that could arrive, so the one before it is good as well.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    current: Key,
    previous: Option<Key>,
    /// The client has the current key.
    received: bool,
}

/// How a key fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is the current one.
    Current,
    /// It is the one before, and good as long as the client has not shown that it has the current one.
    Former,
    /// It did once.
    Spent,
    /// It never did.
    Wrong,
}

impl Keys {
    pub(super) fn new(random: [u8; LENGTH]) -> Self {
        Self { current: Key(random), previous: None, received: false }
    }

    /// The current key on the wire.
    pub(super) fn wire(&self) -> String {
        super::switchboard::hex(&self.current.0)
    }

    /// Replaces the current key. The one that was just used becomes the one before it: where that is the one before
    /// already, the client never had the current one.
    pub(super) fn rotate(&mut self, used: Fit, random: [u8; LENGTH]) {
        if used == Fit::Current {
            self.previous = Some(self.current);
        }
        self.current = Key(random);
        self.received = false;
    }

    /// The client speaks on the transport that got the current key.
    pub(super) fn received(&mut self) {
        self.received = true;
    }

    /// Compares in constant time.
    pub(super) fn fit(&self, wire: &ResumeKey) -> Fit {
        let Some(key) = parse(&wire.0) else { return Fit::Wrong };
        let same = |other: Key| bool::from(other.0.ct_eq(&key));
        let (current, previous) = (same(self.current), self.previous.is_some_and(same));
        match (current, previous, self.received) {
            (true, ..) => Fit::Current,
            (_, true, false) => Fit::Former,
            (_, true, true) => Fit::Spent,
            _ => Fit::Wrong,
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

fn parse(text: &str) -> Option<[u8; LENGTH]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * LENGTH {
        return None;
    }
    let mut key = [0; LENGTH];
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let text = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(text, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(keys: &Keys, random: [u8; LENGTH]) -> Fit {
        keys.fit(&ResumeKey(Keys::new(random).wire()))
    }

    #[test]
    fn a_key_is_good_once_and_spent_is_not_wrong() {
        let mut keys = Keys::new([1; LENGTH]);
        assert_eq!((fit(&keys, [1; LENGTH]), fit(&keys, [2; LENGTH])), (Fit::Current, Fit::Wrong));
        keys.received();
        keys.rotate(Fit::Current, [2; LENGTH]);
        assert_eq!(fit(&keys, [2; LENGTH]), Fit::Current);
        assert_eq!(fit(&keys, [1; LENGTH]), Fit::Former, "the next key may have been lost on its way");
        keys.received();
        assert_eq!(fit(&keys, [1; LENGTH]), Fit::Spent);
        assert_eq!(fit(&keys, [3; LENGTH]), Fit::Wrong);
    }

    #[test]
    fn a_client_that_never_gets_its_next_key_can_try_again_and_again() {
        let mut keys = Keys::new([1; LENGTH]);
        keys.received();
        keys.rotate(Fit::Current, [2; LENGTH]);
        for next in 3..9 {
            assert_eq!(fit(&keys, [1; LENGTH]), Fit::Former);
            keys.rotate(Fit::Former, [next; LENGTH]);
        }
        // Now one arrives, and the one after it does not.
        keys.rotate(Fit::Current, [9; LENGTH]);
        assert_eq!((fit(&keys, [8; LENGTH]), fit(&keys, [9; LENGTH])), (Fit::Former, Fit::Current));
        keys.received();
        assert_eq!(fit(&keys, [8; LENGTH]), Fit::Spent);
    }

    #[test]
    fn what_is_no_key_fits_nothing_and_no_key_is_shown() {
        let keys = Keys::new([0xab; LENGTH]);
        for text in ["", "ab", &"ab".repeat(17), &"+b".repeat(16), &"\u{e9}".repeat(16)] {
            assert_eq!(keys.fit(&ResumeKey(text.into())), Fit::Wrong, "{text}");
        }
        let shown = format!("{keys:?} {:?}", ResumeKey(keys.wire()));
        assert!(!shown.contains("ab"), "{shown}");
    }
}

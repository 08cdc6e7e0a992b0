//! What a fuzzer does with its bytes. Shared by the fuzzers and by the test that replays their corpora.

mod decode;
mod framing;
mod proxy;
mod server_step;
mod signaling;
mod socketio;
mod websocket;

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A target's name and what it does with bytes.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target and the name of its corpus.
pub(crate) const ALL: [Target; 7] = [
    ("decode", decode::run),
    ("framing", framing::run),
    ("proxy", proxy::run),
    ("server_step", server_step::run),
    ("signaling", signaling::run),
    ("socketio", socketio::run),
    ("websocket", websocket::run),
];

/// Runs a target by its name.
pub(crate) fn run(name: &str, bytes: &[u8]) {
    for (known, target) in ALL {
        if known == name {
            target(bytes);
        }
    }
}

/// How deep arrays and objects are nested, also under a name that comes twice. `None`: it is no JSON.
fn nesting(text: &str) -> Option<usize> {
    serde_json::from_str(text).ok().map(|Nesting(depth)| depth)
}

struct Nesting(usize);

impl<'de> Deserialize<'de> for Nesting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Levels)
    }
}

struct Levels;

impl<'de> Visitor<'de> for Levels {
    type Value = Nesting;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Nesting, E> {
        Ok(Nesting(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Nesting, E> {
        Ok(Nesting(0))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Nesting, E> {
        Ok(Nesting(0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Nesting, E> {
        Ok(Nesting(0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Nesting, E> {
        Ok(Nesting(0))
    }

    fn visit_str<E>(self, _: &str) -> Result<Nesting, E> {
        Ok(Nesting(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Nesting, A::Error> {
        let mut deepest = 0;
        while let Some(Nesting(depth)) = items.next_element()? {
            deepest = depth.max(deepest);
        }
        Ok(Nesting(deepest + 1))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Nesting, A::Error> {
        let mut deepest = 0;
        while let Some((IgnoredAny, Nesting(depth))) = fields.next_entry()? {
            deepest = depth.max(deepest);
        }
        Ok(Nesting(deepest + 1))
    }
}

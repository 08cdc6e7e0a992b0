//! STUN messages as bytes (RFC 8489) and the attributes TURN adds (RFC 8656). Pure.
//!
//! Owns the wire format: [`Message`] is a borrowed view of a received message that checks its frame once and then
//! hides everything behind MESSAGE-INTEGRITY; [`Writer`] appends an answer to a buffer; [`Key`] computes and checks
//! integrity. Must not know what an allocation or a credential is. Driven by `turn`.
//!
//! Attribute numbers, the FINGERPRINT checksum and the test oracle come from the `stun` crate. Its codec does not:
//! it allocates for each attribute, and its message has no border at MESSAGE-INTEGRITY (docs/adr/0001).

pub mod address;
pub mod attribute;
mod integrity;
mod message;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod vectors;
mod writer;

pub use integrity::{Algorithm, Key, userhash};
pub use message::{Class, HEADER_LENGTH, Malformed, Message, Method, TransactionId};
pub use writer::Writer;

/// First bytes of every STUN message since RFC 5389.
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

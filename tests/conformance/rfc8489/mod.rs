//! STUN: messages, long-term credentials, streams.

mod binding;
mod credentials;
mod integrity;
mod stream;

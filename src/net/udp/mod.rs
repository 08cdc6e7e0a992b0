//! Datagrams in batches: runs of datagrams in (`recvmmsg`, UDP_GRO), groups of them out (`sendmmsg`, UDP_SEGMENT).
//!
//! Owns every system call on a UDP socket of a worker and all of the crate's unsafe code. Must not know what a
//! datagram means. Driven by `worker`: [`Receiver::receive`] socket by socket until the batch is full, [`Sender::push`]
//! for what follows from each datagram, [`Sender::flush`] at the end, before the receiver's buffers are used again.
#![allow(unsafe_code, reason = "the batched socket calls have no safe wrapper")]

mod address;
mod call;
mod control;
mod error_queue;
mod receiver;
mod refusals;
mod sender;
mod socket;
#[cfg(test)]
mod tests;

pub(super) use error_queue::{IcmpErrors, drain_errors};
pub(super) use receiver::Receiver;
pub(super) use sender::{Message, Payload, Sender, Unsent};
pub(super) use socket::{Offload, Options, Role, bind};

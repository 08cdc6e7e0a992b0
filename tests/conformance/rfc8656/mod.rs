//! TURN: allocations, permissions, channels, and what is relayed.

mod allocate;
mod channel;
mod families;
mod owner;
mod permission;
mod refresh;
mod relay;
mod stream;

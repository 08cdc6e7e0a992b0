//! The engine under a virtual clock.

mod calls;
mod groups;
mod guards;
mod limits;
mod reconnect;
mod resume;
mod signals;
mod simulation;
mod stage;
mod wire;

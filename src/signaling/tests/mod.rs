//! The engine under a virtual clock.

mod admin;
mod calls;
mod groups;
mod guards;
mod limits;
mod model;
mod moderation;
mod reconnect;
mod resume;
mod shipped;
mod signals;
mod simulation;
mod stage;
mod wire;

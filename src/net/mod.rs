//! Sockets and workers.
pub mod config;
pub use config::Config;

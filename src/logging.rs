//! `logging`

//! The only place where calls and relay meet.

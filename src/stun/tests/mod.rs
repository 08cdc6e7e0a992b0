//! The wire format against the RFC's vectors, a plain reference and itself.

mod properties;
mod vectors;

//! `metrics`

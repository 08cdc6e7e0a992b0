//! `shutdown`

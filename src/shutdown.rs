//! The drain signal and its deadline.

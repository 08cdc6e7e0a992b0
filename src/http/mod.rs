//! The shell around `signaling` and everything HTTP.

//! Callers without a token.

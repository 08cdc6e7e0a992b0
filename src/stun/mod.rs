//! `stun`

//! Static users of the relay.

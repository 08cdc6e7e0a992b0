//! The log: subscriber, filter, redaction.

//! From a configuration to a running service, and its end.

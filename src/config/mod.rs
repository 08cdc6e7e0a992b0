//! From file, environment and flags to the configuration of every part.

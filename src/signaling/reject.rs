//! Every refusal: its wire code, its message, its metric label.

/// A refusal of a request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Reject {}

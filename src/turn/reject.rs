//! Every answered refusal as one named variant: its code on the wire, its label in metrics and logs.

use super::DenyRule;

/// A request that is answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// 300: go to ALTERNATE-SERVER.
    #[error("draining: try the alternate server")]
    TryAlternate,
    /// 400: an attribute the method needs is missing or malformed.
    #[error("missing or malformed {0}")]
    Attribute(&'static str),
    /// 400: attributes that exclude each other.
    #[error("{0}")]
    Combination(&'static str),
    /// 400: integrity without USERNAME, REALM or NONCE.
    #[error("integrity without username, realm or nonce")]
    IncompleteCredentials,
    /// 400: PASSWORD-ALGORITHM(S) do not match what was offered (RFC 8489 section 9.2.4).
    #[error("password algorithms do not match the offer")]
    BidDown,
    /// 400: the channel number is out of range, or number and peer belong to others.
    #[error("channel number out of range")]
    ChannelNumber,
    /// 400: number or peer of a channel is bound otherwise.
    #[error("channel or peer bound otherwise")]
    ChannelConflict,
    /// 401: no credentials yet.
    #[error("no credentials")]
    NoCredentials,
    /// 401: nobody of that name.
    #[error("unknown user")]
    UnknownUser,
    /// 401: the integrity does not match.
    #[error("wrong password")]
    WrongPassword,
    /// 401: the credential's time is over.
    #[error("expired credential")]
    ExpiredCredential,
    /// 403: the peer policy.
    #[error("peer denied")]
    PeerDenied(DenyRule),
    /// 420: unknown comprehension-required attributes.
    #[error("unknown attribute")]
    UnknownAttribute,
    /// 437: no allocation on this 5-tuple.
    #[error("no allocation")]
    NoAllocation,
    /// 437: the 5-tuple has an allocation already.
    #[error("5-tuple in use")]
    FiveTupleInUse,
    /// 438: the nonce expired or is another client's.
    #[error("stale nonce")]
    StaleNonce,
    /// 440: no relay address of that family.
    #[error("address family not supported")]
    FamilyNotSupported,
    /// 441: the allocation is another user's.
    #[error("wrong credentials for this allocation")]
    OtherUser,
    /// 442: only UDP is relayed.
    #[error("transport not supported")]
    TransportNotSupported,
    /// 443: the peer's family is not the allocation's.
    #[error("peer address family mismatch")]
    FamilyMismatch,
    /// 486: the user's quota.
    #[error("user quota reached")]
    UserQuota,
    /// 486: the client address's quota.
    #[error("address quota reached")]
    AddressQuota,
    /// 508: the process is full, or drains without an alternate.
    #[error("server full")]
    ServerFull,
    /// 508: draining without an alternate server.
    #[error("draining")]
    Draining,
    /// 508: no port, or the socket could not be made.
    #[error("no relay port")]
    NoPort,
    /// 508: the token is unknown or expired.
    #[error("unknown reservation token")]
    UnknownToken,
    /// 508: the permission or channel table is full.
    #[error("table full")]
    TableFull,
}

impl Reject {
    /// The code of ERROR-CODE (RFC 8489 section 14.8, RFC 8656 section 19).
    pub const fn code(self) -> u16 {
        match self {
            Self::TryAlternate => 300,
            Self::Attribute(_)
            | Self::Combination(_)
            | Self::IncompleteCredentials
            | Self::BidDown
            | Self::ChannelNumber
            | Self::ChannelConflict => 400,
            Self::NoCredentials | Self::UnknownUser | Self::WrongPassword | Self::ExpiredCredential => 401,
            Self::PeerDenied(_) => 403,
            Self::UnknownAttribute => 420,
            Self::NoAllocation | Self::FiveTupleInUse => 437,
            Self::StaleNonce => 438,
            Self::FamilyNotSupported => 440,
            Self::OtherUser => 441,
            Self::TransportNotSupported => 442,
            Self::FamilyMismatch => 443,
            Self::UserQuota | Self::AddressQuota => 486,
            Self::ServerFull | Self::Draining | Self::NoPort | Self::UnknownToken | Self::TableFull => 508,
        }
    }

    /// Whether the answer carries a challenge: REALM, NONCE, PASSWORD-ALGORITHMS.
    pub const fn challenges(self) -> bool {
        matches!(self.code(), 401 | 438)
    }

    /// The authentication failure it is counted as; a first request without credentials is none.
    pub(super) const fn auth_failure(self) -> Option<AuthFailure> {
        match self {
            Self::UnknownUser => Some(AuthFailure::UnknownUser),
            Self::WrongPassword => Some(AuthFailure::WrongPassword),
            Self::ExpiredCredential => Some(AuthFailure::Expired),
            Self::StaleNonce => Some(AuthFailure::StaleNonce),
            Self::OtherUser => Some(AuthFailure::OtherUser),
            Self::IncompleteCredentials | Self::BidDown => Some(AuthFailure::Malformed),
            _ => None,
        }
    }
}

/// Label of `passerelle_turn_auth_failures_total{reason}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthFailure {
    /// Nobody of that name.
    UnknownUser,
    /// The integrity does not match.
    WrongPassword,
    /// The credential's time is over.
    Expired,
    /// The nonce expired or is another client's.
    StaleNonce,
    /// The allocation is another user's.
    OtherUser,
    /// Incomplete or inconsistent credentials.
    Malformed,
}

impl AuthFailure {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::UnknownUser,
        Self::WrongPassword,
        Self::Expired,
        Self::StaleNonce,
        Self::OtherUser,
        Self::Malformed,
    ];

    /// Label of the metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown_user",
            Self::WrongPassword => "wrong_password",
            Self::Expired => "expired",
            Self::StaleNonce => "stale_nonce",
            Self::OtherUser => "other_user",
            Self::Malformed => "malformed",
        }
    }
}

//! What a worker counts. Each counter has one writer, its worker, and costs a load, an add and a store; readers sum
//! them at a scrape.

use std::sync::atomic::{AtomicU64, Ordering};

use super::reject::AuthFailure;
use super::{DenyRule, DropReason, Transport};
use crate::stun::Method;
use crate::stun::attribute::Family;

/// Which way data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a client.
    ToPeer,
    /// From a peer.
    ToClient,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ToPeer, Self::ToClient];

    /// Label of the metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ToPeer => "to_peer",
            Self::ToClient => "to_client",
        }
    }
}

/// A counter or gauge with one writer.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Methods that are counted, with their label.
const METHODS: [(Method, &str); 6] = [
    (Method::Binding, "binding"),
    (Method::Allocate, "allocate"),
    (Method::Refresh, "refresh"),
    (Method::CreatePermission, "create_permission"),
    (Method::ChannelBind, "channel_bind"),
    (Method::Send, "send"),
];

/// Codes that are counted; 0 is success.
const CODES: [u16; 15] = [0, 300, 400, 401, 403, 420, 437, 438, 440, 441, 442, 443, 486, 500, 508];

/// One number, named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Requests by method and transport.
    Requests(&'static str, Transport),
    /// Answers by method and code; 0 is success.
    Responses(&'static str, u16),
    /// Refused credentials.
    AuthFailures(AuthFailure),
    /// Peers denied by the policy.
    PeerDenied(DenyRule),
    /// Relayed packets.
    Packets(Direction),
    /// Relayed application bytes.
    Bytes(Direction),
    /// Dropped datagrams.
    Dropped(Direction, DropReason),
    /// Live allocations by transport and family (a gauge).
    Allocations(Transport, Family),
    /// Live permissions (a gauge).
    Permissions,
    /// Live channels (a gauge).
    Channels,
}

/// The counters of one worker.
#[derive(Debug, Default)]
pub struct Stats {
    requests: [[Counter; 3]; METHODS.len()],
    responses: [[Counter; CODES.len()]; METHODS.len()],
    auth_failures: [Counter; AuthFailure::ALL.len()],
    peer_denied: [Counter; DenyRule::ALL.len()],
    packets: [Counter; 2],
    bytes: [Counter; 2],
    dropped: [[Counter; DropReason::ALL.len()]; 2],
    allocations: [[Counter; 2]; 3],
    permissions: Counter,
    channels: Counter,
}

/// Touches the counter at an index known to exist.
fn at<T>(counters: &[T], index: usize, act: impl FnOnce(&T)) {
    if let Some(counter) = counters.get(index) {
        act(counter);
    }
}

impl Stats {
    pub(super) fn request(&self, method: Method, transport: Transport) {
        if let Some(index) = METHODS.iter().position(|(known, _)| *known == method) {
            at(&self.requests, index, |row| at(row, transport.index(), |counter| counter.add(1)));
        }
    }

    pub(super) fn response(&self, method: Method, code: u16) {
        let indexes = METHODS
            .iter()
            .position(|(known, _)| *known == method)
            .zip(CODES.iter().position(|known| *known == code));
        if let Some((method, code)) = indexes {
            at(&self.responses, method, |row| at(row, code, |counter| counter.add(1)));
        }
    }

    pub(super) fn auth_failure(&self, failure: AuthFailure) {
        at(&self.auth_failures, failure as usize, |counter| counter.add(1));
    }

    pub(super) fn peer_denied(&self, rule: DenyRule) {
        at(&self.peer_denied, rule.index(), |counter| counter.add(1));
    }

    pub(super) fn relayed(&self, direction: Direction, bytes: usize) {
        at(&self.packets, direction as usize, |counter| counter.add(1));
        at(&self.bytes, direction as usize, |counter| counter.add(bytes as u64));
    }

    /// Counts datagrams that were dropped; the shell reports what it could not send or had to cut.
    pub fn dropped(&self, direction: Direction, reason: DropReason, count: u64) {
        at(&self.dropped, direction as usize, |row| at(row, reason.index(), |counter| counter.add(count)));
    }

    /// Takes back what was counted as relayed and could not be sent.
    pub fn unsent(&self, direction: Direction, reason: DropReason, bytes: usize) {
        at(&self.packets, direction as usize, |counter| counter.add(u64::MAX));
        at(&self.bytes, direction as usize, |counter| counter.add((bytes as u64).wrapping_neg()));
        self.dropped(direction, reason, 1);
    }

    pub(super) fn allocations(&self, transport: Transport, family: Family, change: i64) {
        let index = usize::from(family.number()).saturating_sub(1);
        at(&self.allocations, transport.index(), |row| at(row, index, |gauge| gauge.add(change as u64)));
    }

    pub(super) fn held(&self, permissions: i64, channels: i64) {
        self.permissions.add(permissions as u64);
        self.channels.add(channels as u64);
    }

    /// Calls `each` with every number.
    pub fn each(&self, mut each: impl FnMut(Measure, u64)) {
        for ((_, method), (requests, responses)) in
            METHODS.iter().zip(self.requests.iter().zip(&self.responses))
        {
            for (transport, counter) in Transport::ALL.into_iter().zip(requests) {
                each(Measure::Requests(method, transport), counter.read());
            }
            for (code, counter) in CODES.into_iter().zip(responses) {
                each(Measure::Responses(method, code), counter.read());
            }
        }
        for (failure, counter) in AuthFailure::ALL.into_iter().zip(&self.auth_failures) {
            each(Measure::AuthFailures(failure), counter.read());
        }
        for (rule, counter) in DenyRule::ALL.into_iter().zip(&self.peer_denied) {
            each(Measure::PeerDenied(rule), counter.read());
        }
        for (direction, (packets, bytes)) in
            Direction::ALL.into_iter().zip(self.packets.iter().zip(&self.bytes))
        {
            each(Measure::Packets(direction), packets.read());
            each(Measure::Bytes(direction), bytes.read());
        }
        for (direction, row) in Direction::ALL.into_iter().zip(&self.dropped) {
            for (reason, counter) in DropReason::ALL.into_iter().zip(row) {
                each(Measure::Dropped(direction, reason), counter.read());
            }
        }
        for (transport, row) in Transport::ALL.into_iter().zip(&self.allocations) {
            for (family, gauge) in [Family::V4, Family::V6].into_iter().zip(row) {
                each(Measure::Allocations(transport, family), gauge.read());
            }
        }
        each(Measure::Permissions, self.permissions.read());
        each(Measure::Channels, self.channels.read());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_follow_the_order_of_all() {
        assert!(DropReason::ALL.iter().enumerate().all(|(at, reason)| reason.index() == at));
        assert!(DenyRule::ALL.iter().enumerate().all(|(at, rule)| rule.index() == at));
        assert!(AuthFailure::ALL.iter().enumerate().all(|(at, failure)| *failure as usize == at));
        assert!(Transport::ALL.iter().enumerate().all(|(at, transport)| transport.index() == at));
    }

    #[test]
    fn what_could_not_be_sent_is_no_longer_counted_as_relayed() {
        let stats = Stats::default();
        stats.relayed(Direction::ToPeer, 100);
        stats.relayed(Direction::ToPeer, 50);
        stats.unsent(Direction::ToPeer, DropReason::SendBuffer, 50);
        let mut seen = Vec::new();
        stats.each(|measure, value| seen.extend((value > 0).then_some((measure, value))));
        assert_eq!(
            seen,
            [
                (Measure::Packets(Direction::ToPeer), 1),
                (Measure::Bytes(Direction::ToPeer), 100),
                (Measure::Dropped(Direction::ToPeer, DropReason::SendBuffer), 1),
            ]
        );
    }
}

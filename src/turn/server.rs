//! One worker's allocations: dispatch of what clients and peers send, timers, the end of things.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ahash::RandomState;
use slab::Slab;

use super::allocation::{Allocation, Relayed};
use super::answer::{self, Challenge, ErrorDetail, Head, Protection, Success};
use super::deadlines::{Deadlines, Tick};
use super::long_term::{Authenticated, Verifier};
use super::nonce::Features;
use super::prefix_limit::PrefixLimit;
use super::{
    Bind, Departure, Direction, DropReason, EndReason, Entropy, Event, FiveTuple, Keys, Now, Output, Reject,
    RelayId, Settings, Shared, Stats, Verdict, channel_data,
};
use crate::stun::attribute::Family;
use crate::stun::{Class, Malformed, Message, Method};

/// How a request went on, if it was not refused.
pub(super) enum Step {
    /// It is answered now.
    Done(Success),
    /// Its sockets come first.
    Bind(Box<Bind>),
}

/// The relay's state in one worker.
pub struct Server {
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Settings,
    keys: Arc<dyn Keys>,
    pub(super) allocations: Slab<Allocation>,
    pub(super) by_five_tuple: HashMap<FiveTuple, u32, RandomState>,
    /// Slot of the last 5-tuple looked up: packets come in bursts, and the slot itself says whose it is.
    recent: u32,
    by_call: HashMap<Arc<str>, Vec<u32>, RandomState>,
    pub(super) deadlines: Deadlines,
    due: Vec<(Tick, u32)>,
    outputs: VecDeque<Output>,
    pub(super) stats: Arc<Stats>,
    unproved: PrefixLimit,
    bindings: PrefixLimit,
    entropy: Entropy,
    /// State of the generator of indications' transaction ids.
    indications: u64,
    pub(super) reply: Vec<u8>,
}

impl Server {
    /// Makes a server without allocations.
    pub fn new(
        shared: Arc<Shared>,
        settings: Settings,
        keys: Arc<dyn Keys>,
        mut entropy: Entropy,
        now: Now,
    ) -> Self {
        let mut seeds = [0u64; 9];
        for seed in &mut seeds {
            *seed = random(&mut entropy);
        }
        let [a, b, c, d, e, f, g, h, indications] = seeds;
        Self {
            shared,
            settings,
            keys,
            allocations: Slab::new(),
            by_five_tuple: HashMap::with_hasher(RandomState::with_seeds(a, b, c, d)),
            recent: 0,
            by_call: HashMap::with_hasher(RandomState::with_seeds(d, c, b, a)),
            deadlines: Deadlines::new(now.instant),
            due: Vec::new(),
            outputs: VecDeque::new(),
            stats: Arc::default(),
            unproved: PrefixLimit::new(now.instant, [e, f]),
            bindings: PrefixLimit::new(now.instant, [g, h]),
            entropy,
            indications,
            reply: Vec::with_capacity(512),
        }
    }

    /// What this server counts.
    pub const fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// The answer of the last [`Verdict::Reply`].
    pub fn reply(&self) -> &[u8] {
        &self.reply
    }

    /// Handles one datagram or frame of a client.
    pub fn on_client(&mut self, from: &FiveTuple, bytes: &[u8], now: Now) -> Verdict {
        if from.client.port() == 0 {
            return self.drop(Direction::ToPeer, DropReason::SourcePort);
        }
        match bytes.first() {
            Some(0x00..=0x3F) => self.on_message(from, bytes, now),
            Some(0x40..=0x7F) => self.on_channel_data(from, bytes, now),
            _ => self.drop(Direction::ToPeer, DropReason::NotStun),
        }
    }

    /// Handles one datagram of `length` bytes that a peer sent to a relayed address.
    pub fn on_peer(&mut self, relay: RelayId, peer: SocketAddr, length: usize, now: Now) -> Verdict {
        let tick = self.deadlines.tick(now.instant);
        let peer = self.seen_from_outside(peer);
        let Some(allocation) =
            self.allocations.get_mut(relay.slot as usize).filter(|found| found.expires > tick)
        else {
            return self.drop(Direction::ToClient, DropReason::NoAllocation);
        };
        if !allocation.permissions.allows(peer.ip(), tick) {
            return self.drop(Direction::ToClient, DropReason::NoPermission);
        }
        let client = allocation.five_tuple;
        let channel = allocation.channels.number(&peer, tick);
        self.indications = self.indications.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let framed = channel_data::frame(channel, peer, length, client.transport, self.indications);
        let Some((prefix, padding)) = framed else {
            return self.drop(Direction::ToClient, DropReason::TooLong);
        };
        if !allocation.relay(Direction::ToClient, length, now.instant) {
            return self.drop(Direction::ToClient, DropReason::Bandwidth);
        }
        if allocation.began_to_carry() {
            let grant = Arc::clone(&allocation.grant);
            self.outputs.push_back(Output::Event(Event::CarriesMedia { grant }));
        }
        self.stats.relayed(Direction::ToClient, length);
        Verdict::ToClient { client, prefix, padding }
    }

    fn on_channel_data(&mut self, from: &FiveTuple, bytes: &[u8], now: Now) -> Verdict {
        let Some((number, length)) = channel_data::parse(bytes) else {
            return self.drop(Direction::ToPeer, DropReason::ChannelLength);
        };
        let tick = self.deadlines.tick(now.instant);
        let Some((slot, allocation)) = self.live_mut(from, tick) else {
            return self.drop(Direction::ToPeer, DropReason::NoAllocation);
        };
        let Some(peer) = allocation.channels.peer(number, tick) else {
            return self.drop(Direction::ToPeer, DropReason::NoChannel);
        };
        if !allocation.relay(Direction::ToPeer, length, now.instant) {
            return self.drop(Direction::ToPeer, DropReason::Bandwidth);
        }
        self.stats.relayed(Direction::ToPeer, length);
        let relay = RelayId { slot, family: Family::of(peer.ip()) };
        let payload = channel_data::HEADER_LENGTH..channel_data::HEADER_LENGTH + length;
        Verdict::ToPeer { relay, peer: self.looped(peer), payload, dont_fragment: false }
    }

    /// A peer behind this host's own one-to-one NAT is reached at its local address.
    pub(super) fn looped(&self, peer: SocketAddr) -> SocketAddr {
        self.shared.ports.local_of(peer.ip()).map_or(peer, |local| SocketAddr::new(local, peer.port()))
    }

    /// Another relayed address of this host, behind one-to-one NAT, as its clients know it.
    pub(super) fn seen_from_outside(&self, peer: SocketAddr) -> SocketAddr {
        let external = self.shared.ports.external_of(peer.ip());
        external.map_or(peer, |external| SocketAddr::new(external, peer.port()))
    }

    fn on_message(&mut self, from: &FiveTuple, bytes: &[u8], now: Now) -> Verdict {
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(malformed) => {
                let reason = match malformed {
                    Malformed::NotStun => DropReason::NotStun,
                    Malformed::Length | Malformed::Attribute => DropReason::Malformed,
                    Malformed::Fingerprint => DropReason::Fingerprint,
                };
                return self.drop(Direction::ToPeer, reason);
            }
        };
        match (message.class(), message.method()) {
            (Class::Indication, Method::Send) => self.send(from, &message, now),
            (Class::Indication, Method::Binding) => self.drop(Direction::ToPeer, DropReason::KeepAlive),
            (Class::Request, Method::Binding) => self.binding(from, &message, now),
            (
                Class::Request,
                Method::Allocate | Method::Refresh | Method::CreatePermission | Method::ChannelBind,
            ) => self.request(from, &message, now),
            (Class::Request | Class::Indication, Method::Other(_)) => {
                self.drop(Direction::ToPeer, DropReason::UnknownMethod)
            }
            _ => self.drop(Direction::ToPeer, DropReason::Unexpected),
        }
    }

    /// An authenticated method, from challenge to answer.
    fn request(&mut self, from: &FiveTuple, message: &Message<'_>, now: Now) -> Verdict {
        self.stats.request(message.method(), from.transport);
        let verifier = Verifier {
            keys: &*self.keys,
            realm: &self.settings.config.realm,
            nonces: &self.shared.nonces,
            features: self.features(),
        };
        let authenticated = match verifier.verify(from, message, now) {
            Ok(authenticated) => authenticated,
            Err(reject) => return self.refuse(from, message, reject, None, now),
        };
        self.unproved.refund(from.client.ip());
        let step = if message.unknown_required(&mut [0]).is_empty() {
            match message.method() {
                Method::Allocate => self.allocate(from, message, &authenticated, now),
                Method::Refresh => self.refresh(from, message, &authenticated, now).map(Step::Done),
                Method::CreatePermission => {
                    self.create_permission(from, message, &authenticated, now).map(Step::Done)
                }
                _ => self.channel_bind(from, message, &authenticated, now).map(Step::Done),
            }
        } else {
            Err(Reject::UnknownAttribute)
        };
        match step {
            Ok(Step::Bind(bind)) => Verdict::Bind(bind),
            Ok(Step::Done(success)) => {
                self.succeed(from, Head::of(message), &success, &Protection::from(&authenticated))
            }
            Err(reject) => self.refuse(from, message, reject, Some(&authenticated), now),
        }
    }

    /// Writes a success answer.
    pub(super) fn succeed(
        &mut self,
        from: &FiveTuple,
        head: Head,
        success: &Success,
        by: &Protection<'_>,
    ) -> Verdict {
        answer::success(&mut self.reply, head, success, &self.settings.config, by);
        self.stats.response(head.method, 0);
        tracing::trace!(method = ?head.method, transport = from.transport.label(), "success");
        Verdict::Reply
    }

    /// Answers with an error. What has not proved its source address is limited by its prefix.
    pub(super) fn refuse(
        &mut self,
        from: &FiveTuple,
        message: &Message<'_>,
        reject: Reject,
        by: Option<&Authenticated>,
        now: Now,
    ) -> Verdict {
        let mut unknown = [0; answer::MAX_UNKNOWN];
        let detail = ErrorDetail {
            unknown: message.unknown_required(&mut unknown),
            // A challenge looks the same whatever was wrong with the credentials.
            protection: by.filter(|_| !reject.challenges()).map(Protection::from),
            ..ErrorDetail::default()
        };
        self.refuse_with(from, Head::of(message), reject, detail, now)
    }

    /// [`Server::refuse`] where the message itself is gone already.
    pub(super) fn refuse_with(
        &mut self,
        from: &FiveTuple,
        head: Head,
        reject: Reject,
        detail: ErrorDetail<'_>,
        now: Now,
    ) -> Verdict {
        let config = Arc::clone(&self.settings.config);
        let mut detail = detail;
        let limits = &config.limits;
        let unproved = matches!(
            reject,
            Reject::NoCredentials
                | Reject::StaleNonce
                | Reject::IncompleteCredentials
                | Reject::Attribute("USERHASH")
        ) || detail.protection.is_none() && reject == Reject::UnknownAttribute;
        let (rate, burst) = (limits.unauthenticated_per_second, limits.unauthenticated_burst);
        if unproved && !self.unproved.spend(from.client.ip(), now.instant, rate, burst) {
            return self.drop(Direction::ToPeer, DropReason::RateLimited);
        }
        if reject.challenges() {
            let expires = now.unix.saturating_add(config.nonce_lifetime.as_secs());
            let nonce = self.shared.nonces.mint(from.client, self.features(), expires);
            detail.challenge = Some(Challenge { realm: &config.realm, nonce });
        }
        if reject == Reject::TryAlternate {
            detail.alternate = config.alternate_server;
        }
        answer::error(&mut self.reply, head, reject, &detail);
        self.stats.response(head.method, reject.code());
        if let Some(failure) = reject.auth_failure() {
            self.stats.auth_failure(failure);
        }
        if let Reject::PeerDenied(rule) = reject {
            self.stats.peer_denied(rule);
        }
        tracing::trace!(method = ?head.method, code = reject.code(), %reject, "refused");
        Verdict::Reply
    }

    /// Answers a Binding request, which needs no credentials.
    fn binding(&mut self, from: &FiveTuple, message: &Message<'_>, now: Now) -> Verdict {
        self.stats.request(Method::Binding, from.transport);
        if !message.unknown_required(&mut [0]).is_empty() {
            return self.refuse(from, message, Reject::UnknownAttribute, None, now);
        }
        let rate = self.settings.config.limits.binding_per_second;
        if !self.bindings.spend(from.client.ip(), now.instant, rate, rate) {
            return self.drop(Direction::ToPeer, DropReason::RateLimited);
        }
        answer::binding(&mut self.reply, Head::of(message), from.client);
        self.stats.response(Method::Binding, 0);
        Verdict::Reply
    }

    pub(super) fn drop(&self, direction: Direction, reason: DropReason) -> Verdict {
        self.stats.dropped(direction, reason, 1);
        Verdict::Drop(reason)
    }

    fn features(&self) -> Features {
        Features::offered(self.keys.supports_userhash())
    }

    /// The allocation of a 5-tuple and its slot.
    pub(super) fn live_mut(&mut self, from: &FiveTuple, now: Tick) -> Option<(u32, &mut Allocation)> {
        let again = |found: &Allocation| found.five_tuple == *from;
        if !self.allocations.get(self.recent as usize).is_some_and(again) {
            self.recent = *self.by_five_tuple.get(from)?;
        }
        let slot = self.recent;
        let allocation = self.allocations.get_mut(slot as usize)?;
        (allocation.expires > now).then_some((slot, allocation))
    }

    /// The allocation a request of a user is about (RFC 8656 section 5).
    pub(super) fn owned_mut(
        &mut self,
        from: &FiveTuple,
        by: &Authenticated,
        now: Tick,
    ) -> Result<(u32, &mut Allocation), Reject> {
        let (slot, allocation) = self.live_mut(from, now).ok_or(Reject::NoAllocation)?;
        if allocation.grant.username != by.grant.username {
            return Err(Reject::OtherUser);
        }
        Ok((slot, allocation))
    }

    /// Puts an allocation into every table.
    pub(super) fn insert(&mut self, allocation: Allocation) -> u32 {
        let (five_tuple, grant) = (allocation.five_tuple, Arc::clone(&allocation.grant));
        for relayed in &allocation.relayed {
            self.stats.allocations(five_tuple.transport, relayed.family, 1);
        }
        let lifetime = allocation.made_by.lifetime;
        let slot = self.allocations.insert(allocation) as u32;
        self.by_five_tuple.insert(five_tuple, slot);
        if let Some(call) = &grant.call {
            self.by_call.entry(Arc::clone(call)).or_default().push(slot);
        }
        self.arm(slot);
        self.outputs.push_back(Output::Event(Event::AllocationCreated { five_tuple, grant, lifetime }));
        slot
    }

    /// Arms the wheel for the next thing that ends in an allocation, unless it is armed for something earlier.
    pub(super) fn arm(&mut self, slot: u32) {
        if let Some(allocation) = self.allocations.get_mut(slot as usize) {
            let next = allocation.next_deadline();
            if allocation.armed == Tick::default() || next < allocation.armed {
                allocation.armed = self.deadlines.arm(next, slot);
            }
        }
    }

    /// Ends an allocation: its sockets are closed, its ports free once they are.
    pub(super) fn end(&mut self, slot: u32, reason: EndReason, now: Instant) {
        let Some(allocation) = self.allocations.try_remove(slot as usize) else { return };
        self.by_five_tuple.remove(&allocation.five_tuple);
        if let Some(call) = &allocation.grant.call
            && let Some(slots) = self.by_call.get_mut(call)
        {
            slots.retain(|other| *other != slot);
            if slots.is_empty() {
                self.by_call.remove(call);
            }
        }
        self.stats.held(-(allocation.permissions.len() as i64), -(allocation.channels.live() as i64));
        let peers = allocation.permissions.peers().collect();
        for relayed in allocation.relayed {
            self.stats.allocations(allocation.five_tuple.transport, relayed.family, -1);
            let relay = RelayId { slot, family: relayed.family };
            self.outputs.push_back(Output::Close { relay, lease: relayed.lease });
        }
        self.outputs.push_back(Output::Event(Event::AllocationEnded {
            five_tuple: allocation.five_tuple,
            grant: allocation.grant,
            reason,
            duration: now.saturating_duration_since(allocation.created),
            usage: allocation.usage,
            peers,
        }));
    }

    /// Gives up relayed addresses of an allocation that keeps another.
    pub(super) fn release(&mut self, slot: u32, gone: impl Fn(&Relayed) -> bool) {
        let Some(allocation) = self.allocations.get_mut(slot as usize) else { return };
        for relayed in allocation.release(&self.stats, gone) {
            let relay = RelayId { slot, family: relayed.family };
            self.outputs.push_back(Output::Close { relay, lease: relayed.lease });
        }
    }

    /// Ends every allocation made with credentials of a call.
    pub fn revoke_call(&mut self, call: &str, now: Now) {
        for slot in self.by_call.remove(call).unwrap_or_default() {
            self.end(slot, EndReason::Revoked, now.instant);
        }
    }

    /// Ends every allocation that somebody made for a call it has left.
    pub fn revoke_departed(&mut self, departure: &Departure, now: Now) {
        let slots = self.by_call.get(&departure.call).cloned().unwrap_or_default();
        for slot in slots {
            if self.allocations.get(slot as usize).is_some_and(|found| departure.ends(&found.grant)) {
                self.end(slot, EndReason::Revoked, now.instant);
            }
        }
    }

    /// Whether a client has an allocation.
    pub fn serves(&self, client: &FiveTuple) -> bool {
        self.by_five_tuple.contains_key(client)
    }

    /// Ends the allocation of a client whose connection is gone.
    pub fn disconnect(&mut self, client: &FiveTuple, now: Now) {
        if let Some(slot) = self.by_five_tuple.get(client).copied() {
            self.end(slot, EndReason::Disconnected, now.instant);
        }
    }

    /// Ends the allocation whose relay socket cannot be used any more.
    pub fn relay_failed(&mut self, relay: RelayId, now: Now) {
        self.end(relay.slot, EndReason::SocketFailed, now.instant);
    }

    /// Ends every allocation.
    pub fn shut_down(&mut self, now: Now) {
        let slots: Vec<u32> = self.allocations.iter().map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            self.end(slot, EndReason::Shutdown, now.instant);
        }
    }

    /// Takes over a changed configuration; what a tightened policy denies ends at once.
    pub fn reconfigure(&mut self, settings: Settings, keys: Arc<dyn Keys>) {
        self.settings = settings;
        self.keys = keys;
        let Self { allocations, shared, settings, stats, .. } = self;
        let allowed = |ip, port| shared.check(&settings.policy, ip, port).is_ok();
        for (_, allocation) in allocations.iter_mut() {
            allocation.change(stats, |found| {
                found.permissions.retain_peers(|ip| allowed(ip, None));
                found.channels.retain_peers(|peer| allowed(peer.ip(), Some(peer.port())));
            });
        }
    }

    /// Runs every timer that is due.
    pub fn on_timeout(&mut self, now: Now) {
        let tick = self.deadlines.tick(now.instant);
        let mut due = std::mem::take(&mut self.due);
        self.deadlines.fire(tick, &mut due);
        for (at, slot) in due.drain(..) {
            let Some(allocation) = self.allocations.get_mut(slot as usize).filter(|found| found.armed == at)
            else {
                continue;
            };
            if allocation.expires <= tick {
                self.end(slot, EndReason::Expired, now.instant);
                continue;
            }
            allocation.change(&self.stats, |found| {
                found.permissions.sweep(tick);
                found.channels.sweep(tick);
            });
            allocation.armed = Tick::default();
            if allocation.relayed.iter().any(|relayed| relayed.expires <= tick) {
                self.release(slot, |relayed| relayed.expires <= tick);
            }
            self.arm(slot);
        }
        self.due = due;
        self.shared.reservations.expire(now.instant);
    }

    /// When [`Server::on_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let reserved = self.shared.reservations.next_deadline();
        self.deadlines.next().into_iter().chain(reserved).min()
    }

    /// The next rare thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Live allocations.
    pub fn len(&self) -> usize {
        self.allocations.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.allocations.is_empty()
    }

    pub(super) fn random(&mut self) -> u64 {
        random(&mut self.entropy)
    }
}

fn random(entropy: &mut Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy(&mut bytes);
    u64::from_ne_bytes(bytes)
}

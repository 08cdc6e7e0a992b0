//! Allocate (RFC 8656 section 7).

use std::sync::Arc;

use smallvec::SmallVec;

use crate::stun::attribute::{self, Family};
use crate::stun::{Message, Method};
use crate::turn::allocation::{Made, PendingAllocation, Relayed, RelayedList, Wants};
use crate::turn::answer::{Allocated, ErrorDetail, Head, Protection, Success};
use crate::turn::deadlines::Tick;
use crate::turn::long_term::Authenticated;
use crate::turn::ports::Parity;
use crate::turn::reservations::Reservation;
use crate::turn::server::{Server, Step};
use crate::turn::{Bind, BindFailure, EndReason, FiveTuple, Now, PortLease, Reject, RelayId, Verdict};

use super::granted_lifetime;

/// Protocol number of UDP in REQUESTED-TRANSPORT.
const UDP: u8 = 17;

/// How many ports that another program took are tried before giving up.
const MAX_ATTEMPTS: u8 = 16;

/// The attributes of an Allocate, checked against each other.
struct Asked {
    families: Families,
    parity: Parity,
    token: Option<[u8; 8]>,
}

#[derive(Clone, Copy)]
struct Families {
    first: Family,
    /// ADDITIONAL-ADDRESS-FAMILY: an IPv6 address beside the IPv4 one.
    additional: bool,
}

impl Asked {
    /// In the order of RFC 8656 section 7.2.
    fn read(message: &Message<'_>) -> Result<Self, Reject> {
        match message.first(attribute::REQUESTED_TRANSPORT) {
            Some([UDP, _, _, _]) => {}
            Some([_, _, _, _]) => return Err(Reject::TransportNotSupported),
            _ => return Err(Reject::Attribute("REQUESTED-TRANSPORT")),
        }
        let requested = message.first(attribute::REQUESTED_ADDRESS_FAMILY);
        let additional = message.first(attribute::ADDITIONAL_ADDRESS_FAMILY);
        let even_port = message.first(attribute::EVEN_PORT);
        let token = match message.first(attribute::RESERVATION_TOKEN) {
            Some(token) => Some(token.try_into().map_err(|_| Reject::Attribute("RESERVATION-TOKEN"))?),
            None => None,
        };
        if token.is_some() && (even_port.is_some() || requested.is_some() || additional.is_some()) {
            return Err(Reject::Combination("RESERVATION-TOKEN with EVEN-PORT or an address family"));
        }
        if requested.is_some() && additional.is_some() {
            return Err(Reject::Combination("both REQUESTED- and ADDITIONAL-ADDRESS-FAMILY"));
        }
        let first = match requested.map(Family::from_value) {
            None => Family::V4,
            Some(Ok(family)) => family,
            Some(Err([_, _, _, _])) => return Err(Reject::FamilyNotSupported),
            Some(Err(_)) => return Err(Reject::Attribute("REQUESTED-ADDRESS-FAMILY")),
        };
        if additional.is_some_and(|value| Family::from_value(value) != Ok(Family::V6)) {
            return Err(Reject::Attribute("ADDITIONAL-ADDRESS-FAMILY"));
        }
        let parity = match even_port {
            None => Parity::Any,
            Some([bits]) if bits & 0x80 == 0 => Parity::Even,
            Some([_]) => Parity::EvenPair,
            Some(_) => return Err(Reject::Attribute("EVEN-PORT")),
        };
        if parity == Parity::EvenPair && additional.is_some() {
            return Err(Reject::Combination("EVEN-PORT's reservation with ADDITIONAL-ADDRESS-FAMILY"));
        }
        Ok(Self { families: Families { first, additional: additional.is_some() }, parity, token })
    }
}

/// Ports for an allocation.
struct Leased {
    relayed: RelayedList,
    reserve: Option<PortLease>,
    family_error: Option<(Family, u16)>,
}

impl Server {
    /// Checks an Allocate and asks for its sockets. A retransmission gets the answer of the first one again.
    pub(in crate::turn) fn allocate(
        &mut self,
        from: &FiveTuple,
        message: &Message<'_>,
        by: &Authenticated,
        now: Now,
    ) -> Result<Step, Reject> {
        let tick = self.deadlines.tick(now.instant);
        if let Some((_, allocation)) = self.live_mut(from, tick) {
            let same = allocation.made_by.transaction == message.transaction()
                && allocation.grant.username == by.grant.username;
            return if same {
                Ok(Step::Done(Success::Allocate(Allocated::of(allocation))))
            } else {
                Err(Reject::FiveTupleInUse)
            };
        }
        // One that is over but for its timer goes first: its end must not take the new one's 5-tuple along.
        if let Some(slot) = self.by_five_tuple.get(from).copied() {
            self.end(slot, EndReason::Expired, now.instant);
        }
        if by.grant.expires_unix.is_some_and(|expires| expires <= now.unix) {
            return Err(Reject::ExpiredCredential);
        }
        if self.shared.revocations.covers(&by.grant) {
            return Err(Reject::ExpiredCredential);
        }
        if self.shared.is_draining() {
            let alternate = self.settings.config.alternate_server.is_some();
            return Err(if alternate { Reject::TryAlternate } else { Reject::Draining });
        }
        let asked = Asked::read(message)?;
        let config = Arc::clone(&self.settings.config);
        let lifetime = granted_lifetime(message, &by.grant, &config, now.unix)?;
        let wants = Wants {
            family: asked.families.first,
            additional: asked.families.additional,
            parity: asked.parity,
            reserved: asked.token.is_some(),
        };
        let claim = || self.shared.quota.claim(&by.grant.user, from.client.ip(), &config.limits);
        let (leased, quota, reserve_quota) = match asked.token {
            Some(token) => {
                let reserved = self.shared.reservations.take(token, now.instant);
                let Reservation { lease, quota } = reserved.ok_or(Reject::UnknownToken)?;
                // The port's place in the quotas becomes the allocation's.
                drop(quota);
                let quota = claim()?;
                let family = Family::of(lease.local().ip());
                let relayed = std::iter::once(Relayed { family, lease, expires: Tick::default() }).collect();
                (Leased { relayed, reserve: None, family_error: None }, quota, None)
            }
            None => {
                let quota = claim()?;
                let reserve_quota = (wants.parity == Parity::EvenPair).then(claim).transpose()?;
                (self.lease(wants)?, quota, reserve_quota)
            }
        };
        Ok(Step::Bind(self.bind(PendingAllocation {
            five_tuple: *from,
            grant: Arc::clone(&by.grant),
            key: by.key.clone(),
            integrity: by.integrity,
            made_by: Made {
                transaction: message.transaction(),
                lifetime,
                token: None,
                family_error: leased.family_error,
            },
            relayed: leased.relayed,
            reserve: leased.reserve,
            reserve_quota,
            wants,
            quota,
            attempts: 0,
            fingerprint: message.has_fingerprint(),
        })))
    }

    fn lease(&mut self, wants: Wants) -> Result<Leased, Reject> {
        let mut leased = Leased { relayed: RelayedList::new(), reserve: None, family_error: None };
        let families = [Some(wants.family), wants.additional.then_some(Family::V6)];
        let mut last_error = Reject::NoPort;
        for family in families.into_iter().flatten() {
            let ipv6 = family == Family::V6;
            let random = self.random();
            let error = match self.shared.ports.lease(ipv6, wants.parity, random) {
                Some((lease, pair)) => {
                    leased.relayed.push(Relayed { family, lease, expires: Tick::default() });
                    leased.reserve = pair;
                    continue;
                }
                None if self.shared.ports.supports(ipv6) => Reject::NoPort,
                None => Reject::FamilyNotSupported,
            };
            last_error = error;
            leased.family_error = Some((family, error.code()));
        }
        if leased.relayed.is_empty() { Err(last_error) } else { Ok(leased) }
    }

    /// Asks for the sockets of a pending allocation; its slot is the one it will get.
    fn bind(&self, pending: PendingAllocation) -> Box<Bind> {
        let slot = self.allocations.vacant_key() as u32;
        let sockets: SmallVec<_> =
            pending.local_addresses().map(|(family, local)| (RelayId { slot, family }, local)).collect();
        Box::new(Bind { sockets, pending })
    }

    /// Goes on with an Allocate after the shell has bound all of its sockets, or none.
    pub fn on_bound(&mut self, bind: Box<Bind>, result: Result<(), BindFailure>, now: Now) -> Verdict {
        let mut pending = bind.pending;
        let head = Head {
            method: Method::Allocate,
            transaction: pending.made_by.transaction,
            fingerprint: pending.fingerprint,
        };
        let (key, integrity, from) = (pending.key.clone(), pending.integrity, pending.five_tuple);
        let by = || Protection { key: &key, integrity };
        if let Err(failure) = result {
            pending.attempts += 1;
            let again = failure == BindFailure::PortTaken
                && pending.attempts < MAX_ATTEMPTS
                && !pending.wants.reserved;
            // The ports just tried stay leased until others are, so that they are not drawn again.
            if again && let Ok(leased) = self.lease(pending.wants) {
                pending.relayed = leased.relayed;
                pending.reserve = leased.reserve;
                pending.made_by.family_error = leased.family_error;
                return Verdict::Bind(self.bind(pending));
            }
            let detail = ErrorDetail { protection: Some(by()), ..ErrorDetail::default() };
            return self.refuse_with(&from, head, Reject::NoPort, detail, now);
        }
        if let Some((lease, quota)) = pending.reserve.take().zip(pending.reserve_quota.take()) {
            let token = self.random().to_be_bytes();
            self.shared.reservations.keep(token, Reservation { lease, quota }, now.instant);
            pending.made_by.token = Some(token);
        }
        let expires = self.deadlines.tick(now.instant).after(pending.made_by.lifetime);
        let bandwidth = self.settings.config.limits.bandwidth;
        let allocation = pending.into_allocation(now.instant, expires, bandwidth);
        let success = Success::Allocate(Allocated::of(&allocation));
        self.insert(allocation);
        self.succeed(&from, head, &success, &by())
    }
}

//! What every request has to be answered with.

use std::net::{IpAddr, SocketAddr};

use passerelle::stun::attribute::Family;
use passerelle::turn::{
    AuthFailure, BindFailure, DenyRule, EndReason, ExpiryPolicy, FiveTuple, Measure, RelayAddress,
};

use super::{
    Allocation, Answer, Bucket, Channel, Content, Expected, Id, Model, Refusal, Relayed, Reservation, Token,
    Wants, key,
};
use crate::simulation::cast::CREDENTIALS;
use crate::simulation::clock::Clock;
use crate::simulation::wire::{Allocate, Ask, Honesty, Proof, Request};

/// How many ports that another program took are tried.
const MAX_ATTEMPTS: usize = 16;

/// An Allocate that waits for its sockets.
#[derive(Debug, Clone)]
pub struct Pending {
    pub id: Id,
    pub request: Request,
    pub proof: Proof,
    pub lifetime: u64,
    pub wants: Wants,
    /// The port of a RESERVATION-TOKEN.
    pub reserved: Option<SocketAddr>,
    pub families: Vec<Family>,
    pub family_error: Option<(u8, u16)>,
    pub attempts: usize,
}

/// How a request goes on, if it is not refused.
enum Outcome {
    Success(Content),
    Sockets(Box<Pending>),
}

impl Model {
    /// A request of a client.
    pub fn on_request(&mut self, id: Id, request: &Request, clock: &Clock) -> Expected {
        let (worker, from) = id;
        self.count(worker, Measure::Requests(request.ask.label(), from.transport), 1);
        if request.ask == Ask::Binding {
            return match request.unknown_attribute {
                true => self.refuse(worker, request, 420.into(), None),
                false => self.succeed(worker, request, Content::Mapped(from.client), None),
            };
        }
        let proof = match verify(&from, request, clock) {
            Ok(proof) => proof,
            Err(refusal) => return self.refuse(worker, request, refusal, None),
        };
        let outcome = match &request.ask {
            _ if request.unknown_attribute => Err(420.into()),
            Ask::Allocate(asked) => self.allocate(id, request, asked, proof, clock),
            Ask::Refresh { lifetime, family } => self.refresh(id, proof, *lifetime, *family, clock),
            Ask::CreatePermission { peers } => self.create_permission(id, proof, peers, clock),
            Ask::ChannelBind { number, peer } => self.channel_bind(id, proof, *number, *peer, clock),
            Ask::Binding => unreachable!("answered above"),
        };
        match outcome {
            Ok(Outcome::Sockets(pending)) => Expected::Sockets(pending),
            Ok(Outcome::Success(content)) => self.succeed(worker, request, content, Some(proof)),
            Err(refusal) => self.refuse(worker, request, refusal, Some(proof)),
        }
    }

    fn succeed(
        &mut self,
        worker: usize,
        request: &Request,
        content: Content,
        proof: Option<&Proof>,
    ) -> Expected {
        self.count(worker, Measure::Responses(request.ask.label(), 0), 1);
        Expected::Answer(Answer {
            transaction: request.transaction,
            code: 0,
            proof: proof.cloned(),
            fingerprint: request.fingerprint,
            content,
        })
    }

    fn refuse(&mut self, worker: usize, request: &Request, why: Refusal, proof: Option<&Proof>) -> Expected {
        self.count(worker, Measure::Responses(request.ask.label(), why.code), 1);
        if let Some(failure) = why.failure {
            self.count(worker, Measure::AuthFailures(failure), 1);
        }
        if let Some(rule) = why.rule {
            self.count(worker, Measure::PeerDenied(rule), 1);
        }
        let challenged = matches!(why.code, 401 | 438);
        let content = match (why.code, self.config.alternate_server) {
            (401 | 438, _) => Content::Challenge,
            (420, _) => Content::UnknownAttributes,
            (300, Some(alternate)) => Content::Alternate(alternate),
            _ => Content::Nothing,
        };
        Expected::Answer(Answer {
            transaction: request.transaction,
            code: why.code,
            proof: proof.filter(|_| !challenged).cloned(),
            fingerprint: request.fingerprint,
            content,
        })
    }

    fn allocate(
        &mut self,
        id: Id,
        request: &Request,
        asked: &Allocate,
        proof: &Proof,
        clock: &Clock,
    ) -> Result<Outcome, Refusal> {
        if let Some(found) = self.live(id, clock.second()) {
            let again = found.transaction == request.transaction && found.credential == proof.credential;
            return if again { Ok(Outcome::Success(allocated(found))) } else { Err(437.into()) };
        }
        // What is over but for its timer makes room first.
        self.end(id, EndReason::Expired);
        let credential = &CREDENTIALS[proof.credential];
        if credential.expires.is_some_and(|expires| expires <= clock.unix()) {
            return Err(Refusal::of(401, AuthFailure::Expired));
        }
        if self.draining {
            return Err(if self.config.alternate_server.is_some() { 300 } else { 508 }.into());
        }
        let wants = wants(asked)?;
        let lifetime = self.granted(asked.lifetime, proof.credential, clock)?;
        let mut pending = Pending {
            id,
            request: request.clone(),
            proof: proof.clone(),
            lifetime,
            wants,
            reserved: None,
            families: Vec::new(),
            family_error: None,
            attempts: 0,
        };
        if let Some(token) = asked.token {
            self.reservations.retain(|_, reserved| reserved.ends > clock.millis);
            let Reservation { local, .. } = self.reservations.remove(&token).ok_or(508)?;
            self.within_quota(credential.user, id.1.client.ip(), 1)?;
            pending.reserved = Some(local);
            pending.families = vec![Family::of(local.ip())];
            self.pending = vec![local];
        } else {
            let places = if wants.even == Some(true) { 2 } else { 1 };
            self.within_quota(credential.user, id.1.client.ip(), places)?;
            self.lease(&mut pending)?;
        }
        Ok(Outcome::Sockets(Box::new(pending)))
    }

    /// Whether so many more allocations and reservations are within every quota.
    fn within_quota(&self, user: &str, client: IpAddr, places: usize) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let allocations = self.allocations.values();
        let held: Vec<(&str, IpAddr)> = allocations
            .map(|found| (CREDENTIALS[found.credential].user, found.id.1.client.ip()))
            .chain(self.reservations.values().map(|reserved| (reserved.user, reserved.client)))
            .collect();
        for more in 0..places {
            let of_user = more + held.iter().filter(|(held, _)| *held == user).count();
            let of_address = more + held.iter().filter(|(_, held)| source(*held) == source(client)).count();
            if of_user >= limits.allocations_per_user + self.rules.generosity
                || of_address >= limits.allocations_per_ip
            {
                return Err(486.into());
            }
            if more + held.len() >= limits.allocations_total {
                return Err(508.into());
            }
        }
        Ok(())
    }

    /// Decides which families get an address.
    fn lease(&self, pending: &mut Pending) -> Result<(), Refusal> {
        (pending.families, pending.family_error) = (Vec::new(), None);
        for family in [Some(pending.wants.first), pending.wants.additional.then_some(Family::V6)] {
            let Some(family) = family else { continue };
            let of_family = |relay: &&RelayAddress| Family::of(relay.local) == family;
            let mut relays = self.config.relay_addresses.iter().filter(of_family).peekable();
            let code = if relays.peek().is_none() { 440 } else { 508 };
            if relays.any(|relay| self.has_port(relay.local, pending.wants.even)) {
                pending.families.push(family);
            } else {
                pending.family_error = Some((family.number(), code));
            }
        }
        match pending.family_error {
            Some((_, code)) if pending.families.is_empty() => Err(code.into()),
            _ => Ok(()),
        }
    }

    fn has_port(&self, local: IpAddr, even: Option<bool>) -> bool {
        let (range, leased) = (self.config.ports, self.leased().collect::<Vec<_>>());
        let free = |port: u16| {
            (range.first..=range.last).contains(&port) && !leased.contains(&SocketAddr::new(local, port))
        };
        (range.first..=range.last).any(|port| match even {
            None => free(port),
            Some(false) => port % 2 == 0 && free(port),
            Some(true) => port % 2 == 0 && free(port) && free(port + 1),
        })
    }

    /// An Allocate whose sockets are bound at `locals`, or could not be.
    pub fn on_bound(
        &mut self,
        mut pending: Box<Pending>,
        locals: &[SocketAddr],
        failure: Option<BindFailure>,
        clock: &Clock,
    ) -> Expected {
        let worker = pending.id.0;
        if let Some(failure) = failure {
            pending.attempts += 1;
            let again = failure == BindFailure::PortTaken
                && pending.attempts < MAX_ATTEMPTS
                && pending.reserved.is_none()
                && self.lease(&mut pending).is_ok();
            if again {
                return Expected::Sockets(pending);
            }
            self.pending.clear();
            return self.refuse(worker, &pending.request, 508.into(), Some(&pending.proof));
        }
        self.pending.clear();
        let relayed = locals
            .iter()
            .map(|local| Relayed {
                family: Family::of(local.ip()),
                local: *local,
                external: self.external(*local),
                ends: clock.second() + pending.lifetime + 1,
            })
            .collect();
        let allocation = Allocation {
            id: pending.id,
            credential: pending.proof.credential,
            relayed,
            ends: clock.second() + pending.lifetime + 1,
            transaction: pending.request.transaction,
            granted: pending.lifetime,
            token: None,
            family_error: pending.family_error,
            permissions: Default::default(),
            channels: Default::default(),
            usage: Default::default(),
            carries: false,
            buckets: self.config.limits.bandwidth.map(|rate| [Bucket::new(rate, clock.millis); 2]),
        };
        let mut content = allocated(&allocation);
        if let (Content::Allocated { token, .. }, Some(true)) = (&mut content, pending.wants.even) {
            *token = Token::Fresh;
        }
        self.allocations.insert(key(pending.id), allocation);
        self.created.push(pending.id);
        self.succeed(worker, &pending.request, content, Some(&pending.proof))
    }

    /// The server drew a token for the port behind an allocation's.
    pub fn on_reserved(&mut self, id: Id, token: [u8; 8], clock: &Clock) {
        if let Some(found) = self.allocations.get_mut(&key(id)) {
            found.token = Some(token);
            let even = found.relayed[0].local;
            let reserved = Reservation {
                local: SocketAddr::new(even.ip(), even.port() + 1),
                ends: clock.millis + self.rules.reservation * 1000,
                user: CREDENTIALS[found.credential].user,
                client: id.1.client.ip(),
            };
            self.reservations.insert(token, reserved);
        }
    }

    fn refresh(
        &mut self,
        id: Id,
        proof: &Proof,
        lifetime: Option<u32>,
        family: Option<u8>,
        clock: &Clock,
    ) -> Result<Outcome, Refusal> {
        let found = self.owned(id, proof, clock.second())?;
        let family = match family {
            None => None,
            Some(number) => {
                let mut families = found.relayed.iter().map(|relayed| relayed.family);
                Some(families.find(|family| family.number() == number).ok_or(443)?)
            }
        };
        if lifetime == Some(0) {
            match family {
                Some(family) if found.relayed.len() > 1 => found.release(|relayed| relayed.family == family),
                _ => self.end(id, EndReason::Deleted),
            }
            return Ok(Outcome::Success(Content::Lifetime(0)));
        }
        let granted = self.granted(lifetime, proof.credential, clock)?;
        self.owned(id, proof, clock.second())?.extend(family, clock.second() + granted + 1);
        Ok(Outcome::Success(Content::Lifetime(granted)))
    }

    fn create_permission(
        &mut self,
        id: Id,
        proof: &Proof,
        peers: &[SocketAddr],
        clock: &Clock,
    ) -> Result<Outcome, Refusal> {
        self.owned(id, proof, clock.second())?;
        for (at, peer) in peers.iter().enumerate() {
            self.may_reach(id, peer.ip(), None)?;
            if at == self.config.limits.permissions {
                return Err(508.into());
            }
        }
        if peers.is_empty() {
            return Err(400.into());
        }
        let ips: Vec<IpAddr> = peers.iter().map(SocketAddr::ip).collect();
        self.permit(id, proof, &ips, clock.second())?;
        Ok(Outcome::Success(Content::Nothing))
    }

    fn channel_bind(
        &mut self,
        id: Id,
        proof: &Proof,
        number: Option<u16>,
        peer: Option<SocketAddr>,
        clock: &Clock,
    ) -> Result<Outcome, Refusal> {
        let second = clock.second();
        let (rules, capacity) = (self.rules, self.config.limits.channels);
        let last = if self.config.wide_channel_range { 0x7FFF } else { 0x4FFF };
        self.owned(id, proof, second)?;
        let number = number.filter(|number| (0x4000..=last).contains(number)).ok_or(400)?;
        let peer = peer.ok_or(400)?;
        self.may_reach(id, peer.ip(), Some(peer.port()))?;
        self.permission_room(id, &[peer.ip()], second)?;
        let found = self.owned(id, proof, second)?;
        found.channels.retain(|_, channel| second < channel.ends + rules.quarantine + 1);
        let same = found.channels.get(&number).is_some_and(|channel| channel.peer == peer);
        let taken =
            found.channels.contains_key(&number) || found.channels.values().any(|held| held.peer == peer);
        if taken && !same {
            return Err(400.into());
        }
        if !same && found.channels.len() >= capacity {
            return Err(508.into());
        }
        found.channels.insert(number, Channel { peer, ends: second + rules.channel + 1 });
        self.permit(id, proof, &[peer.ip()], second)?;
        Ok(Outcome::Success(Content::Nothing))
    }

    fn owned(&mut self, id: Id, proof: &Proof, second: u64) -> Result<&mut Allocation, Refusal> {
        let found = self.live(id, second).ok_or(437)?;
        if found.credential != proof.credential {
            return Err(Refusal::of(441, AuthFailure::OtherUser));
        }
        Ok(found)
    }

    fn may_reach(&self, id: Id, peer: IpAddr, port: Option<u16>) -> Result<(), Refusal> {
        if !self.allocations[&key(id)].serves(peer) {
            return Err(443.into());
        }
        match self.denied(peer, port) {
            Some(rule) => Err(denied(rule)),
            None => Ok(()),
        }
    }

    fn permission_room(&self, id: Id, peers: &[IpAddr], second: u64) -> Result<(), Refusal> {
        let found = &self.allocations[&key(id)];
        let live = found.permissions.iter().filter(|(_, ends)| **ends > second).map(|(ip, _)| *ip);
        let all: std::collections::BTreeSet<IpAddr> = live.chain(peers.iter().copied()).collect();
        if all.len() > self.config.limits.permissions { Err(508.into()) } else { Ok(()) }
    }

    fn permit(&mut self, id: Id, proof: &Proof, peers: &[IpAddr], second: u64) -> Result<(), Refusal> {
        self.permission_room(id, peers, second)?;
        let ends = second + self.rules.permission + 1;
        let found = self.owned(id, proof, second)?;
        found.permissions.retain(|_, ends| *ends > second);
        found.permissions.extend(peers.iter().map(|ip| (*ip, ends)));
        Ok(())
    }

    /// The lifetime that is granted, cut where the credential ends sooner.
    fn granted(&self, asked: Option<u32>, credential: usize, clock: &Clock) -> Result<u64, Refusal> {
        let (default, most) = (self.config.lifetime_default.as_secs(), self.config.lifetime_max.as_secs());
        let granted = asked.map_or(default, u64::from).clamp(default, most);
        let until = CREDENTIALS[credential].expires.and_then(|expires| match self.config.expiry {
            ExpiryPolicy::Keep => None,
            ExpiryPolicy::Cut => Some(expires),
            ExpiryPolicy::Grace => Some(expires + self.config.expiry_grace.as_secs()),
        });
        match until.map(|until| until.saturating_sub(clock.unix())) {
            Some(0) => Err(Refusal::of(401, AuthFailure::Expired)),
            Some(left) => Ok(granted.min(left)),
            None => Ok(granted),
        }
    }
}

/// Long-term credentials: challenge, then nonce, then name and password.
fn verify<'r>(from: &FiveTuple, request: &'r Request, clock: &Clock) -> Result<&'r Proof, Refusal> {
    let proof = request.proof.as_ref().ok_or(401)?;
    let nonce = proof.nonce.as_ref().ok_or(Refusal::of(400, AuthFailure::Malformed))?;
    if nonce.client != from.client || clock.unix() >= nonce.expires {
        return Err(Refusal::of(438, AuthFailure::StaleNonce));
    }
    match proof.honesty {
        Honesty::Honest => Ok(proof),
        Honesty::WrongPassword => Err(Refusal::of(401, AuthFailure::WrongPassword)),
        Honesty::UnknownUser => Err(Refusal::of(401, AuthFailure::UnknownUser)),
    }
}

/// The attributes of an Allocate against each other, in the order of RFC 8656 section 7.2.
fn wants(asked: &Allocate) -> Result<Wants, Refusal> {
    match asked.transport {
        Some(17) => {}
        Some(_) => return Err(442.into()),
        None => return Err(400.into()),
    }
    let families = asked.family.is_some() || asked.additional.is_some();
    let excluded = asked.token.is_some() && (asked.even_port.is_some() || families)
        || asked.family.is_some() && asked.additional.is_some();
    if excluded {
        return Err(400.into());
    }
    let first = match asked.family {
        None | Some(1) => Family::V4,
        Some(2) => Family::V6,
        Some(_) => return Err(440.into()),
    };
    let pair_of_both = asked.even_port == Some(true) && asked.additional.is_some();
    if asked.additional.is_some_and(|family| family != 2) || pair_of_both {
        return Err(400.into());
    }
    Ok(Wants { first, additional: asked.additional.is_some(), even: asked.even_port })
}

fn allocated(allocation: &Allocation) -> Content {
    Content::Allocated {
        relayed: allocation.relayed.iter().map(|relayed| relayed.external).collect(),
        mapped: allocation.id.1.client,
        lifetime: allocation.granted,
        token: allocation.token.map_or(Token::No, Token::Known),
        family_error: allocation.family_error,
    }
}

const fn denied(rule: DenyRule) -> Refusal {
    Refusal { code: 403, failure: None, rule: Some(rule) }
}

/// What counts as one client address: an IPv4 address, an IPv6 /64.
fn source(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

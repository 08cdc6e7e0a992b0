//! Channels of an allocation (RFC 8656 section 12): number and peer, both ways, with the quarantine after expiry.

use std::net::SocketAddr;
use std::time::Duration;

use super::deadlines::Tick;
use super::small_table::SmallTable;

/// Life of a binding (RFC 8656 section 12).
const LIFETIME: Duration = Duration::from_secs(600);
/// How long number and peer stay together after expiry (RFC 8656 section 12.2).
const QUARANTINE: Duration = Duration::from_secs(300);

/// A channel number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// A number a client may bind: 0x4000 to 0x4FFF (RFC 8656 section 12), or to 0x7FFF for clients of RFC 5766.
    pub const fn bindable(number: u16, wide: bool) -> Option<Self> {
        let last = if wide { 0x7FFF } else { 0x4FFF };
        if number >= 0x4000 && number <= last { Some(Self(number)) } else { None }
    }

    /// The number on the wire.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Why a channel is not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The number is another peer's, or the peer has another number.
    Conflict,
    /// The table is full.
    Full,
}

#[derive(Debug, Clone, Copy)]
struct Binding {
    peer: SocketAddr,
    expires: Tick,
    /// Not counted as expired yet.
    live: bool,
}

/// Both directions of the bindings.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_number: SmallTable<u16, Binding>,
    by_peer: SmallTable<SocketAddr, ChannelNumber>,
    live: usize,
}

impl Channels {
    /// Binds or refreshes.
    pub(super) fn bind(
        &mut self,
        number: ChannelNumber,
        peer: SocketAddr,
        now: Tick,
        capacity: usize,
    ) -> Result<(), Refused> {
        self.sweep(now);
        let by_number = self.by_number.find(&number.get()).map(|binding| binding.peer);
        let by_peer = self.by_peer.find(&peer).copied();
        match (by_number, by_peer) {
            (None, None) if self.by_number.len() >= capacity => return Err(Refused::Full),
            (None, None) => {}
            (Some(bound), Some(_)) if bound == peer => {}
            _ => return Err(Refused::Conflict),
        }
        let was_live = self.by_number.find(&number.get()).is_some_and(|binding| binding.live);
        self.live += usize::from(!was_live);
        self.by_number.insert(number.get(), Binding { peer, expires: now.after(LIFETIME), live: true });
        self.by_peer.insert(peer, number);
        Ok(())
    }

    /// The peer of a live channel.
    pub(super) fn peer(&self, number: u16, now: Tick) -> Option<SocketAddr> {
        self.by_number.find(&number).filter(|binding| binding.expires > now).map(|binding| binding.peer)
    }

    /// The live channel of a peer.
    pub(super) fn number(&self, peer: &SocketAddr, now: Tick) -> Option<ChannelNumber> {
        let number = *self.by_peer.find(peer)?;
        self.peer(number.get(), now).map(|_| number)
    }

    /// Ends every channel whose peer is no longer allowed.
    pub(super) fn retain_peers(&mut self, allowed: impl Fn(SocketAddr) -> bool) {
        self.by_number.retain(|_, binding| allowed(binding.peer));
        self.by_peer.retain(|peer, _| allowed(*peer));
        self.live = self.by_number.iter().filter(|(_, binding)| binding.live).count();
    }

    /// Marks what expired and forgets what left its quarantine.
    pub(super) fn sweep(&mut self, now: Tick) {
        let mut expired = 0;
        self.by_number.retain(|_, binding| {
            if binding.live && binding.expires <= now {
                binding.live = false;
                expired += 1;
            }
            true
        });
        self.live -= expired;
        self.forget(now);
    }

    /// When [`Channels::sweep`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        let deadline = |binding: &Binding| {
            if binding.live { binding.expires } else { binding.expires.after(QUARANTINE) }
        };
        self.by_number.iter().map(|(_, binding)| deadline(binding)).min()
    }

    /// Live channels.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    fn forget(&mut self, now: Tick) {
        let gone = |binding: &Binding| !binding.live && binding.expires.after(QUARANTINE) <= now;
        if self.by_number.iter().any(|(_, binding)| gone(binding)) {
            self.by_number.retain(|_, binding| !gone(binding));
            let by_number = &self.by_number;
            self.by_peer.retain(|_, number| by_number.find(&number.get()).is_some());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> SocketAddr {
        SocketAddr::from(([9, 9, 9, last], 5000))
    }

    fn number(number: u16) -> ChannelNumber {
        ChannelNumber::bindable(number, false).unwrap()
    }

    #[test]
    fn only_the_numbers_of_rfc_8656_section_12_can_be_bound() {
        assert!(ChannelNumber::bindable(0x3FFF, false).is_none());
        assert!(ChannelNumber::bindable(0x4000, false).is_some());
        assert!(ChannelNumber::bindable(0x4FFF, false).is_some());
        assert!(ChannelNumber::bindable(0x5000, false).is_none());
        assert!(ChannelNumber::bindable(0x7FFF, true).is_some());
        assert!(ChannelNumber::bindable(0x8000, true).is_none());
    }

    #[test]
    fn a_number_and_its_peer_stay_together_for_five_minutes_after_expiry() {
        let mut channels = Channels::default();
        channels.bind(number(0x4000), peer(1), Tick(0), 8).unwrap();
        let expired = Tick(0).after(LIFETIME);
        channels.sweep(expired);
        assert_eq!((channels.live(), channels.peer(0x4000, expired)), (0, None));
        assert_eq!(channels.bind(number(0x4000), peer(2), expired, 8), Err(Refused::Conflict));
        assert_eq!(channels.bind(number(0x4001), peer(1), expired, 8), Err(Refused::Conflict));
        let over = expired.after(QUARANTINE);
        channels.sweep(over);
        channels.bind(number(0x4000), peer(2), over, 8).unwrap();
        channels.bind(number(0x4001), peer(1), over, 8).unwrap();
        assert_eq!(channels.live(), 2);
    }

    #[test]
    fn the_same_pair_can_be_bound_again_at_any_time() {
        let mut channels = Channels::default();
        for now in [0, 300, 601, 1300] {
            channels.bind(number(0x4000), peer(1), Tick(now), 1).unwrap();
            assert_eq!(channels.number(&peer(1), Tick(now)), Some(number(0x4000)));
            assert_eq!(channels.live(), 1);
        }
    }

    #[test]
    fn a_full_table_refuses_another_peer() {
        let mut channels = Channels::default();
        channels.bind(number(0x4000), peer(1), Tick(0), 1).unwrap();
        assert_eq!(channels.bind(number(0x4001), peer(2), Tick(0), 1), Err(Refused::Full));
    }
}

//! Allocate and Refresh.

use super::harness::{Ask, START, World, address, client, config};
use crate::stun::Method;
use crate::stun::attribute::{self, Family};
use crate::turn::{BindFailure, Departure, ExpiryPolicy, Measure, PortRange, Transport};

const IPV4: &[u8] = &[1, 0, 0, 0];
const IPV6: &[u8] = &[2, 0, 0, 0];

#[test]
fn an_allocation_tells_relayed_and_mapped_address_and_lifetime() {
    let mut world = World::new(config());
    let answer = world.ask(&client(1), "ana", &Ask::allocate());
    assert_eq!(answer.code(), 0);
    assert_eq!(answer.relayed().ip(), address("9.9.9.9:0").ip());
    assert!((49152..=65535).contains(&answer.relayed().port()));
    assert_eq!(answer.message().xor_address(attribute::XOR_MAPPED_ADDRESS), Some(Some(client(1).client)));
    assert_eq!(answer.lifetime(), 600);
    assert_eq!(world.measure(Measure::Allocations(Transport::Udp, Family::V4)), 1);
}

#[test]
fn a_lifetime_is_at_least_the_default_and_at_most_the_maximum() {
    for (asked, granted) in [(1u32, 600), (700, 700), (u32::MAX, 3600)] {
        let mut world = World::new(config());
        let ask = Ask::allocate().with(attribute::LIFETIME, &asked.to_be_bytes());
        assert_eq!(world.ask(&client(1), "ana", &ask).lifetime(), granted);
        assert_eq!(world.ask(&client(1), "ana", &Ask::refresh(asked)).lifetime(), granted);
    }
}

#[test]
fn an_allocation_that_is_not_refreshed_expires_and_frees_its_port() {
    let mut world = World::new(config());
    world.allocated(1);
    world.sleep(599);
    assert_eq!(world.ask(&client(1), "ana", &Ask::refresh(600)).code(), 0);
    world.sleep(599);
    assert_eq!(world.open.len(), 1);
    world.sleep(3);
    assert_eq!((world.open.len(), world.server.len()), (0, 0));
    assert_eq!(world.ask(&client(1), "ana", &Ask::refresh(600)).code(), 437);
}

#[test]
fn refresh_with_lifetime_zero_frees_at_once() {
    let mut world = World::new(config());
    world.allocated(1);
    let answer = world.ask(&client(1), "ana", &Ask::refresh(0));
    assert_eq!((answer.code(), answer.lifetime()), (0, 0));
    assert!(world.open.is_empty());
    assert_eq!(world.measure(Measure::Allocations(Transport::Udp, Family::V4)), 0);
}

#[test]
fn the_same_transaction_gets_the_same_success_and_another_one_437() {
    let mut world = World::new(config());
    let first = world.ask(&client(1), "ana", &Ask::allocate().transaction(9));
    let again = world.ask(&client(1), "ana", &Ask::allocate().transaction(9));
    assert_eq!((again.code(), again.relayed(), again.lifetime()), (0, first.relayed(), 600));
    assert_eq!(world.ask(&client(1), "ana", &Ask::allocate().transaction(10)).code(), 437);
    assert_eq!(world.ask(&client(1), "ben", &Ask::allocate().transaction(9)).code(), 437);
    assert_eq!(world.open.len(), 1);
}

#[test]
fn another_user_may_not_touch_an_allocation() {
    let mut world = World::new(config());
    world.allocated(1);
    for ask in [Ask::refresh(0), Ask::permission(&["8.8.4.4:1"]), Ask::channel(0x4000, "8.8.4.4:5000")] {
        assert_eq!(world.ask(&client(1), "ben", &ask).code(), 441);
    }
    assert_eq!(world.open.len(), 1);
}

#[test]
fn every_method_but_allocate_needs_an_allocation() {
    let mut world = World::new(config());
    for ask in [Ask::refresh(0), Ask::permission(&["8.8.4.4:1"]), Ask::channel(0x4000, "8.8.4.4:5000")] {
        assert_eq!(world.ask(&client(1), "ana", &ask).code(), 437);
    }
}

#[test]
fn attributes_that_are_missing_malformed_or_exclude_each_other_are_400() {
    let with = |kind, value: &[u8]| Ask::allocate().with(kind, value);
    let cases = [
        (Ask::new(Method::Allocate), 400),
        (Ask::new(Method::Allocate).with(attribute::REQUESTED_TRANSPORT, &[17]), 400),
        (Ask::new(Method::Allocate).with(attribute::REQUESTED_TRANSPORT, &[6, 0, 0, 0]), 442),
        (with(attribute::LIFETIME, &[1]), 400),
        (
            with(attribute::REQUESTED_ADDRESS_FAMILY, IPV4).with(attribute::ADDITIONAL_ADDRESS_FAMILY, IPV6),
            400,
        ),
        (with(attribute::ADDITIONAL_ADDRESS_FAMILY, IPV4), 400),
        (with(attribute::REQUESTED_ADDRESS_FAMILY, &[3, 0, 0, 0]), 440),
        (with(attribute::EVEN_PORT, &[0x80]).with(attribute::ADDITIONAL_ADDRESS_FAMILY, IPV6), 400),
        (with(attribute::EVEN_PORT, &[0]).with(attribute::RESERVATION_TOKEN, &[0; 8]), 400),
        (with(attribute::RESERVATION_TOKEN, &[0; 7]), 400),
        (with(attribute::RESERVATION_TOKEN, &[0; 8]), 508),
        (with(attribute::RESERVATION_TOKEN, &[0; 8]).with(attribute::REQUESTED_ADDRESS_FAMILY, IPV4), 400),
        (with(0x7FFF, &[]), 420),
    ];
    for (index, (ask, code)) in cases.into_iter().enumerate() {
        let mut world = World::new(config());
        assert_eq!(world.ask(&client(1), "ana", &ask).code(), code, "case {index}");
        assert!(world.open.is_empty());
    }
}

#[test]
fn families_are_served_as_asked_and_what_is_missing_is_told() {
    let mut world = World::new(config());
    let six = world.ask(&client(1), "ana", &Ask::allocate().with(attribute::REQUESTED_ADDRESS_FAMILY, IPV6));
    assert!(six.relayed().is_ipv6());
    let both =
        world.ask(&client(2), "ana", &Ask::allocate().with(attribute::ADDITIONAL_ADDRESS_FAMILY, IPV6));
    let relayed =
        both.message().attributes().filter(|(kind, _)| *kind == attribute::XOR_RELAYED_ADDRESS).count();
    assert_eq!((relayed, both.bytes(attribute::ADDRESS_ERROR_CODE)), (2, None));
    assert_eq!(
        world.ask(&client(2), "ana", &Ask::refresh(0).with(attribute::REQUESTED_ADDRESS_FAMILY, IPV6)).code(),
        0
    );

    let mut only_v4 = config();
    only_v4.relay_addresses.pop();
    let mut world = World::new(only_v4);
    let ask = |kind| Ask::allocate().with(kind, IPV6);
    assert_eq!(world.ask(&client(1), "ana", &ask(attribute::REQUESTED_ADDRESS_FAMILY)).code(), 440);
    let partial = world.ask(&client(1), "ana", &ask(attribute::ADDITIONAL_ADDRESS_FAMILY));
    assert_eq!(partial.bytes(attribute::ADDRESS_ERROR_CODE), Some(vec![2, 0, 4, 40]));
    let wrong = Ask::refresh(600).with(attribute::REQUESTED_ADDRESS_FAMILY, IPV6);
    assert_eq!(world.ask(&client(1), "ana", &wrong).code(), 443);
}

#[test]
fn a_reservation_token_gives_the_next_port_once_and_for_thirty_seconds() {
    let mut world = World::new(config());
    let even = world.ask_pair(1);
    let token = even.bytes(attribute::RESERVATION_TOKEN).unwrap();
    assert_eq!(even.relayed().port() % 2, 0);
    let ask = Ask::allocate().with(attribute::RESERVATION_TOKEN, &token);
    let odd = world.ask(&client(2), "ana", &ask);
    assert_eq!(odd.relayed().port(), even.relayed().port() + 1);
    assert_eq!(world.ask(&client(3), "ana", &ask).code(), 508);

    let late = world.ask_pair(4).bytes(attribute::RESERVATION_TOKEN).unwrap();
    world.sleep(31);
    let ask = Ask::allocate().with(attribute::RESERVATION_TOKEN, &late);
    assert_eq!(world.ask(&client(5), "ana", &ask).code(), 508);
    assert_eq!(world.shared.ports_used(), world.open.len());
}

impl World {
    /// An allocation with a reserved odd port; its own check of ports does not hold meanwhile.
    fn ask_pair(&mut self, number: u8) -> super::harness::Answer {
        self.reserved += 1;
        let answer = self.ask(&client(number), "ana", &Ask::allocate().with(attribute::EVEN_PORT, &[0x80]));
        assert_eq!(answer.code(), 0);
        answer
    }
}

#[test]
fn a_port_that_another_program_has_is_replaced() {
    let mut world = World::new(config());
    world.failures = vec![BindFailure::PortTaken; 5];
    world.allocated(1);
    assert_eq!(world.open.len(), 1);
    world.failures = vec![BindFailure::Impossible];
    assert_eq!(world.ask(&client(2), "ana", &Ask::allocate()).code(), 508);
    assert_eq!((world.open.len(), world.shared.ports_used()), (1, 1));
}

#[test]
fn quotas_and_the_port_pool_refuse_with_their_codes() {
    let mut tight = config();
    tight.limits.allocations_per_user = 1;
    tight.ports = PortRange { first: 50_000, last: 50_001 };
    let mut world = World::new(tight);
    world.allocated(1);
    assert_eq!(world.ask(&client(2), "ana", &Ask::allocate()).code(), 486);
    assert_eq!(world.ask(&client(2), "ben", &Ask::allocate()).code(), 0);
    assert_eq!(world.ask(&client(3), "old", &Ask::allocate()).code(), 508);
    assert_eq!(world.ask(&client(1), "ana", &Ask::refresh(0)).code(), 0);
    assert_eq!(world.ask(&client(2), "ben", &Ask::refresh(0)).code(), 0);
    assert_eq!(world.ask(&client(2), "ana", &Ask::allocate()).code(), 0, "the quota is given back");
}

#[test]
fn an_expired_credential_starts_nothing_and_the_policy_decides_about_what_lives() {
    for (policy, refreshed_at_200, refreshed_at_500) in
        [(ExpiryPolicy::Keep, 0, 0), (ExpiryPolicy::Cut, 437, 437), (ExpiryPolicy::Grace, 0, 437)]
    {
        let mut with = config();
        with.expiry = policy;
        with.expiry_grace = std::time::Duration::from_secs(300);
        let mut world = World::new(with);
        assert_eq!(world.ask(&client(1), "old", &Ask::allocate()).code(), 0);
        world.sleep(200);
        assert_eq!(world.ask(&client(2), "old", &Ask::allocate()).code(), 401);
        assert_eq!(world.ask(&client(1), "old", &Ask::refresh(600)).code(), refreshed_at_200, "{policy:?}");
        world.sleep(300);
        assert_eq!(world.ask(&client(1), "old", &Ask::refresh(600)).code(), refreshed_at_500, "{policy:?}");
    }
    assert_eq!(START % 10, 0);
}

#[test]
fn a_draining_server_allocates_nothing_and_refreshes_what_it_has() {
    let mut with = config();
    with.alternate_server = Some(address("7.7.7.7:3478"));
    for (config, code) in [(config(), 508), (with, 300)] {
        let mut world = World::new(config);
        world.allocated(1);
        world.shared.drain();
        let refused = world.ask(&client(2), "ana", &Ask::allocate());
        assert_eq!(refused.code(), code);
        let alternate = refused.bytes(attribute::ALTERNATE_SERVER);
        assert_eq!(alternate.is_some(), code == 300);
        assert_eq!(world.ask(&client(1), "ana", &Ask::refresh(600)).code(), 0);
    }
}

#[test]
fn the_allocations_of_a_call_end_with_it() {
    let mut world = World::new(config());
    world.allocated(1);
    assert_eq!(world.ask(&client(2), "ben", &Ask::allocate()).code(), 0);
    world.server.revoke_call("call-2", world.now);
    world.drain();
    assert_eq!(world.open.len(), 2);
    world.server.revoke_call("call-1", world.now);
    world.drain();
    assert_eq!((world.open.len(), world.server.len()), (1, 1));
    assert_eq!(
        world.ask(&client(3), "ana", &Ask::allocate()).code(),
        0,
        "the workers alone remember nothing"
    );
    world.shared.revoke_call(&"call-1".into());
    assert_eq!(world.ask(&client(4), "ana", &Ask::allocate()).code(), 401);
    assert_eq!(world.ask(&client(3), "ana", &Ask::refresh(0)).code(), 0);
    assert_eq!(world.ask(&client(5), "ben", &Ask::allocate()).code(), 0);
}

#[test]
fn the_allocations_of_someone_who_left_a_call_end_alone() {
    let mut world = World::new(config());
    for (at, who) in [(1, "ana"), (2, "cyd-1"), (3, "ben")] {
        assert_eq!(world.ask(&client(at), who, &Ask::allocate()).code(), 0);
    }
    let left = Departure { call: "call-1".into(), user: "cyd".into(), serial: 1 };
    world.shared.revoke_departed(&left);
    // Back before the worker has heard of it: what was minted since is not touched.
    assert_eq!(world.ask(&client(4), "cyd-2", &Ask::allocate()).code(), 0);
    world.server.revoke_departed(&left, world.now);
    world.drain();
    assert_eq!((world.open.len(), world.server.len()), (3, 3));
    assert_eq!(world.ask(&client(2), "cyd-1", &Ask::refresh(600)).code(), 437);
    assert_eq!(world.ask(&client(2), "cyd-1", &Ask::allocate()).code(), 401);
    for (at, who) in [(1, "ana"), (3, "ben"), (4, "cyd-2")] {
        assert_eq!(world.ask(&client(at), who, &Ask::refresh(600)).code(), 0, "{who}");
    }
}

#[test]
fn each_of_two_families_has_its_own_time() {
    let mut world = World::new(config());
    let both = Ask::allocate().with(attribute::ADDITIONAL_ADDRESS_FAMILY, IPV6);
    assert_eq!(world.ask(&client(1), "ana", &both).code(), 0);
    let of = |family| Ask::refresh(1200).with(attribute::REQUESTED_ADDRESS_FAMILY, family);
    assert_eq!(world.ask(&client(1), "ana", &of(IPV6)).lifetime(), 1200);
    world.sleep(601);
    assert_eq!(world.open.len(), 1, "IPv4 was not refreshed");
    assert!(world.open[0].1.is_ipv6());
    assert_eq!(world.ask(&client(1), "ana", &of(IPV4)).code(), 443);
    assert_eq!(world.ask(&client(1), "ana", &Ask::permission(&["8.8.4.4:1"])).code(), 443);
    assert_eq!(world.ask(&client(1), "ana", &Ask::permission(&["[2600::1]:1"])).code(), 0);
    // The last one ends the allocation.
    let delete = Ask::refresh(0).with(attribute::REQUESTED_ADDRESS_FAMILY, IPV6);
    assert_eq!(world.ask(&client(1), "ana", &delete).lifetime(), 0);
    assert!(world.open.is_empty() && world.server.is_empty());
    assert_eq!(world.measure(Measure::Permissions), 0);
}

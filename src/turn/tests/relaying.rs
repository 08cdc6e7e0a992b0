//! Permissions, channels and data in both directions.

use super::harness::{Ask, World, address, client, config};
use crate::stun::attribute;
use crate::stun::{Class, Message, Method, TransactionId, Writer};
use crate::turn::{DropReason, Measure, Settings, Verdict};

const PEER: &str = "8.8.4.4:5000";

fn send_indication(peer: &str, data: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, Class::Indication, Method::Send, TransactionId([1; 12]));
    writer.xor_address(attribute::XOR_PEER_ADDRESS, address(peer));
    if let Some(data) = data {
        writer.attribute(attribute::DATA, data);
    }
    bytes
}

fn dropped(verdict: Verdict) -> DropReason {
    match verdict {
        Verdict::Drop(reason) => reason,
        other => panic!("{other:?} is no drop"),
    }
}

fn sent(verdict: Verdict, bytes: &[u8]) -> (String, Vec<u8>) {
    match verdict {
        Verdict::ToPeer { peer, payload, .. } => (peer.to_string(), bytes[payload].to_vec()),
        other => panic!("{other:?} goes to no peer"),
    }
}

#[test]
fn data_needs_a_permission_and_a_permission_is_for_an_address_without_its_port() {
    let mut world = World::new(config());
    let relayed = world.allocated(1);
    let relay = world.relay(relayed);
    let bytes = send_indication(PEER, Some(b"hello"));
    assert_eq!(dropped(world.send(&client(1), &bytes)), DropReason::NoPermission);
    assert_eq!(dropped(world.server.on_peer(relay, address(PEER), 5, world.now)), DropReason::NoPermission);
    assert_eq!(world.ask(&client(1), "ana", &Ask::permission(&["8.8.4.4:1"])).code(), 0);
    assert_eq!(sent(world.send(&client(1), &bytes), &bytes), (PEER.into(), b"hello".to_vec()));
    let Verdict::ToClient { client: to, prefix, padding } =
        world.server.on_peer(relay, address(PEER), 5, world.now)
    else {
        panic!("not relayed");
    };
    assert_eq!((to, padding), (client(1), 3));
    let indication = [prefix.as_slice(), b"hello", &[0; 3]].concat();
    let message = Message::parse(&indication).unwrap();
    assert_eq!(message.xor_address(attribute::XOR_PEER_ADDRESS), Some(Some(address(PEER))));
    assert_eq!(message.first(attribute::DATA), Some(b"hello".as_slice()));
    assert_eq!(world.measure(Measure::Permissions), 1);
}

#[test]
fn a_permission_lasts_five_minutes_and_a_second_request_renews_it() {
    let mut world = World::new(config());
    let relayed = world.allocated(1);
    let relay = world.relay(relayed);
    assert_eq!(world.ask(&client(1), "ana", &Ask::refresh(3600)).code(), 0);
    let ask = Ask::permission(&[PEER]);
    world.ask(&client(1), "ana", &ask);
    world.sleep(299);
    world.ask(&client(1), "ana", &ask);
    world.sleep(299);
    assert!(matches!(world.server.on_peer(relay, address(PEER), 1, world.now), Verdict::ToClient { .. }));
    world.sleep(3);
    assert_eq!(dropped(world.server.on_peer(relay, address(PEER), 1, world.now)), DropReason::NoPermission);
    assert_eq!(world.measure(Measure::Permissions), 0);
}

#[test]
fn create_permission_is_all_or_nothing() {
    let mut world = World::new(config());
    world.allocated(1);
    assert_eq!(world.ask(&client(1), "ana", &Ask::permission(&[])).code(), 400);
    for (peers, code) in [([PEER, "10.0.0.1:1"], 403), ([PEER, "[2600::1]:1"], 443)] {
        assert_eq!(world.ask(&client(1), "ana", &Ask::permission(&peers)).code(), code);
        let bytes = send_indication(PEER, Some(b"x"));
        assert_eq!(dropped(world.send(&client(1), &bytes)), DropReason::NoPermission);
    }
    assert_eq!(world.ask(&client(1), "ana", &Ask::permission(&[PEER, "8.8.4.5:1"])).code(), 0);
    assert_eq!(world.measure(Measure::Permissions), 2);
}

#[test]
fn a_full_permission_table_is_508_and_what_expired_makes_room() {
    let mut small = config();
    small.limits.permissions = 2;
    let mut world = World::new(small);
    world.allocated(1);
    assert_eq!(
        world.ask(&client(1), "ana", &Ask::permission(&["8.8.4.1:1", "8.8.4.1:2", "8.8.4.2:1"])).code(),
        508
    );
    assert_eq!(world.ask(&client(1), "ana", &Ask::permission(&["8.8.4.1:1", "8.8.4.2:2"])).code(), 0);
    assert_eq!(world.ask(&client(1), "ana", &Ask::permission(&["8.8.4.3:1"])).code(), 508);
    assert_eq!(world.ask(&client(1), "ana", &Ask::channel(0x4000, "8.8.4.3:5000")).code(), 508);
    assert_eq!(world.ask(&client(1), "ana", &Ask::permission(&["8.8.4.2:9"])).code(), 0);
    world.sleep(302);
    assert_eq!(world.ask(&client(1), "ana", &Ask::permission(&["8.8.4.3:1"])).code(), 0);
}

#[test]
fn a_channel_carries_data_both_ways_and_installs_the_permission() {
    let mut world = World::new(config());
    let relayed = world.allocated(1);
    let relay = world.relay(relayed);
    assert_eq!(world.ask(&client(1), "ana", &Ask::channel(0x4001, PEER)).code(), 0);
    let bytes = [0x40, 0x01, 0, 3, 1, 2, 3, 0];
    assert_eq!(sent(world.send(&client(1), &bytes), &bytes), (PEER.into(), vec![1, 2, 3]));
    let Verdict::ToClient { prefix, padding, .. } = world.server.on_peer(relay, address(PEER), 3, world.now)
    else {
        panic!("not relayed");
    };
    assert_eq!((prefix.as_slice(), padding), ([0x40, 0x01, 0, 3].as_slice(), 0));
    // Another port of the same address has the permission, but not the channel.
    let other = address("8.8.4.4:5001");
    let Verdict::ToClient { prefix, .. } = world.server.on_peer(relay, other, 3, world.now) else {
        panic!("not relayed");
    };
    assert!(prefix.as_slice().starts_with(&[0, 0x17]));
    assert_eq!((world.measure(Measure::Permissions), world.measure(Measure::Channels)), (1, 1));
}

#[test]
fn a_channel_without_its_permission_brings_nothing_from_the_peer() {
    let mut world = World::new(config());
    let relayed = world.allocated(1);
    let relay = world.relay(relayed);
    world.ask(&client(1), "ana", &Ask::channel(0x4001, PEER));
    world.sleep(302);
    assert_eq!(dropped(world.server.on_peer(relay, address(PEER), 3, world.now)), DropReason::NoPermission);
    assert_eq!(world.ask(&client(1), "ana", &Ask::channel(0x4001, PEER)).code(), 0);
    assert!(matches!(world.server.on_peer(relay, address(PEER), 3, world.now), Verdict::ToClient { .. }));
}

#[test]
fn channels_are_refused_by_number_peer_and_family() {
    let mut world = World::new(config());
    world.allocated(1);
    assert_eq!(world.ask(&client(1), "ana", &Ask::channel(0x4001, PEER)).code(), 0);
    for (number, peer, code) in [
        (0x3FFF, "8.8.4.5:5000", 400),
        (0x5000, "8.8.4.5:5000", 400),
        (0x4001, "8.8.4.5:5000", 400),
        (0x4002, PEER, 400),
        (0x4003, "[2600::1]:5000", 443),
        (0x4003, "127.0.0.1:5000", 403),
        (0x4003, "8.8.4.5:53", 403),
        (0x4001, PEER, 0),
    ] {
        assert_eq!(
            world.ask(&client(1), "ana", &Ask::channel(number, peer)).code(),
            code,
            "{number:#x} {peer}"
        );
    }
    let mut incomplete = Ask::channel(0x4003, PEER);
    incomplete.peers.clear();
    assert_eq!(world.ask(&client(1), "ana", &incomplete).code(), 400);
    let mut incomplete = Ask::channel(0x4003, "8.8.4.5:5000");
    incomplete.attributes.clear();
    assert_eq!(world.ask(&client(1), "ana", &incomplete).code(), 400);
}

#[test]
fn a_send_indication_is_dropped_for_what_is_wrong_with_it() {
    let mut world = World::new(config());
    world.allocated(1);
    world.ask(&client(1), "ana", &Ask::permission(&[PEER]));
    let cases = [
        (send_indication(PEER, None), DropReason::Incomplete),
        (send_indication("8.8.4.4:53", Some(b"x")), DropReason::PeerDenied),
        (send_indication("8.8.4.9:5000", Some(b"x")), DropReason::NoPermission),
        (
            {
                let mut bytes = send_indication(PEER, Some(b"x"));
                bytes.extend_from_slice(&[0x7F, 0xFF, 0, 0]);
                let length = (bytes.len() - 20) as u16;
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
                bytes
            },
            DropReason::UnknownAttribute,
        ),
    ];
    for (bytes, reason) in cases {
        assert_eq!(dropped(world.send(&client(1), &bytes)), reason);
    }
    let empty = send_indication(PEER, Some(b""));
    assert_eq!(sent(world.send(&client(1), &empty), &empty).1, b"", "no data is data");
}

#[test]
fn two_clients_of_this_server_reach_each_other_and_nothing_else_of_its_address() {
    let mut world = World::new(config());
    let (one, two) = (world.allocated(1), world.allocated(2));
    let peer = two.to_string();
    assert_eq!(world.ask(&client(1), "ana", &Ask::permission(&[&peer])).code(), 0);
    assert_eq!(world.ask(&client(1), "ana", &Ask::channel(0x4000, &peer)).code(), 0);
    let bytes = send_indication(&peer, Some(b"x"));
    assert_eq!(sent(world.send(&client(1), &bytes), &bytes).0, peer);
    let free = (49152..).find(|port| ![one.port(), two.port()].contains(port)).unwrap();
    let bytes = send_indication(&format!("9.9.9.9:{free}"), Some(b"x"));
    assert_eq!(dropped(world.send(&client(1), &bytes)), DropReason::PeerDenied);
}

#[test]
fn behind_a_one_to_one_nat_relays_of_one_server_meet_at_their_local_addresses() {
    let mut nat = config();
    nat.relay_addresses.truncate(1);
    nat.relay_addresses[0].local = address("10.0.0.5:0").ip();
    nat.peers.own_addresses = vec![nat.relay_addresses[0].local, nat.relay_addresses[0].external];
    let mut world = World::new(nat);
    let (one, two) = (world.allocated(1), world.allocated(2));
    assert_eq!(one.ip(), address("9.9.9.9:0").ip());
    let peer = two.to_string();
    world.ask(&client(1), "ana", &Ask::permission(&[&peer]));
    world.ask(&client(2), "ana", &Ask::permission(&[&one.to_string()]));
    let bytes = send_indication(&peer, Some(b"x"));
    assert_eq!(sent(world.send(&client(1), &bytes), &bytes).0, format!("10.0.0.5:{}", two.port()));
    let relay = world.open.iter().find(|(_, local)| local.port() == two.port()).unwrap().0;
    let from = address(&format!("10.0.0.5:{}", one.port()));
    let Verdict::ToClient { prefix, .. } = world.server.on_peer(relay, from, 0, world.now) else { panic!() };
    let message = Message::parse(prefix.as_slice()).unwrap();
    assert_eq!(message.xor_address(attribute::XOR_PEER_ADDRESS), Some(Some(one)));
}

#[test]
fn the_bandwidth_of_an_allocation_is_a_limit_in_each_direction() {
    let mut slow = config();
    slow.limits.bandwidth = Some(100_000);
    let mut world = World::new(slow);
    let relayed = world.allocated(1);
    let relay = world.relay(relayed);
    world.ask(&client(1), "ana", &Ask::permission(&[PEER]));
    let bytes = send_indication(PEER, Some(&[0; 1000]));
    let up = (0..200).filter(|_| matches!(world.send(&client(1), &bytes), Verdict::ToPeer { .. })).count();
    let now = world.now;
    let down = (0..200)
        .filter(|_| matches!(world.server.on_peer(relay, address(PEER), 1000, now), Verdict::ToClient { .. }))
        .count();
    assert_eq!((up, down), (100, 100));
}

#[test]
fn a_tightened_policy_ends_what_it_denies() {
    let mut world = World::new(config());
    let relayed = world.allocated(1);
    let relay = world.relay(relayed);
    world.ask(&client(1), "ana", &Ask::channel(0x4000, PEER));
    world.ask(&client(1), "ana", &Ask::permission(&["7.7.7.7:1"]));
    let mut tight = config();
    tight.peers.deny.push("8.8.4.0/24".parse().unwrap());
    world.reconfigure(Settings::new(tight));
    assert_eq!(dropped(world.send(&client(1), &[0x40, 0, 0, 0])), DropReason::NoChannel);
    assert_eq!(dropped(world.server.on_peer(relay, address(PEER), 1, world.now)), DropReason::NoPermission);
    assert!(matches!(
        world.server.on_peer(relay, address("7.7.7.7:9"), 1, world.now),
        Verdict::ToClient { .. }
    ));
    assert_eq!((world.measure(Measure::Permissions), world.measure(Measure::Channels)), (1, 0));
}

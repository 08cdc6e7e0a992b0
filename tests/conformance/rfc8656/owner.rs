//! Requests on an allocation are its owner's alone.

use crate::support::server::{ALICE, BOB};
use crate::support::{Everywhere, Request, Transport};

/// Section 5: A request with another username than the one that made the allocation is answered with 441.
#[test]
fn a7_another_user_does_not_touch_an_allocation() {
    let server = Everywhere::start("");
    for transport in Transport::ALL {
        let (client, _) = server.allocated(transport);
        let mut bob = client.with_user(BOB);
        assert_eq!(bob.ask_signed(Request::refresh(0)).code(), 441);
        assert_eq!(bob.ask_signed(Request::permission(&["1.1.1.1:9".parse().unwrap()])).code(), 441);
        let bind = Request::channel_bind(0x4000, "1.1.1.1:9999".parse().unwrap());
        let answer = bob.ask_signed(bind);
        assert_eq!(answer.code(), 441);
        assert!(answer.is_signed_by(BOB.0, BOB.1));
        let mut alice = bob.with_user(ALICE);
        assert_eq!(alice.ask_signed(Request::refresh(600)).code(), 0);
    }
}

/// Section 7.2: That a 5-tuple is in use is told before whose it is, and the transaction id of another user's request
/// makes nobody the owner.
#[test]
fn an_allocate_of_another_user_on_the_same_five_tuple_is_a_mismatch() {
    let server = Everywhere::start("");
    for transport in Transport::ALL {
        let mut alice = server.client(transport);
        let base = Request::allocate();
        let first = alice.signed(base.clone());
        assert_eq!(alice.ask(&first).code(), 0);
        let nonce = alice.nonce().to_vec();
        let same = base.signed(BOB.0, BOB.1, crate::support::server::REALM, &nonce);
        assert_eq!(same.transaction(), first.transaction());
        assert_eq!(alice.ask(&same).code(), 437);
        assert_eq!(alice.ask(&first).code(), 0);
    }
}

//! Long-term credentials (RFC 8489 section 9.2): who is let in, and what the others are told.

use std::time::Duration;

use stun::attributes::*;
use stun::message::*;

use crate::support::server::{ALICE, REALM, SECRET};
use crate::support::stun_client::rest_credential;
use crate::support::{Answer, Client, Request, Server};

/// Section 9.2.4: A request without integrity is answered with 401, REALM and NONCE, and without USERNAME, USERHASH
/// or integrity.
#[test]
fn a_request_without_credentials_is_told_realm_and_nonce() {
    let server = Server::start("");
    let client = Client::new(server.turn());
    let answer = client.ask(&Request::allocate());
    assert_eq!(answer.code(), 401);
    assert_eq!(answer.value(ATTR_REALM).as_deref(), Some(REALM.as_bytes()));
    assert!(answer.value(ATTR_NONCE).is_some_and(|nonce| !nonce.is_empty() && nonce.len() < 128));
    assert_eq!(answer.value(ATTR_SOFTWARE), None);
    assert_eq!(server.scrape().sum("passerelle_turn_allocations", &[]), 0.0);
}

/// Section 9.2.4: Every request of TURN has to be authenticated with the long-term mechanism.
#[test]
fn every_method_but_binding_wants_credentials() {
    let server = Server::start("");
    let client = Client::new(server.turn());
    for method in [METHOD_ALLOCATE, METHOD_REFRESH, METHOD_CREATE_PERMISSION, METHOD_CHANNEL_BIND] {
        assert_eq!(client.ask(&Request::new(method)).code(), 401, "{method}");
    }
}

/// Section 9.2.4: A response to an authenticated request carries the integrity of that request.
#[test]
fn a_static_user_is_let_in_and_the_answer_is_signed() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let answer = client.ask_signed(Request::allocate());
    assert_eq!(answer.code(), 0);
    assert!(answer.is_signed_by(ALICE.0, ALICE.1));
}

/// Section 9.2.4: Error responses to an authenticated request carry the integrity too.
#[test]
fn an_error_after_authentication_is_signed_too() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let answer = client.ask_signed(Request::refresh(600));
    assert_eq!(answer.code(), 437);
    assert!(answer.is_signed_by(ALICE.0, ALICE.1));
}

/// Section 9.2.4: Whoever the USERNAME is valid for is let in by its password.
#[test]
fn a_rest_credential_is_let_in_beside_the_static_users() {
    let server = Server::start("");
    let (name, password) = rest_credential("carol", SECRET, Duration::from_secs(3600));
    let mut carol = Client::new(server.turn()).with_user((&name, &password));
    let mut alice = Client::new(server.turn());
    assert_eq!(carol.ask_signed(Request::allocate()).code(), 0);
    assert_eq!(alice.ask_signed(Request::allocate()).code(), 0);
}

/// Section 9.2.4: Several valid passwords of a rotation are each accepted.
#[test]
fn every_secret_of_the_list_verifies() {
    let old = "an old shared secret that is still long enough";
    let server = Server::start(&format!("[turn]\nsecrets = [\"{SECRET}\", \"{old}\"]"));
    for (secret, code) in [(SECRET, 0), (old, 0), ("a secret that nobody gave to this server", 401)] {
        let (name, password) = rest_credential("carol", secret, Duration::from_secs(3600));
        let mut client = Client::new(server.turn()).with_user((&name, &password));
        assert_eq!(client.ask_signed(Request::allocate()).code(), code, "{secret}");
    }
}

/// What an attacker could compare: the types and lengths of the attributes.
fn form(answer: &Answer) -> Vec<(u16, u16)> {
    answer.0.attributes.0.iter().map(|attribute| (attribute.typ.0, attribute.length)).collect()
}

/// Section 9.2.4: An unknown USERNAME and a wrong integrity are answered with 401, REALM and a new NONCE, in the same
/// form.
#[test]
fn an_unknown_user_a_wrong_password_and_an_expired_credential_look_the_same() {
    let server = Server::start("");
    let expired = {
        let expiry = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        crate::support::stun_client::rest_credential_until("carol", SECRET, expiry - Duration::from_secs(600))
    };
    let cases =
        [("nobody", "a password"), ("alice", "a wrong password"), (expired.0.as_str(), expired.1.as_str())];
    let answers = cases.map(|user| {
        let answer = Client::new(server.turn()).with_user(user).ask_signed(Request::allocate());
        assert_eq!(answer.code(), 401, "{user:?}");
        form(&answer)
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    assert!(answers[0].iter().any(|(kind, _)| *kind == ATTR_NONCE.0));
    server.await_metric("passerelle_turn_allocations_created_total", &[], 0.0);
    assert!(server.scrape().sum("passerelle_turn_auth_failures_total", &[]) >= 3.0);
}

/// Section 9.2.4: Integrity without USERNAME or USERHASH, REALM or NONCE is answered with 400.
#[test]
fn integrity_without_username_realm_or_nonce_is_a_bad_request() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    let whole = client.signed(Request::allocate());
    assert_eq!(client.ask(&whole).code(), 0);
    for missing in [ATTR_USERNAME, ATTR_REALM, ATTR_NONCE] {
        let mut request = Request::allocate();
        let values: [(AttrType, &[u8]); 3] =
            [(ATTR_USERNAME, b"alice"), (ATTR_REALM, REALM.as_bytes()), (ATTR_NONCE, client.nonce())];
        for (kind, value) in values.into_iter().filter(|(kind, _)| *kind != missing) {
            request = request.with(kind, value);
        }
        assert_eq!(client.ask(&request.with(ATTR_MESSAGE_INTEGRITY, &[7; 20])).code(), 400, "{missing}");
    }
}

/// Section 9.2.4: A NONCE that is not valid is answered with 438, REALM and a fresh NONCE.
#[test]
fn a3_a_nonce_of_another_address_is_stale_and_the_new_one_works() {
    let server = Server::start("");
    let mut owner = Client::new(server.turn());
    assert_eq!(owner.ask_signed(Request::allocate()).code(), 0);
    let mut thief = Client::new(server.turn());
    thief.set_nonce(owner.nonce());
    let answer = thief.ask_signed(Request::allocate());
    assert_eq!(answer.code(), 438);
    assert_eq!(answer.value(ATTR_REALM).as_deref(), Some(REALM.as_bytes()));
    thief.set_nonce(&answer.value(ATTR_NONCE).unwrap());
    assert_eq!(thief.ask_signed(Request::allocate()).code(), 0);
}

/// Section 9.2.4: A NONCE that this server never gave is not valid.
#[test]
fn a3_an_invented_nonce_is_stale() {
    let server = Server::start("");
    let mut client = Client::new(server.turn());
    for nonce in [&b"deadbeef"[..], &[b'a'; 64], &[0xFF; 32]] {
        client.set_nonce(nonce);
        assert_eq!(client.ask_signed(Request::allocate()).code(), 438, "{nonce:?}");
    }
}

/// Section 14.5: Attributes after MESSAGE-INTEGRITY, other than MESSAGE-INTEGRITY-SHA256 and FINGERPRINT, are
/// ignored.
#[test]
fn a4_what_follows_the_integrity_is_ignored() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    let request = client.signed(Request::refresh(600)).lifetime(0);
    assert_eq!(client.ask(&request).lifetime(), 600);
    // Unknown and required, but behind the border.
    let request = client.signed(Request::refresh(600)).with(AttrType(0x7F01), b"what");
    assert_eq!(client.ask(&request).code(), 0);
    assert_eq!(client.ask_signed(Request::refresh(600)).code(), 0);
}

/// Section 9.2.4: A request whose integrity does not match its bytes is answered with 401.
#[test]
fn a_changed_request_is_refused() {
    let server = Server::start("");
    let (mut client, _) = Client::allocated(server.turn());
    let mut bytes = client.signed(Request::refresh(600)).bytes().to_vec();
    // LIFETIME is the first attribute: 600 becomes 0.
    bytes[24..28].copy_from_slice(&[0; 4]);
    client.send(&bytes);
    let answer = client.receive();
    assert_eq!(answer[..2], [0x01, 0x14], "an error of Refresh");
    assert_eq!(client.ask_signed(Request::refresh(600)).code(), 0);
}

//! What a session costs the call engine. A process of its own, so that nothing else allocates while it is measured.

#![allow(unsafe_code, reason = "a global allocator that counts")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use passerelle::signaling::{
    CallId, Config, Grants, Hub, IceMint, IceServers, Identity, Now, Output, Resume, ResumeKey, Resumption,
    SessionId, UserId,
};

/// Bytes that are allocated now.
static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SESSIONS: usize = 20_000;
/// Most bytes of an idle session, its user and its place in every table included.
const IDLE: usize = 2 * 1024;

struct NoIce;

impl IceMint for NoIce {
    fn mint(&mut self, _: &UserId, _: Option<&CallId>, _: bool, _: Now) -> IceServers {
        IceServers { servers: Vec::new(), ttl: Duration::from_secs(43_200) }
    }
}

fn identity(n: usize) -> Identity {
    let grants = Grants::default();
    Identity {
        user: UserId(format!("user-{n:032}").into()),
        display_name: Some(format!("Display name of user {n}").into()),
        username: Some(format!("user.{n}@example.org").into()),
        avatar: None,
        grants,
        expires_unix_ms: Some(i64::MAX),
    }
}

/// Takes every output; the greeting of the last session that got one.
fn drain(hub: &mut Hub) -> Option<serde_json::Value> {
    let mut ready = None;
    while let Some(output) = hub.poll_output() {
        if let Output::Deliver { event, .. } = output
            && event.name == "session:ready"
        {
            ready = Some(event.to_value());
        }
    }
    ready
}

#[test]
fn an_idle_session_costs_two_kilobytes_at_most_and_leaves_none_behind() {
    let mut seed = 1_u64;
    let entropy = Box::new(move |bytes: &mut [u8]| {
        for byte in bytes {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (seed >> 56) as u8;
        }
    });
    let mut hub = Hub::new(Config::default(), Box::new(NoIce), entropy);
    let mut now = Now { instant: Instant::now(), unix_ms: 1_700_000_000_000 };
    let start = HELD.load(Ordering::Relaxed);
    let mut sessions: Vec<SessionId> = Vec::with_capacity(SESSIONS);
    let mut ready = None;
    for n in 0..SESSIONS {
        sessions.push(hub.open(identity(n), None, now).unwrap().session);
        ready = drain(&mut hub);
    }
    let each = (HELD.load(Ordering::Relaxed) - start) / SESSIONS;
    assert!(each <= IDLE, "{each} bytes");

    // Without a transport, and with one again.
    for session in &sessions {
        hub.close(*session, now);
        drain(&mut hub);
    }
    let waiting = (HELD.load(Ordering::Relaxed) - start) / SESSIONS;
    assert!(waiting <= IDLE, "{waiting} bytes");
    let ready = ready.unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let resume = Resume { sid: text(&ready["sid"]), key: ResumeKey(text(&ready["resume"]["key"])), seq: 0 };
    let opened = hub.open(identity(SESSIONS - 1), Some(resume), now).unwrap();
    assert_eq!(opened.resumption, Some(Resumption::Resumed));
    drain(&mut hub);
    hub.close(opened.session, now);

    now.instant += Duration::from_secs(200);
    hub.on_timeout(now);
    drain(&mut hub);
    drop(sessions);
    // Tables keep some room; sessions, users and names are gone.
    let left = HELD.load(Ordering::Relaxed).saturating_sub(start) / SESSIONS;
    assert!(left <= 250, "{left} bytes a session are left");
    assert_eq!(hub.poll_timeout(), None);
}

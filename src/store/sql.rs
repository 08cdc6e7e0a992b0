//! The statements of both databases. `$N` is a parameter to both.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::StoreError;

pub(super) const UPSERT_CALL: &str = "\
INSERT INTO calls (id, room_id, type, mode, status, end_reason, initiator_id, created_at, ringing_at, answered_at, \
                   ended_at, duration_s, ended_by, participants_peak, room_open, locked, expires_at, relay_used, \
                   relay_bytes_up, relay_bytes_down, quality, metadata, rev) \
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23) \
ON CONFLICT (id) DO UPDATE SET \
    mode = excluded.mode, status = excluded.status, end_reason = excluded.end_reason, \
    ringing_at = excluded.ringing_at, answered_at = excluded.answered_at, ended_at = excluded.ended_at, \
    duration_s = excluded.duration_s, ended_by = excluded.ended_by, \
    participants_peak = excluded.participants_peak, room_open = excluded.room_open, locked = excluded.locked, \
    expires_at = excluded.expires_at, relay_used = excluded.relay_used, \
    relay_bytes_up = excluded.relay_bytes_up, relay_bytes_down = excluded.relay_bytes_down, \
    quality = excluded.quality, metadata = excluded.metadata, rev = excluded.rev \
WHERE excluded.rev > calls.rev";

pub(super) const UPSERT_PARTICIPANT: &str = "\
INSERT INTO call_participants (call_id, user_id, attempt, role, state, invited_at, joined_at, connected_at, left_at, \
                               leave_reason, audio, video, reconnects, ice_method, setup_ms, rtt_avg_ms, rtt_max_ms, \
                               loss_avg, loss_max, jitter_avg_ms, relay_bytes, relay_transport, relay_peers) \
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23) \
ON CONFLICT (call_id, user_id, attempt) DO UPDATE SET \
    role = excluded.role, state = excluded.state, joined_at = excluded.joined_at, \
    connected_at = excluded.connected_at, left_at = excluded.left_at, leave_reason = excluded.leave_reason, \
    audio = excluded.audio, video = excluded.video, reconnects = excluded.reconnects, \
    ice_method = excluded.ice_method, setup_ms = excluded.setup_ms, rtt_avg_ms = excluded.rtt_avg_ms, \
    rtt_max_ms = excluded.rtt_max_ms, loss_avg = excluded.loss_avg, loss_max = excluded.loss_max, \
    jitter_avg_ms = excluded.jitter_avg_ms, relay_bytes = excluded.relay_bytes, \
    relay_transport = excluded.relay_transport, relay_peers = excluded.relay_peers";

/// A page of the calls of user $1, of everybody without one.
pub(super) const LIST: &str = "\
SELECT calls.* FROM calls \
WHERE ($1 IS NULL OR calls.id IN (SELECT id FROM calls WHERE initiator_id = $1 \
                                  UNION SELECT call_id FROM call_participants WHERE user_id = $1)) \
  AND ($2 IS NULL OR (initiator_id = $1) = $2) AND ($3 IS NULL OR status = $3) \
  AND ($4 IS NULL OR (created_at, id) < ($4, $5)) \
  AND ($6 IS NULL OR room_id = $6) AND ($7 IS NULL OR type = $7) \
  AND ($8 IS NULL OR created_at >= $8) AND ($9 IS NULL OR created_at < $9) \
ORDER BY created_at DESC, id DESC LIMIT $10";

/// Call $2, if it is one of user $1.
pub(super) const ONE: &str = "\
SELECT * FROM calls WHERE id = $2 AND ($1 IS NULL OR initiator_id = $1 OR EXISTS \
    (SELECT 1 FROM call_participants WHERE call_id = $2 AND user_id = $1))";

/// Calls that are not over, newest first.
pub(super) const RUNNING: &str = "\
SELECT * FROM calls WHERE ended_at IS NULL AND created_at >= $1 ORDER BY created_at DESC LIMIT $2";

/// Calls that are over, the newest first.
pub(super) const ENDED: &str = "SELECT id FROM calls WHERE ended_at >= $1 ORDER BY ended_at DESC LIMIT $2";

pub(super) const MISSED: &str = "\
INSERT INTO missed_calls (call_id, user_id, initiator_id, room_id, type, missed_at, reason, body) \
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";

pub(super) const SEEN: &str = "\
INSERT INTO missed_seen (user_id, seen_until) VALUES ($1, $2) \
ON CONFLICT (user_id) DO UPDATE SET seen_until = excluded.seen_until \
WHERE excluded.seen_until > missed_seen.seen_until";

/// A page of what user $1 has missed, of everybody without one. Rows of one call follow each other by their users.
pub(super) const LIST_MISSED: &str = "\
SELECT * FROM missed_calls \
WHERE ($1 IS NULL OR user_id = $1) AND body IS NOT NULL \
  AND ($2 IS NULL OR (missed_at, call_id || ':' || user_id) < ($2, $3)) \
ORDER BY missed_at DESC, call_id || ':' || user_id DESC LIMIT $4";

/// What was missed at $1 or later and not told yet, newest first.
pub(super) const UNSEEN: &str = "\
SELECT missed_calls.* FROM missed_calls LEFT JOIN missed_seen ON missed_seen.user_id = missed_calls.user_id \
WHERE missed_at >= $1 AND body IS NOT NULL AND (seen_until IS NULL OR missed_at > seen_until) \
ORDER BY missed_at DESC LIMIT $2";

pub(super) const KEEP: &str = "\
INSERT INTO call_events (call_id, ord, kind, user_id, reason, at) \
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";

/// The steps of call $2, if it is one of user $1.
pub(super) const EVENTS: &str = "\
SELECT * FROM call_events WHERE call_id = $2 AND ($1 IS NULL OR EXISTS \
    (SELECT 1 FROM calls WHERE id = $2 AND initiator_id = $1) OR EXISTS \
    (SELECT 1 FROM call_participants WHERE call_id = $2 AND user_id = $1)) \
ORDER BY ord LIMIT 1000";

pub(super) const ENQUEUE: &str = "\
INSERT INTO webhook_outbox (id, call_id, ord, kind, body, created_at, next_at) \
VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT DO NOTHING";

/// The oldest event of each call whose time has come.
pub(super) const DUE: &str = "\
SELECT * FROM webhook_outbox AS due WHERE next_at <= $1 AND NOT EXISTS \
    (SELECT 1 FROM webhook_outbox AS before WHERE before.call_id = due.call_id AND before.ord < due.ord) \
ORDER BY next_at LIMIT $2";

pub(super) const DELIVERED: &str = "DELETE FROM webhook_outbox WHERE id = $1";
pub(super) const POSTPONED: &str =
    "UPDATE webhook_outbox SET attempts = attempts + 1, next_at = $2 WHERE id = $1";

/// Calls that are old enough, a bounded number at once so that nobody waits long.
pub(super) const PURGE_CALLS: &str = "\
DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE created_at < $1 ORDER BY created_at LIMIT 1000)";
pub(super) const PURGE_MISSED: &str = "DELETE FROM missed_calls WHERE missed_at < $1";
pub(super) const PURGE_SEEN: &str = "DELETE FROM missed_seen WHERE seen_until < $1";
pub(super) const PURGE_EVENTS: &str = "DELETE FROM call_events WHERE at < $1";
pub(super) const PURGE_OUTBOX: &str = "DELETE FROM webhook_outbox WHERE created_at < $1";

/// Events that wait for the webhook, and the $1 oldest of them.
pub(super) const WAITING: &str = "SELECT COUNT(*) AS waiting FROM webhook_outbox";
pub(super) const DROP_OLDEST: &str = "\
DELETE FROM webhook_outbox WHERE id IN (SELECT id FROM webhook_outbox ORDER BY created_at, call_id, ord LIMIT $1)";

/// A list of networks as it is stored; nothing for none.
pub(super) fn peers_json(peers: &[std::sync::Arc<str>]) -> Option<String> {
    (!peers.is_empty())
        .then(|| serde_json::json!(peers.iter().map(AsRef::as_ref).collect::<Vec<&str>>()).to_string())
}

/// The last call of a page.
pub(super) struct Cursor {
    pub(super) created_at: i64,
    pub(super) id: String,
}

impl Cursor {
    pub(super) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}:{}", self.created_at, self.id))
    }

    pub(super) fn decode(text: &str) -> Result<Self, StoreError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| StoreError::Cursor)?;
        let text = String::from_utf8(bytes).map_err(|_| StoreError::Cursor)?;
        let (created_at, id) = text.split_once(':').ok_or(StoreError::Cursor)?;
        if id.chars().any(char::is_control) {
            return Err(StoreError::Cursor);
        }
        Ok(Self { created_at: created_at.parse().map_err(|_| StoreError::Cursor)?, id: id.to_owned() })
    }
}

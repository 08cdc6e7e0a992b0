-- Networks (/24, /48) of the peers that the relay talked to for a participant, as a JSON list.
ALTER TABLE call_participants ADD COLUMN relay_peers TEXT;

-- What a user is told of a missed call, and why it was missed.
ALTER TABLE missed_calls ADD COLUMN reason TEXT;
ALTER TABLE missed_calls ADD COLUMN body TEXT;

-- Up to when each user knows what it has missed.
CREATE TABLE missed_seen (
    user_id    TEXT    NOT NULL PRIMARY KEY,
    seen_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The steps of each call, for some days.
CREATE TABLE call_events (
    call_id TEXT    NOT NULL,
    ord     INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    user_id TEXT,
    reason  TEXT,
    at      INTEGER NOT NULL,
    PRIMARY KEY (call_id, ord)
) STRICT, WITHOUT ROWID;

CREATE INDEX call_events_by_age ON call_events (at);
CREATE INDEX webhook_outbox_by_age ON webhook_outbox (created_at, call_id, ord);

-- Whose credentials are good for nothing any more.
CREATE INDEX calls_by_end ON calls (ended_at);

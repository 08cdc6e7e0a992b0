ALTER TABLE calls ADD COLUMN room_open INTEGER NOT NULL DEFAULT 0;
ALTER TABLE calls ADD COLUMN locked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE calls ADD COLUMN expires_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_participants ADD COLUMN relay_transport TEXT;

-- What a process that starts has to take up again.
CREATE INDEX calls_running ON calls (created_at) WHERE ended_at IS NULL;

CREATE TABLE missed_calls (
    call_id      TEXT    NOT NULL,
    user_id      TEXT    NOT NULL,
    initiator_id TEXT    NOT NULL,
    room_id      TEXT,
    type         TEXT    NOT NULL,
    missed_at    INTEGER NOT NULL,
    PRIMARY KEY (user_id, missed_at, call_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX missed_calls_by_age ON missed_calls (missed_at);

-- Events for the operator's webhook that it has not taken yet.
CREATE TABLE webhook_outbox (
    id         TEXT    NOT NULL PRIMARY KEY,
    call_id    TEXT    NOT NULL,
    ord        INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    next_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX webhook_outbox_by_call ON webhook_outbox (call_id, ord);
CREATE INDEX webhook_outbox_due ON webhook_outbox (next_at);

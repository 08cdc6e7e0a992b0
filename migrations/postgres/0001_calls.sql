-- Times are milliseconds since the Unix epoch. Ids sort by their bytes, as cursors do.
CREATE TABLE calls (
    id                TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    room_id           TEXT,
    type              TEXT    NOT NULL,
    mode              TEXT    NOT NULL,
    status            TEXT    NOT NULL,
    end_reason        TEXT,
    initiator_id      TEXT    NOT NULL,
    created_at        BIGINT  NOT NULL,
    ringing_at        BIGINT,
    answered_at       BIGINT,
    ended_at          BIGINT,
    duration_s        BIGINT,
    ended_by          TEXT,
    participants_peak BIGINT  NOT NULL DEFAULT 0,
    room_open         BOOLEAN NOT NULL DEFAULT FALSE,
    locked            BOOLEAN NOT NULL DEFAULT FALSE,
    expires_at        BIGINT  NOT NULL DEFAULT 0,
    relay_used        BOOLEAN,
    relay_bytes_up    BIGINT,
    relay_bytes_down  BIGINT,
    quality           TEXT,
    metadata          TEXT,
    rev               BIGINT  NOT NULL
);

CREATE INDEX calls_by_initiator ON calls (initiator_id, created_at);
CREATE INDEX calls_by_age ON calls (created_at, id);
CREATE INDEX calls_running ON calls (created_at) WHERE ended_at IS NULL;

CREATE TABLE call_participants (
    call_id         TEXT    NOT NULL REFERENCES calls (id) ON DELETE CASCADE,
    user_id         TEXT    NOT NULL,
    attempt         BIGINT  NOT NULL,
    role            TEXT    NOT NULL,
    state           TEXT    NOT NULL,
    invited_at      BIGINT  NOT NULL,
    joined_at       BIGINT,
    connected_at    BIGINT,
    left_at         BIGINT,
    leave_reason    TEXT,
    audio           BOOLEAN NOT NULL,
    video           BOOLEAN NOT NULL,
    ice_method      TEXT,
    setup_ms        BIGINT,
    rtt_avg_ms      DOUBLE PRECISION,
    rtt_max_ms      DOUBLE PRECISION,
    loss_avg        DOUBLE PRECISION,
    loss_max        DOUBLE PRECISION,
    jitter_avg_ms   DOUBLE PRECISION,
    relay_bytes     BIGINT,
    relay_transport TEXT,
    reconnects      BIGINT  NOT NULL DEFAULT 0,
    PRIMARY KEY (call_id, user_id, attempt)
);

CREATE INDEX call_participants_by_user ON call_participants (user_id, call_id);

CREATE TABLE missed_calls (
    call_id      TEXT   NOT NULL,
    user_id      TEXT   NOT NULL,
    initiator_id TEXT   NOT NULL,
    room_id      TEXT,
    type         TEXT   NOT NULL,
    missed_at    BIGINT NOT NULL,
    PRIMARY KEY (user_id, missed_at, call_id)
);

CREATE INDEX missed_calls_by_age ON missed_calls (missed_at);

-- Events for the operator's webhook that it has not taken yet.
CREATE TABLE webhook_outbox (
    id         TEXT   NOT NULL PRIMARY KEY,
    call_id    TEXT   NOT NULL,
    ord        BIGINT NOT NULL,
    kind       TEXT   NOT NULL,
    body       TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    attempts   BIGINT NOT NULL DEFAULT 0,
    next_at    BIGINT NOT NULL
);

CREATE INDEX webhook_outbox_by_call ON webhook_outbox (call_id, ord);
CREATE INDEX webhook_outbox_due ON webhook_outbox (next_at);

-- Times are milliseconds since the Unix epoch. Columns that nothing fills yet are NULL until their part is built.
CREATE TABLE calls (
    id                TEXT    NOT NULL PRIMARY KEY,
    room_id           TEXT,
    type              TEXT    NOT NULL,
    mode              TEXT    NOT NULL,
    status            TEXT    NOT NULL,
    end_reason        TEXT,
    initiator_id      TEXT    NOT NULL,
    created_at        INTEGER NOT NULL,
    ringing_at        INTEGER,
    answered_at       INTEGER,
    ended_at          INTEGER,
    duration_s        INTEGER,
    ended_by          TEXT,
    participants_peak INTEGER NOT NULL DEFAULT 0,
    relay_used        INTEGER,
    relay_bytes_up    INTEGER,
    relay_bytes_down  INTEGER,
    quality           TEXT,
    metadata          TEXT,
    rev               INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX calls_by_initiator ON calls (initiator_id, created_at);
CREATE INDEX calls_by_age ON calls (created_at);

CREATE TABLE call_participants (
    call_id       TEXT    NOT NULL REFERENCES calls (id) ON DELETE CASCADE,
    user_id       TEXT    NOT NULL,
    attempt       INTEGER NOT NULL,
    role          TEXT    NOT NULL,
    state         TEXT    NOT NULL,
    invited_at    INTEGER NOT NULL,
    joined_at     INTEGER,
    connected_at  INTEGER,
    left_at       INTEGER,
    leave_reason  TEXT,
    audio         INTEGER NOT NULL,
    video         INTEGER NOT NULL,
    ice_method    TEXT,
    setup_ms      INTEGER,
    rtt_avg_ms    REAL,
    rtt_max_ms    REAL,
    loss_avg      REAL,
    loss_max      REAL,
    jitter_avg_ms REAL,
    relay_bytes   INTEGER,
    reconnects    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (call_id, user_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE INDEX call_participants_by_user ON call_participants (user_id, call_id);

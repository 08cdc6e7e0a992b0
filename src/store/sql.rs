//! What both databases share: statements and the way rows are read. `$N` is a parameter to both.

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
                               loss_avg, loss_max, jitter_avg_ms, relay_bytes, relay_transport) \
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22) \
ON CONFLICT (call_id, user_id, attempt) DO UPDATE SET \
    role = excluded.role, state = excluded.state, joined_at = excluded.joined_at, \
    connected_at = excluded.connected_at, left_at = excluded.left_at, leave_reason = excluded.leave_reason, \
    audio = excluded.audio, video = excluded.video, reconnects = excluded.reconnects, \
    ice_method = excluded.ice_method, setup_ms = excluded.setup_ms, rtt_avg_ms = excluded.rtt_avg_ms, \
    rtt_max_ms = excluded.rtt_max_ms, loss_avg = excluded.loss_avg, loss_max = excluded.loss_max, \
    jitter_avg_ms = excluded.jitter_avg_ms, relay_bytes = excluded.relay_bytes, \
    relay_transport = excluded.relay_transport";

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

pub(super) const MISSED: &str = "\
INSERT INTO missed_calls (call_id, user_id, initiator_id, room_id, type, missed_at) \
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";

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

/// Implements [`super::CallStore`] for a backend with a `pool`, a `begin` and a statement for the participants of the
/// calls in a JSON list. The drivers share no trait that would do for this.
macro_rules! call_store {
    ($store:ident, $database:ty, $participants:expr) => {
        impl $store {
            async fn write_batch(&self, batch: &[Arc<CallRecord>]) -> Result<(), StoreError> {
                let mut transaction = self.begin().await?;
                for call in batch {
                    if upsert_call(&mut transaction, call).await? {
                        upsert_participants(&mut transaction, call).await?;
                    }
                }
                Ok(transaction.commit().await?)
            }

            async fn write_entries(&self, entries: &[Entry]) -> Result<(), StoreError> {
                let mut transaction = self.begin().await?;
                for entry in entries {
                    if let Some((user, initiator, room, kind)) = entry.missed() {
                        sqlx::query::<$database>(sql::MISSED)
                            .bind(entry.notice.call.0.to_string())
                            .bind(user)
                            .bind(initiator)
                            .bind(room)
                            .bind(kind)
                            .bind(entry.notice.at)
                            .execute(&mut *transaction)
                            .await?;
                    }
                    if entry.told {
                        sqlx::query::<$database>(sql::ENQUEUE)
                            .bind(entry.id())
                            .bind(entry.notice.call.0.to_string())
                            .bind(entry.notice.order.cast_signed())
                            .bind(entry.notice.kind.name())
                            .bind(entry.body())
                            .bind(entry.notice.at)
                            .execute(&mut *transaction)
                            .await?;
                    }
                }
                Ok(transaction.commit().await?)
            }

            async fn page(&self, query: CallQuery) -> Result<CallPage, StoreError> {
                let after = query.cursor.as_deref().map(Cursor::decode).transpose()?;
                let limit = query.limit.clamp(1, MAX_PAGE);
                let mut rows = sqlx::query::<$database>(sql::LIST)
                    .bind(query.user.map(|user| user.0.to_string()))
                    .bind(query.outgoing)
                    .bind(query.status)
                    .bind(after.as_ref().map(|cursor| cursor.created_at))
                    .bind(after.map(|cursor| cursor.id))
                    .bind(query.room)
                    .bind(query.kind)
                    .bind(query.since)
                    .bind(query.until)
                    .bind(i64::from(limit) + 1)
                    .fetch_all(&self.pool)
                    .await?;
                let more = rows.len() > limit as usize;
                rows.truncate(limit as usize);
                let calls = self.with_participants(&rows).await?;
                let next = calls
                    .last()
                    .filter(|_| more)
                    .map(|last| Cursor { created_at: last.created_at.0, id: last.id.0.to_string() }.encode());
                Ok(CallPage { calls, next })
            }

            async fn with_participants(
                &self,
                rows: &[<$database as sqlx::Database>::Row],
            ) -> Result<Vec<StoredCall>, StoreError> {
                let mut calls = rows.iter().map(read_call).collect::<Result<Vec<_>, _>>()?;
                if calls.is_empty() {
                    return Ok(calls);
                }
                let ids: serde_json::Value = calls.iter().map(|call| call.id.0.to_string()).collect();
                let rows = sqlx::query::<$database>($participants)
                    .bind(ids.to_string())
                    .fetch_all(&self.pool)
                    .await?;
                let mut participants: HashMap<String, Vec<StoredParticipant>> = HashMap::new();
                for row in &rows {
                    participants.entry(row.try_get("call_id")?).or_default().push(read_participant(row)?);
                }
                for call in &mut calls {
                    call.participants = participants.remove(&*call.id.0).unwrap_or_default();
                }
                Ok(calls)
            }

            async fn deliveries(&self, now: i64, limit: u32) -> Result<Vec<Delivery>, StoreError> {
                let rows = sqlx::query::<$database>(sql::DUE)
                    .bind(now)
                    .bind(i64::from(limit))
                    .fetch_all(&self.pool)
                    .await?;
                let read = |row: &<$database as sqlx::Database>::Row| {
                    Ok(Delivery {
                        id: row.try_get("id")?,
                        call: CallId(row.try_get::<String, _>("call_id")?.into()),
                        kind: row.try_get("kind")?,
                        body: row.try_get("body")?,
                        attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
                        created_at: row.try_get("created_at")?,
                    })
                };
                rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(Into::into)
            }

            async fn purge_before(&self, before: i64) -> Result<u64, StoreError> {
                let mut purged = 0;
                loop {
                    let done =
                        sqlx::query::<$database>(sql::PURGE_CALLS).bind(before).execute(&self.pool).await?;
                    purged += done.rows_affected();
                    if done.rows_affected() == 0 {
                        break;
                    }
                }
                sqlx::query::<$database>(sql::PURGE_MISSED).bind(before).execute(&self.pool).await?;
                Ok(purged)
            }
        }

        impl CallStore for $store {
            fn write<'a>(&'a self, batch: &'a [Arc<CallRecord>]) -> BoxFuture<'a, Result<(), StoreError>> {
                Box::pin(self.write_batch(batch))
            }

            fn note<'a>(&'a self, entries: &'a [Entry]) -> BoxFuture<'a, Result<(), StoreError>> {
                Box::pin(self.write_entries(entries))
            }

            fn list(&self, query: CallQuery) -> BoxFuture<'_, Result<CallPage, StoreError>> {
                Box::pin(self.page(query))
            }

            fn one(
                &self,
                user: Option<UserId>,
                id: CallId,
            ) -> BoxFuture<'_, Result<Option<StoredCall>, StoreError>> {
                Box::pin(async move {
                    let row = sqlx::query::<$database>(sql::ONE)
                        .bind(user.map(|user| user.0.to_string()))
                        .bind(id.0.to_string())
                        .fetch_optional(&self.pool)
                        .await?;
                    Ok(self.with_participants(row.as_slice()).await?.pop())
                })
            }

            fn running(&self, since: i64, limit: u32) -> BoxFuture<'_, Result<Vec<CallRecord>, StoreError>> {
                Box::pin(async move {
                    let rows = sqlx::query::<$database>(sql::RUNNING)
                        .bind(since)
                        .bind(i64::from(limit))
                        .fetch_all(&self.pool)
                        .await?;
                    let mut records = Vec::new();
                    for page in rows.chunks(MAX_PAGE as usize) {
                        let calls = self.with_participants(page).await?;
                        records.extend(calls.into_iter().filter_map(StoredCall::into_record));
                    }
                    Ok(records)
                })
            }

            fn due(&self, now: i64, limit: u32) -> BoxFuture<'_, Result<Vec<Delivery>, StoreError>> {
                Box::pin(self.deliveries(now, limit))
            }

            fn delivered<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
                Box::pin(async move {
                    sqlx::query::<$database>(sql::DELIVERED).bind(id).execute(&self.pool).await?;
                    Ok(())
                })
            }

            fn postponed<'a>(&'a self, id: &'a str, until: i64) -> BoxFuture<'a, Result<(), StoreError>> {
                Box::pin(async move {
                    let update = sqlx::query::<$database>(sql::POSTPONED).bind(id).bind(until);
                    update.execute(&self.pool).await?;
                    Ok(())
                })
            }

            fn purge(&self, before: i64) -> BoxFuture<'_, Result<u64, StoreError>> {
                Box::pin(self.purge_before(before))
            }

            fn close(&self) -> BoxFuture<'_, ()> {
                Box::pin(self.pool.close())
            }
        }

        /// Writes a call; whether it was newer than what was there.
        async fn upsert_call(
            connection: &mut <$database as sqlx::Database>::Connection,
            call: &CallRecord,
        ) -> Result<bool, sqlx::Error> {
            let done = sqlx::query::<$database>(sql::UPSERT_CALL)
                .bind(&*call.id.0)
                .bind(call.room_id.as_deref())
                .bind(call.kind)
                .bind(call.mode)
                .bind(call.status)
                .bind(call.end_reason)
                .bind(&*call.initiator.0)
                .bind(call.created_at)
                .bind(call.ringing_at)
                .bind(call.answered_at)
                .bind(call.ended_at)
                .bind(call.duration_s)
                .bind(call.ended_by.as_ref().map(|user| &*user.0))
                .bind(i64::from(call.participants_peak))
                .bind(call.open)
                .bind(call.locked)
                .bind(call.expires_at)
                .bind(call.relay_used())
                .bind(call.relay_bytes_up.cast_signed())
                .bind(call.relay_bytes_down.cast_signed())
                .bind(call.quality)
                .bind(call.metadata.as_deref())
                .bind(call.rev.cast_signed())
                .execute(connection)
                .await?;
            Ok(done.rows_affected() > 0)
        }

        async fn upsert_participants(
            connection: &mut <$database as sqlx::Database>::Connection,
            call: &CallRecord,
        ) -> Result<(), sqlx::Error> {
            let mut attempts: HashMap<&UserId, i64> = HashMap::new();
            for participant in &call.participants {
                let attempt = attempts.entry(&participant.user).or_insert(0);
                *attempt += 1;
                sqlx::query::<$database>(sql::UPSERT_PARTICIPANT)
                    .bind(&*call.id.0)
                    .bind(&*participant.user.0)
                    .bind(*attempt)
                    .bind(participant.role)
                    .bind(participant.state)
                    .bind(participant.invited_at)
                    .bind(participant.joined_at)
                    .bind(participant.connected_at)
                    .bind(participant.left_at)
                    .bind(participant.leave_reason)
                    .bind(participant.audio)
                    .bind(participant.video)
                    .bind(i64::from(participant.reconnects))
                    .bind(participant.ice_method)
                    .bind(participant.setup_ms)
                    .bind(participant.rtt_avg_ms)
                    .bind(participant.rtt_max_ms)
                    .bind(participant.loss_avg)
                    .bind(participant.loss_max)
                    .bind(participant.jitter_avg_ms)
                    .bind(participant.relay_bytes.cast_signed())
                    .bind(participant.relay_transport)
                    .execute(&mut *connection)
                    .await?;
            }
            Ok(())
        }

        fn read_call(row: &<$database as sqlx::Database>::Row) -> Result<StoredCall, sqlx::Error> {
            let time = |column| row.try_get::<Option<i64>, _>(column).map(|time| time.map(Time));
            let metadata: Option<String> = row.try_get("metadata")?;
            Ok(StoredCall {
                id: CallId(row.try_get::<String, _>("id")?.into()),
                room_id: row.try_get("room_id")?,
                kind: row.try_get("type")?,
                mode: row.try_get("mode")?,
                status: row.try_get("status")?,
                end_reason: row.try_get("end_reason")?,
                initiator: UserId(row.try_get::<String, _>("initiator_id")?.into()),
                created_at: Time(row.try_get("created_at")?),
                ringing_at: time("ringing_at")?,
                answered_at: time("answered_at")?,
                ended_at: time("ended_at")?,
                duration_s: row.try_get("duration_s")?,
                ended_by: row.try_get("ended_by")?,
                participants_peak: u32::try_from(row.try_get::<i64, _>("participants_peak")?).unwrap_or(0),
                open: row.try_get("room_open")?,
                locked: row.try_get("locked")?,
                expires_at: Time(row.try_get("expires_at")?),
                relay_used: row.try_get("relay_used")?,
                relay_bytes_up: row.try_get("relay_bytes_up")?,
                relay_bytes_down: row.try_get("relay_bytes_down")?,
                quality: row.try_get("quality")?,
                metadata: metadata.and_then(|text| serde_json::from_str(&text).ok()),
                rev: row.try_get::<i64, _>("rev")?.cast_unsigned(),
                participants: Vec::new(),
            })
        }

        fn read_participant(
            row: &<$database as sqlx::Database>::Row,
        ) -> Result<StoredParticipant, sqlx::Error> {
            let time = |column| row.try_get::<Option<i64>, _>(column).map(|time| time.map(Time));
            Ok(StoredParticipant {
                user: UserId(row.try_get::<String, _>("user_id")?.into()),
                role: row.try_get("role")?,
                state: row.try_get("state")?,
                invited_at: Time(row.try_get("invited_at")?),
                joined_at: time("joined_at")?,
                connected_at: time("connected_at")?,
                left_at: time("left_at")?,
                leave_reason: row.try_get("leave_reason")?,
                audio: row.try_get("audio")?,
                video: row.try_get("video")?,
                reconnects: u32::try_from(row.try_get::<i64, _>("reconnects")?).unwrap_or(u32::MAX),
                ice_method: row.try_get("ice_method")?,
                setup_ms: row.try_get("setup_ms")?,
                rtt_avg_ms: row.try_get("rtt_avg_ms")?,
                rtt_max_ms: row.try_get("rtt_max_ms")?,
                loss_avg: row.try_get("loss_avg")?,
                loss_max: row.try_get("loss_max")?,
                jitter_avg_ms: row.try_get("jitter_avg_ms")?,
                relay_bytes: row.try_get("relay_bytes")?,
                relay_transport: row.try_get("relay_transport")?,
            })
        }
    };
}
pub(super) use call_store;

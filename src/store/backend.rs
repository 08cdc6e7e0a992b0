//! What both databases share beside their statements: how they are carried out, and how rows are read.

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
                    match entry {
                        Entry::Step { notice, told, kept } => {
                            write_step(&mut transaction, notice, *told, *kept).await?;
                        }
                        Entry::Seen { user, until } => {
                            let seen = sqlx::query::<$database>(sql::SEEN).bind(&*user.0).bind(*until);
                            seen.execute(&mut *transaction).await?;
                        }
                    }
                }
                Ok(transaction.commit().await?)
            }

            async fn missed_page(&self, query: MissedQuery) -> Result<MissedPage, StoreError> {
                let after = query.cursor.as_deref().map(Cursor::decode).transpose()?;
                let limit = query.limit.clamp(1, MAX_PAGE);
                let mut rows = sqlx::query::<$database>(sql::LIST_MISSED)
                    .bind(query.user.map(|user| user.0.to_string()))
                    .bind(after.as_ref().map(|cursor| cursor.created_at))
                    .bind(after.map(|cursor| cursor.id))
                    .bind(i64::from(limit) + 1)
                    .fetch_all(&self.pool)
                    .await?;
                let more = rows.len() > limit as usize;
                rows.truncate(limit as usize);
                let next = match rows.last().filter(|_| more) {
                    None => None,
                    Some(row) => {
                        let (call, user): (String, String) =
                            (row.try_get("call_id")?, row.try_get("user_id")?);
                        let created_at = row.try_get("missed_at")?;
                        Some(Cursor { created_at, id: format!("{call}:{user}") }.encode())
                    }
                };
                let calls = rows.iter().map(read_missed).collect::<Result<_, _>>()?;
                Ok(MissedPage { calls, next })
            }

            async fn trim_outbox(&self, most: u32) -> Result<(u64, u64), StoreError> {
                let row = sqlx::query::<$database>(sql::WAITING).fetch_one(&self.pool).await?;
                let waiting = row.try_get::<i64, _>("waiting")?.max(0);
                let beyond = waiting - i64::from(most);
                if beyond <= 0 {
                    return Ok((0, waiting.cast_unsigned()));
                }
                let done =
                    sqlx::query::<$database>(sql::DROP_OLDEST).bind(beyond).execute(&self.pool).await?;
                let dropped = done.rows_affected();
                Ok((dropped, waiting.cast_unsigned().saturating_sub(dropped)))
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

            async fn purge_before(&self, before: Horizon) -> Result<u64, StoreError> {
                let mut purged = 0;
                loop {
                    let calls = sqlx::query::<$database>(sql::PURGE_CALLS).bind(before.calls);
                    let done = calls.execute(&self.pool).await?;
                    purged += done.rows_affected();
                    if done.rows_affected() == 0 {
                        break;
                    }
                }
                for (purge, before) in [
                    (sql::PURGE_MISSED, before.calls),
                    (sql::PURGE_SEEN, before.calls),
                    (sql::PURGE_EVENTS, before.events),
                    (sql::PURGE_OUTBOX, before.outbox),
                ] {
                    sqlx::query::<$database>(purge).bind(before).execute(&self.pool).await?;
                }
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

            fn ended(&self, since: i64, limit: u32) -> BoxFuture<'_, Result<Vec<CallId>, StoreError>> {
                Box::pin(async move {
                    let query = sqlx::query::<$database>(sql::ENDED).bind(since).bind(i64::from(limit));
                    let rows = query.fetch_all(&self.pool).await?;
                    let id = |row: &<$database as sqlx::Database>::Row| row.try_get::<String, _>("id");
                    Ok(rows
                        .iter()
                        .rev()
                        .map(|row| id(row).map(|id| CallId(id.into())))
                        .collect::<Result<_, _>>()?)
                })
            }

            fn events(
                &self,
                user: Option<UserId>,
                id: CallId,
            ) -> BoxFuture<'_, Result<Vec<CallEvent>, StoreError>> {
                Box::pin(async move {
                    let rows = sqlx::query::<$database>(sql::EVENTS)
                        .bind(user.map(|user| user.0.to_string()))
                        .bind(id.0.to_string())
                        .fetch_all(&self.pool)
                        .await?;
                    Ok(rows.iter().map(read_event).collect::<Result<_, _>>()?)
                })
            }

            fn missed(&self, query: MissedQuery) -> BoxFuture<'_, Result<MissedPage, StoreError>> {
                Box::pin(self.missed_page(query))
            }

            fn unseen(&self, since: i64, limit: u32) -> BoxFuture<'_, Result<Vec<MissedCall>, StoreError>> {
                Box::pin(async move {
                    let query = sqlx::query::<$database>(sql::UNSEEN).bind(since).bind(i64::from(limit));
                    let rows = query.fetch_all(&self.pool).await?;
                    Ok(rows.iter().rev().map(read_missed).collect::<Result<_, _>>()?)
                })
            }

            fn trim(&self, most: u32) -> BoxFuture<'_, Result<(u64, u64), StoreError>> {
                Box::pin(self.trim_outbox(most))
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

            fn purge(&self, before: Horizon) -> BoxFuture<'_, Result<u64, StoreError>> {
                Box::pin(self.purge_before(before))
            }

            fn close(&self) -> BoxFuture<'_, ()> {
                Box::pin(self.pool.close())
            }
        }

        /// Writes a step wherever it belongs.
        async fn write_step(
            connection: &mut <$database as sqlx::Database>::Connection,
            notice: &Notice,
            told: bool,
            kept: bool,
        ) -> Result<(), sqlx::Error> {
            let order = notice.order.cast_signed();
            if let Some(miss) = outbox::missed(notice) {
                sqlx::query::<$database>(sql::MISSED)
                    .bind(&*notice.call.0)
                    .bind(miss.user)
                    .bind(miss.initiator)
                    .bind(miss.room)
                    .bind(miss.kind)
                    .bind(notice.at)
                    .bind(notice.reason)
                    .bind(miss.body)
                    .execute(&mut *connection)
                    .await?;
            }
            if kept {
                sqlx::query::<$database>(sql::KEEP)
                    .bind(&*notice.call.0)
                    .bind(order)
                    .bind(notice.kind.name())
                    .bind(notice.user.as_ref().map(|user| &*user.0))
                    .bind(notice.reason)
                    .bind(notice.at)
                    .execute(&mut *connection)
                    .await?;
            }
            if told {
                sqlx::query::<$database>(sql::ENQUEUE)
                    .bind(outbox::id(notice))
                    .bind(&*notice.call.0)
                    .bind(order)
                    .bind(notice.kind.name())
                    .bind(outbox::body(notice))
                    .bind(notice.at)
                    .execute(&mut *connection)
                    .await?;
            }
            Ok(())
        }

        fn read_missed(row: &<$database as sqlx::Database>::Row) -> Result<MissedCall, sqlx::Error> {
            let body: String = row.try_get("body")?;
            Ok(MissedCall {
                user: UserId(row.try_get::<String, _>("user_id")?.into()),
                missed_at: Time(row.try_get("missed_at")?),
                event: serde_json::from_str(&body).unwrap_or_default(),
            })
        }

        fn read_event(row: &<$database as sqlx::Database>::Row) -> Result<CallEvent, sqlx::Error> {
            Ok(CallEvent {
                order: row.try_get("ord")?,
                kind: row.try_get("kind")?,
                user_id: row.try_get("user_id")?,
                reason: row.try_get("reason")?,
                at: Time(row.try_get("at")?),
            })
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
                    .bind(peers_json(&participant.relay_peers))
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
            let peers: Option<String> = row.try_get("relay_peers")?;
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
                relay_peers: peers.and_then(|peers| serde_json::from_str(&peers).ok()).unwrap_or_default(),
            })
        }
    };
}
pub(super) use call_store;

//! Sessions that go on: the wish to resume one, and the token that renews one.

use serde_json::{Value, json};

use super::Shared;
use super::admission::{Admitted, Visitor};
use super::refusal::{Refusal, error_json};
use super::session::AckId;
use crate::auth::Presented;
use crate::signaling::{Resume, ResumeKey, SessionId};

/// Reads `{sid, key, seq}`. What is no wish opens a new session, as a wish that cannot be granted does.
pub(crate) fn wish(value: Option<&Value>) -> Option<Resume> {
    let value = value?;
    let text = |field| value.get(field).and_then(Value::as_str).map(ToOwned::to_owned);
    let seq = value.get("seq").and_then(Value::as_u64).unwrap_or(0);
    Some(Resume { sid: text("sid")?, key: ResumeKey(text("key")?), seq })
}

/// `session:refresh {token}`: the grants and the expiry of another token count from now on. An attempt counts like a
/// new connection of its address.
pub(crate) async fn refresh(
    shared: &Shared,
    session: SessionId,
    visitor: Visitor,
    payload: &Value,
    ack: Option<AckId>,
) {
    let refused = |refusal: &Refusal| Err(refusal.to_json());
    let outcome = match payload.get("token").and_then(Value::as_str) {
        None => Err(error_json("VALIDATION_ERROR", "token is missing")),
        Some(token) => match shared.admission.count(visitor.peer) {
            Err(refusal) => refused(&refusal),
            Ok(()) => {
                let presented = Presented { token: Some(token), ..Presented::default() };
                match shared.admission.authenticate(presented, visitor).await {
                    Ok(Admitted { identity, .. }) => return shared.engine.refresh(session, identity, ack),
                    Err(reason) => Err(error_json(reason.code(), &reason.to_string())),
                }
            }
        },
    };
    shared.engine.answer(session, ack, "session:refresh", outcome);
}

/// The echo of a request that asked for no ack.
pub(crate) fn echo(data: Value) -> Value {
    let mut echo = json!({"success": true});
    if let (Some(fields), Value::Object(data)) = (echo.as_object_mut(), data) {
        fields.extend(data);
    }
    echo
}

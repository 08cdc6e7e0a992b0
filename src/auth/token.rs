//! JSON Web Tokens of the operator's application (RFC 7519).

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::anonymous;
use super::authenticator::{Caller, Denied, Grants, clean_name};
use super::jwks::{Jwks, JwksConfig, Unavailable};
use super::key::PinnedKey;
use super::outbound::Outbound;

/// Longest token that is looked at, in bytes.
pub(super) const MAX_TOKEN: usize = 8 * 1024;
/// Longest user id, in bytes.
const MAX_USER: usize = 128;
/// Longest picture URL, in bytes.
const MAX_AVATAR: usize = 1024;
/// Most rooms a token may name.
const MAX_ROOMS: usize = 256;
/// How far the clocks of the signer and of this host may be apart, in seconds.
const LEEWAY_S: f64 = 60.0;

/// How tokens are checked.
#[derive(Debug, Clone)]
pub struct TokenConfig {
    /// Keys of this configuration.
    pub keys: Vec<PinnedKey>,
    /// Keys that are published.
    pub jwks: Option<JwksConfig>,
    /// Required `iss`, when set.
    pub issuer: Option<String>,
    /// Required `aud`, when set.
    pub audience: Option<String>,
}

/// Checks tokens, each against the keys of the algorithm it names.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<PinnedKey>,
    jwks: Option<Jwks>,
    issuer: Option<String>,
    audience: Option<String>,
}

/// What of a header matters. An extension that must be understood is not (RFC 7515 section 4.1.11).
#[derive(Debug, Deserialize)]
struct Header {
    alg: Algorithm,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl Header {
    fn of(token: &str) -> Option<Self> {
        let (header, _) = token.split_once('.')?;
        let header: Self = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        header.crit.is_none().then_some(header)
    }
}

/// The claims that matter. Every field a JSON object repeats is an error of the parser, so nothing can be said twice.
#[derive(Debug, Deserialize)]
struct Claims {
    exp: f64,
    nbf: Option<f64>,
    sub: Option<Value>,
    #[serde(rename = "userId")]
    user_id_camel: Option<Value>,
    user_id: Option<Value>,
    id: Option<Value>,
    #[serde(rename = "displayName")]
    display_name: Option<Value>,
    name: Option<Value>,
    username: Option<Value>,
    preferred_username: Option<Value>,
    avatar: Option<Value>,
    picture: Option<Value>,
    psr: Option<GrantClaims>,
}

/// The `psr` claim. A grant of a wrong type refuses the token instead of granting the default.
#[derive(Debug, Deserialize)]
pub(super) struct GrantClaims {
    initiate: Option<bool>,
    join: Option<bool>,
    moderate: Option<bool>,
    admin: Option<bool>,
    relay: Option<bool>,
    video: Option<bool>,
    rooms: Option<Vec<String>>,
    #[serde(rename = "maxKbps")]
    max_kbps: Option<NonZeroU32>,
}

impl Verifier {
    /// Prepares the keys; published ones are fetched when the first token comes.
    #[must_use]
    pub fn new(config: &TokenConfig, outbound: &Outbound) -> Self {
        Self {
            keys: config.keys.clone(),
            jwks: config.jwks.clone().map(|jwks| Jwks::new(jwks, outbound.clone())),
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
        }
    }

    /// Checks a token and reads its caller.
    ///
    /// # Errors
    /// [`Denied::Expired`] for a genuine token after its time, [`Denied::Unavailable`] while the keys cannot be had,
    /// [`Denied::Invalid`] for everything else.
    pub async fn verify(&self, token: &str, now_unix_ms: i64) -> Result<Caller, Denied> {
        if token.len() > MAX_TOKEN {
            return Err(Denied::Invalid);
        }
        let header = Header::of(token).ok_or(Denied::Invalid)?;
        let fitting = self.keys.iter().filter(|key| key.algorithm == header.alg);
        if let Some(claims) = fitting.filter_map(|key| self.claims(token, key)).next() {
            return claims.into_caller(now_unix_ms);
        }
        let jwks = self.jwks.as_ref().ok_or(Denied::Invalid)?;
        let found = jwks.find(header.kid.as_deref(), header.alg).await;
        let key = found.map_err(|Unavailable| Denied::Unavailable)?.ok_or(Denied::Invalid)?;
        self.claims(token, &key).ok_or(Denied::Invalid)?.into_caller(now_unix_ms)
    }

    /// The claims of a token with a good signature for us.
    fn claims(&self, token: &str, key: &PinnedKey) -> Option<Claims> {
        let mut validation = Validation::new(key.algorithm);
        // Times are checked here against the clock of the caller; the library only insists that `exp` is a number.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let mut required = vec!["exp"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        match &self.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                required.push("aud");
            }
            None => validation.validate_aud = false,
        }
        validation.set_required_spec_claims(&required);
        Some(jsonwebtoken::decode::<Claims>(token, &key.key, &validation).ok()?.claims)
    }
}

impl Claims {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "seconds of a calendar")]
    fn into_caller(self, now_unix_ms: i64) -> Result<Caller, Denied> {
        let now = now_unix_ms as f64 / 1000.0;
        if !self.exp.is_finite() || self.nbf.is_some_and(|nbf| !nbf.is_finite() || nbf > now + LEEWAY_S) {
            return Err(Denied::Invalid);
        }
        if self.exp + LEEWAY_S < now {
            return Err(Denied::Expired);
        }
        let user = [self.sub, self.user_id_camel, self.user_id, self.id].into_iter().flatten().next();
        Ok(Caller {
            user: user.and_then(user_id).ok_or(Denied::Invalid)?,
            display_name: shown(self.display_name).or_else(|| shown(self.name)),
            username: shown(self.username).or_else(|| shown(self.preferred_username)),
            avatar: picture(self.avatar).or_else(|| picture(self.picture)),
            grants: self.psr.map_or_else(|| Ok(Grants::default()), GrantClaims::into_grants)?,
            members: BTreeMap::new(),
            // A float beyond the range saturates: a token for ever.
            expires_unix_ms: Some((self.exp * 1000.0) as i64),
        })
    }
}

impl GrantClaims {
    pub(super) fn into_grants(self) -> Result<Grants, Denied> {
        let default = Grants::default();
        if self.rooms.as_ref().is_some_and(|r| r.len() > MAX_ROOMS || r.iter().any(|id| id.len() > MAX_USER))
        {
            return Err(Denied::Invalid);
        }
        Ok(Grants {
            initiate: self.initiate.unwrap_or(default.initiate),
            join: self.join.unwrap_or(default.join),
            moderate: self.moderate.unwrap_or(default.moderate),
            admin: self.admin.unwrap_or(default.admin),
            relay: self.relay.unwrap_or(default.relay),
            video: self.video.unwrap_or(default.video),
            rooms: self.rooms,
            max_kbps: self.max_kbps.map(NonZeroU32::get),
        })
    }
}

/// A user id: a text of at most 128 bytes without control characters, or a whole number.
pub(super) fn user_id(claim: Value) -> Option<String> {
    let id = match claim {
        Value::String(id) => id,
        Value::Number(id) if id.is_i64() || id.is_u64() => id.to_string(),
        _ => return None,
    };
    let sound = !id.is_empty()
        && id.len() <= MAX_USER
        && !id.chars().any(char::is_control)
        && !id.starts_with(anonymous::PREFIX);
    sound.then_some(id)
}

fn shown(claim: Option<Value>) -> Option<String> {
    clean_name(claim?.as_str()?)
}

pub(super) fn picture(claim: Option<Value>) -> Option<String> {
    let claim = claim?;
    let url = claim.as_str()?;
    let sound = url.len() <= MAX_AVATAR
        && (url.starts_with("https://") || url.starts_with("http://"))
        && !url.chars().any(char::is_control);
    sound.then(|| url.to_owned())
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use futures_util::FutureExt as _;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const SECRET: &str = "a secret of at least thirty-two bytes";
    const NOW_S: i64 = 1_800_000_000;

    fn verifier(issuer: Option<&str>, audience: Option<&str>) -> Verifier {
        let config = TokenConfig {
            keys: vec![PinnedKey::secret(&SECRET.into(), None).unwrap()],
            jwks: None,
            issuer: issuer.map(Into::into),
            audience: audience.map(Into::into),
        };
        Verifier::new(&config, &Outbound::new())
    }

    /// Waits for what needs no network.
    fn verify(verifier: &Verifier, token: &str) -> Result<Caller, Denied> {
        verifier.verify(token, NOW_S * 1000).now_or_never().expect("static keys are at hand")
    }

    fn sign_with(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    fn sign(claims: &Value) -> String {
        sign_with(Algorithm::HS256, SECRET, claims)
    }

    /// A correctly signed token over bytes of any shape.
    fn sign_raw(header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = jsonwebtoken::crypto::sign(
            message.as_bytes(),
            &EncodingKey::from_secret(SECRET.as_bytes()),
            Algorithm::HS256,
        )
        .unwrap();
        format!("{message}.{signature}")
    }

    fn check(token: &str) -> Result<Caller, Denied> {
        verify(&verifier(None, None), token)
    }

    #[test]
    fn a_good_token_names_its_caller() {
        let caller = check(&sign(&json!({
            "sub": "u1", "exp": NOW_S + 10, "name": "Ada", "preferred_username": "ada",
            "picture": "https://example.org/a.png",
            "psr": {"initiate": false, "moderate": true, "rooms": ["r1"], "maxKbps": 100, "later": {}},
        })))
        .unwrap();
        assert_eq!(caller.user, "u1");
        assert_eq!(caller.display_name.as_deref(), Some("Ada"));
        assert_eq!(caller.username.as_deref(), Some("ada"));
        assert_eq!(caller.avatar.as_deref(), Some("https://example.org/a.png"));
        assert_eq!(caller.expires_unix_ms, Some((NOW_S + 10) * 1000));
        assert_eq!(
            caller.grants,
            Grants {
                initiate: false,
                moderate: true,
                rooms: Some(vec!["r1".into()]),
                max_kbps: Some(100),
                ..Grants::default()
            }
        );
    }

    #[test]
    fn the_user_is_the_first_of_four_claims() {
        for (claims, user) in [
            (json!({"sub": "a", "userId": "b", "user_id": "c", "id": "d", "exp": NOW_S}), "a"),
            (json!({"userId": "b", "user_id": "c", "id": "d", "exp": NOW_S}), "b"),
            (json!({"user_id": "c", "id": "d", "exp": NOW_S}), "c"),
            (json!({"id": 42, "exp": NOW_S}), "42"),
        ] {
            assert_eq!(check(&sign(&claims)).unwrap().user, user);
        }
    }

    #[test]
    fn times_have_a_leeway_of_a_minute() {
        for (claims, expected) in [
            (json!({"sub": "u", "exp": NOW_S - 59}), None),
            (json!({"sub": "u", "exp": NOW_S - 61}), Some(Denied::Expired)),
            (json!({"sub": "u", "exp": NOW_S + 9, "nbf": NOW_S + 59}), None),
            (json!({"sub": "u", "exp": NOW_S + 9, "nbf": NOW_S + 61}), Some(Denied::Invalid)),
        ] {
            assert_eq!(check(&sign(&claims)).err(), expected, "{claims}");
        }
    }

    #[test]
    fn issuer_and_audience_are_required_once_configured() {
        let strict = verifier(Some("me"), Some("passerelle"));
        for (claims, good) in [
            (json!({"sub": "u", "exp": NOW_S, "iss": "me", "aud": "passerelle"}), true),
            (json!({"sub": "u", "exp": NOW_S, "iss": "me", "aud": ["x", "passerelle"]}), true),
            (json!({"sub": "u", "exp": NOW_S, "iss": "me", "aud": "other"}), false),
            (json!({"sub": "u", "exp": NOW_S, "iss": "me", "aud": []}), false),
            (json!({"sub": "u", "exp": NOW_S, "iss": "me"}), false),
            (json!({"sub": "u", "exp": NOW_S, "iss": "you", "aud": "passerelle"}), false),
            (json!({"sub": "u", "exp": NOW_S, "aud": "passerelle"}), false),
        ] {
            assert_eq!(verify(&strict, &sign(&claims)).is_ok(), good, "{claims}");
        }
    }

    #[test]
    fn hostile_tokens_are_refused() {
        let good = json!({"sub": "u", "exp": NOW_S + 100});
        let valid = sign(&good);
        let (message, signature) = valid.rsplit_once('.').unwrap();
        let (header, payload) = message.split_once('.').unwrap();
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let hs = r#"{"alg":"HS256","typ":"JWT"}"#;
        let body = |json: &str| sign_raw(hs, json);
        let hostile = [
            ("empty", String::new()),
            ("dots", "..".into()),
            ("no signature", format!("{message}.")),
            ("two parts", message.into()),
            ("four parts", format!("{valid}.x")),
            ("alg none", format!("{}.{payload}.", part(r#"{"alg":"none"}"#))),
            ("alg None, signed", sign_raw(r#"{"alg":"None"}"#, r#"{"sub":"u","exp":1800000100}"#)),
            ("alg none, old signature", format!("{}.{payload}.{signature}", part(r#"{"alg":"none"}"#))),
            (
                "alg RS256, signed with the secret",
                sign_raw(r#"{"alg":"RS256"}"#, r#"{"sub":"u","exp":1800000100}"#),
            ),
            ("alg HS384", sign_with(Algorithm::HS384, SECRET, &good)),
            ("alg HS512", sign_with(Algorithm::HS512, SECRET, &good)),
            (
                "an extension that must be understood",
                sign_raw(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, r#"{"sub":"u","exp":1800000100}"#),
            ),
            ("alg twice", sign_raw(r#"{"alg":"none","alg":"HS256"}"#, r#"{"sub":"u","exp":1800000100}"#)),
            ("no alg", sign_raw("{}", r#"{"sub":"u","exp":1800000100}"#)),
            ("header is no object", sign_raw("[]", r#"{"sub":"u","exp":1800000100}"#)),
            ("another key", sign_with(Algorithm::HS256, "another secret of thirty-two bytes!", &good)),
            ("empty key", sign_with(Algorithm::HS256, "", &good)),
            (
                "payload swapped",
                format!("{header}.{}.{signature}", part(r#"{"sub":"admin","exp":1800000100}"#)),
            ),
            ("signature cut", valid[..valid.len() - 1].into()),
            ("padded base64", format!("{valid}=")),
            ("white space", format!(" {valid}")),
            ("line break", format!("{valid}\n")),
            ("missing exp", body(r#"{"sub":"u"}"#)),
            ("exp null", body(r#"{"sub":"u","exp":null}"#)),
            ("exp text", body(r#"{"sub":"u","exp":"1800000100"}"#)),
            ("exp list", body(r#"{"sub":"u","exp":[1800000100]}"#)),
            ("exp negative", body(r#"{"sub":"u","exp":-1}"#)),
            ("exp infinite", body(r#"{"sub":"u","exp":1e999}"#)),
            ("exp twice", body(r#"{"sub":"u","exp":1,"exp":1800000100}"#)),
            ("expired", body(r#"{"sub":"u","exp":1}"#)),
            ("nbf text", body(r#"{"sub":"u","exp":1800000100,"nbf":"1"}"#)),
            ("nbf in the future", body(r#"{"sub":"u","exp":1800000100,"nbf":1800000090}"#)),
            ("no user", body(r#"{"exp":1800000100}"#)),
            ("user empty", body(r#"{"sub":"","exp":1800000100}"#)),
            ("user list", body(r#"{"sub":["u"],"exp":1800000100}"#)),
            ("user object", body(r#"{"sub":{"$ne":1},"exp":1800000100}"#)),
            ("user fraction", body(r#"{"sub":1.5,"exp":1800000100}"#)),
            ("user with a line break", body("{\"sub\":\"a\\nb\",\"exp\":1800000100}")),
            ("user like an anonymous one", body(r#"{"sub":"anon:1","exp":1800000100}"#)),
            ("user too long", body(&format!(r#"{{"sub":"{}","exp":1800000100}}"#, "u".repeat(129)))),
            ("user twice", body(r#"{"sub":"a","sub":"b","exp":1800000100}"#)),
            ("grant text", body(r#"{"sub":"u","exp":1800000100,"psr":{"admin":"true"}}"#)),
            ("grants list", body(r#"{"sub":"u","exp":1800000100,"psr":["admin"]}"#)),
            ("kbps zero", body(r#"{"sub":"u","exp":1800000100,"psr":{"maxKbps":0}}"#)),
            ("rooms text", body(r#"{"sub":"u","exp":1800000100,"psr":{"rooms":"*"}}"#)),
            ("payload is no object", body("[]")),
            ("payload is no JSON", body("{")),
            ("oversized", sign(&json!({"sub": "u", "exp": NOW_S + 100, "pad": "x".repeat(8 * 1024)}))),
        ];
        assert!(check(&valid).is_ok());
        for (what, token) in hostile {
            assert!(check(&token).is_err(), "accepted: {what}");
        }
    }

    #[test]
    fn a_picture_that_is_a_script_is_not_passed_on() {
        let caller =
            check(&sign(&json!({"sub": "u", "exp": NOW_S, "avatar": "javascript:alert(1)", "name": 7})))
                .unwrap();
        assert_eq!((caller.avatar, caller.display_name), (None, None));
    }

    #[test]
    fn the_key_is_never_printed() {
        assert!(!format!("{:?}", verifier(None, None)).contains(SECRET));
    }
}

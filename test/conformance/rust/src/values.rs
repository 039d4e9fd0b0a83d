//! The values of the line protocol.

use std::{
    fmt::Write,
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lpfileshare::{
    BoxFuture, Client, Code, ConsumerSession, ConsumerTokens, Error, Identity, Result, Secret, TokenSource,
    proto::{self, File, FileType, ParticipantRole},
};
use serde_json::{Value, json};

use crate::lock;

/// Returns a text. Empty: absent.
pub fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

/// Returns a number. 0: absent.
pub fn number(v: &Value) -> i64 {
    v.as_i64().unwrap_or_default()
}

/// Returns a time. None: absent or 0. Negative: zero.
pub fn millis(v: &Value) -> Option<Duration> {
    match number(v) {
        0 => None,
        ms => Some(Duration::from_millis(ms.try_into().unwrap_or(0))),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// Returns the name of a value without prefix, or the number of one that is not known.
pub fn enum_name(value: i32, prefix: &str, name: impl Fn(i32) -> Option<&'static str>) -> Value {
    match name(value) {
        Some(name) => name.trim_start_matches(prefix).into(),
        None => value.into(),
    }
}

pub fn file_type(value: i32) -> Value {
    enum_name(value, "FILE_TYPE_", |v| Some(FileType::try_from(v).ok()?.as_str_name()))
}

pub fn file(f: Option<&File>) -> Value {
    let Some(f) = f else { return Value::Null };
    let sums = f.uploaded_checksums.clone().unwrap_or_default();
    let role = enum_name(f.sender_role, "PARTICIPANT_ROLE_", |v| Some(ParticipantRole::try_from(v).ok()?.as_str_name()));
    let mut o = json!({
        "name": f.name, "storagePath": f.storage_path, "fileType": file_type(f.file_type), "contentType": f.content_type,
        "caption": f.caption, "displayName": f.display_name, "etag": f.etag, "senderRole": role, "sha256": hex(&sums.sha256),
    });
    if let Some(n) = f.stored_size_bytes {
        o["sizeBytes"] = n.into();
    }
    if let Some(crc32c) = sums.crc32c {
        o["crc32c"] = crc32c.into();
    }
    o
}

pub fn image(i: Option<&proto::ImageChange>) -> Value {
    let Some(i) = i else { return Value::Null };
    let name = |v| Some(proto::ImageMetadata::try_from(v).ok()?.as_str_name());
    let removed: Vec<_> = i.removed_metadata.iter().map(|m| enum_name(*m, "IMAGE_METADATA_", name)).collect();
    json!({"inputSizeBytes": i.input_size_bytes, "recoded": i.recoded, "scaled": i.scaled, "removedMetadata": removed})
}

pub fn session(s: &ConsumerSession) -> Value {
    let expires = s.expires.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_millis() as u64);
    json!({
        "token": s.token.expose(), "renewalSecret": s.renewal_secret.expose(), "consumerId": s.consumer_id, "expiresAtMs": expires,
    })
}

pub fn identity(v: &Value, client: &Client) -> Identity {
    match v["kind"].as_str() {
        Some("consumer") => Identity::consumer(source(v, client)),
        Some("agent") => Identity::agent(source(v, client)),
        Some("external") => Identity::external_consumer(text(&v["externalConsumerId"])),
        _ => Identity::none(),
    }
}

fn source(v: &Value, client: &Client) -> AnySource {
    let session = &v["session"];
    if session.is_object() {
        let session = ConsumerSession {
            account: client.account().to_owned(),
            token: text(&session["token"]).into(),
            renewal_secret: text(&session["renewalSecret"]).into(),
            consumer_id: text(&session["consumerId"]),
            expires: millis(&session["expiresAtMs"]).map(|since| UNIX_EPOCH + since),
        };
        return AnySource(Box::new(ConsumerTokens::new(client, session)));
    }
    match v["tokens"].as_array() {
        Some(tokens) if !tokens.is_empty() => AnySource(Box::new(Tokens(Mutex::new(tokens.iter().map(text).collect())))),
        _ => AnySource(Box::new(text(&v["token"]))),
    }
}

/// AnySource is one of several kinds of sources.
struct AnySource(Box<dyn TokenSource>);

impl TokenSource for AnySource {
    fn token(&self) -> BoxFuture<'_, Result<Secret>> {
        self.0.token()
    }

    fn expires(&self) -> Option<SystemTime> {
        self.0.expires()
    }

    fn renew(&self, rejected: Secret) -> BoxFuture<'_, Result<Option<Secret>>> {
        self.0.renew(rejected)
    }
}

/// Tokens is a source that moves to the next token at each renewal. The last one stays.
struct Tokens(Mutex<Vec<String>>);

impl TokenSource for Tokens {
    fn token(&self) -> BoxFuture<'_, Result<Secret>> {
        Box::pin(async { Ok(lock(&self.0)[0].clone().into()) })
    }

    fn renew(&self, _rejected: Secret) -> BoxFuture<'_, Result<Option<Secret>>> {
        Box::pin(async {
            let mut left = lock(&self.0);
            if left.len() > 1 {
                left.remove(0);
            }
            Ok(Some(left[0].clone().into()))
        })
    }
}

/// Returns what a user of the client sees of an error.
pub fn describe(e: &Error) -> Value {
    let kind = match e {
        Error::Call(_) => "call",
        Error::DeadlineExceeded(_) => "deadline",
        Error::WatchReset(_) => "watchReset",
        Error::Source(_) => "source",
        Error::Sink(_) => "sink",
        _ => "usage",
    };
    let text = e.to_string();
    let Some(call) = e.call() else {
        return json!({"kind": kind, "code": "", "reason": "", "message": text, "text": text});
    };
    let violations: Vec<_> = call.violations.iter().map(|v| json!({"field": v.field, "description": v.description})).collect();
    json!({
        "kind": kind, "code": code_name(call.code), "reason": call.reason_name, "message": call.message, "metadata": call.metadata,
        "violations": violations, "retryAfterMs": call.retry_after.map_or(0, |d| d.as_millis() as u64), "requestId": call.request_id,
        "attempts": call.attempts, "finished": call.finished, "text": text,
    })
}

/// Returns a code in gRPC's spelling: NOT_FOUND for NotFound.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_uppercase() && !name.is_empty() && code != Code::Ok {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

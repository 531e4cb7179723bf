//! The prior revision as an annotation: one JSON object, versioned and checksummed.
//!
//! ```json
//! {"v":1,"revision":7,"digest":"<sha256>","time":"2026-11-20T09:12:44Z","manager":"helm","encoding":"json",
//!  "payload":{"data":{…},"binaryData":{…},"immutable":true}}
//! ```
//! | encoding | when | what it has |
//! |---|---|---|
//! | `json` | up to 16 KiB | `payload`, the content |
//! | `deflate` | where that brings it to 64 KiB | `payload`, the same compressed (RFC 1951) in base64 |
//! | `ref` | else | `name`, of the ControllerRevision that keeps it ([`super::kept`]) |
//!
//! Which one is a function of the content and of what else the object is annotated with, and nothing else, so that both
//! webhooks, asked however often, come to the same.
//!
//! `time` and `manager` are those of the newest managedFields entry that owns the content, else the time of
//! creation: facts of the stored object, so that encoding it again gives the same bytes.

use super::{Head, Place, Prior, Revision, digest, kept};
use crate::catalog::{Digest, InvalidDigest};
use crate::object::{ConfigMap, Content};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::{deflate, inflate};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use thiserror::Error;

/// The version of the format that is written.
pub(super) const VERSION: u32 = 1;

/// Up to this size an annotation is not worth the time that compressing takes.
const PLAIN: usize = 16 * 1024;

/// The largest annotation: every watch of the ConfigMap carries it at each change.
const INLINE: usize = 64 * 1024;

/// What is larger does not come down to [`INLINE`]: model lists have been seen to shrink to a tenth.
const WORTH_PACKING: usize = 1024 * 1024;

/// The fastest: a model list of 1 MiB in some 10 ms, for a few per cent more of size.
const LEVEL: u8 = 1;

/// The largest content as JSON: 1 MiB in a ConfigMap, each byte of it at most `\u0000`.
const LARGEST: usize = 8 * 1024 * 1024;

/// Room for what is around the texts of a content.
const REST: usize = 256;

/// Why something is no revision that may be restored.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// It is not the JSON object that was written.
    #[error("is not what modelguard writes: {0}")]
    Json(#[source] serde_json::Error),
    /// Another version of modelguard wrote it.
    #[error("has version {0}, expected {VERSION}")]
    Version(u32),
    /// The digest is none.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// The payload is not base64, or not compressed.
    #[error("has a payload that cannot be unpacked: {0}")]
    Payload(String),
    /// The content is not the one that was kept.
    #[error("does not match its digest")]
    Damaged,
}

/// How a content is written.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    Json,
    Deflate,
    Ref,
}

#[derive(Deserialize)]
struct Wire<'a> {
    v: u32,
    revision: u64,
    #[serde(borrow)]
    digest: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    manager: Option<Cow<'a, str>>,
    encoding: Encoding,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
}

/// An entry of managedFields, as far as it tells who wrote the content.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManagedFields<'a> {
    #[serde(borrow, default)]
    pub(super) manager: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) time: Option<Cow<'a, str>>,
    #[serde(default)]
    fields_v1: OwnedFields,
}

#[derive(Default, Deserialize)]
struct OwnedFields {
    #[serde(default, rename = "f:data")]
    data: Option<serde::de::IgnoredAny>,
    #[serde(default, rename = "f:binaryData")]
    binary_data: Option<serde::de::IgnoredAny>,
}

/// The annotation that says what `revision` of `config_map` was, in at most `room` bytes where that can be.
pub(super) fn encode(revision: &Revision<'_>, config_map: &str, room: usize) -> String {
    let head = head(&revision.head);
    let room = room.min(INLINE);
    let mut out = format!(r#"{head},"encoding":"json","payload":"#);
    let start = out.len();
    append_content(&mut out, &revision.content);
    out.push('}');
    if out.len() <= room.min(PLAIN) {
        return out;
    }
    let payload = &out[start..out.len() - 1];
    if payload.len() <= WORTH_PACKING {
        let packed = format!(r#"{head},"encoding":"deflate","payload":"{}"}}"#, pack(payload));
        if packed.len() < out.len() && packed.len() <= room {
            return packed;
        }
    }
    if out.len() <= room {
        return out;
    }
    format!(r#"{head},"encoding":"ref","name":"{}"}}"#, kept::name(config_map, &revision.head.digest))
}

/// Reads the annotation back; nothing but exactly what was kept comes out.
pub(super) fn decode(text: &str) -> Result<Prior<'_>, DecodeError> {
    let wire: Wire<'_> = serde_json::from_str(text).map_err(DecodeError::Json)?;
    if wire.v != VERSION {
        return Err(DecodeError::Version(wire.v));
    }
    let missing = |field| DecodeError::Json(serde::de::Error::missing_field(field));
    let digest: Digest = wire.digest.parse()?;
    let place = match wire.encoding {
        Encoding::Ref => Place::Beside(wire.name.ok_or_else(|| missing("name"))?),
        encoding => {
            let payload = wire.payload.ok_or_else(|| missing("payload"))?;
            Place::Here(unpacked(encoding, payload.get(), digest)?)
        }
    };
    let Wire { revision: number, time, manager, .. } = wire;
    Ok(Prior { head: Head { number, time, manager, digest }, place })
}

/// What was written as `payload`, some JSON, if it is what has this digest.
pub(super) fn unpacked(
    encoding: Encoding,
    payload: &str,
    expected: Digest,
) -> Result<Cow<'_, Content<'_>>, DecodeError> {
    let content: Content<'_> = match encoding {
        Encoding::Json => serde_json::from_str(payload).map_err(DecodeError::Json)?,
        Encoding::Deflate => {
            let text: Cow<'_, str> = serde_json::from_str(payload).map_err(DecodeError::Json)?;
            let json = unpack(&text)?;
            serde_json::from_str::<Content<'_>>(&json).map_err(DecodeError::Json)?.into_owned()
        }
        Encoding::Ref => return Err(DecodeError::Payload("it is said to be elsewhere".to_owned())),
    };
    if digest(&content) == expected { Ok(Cow::Owned(content)) } else { Err(DecodeError::Damaged) }
}

/// How a ControllerRevision keeps a content: as an object that people can read, where that is not large.
pub(super) fn packed(content: &Content<'_>) -> (Encoding, Value) {
    let mut json = String::new();
    append_content(&mut json, content);
    let packed = (json.len() > PLAIN).then(|| pack(&json)).filter(|packed| packed.len() < json.len());
    match packed {
        Some(packed) => (Encoding::Deflate, packed.into()),
        None => (Encoding::Json, serde_json::from_str(&json).unwrap_or_default()),
    }
}

/// The newest entry of managedFields that owns content; times are RFC 3339 in UTC, so text order is time order.
pub(super) fn newest_writer<'a>(object: &ConfigMap<'a>) -> Option<ManagedFields<'a>> {
    let entries: Vec<ManagedFields<'_>> = serde_json::from_str(object.metadata.managed_fields?.get()).ok()?;
    let owns_content =
        |entry: &ManagedFields<'_>| entry.fields_v1.data.is_some() || entry.fields_v1.binary_data.is_some();
    entries.into_iter().filter(owns_content).max_by(|a, b| a.time.cmp(&b.time))
}

// === helpers ===

/// What is written before `encoding`.
///
/// Written by hand, as the content is: both webhooks do it for each change, and serde_json looks at each byte to see
/// whether it must be escaped.
fn head(head: &Head<'_>) -> String {
    let mut out = format!(r#"{{"v":{VERSION},"revision":{},"digest":"{}""#, head.number, head.digest);
    for (name, text) in [("time", &head.time), ("manager", &head.manager)] {
        text.iter().for_each(|text| member(&mut out, name, |out| quote(out, text)));
    }
    out
}

/// Appends a content as a JSON object without a space.
fn append_content(out: &mut String, content: &Content<'_>) {
    let Content { data, binary_data, immutable } = content;
    let texts = data.iter().chain(binary_data.iter());
    out.reserve(texts.map(|(key, value)| key.len() + value.len() + r#""":"","#.len()).sum::<usize>() + REST);
    out.push('{');
    for (name, map) in [("data", data), ("binaryData", binary_data)].into_iter().filter(|(_, map)| !map.is_empty()) {
        member(out, name, |out| {
            out.push('{');
            map.iter().for_each(|(key, value)| member(out, key, |out| quote(out, value)));
            out.push('}');
        });
    }
    if let Some(immutable) = immutable {
        member(out, "immutable", |out| out.push_str(if *immutable { "true" } else { "false" }));
    }
    out.push('}');
}

/// Appends one member of a JSON object.
fn member(out: &mut String, name: &str, value: impl FnOnce(&mut String)) {
    if !out.ends_with('{') {
        out.push(',');
    }
    quote(out, name);
    out.push(':');
    value(out);
}

/// Appends a JSON string.
fn quote(out: &mut String, text: &str) {
    // Without a way out of the loop, so that many bytes are looked at at once.
    let special = text.bytes().fold(false, |special, byte| special | (byte < b' ') | (byte == b'"') | (byte == b'\\'));
    if special {
        out.push_str(&serde_json::to_string(text).expect("text is always JSON"));
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

fn pack(json: &str) -> String {
    STANDARD.encode(deflate::compress_to_vec(json.as_bytes(), LEVEL))
}

fn unpack(packed: &str) -> Result<String, DecodeError> {
    let bytes = STANDARD.decode(packed).map_err(|error| DecodeError::Payload(error.to_string()))?;
    let json = inflate::decompress_to_vec_with_limit(&bytes, LARGEST)
        .map_err(|error| DecodeError::Payload(error.to_string()))?;
    String::from_utf8(json).map_err(|error| DecodeError::Payload(error.to_string()))
}

#[cfg(test)]
mod tests;

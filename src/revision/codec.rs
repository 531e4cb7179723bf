//! The prior revision as an annotation: one JSON object, versioned and checksummed.
//!
//! ```json
//! {"v":1,"revision":7,"digest":"<sha256>","time":"2026-11-20T09:12:44Z","manager":"helm","encoding":"json",
//!  "payload":{"data":{…},"binaryData":{…},"immutable":true}}
//! ```
//! `time` and `manager` are those of the newest managedFields entry that owns the content, else the time of
//! creation: facts of the stored object, so that encoding it again gives the same bytes.

use crate::object::{ConfigMap, Content, StringMap};
use crate::revision::digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use thiserror::Error;

/// The version of the format that is written.
const VERSION: u32 = 1;

/// A revision that was replaced by the one that carries it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Prior<'a> {
    /// Its number.
    pub(super) number: u64,
    /// When it was written, RFC 3339.
    pub(super) time: Option<Cow<'a, str>>,
    /// Who wrote it.
    pub(super) manager: Option<Cow<'a, str>>,
    /// What it stored.
    pub(super) content: Content<'a>,
}

/// Why an annotation is no prior revision that may be restored.
#[derive(Debug, Error)]
pub(super) enum DecodeError {
    /// It is not the JSON object that was written.
    #[error("is not a prior revision")]
    Json(#[source] serde_json::Error),
    /// Another version of modelguard wrote it.
    #[error("has version {0}, expected {VERSION}")]
    Version(u32),
    /// The content is not the one that was kept.
    #[error("does not match its digest")]
    Damaged,
}

#[derive(Deserialize, Serialize)]
struct Wire<'a> {
    v: u32,
    revision: u64,
    digest: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manager: Option<Cow<'a, str>>,
    encoding: Encoding,
    payload: Payload<'a>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Json,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Payload<'a> {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    data: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    binary_data: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    immutable: Option<bool>,
}

/// An entry of managedFields, as far as it tells who wrote the content.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManagedFields<'a> {
    #[serde(borrow, default)]
    manager: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    time: Option<Cow<'a, str>>,
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

impl<'a> Prior<'a> {
    /// What `object`, at its revision `number`, stores.
    pub(super) fn of(object: &ConfigMap<'a>, number: u64) -> Self {
        let writer = object.metadata.managed_fields.and_then(newest_writer);
        let (time, manager) = writer.map_or((None, None), |writer| (writer.time, writer.manager));
        let time = time.or_else(|| object.metadata.creation_timestamp.clone());
        Self { number, time, manager, content: object.content.clone() }
    }

    /// The annotation.
    pub(super) fn encode(self) -> Option<String> {
        let digest = digest(&self.content).to_string().into();
        let Content { data: StringMap(data), binary_data: StringMap(binary_data), immutable } = self.content;
        // Maps of strings always serialize.
        serde_json::to_string(&Wire {
            v: VERSION,
            revision: self.number,
            digest,
            time: self.time,
            manager: self.manager,
            encoding: Encoding::Json,
            payload: Payload { data, binary_data, immutable },
        })
        .ok()
    }
}

impl Prior<'static> {
    /// Reads the annotation back; nothing but exactly what was kept comes out.
    pub(super) fn decode(text: &str) -> Result<Self, DecodeError> {
        let wire: Wire<'static> = serde_json::from_str(text).map_err(DecodeError::Json)?;
        if wire.v != VERSION {
            return Err(DecodeError::Version(wire.v));
        }
        let Payload { data, binary_data, immutable } = wire.payload;
        let content = Content { data: StringMap(data), binary_data: StringMap(binary_data), immutable };
        if digest(&content).to_string() != wire.digest {
            return Err(DecodeError::Damaged);
        }
        Ok(Self { number: wire.revision, time: wire.time, manager: wire.manager, content })
    }
}

/// The newest entry of managedFields that owns content; times are RFC 3339 in UTC, so text order is time order.
fn newest_writer(managed_fields: &RawValue) -> Option<ManagedFields<'_>> {
    let entries: Vec<ManagedFields<'_>> = serde_json::from_str(managed_fields.get()).ok()?;
    let owns_content =
        |entry: &ManagedFields<'_>| entry.fields_v1.data.is_some() || entry.fields_v1.binary_data.is_some();
    entries.into_iter().filter(owns_content).max_by(|a, b| a.time.cmp(&b.time))
}

//! The prior revision as an annotation: one JSON object, versioned and checksummed.
//!
//! ```json
//! {"v":1,"revision":7,"digest":"<sha256>","time":"2026-11-20T09:12:44Z","manager":"helm","encoding":"json",
//!  "payload":{"data":{…},"binaryData":{…},"immutable":true}}
//! ```
//! Entries that were only retained then stand in `retained`, where there are any.
//!
//! `time` and `manager` are those of the newest managedFields entry that owns the content, else the time of
//! creation: facts of the stored object, so that encoding it again gives the same bytes.

use crate::catalog::Digest;
use crate::object::{ConfigMap, Content};
use crate::retention::Retained;
use crate::revision::digest;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use thiserror::Error;

/// The version of the format that is written.
const VERSION: u32 = 1;

/// Room for what is around the texts of a content.
const REST: usize = 256;

/// A revision that was replaced by the one that carries it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Prior<'a> {
    /// Its number.
    pub number: u64,
    /// When it was written, RFC 3339.
    pub time: Option<Cow<'a, str>>,
    /// Who wrote it.
    pub manager: Option<Cow<'a, str>>,
    /// What of it was only there because its removal was deferred.
    pub retained: Retained,
    /// What it stored.
    pub content: Cow<'a, Content<'a>>,
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

#[derive(Deserialize)]
struct Wire<'a> {
    v: u32,
    revision: u64,
    digest: Cow<'a, str>,
    #[serde(default)]
    time: Option<Cow<'a, str>>,
    #[serde(default)]
    manager: Option<Cow<'a, str>>,
    #[serde(default)]
    retained: Retained,
    #[serde(rename = "encoding")]
    _encoding: Encoding,
    #[serde(borrow)]
    payload: Cow<'a, Content<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Json,
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
    pub(super) fn of(object: &'a ConfigMap<'_>, number: u64) -> Self {
        let writer = object.metadata.managed_fields.and_then(newest_writer);
        let (time, manager) = writer.map_or((None, None), |writer| (writer.time, writer.manager));
        let time = time.or_else(|| object.metadata.creation_timestamp.clone());
        Self { number, time, manager, retained: Retained::of(object), content: Cow::Borrowed(&object.content) }
    }

    /// The annotation; `digest` is that of the content.
    ///
    /// Written by hand: both webhooks do it for each change, and serde_json looks at each byte to see whether it must
    /// be escaped.
    pub(super) fn encode(&self, digest: Digest) -> String {
        let Content { data, binary_data, immutable } = &*self.content;
        let mut out = format!(r#"{{"v":{VERSION},"revision":{},"digest":"{digest}""#, self.number);
        let texts = data.iter().chain(binary_data.iter());
        out.reserve(texts.map(|(key, value)| key.len() + value.len() + r#""":"","#.len()).sum::<usize>() + REST);
        for (name, text) in [("time", &self.time), ("manager", &self.manager)] {
            text.iter().for_each(|text| member(&mut out, name, |out| quote(out, text)));
        }
        if let Some(retained) = self.retained.render() {
            member(&mut out, "retained", |out| out.push_str(&retained));
        }
        out.push_str(r#","encoding":"json","payload":{"#);
        for (name, map) in [("data", data), ("binaryData", binary_data)].into_iter().filter(|(_, map)| !map.is_empty())
        {
            member(&mut out, name, |out| {
                out.push('{');
                map.iter().for_each(|(key, value)| member(out, key, |out| quote(out, value)));
                out.push('}');
            });
        }
        if let Some(immutable) = immutable {
            member(&mut out, "immutable", |out| out.push_str(if *immutable { "true" } else { "false" }));
        }
        out.push_str("}}");
        out
    }

    /// Reads the annotation back; nothing but exactly what was kept comes out.
    pub(super) fn decode(text: &'a str) -> Result<Self, DecodeError> {
        let wire: Wire<'a> = serde_json::from_str(text).map_err(DecodeError::Json)?;
        if wire.v != VERSION {
            return Err(DecodeError::Version(wire.v));
        }
        if digest(&wire.payload).to_string() != wire.digest {
            return Err(DecodeError::Damaged);
        }
        let Wire { revision: number, time, manager, retained, payload: content, .. } = wire;
        Ok(Self { number, time, manager, retained, content })
    }
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

/// The newest entry of managedFields that owns content; times are RFC 3339 in UTC, so text order is time order.
fn newest_writer(managed_fields: &RawValue) -> Option<ManagedFields<'_>> {
    let entries: Vec<ManagedFields<'_>> = serde_json::from_str(managed_fields.get()).ok()?;
    let owns_content =
        |entry: &ManagedFields<'_>| entry.fields_v1.data.is_some() || entry.fields_v1.binary_data.is_some();
    entries.into_iter().filter(owns_content).max_by(|a, b| a.time.cmp(&b.time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::StringMap;
    use proptest::collection::btree_map;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn any_map() -> impl Strategy<Value = StringMap<'static>> {
        let pair = || ("[-._a-z]{1,4}", "[ -~\n\té\u{1}\u{2028}]{0,8}");
        let (key, value) = pair();
        btree_map(key, value, 0..4).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_json_without_a_space_and_decodes_to_the_same(
            data in any_map(),
            binary_data in any_map(),
            immutable: Option<bool>,
            manager in proptest::option::of("[ -~]{0,6}"),
            number: u64,
        ) {
            let content = Content { data, binary_data, immutable };
            let prior = Prior {
                number,
                time: None,
                retained: Retained::default(),
                manager: manager.map(Cow::Owned),
                content: Cow::Owned(content),
            };
            let text = prior.encode(digest(&prior.content));
            prop_assert_eq!(&Prior::decode(&text).unwrap(), &prior);
            // serde_json sorts the members, but has the same bytes for each.
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(value.to_string().len(), text.len(), "{}", text);
        }
    }

    #[test]
    fn the_annotation_is_written_in_one_way_only() {
        let data = [("a", "1\n\"2\""), ("b", "é")].into_iter().collect();
        let content = Content { data, binary_data: StringMap::default(), immutable: Some(false) };
        let prior = Prior {
            number: 7,
            time: Some("2026-11-20T09:12:44Z".into()),
            manager: None,
            retained: Retained::default(),
            content: Cow::Owned(content),
        };
        let digest = digest(&prior.content);
        let expected = format!(
            r#"{{"v":1,"revision":7,"digest":"{digest}","time":"2026-11-20T09:12:44Z","encoding":"json","payload":{{"data":{{"a":"1\n\"2\"","b":"é"}},"immutable":false}}}}"#
        );
        assert_eq!(prior.encode(digest), expected);
        for (field, wrong) in [("v", json!(2)), ("digest", json!("0")), ("encoding", json!("deflate"))] {
            let mut damaged: Value = serde_json::from_str(&expected).unwrap();
            damaged[field] = wrong;
            assert!(Prior::decode(&damaged.to_string()).is_err(), "{field}");
        }
    }
}

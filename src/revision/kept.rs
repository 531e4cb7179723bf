//! What is kept of a revision beside its ConfigMap: one apps/v1 ControllerRevision for each content.
//!
//! ```text
//! ControllerRevision prod/extraction-models-0a6dc1e6dfa5f2b0      no owner, none of the ConfigMap's labels: what
//!   labels:      modelguard.dev/history-of                        deletes, prunes or selects by these passes it by
//!   annotations: modelguard.dev/revisions   the revisions that stored this content
//!   revision:    the newest of them
//!   data:        {v, configMap, catalog, digest, encoding, payload}
//! ```
//! The API server lets nobody change `data`. A content that comes back, by a rollback, is the same object with one
//! revision more.

use super::codec::{self, DecodeError, Encoding, VERSION};
use super::{Head, Revision, asked};
use crate::catalog::Digest;
use crate::names;
use crate::object::Content;
use crate::policy::Version;
use crate::reference::CatalogKey;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;

/// The longest name of an object, and the longest value of a label.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// So many digits of a digest tell contents of one ConfigMap from each other; the whole one is compared as well.
const DIGITS: usize = 16;

/// A revision that is to be kept beside its ConfigMap.
#[derive(Clone, Copy, Debug)]
pub struct Keep<'c> {
    /// Whose.
    pub config_map: &'c CatalogKey,
    /// What stores it.
    pub version: &'c Version<'c>,
    /// Whether it is kept nowhere else: the annotation has no room for it.
    pub is_needed: bool,
}

/// The most revisions of one content that are remembered.
const MOST_WRITTEN: usize = 32;

/// One content of a model ConfigMap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kept<'a> {
    /// Whose.
    pub config_map: CatalogKey,
    /// The value of its catalog label then.
    pub catalog: Cow<'a, str>,
    /// The digest of the content.
    pub digest: Digest,
    /// The content.
    pub content: Cow<'a, Content<'a>>,
    /// The revisions that stored it, oldest first.
    pub written: Vec<Written>,
}

/// That some revision of one ConfigMap (a namesake has another UID) stored a content.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Written {
    /// The ConfigMap's UID.
    pub uid: Box<str>,
    /// The revision's number.
    pub revision: u64,
    /// When it was written, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Box<str>>,
    /// Who wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    v: u32,
    #[serde(borrow)]
    config_map: Cow<'a, str>,
    #[serde(borrow)]
    catalog: Cow<'a, str>,
    #[serde(borrow)]
    digest: Cow<'a, str>,
    encoding: Encoding,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// The name of the ControllerRevision that keeps the content with this digest of a ConfigMap.
pub fn name(config_map: &str, digest: &Digest) -> String {
    let room = LONGEST_NAME - DIGITS - 1;
    if config_map.len() <= room {
        return format!("{config_map}-{}", digest.short(DIGITS));
    }
    // Names that begin alike must not meet.
    let both = Digest::of_parts([config_map.as_bytes(), digest.to_string().as_bytes()]);
    format!("{}-{}", config_map.get(..room).unwrap_or_default().trim_end_matches(['-', '.']), both.short(DIGITS))
}

/// The value of the label by which everything that is kept of a ConfigMap is found.
pub fn label(config_map: &str) -> Cow<'_, str> {
    match config_map.len() {
        ..=LONGEST_LABEL => config_map.into(),
        _ => Digest::of_parts([config_map.as_bytes()]).short(LONGEST_LABEL).into(),
    }
}

impl Keep<'_> {
    /// The name of the ControllerRevision.
    pub fn name(&self) -> String {
        name(&self.config_map.name, &asked(self.version).1)
    }

    /// The UID of the ConfigMap.
    pub fn uid(&self) -> &str {
        &self.version.object.metadata.uid
    }

    /// The revision's number.
    pub fn number(&self) -> u64 {
        super::number(&self.version.object)
    }

    /// What is to be kept.
    pub fn kept(&self) -> Kept<'_> {
        let Revision { head: Head { number, time, manager, digest }, content } = Revision::of(self.version);
        let own = |text: Cow<'_, str>| text.as_ref().into();
        let written =
            Written { uid: self.uid().into(), revision: number, time: time.map(own), manager: manager.map(own) };
        let catalog = self.version.object.metadata.labels.get(names::CATALOG_LABEL).unwrap_or_default().into();
        Kept { config_map: self.config_map.clone(), catalog, digest, content, written: vec![written] }
    }
}

impl<'a> Kept<'a> {
    /// The name of the ControllerRevision.
    pub fn name(&self) -> String {
        name(&self.config_map.name, &self.digest)
    }

    /// Its `data`.
    pub fn data(&self) -> Value {
        let (encoding, payload) = codec::packed(&self.content);
        json!({
            "v": VERSION,
            "configMap": self.config_map.name,
            "catalog": self.catalog,
            "digest": self.digest.to_string(),
            "encoding": encoding,
            "payload": payload,
        })
    }

    /// Reads what a ControllerRevision of that namespace keeps; `revisions` is its annotation.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not exactly what was kept.
    pub fn read(namespace: &str, revisions: Option<&str>, data: &'a str) -> Result<Self, DecodeError> {
        let wire: Wire<'a> = serde_json::from_str(data).map_err(DecodeError::Json)?;
        if wire.v != VERSION {
            return Err(DecodeError::Version(wire.v));
        }
        let digest: Digest = wire.digest.parse()?;
        let content = codec::unpacked(wire.encoding, wire.payload.get(), digest)?;
        let config_map = CatalogKey::new(namespace, &wire.config_map);
        Ok(Self { config_map, catalog: wire.catalog, digest, content, written: written(revisions) })
    }

    /// The revision of this number that the ConfigMap with this UID had, if this is its content.
    pub fn revision(&self, uid: &str, number: u64) -> Option<Revision<'_>> {
        let written = self.written.iter().find(|it| *it.uid == *uid && it.revision == number)?;
        let text = |text: &'_ Option<Box<str>>| text.as_deref().map(str::to_owned).map(Cow::Owned);
        let (time, manager) = (text(&written.time), text(&written.manager));
        let head = Head { number, time, manager, digest: self.digest };
        Some(Revision { head, content: Cow::Borrowed(&self.content) })
    }

    /// Copies what is borrowed.
    pub fn into_owned(self) -> Kept<'static> {
        let Self { config_map, catalog, digest, content, written } = self;
        let (catalog, content) = (Cow::Owned(catalog.into_owned()), Cow::Owned(content.into_owned().into_owned()));
        Kept { config_map, catalog, digest, content, written }
    }
}

/// Reads the annotation that says which revisions stored a content; one that cannot be read says none.
pub fn written(annotation: Option<&str>) -> Vec<Written> {
    annotation.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The annotation, with what it says already and `more`; `None` if it says that, too.
pub fn with(annotation: Option<&str>, more: &[Written]) -> Option<String> {
    let mut all = written(annotation);
    let is_said =
        |all: &[Written], it: &Written| all.iter().any(|old| (&old.uid, old.revision) == (&it.uid, it.revision));
    let new: Vec<_> = more.iter().filter(|it| !is_said(&all, it)).cloned().collect();
    if new.is_empty() {
        return None;
    }
    all.extend(new);
    let oldest = all.len().saturating_sub(MOST_WRITTEN);
    // Structs of text always serialize.
    serde_json::to_string(&all[oldest..]).ok()
}

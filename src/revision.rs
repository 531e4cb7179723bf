//! Revisions: what a model ConfigMap was asked to store, each with its number, and how it is kept.
//!
//! ```text
//! CatalogChange { old, new } ──owned()──▶ revision, prior-revision, usage, retained: the value each must have
//!        │
//!        └──Revision::of(old)──▶ codec ──▶ annotation prior-revision    json · deflate · ref ─┐
//!                          └───▶ kept  ──▶ ControllerRevision, beside the ConfigMap ◀──────────┘
//! ```
//! A revision is what was *asked for*: entries that are only retained are no part of it, for they go by themselves, and
//! their going makes no revision of its own. Where nothing is retained it is exactly what was stored.
//!
//! The mutating webhook sets the annotations, the validating one checks that they are. Nothing else goes into them (no
//! clock, no randomness), so a request that is sent again or re-invoked gets identical bytes, and a write that
//! changes nothing stays a write that changes nothing.

mod codec;
pub mod kept;
pub mod restore;

use crate::catalog::Digest;
use crate::names;
use crate::object::{ConfigMap, Content, StringMap};
use crate::policy::{CatalogChange, Declared, Version};
use crate::retention::{Retained, Retention, asked_for};
use crate::usage::Usage;
pub use codec::DecodeError;
pub use kept::{Keep, Kept, Written};
use std::borrow::Cow;

/// What all annotations of an object may take together, keys and values, in bytes: `TotalAnnotationSizeLimitB`
/// in apimachinery's `validation/objectmeta.go`.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// The longest annotation that names a ControllerRevision, in bytes: two names, a digest and a time.
const LONGEST_REFERENCE: usize = 1024;

/// What tells one revision of a ConfigMap from the others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head<'a> {
    /// Its number.
    pub number: u64,
    /// When it was written, RFC 3339.
    pub time: Option<Cow<'a, str>>,
    /// Who wrote it.
    pub manager: Option<Cow<'a, str>>,
    /// The digest of its content.
    pub digest: Digest,
}

/// What a model ConfigMap was asked to store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revision<'a> {
    /// Which one.
    pub head: Head<'a>,
    /// The content.
    pub content: Cow<'a, Content<'a>>,
}

/// The revision before the last change, as its successor carries it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Prior<'a> {
    /// Which one.
    pub head: Head<'a>,
    /// Where its content is.
    pub place: Place<'a>,
}

/// Where the content of a prior revision is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place<'a> {
    /// In the annotation itself.
    Here(Cow<'a, Content<'a>>),
    /// In the ControllerRevision of this name.
    Beside(Cow<'a, str>),
}

/// The value that each annotation in [`names::OWNED`] must have after a change; `None` where it must be absent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Owned {
    /// `modelguard.dev/revision`
    pub revision: Option<String>,
    /// `modelguard.dev/prior-revision`
    pub prior_revision: Option<String>,
    /// `modelguard.dev/usage`
    pub usage: Option<String>,
    /// `modelguard.dev/retained`
    pub retained: Option<String>,
}

/// What the annotations that modelguard owns must be once `change` is made; all absent after a DELETE.
///
/// `retention` is what the mutating webhook does to its entries beside that, and was already done to `change`. The
/// validating one sees what came of it, and has nothing to add.
pub fn owned(change: &CatalogChange<'_>, retention: &Retention) -> Owned {
    let Some(new) = change.new.as_ref().filter(|new| new.declared != Declared::Ordinary) else {
        return Owned::default();
    };
    let Some(old) = change.old.as_ref().filter(|old| old.declared != Declared::Ordinary) else {
        return Owned { revision: Some("1".to_owned()), ..Owned::default() };
    };
    let next = number(&old.object).saturating_add(1);
    let is_marked = new.annotation(names::REVISION) == Some(&*next.to_string());
    let same_format = label(old) == label(new);
    let retained = if same_format { Retained::after(change, retention, is_marked) } else { Retained::default() };
    // That something else is asked for makes a revision, be it that nothing is stored otherwise for now.
    let asks = same_format && retained != Retained::of(&old.object);
    let unchanged = change.keeps_content();
    // What our own write does to the data completes the revision that deferred it, or that took away what was needed.
    let (revision, prior_revision) = match (unchanged && !asks) || change.caller.own {
        true => (annotation(old, names::REVISION), annotation(old, names::PRIOR_REVISION)),
        false => (Some(next.to_string()), Some(prior_revision(change, old, &new.object))),
    };
    let usage = match same_format {
        true if change.caller.own && unchanged => annotation(new, names::USAGE),
        true => usage(old, new),
        false => None,
    };
    Owned { revision, prior_revision, usage, retained: retained.render() }
}

/// The revision before the last change, if the annotation keeps one.
///
/// # Errors
/// [`DecodeError`] if it is there and not exactly what modelguard wrote.
pub fn prior<'o>(object: &'o ConfigMap<'_>) -> Result<Option<Prior<'o>>, DecodeError> {
    object.metadata.annotations.get(names::PRIOR_REVISION).map(Prior::read).transpose()
}

/// The name of the ControllerRevision that a `prior-revision` annotation says its content is in.
pub fn beside(annotation: &str) -> Option<Cow<'_, str>> {
    // One that has the content is longer than any that names it, and takes longer to read.
    let prior = Some(annotation).filter(|it| it.len() <= LONGEST_REFERENCE).and_then(|it| codec::decode(it).ok())?;
    match prior.place {
        Place::Beside(name) => Some(name),
        Place::Here(_) => None,
    }
}

/// Whether two annotations keep the same, though another version of the compressor may have written one of them.
pub(crate) fn keeps_the_same(one: &str, other: &str) -> bool {
    one == other || matches!((codec::decode(one), codec::decode(other)), (Ok(one), Ok(other)) if one == other)
}

/// A SHA-256 over all that a revision keeps.
pub fn digest(content: &Content<'_>) -> Digest {
    let immutable = format!("{:?}", content.immutable);
    let counts = format!("{} {} {immutable}", content.data.iter().len(), content.binary_data.iter().len());
    let pairs = content.data.iter().chain(content.binary_data.iter());
    let texts = std::iter::once(counts.as_str()).chain(pairs.flat_map(|(key, value)| [key, value]));
    Digest::of_parts(texts.map(str::as_bytes))
}

impl Owned {
    /// Whether `change` ends a revision, and begins another one.
    pub(crate) fn makes_a_revision(&self, change: &CatalogChange<'_>) -> bool {
        let is_one = |old: &&Version<'_>| old.declared != Declared::Ordinary;
        change.old.as_ref().filter(is_one).is_some_and(|old| self.revision != annotation(old, names::REVISION))
    }

    /// What `annotations` must still be set to, or lose where `None`, in the order of [`names::OWNED`].
    pub fn changes(self, annotations: &StringMap<'_>) -> Vec<(&'static str, Option<String>)> {
        // The last three are requests, and never stored.
        let values = [self.revision, self.prior_revision, self.usage, self.retained, None, None, None];
        let owned = names::OWNED.into_iter().zip(values);
        owned.filter(|(name, value)| annotations.get(name) != value.as_deref()).collect()
    }
}

impl<'a> Prior<'a> {
    /// Reads the annotation.
    ///
    /// # Errors
    /// [`DecodeError`] if it is not exactly what modelguard wrote.
    pub fn read(annotation: &'a str) -> Result<Self, DecodeError> {
        codec::decode(annotation)
    }
}

impl<'a> Revision<'a> {
    /// The revision that `version` stores.
    pub fn of(version: &'a Version<'_>) -> Self {
        let object = &version.object;
        let (content, digest) = asked(version);
        let writer = codec::newest_writer(object);
        let (time, manager) = writer.map_or((None, None), |writer| (writer.time, writer.manager));
        let time = time.or_else(|| object.metadata.creation_timestamp.clone());
        Self { head: Head { number: number(object), time, manager, digest }, content }
    }

    /// The annotation that keeps it as the prior revision of `config_map`, in at most `room` bytes where that can be.
    pub fn annotation(&self, config_map: &str, room: usize) -> String {
        codec::encode(self, config_map, room)
    }

    /// Copies what is borrowed.
    pub fn into_owned(self) -> Revision<'static> {
        let Head { number, time, manager, digest } = self.head;
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let head = Head { number, time: time.map(own), manager: manager.map(own), digest };
        Revision { head, content: Cow::Owned(self.content.into_owned().into_owned()) }
    }
}

/// What `version` was asked to store, and its digest.
pub(crate) fn asked<'v>(version: &'v Version<'_>) -> (Cow<'v, Content<'v>>, Digest) {
    match asked_for(version) {
        Cow::Borrowed(content) => (Cow::Borrowed(content), version.digest()),
        Cow::Owned(content) => {
            let digest = digest(&content);
            (Cow::Owned(content), digest)
        }
    }
}

/// The number of the revision that `object` stores. One that was there before modelguard, or whose number was damaged, is
/// at its first revision.
pub fn number(object: &ConfigMap<'_>) -> u64 {
    object.metadata.annotations.get(names::REVISION).and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// What the annotation of `new` says of `old`.
fn prior_revision(change: &CatalogChange<'_>, old: &Version<'_>, new: &ConfigMap<'_>) -> String {
    let room = ANNOTATIONS_LIMIT.saturating_sub(others(&new.metadata.annotations));
    Revision::of(old).annotation(&change.key.name, room)
}

/// What the annotations that are not ours take, with allowance for the small ones that are.
fn others(annotations: &StringMap<'_>) -> usize {
    const KEYS_AND_SMALL_VALUES: usize = 40 * 1024;
    let others = annotations.iter().filter(|(name, _)| !names::OWNED.contains(name));
    others.map(|(name, value)| name.len() + value.len()).sum::<usize>() + KEYS_AND_SMALL_VALUES
}

/// The stored usage, less the entries that this change removes: added again, they are InUse.
fn usage(old: &Version<'_>, new: &Version<'_>) -> Option<String> {
    let usage = Usage::parse(old.annotation(names::USAGE));
    match &new.declared {
        Declared::Catalog(_, catalog) => usage.retaining(|entry| catalog.lists(entry)).render(),
        Declared::Unchanged(_) => usage.render(),
        Declared::Invalid(..) | Declared::Ordinary | Declared::UnknownFormat(_) => None,
    }
}

fn label<'v>(version: &'v Version<'_>) -> Option<&'v str> {
    version.object.metadata.labels.get(names::CATALOG_LABEL)
}

fn annotation(version: &Version<'_>, name: &str) -> Option<String> {
    version.annotation(name).map(str::to_owned)
}

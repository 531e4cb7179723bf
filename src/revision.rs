//! Revisions: the annotations that modelguard owns on a model ConfigMap, as one pure function of a change.
//!
//! ```text
//! CatalogChange { old, new } ──owned()──▶ revision, prior-revision, usage, retained: the value each must have
//! ```
//! The prior revision is kept where it fits: all annotations of an object share 256 KiB, and kubectl keeps a copy of
//! the new content there as well, so that is so up to about 100 KiB. A change that loses it gets a warning ([`Owned::unkept`]).
//!
//! The mutating webhook sets them so, the validating one checks that they are. Nothing else goes into it (no
//! clock, no randomness), so a request that is sent again or re-invoked gets identical bytes, and a write that
//! changes nothing stays a write that changes nothing.

mod codec;

use crate::catalog::Digest;
use crate::names;
use crate::object::{ConfigMap, Content, StringMap};
use crate::policy::{CatalogChange, Declared, Version};
use crate::retention::{Retained, Retention};
use crate::usage::Usage;
pub use codec::Prior;

/// What all annotations of an object may take together, keys and values, in bytes: `TotalAnnotationSizeLimitB`
/// in apimachinery's `validation/objectmeta.go`.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

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
    /// How large the prior revision is, in bytes, where it does not fit beside the new one.
    pub unkept: Option<usize>,
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
    let is_marked = new.object.metadata.annotations.get(names::REVISION) == Some(&*next.to_string());
    let same_format = label(old) == label(new);
    let retained = if same_format { Retained::after(change, retention, is_marked) } else { Retained::default() };
    // That something else is asked for makes a revision, be it that nothing is stored otherwise for now.
    let asks = same_format && retained != Retained::of(&old.object);
    let unchanged = change.keeps_content();
    // What our own write does to the data completes the revision that deferred it.
    let (revision, prior) = match (unchanged && !asks) || change.caller.own {
        true => (annotation(old, names::REVISION), Ok(annotation(old, names::PRIOR_REVISION))),
        false => (Some(next.to_string()), prior_revision(old, &new.object).map(Some)),
    };
    let (prior_revision, unkept) = prior.map_or_else(|bytes| (None, Some(bytes)), |prior| (prior, None));
    let usage = match same_format {
        true if change.caller.own && unchanged => annotation(new, names::USAGE),
        true => usage(old, new),
        false => None,
    };
    Owned { revision, prior_revision, usage, retained: retained.render(), unkept }
}

/// The revision before the last change, if the annotation keeps it and it is undamaged.
pub fn prior<'o>(object: &'o ConfigMap<'_>) -> Option<Prior<'o>> {
    Prior::decode(object.metadata.annotations.get(names::PRIOR_REVISION)?).ok()
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
    /// What `annotations` must still be set to, or lose where `None`, in the order of [`names::OWNED`].
    pub fn changes(self, annotations: &StringMap<'_>) -> Vec<(&'static str, Option<String>)> {
        // The last is a request, and never stored.
        let values = [self.revision, self.prior_revision, self.usage, self.retained, None];
        let owned = names::OWNED.into_iter().zip(values);
        owned.filter(|(name, value)| annotations.get(name) != value.as_deref()).collect()
    }
}

/// A ConfigMap that was there before modelguard, or whose number was damaged, is at its first revision.
fn number(object: &ConfigMap<'_>) -> u64 {
    object.metadata.annotations.get(names::REVISION).and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// `old` as it is kept beside `new`; its size in bytes if there is no room for it.
fn prior_revision(old: &Version<'_>, new: &ConfigMap<'_>) -> Result<String, usize> {
    let text = Prior::of(&old.object, number(&old.object)).encode(old.digest());
    let room = ANNOTATIONS_LIMIT.saturating_sub(others(&new.metadata.annotations));
    if text.len() <= room { Ok(text) } else { Err(text.len()) }
}

/// What the annotations that are not ours take, with allowance for the small ones that are.
fn others(annotations: &StringMap<'_>) -> usize {
    const KEYS_AND_SMALL_VALUES: usize = 40 * 1024;
    let others = annotations.iter().filter(|(name, _)| !names::OWNED.contains(name));
    others.map(|(name, value)| name.len() + value.len()).sum::<usize>() + KEYS_AND_SMALL_VALUES
}

/// The stored usage, less the entries that this change removes: added again, they are InUse.
fn usage(old: &Version<'_>, new: &Version<'_>) -> Option<String> {
    let usage = Usage::parse(old.object.metadata.annotations.get(names::USAGE));
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
    version.object.metadata.annotations.get(name).map(str::to_owned)
}

//! Healing: entries that holders need and that are gone are put back by modelguard itself, where the guard says so.
//!
//! ```text
//! the audit: v1 is needed, and not listed ──restorable()──▶ modelguard.dev/restore: ["v1"]    our own write, in which
//! prior revision, which lists v1 ──keep──▶ as stored {v2, v1}, retained [v1]                  the mutating webhook does it
//! ```
//! It is what a deferred removal would have left ([`crate::retention`]): the restored entry is retained, makes no revision of
//! its own, and goes by itself once it is Idle. So nothing is put back that nobody needs, and nothing twice. Data is never
//! written by our own identity.
//!
//! Not put back is what the prior revision does not list, or is too large for the ConfigMap to carry; what there is no place
//! for; what is in a ConfigMap that is immutable or being deleted; and nothing at all while break-glass on the ConfigMap is
//! valid, or a webhook configuration is gone or not as it should be: then somebody may have taken it away on purpose.

use crate::catalog::edit::{self, CannotEdit, Edit};
use crate::catalog::{Catalog, EntryName, Format};
use crate::names;
use crate::object::{ConfigMap, Content};
use crate::policy::{BreakGlass, CatalogChange, Declared, Terms};
use crate::retention::Retained;
use crate::revision::{self, Place};
use jiff::Timestamp;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Entries that can be put back.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Restoration {
    /// Which.
    pub entries: BTreeSet<EntryName>,
    /// How.
    pub edits: Vec<Edit>,
}

/// What can be put back of `wanted` into a ConfigMap that is stored so.
///
/// # Errors
/// [`CannotEdit`] where the prior revision lists something of it, and there is no place for that.
pub fn restorable(
    object: &ConfigMap<'_>,
    wanted: &BTreeSet<EntryName>,
    now: Timestamp,
) -> Result<Restoration, CannotEdit> {
    let ConfigMap { metadata, content } = object;
    let passes = BreakGlass::stored(metadata.annotations.get(names::BREAK_GLASS)).grants(now);
    if passes || content.immutable == Some(true) || metadata.deletion_timestamp.is_some() {
        return Ok(Restoration::default());
    }
    let format = metadata.labels.get(names::CATALOG_LABEL).and_then(|label| label.parse::<Format>().ok());
    let (Some(format), Some(prior)) = (format, prior(object)) else { return Ok(Restoration::default()) };
    let read = [&*prior, content].map(|content| Catalog::parse(format, content));
    let [Ok(prior_catalog), Ok(catalog)] = read else { return Ok(Restoration::default()) };
    let is_gone = |entry: &&EntryName| prior_catalog.lists(entry) && !catalog.lists(entry);
    let entries: BTreeSet<_> = wanted.iter().filter(is_gone).cloned().collect();
    if entries.is_empty() {
        return Ok(Restoration::default());
    }
    let edits = edit::keep(format, &prior, content, &entries)?;
    Ok(Restoration { entries, edits })
}

/// What our own write asks for; nothing where it asks for none, or was made already.
///
/// # Errors
/// As [`restorable`].
pub(crate) fn asked(change: &CatalogChange<'_>, terms: &Terms) -> Result<Option<Restoration>, CannotEdit> {
    let Some(old) = &change.old else { return Ok(None) };
    let asked = change.asks(names::RESTORE);
    if asked.is_none() || !change.keeps_content() || !terms.guard.heals() {
        return Ok(None);
    }
    restorable(&old.object, Retained::parse(asked).entries(), terms.now).map(Some)
}

/// What our own write put back: nothing unless that is all that it does to the data.
pub(crate) fn restored(change: &CatalogChange<'_>) -> BTreeSet<EntryName> {
    if is_restoration(change) { change.diff.added.clone() } else { BTreeSet::new() }
}

/// Whether `change` does nothing to the data but put entries of the prior revision back, as our own writes may.
pub(crate) fn is_restoration(change: &CatalogChange<'_>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return false };
    let (Declared::Catalog(format, _), added) = (&old.declared, &change.diff.added) else { return false };
    let Some(prior) = prior(&old.object).filter(|_| !added.is_empty()) else { return false };
    let mut expected = old.object.content.clone();
    match edit::keep(*format, &prior, &expected, added) {
        Ok(edits) => edit::apply(edits, &mut expected),
        Err(_) => return false,
    }
    expected == new.object.content
}

/// The content of the prior revision, where the ConfigMap carries it.
fn prior<'o>(object: &'o ConfigMap<'_>) -> Option<Cow<'o, Content<'o>>> {
    match revision::prior(object).ok()??.place {
        Place::Here(content) => Some(content),
        Place::Beside(_) => None,
    }
}

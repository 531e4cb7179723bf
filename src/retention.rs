//! Retention: entries whose removal was deferred, so that a release may do all at once and still take nothing away.
//!
//! ```text
//! as sent {v2} ──keep──▶ as stored {v2, v1}, retained [v1] ──v1 is Idle──▶ retire (our own write) ──▶ {v2}
//! ```
//! The mutating webhook puts back what a change takes away and what is not proven Idle ([`Retention::of`]), and names
//! it in `modelguard.dev/retained`. Once that is Idle the controller asks for its removal by an annotation,
//! `modelguard.dev/retire`, and the mutating webhook makes it in that write: data is never written by our own
//! identity, so whoever owns the field goes on to own it. Both halves are pure, and a request that is sent again or
//! re-invoked comes to the same.
//!
//! # Who wants an entry back
//! Of a retained entry that a later change leaves in its place it must be told whether somebody asks for it again,
//! or did not mention it: a patch of another key does not, a rollback does. It is asked for again
//! * in a text (`yaml`, `json`) that was written anew and lists it;
//! * among `keys`, where the content is again that of the prior revision (a rollback), which never is what it only retained;
//! * in a manifest that `kubectl apply` remembers, or, among `keys`, that a server-side apply owns.
//!
//! Asked for again, it stays for good. One request cannot be told from none, and changes nothing: what is stored already,
//! with what is retained in it, sent by a client that leaves no such trace.

use crate::catalog::edit::{self, CannotEdit, Edit};
use crate::catalog::{Catalog, EntryName, Format};
use crate::healing::{self, Restoration};
use crate::holder::Hold;
use crate::names;
use crate::object::{ConfigMap, Content, StringMap};
use crate::policy::{CatalogChange, Declared, Terms, Version};
use crate::revision;
use crate::usage::{State, Usage};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The annotation of `kubectl apply`: the manifest as it was applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The annotation `modelguard.dev/retained`: a JSON array of names, sorted, so that equal sets are equal bytes.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(from = "Vec<String>")]
pub struct Retained(BTreeSet<EntryName>);

/// What the mutating webhook does with the entries of one change.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Retention {
    /// The entries that are put back.
    pub kept: BTreeSet<EntryName>,
    /// The entries that are taken out now that nobody needs them.
    pub retired: BTreeSet<EntryName>,
    /// The entries that were gone although holders need them, and come back.
    pub restored: BTreeSet<EntryName>,
    /// How.
    pub edits: Vec<Edit>,
    /// Retained entries that are asked for again.
    pub wanted: BTreeSet<EntryName>,
}

/// What `version` was asked to store: without what is only retained.
pub(crate) fn asked_for<'v>(version: &'v Version<'_>) -> Cow<'v, Content<'v>> {
    let content = &version.object.content;
    let retained = Retained::of(&version.object).0;
    let Some(format) = version.declared.format().filter(|_| !retained.is_empty()) else {
        return Cow::Borrowed(content);
    };
    // What cannot be taken out was not put in by us.
    let Ok(edits) = edit::remove(format, content, &retained) else { return Cow::Borrowed(content) };
    let mut asked = content.clone();
    edit::apply(edits, &mut asked);
    Cow::Owned(asked)
}

/// Whether `change` does nothing to the data but take retained entries out, as our own writes may.
pub(crate) fn is_retirement(change: &CatalogChange<'_>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return false };
    let (Declared::Catalog(format, _), removed) = (&old.declared, &change.diff.removed) else { return false };
    let mut expected = old.object.content.clone();
    match edit::remove(*format, &expected, removed) {
        Ok(edits) => edit::apply(edits, &mut expected),
        Err(_) => return false,
    }
    removed.is_subset(&Retained::of(&old.object).0) && expected == new.object.content
}

// === impl Retained ===

impl Retained {
    /// Reads the annotation; one that cannot be read retains nothing, so that nothing is removed for it.
    pub fn parse(annotation: Option<&str>) -> Self {
        annotation.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The annotation; `None` if nothing is retained, for then there is none.
    pub fn render(&self) -> Option<String> {
        let names: Vec<_> = self.0.iter().map(EntryName::as_str).collect();
        // Strings always serialize.
        if names.is_empty() { None } else { serde_json::to_string(&names).ok() }
    }

    /// What an object says.
    pub fn of(object: &ConfigMap<'_>) -> Self {
        Self::parse(object.metadata.annotations.get(names::RETAINED))
    }

    /// The entries.
    pub fn entries(&self) -> &BTreeSet<EntryName> {
        &self.0
    }

    /// What is retained once `change` is made, with what the mutating webhook does to it (nothing, for the other one).
    ///
    /// `is_marked` says that the change has been through the mutating webhook: then its own annotation counts, for
    /// what was put back does not show any more.
    pub(crate) fn after(change: &CatalogChange<'_>, retention: &Retention, is_marked: bool) -> Self {
        let (Some(old), Some(new)) = (&change.old, &change.new) else { return Self::default() };
        let stored = Self::of(&old.object).0;
        let sent = Self::of(&new.object).0.into_iter().filter(|_| is_marked);
        let going_on = stored.into_iter().filter(|entry| !is_marked && !retention.wanted.contains(entry));
        let put_back = retention.kept.union(&retention.restored).cloned();
        let all: BTreeSet<_> = sent.chain(going_on).chain(put_back).collect();
        if all.is_empty() {
            return Self::default();
        }
        let (was, is) = (catalog(old), catalog(new));
        let stays = |entry: &EntryName| was.lists(entry) || retention.restored.contains(entry);
        Self(all.into_iter().filter(|entry| stays(entry) && is.lists(entry)).collect())
    }
}

impl From<BTreeSet<EntryName>> for Retained {
    fn from(entries: BTreeSet<EntryName>) -> Self {
        Self(entries)
    }
}

impl From<Vec<String>> for Retained {
    fn from(names: Vec<String>) -> Self {
        let names: Result<BTreeSet<_>, _> = names.iter().map(|name| EntryName::new(name)).collect();
        Self(names.unwrap_or_default())
    }
}

// === impl Retention ===

impl Retention {
    /// What becomes of the entries of `change`.
    ///
    /// # Errors
    /// [`CannotEdit`] where entries should be put back, or taken out, and their format does not allow it: the change
    /// goes on as it is, and is judged as that.
    pub fn of(change: &CatalogChange<'_>, terms: &Terms) -> Result<Self, CannotEdit> {
        let (Some(old), Some(new)) = (&change.old, &change.new) else { return Ok(Self::default()) };
        if change.caller.own {
            return match healing::asked(change, terms)? {
                Some(Restoration { entries, edits }) => Ok(Self { restored: entries, edits, ..Self::default() }),
                None if change.changes_content() => Ok(Self::after(change)),
                None if change.asks(names::RETIRE).is_some() => Self::retiring(old, new, terms),
                None => Ok(Self::default()),
            };
        }
        let wanted = wanted(old, new);
        let lost = lost(change, old, terms);
        match &old.declared {
            // What may not be changed any more would keep it for ever.
            Declared::Catalog(format, _)
                if !lost.is_empty() && terms.guard.defers() && new.object.content.immutable != Some(true) =>
            {
                let edits = edit::keep(*format, &old.object.content, &new.object.content, &lost)?;
                Ok(Self { kept: lost, edits, wanted, ..Self::default() })
            }
            _ => Ok(Self { wanted, ..Self::default() }),
        }
    }

    /// What the validating webhook must know of a change that went through the mutating one.
    pub(crate) fn after(change: &CatalogChange<'_>) -> Self {
        match (&change.old, &change.new) {
            (Some(_), Some(_)) if change.caller.own => Self { restored: healing::restored(change), ..Self::default() },
            (Some(old), Some(new)) => Self { wanted: wanted(old, new), ..Self::default() },
            _ => Self::default(),
        }
    }

    /// What our own write asks for: retained entries that are Idle go.
    fn retiring(old: &Version<'_>, new: &Version<'_>, terms: &Terms) -> Result<Self, CannotEdit> {
        let Declared::Unchanged(format) = &new.declared else { return Ok(Self::default()) };
        let retired = idle(&old.object, &Retained::of(&old.object).0, terms);
        let edits = edit::remove(*format, &new.object.content, &retired)?;
        Ok(Self { retired, edits, ..Self::default() })
    }
}

/// Those of `entries` which may go by what `object` says itself.
pub(crate) fn idle(object: &ConfigMap<'_>, entries: &BTreeSet<EntryName>, terms: &Terms) -> BTreeSet<EntryName> {
    let annotations = &object.metadata.annotations;
    let usage = Usage::parse(annotations.get(names::USAGE));
    let hold = Hold::parse(annotations.get(names::HOLD));
    let Ok(epoch) = &terms.epoch else { return BTreeSet::new() };
    let goes = |entry: &&EntryName| usage.state(entry, epoch) == State::Idle && !hold.keeps(entry);
    entries.iter().filter(goes).cloned().collect()
}

/// What `change` removes and may not: all that is not Idle in the old object.
fn lost(change: &CatalogChange<'_>, old: &Version<'_>, terms: &Terms) -> BTreeSet<EntryName> {
    let idle = idle(&old.object, &change.diff.removed, terms);
    change.diff.removed.difference(&idle).cloned().collect()
}

/// What a version lists; nothing where it cannot be read.
fn catalog<'v>(version: &'v Version<'_>) -> Cow<'v, Catalog> {
    match &version.declared {
        Declared::Catalog(_, catalog) => Cow::Borrowed(catalog),
        Declared::Unchanged(format) => Cow::Owned(Catalog::parse(*format, &version.object.content).unwrap_or_default()),
        Declared::Invalid(..) | Declared::Ordinary | Declared::UnknownFormat(_) => Cow::Owned(Catalog::default()),
    }
}

/// The retained entries that `new` asks for again.
fn wanted(old: &Version<'_>, new: &Version<'_>) -> BTreeSet<EntryName> {
    let retained = Retained::of(&old.object).0;
    if retained.is_empty() {
        return retained;
    }
    let Some(format) = new.declared.format() else { return BTreeSet::new() };
    let rolls_back = format == Format::Keys && old.object.content != new.object.content && is_prior(old, new);
    let asks = |entry: &EntryName| match &new.declared {
        Declared::Catalog(_, catalog) if rolls_back || is_written_anew(format, old, new) => catalog.lists(entry),
        _ => applies(&new.object, format, entry) && !applies(&old.object, format, entry),
    };
    retained.into_iter().filter(asks).collect()
}

/// Whether `new` stores what was stored before `old`.
fn is_prior(old: &Version<'_>, new: &Version<'_>) -> bool {
    matches!(revision::prior(&old.object), Ok(Some(prior)) if prior.head.digest == new.digest())
}

/// Whether the text that a catalog is read from is another one.
fn is_written_anew(format: Format, old: &Version<'_>, new: &Version<'_>) -> bool {
    Catalog::text(format, &old.object.content) != Catalog::text(format, &new.object.content)
}

/// Whether a manifest is known that names `entry`: the one that `kubectl apply` remembers, or one of server-side apply,
/// which tells keys alone.
fn applies(object: &ConfigMap<'_>, format: Format, entry: &EntryName) -> bool {
    let last = object.metadata.annotations.get(LAST_APPLIED);
    let last = last.and_then(|text| serde_json::from_str::<Applied<'_>>(text).ok()).unwrap_or_default();
    let content = Content { data: last.data, binary_data: last.binary_data, immutable: None };
    let remembered = Catalog::parse(format, &content).is_ok_and(|catalog| catalog.lists(entry));
    remembered || (format == Format::Keys && managers(object).iter().any(|manager| manager.applies(entry)))
}

fn managers(object: &ConfigMap<'_>) -> Vec<Manager> {
    let managers = object.metadata.managed_fields.and_then(|json| serde_json::from_str(json.get()).ok());
    managers.unwrap_or_default()
}

/// A manifest, as far as it is a catalog.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Applied<'a> {
    #[serde(borrow)]
    data: StringMap<'a>,
    #[serde(borrow)]
    binary_data: StringMap<'a>,
}

/// An entry of managedFields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manager {
    #[serde(default)]
    operation: String,
    #[serde(default)]
    fields_v1: Fields,
}

impl Manager {
    /// Whether it owns the key by server-side apply.
    fn applies(&self, key: &EntryName) -> bool {
        let field = format!("f:{key}");
        let Fields { data, binary_data } = &self.fields_v1;
        self.operation == "Apply" && (data.contains_key(&field) || binary_data.contains_key(&field))
    }
}

#[derive(Default, Deserialize)]
struct Fields {
    #[serde(default, rename = "f:data")]
    data: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(default, rename = "f:binaryData")]
    binary_data: BTreeMap<String, serde::de::IgnoredAny>,
}

#[cfg(test)]
mod tests;

//! Restoring: what a ConfigMap stores when it goes back to a revision.
//!
//! ```text
//! rollback-to: "prior" | "3" ──Target──▶ Seek ──(World)──▶ Found ──restore()──▶ Restored { content, kept }
//! ```
//! The revision comes back byte for byte. Entries that were added since and are not proven Idle stay behind it, retained:
//! a rollback must not break the canary that is being rolled back. They go when they are Idle, and then the content is
//! the revision's.

use super::Revision;
use crate::catalog::edit::{self, CannotEdit};
use crate::catalog::{Catalog, CatalogError, EntryName};
use crate::object::Content;
use crate::policy::{Declared, Terms, Version};
use crate::reference::CatalogKey;
use crate::retention;
use std::collections::BTreeSet;
use std::str::FromStr;
use thiserror::Error;

/// Which revision to go back to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    /// The one before the last change.
    Prior,
    /// The one of this number.
    Number(u64),
}

/// A text that names no revision.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("expected `prior` or the number of a revision")]
pub struct UnknownTarget;

/// A revision whose content must be looked for beside its ConfigMap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seek {
    /// Of which ConfigMap.
    pub config_map: CatalogKey,
    /// Its UID: a namesake's revisions are others.
    pub uid: String,
    /// Its number.
    pub number: u64,
}

/// What is found beside a ConfigMap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    /// The revision.
    Revision(Box<Revision<'static>>),
    /// None of that number; these are kept.
    Unknown(Vec<u64>),
    /// The ControllerRevision of this name is not what was kept, and why.
    Damaged(String, String),
}

/// What the ConfigMap stores afterwards.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Restored {
    /// The revision, and behind it what stays for a while.
    pub content: Content<'static>,
    /// The entries that stay.
    pub kept: BTreeSet<EntryName>,
}

/// Why a revision cannot be restored.
#[derive(Debug, Error)]
pub enum CannotRestore {
    /// It is no catalog of the format that the ConfigMap has now.
    #[error("is no catalog of this format: {0}")]
    Invalid(#[from] CatalogError),
    /// There is no place in it for what must stay.
    #[error("has no place for the entries that are still needed: {0}")]
    NoPlace(#[from] CannotEdit),
}

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(text: &str) -> Result<Self, UnknownTarget> {
        match text {
            "prior" => Ok(Self::Prior),
            number => number.parse().map(Self::Number).map_err(|_| UnknownTarget),
        }
    }
}

/// What is stored once `old` went back to `revision`.
///
/// # Errors
/// [`CannotRestore`] if the ConfigMap would be no catalog any more, or lose what is needed.
pub fn restore(old: &Version<'_>, revision: &Content<'_>, terms: &Terms) -> Result<Restored, CannotRestore> {
    let whole = || Restored { content: revision.clone().into_owned(), kept: BTreeSet::new() };
    let Some(format) = old.declared.format() else { return Ok(whole()) };
    let target = Catalog::parse(format, revision)?;
    // What cannot be read now has no entries that could be kept.
    let listed = match &old.declared {
        Declared::Catalog(_, catalog) => catalog.clone(),
        _ => Catalog::parse(format, &old.object.content).unwrap_or_default(),
    };
    let lost: BTreeSet<_> = listed.names().filter(|entry| !target.lists(entry)).cloned().collect();
    let kept: BTreeSet<_> = lost.difference(&retention::idle(&old.object, &lost, terms)).cloned().collect();
    if kept.is_empty() {
        return Ok(whole());
    }
    let edits = edit::keep(format, &old.object.content, revision, &kept)?;
    let Restored { mut content, .. } = whole();
    edit::apply(edits, &mut content);
    Ok(Restored { content, kept })
}

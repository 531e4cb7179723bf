//! MG108, and what there is to say of a rollback.

use super::{NAMES, cause, denial, list};
use crate::catalog::EntryName;
use crate::names;
use crate::policy::{CatalogChange, Code, Denial};
use crate::reference::CatalogKey;
use crate::revision::Head;
use crate::revision::restore::{CannotRestore, UnknownTarget};
use std::collections::BTreeSet;

/// The most revisions that are named.
const REVISIONS: usize = 20;

/// MG108: no revision of that number is kept (`None`: no prior one); these are. `damage` says what is wrong with the annotation
/// that should keep the prior one.
pub(in crate::policy) fn unknown(
    key: &CatalogKey,
    number: Option<u64>,
    current: u64,
    kept: &[u64],
    damage: Option<&str>,
) -> Denial {
    let what = match number {
        Some(number) => format!("revision {number} is not kept"),
        None => "there is no revision before the current one".to_owned(),
    };
    let damage = damage.map(|why| format!(" The annotation {} {why}.", names::PRIOR_REVISION)).unwrap_or_default();
    let (kept, next) = match kept {
        [] => {
            let next = format!("There is nothing to go back to: leave the annotation {} out.", names::ROLLBACK_TO);
            ("no other is kept".to_owned(), next)
        }
        kept => {
            let kept = format!("kept {} {}", if kept.len() == 1 { "is" } else { "are" }, list(kept, REVISIONS));
            (kept, format!("Name one of these. {}", see(key)))
        }
    };
    mg108(key, &format!("{what}; {kept}, and the current one is {current}.{damage}"), &next)
}

/// MG108: it is at that revision.
pub(in crate::policy) fn is_current(key: &CatalogKey, number: u64) -> Denial {
    mg108(key, &format!("revision {number} is the current one."), &format!("Name another one. {}", see(key)))
}

/// MG108: it is only being created, or was no model ConfigMap so far.
pub(in crate::policy) fn no_revisions(key: &CatalogKey) -> Denial {
    let next = format!("Leave the annotation {} out.", names::ROLLBACK_TO);
    mg108(key, "it has no revision yet to go back to.", &next)
}

/// MG108: the annotation says no revision.
pub(in crate::policy) fn no_target(key: &CatalogKey, text: &str, error: &UnknownTarget) -> Denial {
    let shown: String = text.chars().take(64).collect();
    let what = format!("the annotation {} is {shown:?}, which names no revision of it: {error}.", names::ROLLBACK_TO);
    mg108(key, &what, &see(key))
}

/// MG108: the request changes something else as well.
pub(in crate::policy) fn changes_besides(key: &CatalogKey) -> Denial {
    let what = "one request either goes back to a revision or changes the content or the catalog label, not both.";
    let next = format!("Leave the annotation {} out, or everything else as it is stored.", names::ROLLBACK_TO);
    mg108(key, what, &next)
}

/// MG108: what is kept is not what was kept.
pub(in crate::policy) fn damaged(key: &CatalogKey, number: u64, name: &str, why: &str) -> Denial {
    let what = format!("revision {number} cannot be restored: ControllerRevision {name} {why}.");
    mg108(key, &what, &format!("Name another one. {}", see(key)))
}

/// MG104, MG108: the revision does not fit what the ConfigMap is now.
pub(in crate::policy) fn cannot(change: &CatalogChange<'_>, number: u64, error: &CannotRestore) -> Denial {
    let format = change.old.as_ref().and_then(|old| old.declared.format());
    if let (CannotRestore::Invalid(error), Some(format)) = (error, format) {
        let next = format!(
            "Set the label {} to the format that revision {number} was written in first. Nothing was changed.",
            names::CATALOG_LABEL
        );
        let what = format!("revision {number} cannot be read as {format}: {error}.");
        let code = Code::CatalogInvalid;
        return denial(code, code.status(), &change.key.name, &what, &next, vec![cause("data", &error.to_string())]);
    }
    let next = format!("Make room for them, or wait until nobody needs them. {}", see(&change.key));
    mg108(&change.key, &format!("revision {number} cannot be restored: it {error}."), &next)
}

/// What a user is told who goes back.
pub(in crate::policy) fn goes_back(key: &CatalogKey, head: &Head<'_>) -> String {
    let by = head.manager.as_ref().map(|manager| format!(" by {manager}")).unwrap_or_default();
    let written = head.time.as_ref().map(|time| format!(", written {time}{by}")).unwrap_or_default();
    format!("{} goes back to revision {}{written}", key.name, head.number)
}

/// What a user is told who takes a request along that nobody answered when it was made.
pub(in crate::policy) fn unanswered(asked: &str) -> String {
    format!(
        "{}={asked} was stored while modelguard was not asked: it is taken off, and nothing goes back; ask again if it should",
        names::ROLLBACK_TO
    )
}

/// What a user is told of entries in use whose content goes back to what the prior revision had.
pub(in crate::policy) fn content_goes_back(entries: &BTreeSet<EntryName>) -> String {
    let (noun, get, them) =
        if entries.len() == 1 { ("entry", "gets its", "it") } else { ("entries", "get their", "them") };
    format!("{noun} {} {get} former content back while pods use {them}", list(entries, NAMES))
}

fn see(key: &CatalogKey) -> String {
    format!("See: kubectl modelguard history {} -n {}", key.name, key.namespace)
}

fn mg108(key: &CatalogKey, what: &str, next: &str) -> Denial {
    let code = Code::RevisionUnknown;
    denial(code, code.status(), &key.name, what, next, vec![cause(names::ROLLBACK_TO, what)])
}

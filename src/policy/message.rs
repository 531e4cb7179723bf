//! The words of every denial.
//!
//! A message says, in this order: the code, what is blocked, who holds it (how many, then at most three names),
//! which of the three steps of a release this is, and what to do next. It is plain text under 1,000 characters;
//! `causes` carry the same facts for programs, for at most [`CAUSES`] of them.

pub(super) mod namespace;
pub(super) mod rollback;
pub(super) mod server;
pub(super) mod settling;

use super::{CatalogChange, Cause, Code, Declared, Denial, Unread, WorkloadChange};
use crate::catalog::{Catalog, CatalogError, EntryName, Format, UnknownFormat};
use crate::holder::{Holders, Workload};
use crate::names;
use crate::object::Owner;
use crate::reference::CatalogKey;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

/// The longest message, in characters.
pub(super) const LONGEST: usize = 999;

/// The most names that are spelled out in a row.
const NAMES: usize = 3;

/// The most entries of a catalog that are spelled out.
const ENTRIES: usize = 10;

/// The most causes, the one that says how many more there are not counted: a catalog of keys may lose tens of
/// thousands of entries at once, and the API server copies the answer into its own and into its audit log.
const CAUSES: usize = 20;

/// The longest message of a cause, in characters: the longest reason of a reference that cannot be read.
const LONGEST_CAUSE: usize = 400;

/// The longest warning about rollbacks, in characters: the API server cuts what is longer than 256 off where there is
/// much to say.
const LONGEST_WARNING: usize = 255;

/// When a client should ask again whose change waits for pods to go: the longest that clients accept, for nobody knows
/// how long that takes, and they ask ten times at most.
const PODS: Duration = Duration::from_secs(30);

/// When a client should ask again after what was only a bad moment.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The next step then.
pub const REPEAT: &str = "Repeat it; if that does not help, ask an admin to look at modelguard's logs.";

/// What the guard does for a change that takes away what is in use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Patience {
    /// Nothing.
    None,
    /// The client should hold the change until nobody needs the entries.
    Waits,
    /// It would keep the entries for a while, but cannot, and why.
    Undeferrable(String),
}

// === catalogs ===

/// MG101, MG102, MG105, MG106: `held` names every entry that is taken away, with who needs it.
pub(super) fn in_use(
    change: &CatalogChange<'_>,
    code: Code,
    held: &BTreeMap<&EntryName, &Holders>,
    patience: &Patience,
) -> Denial {
    let blocked = match code {
        Code::CatalogInUse => "deleting it would remove entries in use: ",
        Code::CatalogOptOut => {
            "it cannot stop being a model ConfigMap, or change its format, while entries are in use: "
        }
        _ => "",
    };
    let fact = |(entry, holders): (&&EntryName, &&Holders)| format!("entry {entry} is {}", used_by(holders));
    let mut what = held.first_key_value().map(fact).unwrap_or_default();
    if let more @ 1.. = held.len().saturating_sub(1) {
        let others = list(held.keys().skip(1), NAMES);
        what = format!("{what}; so {} {more} more: {others}", if more == 1 { "is" } else { "are" });
    }
    let next = match code {
        _ if *patience == Patience::Waits => {
            "Only pods of an older template still need it: kubectl and Helm ask again by themselves until these are gone \
             and that is proven."
        }
        Code::EntryReplaced => {
            "Replacing a version in place takes it from running pods. List the new content under a new version \
             (step 1), roll out the app (step 2), then remove the old one (step 3)."
        }
        _ if held.values().all(|holders| holders.workloads.iter().all(|w| w.rollback_target.is_some())) => {
            "This is step 3 (remove) of a release. Only a rollback would need it: lower its owner's revisionHistoryLimit, \
             or delete the old ReplicaSet, if nobody is to roll back to it."
        }
        _ if held.values().any(|holders| holders.workloads.iter().any(|w| w.unreadable.is_some())) => {
            "What cannot be read counts as using everything in its namespace: correct it first."
        }
        _ => "This is step 3 (remove) of a release; finish step 2 (roll out the app) first.",
    };
    let causes = causes(held, |(entry, holders)| cause(entry, &fact((entry, holders))));
    let undeferred = match patience {
        Patience::Undeferrable(why) => format!(" It cannot be deferred: {why}."),
        Patience::None | Patience::Waits => String::new(),
    };
    let waits = *patience == Patience::Waits;
    let status = if waits { Code::EntrySettling.status() } else { code.status() };
    let denial = denial(code, status, &change.key.name, &format!("{blocked}{what}.{undeferred}"), next, causes);
    see(Denial { retry_after: waits.then_some(PODS), ..denial }, &place(&change.key))
}

/// MG101: `held` names what the namespaces hold that the catalog would no longer be shared with.
pub(super) fn still_shared(change: &CatalogChange<'_>, held: &BTreeMap<&EntryName, &Holders>) -> Denial {
    let fact = |(entry, holders): (&&EntryName, &&Holders)| format!("entry {entry} is {}", used_by(holders));
    let first = held.first_key_value().map(fact).unwrap_or_default();
    let what = format!("it cannot be taken from namespaces whose workloads use it: {first}.");
    let next =
        format!("Roll these apps out without it first, then take their namespace out of {}.", names::SHARED_WITH);
    let causes = causes(held, |(entry, holders)| cause(entry, &fact((entry, holders))));
    let denial = denial(Code::EntryInUse, Code::EntryInUse.status(), &change.key.name, &what, &next, causes);
    see(denial, &place(&change.key))
}

/// What a user is told of entries that a change removes and that stay for a while.
pub(super) fn kept_for_now(kept: &BTreeSet<EntryName>) -> String {
    let (noun, them) = if kept.len() == 1 { ("entry", "it") } else { ("entries", "them") };
    format!(
        "{noun} {} may still be needed: modelguard keeps {them}, and removes {them} once nobody needs {them}",
        list(kept, NAMES)
    )
}

/// What a user is told of entries that go although a rollback would need them; nothing where none would.
pub(super) fn needed_by_rollbacks(targets: &BTreeMap<EntryName, Holders>) -> Option<String> {
    let mut owners: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for workload in targets.values().flat_map(|targets| &targets.workloads) {
        if let Some(target) = &workload.rollback_target {
            owners.entry((&workload.namespace, &target.owner)).or_default().extend(target.revision);
        }
    }
    if owners.is_empty() {
        return None;
    }
    let described = owners.into_iter().map(|((namespace, Owner { kind, name }), revisions)| match revisions.len() {
        0 => format!("{kind} {namespace}/{name}"),
        1 => format!("{kind} {namespace}/{name} (revision {})", list(revisions, NAMES)),
        _ => format!("{kind} {namespace}/{name} (revisions {})", list(revisions, NAMES)),
    });
    let (noun, are, them) = if targets.len() == 1 { ("entry", "is", "it") } else { ("entries", "are", "them") };
    let (entries, described) = (list(targets.keys(), NAMES), list(described, NAMES));
    let text = format!(
        "modelguard: {noun} {entries} {are} what a rollback of {described} would need; add {them} again before you roll back"
    );
    Some(clip(text, LONGEST_WARNING))
}

/// What a user is told of a denial that the guard only warns of.
pub(super) fn overlooked(denial: &Denial) -> String {
    let what = denial.message.lines().next().unwrap_or_default();
    format!("modelguard only warns here, and would deny this: {what}")
}

/// MG101: people keep `entry`, for consumers that no object shows.
pub(super) fn kept(change: &CatalogChange<'_>, code: Code, entry: &EntryName) -> Denial {
    let what = format!("the annotation {} keeps entry {entry}.", names::HOLD);
    let next =
        "This is step 3 (remove) of a release; take the entry out of the annotation when nobody needs it any more.";
    let causes = vec![cause(entry, &what)];
    let denial = denial(code, code.status(), &change.key.name, &what, next, causes);
    see(denial, &place(&change.key))
}

/// MG104: it lists more than can be remembered.
pub(super) fn too_large(change: &CatalogChange<'_>, found: usize, most: usize) -> Denial {
    let what = format!("it lists {found} models, and {most} are the most.");
    let next = "Spread them over several model ConfigMaps. Nothing of the ConfigMap was changed.";
    let code = Code::CatalogInvalid;
    denial(code, code.status(), &change.key.name, &what, next, vec![cause("data", &what)])
}

/// MG104: the content is not of the format that the label says.
pub(super) fn catalog_invalid(change: &CatalogChange<'_>, format: Format, error: &CatalogError) -> Denial {
    let next = format!(
        "Correct it; the label {} says that it is {format}. Nothing of the ConfigMap was changed.",
        names::CATALOG_LABEL
    );
    let field = if error.key.is_empty() { "data".to_owned() } else { format!("data[{}]", error.key) };
    let what = format!("its catalog cannot be read: {error}.");
    let causes = vec![cause(field, &error.to_string())];
    denial(Code::CatalogInvalid, Code::CatalogInvalid.status(), &change.key.name, &what, &next, causes)
}

/// MG104: the label says no format.
pub(super) fn unknown_format(change: &CatalogChange<'_>, unknown: &UnknownFormat) -> Denial {
    let next = format!("Correct the label {}, or drop it.", names::CATALOG_LABEL);
    let field = format!("metadata.labels[{}]", names::CATALOG_LABEL);
    let causes = vec![cause(field, &unknown.to_string())];
    denial(Code::CatalogInvalid, Code::CatalogInvalid.status(), &change.key.name, &format!("{unknown}."), &next, causes)
}

/// MG107: the change reached the validating webhook without its prior revision.
pub(super) fn revision_not_kept(change: &CatalogChange<'_>, annotation: &str) -> Denial {
    let what = format!(
        "the annotation {annotation} is not what modelguard's mutating webhook sets, so this change could not be rolled back."
    );
    let next =
        "Repeat it; if that does not help, ask an admin to check whether the webhook revision.modelguard.dev answers.";
    let causes = vec![cause(annotation, &what)];
    denial(Code::RevisionNotKept, Code::RevisionNotKept.status(), &change.key.name, &what, next, causes)
}

/// MG107: the revision before this change does not fit into the annotation, and could not be kept beside the ConfigMap.
pub fn revision_refused(change: &CatalogChange<'_>, why: &str) -> Denial {
    let what = format!("the revision before this change could not be kept, so it could not be rolled back: {why}.");
    let next = "Remove what is in the way (a quota, a missing permission of modelguard's), and repeat it.";
    let causes = vec![cause(names::PRIOR_REVISION, &what)];
    denial(Code::RevisionNotKept, Code::RevisionNotKept.status(), &change.key.name, &what, next, causes)
}

/// MG501: the change brings a proof that modelguard did not write.
pub(super) fn forged(change: &CatalogChange<'_>, annotation: &str) -> Denial {
    let what =
        format!("the annotation {annotation} is owned by modelguard, and its mutating webhook did not restore it.");
    let next = "Repeat the request; if that does not help, ask an admin to check whether the webhook revision.modelguard.dev answers.";
    let causes = vec![cause(annotation, &what)];
    not_verified(&change.key.name, &what, next, causes)
}

/// MG501: our own identity changes data that it may not.
pub(super) fn own_data(change: &CatalogChange<'_>) -> Denial {
    let what = "modelguard's own identity may only take out retained entries that nobody needs, or put back entries that \
                workloads need; this changes something else.";
    let next = "Ask an admin to find out who else has the token of its ServiceAccount.";
    not_verified(&change.key.name, what, next, vec![cause("data", what)])
}

// === workloads ===

/// MG201: the catalog does not list the entry.
pub(super) fn unknown_entry(change: &WorkloadChange, key: &CatalogKey, entry: &EntryName, catalog: &Catalog) -> Denial {
    let lists = if catalog.names().next().is_none() { "nothing".to_owned() } else { list(catalog.names(), ENTRIES) };
    let nearest = nearest(entry.as_str(), catalog.names().map(EntryName::as_str));
    let nearest = nearest.map(|name| format!(" (nearest: {name})")).unwrap_or_default();
    let what = format!("it references entry {entry}, but model ConfigMap {key} lists {lists}{nearest}.");
    let next = format!(
        "This is step 2 (roll out the app) of a release; do step 1 (add the new version to {}) first.",
        key.name
    );
    let causes = vec![cause(format_args!("{key}:{entry}"), &what)];
    denial(Code::UnknownEntry, Code::UnknownEntry.status(), &subject(change), &what, &next, causes)
}

/// MG201: nobody can tell what the catalog lists.
pub(super) fn catalog_unreadable(change: &WorkloadChange, key: &CatalogKey, declared: &Declared) -> Denial {
    let why = match declared {
        Declared::Invalid(_, error) => error.to_string(),
        Declared::UnknownFormat(unknown) => unknown.to_string(),
        Declared::Catalog(..) | Declared::Ordinary | Declared::Unchanged(_) => "it was not read".to_owned(),
    };
    let what = format!("it references model ConfigMap {key}, whose catalog cannot be read: {why}.");
    let next = format!("Correct {} first.", key.name);
    let causes = vec![cause(key, &what)];
    denial(Code::UnknownEntry, Code::UnknownEntry.status(), &subject(change), &what, &next, causes)
}

/// MG202: there is no such model ConfigMap for this namespace. Of a foreign one nothing more is told.
pub(super) fn unknown_catalog(change: &WorkloadChange, key: &CatalogKey, exists: bool) -> Denial {
    let (why, next) = match (key.namespace == change.id.namespace, exists) {
        (true, true) => (
            "is not labelled as one".to_owned(),
            format!("Label it {}=<format>, or correct the annotation {}.", names::CATALOG_LABEL, names::USES),
        ),
        (true, false) => (
            "does not exist".to_owned(),
            format!("Create it first (step 1 of a release), or correct the annotation {}.", names::USES),
        ),
        (false, _) => (
            format!("is not one that namespace {} may use", change.id.namespace),
            format!(
                "It must exist, be labelled {}, and name this namespace in its annotation {}.",
                names::CATALOG_LABEL,
                names::SHARED_WITH
            ),
        ),
    };
    let what = format!("it references model ConfigMap {key}, which {why}.");
    let causes = vec![cause(key, &what)];
    denial(Code::UnknownCatalog, Code::UnknownCatalog.status(), &subject(change), &what, &next, causes)
}

/// MG202: the model ConfigMap, or its namespace, is being deleted.
pub(super) fn catalog_going(change: &WorkloadChange, key: &CatalogKey) -> Denial {
    let what = format!("it references model ConfigMap {key}, which is being deleted.");
    let next = "Wait until it is gone, create it anew (step 1 of a release), then repeat this.";
    let causes = vec![cause(key, &what)];
    denial(Code::UnknownCatalog, Code::UnknownCatalog.status(), &subject(change), &what, next, causes)
}

/// MG202: the namespace of the model ConfigMap is about to be deleted.
pub(super) fn catalog_closing(change: &WorkloadChange, key: &CatalogKey) -> Denial {
    let what = format!("it references model ConfigMap {key}, whose namespace is about to be deleted.");
    let next = "If that deletion was given up, repeat this in a few minutes; else reference another model ConfigMap.";
    let causes = vec![cause(key, &what)];
    denial(Code::UnknownCatalog, Code::UnknownCatalog.status(), &subject(change), &what, next, causes)
}

/// MG204: what it references, or serves, cannot be read.
pub(super) fn reference_invalid(change: &WorkloadChange, problem: &str) -> Denial {
    let what = format!("what it references or serves cannot be read: {problem}.");
    let next = format!(
        "Correct it; {} and {} are lists of [namespace/]configmap:entry (what is served may be configmap:* as well).",
        names::USES,
        names::SERVES
    );
    let causes = vec![cause("spec.template", problem)];
    denial(Code::ReferenceInvalid, Code::ReferenceInvalid.status(), &subject(change), &what, &next, causes)
}

/// What is asked for about a workload, in words: `Deployment prod/extraction-api`.
pub(super) fn subject(change: &WorkloadChange) -> String {
    let id = &change.id;
    let name = if id.name.is_empty() { "(to be named)" } else { &id.name };
    format!("{} {}/{name}", id.kind, id.namespace)
}

// === both ===

/// MG501: a read that the decision needs failed.
pub fn unverified(subject: &str, unread: &Unread) -> Denial {
    let what = format!("this cannot be verified now, so it is not allowed: {unread}.");
    not_verified(subject, &what, REPEAT, vec![cause(&unread.what, &unread.why)])
}

/// MG501: what could not be verified just now, and may be asked again.
pub fn not_verified(subject: &str, what: &str, next: &str, causes: Vec<Cause>) -> Denial {
    let code = Code::NotVerified;
    Denial { retry_after: Some(RETRY_AFTER), ..denial(code, code.status(), subject, what, next, causes) }
}

/// The denial to answer with: what the user must correct before what may pass by itself. Its own code and next step
/// come first among the causes, then what each of them is about.
pub(super) fn gravest(mut denials: Vec<Denial>) -> Option<Denial> {
    denials.sort_by_key(|denial| denial.code == Code::NotVerified);
    let step = denials.first()?.causes.first().cloned();
    let facts = denials.iter_mut().flat_map(|denial| std::mem::take(&mut denial.causes).into_iter().skip(1));
    let causes = step.into_iter().chain(facts).collect();
    let first = denials.into_iter().next()?;
    Some(Denial { causes, ..first })
}

// === helpers ===

/// A denial, worded as all of them are.
pub(super) fn denial(code: Code, status: u16, subject: &str, what: &str, next: &str, mut causes: Vec<Cause>) -> Denial {
    causes.insert(0, cause(code.id(), &format!("{}: {next}", code.name())));
    let message = clip(format!("[{code}] {subject}: {what}\n{next}"), LONGEST);
    Denial { code, status, message, causes, retry_after: None }
}

/// The same with where to look for more; what comes before that is cut where both are too long.
fn see(denial: Denial, place: &str) -> Denial {
    let see = format!(" See: kubectl modelguard status {place}");
    let message = clip(denial.message, LONGEST - see.chars().count()) + &see;
    Denial { message, ..denial }
}

/// A model ConfigMap as a command line names it.
fn place(key: &CatalogKey) -> String {
    format!("{} -n {}", key.name, key.namespace)
}

fn cause(field: impl Display, message: &str) -> Cause {
    Cause { field: field.to_string(), message: clip(message.to_owned(), LONGEST_CAUSE) }
}

/// One cause for each of the first, and one that says how many more there are.
fn causes<I: IntoIterator<IntoIter: ExactSizeIterator>>(all: I, cause: impl Fn(I::Item) -> Cause) -> Vec<Cause> {
    let all = all.into_iter();
    let more = all.len().saturating_sub(CAUSES);
    let rest = (more > 0).then(|| Cause { field: "more".to_owned(), message: format!("and {more} more") });
    all.take(CAUSES).map(cause).chain(rest).collect()
}

/// Who needs an entry: `still used by 3 pods of Deployment prod/api (api-x and 2 more)`.
fn used_by(holders: &Holders) -> String {
    let described: Vec<_> = holders.workloads.iter().take(NAMES).map(describe).collect();
    let mut text = format!("still used by {}", described.join(", "));
    if let more @ 1.. = holders.workloads_total.saturating_sub(described.len()) {
        text = format!("{text} and {more} more {}", if more == 1 { "workload" } else { "workloads" });
    }
    text
}

fn describe(workload: &Workload) -> String {
    let object = format!("{} {}/{}", workload.kind, workload.namespace, workload.name);
    if let Some(problem) = &workload.unreadable {
        return format!("{object} (which cannot be read: {problem})");
    }
    if let Some(target) = &workload.rollback_target {
        let revision = target.revision.map(|number| format!(" (revision {number})")).unwrap_or_default();
        return format!("rollback target {object} of {} {}{revision}", target.owner.kind, target.owner.name);
    }
    match workload.pods {
        0 => format!("the pod template of {object}"),
        1 if &*workload.kind == "Pod" => object,
        pods => {
            let shown: Vec<_> = workload.pod_names.iter().take(1).map(AsRef::as_ref).collect();
            let noun = if pods == 1 { "pod" } else { "pods" };
            let more = pods.saturating_sub(shown.len());
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!("{pods} {noun} of {object} ({}{more})", shown.join(", "))
        }
    }
}

/// The first `most` of some names, and how many more there are.
pub(crate) fn list<T: Display>(names: impl IntoIterator<Item = T>, most: usize) -> String {
    let mut names = names.into_iter();
    let shown: Vec<_> = names.by_ref().take(most).map(|name| name.to_string()).collect();
    match names.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The one of some names that was probably meant: at most a third of the letters differ.
pub(crate) fn nearest<'n>(meant: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let distance = |name: &str| strsim::damerau_levenshtein(meant, name);
    let (distance, name) = names.take(1000).map(|name| (distance(name), name)).min()?;
    (distance * 3 <= meant.chars().count()).then_some(name)
}

/// At most `longest` characters, the last of them a mark if there are more.
fn clip(text: String, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        None => text,
        Some(_) => text.chars().take(longest - 1).chain(['…']).collect(),
    }
}

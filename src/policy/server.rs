//! Servers: who serves an entry, and that the last one stays while somebody uses it. MG203, MG301.
//!
//! ```text
//! a request after which a workload serves less ──▶ does anybody hold what it leaves? (the index; no: allowed, nothing read)
//!    1 GET of the model ConfigMap C, with its resourceVersion
//!    2 LIST of the workloads that serve, with a quorum
//!    3 another one that is ready, and not recorded as leaving on C? no: MG301
//!    4 record on C that this one leaves, conditional on the resourceVersion of 1; conflict: from 1 again
//!    5 allow
//! ```
//! # Why two servers cannot leave each other
//! Let A and B be the last two, and both requested to go. The writes of 4 are ordered; say A's is first. B's is
//! conditional on a revision that it read *after* A's write, so either it read that A leaves, and does not count it; or that
//! was forgotten again, which is > Δ later: by then A's request is committed, or never will be, and B's LIST, which
//! comes after its GET, tells which. Were the LIST first, A could be met in it, go, and be forgotten before the GET. A
//! departure that is requested again is recorded anew, so its time starts anew.
//!
//! That somebody holds an entry is what the index knows: a reference that is admitted in the very moment in which the last
//! server goes is not seen here.

use super::message;
use super::{Denial, Facts, Needs, Stored, Terms, Unread, WorkloadChange};
use crate::catalog::{Catalog, EntryName, Format};
use crate::holder::{Holders, ObjectId};
use crate::policy::Declared;
use crate::reference::{CatalogKey, Need, Origin, Reference, Server};
use std::collections::{BTreeMap, BTreeSet};

/// What comes of a change by which a workload serves less.
#[derive(Debug, Default)]
pub(super) struct Departure<'f> {
    pub(super) denial: Option<Denial>,
    /// The ConfigMaps on which it must be recorded before it is allowed.
    pub(super) recorded_on: BTreeMap<&'f CatalogKey, &'f Stored>,
    /// Who uses what is left.
    pub(super) holders: Holders,
}

/// An entry in use that a change leaves without any ready server.
pub(super) struct Deserted<'f> {
    pub(super) catalog: &'f CatalogKey,
    pub(super) entry: &'f EntryName,
    pub(super) holders: Holders,
    /// Another server of it, which is about to leave, too.
    pub(super) leaving: Option<&'f ObjectId>,
}

/// What must be known beside `facts`, now that it is known what somebody uses and what is a model ConfigMap.
pub(super) fn needs(change: &WorkloadChange, facts: &Facts, terms: &Terms) -> Needs {
    let left: BTreeSet<_> = in_use(change, facts).keys().map(|key| (*key).clone()).collect();
    let counts = |reference: &&Reference| {
        let stored = facts.catalogs.get(&reference.catalog).and_then(|read| read.as_ref().ok()?.as_ref());
        let format = stored.and_then(|stored| stored.declared.format());
        format.is_some_and(|format| reference.origin == Origin::Uses || format == Format::Keys)
    };
    let referenced = change.added().filter(|_| terms.guard.require_served).filter(counts);
    let served = left.iter().cloned().chain(referenced.map(|reference| reference.catalog.clone())).collect();
    let namespaces = (!left.is_empty()).then(|| change.id.namespace.clone()).into_iter().collect();
    Needs { catalogs: left, namespaces, served, ..Needs::default() }
}

/// MG301: an entry that somebody uses keeps a ready server.
pub(super) fn judge<'f>(change: &WorkloadChange, facts: &'f Facts) -> Departure<'f> {
    departure(change, facts).unwrap_or_else(|unread| {
        let denial = message::unverified(&message::subject(change), &unread);
        Departure { denial: Some(denial), ..Departure::default() }
    })
}

/// MG203: where the guard asks for it, what is referenced has a ready server, be it the one that asks.
pub(super) fn served(
    change: &WorkloadChange,
    key: &CatalogKey,
    need: &Need,
    (stored, catalog): (&Stored, &Catalog),
    facts: &Facts,
    terms: &Terms,
) -> Result<(), Box<Denial>> {
    if !terms.guard.require_served {
        return Ok(());
    }
    let servers = known(facts.servers.as_ref(), || "the servers".to_owned());
    let servers = servers.map_err(|unread| message::unverified(&message::subject(change), &unread))?;
    let is_served = |entry: &&EntryName| {
        change.serves.includes(key, entry) || servers.iter().any(|it| serves(it, key, entry, stored))
    };
    let missing = match need {
        Need::All => catalog.names().find(|entry| !is_served(entry)),
        Need::Entry(entry) => Some(entry).filter(|entry| !is_served(entry)),
    };
    missing.map_or(Ok(()), |entry| Err(Box::new(message::server::not_served(change, key, entry))))
}

fn departure<'f>(change: &WorkloadChange, facts: &'f Facts) -> Result<Departure<'f>, Unread> {
    for key in change.left.keys() {
        known(facts.left.get(key), || format!("who uses ConfigMap {key}"))?;
    }
    let in_use = in_use(change, facts);
    let namespace = &change.id.namespace;
    // In a namespace that goes, everything does; to deny that would wedge it.
    if in_use.is_empty() || *known(facts.terminating.get(namespace), || format!("namespace {namespace}"))? {
        return Ok(Departure::default());
    }
    let servers = known(facts.servers.as_ref(), || "the servers".to_owned())?;
    let mut departure = Departure::default();
    let mut deserted = Vec::new();
    for (catalog, users) in in_use {
        let stored = known(facts.catalogs.get(catalog), || format!("ConfigMap {catalog}"))?.as_ref();
        // What is not shared with a namespace is not served from it either.
        let Some(stored) = stored.filter(|stored| stored.sharing.includes(namespace)) else { continue };
        if recorded(stored, &change.id).is_none() {
            return Err(Unread::new(format!("ConfigMap {catalog}"), "too many servers are leaving it"));
        }
        departure.recorded_on.insert(catalog, stored);
        for (entry, holders) in users.into_iter().filter(|(entry, _)| lists(stored, entry)) {
            departure.holders = departure.holders.merge(&holders);
            let of_entry = |server: &&Server| server.id != change.id && server.serves.includes(catalog, entry);
            if !servers.iter().filter(of_entry).any(|server| serves(server, catalog, entry, stored)) {
                let leaving = servers.iter().filter(of_entry).map(|server| &server.id);
                let leaving = leaving.into_iter().find(|id| stored.usage.departs(id));
                deserted.push(Deserted { catalog, entry, holders, leaving });
            }
        }
    }
    departure.denial = message::server::last_server(change, &deserted);
    Ok(departure)
}

/// What becomes of the usage of a ConfigMap on which it is recorded that `server` leaves; `None` where that has no room.
///
/// The revision that was read tells this departure from the next one, which will have read a later one.
pub(super) fn recorded(stored: &Stored, server: &ObjectId) -> Option<crate::usage::Usage> {
    stored.usage.clone().departing(server, &stored.resource_version)
}

// === helpers ===

/// Who uses what is left, entry by entry: what uses only what it serves itself may go with it.
fn in_use<'f>(change: &WorkloadChange, facts: &'f Facts) -> BTreeMap<&'f CatalogKey, BTreeMap<&'f EntryName, Holders>> {
    let known = change.left.iter().filter_map(|(key, left)| {
        let (key, users) = facts.left.get_key_value(key)?;
        Some((key, left, users.as_ref().ok()?))
    });
    let by_others = known.map(|(key, left, users)| {
        let users = users.iter().filter(|(entry, _)| left.includes(entry));
        let others = users.map(|(entry, holders)| (entry, holders.clone().without(&change.id)));
        (key, others.filter(|(_, holders)| !holders.is_empty()).collect::<BTreeMap<_, _>>())
    });
    by_others.filter(|(_, users)| !users.is_empty()).collect()
}

/// Whether a ready server serves `entry`, and will go on to.
fn serves(server: &Server, catalog: &CatalogKey, entry: &EntryName, stored: &Stored) -> bool {
    server.serves.includes(catalog, entry)
        && stored.sharing.includes(&server.id.namespace)
        && !stored.usage.departs(&server.id)
}

/// Whether a ConfigMap lists `entry`, as far as that can be told.
fn lists(stored: &Stored, entry: &EntryName) -> bool {
    match &stored.declared {
        Declared::Catalog(_, catalog) => catalog.lists(entry),
        Declared::Ordinary | Declared::Unchanged(_) | Declared::Invalid(..) | Declared::UnknownFormat(_) => true,
    }
}

fn known<T>(fact: Option<&Result<T, Unread>>, what: impl FnOnce() -> String) -> Result<&T, Unread> {
    fact.ok_or_else(|| Unread::new(what(), "was not read"))?.as_ref().map_err(Clone::clone)
}

#[cfg(test)]
mod tests;

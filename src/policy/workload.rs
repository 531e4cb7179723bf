//! P1: requests that add references. MG201 to MG204.
//!
//! What a request only keeps needs no check: the holder's own compare-and-swap covers it. Each reference that
//! it adds must be listed, and its entry goes back to InUse before the request is allowed.

use super::break_glass;
use super::catalog::overlook;
use super::message;
use super::server;
use super::{Decision, Declared, Denial, Facts, Lift, Needs, Record, Step, Stored, Terms, Unread, WorkloadChange};
use crate::catalog::{EntryName, Format};
use crate::holder::{Holders, ObjectId};
use crate::reference::{CatalogKey, Need, Origin, Reference};
use std::collections::{BTreeMap, BTreeSet};

/// The most denials that are worked out for one request. One is enough to deny it, and to word one means to compare a
/// name with every entry: a hostile annotation of sixteen thousand items would keep a thread busy for seconds.
const MOST_DENIALS: usize = 20;

pub(super) fn needs(change: &WorkloadChange, terms: &Terms) -> Needs {
    let catalogs: BTreeSet<_> = change.added().map(|reference| reference.catalog.clone()).collect();
    let foreign = |key: &&CatalogKey| key.namespace != change.id.namespace;
    let namespaces = catalogs.iter().filter(foreign).map(|key| key.namespace.clone()).collect();
    let asks = change.break_glass.grants(terms.now);
    let may_override = asks.then(|| change.id.namespace.clone());
    let (left, left_from) = (change.left.clone(), change.id.namespace.clone());
    Needs { catalogs, namespaces, may_override, left, left_from, ..Needs::default() }
}

pub(super) fn decide(change: &WorkloadChange, facts: &Facts, terms: &Terms) -> Decision {
    let mut lifted: BTreeMap<&CatalogKey, (&Stored, BTreeSet<EntryName>)> = BTreeMap::new();
    let mut denials: Vec<Denial> = reference_invalid(change).into_iter().collect();
    for reference in change.added() {
        if denials.len() >= MOST_DENIALS {
            break;
        }
        match admit(change, reference, facts, terms) {
            Err(denial) => denials.push(*denial),
            Ok(Some(needed)) => {
                let entries = &mut lifted.entry(&reference.catalog).or_insert((needed.stored, BTreeSet::new())).1;
                entries.extend(needed.marked());
                denials.extend(needed.denial);
            }
            Ok(None) => {}
        }
    }
    let looked_at_all = denials.len() < MOST_DENIALS;
    let departure = server::judge(change, facts);
    let left = overlook(departure.denial.map(Decision::from).unwrap_or_default(), terms.guard);
    denials.extend(left.denial);
    let record = record(change, departure.holders, terms);
    let mut decision = match message::gravest(denials) {
        Some(denial) => Decision { facts: record, ..denial.into() },
        None => Decision { denial: None, facts: record, ..left },
    };
    // What was not looked at may need a lift, so nothing lets it pass.
    if looked_at_all {
        decision = break_glass::judge(decision, &change.break_glass, &message::subject(change), facts, terms);
    }
    if !decision.allowed() {
        return decision;
    }
    // Whatever else break-glass lets pass: the references that are as they should be count from now on, and others must
    // know that this server leaves.
    for (key, stored) in &departure.recorded_on {
        lifted.entry(key).or_insert((stored, BTreeSet::new()));
    }
    let lift = |(key, (stored, entries)): (&CatalogKey, (&Stored, BTreeSet<EntryName>))| {
        let departs = departure.recorded_on.contains_key(key);
        lift(key, stored, &entries, departs.then_some(&change.id))
    };
    let lifts = if change.caller.dry_run { Vec::new() } else { lifted.into_iter().filter_map(lift).collect() };
    let warnings = decision.warnings.into_iter().chain(warnings(change)).collect();
    Decision { lifts, warnings, ..decision }
}

/// A reference that counts, and what it needs. Where it is denied all the same, it counts should break-glass let it pass.
struct Needed<'f> {
    stored: &'f Stored,
    need: Need,
    denial: Option<Denial>,
}

// === the rules ===

/// MG204: what is asked for must be readable; what was unreadable before, and in the same way, is only kept.
fn reference_invalid(change: &WorkloadChange) -> Option<Denial> {
    let problem = change.new.unreadable.as_ref()?;
    (change.old.unreadable.as_ref() != Some(problem)).then(|| message::reference_invalid(change, problem))
}

/// MG201, MG202: what is referenced must be there. `None` for what turns out to be no reference to a model ConfigMap.
fn admit<'f>(
    change: &WorkloadChange,
    reference: &Reference,
    facts: &'f Facts,
    terms: &Terms,
) -> Result<Option<Needed<'f>>, Box<Denial>> {
    let key = &reference.catalog;
    let stored = read(facts.catalogs.get(key), change, || format!("ConfigMap {key}"))?.as_ref();
    let format = stored.and_then(|stored| stored.declared.format());
    if reference.origin == Origin::Implicit && format != Some(Format::Keys) {
        return Ok(None);
    }
    let is_foreign = key.namespace != change.id.namespace;
    let visible =
        |stored: &&Stored| stored.declared != Declared::Ordinary && stored.sharing.includes(&change.id.namespace);
    let Some(stored) = stored.filter(visible) else {
        return Err(Box::new(message::unknown_catalog(change, key, stored.is_some())));
    };
    if stored.deleting || (is_foreign && namespace_goes(change, key, facts)?) {
        return Err(Box::new(message::catalog_going(change, key)));
    }
    let catalog = match &stored.declared {
        Declared::Catalog(_, catalog) => catalog,
        other => return Err(Box::new(message::catalog_unreadable(change, key, other))),
    };
    match &reference.need {
        Need::Entry(entry) if !catalog.lists(entry) => {
            Err(Box::new(message::unknown_entry(change, key, entry, catalog)))
        }
        need => {
            let denial = match is_foreign && stored.usage.is_closing() {
                true => Some(message::catalog_closing(change, key)),
                false => server::served(change, key, need, (stored, catalog), facts, terms).err().map(|denial| *denial),
            };
            Ok(Some(Needed { stored, need: need.clone(), denial }))
        }
    }
}

/// Whether the other namespace of a catalog is being deleted; one's own takes no new objects then.
fn namespace_goes(change: &WorkloadChange, key: &CatalogKey, facts: &Facts) -> Result<bool, Box<Denial>> {
    read(facts.terminating.get(&key.namespace), change, || format!("namespace {}", key.namespace)).copied()
}

// === helpers ===

impl Needed<'_> {
    /// The needed entries that are not InUse now.
    fn marked(&self) -> Vec<EntryName> {
        match &self.need {
            Need::All => self.stored.usage.marked().cloned().collect(),
            Need::Entry(entry) => self.stored.usage.marks(entry).then(|| entry.clone()).into_iter().collect(),
        }
    }
}

/// What is to be written to one ConfigMap, all in one.
fn lift(key: &CatalogKey, stored: &Stored, entries: &BTreeSet<EntryName>, departs: Option<&ObjectId>) -> Option<Lift> {
    let usage = departs.and_then(|server| server::recorded(stored, server));
    (usage.is_some() || !entries.is_empty()).then(|| Lift {
        catalog: key.clone(),
        resource_version: stored.resource_version.clone(),
        usage: usage.unwrap_or_else(|| stored.usage.clone()).without(entries),
    })
}

fn record(change: &WorkloadChange, holders: Holders, terms: &Terms) -> Record {
    let entry = |reference: &Reference| match &reference.need {
        Need::All => None,
        Need::Entry(entry) => (reference.origin == Origin::Uses).then(|| entry.clone()),
    };
    let added: BTreeSet<_> = change.added().filter_map(entry).collect();
    if !holders.is_empty() {
        let enforcement = terms.guard.while_in_use;
        return Record { enforcement, step: Some(Step::Remove), added, holders, ..Record::default() };
    }
    Record { step: (!added.is_empty()).then_some(Step::RollOut), added, ..Record::default() }
}

fn warnings(change: &WorkloadChange) -> Vec<String> {
    let problem = change.new.unreadable.as_ref();
    problem
        .map(|problem| format!("modelguard cannot read what {} references: {problem}", change.id.name))
        .into_iter()
        .collect()
}

/// A fact, or the denial that its absence means.
fn read<'f, T>(
    fact: Option<&'f Result<T, Unread>>,
    change: &WorkloadChange,
    what: impl FnOnce() -> String,
) -> Result<&'f T, Box<Denial>> {
    let unread = match fact {
        Some(Ok(fact)) => return Ok(fact),
        Some(Err(unread)) => unread.clone(),
        None => Unread::new(what(), "was not read"),
    };
    Err(Box::new(message::unverified(&message::subject(change), &unread)))
}

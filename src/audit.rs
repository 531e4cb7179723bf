//! Audit: what should not be there, although every request was judged.
//!
//! ```text
//! Index: references, catalogs ───┐
//! Arming: webhook configurations ┴─ look ─▶ Findings ─┬─▶ `modelguard audit`
//!                       the same, a little later ─────┘
//! ```
//! Such things come about while nobody asks modelguard: before a label is set, while a webhook configuration is gone,
//! by break-glass, by a restored backup. One look is not enough, because its parts are not of one moment: a pod may
//! be seen before the entry that it needs. What is found is what two looks agree on.

use crate::arming::{Arming, Webhooks};
use crate::catalog::{EntryName, Format};
use crate::index::{CatalogFacts, Demand, Index};
use crate::names;
use crate::reference::{CatalogKey, Need, Origin, Reference};
use crate::sharing::Sharing;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The most findings that are spelled out: after a catalog is lost, each of thousands of workloads is one.
const MOST: usize = 200;

/// What can be found.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// A model ConfigMap that cannot be read as a catalog.
    CatalogInvalid,
    /// A reference to a model ConfigMap that is not there, or not for this namespace.
    CatalogMissing,
    /// A reference to an entry that its catalog does not list.
    EntryMissing,
    /// A webhook configuration that does not protect what it should.
    WebhooksAltered,
    /// A webhook configuration that does not exist.
    WebhooksMissing,
}

/// What a finding, or an Event, is about.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Object {
    /// Its kind; of a holder that the index knows, that of its outermost controller.
    pub kind: Box<str>,
    /// Its namespace; empty where it is in none.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

/// One thing that should not be so.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Finding {
    /// What kind of thing.
    pub kind: Kind,
    /// Where.
    pub object: Object,
    /// The ConfigMap that is referenced, or cannot be read.
    pub catalog: Option<CatalogKey>,
    /// The entry that is referenced.
    pub entry: Option<EntryName>,
    /// The same in words. They hold no count that changes by itself, so equal findings are one that goes on.
    pub message: Box<str>,
}

/// Everything that was found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Findings {
    listed: BTreeSet<Finding>,
    totals: BTreeMap<Kind, usize>,
    /// What holders lack, entry by entry: all of it.
    missing: BTreeMap<CatalogKey, BTreeSet<EntryName>>,
}

/// Why a reference does not find what it needs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Lack {
    /// There is no model ConfigMap of that name that workloads of this namespace may use.
    Catalog,
    /// It does not list the entry.
    Entry,
    /// Nobody knows what it lists.
    Unreadable,
}

/// What several reference sets of one namespace lack alike.
type Lacking<'a> = (&'a CatalogKey, &'a str, Option<&'a EntryName>);

/// Looks at everything once. `configuration` is what the webhook configurations are called.
pub fn look(index: &Index, arming: &Arming, configuration: &str) -> Findings {
    let mut findings = Findings::default();
    for (which, defect) in arming.defects() {
        findings.add(defective(which, configuration, defect));
    }
    for (key, facts) in index.catalogs() {
        if let Err(problem) = &facts.listing {
            findings.add(invalid(key, problem));
        }
    }
    let mut lacking: BTreeMap<Lacking<'_>, Vec<Demand<'_>>> = BTreeMap::new();
    for demand in index.demands() {
        for reference in &demand.references().needs {
            let entry = match lack(index, demand.namespace(), reference) {
                Some(Lack::Catalog) => None,
                Some(Lack::Entry) => reference.need.entry(),
                // The catalog itself is what was found.
                Some(Lack::Unreadable) | None => continue,
            };
            let what = (&reference.catalog, demand.namespace(), entry);
            lacking.entry(what).or_default().push(demand);
        }
    }
    for (what, demands) in lacking {
        findings.add_holders(what, &demands);
    }
    findings
}

/// What a reference from `namespace` lacks; nothing where it is none to a model ConfigMap.
pub fn lack(index: &Index, namespace: &str, reference: &Reference) -> Option<Lack> {
    let facts = index.catalog(&reference.catalog);
    let listing = facts.map(|facts| &facts.listing);
    let is_of_keys = matches!(listing, Some(Ok(listing)) if listing.format == Format::Keys);
    if reference.origin == Origin::Implicit && !is_of_keys {
        return None;
    }
    let shared = |facts: &&CatalogFacts| {
        Sharing::new(&reference.catalog.namespace, facts.shared_with.as_deref()).includes(namespace)
    };
    let Some(facts) = facts.filter(shared) else { return Some(Lack::Catalog) };
    match (&facts.listing, &reference.need) {
        (Err(_), _) => Some(Lack::Unreadable),
        (Ok(listing), Need::Entry(entry)) if !listing.entries.contains(entry) => Some(Lack::Entry),
        (Ok(_), _) => None,
    }
}

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::CatalogInvalid, Self::CatalogMissing, Self::EntryMissing, Self::WebhooksAltered, Self::WebhooksMissing];

    /// What programs know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::CatalogInvalid => "CatalogInvalid",
            Self::CatalogMissing => "CatalogMissing",
            Self::EntryMissing => "EntryMissing",
            Self::WebhooksAltered => "WebhooksAltered",
            Self::WebhooksMissing => "WebhooksMissing",
        }
    }
}

// === impl Object ===

impl Object {
    /// A ConfigMap.
    pub fn config_map(key: &CatalogKey) -> Self {
        Self { kind: "ConfigMap".into(), namespace: key.namespace.clone(), name: key.name.clone() }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        match &**namespace {
            "" => write!(f, "{kind} {name}"),
            namespace => write!(f, "{kind} {namespace}/{name}"),
        }
    }
}

// === impl Findings ===

impl Findings {
    /// Sorted; at most 200.
    pub fn listed(&self) -> impl ExactSizeIterator<Item = &Finding> {
        self.listed.iter()
    }

    /// Whether this one is listed.
    pub fn lists(&self, finding: &Finding) -> bool {
        self.listed.contains(finding)
    }

    /// How many there are of a kind, those not listed included.
    pub fn count(&self, kind: Kind) -> usize {
        self.totals.get(&kind).copied().unwrap_or_default()
    }

    /// How many there are, those not listed included.
    pub fn total(&self) -> usize {
        self.totals.values().sum()
    }

    /// What holders need of each model ConfigMap that does not list it.
    pub fn missing(&self) -> impl Iterator<Item = (&CatalogKey, &BTreeSet<EntryName>)> {
        self.missing.iter()
    }

    /// What was there in an earlier look, too.
    #[must_use]
    pub fn also_in(&self, earlier: &Self) -> Self {
        let listed = self.listed.intersection(&earlier.listed).cloned().collect();
        let total = |(kind, count): (&Kind, &usize)| (*kind, (*count).min(earlier.count(*kind)));
        let missing = self.missing.iter().filter_map(|(key, entries)| {
            let both: BTreeSet<_> = entries.intersection(earlier.missing.get(key)?).cloned().collect();
            (!both.is_empty()).then(|| (key.clone(), both))
        });
        let mut both = Self { listed, totals: self.totals.iter().map(total).collect(), missing: missing.collect() };
        if [self, earlier].iter().all(|look| look.listed.len() == look.total()) {
            // Nothing is left out, so that they can be counted one by one.
            both.totals.clear();
            both.listed.iter().for_each(|finding| *both.totals.entry(finding.kind).or_default() += 1);
        }
        both
    }

    fn add(&mut self, finding: Finding) {
        *self.totals.entry(finding.kind).or_default() += 1;
        self.list(finding);
    }

    fn list(&mut self, finding: Finding) {
        if self.listed.len() < MOST {
            self.listed.insert(finding);
        }
    }

    fn add_holders(&mut self, (key, namespace, entry): Lacking<'_>, demands: &[Demand<'_>]) {
        let (kind, message) = match entry {
            Some(entry) => {
                (Kind::EntryMissing, format!("needs entry {entry}, which model ConfigMap {key} does not list"))
            }
            None => (Kind::CatalogMissing, no_catalog(key, namespace)),
        };
        let holders = Demand::holders(demands);
        if let (Some(entry), false) = (entry, holders.is_empty()) {
            self.missing.entry(key.clone()).or_default().insert(entry.clone());
        }
        *self.totals.entry(kind).or_default() += holders.workloads_total;
        for holder in holders.workloads {
            let object = Object { kind: holder.kind, namespace: holder.namespace, name: holder.name };
            let (catalog, entry, message) = (Some(key.clone()), entry.cloned(), message.as_str().into());
            self.list(Finding { kind, object, catalog, entry, message });
        }
    }
}

// === helpers ===

/// The text is the same whether the ConfigMap is gone or not for this namespace, which is to learn nothing of it.
fn no_catalog(key: &CatalogKey, namespace: &str) -> String {
    let label = names::CATALOG_LABEL;
    if *key.namespace == *namespace {
        return format!("needs model ConfigMap {key}, which does not exist or is not labelled {label}");
    }
    let shared = names::SHARED_WITH;
    format!(
        "needs model ConfigMap {key}, which is not one that namespace {namespace} may use: it must exist, \
         be labelled {label}, and name this namespace in its annotation {shared}"
    )
}

fn defective(which: Webhooks, name: &str, defect: Option<&str>) -> Finding {
    let object = Object { kind: which.kind().into(), namespace: "".into(), name: name.into() };
    let (kind, message) = match defect {
        None => (Kind::WebhooksMissing, "does not exist, so that requests pass unseen".to_owned()),
        Some(defect) => (Kind::WebhooksAltered, format!("does not protect what it should: {defect}")),
    };
    Finding { kind, object, catalog: None, entry: None, message: message.into() }
}

fn invalid(key: &CatalogKey, problem: &str) -> Finding {
    let object = Object::config_map(key);
    let message = format!("cannot be read as a catalog: {problem}").into();
    Finding { kind: Kind::CatalogInvalid, object, catalog: Some(key.clone()), entry: None, message }
}

#[cfg(test)]
mod tests;

//! Status: what there is to say of a model ConfigMap, and whether each of its entries may be removed, and why.
//!
//! ```text
//! Index, of one look: catalogs, holders ──┐
//! Arming: the epoch in which proofs count ┼─ of(catalog) ─▶ Status { guarding, remarks, entries: Standing, … }
//! servers, ready or not ──────────────────┘                   Standing { usage, holders, servers, removable, why }
//! ```
//! It reads what a verdict rests on, by the same functions, and is none: the next moment is another one. That the
//! webhook configurations have not changed for more than Δ is nothing that one look could see, nor must it: an entry
//! becomes Idle in an epoch only after it has waited in that epoch ([`crate::arming`]), so Idle in the epoch of this look
//! is Idle.
//!
//! How the servers of modelguard are set is nowhere in the cluster. One setting makes the epoch another one, whether
//! rollback targets hold; as the controller drops at once what is of another epoch than its own, a mark counts here if it
//! is of either.

use crate::arming::Arming;
use crate::catalog::{EntryName, Format};
use crate::guard::RollbackTargets;
use crate::holder::{Hold, Holders, ObjectId};
use crate::index::{CatalogFacts, Index, Listing};
use crate::names;
use crate::policy::{self, Unread};
use crate::reference::{CatalogKey, ServerState};
use crate::sharing::Sharing;
use crate::usage::{Epoch, State};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// Δ as it is by default; a shorter one is for tests.
const SETTLE: SignedDuration = SignedDuration::from_secs(60);

/// The most names that are spelled out in a row.
const NAMES: usize = 3;

/// What one look at a cluster has found.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// Model ConfigMaps, and who holds what; rollback targets hold nothing in it, and are known.
    pub index: &'a Index,
    /// The webhook configurations.
    pub arming: &'a Arming,
    /// The servers of the namespaces that these catalogs are shared with.
    pub servers: &'a [ServerState],
    /// When it was.
    pub now: Timestamp,
}

/// What there is to say of one model ConfigMap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// Which one.
    pub key: CatalogKey,
    /// How it is read; `None` where it cannot be.
    pub format: Option<Format>,
    /// The number of the revision that it stores; `None` where that cannot be read.
    pub revision: Option<u64>,
    /// How far its own namespace is guarded.
    pub guarding: Guarding,
    /// What is not as it should be, or may surprise.
    pub remarks: Vec<String>,
    /// Its entries, sorted.
    pub entries: Vec<Standing>,
}

/// How far a namespace is guarded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guarding {
    /// It lacks the guard label.
    Missing,
    /// The label has been there for less than Δ: what was admitted before that may still come about.
    Arming,
    /// What its workloads use counts.
    Armed,
}

/// How one entry stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Standing {
    /// Which one.
    pub entry: EntryName,
    /// What is proven of it.
    pub usage: Usage,
    /// When it was marked so at the latest, RFC 3339.
    pub since: Option<Box<str>>,
    /// Who holds it.
    pub holders: Holders,
    /// Who serves it.
    pub servers: Vec<Serving>,
    /// Why people keep it, where they name it.
    pub hold: Option<Box<str>>,
    /// Whether its removal was deferred.
    pub is_retained: bool,
    /// Whether it may be removed.
    pub removable: Removable,
    /// Why, and what to do next.
    pub why: String,
}

/// The usage of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Usage {
    /// The default: it may be needed.
    InUse,
    /// The proof that nobody needs it is under way.
    Settling,
    /// Nobody needs it.
    Idle,
}

/// Whether an entry may be removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Removable {
    /// At once.
    Now,
    /// Once the proof is complete, which a client waits for.
    AfterProof,
    /// That was asked for, and is done when nobody uses it.
    ByItself,
    /// Not before something else is done.
    No,
}

/// A server of an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Serving {
    /// Which one.
    pub id: ObjectId,
    /// Whether it has a ready pod of its current template.
    pub is_ready: bool,
    /// Whether it is recorded as about to leave.
    pub is_leaving: bool,
}

/// One catalog, with what its entries have in common.
struct Case<'a> {
    look: Look<'a>,
    key: &'a CatalogKey,
    facts: &'a CatalogFacts,
    sharing: Sharing,
    hold: Hold,
    epochs: Result<[Epoch; 2], Unread>,
}

impl Look<'_> {
    /// What there is to say of a model ConfigMap; `None` if there is none of that name.
    pub fn of(self, key: &CatalogKey) -> Option<Status> {
        let facts = self.index.catalog(key)?;
        let sharing = facts.sharing(key);
        let hold = Hold::parse(facts.hold.as_deref());
        let epochs = self.epochs(&sharing);
        let case = Case { look: self, key, facts, sharing, hold, epochs };
        Some(Status {
            key: key.clone(),
            format: facts.listing.as_ref().ok().map(|listing| listing.format),
            revision: Some(facts.revision).filter(|number| *number > 0),
            guarding: self.guarding(&key.namespace),
            remarks: case.remarks(),
            entries: facts.listing.as_ref().map(|listing| case.entries(listing)).unwrap_or_default(),
        })
    }

    /// The epochs that a mark counts in: one for each way to treat rollback targets.
    fn epochs(self, sharing: &Sharing) -> Result<[Epoch; 2], Unread> {
        let epoch = |targets| {
            let arming = self.arming.clone().under(targets);
            arming.epoch_among(self.index.guarded(), sharing, Duration::ZERO)
        };
        Ok([epoch(RollbackTargets::Warn)?, epoch(RollbackTargets::Hold)?])
    }

    fn guarding(self, namespace: &str) -> Guarding {
        let Some(since) = self.index.guarded_since(namespace) else { return Guarding::Missing };
        let is_new = since.parse::<Timestamp>().is_ok_and(|since| self.now.duration_since(since) <= SETTLE);
        if is_new { Guarding::Arming } else { Guarding::Armed }
    }
}

// === impl Case: the catalog ===

impl Case<'_> {
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Err(problem) = &self.facts.listing {
            remarks.push(format!("cannot be read as a catalog, so no reference to it can be checked: {problem}"));
        }
        if self.facts.is_going {
            remarks.push("is being deleted".to_owned());
        }
        if self.facts.usage.is_closing() {
            remarks.push(
                "its namespace is about to be deleted: workloads of other namespaces cannot reference it now"
                    .to_owned(),
            );
        }
        remarks.extend(self.own_namespace());
        remarks.extend(self.other_namespaces());
        if let Err(unread) = &self.epochs {
            remarks.push(format!("that an entry is used by nobody cannot be proven now: {unread}"));
        }
        remarks
    }

    /// What its own namespace lacks.
    fn own_namespace(&self) -> Option<String> {
        let (own, label) = (&self.key.namespace, label());
        match self.look.guarding(own) {
            Guarding::Missing if self.sharing.reaches_others() => Some(format!(
                "namespace {own} lacks the label {label}: what its own workloads use does not count, and its deletion \
                 would take this catalog from those it is shared with unasked"
            )),
            Guarding::Missing => {
                Some(format!("namespace {own} lacks the label {label}: what its workloads use does not count"))
            }
            Guarding::Arming => Some(arming(own)),
            Guarding::Armed => None,
        }
    }

    /// What the namespaces lack that it is shared with by name.
    fn other_namespaces(&self) -> Vec<String> {
        let all: BTreeMap<_, _> =
            self.sharing.others(&self.key.namespace).map(|name| (name, self.look.guarding(name))).collect();
        let missing: Vec<_> = all.iter().filter(|(_, it)| **it == Guarding::Missing).map(|(name, _)| name).collect();
        let missing = (!missing.is_empty()).then(|| {
            let names = policy::list(missing, NAMES);
            format!("is shared with what lacks the label {}, and so does not count: {names}", label())
        });
        let new = all.iter().filter(|(_, it)| **it == Guarding::Arming).map(|(name, _)| arming(name));
        missing.into_iter().chain(new).collect()
    }
}

// === impl Case: one entry ===

impl Case<'_> {
    fn entries(&self, listing: &Listing) -> Vec<Standing> {
        let Look { index, .. } = self.look;
        let (key, sharing, format) = (self.key, &self.sharing, listing.format);
        let mut users = index.users(key, sharing, format, &listing.entries);
        let mut targets = index.rollback_targets(key, sharing, format, &listing.entries);
        let stand = |entry: &EntryName| {
            let [holders, targets] = [&mut users, &mut targets].map(|of| of.remove(entry).unwrap_or_default());
            self.stand(entry, holders, &targets)
        };
        listing.entries.iter().map(stand).collect()
    }

    fn stand(&self, entry: &EntryName, holders: Holders, targets: &Holders) -> Standing {
        let usage = self.usage(entry);
        let (removable, why) = self.judge(entry, usage, &holders, targets);
        Standing {
            usage,
            since: self.facts.usage_written.clone().filter(|_| usage != Usage::InUse),
            servers: self.servers(entry),
            hold: self.hold.reason(entry).map(Into::into),
            is_retained: self.facts.retained.entries().contains(entry),
            entry: entry.clone(),
            holders,
            removable,
            why,
        }
    }

    fn usage(&self, entry: &EntryName) -> Usage {
        let states = self.epochs.iter().flatten().map(|epoch| self.facts.usage.state(entry, epoch));
        match states.max_by_key(|state| *state != State::InUse) {
            None | Some(State::InUse) => Usage::InUse,
            Some(State::Settling(_)) => Usage::Settling,
            Some(State::Idle) => Usage::Idle,
        }
    }

    fn servers(&self, entry: &EntryName) -> Vec<Serving> {
        let serves = |it: &&ServerState| {
            it.server.serves.includes(self.key, entry) && self.sharing.includes(&it.server.id.namespace)
        };
        let serving = |it: &ServerState| Serving {
            id: it.server.id.clone(),
            is_ready: it.is_ready,
            is_leaving: self.facts.usage.departs(&it.server.id),
        };
        self.look.servers.iter().filter(serves).map(serving).collect()
    }

    /// Whether the entry may be removed, and why; in the order in which a removal would be judged.
    fn judge(&self, entry: &EntryName, usage: Usage, holders: &Holders, targets: &Holders) -> (Removable, String) {
        let is_kept = self.hold.keeps(entry);
        let is_retained = self.facts.retained.entries().contains(entry);
        let (removable, mut why) = match &self.epochs {
            _ if usage == Usage::Idle && !is_kept => proven(is_retained, holders),
            _ if !holders.is_empty() => used(is_retained, holders),
            _ if is_kept => (Removable::No, self.kept(entry)),
            Err(_) => (Removable::No, "nobody uses it, and that cannot be proven now".to_owned()),
            Ok(_) if is_retained => (Removable::ByItself, format!("{DEFERRED} that nobody uses it is proven")),
            Ok(_) => (Removable::AfterProof, self.unproven(entry, usage)),
        };
        if is_kept && !holders.is_empty() {
            why = format!("{why}; besides, {}", self.kept(entry));
        }
        let would_need = list(targets, |it| {
            let target = it.rollback_target.as_ref()?;
            let revision = target.revision.map(|number| format!(" (revision {number})")).unwrap_or_default();
            Some(format!("{} {}/{}{revision}", target.owner.kind, it.namespace, target.owner.name))
        });
        if let Some(apps) = would_need {
            why = format!("{why}; a rollback of {apps} would need it");
        }
        (removable, why)
    }

    fn kept(&self, entry: &EntryName) -> String {
        match self.hold.reason(entry) {
            Some("") => format!("the annotation {} keeps it: take it out there when nobody needs it", names::HOLD),
            Some(reason) => {
                format!("the annotation {} keeps it ({reason}): take it out there when nobody needs it", names::HOLD)
            }
            None => {
                format!("the annotation {} cannot be read in full, and so keeps everything: correct it", names::HOLD)
            }
        }
    }

    /// Of an entry that nobody is known to use.
    fn unproven(&self, entry: &EntryName, usage: Usage) -> String {
        match usage {
            Usage::Settling => "nobody uses it, and the proof of that is under way: whoever removes it waits for that",
            _ if self.facts.usage.marks(entry) => {
                "nobody uses it, and the proof of that must be made again: the webhook configurations, or the \
                 namespaces that may use it, are others than they were"
            }
            _ => "nobody uses it: remove it (step 3), and kubectl and Helm wait for the proof of that",
        }
        .to_owned()
    }
}

/// What is said of an entry that goes by itself.
const DEFERRED: &str = "its removal was deferred: it goes by itself once";

/// Of an entry that is Idle.
fn proven(is_retained: bool, holders: &Holders) -> (Removable, String) {
    match is_retained {
        true => (Removable::ByItself, "its removal was deferred, and is made now: nobody uses it".to_owned()),
        false if holders.is_empty() => (Removable::Now, "nobody uses it, and that is proven".to_owned()),
        false => (Removable::Now, "it is proven that nobody uses it, and yet somebody was seen: look again".to_owned()),
    }
}

/// Of an entry that has holders.
fn used(is_retained: bool, holders: &Holders) -> (Removable, String) {
    let unreadable = holders.workloads.iter().find_map(|it| Some((it, it.unreadable.as_deref()?)));
    if let Some((it, problem)) = unreadable {
        let object = format!("{} {}/{}", it.kind, it.namespace, it.name);
        let why = format!("{object} cannot be read, and so counts as using everything: {problem}; correct it");
        return (Removable::No, why);
    }
    if is_retained {
        return (Removable::ByItself, format!("{DEFERRED} nobody uses it"));
    }
    if holders.will_go() {
        return (Removable::No, "only pods of an older template use it: wait until these are gone".to_owned());
    }
    (Removable::No, "it is used: finish step 2 (roll out the app) first".to_owned())
}

// === impl Guarding ===

impl Guarding {
    /// What programs know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "Missing",
            Self::Arming => "Arming",
            Self::Armed => "Armed",
        }
    }
}

// === impl Usage ===

impl Usage {
    /// What programs know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::InUse => "InUse",
            Self::Settling => "Settling",
            Self::Idle => "Idle",
        }
    }
}

// === impl Removable ===

impl Removable {
    /// What programs know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Now => "Now",
            Self::AfterProof => "AfterProof",
            Self::ByItself => "ByItself",
            Self::No => "No",
        }
    }
}

// === helpers ===

fn label() -> String {
    format!("{}={}", names::GUARD_LABEL, names::GUARD_ENABLED)
}

fn arming(namespace: &str) -> String {
    format!(
        "namespace {namespace} is guarded for less than a minute: what its workloads use counts once `settle` has passed"
    )
}

/// The first few of `holders` as `describe` says, each once, and how many more there are; `None` of none.
fn list(holders: &Holders, describe: impl Fn(&crate::holder::Workload) -> Option<String>) -> Option<String> {
    let mut described: Vec<_> = holders.workloads.iter().filter_map(describe).collect();
    described.dedup();
    (!described.is_empty()).then(|| policy::list(described, NAMES))
}

#[cfg(test)]
mod tests;

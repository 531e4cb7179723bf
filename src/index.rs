//! The index: what the watches know of holders and of model ConfigMaps.
//!
//! ```text
//!   watch ──apply(Facts)──▶ Namespace, guarded or not                       CatalogFacts ◀──apply_catalog── watch
//!                             objects  kind → name → {owner, set, seen}          by CatalogKey
//!                             owners   id ⇄ Controller    ┐ each stored once,
//!                             sets     id ⇄ References    ┘ gone with its last user
//!                             pods     (set, owner) → names
//!                             templates set → (kind, name)
//!                                ▲  │ sets that come and go
//!            set → who has it    │  ▼
//!   holders(catalog, entry) ─────┴─ Needs: CatalogKey → namespace → entry → sets
//! ```
//! Pods of one owner that need the same are one row of `pods`, so no question costs more for more pods. An object
//! that needs nothing is kept only as a link from its pods to what controls it; a Pod that needs nothing is not kept.
//!
//! The one task that watches a kind writes its rows; everybody else reads. It is all synchronous, without I/O and
//! without a clock, and says of each event whether it may have changed what is held.
//!
//! What an old ReplicaSet at zero needs, a *rollback target*, is kept like any other set, and held by it only where the
//! guard says so, or while a Rollout calls it stable.
//!
//! What the index says is never a proof. It names holders for people, and tells the controller when a proof is
//! worth trying; the proof is [`live()`], an index of its own that is built from a LIST.

mod demand;
mod facts;
mod live;
mod namespace;
mod needs;
mod owner;
mod pods;
mod resource;
mod table;
mod tally;
mod target;
pub mod watch;

pub use demand::Demand;
pub use facts::{CatalogFacts, Facts, Listing};
pub use live::{LiveError, everything, live, ready_servers, servers};

use crate::catalog::{EntryName, Format};
use crate::guard::RollbackTargets;
use crate::holder::{Holders, ObjectId};
use crate::object::HolderKind;
use crate::reference::CatalogKey;
use crate::sharing::Sharing;
use namespace::{Lacking, Namespace, SetId};
use needs::{Needs, Wanted};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tally::Tally;

/// What the watches know.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: HashMap<Box<str>, Namespace>,
    needs: Needs,
    rollback_targets: RollbackTargets,
    /// The namespaces whose references count, their UIDs, and the list in which each was last seen.
    guarded: BTreeMap<Box<str>, (Box<str>, u32)>,
    /// Those of them that are being deleted, with all that is in them.
    going: BTreeSet<Box<str>>,
    catalogs: BTreeMap<CatalogKey, (CatalogFacts, u32)>,
    progress: BTreeMap<Source, Progress>,
}

/// What one watch lists.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Source {
    /// Model ConfigMaps.
    Catalogs,
    /// Objects that can hold entries.
    Holders(HolderKind),
    /// Namespaces with the guard label.
    Namespaces,
}

/// How far a watch has come.
#[derive(Debug, Default)]
struct Progress {
    /// The number of the list that is being read, or was read last.
    list: u32,
    /// Whether a list was ever read to its end.
    completed: bool,
    /// Why it does not get on, while it does not.
    failure: Option<Box<str>>,
}

/// Whoever may need something of one catalog, within one guarded namespace.
struct Claims<'a> {
    namespace: &'a Namespace,
    wanted: Option<&'a Wanted>,
    /// Whether it is the catalog's own namespace, all of which an unreadable object holds.
    own: bool,
}

// === impl Source ===

impl Source {
    /// Everything that is watched.
    pub fn all() -> impl Iterator<Item = Self> {
        let holders = HolderKind::ALL.into_iter().map(Self::Holders);
        [Self::Catalogs, Self::Namespaces].into_iter().chain(holders)
    }
}

impl From<HolderKind> for Source {
    fn from(kind: HolderKind) -> Self {
        Self::Holders(kind)
    }
}

// === impl Index: what the watches tell ===

impl Index {
    /// An index that knows nothing yet, and will treat rollback targets like this.
    pub fn new(rollback_targets: RollbackTargets) -> Self {
        Self { rollback_targets, ..Self::default() }
    }

    /// Takes in what an object is now; says whether what is held may have changed.
    pub fn apply(&mut self, facts: Facts) -> bool {
        let seen = self.list_of(facts.id.kind.into());
        let name = facts.id.namespace.clone();
        let needs = &mut self.needs;
        let changed = if let Some(namespace) = self.namespaces.get_mut(&name) {
            namespace.apply(facts, seen, needs)
        } else if facts.matter() {
            let namespace = self.namespaces.entry(name.clone());
            let namespace = namespace.or_insert_with(|| Namespace::new(&name, self.rollback_targets));
            namespace.apply(facts, seen, needs)
        } else {
            return false;
        };
        self.prune(&name);
        changed && self.is_guarded(&name)
    }

    /// Forgets an object that is gone; says whether what is held may have changed.
    pub fn delete(&mut self, id: &ObjectId) -> bool {
        let needs = &mut self.needs;
        let Some(namespace) = self.namespaces.get_mut(&id.namespace) else {
            return false;
        };
        let changed = namespace.delete(id.kind, &id.name, needs);
        self.prune(&id.namespace);
        changed && self.is_guarded(&id.namespace)
    }

    /// The guard label is set on the namespace; its stamp is its UID and, behind a space, when that was. Says whether
    /// that is news.
    pub fn guard(&mut self, namespace: &str, stamp: &str) -> bool {
        let list = self.list_of(Source::Namespaces);
        let guarded = (stamp.into(), list);
        let known = self.guarded.insert(namespace.into(), guarded);
        known.is_none_or(|(known, _)| *known != *stamp)
    }

    /// The namespace has no guard label, or is gone; says whether that is news.
    pub fn unguard(&mut self, namespace: &str) -> bool {
        self.going.remove(namespace);
        self.guarded.remove(namespace).is_some()
    }

    /// Takes in what a model ConfigMap is now; says whether it is another than before.
    pub fn apply_catalog(&mut self, key: CatalogKey, facts: CatalogFacts) -> bool {
        let list = self.list_of(Source::Catalogs);
        if let Some((known, seen)) = self.catalogs.get_mut(&key) {
            *seen = list;
            let changed = *known != facts;
            *known = facts;
            changed
        } else {
            self.catalogs.insert(key, (facts, list));
            true
        }
    }

    /// Forgets a model ConfigMap that is gone, or no longer one; says whether it was known.
    pub fn delete_catalog(&mut self, key: &CatalogKey) -> bool {
        self.catalogs.remove(key).is_some()
    }

    /// A list begins, perhaps once more: what is not seen in it is to go at its end, and not before.
    pub fn restart(&mut self, source: impl Into<Source>) {
        let progress = self.progress.entry(source.into()).or_default();
        progress.list = progress.list.wrapping_add(1);
    }

    /// A list is at its end: what was not seen since it began is gone. Says whether what is held may have changed;
    /// that is so for the first list of each source, because more is known then.
    pub fn complete(&mut self, source: impl Into<Source>) -> bool {
        let source = source.into();
        let progress = self.progress.entry(source).or_default();
        let first = !std::mem::replace(&mut progress.completed, true);
        progress.failure = None;
        let list = progress.list;
        let swept = match source {
            Source::Catalogs => {
                let before = self.catalogs.len();
                self.catalogs.retain(|_, (_, seen)| *seen == list);
                self.catalogs.len() < before
            }
            Source::Holders(kind) => self.sweep(kind, list),
            Source::Namespaces => {
                let before = self.guarded.len();
                self.guarded.retain(|_, (_, seen)| *seen == list);
                self.going.retain(|name| self.guarded.contains_key(name));
                self.guarded.len() < before
            }
        };
        first || swept
    }

    /// A watch does not get on; says whether that, or the reason for it, is news.
    pub fn fail(&mut self, source: impl Into<Source>, reason: &str) -> bool {
        let progress = self.progress.entry(source.into()).or_default();
        let news = progress.failure.as_deref() != Some(reason);
        progress.failure = Some(reason.into());
        news
    }

    /// A watch gets on again.
    pub fn recover(&mut self, source: impl Into<Source>) {
        if let Some(progress) = self.progress.get_mut(&source.into()) {
            progress.failure = None;
        }
    }

    fn list_of(&self, source: Source) -> u32 {
        self.progress.get(&source).map_or(0, |it| it.list)
    }

    fn sweep(&mut self, kind: HolderKind, list: u32) -> bool {
        let mut changed = false;
        for (name, namespace) in &mut self.namespaces {
            let swept = namespace.sweep(kind, list, &mut self.needs);
            changed |= swept && self.guarded.contains_key(name);
        }
        self.namespaces.retain(|_, namespace| !namespace.is_empty());
        changed
    }

    /// Keeps no table for a namespace of which nothing is known.
    fn prune(&mut self, namespace: &str) {
        if self.namespaces.get(namespace).is_some_and(Namespace::is_empty) {
            self.namespaces.remove(namespace);
        }
        debug_assert!(!self.namespaces.is_empty() || self.needs.is_empty());
    }
}

// === impl Index: what is asked ===

impl Index {
    /// Whether everything that holders are read from has been listed once.
    pub fn synced(&self) -> bool {
        self.missing().all(|source| source == Source::Catalogs)
    }

    /// What has not been listed to its end yet.
    pub fn missing(&self) -> impl Iterator<Item = Source> {
        let completed = |source: &Source| self.progress.get(source).is_some_and(|it| it.completed);
        Source::all().filter(move |source| !completed(source))
    }

    /// The watches that do not get on, and why.
    pub fn failing(&self) -> impl Iterator<Item = (Source, &str)> {
        self.progress.iter().filter_map(|(source, progress)| Some((*source, progress.failure.as_deref()?)))
    }

    /// Whether the namespace carries the guard label.
    pub fn is_guarded(&self, namespace: &str) -> bool {
        self.guarded.contains_key(namespace)
    }

    /// When the guard label was set on the namespace, RFC 3339; empty where that is not known.
    pub fn guarded_since(&self, namespace: &str) -> Option<&str> {
        let (stamp, _) = self.guarded.get(namespace)?;
        Some(stamp.split_once(' ').map_or("", |(_, since)| since))
    }

    /// The namespaces that carry the guard label, by name, and their stamps.
    pub fn guarded(&self) -> impl Iterator<Item = (&str, &str)> {
        let guarded = self.guarded.iter();
        guarded.map(|(name, (stamp, _))| (&**name, &**stamp))
    }

    /// The model ConfigMaps.
    pub fn catalogs(&self) -> impl Iterator<Item = (&CatalogKey, &CatalogFacts)> {
        self.catalogs.iter().map(|(key, (facts, _))| (key, facts))
    }

    /// Those of `entries` that anybody holds, and who.
    pub fn users<'a>(
        &self,
        catalog: &CatalogKey,
        sharing: &Sharing,
        format: Format,
        entries: impl IntoIterator<Item = &'a EntryName>,
    ) -> BTreeMap<EntryName, Holders> {
        let held = self.held(catalog, sharing, format, entries).into_iter();
        held.map(|entry| (entry.clone(), self.holders(catalog, sharing, format, &entry))).collect()
    }

    /// Who holds `entry` of a catalog that is shared so.
    pub fn holders(&self, catalog: &CatalogKey, sharing: &Sharing, format: Format, entry: &EntryName) -> Holders {
        let mut tally = Tally::default();
        for claims in self.claims(catalog, sharing) {
            let sets: BTreeSet<_> = claims.all(format).chain(claims.of(format, entry)).collect();
            for set in sets {
                claims.namespace.tally(set, &mut tally);
            }
            for lacking in claims.lacking() {
                claims.namespace.tally_lacking(&lacking, &mut tally);
            }
        }
        tally.finish()
    }

    /// Whose rollback would need which of `entries`, all that nobody's would left out. Of those of Deployments that need
    /// the entry as they are, nobody has to be told.
    pub fn rollback_targets<'a>(
        &self,
        catalog: &CatalogKey,
        sharing: &Sharing,
        format: Format,
        entries: impl IntoIterator<Item = &'a EntryName>,
    ) -> BTreeMap<EntryName, Holders> {
        let claims: Vec<_> = self.claims(catalog, sharing).filter(|claims| claims.namespace.has_targets()).collect();
        let needing = |entry: &EntryName| {
            let mut tally = Tally::default();
            for claims in &claims {
                claims.namespace.tally_targets(&claims.naming(format, entry).collect(), &mut tally);
            }
            tally.finish()
        };
        let all = entries.into_iter().map(|entry| (entry, needing(entry)));
        all.filter(|(_, targets)| !targets.is_empty()).map(|(entry, targets)| (entry.clone(), targets)).collect()
    }

    /// Who of other namespaces needs anything of a catalog that is shared so.
    pub fn elsewhere(&self, catalog: &CatalogKey, sharing: &Sharing, format: Format) -> Holders {
        any_of(self.claims(catalog, sharing).filter(|claims| !claims.own), format)
    }

    /// Who needs anything of a catalog that is shared so.
    pub fn anybody(&self, catalog: &CatalogKey, sharing: &Sharing, format: Format) -> Holders {
        any_of(self.claims(catalog, sharing), format)
    }

    /// Who of `namespace` needs anything of `catalogs`, each of which is shared so and of this format.
    pub fn residents<'a>(
        &self,
        namespace: &str,
        catalogs: impl IntoIterator<Item = (&'a CatalogKey, Sharing, Format)>,
    ) -> Holders {
        let mut tally = Tally::default();
        let sets = |(key, sharing, format): (&CatalogKey, Sharing, Format)| {
            let claims = self.claims(key, &sharing).filter(|claims| claims.namespace.name() == namespace);
            claims.flat_map(|claims| claims.any(format).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        let sets: BTreeSet<_> = catalogs.into_iter().flat_map(sets).collect();
        if let Some(namespace) = self.namespaces.get(namespace) {
            sets.into_iter().chain(namespace.unreadable()).for_each(|set| namespace.tally(set, &mut tally));
            namespace.lacking().for_each(|lacking| namespace.tally_lacking(&lacking, &mut tally));
        }
        tally.finish()
    }

    /// Those of `entries` that anybody holds whom the catalog is shared with: nobody else can pin them.
    pub fn held<'a>(
        &self,
        catalog: &CatalogKey,
        sharing: &Sharing,
        format: Format,
        entries: impl IntoIterator<Item = &'a EntryName>,
    ) -> BTreeSet<EntryName> {
        let claims: Vec<_> = self.claims(catalog, sharing).collect();
        let all = claims.iter().any(|claims| claims.hold_all(format));
        let is_held = |entry: &EntryName| claims.iter().any(|it| it.hold(format, entry));
        let held = entries.into_iter().filter(|entry| all || is_held(entry));
        held.cloned().collect()
    }

    /// The guarded namespaces in which somebody may need something of `catalog`.
    fn claims<'a>(&'a self, catalog: &CatalogKey, sharing: &Sharing) -> impl Iterator<Item = Claims<'a>> {
        let mut wanted: BTreeMap<&str, Option<&Wanted>> =
            self.needs.of(catalog).map(|(name, it)| (name, Some(it))).collect();
        let own = self.namespaces.get_key_value(&catalog.namespace);
        let own = own.map(|(name, _)| &**name);
        if let Some(own) = own {
            wanted.entry(own).or_default();
        }
        let counts = |name: &str| self.is_guarded(name) && sharing.includes(name);
        wanted.into_iter().filter(move |(name, _)| counts(name)).filter_map(move |(name, wanted)| {
            Some(Claims { namespace: self.namespaces.get(name)?, wanted, own: own == Some(name) })
        })
    }
}

/// Who needs anything of a catalog of this format, by these claims.
fn any_of<'a>(claims: impl Iterator<Item = Claims<'a>>, format: Format) -> Holders {
    let mut tally = Tally::default();
    claims.for_each(|claims| claims.tally_any(format, &mut tally));
    tally.finish()
}

// === impl Claims ===

impl<'a> Claims<'a> {
    /// The sets that hold every entry.
    fn all(&self, format: Format) -> impl Iterator<Item = SetId> {
        let unreadable = self.own.then(|| self.namespace.unreadable());
        let wanted = self.wanted.map(|wanted| wanted.all(format));
        unreadable.into_iter().flatten().chain(wanted.into_iter().flatten())
    }

    /// The sets that hold `entry` by its name.
    fn of(&self, format: Format, entry: &EntryName) -> impl Iterator<Item = SetId> {
        let wanted = self.wanted.map(|wanted| wanted.entry(format, entry));
        wanted.into_iter().flatten()
    }

    /// The sets that name `entry`, or the whole catalog.
    fn naming(&self, format: Format, entry: &EntryName) -> impl Iterator<Item = SetId> {
        let all = self.wanted.map(|wanted| wanted.all(format));
        all.into_iter().flatten().chain(self.of(format, entry))
    }

    /// The StatefulSets that hold every entry, because it is not known what their pods are made from.
    fn lacking(&self) -> impl Iterator<Item = Lacking<'a>> {
        let named = |set| self.wanted.is_some_and(|wanted| wanted.names(set));
        let lacking = self.namespace.lacking();
        lacking.filter(move |it| self.own || it.set.is_some_and(named))
    }

    /// The sets that need anything of the catalog.
    fn any(&self, format: Format) -> impl Iterator<Item = SetId> {
        let wanted = self.wanted.map(|wanted| wanted.any(format));
        self.all(format).chain(wanted.into_iter().flatten())
    }

    fn tally_any(&self, format: Format, tally: &mut Tally<'a>) {
        let sets: BTreeSet<_> = self.any(format).collect();
        sets.into_iter().for_each(|set| self.namespace.tally(set, tally));
        self.lacking().for_each(|lacking| self.namespace.tally_lacking(&lacking, tally));
    }

    fn hold_all(&self, format: Format) -> bool {
        self.all(format).any(|set| self.namespace.is_held(set)) || self.lacking().next().is_some()
    }

    fn hold(&self, format: Format, entry: &EntryName) -> bool {
        self.of(format, entry).any(|set| self.namespace.is_held(set))
    }
}

#[cfg(test)]
mod tests;

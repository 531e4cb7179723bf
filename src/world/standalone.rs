//! A world without a cluster: the manifests in a folder.
//!
//! ```text
//! DIR/**/*.{yaml,yml,json} ──folder::read──▶ files ──Snapshot::of──▶ model ConfigMaps, workloads, Index
//!        ▲ for every fact, after the request arrived                    │ nobody in it holds the entry
//!        └ a file that cannot be read: MG501, with its place            ▼
//!                                                        Proof::Standalone(idle entries)
//! ```
//! There is no API server whose commits could be slow, and no controller that proves anything: Δ = 0, lifting does
//! nothing, and an entry is Idle iff no manifest holds it. That, and nothing else, is what the rules are told by
//! [`Proof::Standalone`]; they are the same rules.
//!
//! * Every namespace counts: manifests seldom say what labels their namespaces have, and a holder that is not
//!   counted would open the guard.
//! * The folder is read as `kubectl apply --recursive -f DIR` does, but for names that begin with a dot: editors
//!   and mounted volumes keep copies there. What kubectl would not apply closes the guard as a whole, for nobody
//!   knows what it was to hold; so does an object that is in two places, for nobody knows which one counts.
//! * It is read anew for each fact that is not in the request, as a cluster is: no watch can be late.

mod folder;
mod snapshot;

pub use snapshot::ManifestsError;

use crate::catalog::{EntryName, Format};
use crate::event::Event;
use crate::guard::{Guard, RollbackTargets};
use crate::holder::{Holders, ObjectId};
use crate::names;
use crate::object::Workload;
use crate::policy::{
    Beside, CatalogChange, CurrentEpoch, Declared, HoldersOf, Lift, Proof, Prospect, Requester, SharedCatalog, Stored,
    TargetsOf, Unread,
};
use crate::reference::{CatalogKey, Left, Server};
use crate::revision::Keep;
use crate::revision::restore::{Found, Seek};
use crate::sharing::Sharing;
use crate::usage::{Epoch, Usage};
use crate::world::{KeepError, LiftError, World};
use folder::Files;
use parking_lot::RwLock;
use snapshot::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;

/// The manifests in a folder.
#[derive(Debug)]
pub struct Standalone {
    dir: PathBuf,
    guard: Guard,
    usage: CarriedUsage,
    /// What was read last. Whoever reads holds it, so that what is older never replaces what is newer.
    files: Mutex<Option<Files>>,
    /// What that means; an error keeps the guard closed.
    known: RwLock<Result<Arc<Snapshot>, Unread>>,
}

/// What the usage annotation of an old object says here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CarriedUsage {
    /// It counts where it is there, whatever its epoch: a saved review is judged as it was when it was saved.
    Counts,
    /// Nothing: the manifests alone say what is held.
    Ignored,
}

impl Standalone {
    /// Reads the manifests in `dir` for the first time.
    ///
    /// # Errors
    /// [`ManifestsError`] names the file that cannot be read, and the place in it.
    pub async fn open(dir: &Path, guard: Guard, usage: CarriedUsage) -> Result<Self, ManifestsError> {
        let (files, snapshot) = read(dir.to_owned(), None, guard.rollback_targets).await;
        let snapshot = snapshot.unwrap_or_else(|| Ok(Snapshot::default()))?;
        tracing::info!(dir = %dir.display(), %snapshot, "standing alone");
        Ok(Self {
            dir: dir.to_owned(),
            guard,
            usage,
            files: Mutex::new(files),
            known: RwLock::new(Ok(snapshot.into())),
        })
    }

    /// The pods that reference an entry which is not there.
    ///
    /// # Errors
    /// [`Unread`] names the file that cannot be read.
    pub async fn dangling(&self) -> Result<Vec<ObjectId>, Unread> {
        self.fresh().await.map(|snapshot| snapshot.dangling())
    }

    /// The manifests as they are now.
    async fn fresh(&self) -> Result<Arc<Snapshot>, Unread> {
        let mut last = self.files.lock().await;
        let (files, snapshot) = read(self.dir.clone(), last.take(), self.guard.rollback_targets).await;
        *last = files;
        if let Some(snapshot) = snapshot {
            match &snapshot {
                Ok(snapshot) => tracing::info!(dir = %self.dir.display(), %snapshot, "manifests read again"),
                Err(error) => {
                    let error = error as &dyn std::error::Error;
                    tracing::warn!(error, "the manifests cannot be read, the guard is closed");
                }
            }
            *self.known.write() = snapshot.map(Arc::new).map_err(unread);
        }
        self.last()
    }

    fn last(&self) -> Result<Arc<Snapshot>, Unread> {
        self.known.read().clone()
    }

    /// The entries of the old object that its annotation proves, if that is to count and there is one.
    fn carried(&self, change: &CatalogChange<'_>) -> Option<BTreeSet<EntryName>> {
        let annotation = change.old.as_ref()?.annotation(names::USAGE);
        let annotation = annotation.filter(|_| self.usage == CarriedUsage::Counts)?;
        Some(Usage::parse(Some(annotation)).idle().cloned().collect())
    }
}

impl World for Standalone {
    async fn catalog(&self, key: &CatalogKey) -> Result<Option<Stored>, Unread> {
        Ok(self.fresh().await?.catalogs.get(key).cloned())
    }

    async fn terminating(&self, namespace: &str) -> Result<bool, Unread> {
        Ok(self.fresh().await?.terminating.contains(namespace))
    }

    async fn workload(&self, id: &ObjectId) -> Result<Option<Workload>, Unread> {
        Ok(self.fresh().await?.workloads.get(id).cloned())
    }

    async fn lift(&self, _: &Lift) -> Result<(), LiftError> {
        Ok(())
    }

    fn epoch(&self, _: &Sharing) -> CurrentEpoch {
        Ok(Epoch::new("standalone"))
    }

    async fn proof(&self, change: &CatalogChange<'_>) -> Proof {
        if let Some(carried) = self.carried(change) {
            return Proof::Standalone(carried);
        }
        let (Some(Declared::Catalog(format, catalog)), Ok(snapshot)) =
            (change.old.as_ref().map(|old| &old.declared), self.fresh().await)
        else {
            return Proof::Standalone(BTreeSet::new());
        };
        let held = snapshot.index.held(&change.key, &change.sharing(), *format, catalog.names());
        Proof::Standalone(catalog.names().filter(|entry| !held.contains(*entry)).cloned().collect())
    }

    /// Manifests of roles are not read: here nobody may.
    async fn may_override(&self, _: &Requester, _: &str) -> Result<bool, Unread> {
        Ok(false)
    }

    fn guard(&self) -> Guard {
        self.guard
    }

    fn holders(&self, of: &HoldersOf) -> Result<BTreeMap<EntryName, Holders>, Unread> {
        let snapshot = self.last()?;
        let holders =
            |entry: &EntryName| (entry.clone(), snapshot.index.holders(&of.catalog, &of.sharing, of.format, entry));
        Ok(of.entries.iter().map(holders).collect())
    }

    fn rollback_targets(&self, of: &TargetsOf) -> BTreeMap<EntryName, Holders> {
        let targets = |it: Arc<Snapshot>| it.index.rollback_targets(&of.catalog, &of.sharing, of.format, &of.entries);
        self.last().map(targets).unwrap_or_default()
    }

    async fn shared_by(&self, namespace: &str) -> Result<Vec<SharedCatalog>, Unread> {
        let snapshot = self.fresh().await?;
        let shared = snapshot.catalogs.iter().filter(|(key, it)| {
            *key.namespace == *namespace && it.declared != Declared::Ordinary && it.sharing.reaches_others()
        });
        let read = |(key, stored): (&CatalogKey, &Stored)| {
            let elsewhere = snapshot.index.elsewhere(key, &stored.sharing, format_of(stored));
            // Nobody changes the folder meanwhile: that nobody is found is the proof.
            SharedCatalog { key: key.clone(), elsewhere, closed: true, prospect: Prospect::Moving(Default::default()) }
        };
        Ok(shared.map(read).collect())
    }

    fn residents(&self, namespace: &str) -> Result<Holders, Unread> {
        let snapshot = self.last()?;
        let catalogs = snapshot.catalogs.iter().filter(|(_, it)| it.declared != Declared::Ordinary);
        let catalogs = catalogs.map(|(key, it)| (key, it.sharing.clone(), format_of(it)));
        Ok(snapshot.index.residents(namespace, catalogs))
    }

    fn close(&self, _: BTreeSet<CatalogKey>) {}

    async fn left(
        &self,
        from: &str,
        catalog: &CatalogKey,
        left: &Left,
    ) -> Result<BTreeMap<EntryName, Holders>, Unread> {
        let snapshot = self.fresh().await?;
        let stored = snapshot.catalogs.get(catalog).filter(|stored| stored.sharing.includes(from));
        let Some((stored, Declared::Catalog(format, listed))) = stored.map(|stored| (stored, &stored.declared)) else {
            return Ok(BTreeMap::new());
        };
        let entries = listed.names().filter(|entry| left.includes(entry));
        Ok(snapshot.index.users(catalog, &stored.sharing, *format, entries))
    }

    /// Manifests do not say who is ready: whoever is to have pods counts.
    async fn servers(&self, _: &[&Sharing]) -> Result<Vec<Server>, Unread> {
        let snapshot = self.fresh().await?;
        let servers = snapshot.workloads.iter().filter_map(|(id, workload)| Server::of(id.kind, workload));
        Ok(servers.collect())
    }

    fn prospect(&self, _: &HoldersOf) -> Prospect {
        Prospect::Stuck("no controller works on a folder of manifests".to_owned())
    }

    fn settle(&self, _: &CatalogKey, _: BTreeSet<EntryName>) {}

    /// Beside a manifest nothing is kept.
    async fn revision(&self, _: &Seek) -> Result<Found, Unread> {
        Ok(Found::Unknown(Vec::new()))
    }

    async fn keep(&self, _: &Keep<'_>) -> Result<(), KeepError> {
        Ok(())
    }

    /// Whoever keeps manifests keeps their history, too: no change is denied for want of one.
    async fn is_beside(&self, _: &Beside) -> Result<bool, Unread> {
        Ok(true)
    }

    fn announce(&self, _: Event) {}
}

/// What cannot be read may be of any format.
fn format_of(stored: &Stored) -> Format {
    stored.declared.format().unwrap_or(Format::Keys)
}

/// Reads the folder, and what it means unless that is what `last` was.
async fn read(
    dir: PathBuf,
    last: Option<Files>,
    rollback_targets: RollbackTargets,
) -> (Option<Files>, Option<Result<Snapshot, ManifestsError>>) {
    let reading = tokio::task::spawn_blocking(move || match folder::read(&dir) {
        Ok(files) if last.as_ref() == Some(&files) => (last, None),
        Ok(files) => {
            let snapshot = Snapshot::of(&files, rollback_targets);
            (Some(files), Some(snapshot))
        }
        // Nothing is remembered, so that the next attempt counts as news.
        Err(error) => (None, Some(Err(error))),
    });
    reading.await.unwrap_or_else(|panic| (None, Some(Err(ManifestsError::Defect(panic.to_string())))))
}

fn unread(error: ManifestsError) -> Unread {
    match error {
        ManifestsError::Read { path, source } => Unread::new(format!("manifest {}", path.display()), source),
        ManifestsError::Manifest { path, source } => Unread::new(format!("manifest {}", path.display()), source),
        defect @ ManifestsError::Defect(_) => Unread::new("the manifests", defect),
    }
}

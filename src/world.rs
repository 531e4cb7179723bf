//! The world that decisions are made about: a trait, so that the rules neither know nor care where facts come from.
//!
//! ```text
//! Needs ──▶ World ──▶ Facts        quorum reads, each started after the request arrived
//! Lift  ──▶ World ──▶ Written      a compare-and-swap
//! Event ──▶ World                  told where people look, some time
//! Keep  ──▶ World ──▶ beside its ConfigMap, before the change that ends the revision is allowed
//! ```

pub mod cluster;
pub mod standalone;

use crate::catalog::EntryName;
use crate::event::Event;
use crate::guard::Guard;
use crate::holder::{Holders, ObjectId};
use crate::object::Workload;
use crate::policy::{
    Beside, CatalogChange, CurrentEpoch, HoldersOf, Lift, Proof, Prospect, Requester, SharedCatalog, Stored, TargetsOf,
    Unread,
};
use crate::reference::{CatalogKey, Left, Server};
use crate::revision::Keep;
use crate::revision::restore::{Found, Seek};
use crate::sharing::Sharing;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use thiserror::Error;

/// Where facts come from and lifts go to.
pub trait World: Send + Sync + 'static {
    /// Reads a ConfigMap as it is now; `None` if there is none.
    fn catalog(&self, key: &CatalogKey) -> impl Future<Output = Result<Option<Stored>, Unread>> + Send;

    /// Whether a namespace is being deleted, or is gone, now.
    fn terminating(&self, namespace: &str) -> impl Future<Output = Result<bool, Unread>> + Send;

    /// Reads a holder as it is now; `None` if there is none.
    fn workload(&self, id: &ObjectId) -> impl Future<Output = Result<Option<Workload>, Unread>> + Send;

    /// Writes a lift, conditional on the revision it was decided on.
    fn lift(&self, lift: &Lift) -> impl Future<Output = Result<(), LiftError>> + Send;

    /// The epoch, as this process sees it, of a catalog that is shared so.
    fn epoch(&self, sharing: &Sharing) -> CurrentEpoch;

    /// Whether `who` may pass the rules in `namespace`, now.
    fn may_override(&self, who: &Requester, namespace: &str) -> impl Future<Output = Result<bool, Unread>> + Send;

    /// How strict modelguard is here.
    fn guard(&self) -> Guard;

    /// Where it is proven that the entries which `change` takes away may go; asked before it is judged.
    ///
    /// Every world that somebody else can change between verdict and commit leaves this alone: there, what the old
    /// object carries is the only proof, because it is what the commit compares.
    fn proof(&self, _change: &CatalogChange<'_>) -> impl Future<Output = Proof> + Send {
        std::future::ready(Proof::Carried)
    }

    /// Who is known to hold each of these entries; every entry asked for is in the answer.
    ///
    /// # Errors
    /// [`Unread`] while not every holder kind has been listed.
    fn holders(&self, of: &HoldersOf) -> Result<BTreeMap<EntryName, Holders>, Unread>;

    /// Whose rollback is known to need which of these entries; nothing while that is not known.
    fn rollback_targets(&self, of: &TargetsOf) -> BTreeMap<EntryName, Holders>;

    /// The catalogs of a namespace that others may reference, as they are now.
    fn shared_by(&self, namespace: &str) -> impl Future<Output = Result<Vec<SharedCatalog>, Unread>> + Send;

    /// Who of a namespace is known to hold entries.
    ///
    /// # Errors
    /// [`Unread`] while not every holder kind has been listed.
    fn residents(&self, namespace: &str) -> Result<Holders, Unread>;

    /// Asks that these catalogs be closed to other namespaces, and the proof begin that nobody there needs them; as
    /// [`World::settle`] does.
    fn close(&self, catalogs: BTreeSet<CatalogKey>);

    /// Who is known to hold what a server of the namespace `from` leaves of a catalog; entries without holders are not in the
    /// answer. Nothing of a catalog that is not shared with that namespace is told to it.
    fn left(
        &self,
        from: &str,
        catalog: &CatalogKey,
        left: &Left,
    ) -> impl Future<Output = Result<BTreeMap<EntryName, Holders>, Unread>> + Send;

    /// The ready servers in all guarded namespaces that any of these catalogs is shared with, as they are now.
    fn servers(&self, shared: &[&Sharing]) -> impl Future<Output = Result<Vec<Server>, Unread>> + Send;

    /// Whether waiting would help to remove these entries.
    fn prospect(&self, of: &HoldersOf) -> Prospect;

    /// Asks that the proof for these entries begin; never blocks. That is queued just before the answer is encoded;
    /// Settling is written 200 ms later at the earliest, which is no promise that the answer is out.
    fn settle(&self, catalog: &CatalogKey, entries: BTreeSet<EntryName>);

    /// Looks for a revision beside its ConfigMap, as it is now.
    fn revision(&self, seek: &Seek) -> impl Future<Output = Result<Found, Unread>> + Send;

    /// Keeps a revision beside its ConfigMap, where that is not known to be done.
    fn keep(&self, keep: &Keep<'_>) -> impl Future<Output = Result<(), KeepError>> + Send;

    /// Whether this is kept beside its ConfigMap, now.
    fn is_beside(&self, beside: &Beside) -> impl Future<Output = Result<bool, Unread>> + Send;

    /// Tells people of what happened to a model ConfigMap; never blocks, and is lost where that cannot be.
    fn announce(&self, event: Event);
}

/// Why a revision is not kept beside its ConfigMap.
#[derive(Debug, Error)]
pub enum KeepError {
    /// Its namespace is being deleted: nothing can be kept there, and nothing must be.
    #[error("the namespace is being deleted")]
    Going,
    /// The API server refuses it, however often it is asked.
    #[error("{0}")]
    Refused(String),
    /// It could not be written, or nobody knows whether it was.
    #[error(transparent)]
    Unread(#[from] Unread),
}

/// Why a lift was not written.
#[derive(Debug, Error)]
pub enum LiftError {
    /// The ConfigMap is no longer at that revision: read again, decide again.
    #[error("the ConfigMap changed meanwhile")]
    Conflict,
    /// It could not be written, or nobody knows whether it was.
    #[error(transparent)]
    Unread(#[from] Unread),
}

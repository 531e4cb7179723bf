//! A world in memory: what is in it, what is written to it, and reads that can be made to hang.

use modelguard::catalog::{Catalog, EntryName, Format};
use modelguard::event::Event;
use modelguard::guard::Guard;
use modelguard::holder::{self, Hold, Holders, ObjectId};
use modelguard::object::{Content, Workload};
use modelguard::policy::{
    Beside, CurrentEpoch, Declared, HoldersOf, Lift, Prospect, Requester, SharedCatalog, Stored, TargetsOf, Unread,
};
use modelguard::reference::{CatalogKey, Left, Server};
use modelguard::revision::restore::{Found, Seek};
use modelguard::revision::{Keep, Kept};
use modelguard::sharing::Sharing;
use modelguard::usage::{Epoch, Usage};
use modelguard::world::{KeepError, LiftError, World};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tokio::sync::watch;

/// The epoch of this world.
pub(crate) const EPOCH: &str = "e1";

/// A world in memory.
pub(crate) struct Fake {
    state: Mutex<State>,
    /// Reads wait while this is true.
    hang: watch::Sender<bool>,
    /// How many reads wait.
    waiting: watch::Sender<usize>,
}

/// What is in it. By default every read fails.
#[derive(Default)]
pub(crate) struct State {
    /// `None` is a ConfigMap that cannot be read; what is not there does not exist.
    pub(crate) catalogs: BTreeMap<CatalogKey, Option<Stored>>,
    /// What scaling up finds.
    pub(crate) workloads: BTreeMap<ObjectId, Workload>,
    /// Who holds an entry.
    pub(crate) holders: BTreeMap<EntryName, Holders>,
    /// Who serves, and is ready.
    pub(crate) servers: Vec<Server>,
    /// Namespaces that are being deleted.
    pub(crate) terminating: BTreeSet<Box<str>>,
    /// The outcome of the next lifts; then they succeed.
    pub(crate) lift_outcomes: VecDeque<LiftError>,
    /// Lifts that were tried.
    pub(crate) lifts: Vec<Lift>,
    /// How often a ConfigMap was read.
    pub(crate) reads: usize,
    /// What was asked to be settled.
    pub(crate) settled: Vec<(CatalogKey, BTreeSet<EntryName>)>,
    /// What is kept beside ConfigMaps.
    pub(crate) kept: Vec<Kept<'static>>,
    /// Why nothing can be kept there.
    pub(crate) keeps_nothing: Option<String>,
    /// What was announced.
    pub(crate) events: Vec<Event>,
    /// Whether reading the epoch panics: a defect.
    pub(crate) defect: bool,
    /// Why the epoch is not known.
    pub(crate) stale: Option<Unread>,
}

impl Fake {
    /// A world with the ConfigMap `prod/extraction-models`, which lists `v1`, Idle, and `v2`, in use.
    pub(crate) fn new() -> Self {
        let usage = format!(r#"{{"epoch":"{EPOCH}","idle":["v1"]}}"#);
        let data = [("v1", "s3://models/extraction/1"), ("v2", "s3://models/extraction/2")].into_iter().collect();
        let content = Content { data, ..Content::default() };
        let stored = Stored {
            resource_version: "42".to_owned(),
            deleting: false,
            declared: Declared::Catalog(Format::Keys, Catalog::parse(Format::Keys, &content).unwrap()),
            usage: Usage::parse(Some(&usage)),
            sharing: Sharing::new("prod", None),
            hold: Hold::default(),
        };
        let catalogs = [(models(), Some(stored))].into();
        let state = State { catalogs, ..State::default() };
        Self { state: state.into(), hang: watch::channel(false).0, waiting: watch::channel(0).0 }
    }

    /// Looks into it, or changes it.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock())
    }

    /// Makes reads hang, or lets them go.
    pub(crate) fn hang(&self, hang: bool) {
        self.hang.send_replace(hang);
    }

    /// Waits until this many reads hang.
    pub(crate) async fn hanging(&self, reads: usize) {
        self.waiting.subscribe().wait_for(|waiting| *waiting == reads).await.unwrap();
    }

    async fn read(&self) {
        /// Counts itself out, be the read done or given up.
        struct Waiting<'a>(&'a watch::Sender<usize>);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.send_modify(|waiting| *waiting -= 1);
            }
        }
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _waiting = Waiting(&self.waiting);
        self.hang.subscribe().wait_for(|hang| !hang).await.unwrap();
    }
}

impl World for Fake {
    async fn catalog(&self, key: &CatalogKey) -> Result<Option<Stored>, Unread> {
        self.read().await;
        let mut state = self.state.lock();
        state.reads += 1;
        match state.catalogs.get(key) {
            None => Ok(None),
            Some(Some(stored)) => Ok(Some(stored.clone())),
            Some(None) => Err(Unread::new(format!("ConfigMap {key}"), "connection refused")),
        }
    }

    async fn terminating(&self, namespace: &str) -> Result<bool, Unread> {
        self.read().await;
        Ok(self.state.lock().terminating.contains(namespace))
    }

    async fn workload(&self, id: &ObjectId) -> Result<Option<Workload>, Unread> {
        self.read().await;
        Ok(self.state.lock().workloads.get(id).cloned())
    }

    async fn lift(&self, lift: &Lift) -> Result<(), LiftError> {
        let mut state = self.state.lock();
        state.lifts.push(lift.clone());
        state.lift_outcomes.pop_front().map_or(Ok(()), Err)
    }

    async fn may_override(&self, who: &Requester, _namespace: &str) -> Result<bool, Unread> {
        self.read().await;
        Ok(who.groups.iter().any(|group| group == "firefighters"))
    }

    fn guard(&self) -> Guard {
        Guard::default()
    }

    fn epoch(&self, _sharing: &Sharing) -> CurrentEpoch {
        let state = self.state.lock();
        assert!(!state.defect, "a defect, on purpose");
        state.stale.clone().map_or_else(|| Ok(Epoch::new(EPOCH)), Err)
    }

    fn holders(&self, of: &HoldersOf) -> Result<BTreeMap<EntryName, Holders>, Unread> {
        let state = self.state.lock();
        let holders = |entry: &EntryName| state.holders.get(entry).cloned().unwrap_or_default();
        Ok(of.entries.iter().map(|entry| (entry.clone(), holders(entry))).collect())
    }

    fn rollback_targets(&self, _: &TargetsOf) -> BTreeMap<EntryName, Holders> {
        BTreeMap::new()
    }

    async fn shared_by(&self, _: &str) -> Result<Vec<SharedCatalog>, Unread> {
        Ok(Vec::new())
    }

    fn residents(&self, _: &str) -> Result<Holders, Unread> {
        Ok(Holders::default())
    }

    fn close(&self, _: BTreeSet<CatalogKey>) {}

    async fn left(&self, _: &str, _: &CatalogKey, left: &Left) -> Result<BTreeMap<EntryName, Holders>, Unread> {
        let state = self.state.lock();
        let left = state.holders.iter().filter(|(entry, _)| left.includes(entry));
        Ok(left.map(|(entry, holders)| (entry.clone(), holders.clone())).collect())
    }

    async fn servers(&self, _: &[&Sharing]) -> Result<Vec<Server>, Unread> {
        self.read().await;
        Ok(self.state.lock().servers.clone())
    }

    fn prospect(&self, _: &HoldersOf) -> Prospect {
        Prospect::Stuck("nothing settles here".to_owned())
    }

    fn settle(&self, catalog: &CatalogKey, entries: BTreeSet<EntryName>) {
        self.state.lock().settled.push((catalog.clone(), entries));
    }

    async fn revision(&self, seek: &Seek) -> Result<Found, Unread> {
        self.read().await;
        let state = self.state.lock();
        let found = state.kept.iter().find(|kept| kept.config_map == seek.config_map);
        Ok(match found.and_then(|kept| kept.revision(&seek.uid, seek.number)) {
            Some(revision) => Found::Revision(Box::new(revision.into_owned())),
            None => Found::Unknown(state.kept.iter().flat_map(|kept| &kept.written).map(|it| it.revision).collect()),
        })
    }

    async fn keep(&self, keep: &Keep<'_>) -> Result<(), KeepError> {
        self.read().await;
        let mut state = self.state.lock();
        if let Some(refusal) = &state.keeps_nothing {
            return Err(KeepError::Refused(refusal.clone()));
        }
        state.kept.push(keep.kept().into_owned());
        Ok(())
    }

    async fn is_beside(&self, beside: &Beside) -> Result<bool, Unread> {
        self.read().await;
        Ok(self.state.lock().kept.iter().any(|kept| kept.name() == beside.name))
    }

    fn announce(&self, event: Event) {
        self.state.lock().events.push(event);
    }
}

/// The ConfigMap that every world has.
pub(crate) fn models() -> CatalogKey {
    CatalogKey::new("prod", "extraction-models")
}

/// An entry's name.
pub(crate) fn entry(name: &str) -> EntryName {
    EntryName::new(name).unwrap()
}

/// Three pods of a Deployment.
pub(crate) fn deployment_holds() -> Holders {
    let workload = holder::Workload {
        kind: "Deployment".into(),
        namespace: "prod".into(),
        name: "extraction-api".into(),
        template: false,
        pods: 3,
        pod_names: vec!["extraction-api-7c9f-x2x4z".into()],
        rollback_target: None,
        unreadable: None,
    };
    Holders { workloads: vec![workload], workloads_total: 1, pods_total: 3 }
}

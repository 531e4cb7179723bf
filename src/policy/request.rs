//! What somebody asks for, parsed: the input of the rule book.

use crate::catalog::{Catalog, CatalogError, Diff, Digest, EntryName, Format, UnknownFormat};
use crate::guard::Guard;
use crate::holder::ObjectId;
use crate::names;
use crate::object::{ConfigMap, Content, HolderKind, Workload};
use crate::policy::BreakGlass;
use crate::reference::{CatalogKey, Left, Reference, References, Serves};
use crate::revision;
use crate::sharing::Sharing;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// A request that the rules judge.
#[derive(Debug)]
pub enum Request<'a> {
    /// A ConfigMap that is, or was, a model ConfigMap.
    Catalog(Box<CatalogChange<'a>>),
    /// A ReplicaSet is scaled up from zero: its template must be read before it can be judged.
    ScaleUp(ObjectId, Caller),
    /// A namespace is deleted, or leaves the guard.
    Namespace(NamespaceChange),
    /// A Deployment or StatefulSet is scaled to zero: its template must be read, too.
    ScaleDown(ObjectId, Caller),
    /// A pod, or an object with a pod template.
    Workload(Box<WorkloadChange>),
}

/// Who asks, and whether it is only a rehearsal.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Caller {
    /// It is modelguard's own identity.
    pub own: bool,
    /// It is an identity of `kube-system`, which does not wait for a 429.
    pub system: bool,
    /// Nothing will be written, so nothing may be written on its behalf.
    pub dry_run: bool,
    /// It is a PUT, which usually holds for one revision only: the proof that it waits for makes another one.
    pub put: bool,
}

/// Who asks, as the API server knows them: what their permissions are looked up by.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Requester {
    /// Such as `system:serviceaccount:prod:deployer`.
    pub username: String,
    /// Of the account, where it has one.
    pub uid: String,
    /// Such as `system:masters`.
    pub groups: Vec<String>,
    /// What the authenticator adds.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// A ConfigMap is created, changed or deleted.
#[derive(Debug)]
pub struct CatalogChange<'a> {
    /// Which one.
    pub key: CatalogKey,
    /// As stored; `None` on CREATE.
    pub old: Option<Version<'a>>,
    /// As it would be stored; `None` on DELETE.
    pub new: Option<Version<'a>>,
    /// What the change does to the entries, where both are catalogs of one format that can be read.
    pub diff: Diff,
    /// Who asks.
    pub caller: Caller,
    /// Where it is proven that an entry may go.
    pub proof: Proof,
    same_content: bool,
}

/// Where it is proven that nobody needs an entry.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Proof {
    /// In the old object itself, in the current epoch: see [`crate::usage`]. In a cluster there is no other, for
    /// only what the old object carries is compared when the change is committed.
    #[default]
    Carried,
    /// Nowhere but in a world that nobody else changes meanwhile, a folder of manifests: these have no holder.
    /// Only `world/standalone` says so; a test holds every other file to that.
    Standalone(BTreeSet<EntryName>),
}

/// One version of a ConfigMap, with the catalog that it claims to be.
#[derive(Debug)]
pub struct Version<'a> {
    /// The object.
    pub object: ConfigMap<'a>,
    /// What the catalog label says.
    pub declared: Declared,
    digest: OnceLock<Digest>,
}

/// What a ConfigMap is, by its catalog label.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Declared {
    /// No label: an ordinary ConfigMap.
    Ordinary,
    /// A catalog of this format, whose content is equal to the other version's and was not read again.
    Unchanged(Format),
    /// A catalog, read.
    Catalog(Format, Catalog),
    /// A catalog whose content is not of its format.
    Invalid(Format, CatalogError),
    /// The label names no format.
    UnknownFormat(UnknownFormat),
}

/// A guarded namespace goes.
#[derive(Clone, Debug)]
pub struct NamespaceChange {
    /// Which one.
    pub name: Box<str>,
    /// How it goes; `None` where it stays, and only what it says of break-glass changes.
    pub departure: Option<Departure>,
    /// It is being deleted already.
    pub going: bool,
    /// What it says of break-glass.
    pub break_glass: BreakGlass,
    /// Who asks.
    pub caller: Caller,
}

/// How a namespace goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Departure {
    /// With everything in it.
    Deletion,
    /// Its label goes: the references of its workloads would no longer count, and nobody would be asked when it is deleted.
    OptOut,
}

/// An object that can hold or serve entries is created or changed; or one that serves is deleted, or scaled to zero.
#[derive(Clone, Debug)]
pub struct WorkloadChange {
    /// Which one; the name is empty on a CREATE with `generateName`.
    pub id: ObjectId,
    /// What it needs so far; empty on CREATE.
    pub old: References,
    /// What it would need.
    pub new: References,
    /// What it would serve.
    pub serves: Serves,
    /// What it serves so far, by pods that are ready, and would serve no more.
    pub left: BTreeMap<CatalogKey, Left>,
    /// What it says of break-glass.
    pub break_glass: BreakGlass,
    /// Who asks.
    pub caller: Caller,
}

// === impl Caller ===

impl Caller {
    /// Whether this client would wait for a 429: a dry run has nothing to wait for, and a controller must not be held.
    pub(crate) fn waits(self) -> bool {
        !self.dry_run && !self.system
    }
}

// === impl CatalogChange ===

impl<'a> CatalogChange<'a> {
    /// Reads the catalogs of both versions and compares them.
    pub fn new(key: CatalogKey, old: Option<ConfigMap<'a>>, new: Option<ConfigMap<'a>>, caller: Caller) -> Self {
        let (same_content, same_label) = match (&old, &new) {
            (Some(old), Some(new)) => (old.content == new.content, format_label(old) == format_label(new)),
            _ => (false, false),
        };
        let unchanged = same_content && same_label;
        let read = |object: ConfigMap<'a>| Version::new(Declared::of(&object, unchanged), object);
        let (old, new) = (old.map(read), new.map(read));
        let diff = match (old.as_ref().map(|v| &v.declared), new.as_ref().map(|v| &v.declared)) {
            (Some(Declared::Catalog(was, old)), Some(Declared::Catalog(is, new))) if was == is => old.diff(new),
            (None | Some(Declared::Ordinary), Some(Declared::Catalog(_, new))) => Catalog::default().diff(new),
            _ => Diff::default(),
        };
        Self { key, old, new, diff, caller, proof: Proof::default(), same_content }
    }

    /// Whether both versions are there, and store the same.
    pub(crate) fn keeps_content(&self) -> bool {
        self.same_content
    }

    /// Whether both versions are there, and store something else.
    pub(crate) fn changes_content(&self) -> bool {
        self.old.is_some() && self.new.is_some() && !self.same_content
    }

    /// The same change, were this what its new version stores.
    pub(crate) fn storing(&self, content: Content<'a>) -> Self {
        let object = |version: &Version<'a>| version.object.clone();
        let new = self.new.as_ref().map(object).map(|new| ConfigMap { content, ..new });
        Self::new(self.key.clone(), self.old.as_ref().map(object), new, self.caller)
    }

    /// What it asks for by this annotation, which no write that is seen stores. One that is stored already, because nobody
    /// was asked when it came, asks for nothing any more: it would be done by whoever writes next.
    pub(crate) fn asks(&self, annotation: &str) -> Option<&str> {
        let [asked, stored] = [&self.new, &self.old].map(|it| it.as_ref()?.annotation(annotation));
        asked.filter(|_| asked != stored)
    }

    /// What it says of break-glass: after the change, or as it is stored where that is a deletion.
    pub(crate) fn break_glass(&self) -> BreakGlass {
        // What was said before anybody was asked is said anew.
        let guarded = self.old.as_ref().filter(|old| old.declared != Declared::Ordinary);
        let stored = guarded.and_then(|old| old.annotation(names::BREAK_GLASS));
        match &self.new {
            Some(new) => BreakGlass::wanted(stored, new.annotation(names::BREAK_GLASS)),
            None => BreakGlass::stored(stored),
        }
    }

    /// Whose workloads may reference the catalog, by the old object: as with the proof, that is the one that counts.
    pub fn sharing(&self) -> Sharing {
        self.old.as_ref().map_or_else(|| Sharing::new(&self.key.namespace, None), |old| old.sharing(&self.key))
    }
}

// === impl Version ===

impl<'a> Version<'a> {
    /// What is stored, read on its own.
    pub fn stored(object: ConfigMap<'a>) -> Self {
        Self::new(Declared::of(&object, false), object)
    }

    fn new(declared: Declared, object: ConfigMap<'a>) -> Self {
        Self { object, declared, digest: OnceLock::new() }
    }

    /// What the object is annotated with under this name.
    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.object.metadata.annotations.get(name)
    }

    /// Whose workloads may reference the catalog `key`, were this what is stored.
    pub(crate) fn sharing(&self, key: &CatalogKey) -> Sharing {
        Sharing::new(&key.namespace, self.annotation(names::SHARED_WITH))
    }

    /// The digest of its content: worked out once, and only if somebody asks.
    pub fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| revision::digest(&self.object.content))
    }
}

// === impl Declared ===

impl Declared {
    /// The format, where there is one.
    pub fn format(&self) -> Option<Format> {
        match self {
            Self::Catalog(format, _) | Self::Invalid(format, _) | Self::Unchanged(format) => Some(*format),
            Self::Ordinary | Self::UnknownFormat(_) => None,
        }
    }

    /// What an object with this catalog label and content is.
    pub fn read(label: Option<&str>, content: &Content<'_>) -> Self {
        match label.map(str::parse) {
            None => Self::Ordinary,
            Some(Err(unknown)) => Self::UnknownFormat(unknown),
            Some(Ok(format)) => match Catalog::parse(format, content) {
                Ok(catalog) => Self::Catalog(format, catalog),
                Err(error) => Self::Invalid(format, error),
            },
        }
    }

    /// What `object` is; its content is not read again where it is `unchanged`.
    fn of(object: &ConfigMap<'_>, unchanged: bool) -> Self {
        match format_label(object).map(str::parse) {
            Some(Ok(format)) if unchanged => Self::Unchanged(format),
            _ => Self::read(format_label(object), &object.content),
        }
    }
}

fn format_label<'o>(object: &'o ConfigMap<'_>) -> Option<&'o str> {
    object.metadata.labels.get(names::CATALOG_LABEL)
}

// === impl WorkloadChange ===

impl WorkloadChange {
    /// Extracts the references of both versions; `old` is `None` on CREATE.
    ///
    /// Where rollback targets hold, one that comes to be there adds what it needs. One that is scaled up adds it as well,
    /// though it held it before: another replica, whose guard is not yet this one, may have counted it for nothing.
    pub fn new(id: ObjectId, old: Option<&Workload>, new: &Workload, caller: Caller, guard: Guard) -> Self {
        let kind = id.kind;
        let is_target = |object: &Workload| object.rollback_target(kind).is_some();
        let targets_hold = guard.rollback_targets.hold() && is_target(new);
        let references = |object: &Workload| {
            let of = if targets_hold && is_target(object) { References::of_template } else { References::of };
            of(kind, object)
        };
        let stored = old.and_then(break_glass);
        let serves = Serves::of(kind, new);
        Self {
            id,
            old: old.map(references).unwrap_or_default(),
            new: references(new),
            left: old.map(|old| served(kind, old).left(&serves)).unwrap_or_default(),
            serves,
            break_glass: BreakGlass::wanted(stored, break_glass(new)),
            caller,
        }
    }

    /// `stored` comes to hold, by a request that does not bring it.
    pub fn awakened(id: ObjectId, stored: &Workload, caller: Caller) -> Self {
        let new = References::of(id.kind, stored);
        let break_glass = BreakGlass::stored(break_glass(stored));
        let serves = Serves::of(id.kind, stored);
        Self { id, old: References::default(), new, serves, left: BTreeMap::new(), break_glass, caller }
    }

    /// `stored` comes to have no pods, by a request that does not bring it: it is deleted, or scaled to zero.
    pub fn removed(id: ObjectId, stored: &Workload, caller: Caller) -> Self {
        let serves = Serves::default();
        let left = served(id.kind, stored).left(&serves);
        let break_glass = BreakGlass::stored(break_glass(stored));
        let (old, new) = (References::default(), References::default());
        Self { id, old, new, serves, left, break_glass, caller }
    }

    /// What the new version needs and the old one does not.
    pub fn added(&self) -> impl Iterator<Item = &Reference> {
        self.new.needs.difference(&self.old.needs)
    }
}

/// What a workload serves in fact: nothing while none of its pods is ready.
fn served(kind: HolderKind, workload: &Workload) -> Serves {
    if workload.has_ready_pods() { Serves::of(kind, workload) } else { Serves::default() }
}

fn break_glass(workload: &Workload) -> Option<&str> {
    workload.metadata.annotations.get(names::BREAK_GLASS)
}

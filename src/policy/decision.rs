//! What the rules answer, and what they must know for it.

use crate::catalog::{EntryName, Format};
use crate::guard::{Guard, WhileInUse};
use crate::holder::{Hold, Holders};
use crate::policy::{Declared, Grant};
use crate::reference::{CatalogKey, Left, Server};
use crate::sharing::Sharing;
use crate::usage::{Epoch, Usage};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// The stable codes of denials.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Code {
    /// MG101: a change removes an entry that a holder needs.
    EntryInUse,
    /// MG102: the content of an entry in use is changed in place.
    EntryReplaced,
    /// MG103: nobody uses the entry any more, but the proof is not complete.
    EntrySettling,
    /// MG104: the catalog does not parse.
    CatalogInvalid,
    /// MG105: the catalog label is dropped, or its format changed, while entries are in use.
    CatalogOptOut,
    /// MG106: the ConfigMap is deleted while entries are in use.
    CatalogInUse,
    /// MG107: the prior revision was not kept.
    RevisionNotKept,
    /// MG108: a rollback to a revision that is not kept.
    RevisionUnknown,
    /// MG201: a reference to an entry that its catalog does not list.
    UnknownEntry,
    /// MG202: a reference to a model ConfigMap that is not there for this namespace.
    UnknownCatalog,
    /// MG203: no ready server serves the entry.
    NotServed,
    /// MG204: `uses` or `serves` does not parse.
    ReferenceInvalid,
    /// MG301: the last ready server of an entry in use would go.
    LastServer,
    /// MG401: a namespace whose catalogs others need is deleted.
    NamespaceInUse,
    /// MG402: the guard label is taken from a namespace whose workloads hold entries, or whose catalogs others need.
    NamespaceOptOut,
    /// MG502: break-glass that grants nothing.
    OverrideDenied,
    /// MG501: a read that the decision needs failed, or ran out of time.
    NotVerified,
}

/// A step of a safe release.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// 1: add the new version.
    Add,
    /// 2: roll out the app.
    RollOut,
    /// 3: remove the old version.
    Remove,
}

/// A denial: a value, not an error.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// Which rule.
    pub code: Code,
    /// The HTTP status of the answer.
    pub status: u16,
    /// Plain text for people, under 1,000 characters.
    pub message: String,
    /// The same facts for programs: `field` and `message` of each cause.
    pub causes: Vec<Cause>,
    /// When the client should ask again.
    pub retry_after: Option<Duration>,
}

/// One fact of a denial.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cause {
    /// What it is about: an entry, a holder, a field.
    pub field: String,
    /// The fact.
    pub message: String,
}

/// What the rules answer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Decision {
    /// Why not; `None` allows.
    pub denial: Option<Denial>,
    /// The denial that an allowed request does not get: the guard is lenient, or break-glass was granted.
    pub overlooked: Option<Denial>,
    /// The break-glass that was used.
    pub granted: Option<Grant>,
    /// What the user should know although it is allowed.
    pub warnings: Vec<String>,
    /// Writes that must succeed before the request may be allowed; empty for a denial and for a dry run.
    pub lifts: Vec<Lift>,
    /// Entries whose proof should begin after the answer; empty for a dry run.
    pub settle: BTreeSet<EntryName>,
    /// Catalogs that should be closed to other namespaces after the answer, for their own is to go; empty for a dry run.
    pub close: BTreeSet<CatalogKey>,
    /// The facts that the decision record keeps.
    pub facts: Record,
}

/// What the decision record keeps beside the verdict.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Record {
    /// How strict the guard was with it.
    pub enforcement: WhileInUse,
    /// The step of a release that this is, where one can be told.
    pub step: Option<Step>,
    /// Entries that the request removes.
    pub removed: BTreeSet<EntryName>,
    /// Entries that it replaces.
    pub replaced: BTreeSet<EntryName>,
    /// Entries that it adds, or comes to reference.
    pub added: BTreeSet<EntryName>,
    /// Who holds what is removed or replaced.
    pub holders: Holders,
}

/// Takes entries of one model ConfigMap back to InUse, or records that a server leaves, conditional on the revision that
/// was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lift {
    /// Which ConfigMap.
    pub catalog: CatalogKey,
    /// The revision that the decision rests on.
    pub resource_version: String,
    /// What its usage becomes.
    pub usage: Usage,
}

/// What must be known before a request can be judged.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    /// ConfigMaps to read with a quorum.
    pub catalogs: BTreeSet<CatalogKey>,
    /// Namespaces whose phase to read with a quorum.
    pub namespaces: BTreeSet<Box<str>>,
    /// Whether the requester may pass the rules in this namespace.
    pub may_override: Option<Box<str>>,
    /// Entries whose holders to name.
    pub holders: Option<HoldersOf>,
    /// Entries of which the user is to be told whose rollback would need them.
    pub rollback_targets: Option<TargetsOf>,
    /// What a server leaves of each catalog: which of these entries have holders.
    pub left: BTreeMap<CatalogKey, Left>,
    /// The namespace of that server.
    pub left_from: Box<str>,
    /// ConfigMaps whose servers to list, after they have been read.
    pub served: BTreeSet<CatalogKey>,
    /// A revision that must be kept beside its ConfigMap.
    pub beside: Option<Beside>,
    /// The namespace whose shared catalogs to read, and who elsewhere needs them.
    pub shared_by: Option<Box<str>>,
    /// The namespace whose workloads' references to look for.
    pub residents_of: Option<Box<str>>,
}

/// What a ConfigMap says is kept beside it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Beside {
    /// The namespace.
    pub namespace: Box<str>,
    /// The name of the ControllerRevision.
    pub name: String,
}

/// A catalog that other namespaces may reference, where its own is to go.
#[derive(Clone, Debug)]
pub struct SharedCatalog {
    /// Which one.
    pub key: CatalogKey,
    /// Who of other namespaces is known to need it.
    pub elsewhere: Holders,
    /// Whether it is proven that nobody does, and nobody will.
    pub closed: bool,
    /// Whether that proof comes by itself.
    pub prospect: Prospect,
}

/// Entries of one catalog whose holders are asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HoldersOf {
    /// The ConfigMap.
    pub catalog: CatalogKey,
    /// Its UID.
    pub uid: String,
    /// Whose workloads may reference it.
    pub sharing: Sharing,
    /// Its format: implicit references count for `keys` alone.
    pub format: Format,
    /// The entries.
    pub entries: BTreeSet<EntryName>,
    /// What the stored object says of them, for the time that is left.
    pub usage: Usage,
}

/// Entries of one catalog whose rollback targets are asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TargetsOf {
    /// The ConfigMap.
    pub catalog: CatalogKey,
    /// Whose workloads may reference it.
    pub sharing: Sharing,
    /// Its format.
    pub format: Format,
    /// The entries.
    pub entries: BTreeSet<EntryName>,
}

/// What is known: the answers to [`Needs`]. A read that failed is there as its error.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The ConfigMaps; `None` where there is none of that name.
    pub catalogs: BTreeMap<CatalogKey, Result<Option<Stored>, Unread>>,
    /// Whether each namespace is being deleted (or is gone).
    pub terminating: BTreeMap<Box<str>, Result<bool, Unread>>,
    /// Whether the requester may pass the rules.
    pub may_override: Option<Result<bool, Unread>>,
    /// Who holds each entry that was asked for (those without holders included).
    pub holders: Option<Result<BTreeMap<EntryName, Holders>, Unread>>,
    /// Whose rollback would need which entry, as far as that is known: it denies nothing.
    pub rollback_targets: BTreeMap<EntryName, Holders>,
    /// Whether waiting would help.
    pub prospect: Option<Prospect>,
    /// The catalogs that the namespace shares.
    pub shared: Option<Result<Vec<SharedCatalog>, Unread>>,
    /// Whether the revision is kept beside its ConfigMap.
    pub beside: Option<Result<bool, Unread>>,
    /// Who of the namespace holds entries.
    pub residents: Option<Result<Holders, Unread>>,
    /// Who holds what a server leaves, of each catalog: entries without holders are not in it.
    pub left: BTreeMap<CatalogKey, Result<BTreeMap<EntryName, Holders>, Unread>>,
    /// The servers that have a ready pod of their current template, listed after `catalogs` was read.
    pub servers: Option<Result<Vec<Server>, Unread>>,
}

/// A ConfigMap as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The revision that was read.
    pub resource_version: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The catalog that it is.
    pub declared: Declared,
    /// Its usage annotation.
    pub usage: Usage,
    /// What people keep of it.
    pub hold: Hold,
    /// Whose workloads may reference it.
    pub sharing: Sharing,
}

/// Whether the proof that a removal lacks will come by itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Prospect {
    /// A controller is at it; about this long, the final LIST not counted.
    Moving(Duration),
    /// Nothing moves; says what is in the way.
    Stuck(String),
}

/// A read that a decision needs failed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{what}: {why}")]
pub struct Unread {
    /// What was read.
    pub what: String,
    /// What went wrong.
    pub why: String,
}

/// What a request is judged by, beside the facts.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What proofs rest on now.
    pub epoch: CurrentEpoch,
    /// How strict.
    pub guard: Guard,
    /// What time it is.
    pub now: Timestamp,
}

/// The epoch that this process sees; an error while the watch of the configurations is stale.
pub type CurrentEpoch = Result<Epoch, Unread>;

// === impl Code ===

impl Code {
    /// The code as documented, such as `MG101`.
    pub fn id(self) -> &'static str {
        self.named().0
    }

    /// Its name, such as `EntryInUse`.
    pub fn name(self) -> &'static str {
        self.named().1
    }

    /// The HTTP status of the answer, where the rule has only one.
    pub fn status(self) -> u16 {
        match self {
            Self::CatalogInvalid | Self::ReferenceInvalid | Self::RevisionUnknown => 422,
            Self::EntrySettling => 429,
            Self::NotVerified => 503,
            Self::CatalogInUse
            | Self::CatalogOptOut
            | Self::EntryInUse
            | Self::EntryReplaced
            | Self::NamespaceInUse
            | Self::NamespaceOptOut
            | Self::LastServer
            | Self::NotServed
            | Self::OverrideDenied
            | Self::RevisionNotKept
            | Self::UnknownCatalog
            | Self::UnknownEntry => 403,
        }
    }

    fn named(self) -> (&'static str, &'static str) {
        match self {
            Self::EntryInUse => ("MG101", "EntryInUse"),
            Self::EntryReplaced => ("MG102", "EntryReplaced"),
            Self::EntrySettling => ("MG103", "EntrySettling"),
            Self::CatalogInvalid => ("MG104", "CatalogInvalid"),
            Self::CatalogOptOut => ("MG105", "CatalogOptOut"),
            Self::CatalogInUse => ("MG106", "CatalogInUse"),
            Self::RevisionNotKept => ("MG107", "RevisionNotKept"),
            Self::RevisionUnknown => ("MG108", "RevisionUnknown"),
            Self::UnknownEntry => ("MG201", "UnknownEntry"),
            Self::UnknownCatalog => ("MG202", "UnknownCatalog"),
            Self::NotServed => ("MG203", "NotServed"),
            Self::ReferenceInvalid => ("MG204", "ReferenceInvalid"),
            Self::LastServer => ("MG301", "LastServer"),
            Self::NamespaceInUse => ("MG401", "NamespaceInUse"),
            Self::NamespaceOptOut => ("MG402", "NamespaceOptOut"),
            Self::NotVerified => ("MG501", "NotVerified"),
            Self::OverrideDenied => ("MG502", "OverrideDenied"),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

// === impl Step ===

impl Step {
    /// The step's number, 1 to 3.
    pub fn number(self) -> u8 {
        match self {
            Self::Add => 1,
            Self::RollOut => 2,
            Self::Remove => 3,
        }
    }
}

// === impl Decision ===

impl Decision {
    /// Whether the request is allowed.
    pub fn allowed(&self) -> bool {
        self.denial.is_none()
    }
}

impl From<Denial> for Decision {
    fn from(denial: Denial) -> Self {
        Self { denial: Some(denial), ..Self::default() }
    }
}

// === impl Unread ===

impl Unread {
    /// Says what was read and what went wrong.
    pub fn new(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { what: what.into(), why: why.to_string() }
    }
}

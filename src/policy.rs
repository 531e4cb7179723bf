//! The rule book: which request is allowed, and why not. There is no other.
//!
//! ```text
//! Request ──needs()──▶ Needs ──(World)──▶ Facts ──decide()──▶ Decision { denial?, warnings, lifts, settle }
//!                        ▲──needs_then()───┘ where a fact makes another one necessary
//! CatalogChange ──mutate()──▶ Mutation: annotations to set or remove, entries to keep or to let go
//! ```
//! Everything here is pure: equal input, equal answer, so a request may be judged as often as the API server
//! likes. P1 and P2 are the two halves of the protocol that [`crate::usage`] describes: a reference takes its
//! entry back to InUse before it is allowed (`policy/workload.rs`), a removal wants Idle in the old object (`policy/catalog.rs`).
//! That the last server of an entry stays is ordered by the same annotation (`policy/server.rs`).

mod break_glass;
mod catalog;
mod decision;
mod message;
mod namespace;
mod request;
mod server;
mod workload;

pub use break_glass::{BreakGlass, Grant};
pub use decision::{
    Cause, Code, CurrentEpoch, Decision, Denial, Facts, HoldersOf, Lift, Needs, Prospect, Record, SharedCatalog, Step,
    Stored, TargetsOf, Terms, Unread,
};
pub(crate) use message::list;
pub use message::{REPEAT, RETRY_AFTER, not_verified, unverified};
pub use request::{
    Caller, CatalogChange, Declared, Departure, NamespaceChange, Proof, Request, Requester, Version, WorkloadChange,
};

use crate::catalog::edit::Edit;
use crate::retention::Retention;
use crate::revision;

/// What must be known before `request` can be judged.
pub fn needs(request: &Request<'_>, terms: &Terms) -> Needs {
    match request {
        Request::Catalog(change) => catalog::needs(change, terms),
        Request::Namespace(change) => namespace::needs(change, terms),
        Request::ScaleUp(..) | Request::ScaleDown(..) => Needs::default(),
        Request::Workload(change) => workload::needs(change, terms),
    }
}

/// What must be known besides, by what is known now.
pub fn needs_then(request: &Request<'_>, facts: &Facts, terms: &Terms) -> Needs {
    match request {
        Request::Workload(change) => server::needs(change, facts, terms),
        Request::Catalog(_) | Request::Namespace(_) | Request::ScaleUp(..) | Request::ScaleDown(..) => Needs::default(),
    }
}

/// Judges `request`. A fact that was needed and is not in `facts` counts as a read that failed.
pub fn decide(request: &Request<'_>, facts: &Facts, terms: &Terms) -> Decision {
    match request {
        Request::Catalog(change) => catalog::decide(change, facts, terms),
        Request::Namespace(change) => namespace::decide(change, facts, terms),
        Request::ScaleUp(id, _) | Request::ScaleDown(id, _) => {
            let subject = format!("{} {}/{}", id.kind, id.namespace, id.name);
            unverified(&subject, &Unread::new("its pod template", "was not read")).into()
        }
        Request::Workload(change) => workload::decide(change, facts, terms),
    }
}

/// What the mutating webhook makes of a change.
#[derive(Clone, Debug, Default)]
pub struct Mutation {
    /// Annotations to set on the new version, or to remove where `None`: those that modelguard owns and that are not yet
    /// what they must be.
    pub annotations: Vec<(&'static str, Option<String>)>,
    /// Changes of its data: what is kept until nobody needs it, or goes now that nobody does.
    pub edits: Vec<Edit>,
    /// What there is to say of it; it always allows.
    pub decision: Decision,
}

/// Says what the mutating webhook makes of `change`.
///
/// Where entries should be kept and cannot be, it is left as it is: then it takes away what is judged as that.
pub fn mutate(change: &CatalogChange<'_>, terms: &Terms) -> Mutation {
    let retention = Retention::of(change, terms).unwrap_or_default();
    let edited = (!retention.edits.is_empty()).then(|| change.edited(&retention.edits));
    let Some(new) = &change.new else { return Mutation::default() };
    let owned = revision::owned(edited.as_ref().unwrap_or(change), &retention);
    let annotations = owned.changes(&new.object.metadata.annotations);
    let decision = catalog::mutated(&retention, terms);
    Mutation { annotations, edits: retention.edits, decision }
}

#[cfg(test)]
mod tests;

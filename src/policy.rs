//! The rule book: which request is allowed, and why not. There is no other.
//!
//! ```text
//! Request ──needs()──▶ Needs ──(World)──▶ Facts ──decide()──▶ Decision { denial?, warnings, lifts, settle }
//!                        ▲──needs_then()───┘ where a fact makes another one necessary
//! CatalogChange ──seek()──▶ a kept revision ──mutate()──▶ Mutation: annotations, content, and what is to be kept
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
mod rollback;
mod server;
mod workload;

pub use break_glass::{BreakGlass, Grant};
pub use decision::{
    Beside, Cause, Code, CurrentEpoch, Decision, Denial, Facts, HoldersOf, Lift, Needs, Prospect, Record,
    SharedCatalog, Step, Stored, TargetsOf, Terms, Unread,
};
pub use message::{REPEAT, RETRY_AFTER, not_verified, revision_refused, unverified};
pub(crate) use message::{list, nearest};
pub use request::{
    Caller, CatalogChange, Declared, Departure, NamespaceChange, Proof, Request, Requester, Version, WorkloadChange,
};

pub use rollback::seek;

use crate::catalog::edit;
use crate::object::Content;
use crate::retention::Retention;
use crate::revision::restore::Found;
use crate::revision::{self, Keep};

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
pub struct Mutation<'c> {
    /// Annotations to set on the new version, or to remove where `None`: those that modelguard owns and that are not yet
    /// what they must be.
    pub annotations: Vec<(&'static str, Option<String>)>,
    /// What is to be stored in place of what was sent: with what is kept until nobody needs it, without what nobody needs
    /// any more, or what a revision was.
    pub content: Option<Content<'static>>,
    /// The revision before the change, which is to be kept beside the ConfigMap.
    pub keep: Option<Keep<'c>>,
    /// What there is to say of it. It denies only what asks for a rollback that cannot be.
    pub decision: Decision,
}

/// Says what the mutating webhook makes of `change`; `found` is what [`seek`] asked for.
///
/// Where entries should be kept and cannot be, it is left as it is: then it takes away what is judged as that.
pub fn mutate<'c>(change: &'c CatalogChange<'_>, found: Option<Result<Found, Unread>>, terms: &Terms) -> Mutation<'c> {
    let Some(new) = &change.new else { return Mutation::default() };
    let (content, retention, said) = match rollback::roll_back(change, found, terms) {
        Some(Err(denial)) => return Mutation { decision: denial.into(), ..Mutation::default() },
        Some(Ok(back)) => (Some(back.content), back.retention, Some(back.said)),
        None => {
            let retention = Retention::of(change, terms).unwrap_or_default();
            let mut content = (!retention.edits.is_empty()).then(|| new.object.content.clone().into_owned());
            if let Some(content) = &mut content {
                edit::apply(retention.edits.iter().cloned(), content);
            }
            (content, retention, rollback::unanswered(change))
        }
    };
    let stored = content.as_ref().map(|content| change.storing(content.clone()));
    let stored = stored.as_ref().unwrap_or(change);
    let owned = revision::owned(stored, &retention);
    let keep = change.old.as_ref().filter(|_| owned.makes_a_revision(change)).map(|version| Keep {
        config_map: &change.key,
        version,
        is_needed: owned.prior_revision.as_deref().and_then(revision::beside).is_some(),
    });
    let annotations = owned.changes(&new.object.metadata.annotations);
    let mut decision = catalog::mutated(&retention, terms);
    decision.warnings.splice(0..0, said);
    Mutation { annotations, content, keep, decision }
}

#[cfg(test)]
mod tests;

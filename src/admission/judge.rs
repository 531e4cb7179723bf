//! Facts, verdict, lifts: the loop around the rule book.
//!
//! ```text
//! proof (a folder of manifests has its own)
//!   ▼
//! needs ──▶ facts (reads in parallel), twice ──▶ decide ──▶ lifts? ──written──▶ done
//!   ▲                                                         │
//!   └────────────────────── conflict ─────────────────────────┘
//! ```
//! The caller bounds it in time: each turn awaits, so it can be given up at any of them. A lift that was
//! written for a request that is then denied only keeps an entry longer.

use super::review::UserInfo;
use crate::guard::WhileInUse;
use crate::policy::{
    self, CatalogChange, Decision, Facts, Lift, Mutation, Needs, Request, Terms, Unread, WorkloadChange,
};
use crate::revision::Keep;
use crate::usage::Epoch;
use crate::world::{KeepError, LiftError, World};
use futures::future::OptionFuture;
use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;

/// How many calls of one kind are under way at once for one request: each is a connection to the API server.
const AT_ONCE: usize = 16;

/// Judges what `who` requests in `world`, and writes what must be written before it may be allowed.
pub(super) async fn judge<W: World>(world: &W, request: &mut Request<'_>, who: &UserInfo<'_>) -> Decision {
    match request {
        Request::Catalog(change) => {
            let proof = world.proof(change).await;
            change.proof = proof;
            let decision = decide(world, request, who).await;
            match request {
                Request::Catalog(change) if change.new.is_none() => kept(world, change, decision).await,
                _ => decision,
            }
        }
        Request::ScaleDown(id, caller) => match world.workload(id).await {
            Err(unread) => not_read(request, &unread),
            Ok(None) => Decision::default(),
            Ok(Some(workload)) => {
                let change = WorkloadChange::removed(id.clone(), &workload, *caller);
                decide(world, &Request::Workload(change.into()), who).await
            }
        },
        Request::ScaleUp(id, caller) => match world.workload(id).await {
            Err(unread) => not_read(request, &unread),
            // Scaling what is gone comes to nothing.
            Ok(None) => Decision::default(),
            Ok(Some(mut workload)) => {
                if let Some(spec) = &mut workload.spec {
                    spec.replicas = Some(1);
                }
                let change = WorkloadChange::awakened(id.clone(), &workload, *caller);
                decide(world, &Request::Workload(change.into()), who).await
            }
        },
        Request::Namespace(_) | Request::Workload(_) => decide(world, request, who).await,
    }
}

/// Says what the mutating webhook makes of `change`, which `who` asks for in `world`, once what that ends is kept.
pub(super) async fn mutate<'c, W: World>(world: &W, change: &'c CatalogChange<'_>, who: &UserInfo<'_>) -> Mutation<'c> {
    let mut terms = Terms { epoch: world.epoch(&change.sharing()), guard: world.guard(), now: Timestamp::now() };
    // Whoever may pass the rules means what is taken away to go at once: it is judged as that, and recorded.
    if terms.guard.defers()
        && !change.caller.own
        && !change.diff.removed.is_empty()
        && change.break_glass().grants(terms.now)
        && world.may_override(&who.requester(), &change.key.namespace).await == Ok(true)
    {
        terms.guard.while_in_use = WhileInUse::Deny;
    }
    let found = match policy::seek(change) {
        Some(seek) => Some(world.revision(&seek).await),
        None => None,
    };
    let mut mutation = policy::mutate(change, found, &terms);
    mutation.decision.facts.enforcement = world.guard().while_in_use;
    if let Some(keep) = mutation.keep.filter(|_| !change.caller.dry_run) {
        match world.keep(&keep).await {
            Ok(()) | Err(KeepError::Going) => {}
            // The annotation keeps it, and the controller looks again.
            Err(error) if !keep.is_needed => {
                tracing::warn!(catalog = %change.key, %error, "a revision could not be kept beside its ConfigMap");
            }
            Err(KeepError::Refused(why)) => mutation.decision = policy::revision_refused(change, &why).into(),
            Err(KeepError::Unread(unread)) => {
                mutation.decision = policy::unverified(&change.key.name, &unread).into();
            }
        }
    }
    mutation
}

/// What becomes of a deletion that may be made: its last revision is kept first, so that it can be restored. What passes
/// by break-glass passes whatever comes of that.
async fn kept<W: World>(world: &W, change: &CatalogChange<'_>, decision: Decision) -> Decision {
    let Some(old) = change.old.as_ref().filter(|_| decision.allowed() && !change.caller.dry_run) else {
        return decision;
    };
    let keep = Keep { config_map: &change.key, version: old, is_needed: true };
    match world.keep(&keep).await {
        Ok(()) | Err(KeepError::Going) => decision,
        Err(error) if decision.granted.is_some() => {
            tracing::warn!(catalog = %change.key, %error, "deleted by break-glass, with its last revision not kept");
            decision
        }
        Err(KeepError::Refused(why)) => {
            Decision { facts: decision.facts, ..policy::revision_refused(change, &why).into() }
        }
        Err(KeepError::Unread(unread)) => {
            Decision { facts: decision.facts, ..policy::unverified(&change.key.name, &unread).into() }
        }
    }
}

async fn decide<W: World>(world: &W, request: &Request<'_>, who: &UserInfo<'_>) -> Decision {
    loop {
        let epoch = match request {
            Request::Catalog(change) => world.epoch(&change.sharing()),
            // Nothing that adds a reference asks for it, and a namespace is of as many as it has catalogs.
            Request::Namespace(_) | Request::ScaleUp(..) | Request::ScaleDown(..) | Request::Workload(_) => {
                Ok(Epoch::default())
            }
        };
        let terms = Terms { epoch, guard: world.guard(), now: Timestamp::now() };
        let mut facts = Facts::default();
        gather(world, &policy::needs(request, &terms), who, &mut facts).await;
        let needs = policy::needs_then(request, &facts, &terms);
        gather(world, &needs, who, &mut facts).await;
        let decision = policy::decide(request, &facts, &terms);
        if !decision.allowed() {
            return decision;
        }
        match write(world, &decision.lifts).await {
            Ok(()) => return decision,
            // A world that answers at once must not keep the deadline from being noticed.
            Err(LiftError::Conflict) => tokio::task::yield_now().await,
            Err(LiftError::Unread(unread)) => return Decision { facts: decision.facts, ..not_read(request, &unread) },
        }
    }
}

/// Adds what is needed; the servers are listed when the ConfigMaps have been read, and not before.
async fn gather<W: World>(world: &W, needs: &Needs, who: &UserInfo<'_>, facts: &mut Facts) {
    let catalogs: Vec<_> = needs.catalogs.iter().map(async |key| (key.clone(), world.catalog(key).await)).collect();
    let namespaces = needs.namespaces.iter();
    let terminating: Vec<_> = namespaces.map(async |name| (name.clone(), world.terminating(name).await)).collect();
    let may_override = OptionFuture::from(
        needs.may_override.as_ref().map(async |namespace| world.may_override(&who.requester(), namespace).await),
    );
    let shared = OptionFuture::from(needs.shared_by.as_ref().map(|namespace| world.shared_by(namespace)));
    let (catalogs, terminating, may_override, shared) =
        tokio::join!(some_at_once(catalogs), some_at_once(terminating), may_override, shared);
    if let Some(beside) = &needs.beside {
        facts.beside = Some(world.is_beside(beside).await);
    }
    facts.catalogs.extend(catalogs);
    facts.terminating.extend(terminating);
    facts.may_override = may_override.or_else(|| facts.may_override.take());
    facts.shared = shared.or_else(|| facts.shared.take());
    if let Some(namespace) = &needs.residents_of {
        facts.residents = Some(world.residents(namespace));
    }
    if let Some(of) = &needs.holders {
        facts.holders = Some(world.holders(of));
        facts.prospect = Some(world.prospect(of));
    }
    if let Some(of) = &needs.rollback_targets {
        facts.rollback_targets = world.rollback_targets(of);
    }
    for (key, left) in &needs.left {
        facts.left.insert(key.clone(), world.left(&needs.left_from, key, left).await);
    }
    if !needs.served.is_empty() {
        let stored = needs.served.iter().filter_map(|key| facts.catalogs.get(key)?.as_ref().ok()?.as_ref());
        let shared: Vec<_> = stored.map(|stored| &stored.sharing).collect();
        facts.servers = Some(world.servers(&shared).await);
    }
}

/// What all of these come to, in any order.
async fn some_at_once<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    stream::iter(futures).buffer_unordered(AT_ONCE).collect().await
}

/// Writes all lifts. One that could not be written counts more than a conflict: asking again will not
/// make it better in time.
async fn write<W: World>(world: &W, lifts: &[Lift]) -> Result<(), LiftError> {
    let written = some_at_once(lifts.iter().map(|lift| world.lift(lift)).collect()).await;
    let gravest = written.into_iter().filter_map(Result::err).max_by_key(|error| match error {
        LiftError::Conflict => 0,
        LiftError::Unread(_) => 1,
    });
    gravest.map_or(Ok(()), Err)
}

fn not_read(request: &Request<'_>, unread: &Unread) -> Decision {
    let subject = match request {
        Request::Catalog(change) => change.key.name.to_string(),
        Request::Namespace(change) => format!("Namespace {}", change.name),
        Request::ScaleUp(id, _) | Request::ScaleDown(id, _) => format!("{} {}/{}", id.kind, id.namespace, id.name),
        Request::Workload(change) => format!("{} {}/{}", change.id.kind, change.id.namespace, change.id.name),
    };
    policy::unverified(&subject, unread).into()
}

//! A live look at every holder: the index that a proof rests on, built from LISTs and thrown away.

use super::resource::{Catalogs, Guarded, Listed, ModelConfigMap, Nameless, Namespaces, Read, Seen};
use super::{Index, Source};
use crate::guard::RollbackTargets;
use crate::object::{HolderKind, Workload};
use crate::reference::{CatalogKey, Server, ServerState};
use crate::sharing::Sharing;
use futures::future::try_join_all;
use kube::api::{Api, ListParams};
use kube::core::ObjectList;
use kube::{Client, Error, Resource as _};
use std::collections::BTreeSet;
use std::time::Duration;
use thiserror::Error;

/// Objects in a page, as in client-go: the most that the API server decodes, and we hold, at once.
const PAGE: u32 = 500;

/// How long one page may take: half of what the API server gives a request before it gives up itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a list is begun. etcd keeps a revision for five minutes, and a list that takes longer than that
/// will hardly be faster the third time.
const ATTEMPTS: usize = 3;

/// Owners before what they make.
///
/// What controllers make from a template is exempt from admission (P1), and so is not seen by it: between two
/// LISTs a Deployment may make a ReplicaSet, that a Pod, and be changed by its user. Looked at in this order, a
/// reference that moves down is met further down; the other way round it would slip through.
const TOP_DOWN: [HolderKind; 10] = [
    HolderKind::CronJob,
    HolderKind::Rollout,
    HolderKind::Deployment,
    HolderKind::StatefulSet,
    HolderKind::DaemonSet,
    HolderKind::ReplicationController,
    HolderKind::ControllerRevision,
    HolderKind::Job,
    HolderKind::ReplicaSet,
    HolderKind::Pod,
];

/// What of the objects that are listed goes into the index.
#[derive(Clone, Copy, Debug)]
enum Scope<'a> {
    /// All of it.
    Everything,
    /// Holders only if they matter to these.
    Of(&'a BTreeSet<CatalogKey>),
}

/// Why it is not known who holds what.
#[derive(Debug, Error)]
pub enum LiveError {
    /// The list ran out of time at each attempt: its first page was compacted before its last one was read.
    #[error("list {0}: the list expired before its last page was read")]
    Expired(Source),
    /// An object has no name.
    #[error("list {0}: an object has no name that can be read")]
    Nameless(Source),
    /// The API server did not answer in time.
    #[error("list {0}: no answer within {1:?}")]
    Timeout(Source, Duration),
    /// The request failed.
    #[error("list {of}: {source}")]
    Unlisted {
        /// What was listed.
        of: Source,
        /// Why it failed.
        #[source]
        source: Box<Error>,
    },
}

/// Lists every kind of holder, and the guarded namespaces, as they are now.
///
/// Each list is read with a quorum: no resourceVersion on the first page, and those that follow are of the same
/// revision. The index that comes of it answers for `catalogs` only, has no catalogs in it, and treats rollback targets
/// as said.
///
/// # Errors
/// [`LiveError`] if any list is not read to its end; an object that cannot be decoded is none, it holds.
pub async fn live(
    client: &Client,
    catalogs: &BTreeSet<CatalogKey>,
    rollback_targets: RollbackTargets,
) -> Result<Index, LiveError> {
    holders(client, Scope::Of(catalogs), Index::new(rollback_targets)).await
}

/// As [`live`], of every catalog, and with the model ConfigMaps in it: what is read of a cluster by one who does not
/// watch it. Its parts are of one moment after the other.
///
/// # Errors
/// [`LiveError`] if any list is not read to its end.
pub async fn everything(client: &Client, rollback_targets: RollbackTargets) -> Result<Index, LiveError> {
    let mut index = holders(client, Scope::Everything, Index::new(rollback_targets)).await?;
    list::<ModelConfigMap>(client, Catalogs, &mut index, Scope::Everything).await?;
    Ok(index)
}

/// Lists the servers that have a ready pod of their current template, in the guarded namespaces that any of the
/// catalogs is shared with and that stay, as they are now. One that does not decode is none.
///
/// # Errors
/// [`LiveError`] if any list is not read to its end.
pub async fn ready_servers(client: &Client, shared: &[&Sharing]) -> Result<Vec<Server>, LiveError> {
    let servers = servers(client, shared).await?.into_iter();
    Ok(servers.filter(|it| it.is_ready).map(|it| it.server).collect())
}

/// The same, ready or not.
///
/// # Errors
/// [`LiveError`] if any list is not read to its end.
pub async fn servers(client: &Client, shared: &[&Sharing]) -> Result<Vec<ServerState>, LiveError> {
    let guarded = Api::<Listed<Guarded>>::all_with(client.clone(), &Namespaces);
    let is_shared = |name: &String| shared.iter().any(|sharing| sharing.includes(name));
    let name = |namespace: Listed<Guarded>| {
        let name = namespace.meta().name.clone().filter(is_shared);
        // What is in one that is being deleted goes as well.
        name.filter(|_| namespace.content().is_none_or(|it| !it.is_going()))
    };
    let names: BTreeSet<String> = collect(&guarded, Namespaces, name).await?.into_iter().collect();
    let kinds = HolderKind::ALL.into_iter().filter(|kind| kind.can_serve());
    let found = kinds.map(async |kind| {
        // Most catalogs are for one namespace.
        let api = match names.first() {
            Some(only) if names.len() == 1 => Api::<Listed<Workload>>::namespaced_with(client.clone(), only, &kind),
            _ => Api::<Listed<Workload>>::all_with(client.clone(), &kind),
        };
        let server = |listed: Listed<Workload>| {
            let workload = listed.content().filter(|it| names.contains(&it.metadata.namespace))?;
            let server = Server::of(kind, &workload)?;
            Some(ServerState { server, is_ready: workload.has_ready_current_pods() })
        };
        collect(&api, kind, server).await
    });
    Ok(try_join_all(found).await?.into_iter().flatten().collect())
}

/// What is to be kept of one list, all of it of one revision.
async fn collect<T: Read, K>(
    api: &Api<Listed<T>>,
    kind: T::Kind,
    keep: impl Fn(Listed<T>) -> Option<K>,
) -> Result<Vec<K>, LiveError> {
    let of: Source = kind.into();
    let mut params = ListParams { label_selector: of.selector(), limit: Some(PAGE), ..ListParams::default() };
    let mut kept = Vec::new();
    loop {
        let page = page(api, of, &params).await?;
        kept.extend(page.items.into_iter().filter_map(&keep));
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(kept);
        }
    }
}

async fn holders(client: &Client, scope: Scope<'_>, mut index: Index) -> Result<Index, LiveError> {
    for kind in TOP_DOWN {
        list::<Workload>(client, kind, &mut index, scope).await?;
    }
    list::<Guarded>(client, Namespaces, &mut index, scope).await?;
    Ok(index)
}

async fn list<T: Read>(client: &Client, kind: T::Kind, index: &mut Index, scope: Scope<'_>) -> Result<(), LiveError> {
    let of = kind.into();
    let api = Api::<Listed<T>>::all_with(client.clone(), &kind);
    for _ in 0..ATTEMPTS {
        index.restart(of);
        match list_once(&api, kind, index, scope).await {
            Ok(()) => {
                index.complete(of);
                return Ok(());
            }
            // A continue token that the server offers with a 410 would go on at another revision.
            Err(LiveError::Unlisted { source, .. }) if is(410, &source) => {}
            // Of what is not installed there is nothing; nor is any left once it was taken away between two pages. An
            // API server that starts says 503 until it has heard of all kinds. Whoever makes the first one of a kind
            // that another API server has heard of passes P1.
            Err(LiveError::Unlisted { source, .. }) if of.may_be_absent() && is(404, &source) => {
                index.restart(of);
                index.complete(of);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Err(LiveError::Expired(of))
}

async fn list_once<T: Read>(
    api: &Api<Listed<T>>,
    kind: T::Kind,
    index: &mut Index,
    scope: Scope<'_>,
) -> Result<(), LiveError> {
    let of: Source = kind.into();
    let mut params = ListParams { label_selector: of.selector(), limit: Some(PAGE), ..ListParams::default() };
    loop {
        let page = page(api, of, &params).await?;
        for object in page.items {
            let seen = object.seen(kind).map_err(|Nameless| LiveError::Nameless(of))?;
            if scope.takes(&seen) {
                seen.enter(index);
            }
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(());
        }
    }
}

async fn page<T: Read>(
    api: &Api<Listed<T>>,
    of: Source,
    params: &ListParams,
) -> Result<ObjectList<Listed<T>>, LiveError> {
    tokio::time::timeout(PATIENCE, api.list(params))
        .await
        .map_err(|_| LiveError::Timeout(of, PATIENCE))?
        .map_err(|error| LiveError::Unlisted { of, source: Box::new(error) })
}

impl Scope<'_> {
    fn takes(self, seen: &Seen) -> bool {
        match (self, seen) {
            (Self::Of(catalogs), Seen::Holder(facts)) => facts.touches(catalogs),
            (Self::Everything, _) | (_, Seen::Catalog(..) | Seen::Namespace { .. }) => true,
        }
    }
}

fn is(code: u16, error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == code)
}

#[cfg(test)]
mod tests;

//! The watches: one task for each kind, which keeps its part of the index as the cluster is.
//!
//! ```text
//!            ┌──────────────── an error while listing, or an object lost: open anew ───────────────┐
//!            ▼                             a kind that is not installed: none, look again later    │
//!   kube watcher (streaming list, or pages where the server has none) ──Event──▶ Follower ──▶ RwLock<Index>
//!                                                                                   └──────▶ changes: "look again"
//! ```
//! The lock is taken for one event at a time and never across an await.

use super::resource::{Catalogs, Guarded, Listed, ModelConfigMap, Nameless, Namespaces, Read};
use super::{Index, Source};
use crate::object::{HolderKind, Workload};
use futures::StreamExt;
use kube::runtime::watcher;
use kube::runtime::watcher::{Config, DefaultBackoff, Error, Event, InitialListStrategy};
use kube::{Api, Client};
use parking_lot::RwLock;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

/// Seconds after which the server ends a watch, to be resumed where it stood.
///
/// A list that is streamed must be through by then: 290 s are enough for some millions of pods. A connection that
/// died without a sign is noticed 5 s later; until then the index is stale, which no proof rests on.
const TIMEOUT: u32 = 290;

/// The same for namespaces, on which every proof rests: that they cannot be watched must be noticed within a minute.
const NAMESPACES_TIMEOUT: u32 = 25;

/// Objects in a page, as in client-go: the most that is held at once while listing.
const PAGE: u32 = 500;

/// A watch that failed and has had no trouble for so long was resumed: connecting takes 30 s at most.
const CALM: Duration = Duration::from_secs(60);

/// So many streamed lists may end before their time, one after the other, before pages are tried instead.
const STREAMS: u32 = 3;

/// How often it is looked whether a kind that is not installed has come: within a minute, it is said.
const ABSENT: Duration = Duration::from_secs(20);

/// The watches, and what tells that they saw something.
#[derive(Debug)]
pub struct Watches {
    /// One task for each source. None ever ends by itself: one that does has panicked, and the process must end.
    pub tasks: JoinSet<Infallible>,
    /// Marked as changed whenever what is held, or a catalog, may have changed.
    pub changes: watch::Receiver<()>,
}

/// Begins to watch everything that the index is made of.
pub fn spawn(client: &Client, index: &Arc<RwLock<Index>>) -> Watches {
    let (sender, changes) = watch::channel(());
    let mut tasks = JoinSet::new();
    for kind in HolderKind::ALL {
        tasks.spawn(Follower::new(kind, index, &sender).run::<Workload>(client.clone()));
    }
    tasks.spawn(Follower::new(Catalogs, index, &sender).run::<ModelConfigMap>(client.clone()));
    tasks.spawn(Follower::new(Namespaces, index, &sender).run::<Guarded>(client.clone()));
    Watches { tasks, changes }
}

/// Keeps the rows of one source.
struct Follower<K> {
    kind: K,
    source: Source,
    index: Arc<RwLock<Index>>,
    changes: watch::Sender<()>,
    strategy: InitialListStrategy,
    phase: Phase,
    /// Lists that were begun since the last one that was read to its end.
    begun: u32,
    /// Whether the index says that this watch does not get on.
    failing: bool,
    /// Whether the kind is known not to be installed.
    absent: bool,
}

/// Where a watcher stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Nothing came yet.
    Opening,
    /// The list is being read.
    Listing,
    /// The list was read; what comes are changes.
    Following,
}

/// Why a watch does not get on.
#[derive(Debug, Error)]
enum Trouble {
    #[error("an object has no name that can be read")]
    Nameless,
    #[error(transparent)]
    Watcher(#[from] Error),
}

// === impl Follower ===

impl<K: Copy + Into<Source>> Follower<K> {
    fn new(kind: K, index: &Arc<RwLock<Index>>, changes: &watch::Sender<()>) -> Self {
        Self {
            kind,
            source: kind.into(),
            index: Arc::clone(index),
            changes: changes.clone(),
            strategy: InitialListStrategy::StreamingList,
            phase: Phase::Opening,
            begun: 0,
            failing: false,
            absent: false,
        }
    }

    async fn run<T: Read<Kind = K>>(mut self, client: Client) -> Infallible {
        let api = Api::<Listed<T>>::all_with(client, &self.kind);
        let mut backoff = DefaultBackoff::default();
        loop {
            self.phase = Phase::Opening;
            self.follow(api.clone(), &mut backoff).await;
        }
    }

    /// Follows one watcher until it must be opened anew.
    async fn follow<T: Read<Kind = K>>(&mut self, api: Api<Listed<T>>, backoff: &mut DefaultBackoff) {
        let mut events = pin!(watcher(api, self.config()));
        loop {
            let event = match tokio::time::timeout(CALM, events.next()).await {
                Ok(Some(event)) => event,
                // The watcher never ends; a new one does no harm.
                Ok(None) => return,
                Err(_) => {
                    self.calm();
                    continue;
                }
            };
            let Err(trouble) = event.map_err(Trouble::from).and_then(|it| self.take(it)) else {
                self.calm();
                if self.must_page() {
                    return;
                }
                continue;
            };
            if self.cannot_stream(&trouble) {
                return;
            }
            if self.source.may_be_absent() && trouble.status() == Some(404) {
                self.find_none();
                tokio::time::sleep(ABSENT).await;
                return;
            }
            self.report(&trouble);
            let reopen = self.must_reopen(&trouble);
            // The backoff has no end.
            tokio::time::sleep(backoff.next().unwrap_or_default()).await;
            if reopen {
                return;
            }
        }
    }

    fn config(&self) -> Config {
        Config {
            label_selector: self.source.selector(),
            timeout: Some(if self.source == Source::Namespaces { NAMESPACES_TIMEOUT } else { TIMEOUT }),
            initial_list_strategy: self.strategy.clone(),
            page_size: Some(PAGE),
            ..Config::default()
        }
    }

    fn take<T: Read<Kind = K>>(&mut self, event: Event<Listed<T>>) -> Result<(), Trouble> {
        let kind = self.kind;
        let seen = |object: Listed<T>| object.seen(kind).map_err(|Nameless| Trouble::Nameless);
        let changed = match event {
            Event::Init => self.begin(),
            Event::InitApply(object) => seen(object)?.enter(&mut self.index.write()),
            Event::InitDone => self.end(),
            Event::Apply(object) => seen(object)?.enter(&mut self.index.write()),
            Event::Delete(object) => seen(object)?.leave(&mut self.index.write()),
        };
        if changed {
            self.changes.send_replace(());
        }
        Ok(())
    }

    fn begin(&mut self) -> bool {
        self.phase = Phase::Listing;
        self.begun += 1;
        self.index.write().restart(self.source);
        false
    }

    fn end(&mut self) -> bool {
        self.phase = Phase::Following;
        self.begun = 0;
        self.failing = false;
        self.absent = false;
        info!(source = %self.source, "listed");
        self.index.write().complete(self.source)
    }

    /// There is no such kind, and so nothing of it; that is known as well as if an empty list had been read.
    fn find_none(&mut self) {
        self.begun = 0;
        self.failing = false;
        if !std::mem::replace(&mut self.absent, true) {
            info!(source = %self.source, "not installed; looked for again from time to time");
        }
        let mut index = self.index.write();
        index.restart(self.source);
        let changed = index.complete(self.source);
        drop(index);
        if changed {
            self.changes.send_replace(());
        }
    }

    /// A change was heard, or nothing for a while and no trouble either: a watch that failed was resumed.
    fn calm(&mut self) {
        if self.failing && self.phase == Phase::Following {
            self.failing = false;
            self.index.write().recover(self.source);
            info!(source = %self.source, "watch resumed");
        }
    }

    /// Logs what is news, and nothing twice.
    fn report(&mut self, trouble: &Trouble) {
        let reason = trouble.to_string();
        self.failing = true;
        if self.index.write().fail(self.source, &reason) {
            warn!(source = %self.source, reason, "watch failed, will be tried again");
        } else {
            debug!(source = %self.source, reason, "watch failed again");
        }
    }

    /// Whether pages are to be read from now on, because the server does not stream lists.
    fn cannot_stream(&mut self, trouble: &Trouble) -> bool {
        // The feature is off before 1.32, and in 1.33.
        let refused = self.phase == Phase::Opening && trouble.is_refusal();
        refused && self.is_streaming() && self.page()
    }

    /// Whether pages are to be read from now on, because streamed lists end before their time.
    fn must_page(&mut self) -> bool {
        self.begun > STREAMS && self.is_streaming() && self.page()
    }

    fn page(&mut self) -> bool {
        info!(source = %self.source, "lists are read in pages");
        self.strategy = InitialListStrategy::ListWatch;
        true
    }

    /// Whether this watcher would lose something if it went on, or would never get on.
    fn must_reopen(&self, trouble: &Trouble) -> bool {
        match self.phase {
            Phase::Opening => false,
            // What an error swallowed would count as gone at the list's end.
            Phase::Listing => true,
            Phase::Following => trouble.loses_events(),
        }
    }

    fn is_streaming(&self) -> bool {
        self.strategy == InitialListStrategy::StreamingList
    }
}

// === impl Trouble ===

impl Trouble {
    /// Whether the server does not take the request, however often it is made.
    fn is_refusal(&self) -> bool {
        matches!(self.status(), Some(400 | 422))
    }

    /// Whether an event may be lost that will not come again.
    fn loses_events(&self) -> bool {
        match self {
            Self::Nameless | Self::Watcher(Error::WatchFailed(kube::Error::SerdeError(_))) => true,
            // The watcher itself starts over only if it is told so within a watch.
            Self::Watcher(Error::WatchStartFailed(_)) => self.status() == Some(410),
            Self::Watcher(_) => false,
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Watcher(
                Error::InitialListFailed(kube::Error::Api(status)) | Error::WatchStartFailed(kube::Error::Api(status)),
            ) => Some(status.code),
            Self::Nameless | Self::Watcher(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;

//! Departing: the servers that are about to leave, carried by the model ConfigMap whose entries they serve.
//!
//! So that of two that would leave an entry at once the second one meets the first; `policy/server.rs` says why that
//! suffices. A departure never allows anything, and is of any epoch. The controller forgets it > Δ after it first saw it
//! stored: until then it is committed, or never is.

use super::{TICK, Usage};
use crate::holder::ObjectId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most servers of one catalog that may be about to leave, at less than 400 bytes each: half of what the annotation
/// may take.
const MOST: usize = 40;

/// Servers (`Deployment/prod/server`), each with what tells this departure from its next one.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Departing(BTreeMap<Box<str>, Box<str>>);

/// Which departure of each server was first seen stored when.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Departures(BTreeMap<Box<str>, (Box<str>, Duration)>);

// === impl Usage ===

impl Usage {
    /// Whether this server is about to leave.
    pub fn departs(&self, server: &ObjectId) -> bool {
        self.departing.0.contains_key(&*name(server))
    }

    /// The same with `server` about to leave; `None` where too many are. `id` tells this departure from others of it: a
    /// new one waits anew, for nothing is known of the end of the earlier one.
    #[must_use]
    pub fn departing(mut self, server: &ObjectId, id: &str) -> Option<Self> {
        let departing = &mut self.departing.0;
        departing.insert(name(server), id.into());
        (departing.len() <= MOST).then_some(self)
    }
}

/// A server as the annotation names it.
fn name(server: &ObjectId) -> Box<str> {
    format!("{}/{}/{}", server.kind, server.namespace, server.name).into()
}

// === impl Departing ===

impl Departing {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

// === impl Departures ===

impl Departures {
    /// Keeps the timers of what is still there, and starts those of what is new.
    pub(super) fn observe(&mut self, departing: &Departing, now: Duration) {
        self.0.retain(|server, (id, _)| departing.0.get(server) == Some(id));
        for (server, id) in &departing.0 {
            self.0.entry(server.clone()).or_insert_with(|| (id.clone(), now));
        }
    }

    /// Drops those that have waited *more* than Δ: they are gone, or will never go.
    pub(super) fn forget(&self, departing: &mut Departing, settle: Duration, now: Duration) {
        departing.0.retain(|server, _| self.0.get(server).is_none_or(|(_, since)| now <= *since + settle));
    }

    /// When each of them has waited.
    pub(super) fn wake(&self, settle: Duration) -> impl Iterator<Item = Duration> {
        self.0.values().map(move |(_, since)| *since + settle + TICK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn departures_are_bounded() {
        let all = (0..MOST).try_fold(Usage::default(), |usage, n| usage.departing(&server(&n.to_string()), "1"));
        let full = all.unwrap();
        assert!(full.clone().departing(&server("0"), "2").is_some());
        assert_eq!(full.departing(&server("more"), "1"), None);
    }

    fn server(name: &str) -> ObjectId {
        ObjectId { kind: crate::object::HolderKind::Deployment, namespace: "prod".into(), name: name.into() }
    }
}

//! Holders: the objects that need an entry, summed up so that a message's size does not depend on the number of pods.

use crate::catalog::{EntryName, unescape};
use crate::object::{HolderKind, RollbackTarget};
use std::collections::BTreeMap;

/// What tells one object that may hold from another.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectId {
    /// Its kind.
    pub kind: HolderKind,
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

/// The holders of one entry.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Holders {
    /// The workloads, sorted by namespace, kind and name; at most [`Holders::MOST`].
    pub workloads: Vec<Workload>,
    /// How many workloads there are, those not listed included.
    pub workloads_total: usize,
    /// How many pods hold the entry.
    pub pods_total: usize,
}

/// A top-level workload that holds an entry by its pod template, its pods, or both.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Workload {
    /// Kind of the outermost controller that is known, such as `Deployment`; `Pod` for a bare pod.
    pub kind: Box<str>,
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Whether its own pod template holds the entry, so that more pods may come that do: not so the template of a
    /// ReplicaSet, Job or ControllerRevision that it owns, which is an older one where only that holds.
    pub template: bool,
    /// How many of its pods hold the entry; a bare pod counts as one of its own.
    pub pods: usize,
    /// The names of at most three of these pods.
    pub pod_names: Vec<Box<str>>,
    /// Of an old ReplicaSet at zero: whose rollback would need the entry.
    pub rollback_target: Option<RollbackTarget>,
    /// Why its references could not be read, so that it holds everything in its namespace.
    pub unreadable: Option<Box<str>>,
}

/// What people keep by the annotation `modelguard.dev/hold: entry=reason, …`, for consumers that no object shows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hold {
    /// Each with its reason, which may be empty.
    entries: BTreeMap<EntryName, Box<str>>,
    /// Something in it could not be read, so it may mean any entry.
    is_unclear: bool,
}

// === impl Hold ===

impl Hold {
    /// Reads the annotation; `,` and `%` in an entry are `%2C` and `%25`, as in `uses`.
    pub fn parse(annotation: Option<&str>) -> Self {
        let mut hold = Self::default();
        for item in annotation.unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, reason) =
                item.split_once('=').map_or((item, ""), |(name, why)| (name.trim_end(), why.trim_start()));
            // A typing error must not let go what people mean to keep, so it keeps everything.
            match unescape(name).ok().and_then(|name| EntryName::new(&name).ok()) {
                Some(entry) => drop(hold.entries.insert(entry, reason.into())),
                None => hold.is_unclear = true,
            }
        }
        hold
    }

    /// Whether people keep `entry`.
    pub fn keeps(&self, entry: &EntryName) -> bool {
        self.is_unclear || self.entries.contains_key(entry)
    }

    /// Why people keep `entry`, as they wrote it; `None` where they do not name it.
    pub fn reason(&self, entry: &EntryName) -> Option<&str> {
        self.entries.get(entry).map(AsRef::as_ref)
    }
}

// === impl Holders ===

impl Holders {
    /// How many workloads are listed by name.
    pub const MOST: usize = 20;

    /// Whether nobody is known to hold the entry.
    pub fn is_empty(&self) -> bool {
        self.workloads_total == 0
    }

    /// Whether all that hold the entry are pods of an older template, which go by themselves.
    ///
    /// Of more workloads than are listed, nobody knows.
    pub fn will_go(&self) -> bool {
        let goes = |workload: &Workload| {
            let stays = workload.template || workload.rollback_target.is_some() || workload.unreadable.is_some();
            !stays && &*workload.kind != "Pod"
        };
        self.workloads.len() == self.workloads_total && self.workloads.iter().all(goes)
    }

    /// The same without one workload.
    #[must_use]
    pub fn without(mut self, one: &ObjectId) -> Self {
        let is_it =
            |it: &Workload| (&*it.kind, &it.namespace, &it.name) == (one.kind.kind(), &one.namespace, &one.name);
        if let Some(at) = self.workloads.iter().position(is_it) {
            let gone = self.workloads.remove(at);
            self.workloads_total -= 1;
            self.pods_total -= gone.pods;
        }
        self
    }

    /// Both together; the lists are bounded, the totals are not.
    #[must_use]
    pub fn merge(mut self, other: &Self) -> Self {
        let mut known = 0;
        for theirs in &other.workloads {
            match self.workloads.iter().position(|mine| mine.same_object(theirs)) {
                Some(at) => {
                    let mine = &mut self.workloads[at];
                    known += 1;
                    self.pods_total -= mine.pods.min(theirs.pods);
                    if theirs.pods > mine.pods {
                        *mine = theirs.clone();
                    }
                }
                None if self.workloads.len() < Self::MOST => self.workloads.push(theirs.clone()),
                None => {}
            }
        }
        self.workloads_total += other.workloads_total - known;
        self.pods_total += other.pods_total;
        self
    }
}

impl Workload {
    fn same_object(&self, other: &Self) -> bool {
        (&self.kind, &self.namespace, &self.name) == (&other.kind, &other.namespace, &other.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeps(annotation: &str, entry: &str) -> bool {
        Hold::parse(Some(annotation)).keeps(&EntryName::new(entry).unwrap())
    }

    #[test]
    fn people_keep_what_they_name_and_everything_where_that_is_unclear() {
        assert!(keeps("v1=mobile clients, v2", "v1"));
        assert!(keeps("v1=mobile clients, v2", "v2"));
        assert!(!keeps("v1=mobile clients, v2", "v3"));
        assert!(keeps("a%2Cb=odd,", "a,b"));
        assert!(keeps("=no entry", "v3"));
        assert!(!Hold::parse(None).keeps(&EntryName::new("v1").unwrap()));
    }

    #[test]
    fn a_reason_is_what_people_wrote() {
        let hold = Hold::parse(Some("v1 = mobile clients , v2,v3="));
        let reason = |entry| hold.reason(&EntryName::new(entry).unwrap());
        assert_eq!(["v1", "v2", "v3", "v4"].map(reason), [Some("mobile clients"), Some(""), Some(""), None]);
    }

    #[test]
    fn escapes_in_a_hold_are_those_of_uses() {
        for (annotation, entry) in [("a%2cb=odd", "a,b"), ("a%2Cb", "a,b"), ("50%25", "50%"), ("a%252Cb", "a%2Cb")] {
            assert!(keeps(annotation, entry), "{annotation}");
            assert!(!keeps(annotation, "another"), "{annotation}");
        }
        for unclear in ["50%=half", "a%20b", "a%2", "a%2Cb, c%é"] {
            assert!(keeps(unclear, "another"), "{unclear}");
        }
    }
}

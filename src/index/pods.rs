//! The names of the pods that have one owner and one reference set in common.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Names in order; never none. The only pod of its owner, as of a Job, costs no set.
#[derive(Debug)]
pub(super) enum Pods {
    One(Arc<str>),
    /// In a box, for there is a row of 16 bytes for each of a million Jobs, too.
    #[expect(clippy::box_collection, reason = "a set is larger than the one name")]
    More(Box<BTreeSet<Arc<str>>>),
}

// === impl Pods ===

impl Pods {
    /// Adds a name.
    pub(super) fn insert(&mut self, name: Arc<str>) {
        match self {
            Self::One(first) => *self = Self::More(Box::new(BTreeSet::from([Arc::clone(first), name]))),
            Self::More(names) => drop(names.insert(name)),
        }
    }

    /// Takes a name out; says whether none is left.
    #[must_use]
    pub(super) fn remove(&mut self, name: &str) -> bool {
        match self {
            Self::One(only) => **only == *name,
            Self::More(names) => {
                names.remove(name);
                names.is_empty()
            }
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::More(names) => names.len(),
        }
    }

    /// The names, sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        let (one, more) = match self {
            Self::One(only) => (Some(only), None),
            Self::More(names) => (None, Some(names.iter())),
        };
        one.into_iter().chain(more.into_iter().flatten()).map(|name| &**name)
    }
}

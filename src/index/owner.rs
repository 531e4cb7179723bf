//! Controllers of indexed objects, in less memory than [`Owner`] takes: most are of a kind that is watched itself.

use crate::object::{HolderKind, Owner};

/// A controller's kind and name.
#[derive(Debug, Eq, Hash, PartialEq)]
pub(super) struct Controller {
    kind: Kind,
    name: Box<str>,
}

#[derive(Debug, Eq, Hash, PartialEq)]
enum Kind {
    /// Goes by its name in any API group, as in [`Owner`].
    Watched(HolderKind),
    Other(Box<str>),
}

// === impl Controller ===

impl Controller {
    /// Its kind.
    pub(super) fn kind(&self) -> &str {
        match &self.kind {
            Kind::Watched(kind) => kind.kind(),
            Kind::Other(kind) => kind,
        }
    }

    /// Its name, in the object's own namespace.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its kind, if controllers of it may be in the index themselves.
    pub(super) fn watched(&self) -> Option<HolderKind> {
        match self.kind {
            Kind::Watched(kind) => Some(kind),
            Kind::Other(_) => None,
        }
    }
}

impl From<Owner> for Controller {
    fn from(Owner { kind, name }: Owner) -> Self {
        let watched = HolderKind::ALL.into_iter().find(|it| it.kind() == &*kind);
        Self { kind: watched.map_or_else(|| Kind::Other(kind), Kind::Watched), name }
    }
}

impl PartialEq<Owner> for Controller {
    fn eq(&self, other: &Owner) -> bool {
        self.kind() == &*other.kind && self.name == other.name
    }
}

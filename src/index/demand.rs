//! Demands: the way from holders to what they need, for those who ask whether it is there.

use super::namespace::{Namespace, SetId};
use super::tally::Tally;
use super::{CatalogFacts, Index};
use crate::holder::Holders;
use crate::reference::{CatalogKey, References};

/// What objects of one guarded namespace need alike.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    namespace: &'a Namespace,
    set: SetId,
    references: &'a References,
}

impl<'a> Demand<'a> {
    /// Where these objects are.
    pub fn namespace(&self) -> &'a str {
        self.namespace.name()
    }

    /// What they need.
    pub fn references(&self) -> &'a References {
        self.references
    }

    /// Those who need any of it, by their top-level workloads; nobody where what needs it does not count now, as what
    /// only a rollback would bring back.
    pub fn holders(demands: &[Self]) -> Holders {
        let mut tally = Tally::default();
        for demand in demands {
            demand.namespace.tally_present(demand.set, &mut tally);
        }
        tally.finish()
    }
}

impl Index {
    /// The model ConfigMap of that name, if there is one.
    pub fn catalog(&self, key: &CatalogKey) -> Option<&CatalogFacts> {
        self.catalogs.get(key).map(|(facts, _)| facts)
    }

    /// Takes in whether a guarded namespace is being deleted.
    pub(super) fn goes(&mut self, namespace: &str, is_going: bool) {
        if is_going {
            self.going.insert(namespace.into());
        } else {
            self.going.remove(namespace);
        }
    }

    /// Everything that is needed in guarded namespaces, in no order; but for those that are being deleted, in which
    /// catalogs may go before their holders.
    pub fn demands(&self) -> impl Iterator<Item = Demand<'_>> {
        let counts = |name: &str| self.is_guarded(name) && !self.going.contains(name);
        let guarded = self.namespaces.iter().filter(move |(name, _)| counts(name));
        guarded.flat_map(|(_, namespace)| {
            namespace.sets().map(move |(set, references)| Demand { namespace, set, references })
        })
    }
}

//! Sharing: which namespaces' workloads may reference a catalog.
//!
//! Its own, and those that the annotation `modelguard.dev/shared-with: ns, …` names; `*` is everybody.

use std::collections::BTreeSet;

/// The namespaces whose workloads may reference one catalog.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sharing {
    own: Box<str>,
    others: BTreeSet<Box<str>>,
    everybody: bool,
}

impl Sharing {
    /// Of a catalog in namespace `own` with this annotation.
    pub fn new(own: &str, shared_with: Option<&str>) -> Self {
        let names = shared_with.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
        let others: BTreeSet<Box<str>> = names.map(Into::into).collect();
        Self { own: own.into(), everybody: others.contains("*"), others }
    }

    /// Whether workloads of `namespace` may reference the catalog.
    pub fn includes(&self, namespace: &str) -> bool {
        self.everybody || *self.own == *namespace || self.others.contains(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_is_for_its_own_namespace_and_those_it_names() {
        for (annotation, own, named, other) in [
            (None, true, false, false),
            (Some(""), true, false, false),
            (Some("named"), true, true, false),
            (Some(" a , named,"), true, true, false),
            (Some("*"), true, true, true),
            (Some("nam*"), true, false, false),
        ] {
            let sharing = Sharing::new("own", annotation);
            let seen = ["own", "named", "other"].map(|namespace| sharing.includes(namespace));
            assert_eq!(seen, [own, named, other], "{annotation:?}");
        }
    }
}

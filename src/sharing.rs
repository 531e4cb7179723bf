//! Sharing: which namespaces' workloads may reference a catalog.
//!
//! Its own, and those that the annotation `modelguard.dev/shared-with: ns, …` names; `*` is everybody.

use std::collections::BTreeSet;

/// The namespaces whose workloads may reference one catalog.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sharing {
    everybody: bool,
    named: BTreeSet<Box<str>>,
    except: BTreeSet<Box<str>>,
}

impl Sharing {
    /// Of a catalog in namespace `own` with this annotation.
    pub fn new(own: &str, shared_with: Option<&str>) -> Self {
        let names = shared_with.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
        let named: BTreeSet<Box<str>> = names.chain([own]).map(Into::into).collect();
        Self { everybody: named.contains("*"), named, except: BTreeSet::new() }
    }

    /// Whether workloads of `namespace` may reference the catalog.
    pub fn includes(&self, namespace: &str) -> bool {
        (self.everybody || self.named.contains(namespace)) && !self.except.contains(namespace)
    }

    /// Whether workloads of any other namespace may.
    pub fn reaches_others(&self) -> bool {
        self.everybody || self.named.len() > 1
    }

    /// The other namespaces that are named; `*` names none.
    pub fn others<'a>(&'a self, own: &'a str) -> impl Iterator<Item = &'a str> {
        self.named.iter().map(AsRef::as_ref).filter(move |name: &&str| *name != own && *name != "*")
    }

    /// Those who lose it when it is shared as `new` says; `None` if nobody does.
    pub fn lost(&self, new: &Self) -> Option<Self> {
        let loses = !new.everybody && (self.everybody || self.named.iter().any(|name| !new.includes(name)));
        loses.then(|| Self { except: new.named.clone(), ..self.clone() })
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

    #[test]
    fn who_is_named_no_longer_loses_it() {
        for (old, new, named, other) in [
            (None, Some("named"), false, false),
            (Some("named"), Some("named"), false, false),
            (Some("named"), Some("other, named"), false, false),
            (Some("named"), None, true, false),
            (Some("named, other"), Some("named"), false, true),
            (Some("*"), Some("named"), false, true),
            (Some("*"), Some("*"), false, false),
            (Some("named"), Some("*"), false, false),
        ] {
            let [before, after] = [old, new].map(|annotation| Sharing::new("own", annotation));
            let lost = before.lost(&after);
            let loses = |namespace| lost.as_ref().is_some_and(|lost| lost.includes(namespace));
            assert_eq!([loses("own"), loses("named"), loses("other")], [false, named, other], "{old:?} {new:?}");
            assert_eq!(lost.is_some(), named || other, "{old:?} {new:?}");
        }
    }
}

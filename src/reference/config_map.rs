//! What volumes project from ConfigMaps.
//!
//! A volume counts as a whole even where containers mount single keys of it by `subPath`: the kubelet projects
//! all of it, and the keys that matter can then be told only by comparing paths.

use super::Mention;
use crate::object::{ConfigMapSource, Spec};

/// Every ConfigMap, or key of one, without which a volume of the pod cannot be set up.
pub(super) fn mentions(spec: &Spec) -> impl Iterator<Item = Mention<'_>> {
    spec.volumes
        .iter()
        .flat_map(|volume| {
            let projected = volume.projected.iter().flat_map(|all| &all.sources);
            let sources = projected.filter_map(|source| source.config_map.as_ref());
            volume.config_map.iter().chain(sources)
        })
        .filter(|source| !source.optional)
        .flat_map(keys)
}

/// The keys that become files; all of them if none is named.
fn keys(source: &ConfigMapSource) -> impl Iterator<Item = Mention<'_>> {
    let whole = source.items.is_empty().then_some(None);
    let single = source.items.iter().map(|item| Some(item.key.as_str()));
    whole.into_iter().chain(single).map(|key| Mention { config_map: &source.name, key })
}

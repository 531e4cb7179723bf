//! What the environment of containers takes from ConfigMaps: `configMapKeyRef` and `envFrom`.

use super::Mention;
use crate::object::{Container, Spec};

/// Every ConfigMap, or key of one, without which a container of the pod does not start.
pub(super) fn mentions(spec: &Spec) -> impl Iterator<Item = Mention<'_>> {
    spec.all_containers().flat_map(|container| single(container).chain(whole(container)))
}

fn single(container: &Container) -> impl Iterator<Item = Mention<'_>> {
    let sources = container.env.iter().filter_map(|env| env.value_from.as_ref());
    sources
        .filter_map(|source| source.config_map_key_ref.as_ref())
        .filter(|key| !key.optional)
        .map(|key| Mention { config_map: &key.name, key: Some(&key.key) })
}

fn whole(container: &Container) -> impl Iterator<Item = Mention<'_>> {
    let sources = container.env_from.iter();
    sources
        .filter_map(|source| source.config_map_ref.as_ref())
        .filter(|source| !source.optional)
        .map(|source| Mention { config_map: &source.name, key: None })
}

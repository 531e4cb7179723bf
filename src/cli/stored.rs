//! A model ConfigMap as it is stored, for the commands that are about one.

use crate::catalog::EntryName;
use crate::cli::connect::Cluster;
use crate::names;
use crate::object::ConfigMap;
use crate::reference::CatalogKey;
use crate::retention::Retained;
use crate::revision;
use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::ConfigMap as ApiConfigMap;
use kube::api::{Api, ApiResource, DynamicObject};
use std::collections::BTreeSet;

/// A model ConfigMap as it is stored.
pub(super) struct Stored {
    json: String,
}

/// The ConfigMaps of the cluster's namespace.
pub(super) fn config_maps(cluster: &Cluster) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<ApiConfigMap>(&());
    Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource)
}

impl Stored {
    /// Reads it; `None` if there is none of that name.
    pub(super) async fn read(cluster: &Cluster, key: &CatalogKey) -> anyhow::Result<Option<Self>> {
        let found = config_maps(cluster).get_opt(&key.name).await;
        let Some(found) = found.with_context(|| format!("read ConfigMap {key}"))? else { return Ok(None) };
        let stored = Self::of(&found)?;
        if stored.object()?.metadata.labels.get(names::CATALOG_LABEL).is_none() {
            bail!("ConfigMap {key} is no model ConfigMap: it lacks the label {}", names::CATALOG_LABEL);
        }
        Ok(Some(stored))
    }

    /// Takes what the API server answered.
    pub(super) fn of(object: &DynamicObject) -> anyhow::Result<Self> {
        Ok(Self { json: serde_json::to_string(object).context("read the ConfigMap")? })
    }

    pub(super) fn object(&self) -> anyhow::Result<ConfigMap<'_>> {
        ConfigMap::parse(&self.json).context("read the ConfigMap")
    }

    /// The number of its revision.
    pub(super) fn number(&self) -> anyhow::Result<u64> {
        Ok(revision::number(&self.object()?))
    }

    pub(super) fn annotation(&self, name: &str) -> anyhow::Result<Option<String>> {
        Ok(self.object()?.metadata.annotations.get(name).map(str::to_owned))
    }

    /// The entries that stay until nobody needs them.
    pub(super) fn retained(&self) -> anyhow::Result<BTreeSet<EntryName>> {
        Ok(Retained::of(&self.object()?).entries().clone())
    }
}

//! Objects as the API server sends them, read one by one and no further than facts need.
//!
//! ```text
//! JSON of one object ──Read::read──▶ Listed { meta, content: T or why not } ──seen──▶ Seen ──enter, leave──▶ Index
//! ```
//! An object that cannot be decoded costs neither its list nor its watch: it is [`Undecoded`], and goes into the
//! index as what holds everything. Managed fields and all else that is not asked for is skipped, never stored.

use super::facts::{CatalogFacts, Facts};
use super::{Index, Source};
use crate::holder::ObjectId;
use crate::names;
use crate::object::{ConfigMap, HolderKind, Workload, seek};
use crate::reference::CatalogKey;
use kube::Resource;
use kube::core::{DynamicResourceScope, ObjectMeta};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Where a pod template, or a pod, is in one holder kind or another.
const HOLDERS: [&[&str]; 4] =
    [&["data", "spec", "template"], &[], &["spec", "jobTemplate", "spec", "template"], &["spec", "template"]];

/// What is read of the objects of one kind.
pub(super) trait Read: Clone + fmt::Debug + Send + Sync + Sized + 'static {
    /// Says which kind, or that there is only one.
    type Kind: Copy + fmt::Debug + Into<Source> + Send + Sync + 'static;

    /// Reads an object from its JSON.
    fn read(json: &str) -> Result<Self, serde_json::Error>;

    /// Its name, namespace and revision.
    fn meta(&self) -> ObjectMeta;

    /// What it means to the index.
    fn seen(kind: Self::Kind, id: Id, content: Result<Self, Undecoded>) -> Seen;
}

/// One object of a list or a watch.
#[derive(Clone, Debug)]
pub(super) struct Listed<T> {
    meta: ObjectMeta,
    content: Result<T, Undecoded>,
}

/// An object that is not what its kind promises.
#[derive(Clone, Debug)]
pub(super) struct Undecoded {
    reason: String,
    /// What `modelguard.dev/uses` says wherever it may stand in it.
    uses: String,
}

/// What every object tells of itself; the namespace is empty where there is none.
pub(super) struct Id {
    namespace: String,
    name: String,
    resource_version: String,
}

/// An object as the index takes it.
#[derive(Debug)]
pub(super) enum Seen {
    Catalog(CatalogKey, Box<CatalogFacts>),
    Holder(Box<Facts>),
    Namespace { name: String, stamp: String, is_going: bool },
}

/// Objects that have no name cannot be told apart, so nothing can be said of their list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Nameless;

/// The only kind that catalogs are of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Catalogs;

/// The kind of namespaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Namespaces;

/// A model ConfigMap.
#[derive(Clone, Debug)]
pub(super) struct ModelConfigMap {
    key: CatalogKey,
    facts: CatalogFacts,
}

/// A namespace: that it is listed says that it is guarded.
#[derive(Clone, Debug)]
pub(super) struct Guarded {
    name: String,
    resource_version: String,
    stamp: String,
    is_going: bool,
}

// === impl Source ===

impl Source {
    /// The label selector that the API server narrows the list by.
    pub(super) fn selector(self) -> Option<String> {
        match self {
            Self::Catalogs => Some(names::CATALOG_LABEL.to_owned()),
            // What is kept of model ConfigMaps holds nothing.
            Self::Holders(HolderKind::ControllerRevision) => Some(format!("!{}", names::HISTORY_OF)),
            Self::Holders(_) => None,
            Self::Namespaces => Some(format!("{}={}", names::GUARD_LABEL, names::GUARD_ENABLED)),
        }
    }

    /// Whether an API server may not know the kind at all, because it is not installed: then there are none of it.
    pub(super) fn may_be_absent(self) -> bool {
        matches!(self, Self::Holders(kind) if !kind.is_built_in())
    }

    fn group(self) -> &'static str {
        match self {
            Self::Holders(kind) => kind.group(),
            Self::Catalogs | Self::Namespaces => "",
        }
    }

    fn version(self) -> &'static str {
        match self {
            Self::Holders(kind) => kind.version(),
            Self::Catalogs | Self::Namespaces => "v1",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Catalogs => "ConfigMap",
            Self::Holders(kind) => kind.kind(),
            Self::Namespaces => "Namespace",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Catalogs => "configmaps",
            Self::Holders(kind) => kind.plural(),
            Self::Namespaces => "namespaces",
        }
    }
}

impl From<Catalogs> for Source {
    fn from(_: Catalogs) -> Self {
        Self::Catalogs
    }
}

impl From<Namespaces> for Source {
    fn from(_: Namespaces) -> Self {
        Self::Namespaces
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.plural())
    }
}

// === impl Listed ===

impl<T: Read> Listed<T> {
    /// The object; `None` if it does not decode.
    pub(super) fn content(self) -> Option<T> {
        self.content.ok()
    }

    /// What the object means to the index.
    pub(super) fn seen(self, kind: T::Kind) -> Result<Seen, Nameless> {
        let ObjectMeta { namespace, name, resource_version, .. } = self.meta;
        let id = Id {
            namespace: namespace.unwrap_or_default(),
            name: name.unwrap_or_default(),
            resource_version: resource_version.unwrap_or_default(),
        };
        if id.name.is_empty() {
            return Err(Nameless);
        }
        Ok(T::seen(kind, id, self.content))
    }
}

impl<'de, T: Read> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // kube reads lists and watches from text, so the object's part of it can be borrowed and read by itself. In
        // an event that holds if its type stands first, as the API server writes it; else the watch fails loudly.
        let json = <&'de RawValue>::deserialize(deserializer)?.get();
        Ok(match T::read(json) {
            Ok(content) => Self { meta: content.meta(), content: Ok(content) },
            Err(error) => Self::undecoded(json, &error),
        })
    }
}

impl<T> Listed<T> {
    fn undecoded(json: &str, error: &serde_json::Error) -> Self {
        let text = |path: &[&'static str]| seek(json.as_bytes(), path);
        let uses = HOLDERS.iter().filter_map(|at| text(&[at, &["metadata", "annotations", names::USES][..]].concat()));
        Self {
            meta: ObjectMeta {
                name: text(&["metadata", "name"]),
                namespace: text(&["metadata", "namespace"]),
                resource_version: text(&["metadata", "resourceVersion"]),
                ..ObjectMeta::default()
            },
            content: Err(Undecoded { reason: error.to_string(), uses: uses.collect::<Vec<_>>().join(",") }),
        }
    }
}

impl<T: Read> Resource for Listed<T> {
    type DynamicType = T::Kind;
    type Scope = DynamicResourceScope;

    fn kind(kind: &T::Kind) -> Cow<'_, str> {
        (*kind).into().kind().into()
    }

    fn group(kind: &T::Kind) -> Cow<'_, str> {
        (*kind).into().group().into()
    }

    fn version(kind: &T::Kind) -> Cow<'_, str> {
        (*kind).into().version().into()
    }

    fn plural(kind: &T::Kind) -> Cow<'_, str> {
        (*kind).into().plural().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

// === impl Read ===

impl Read for Workload {
    type Kind = HolderKind;

    fn read(json: &str) -> Result<Self, serde_json::Error> {
        Self::parse(json)
    }

    fn meta(&self) -> ObjectMeta {
        let metadata = &self.metadata;
        head(&metadata.namespace, &metadata.name, &metadata.resource_version)
    }

    fn seen(kind: HolderKind, id: Id, content: Result<Self, Undecoded>) -> Seen {
        Seen::Holder(Box::new(match content {
            Ok(workload) => Facts::of(kind, &workload),
            Err(Undecoded { reason, uses }) => {
                let id = ObjectId { kind, namespace: id.namespace.into(), name: id.name.into() };
                Facts::salvage(id, &reason, &uses)
            }
        }))
    }
}

impl Read for ModelConfigMap {
    type Kind = Catalogs;

    fn read(json: &str) -> Result<Self, serde_json::Error> {
        let config_map = ConfigMap::parse(json)?;
        let metadata = &config_map.metadata;
        Ok(Self { key: CatalogKey::new(&metadata.namespace, &metadata.name), facts: CatalogFacts::of(&config_map) })
    }

    fn meta(&self) -> ObjectMeta {
        head(&self.key.namespace, &self.key.name, &self.facts.resource_version)
    }

    fn seen(_: Catalogs, id: Id, content: Result<Self, Undecoded>) -> Seen {
        let key = CatalogKey::new(&id.namespace, &id.name);
        let facts = match content {
            Ok(config_map) => config_map.facts,
            Err(undecoded) => CatalogFacts::unreadable(&id.resource_version, &undecoded.reason),
        };
        Seen::Catalog(key, Box::new(facts))
    }
}

impl Guarded {
    /// Whether it is being deleted.
    pub(super) fn is_going(&self) -> bool {
        self.is_going
    }
}

impl Read for Guarded {
    type Kind = Namespaces;

    fn read(json: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            #[serde(borrow)]
            metadata: Labelled<'a>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Labelled<'a> {
            name: String,
            uid: String,
            resource_version: String,
            #[serde(default)]
            deletion_timestamp: Option<String>,
            #[serde(borrow, default)]
            managed_fields: Vec<Manager<'a>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Manager<'a> {
            #[serde(default)]
            time: String,
            #[serde(borrow, default)]
            fields_v1: Option<&'a RawValue>,
        }
        let Labelled { name, uid, resource_version, deletion_timestamp, managed_fields } =
            serde_json::from_str::<Wire<'_>>(json)?.metadata;
        let field = format!("\"f:{}\"", names::GUARD_LABEL);
        let sets = |it: &&Manager<'_>| it.fields_v1.is_some_and(|fields| fields.get().contains(&field));
        let labelled = managed_fields.iter().filter(sets).map(|it| it.time.as_str()).max().unwrap_or_default();
        let stamp = format!("{uid} {labelled}");
        Ok(Self { name, resource_version, stamp, is_going: deletion_timestamp.is_some() })
    }

    fn meta(&self) -> ObjectMeta {
        head("", &self.name, &self.resource_version)
    }

    fn seen(_: Namespaces, id: Id, content: Result<Self, Undecoded>) -> Seen {
        // One that cannot be decoded counts all the same.
        let (stamp, is_going) = content.map(|it| (it.stamp, it.is_going)).unwrap_or_default();
        Seen::Namespace { name: id.name, stamp, is_going }
    }
}

// === impl Seen ===

impl Seen {
    /// The object is there; says whether what is held may have changed.
    pub(super) fn enter(self, index: &mut Index) -> bool {
        match self {
            Self::Catalog(key, facts) => index.apply_catalog(key, *facts),
            Self::Holder(facts) => index.apply(*facts),
            Self::Namespace { name, stamp, is_going } => {
                index.goes(&name, is_going);
                index.guard(&name, &stamp)
            }
        }
    }

    /// The object is gone, or no longer selected; says whether what is held may have changed.
    pub(super) fn leave(self, index: &mut Index) -> bool {
        match self {
            Self::Catalog(key, _) => index.delete_catalog(&key),
            Self::Holder(facts) => index.delete(&facts.id),
            Self::Namespace { name, .. } => index.unguard(&name),
        }
    }
}

// === helpers ===

fn head(namespace: &str, name: &str, resource_version: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        resource_version: Some(resource_version.to_owned()),
        ..ObjectMeta::default()
    }
}

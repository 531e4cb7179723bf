//! From the wire to the rule book: what a review asks, parsed into a [`policy::Request`].
//!
//! The webhook configuration sends only what the rules know. Anything else means that it was changed, and is
//! denied by name: allowing it would be a hole that nobody sees.

use super::review::{Object, Operation, Review, Unreadable, UserInfo, printable};
use crate::guard::Guard;
use crate::holder::ObjectId;
use crate::names;
use crate::object::Metadata;
use crate::object::{ConfigMap, HolderKind, Workload};
use crate::policy::{self, BreakGlass, Caller, CatalogChange, Departure, NamespaceChange, Requester, WorkloadChange};
use crate::reference::CatalogKey;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What a review asks of the rules.
#[derive(Debug)]
pub(crate) enum Asked<'a> {
    /// Nothing: no rule is about this.
    Nothing,
    /// To judge this.
    Judge(policy::Request<'a>),
}

/// What tells the object of a review from its namesakes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Identity<'a> {
    /// Of deletecollection's items only the object knows it.
    #[serde(borrow)]
    pub(crate) name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) uid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) resource_version: Option<Cow<'a, str>>,
}

/// What kinds of object are judged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Known {
    ConfigMap,
    Holder(HolderKind),
    Namespace,
    /// `replicasets/scale`, `deployments/scale` or `statefulsets/scale`
    Scale(HolderKind),
}

impl<'a> Identity<'a> {
    fn of(metadata: &Metadata<'a>) -> Self {
        let [name, uid, resource_version] =
            [&metadata.name, &metadata.uid, &metadata.resource_version].map(|text| Some(text.clone()));
        Self { name, uid, resource_version }
    }
}

impl Known {
    /// The kind that a review is about.
    pub(crate) fn of(review: &Review<'_>) -> Option<Self> {
        let (group, kind) = (&*review.kind.group, &*review.kind.kind);
        let resource = (&*review.resource.group, &*review.resource.resource, &*review.sub_resource);
        match (group, &*review.kind.version, kind, resource) {
            ("", "v1", "ConfigMap", ("", "configmaps", "")) => Some(Self::ConfigMap),
            // Each carries the whole Namespace; a write to its status or finalizers may change labels.
            ("", "v1", "Namespace", ("", "namespaces", "" | "finalize" | "status")) => Some(Self::Namespace),
            // It carries the whole Pod, as a status does below: a write to one may change annotations.
            ("", "v1", "Pod", ("", "pods", "ephemeralcontainers")) => Some(Self::Holder(HolderKind::Pod)),
            ("autoscaling", "v1", "Scale", ("apps", "replicasets", "scale")) => {
                Some(Self::Scale(HolderKind::ReplicaSet))
            }
            ("autoscaling", "v1", "Scale", ("apps", "deployments", "scale")) => {
                Some(Self::Scale(HolderKind::Deployment))
            }
            ("autoscaling", "v1", "Scale", ("apps", "statefulsets", "scale")) => {
                Some(Self::Scale(HolderKind::StatefulSet))
            }
            (group, version, kind, (_, _, "" | "status")) => {
                HolderKind::from_kind(group, kind).filter(|kind| kind.version() == version).map(Self::Holder)
            }
            _ => None,
        }
    }

    /// A label of metrics: from a closed set.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Holder(kind) => kind.kind(),
            Self::Namespace => "Namespace",
            Self::Scale(_) => "Scale",
        }
    }
}

impl<'a> Review<'a> {
    /// What the review asks, of a guard that is so strict. Takes the ConfigMaps that are in it.
    pub(crate) fn asked(&mut self, caller: Caller, guard: Guard) -> Result<Asked<'a>, Unreadable> {
        let request = match (Known::of(self), self.operation) {
            (Some(Known::ConfigMap), Operation::Create | Operation::Delete | Operation::Update) => {
                policy::Request::Catalog(Box::new(self.catalog_change(caller)?))
            }
            (Some(Known::Holder(kind)), Operation::Delete) if kind.can_serve() => {
                policy::Request::Workload(self.workload_removal(kind, caller)?.into())
            }
            (Some(Known::Holder(_)), Operation::Delete) => return Ok(Asked::Nothing),
            (Some(Known::Holder(kind)), Operation::Create | Operation::Update) => {
                policy::Request::Workload(self.workload_change(kind, caller, guard)?.into())
            }
            (Some(Known::Namespace), Operation::Delete | Operation::Update) => match self.namespace_change(caller)? {
                Some(change) => policy::Request::Namespace(change),
                None => return Ok(Asked::Nothing),
            },
            (Some(Known::Scale(kind)), Operation::Update) => {
                let id = self.object_id(kind);
                match (replicas("oldObject", self.stored()?)?, replicas("object", self.wanted()?)?) {
                    // The others hold at any replica count.
                    (0, 1..) if kind == HolderKind::ReplicaSet => policy::Request::ScaleUp(id, caller),
                    (1.., 0) if kind.can_serve() => policy::Request::ScaleDown(id, caller),
                    _ => return Ok(Asked::Nothing),
                }
            }
            _ => return Err(self.stranger()),
        };
        Ok(Asked::Judge(request))
    }

    /// Who asks.
    pub(crate) fn caller(&self, own: Option<&str>) -> Caller {
        let user = &*self.user_info.username;
        Caller {
            own: own == Some(user),
            system: user.starts_with("system:serviceaccount:kube-system:")
                || user.starts_with("system:kube-")
                || user == "system:apiserver",
            dry_run: self.is_dry_run(),
            put: self.is_put(),
        }
    }

    /// The stored object's identity, or that of the object that is created.
    pub(crate) fn identity(&self) -> Identity<'a> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Identified<'a> {
            #[serde(borrow)]
            metadata: Identity<'a>,
        }
        let read = |json: &'a RawValue| serde_json::from_str::<Identified<'a>>(json.get()).unwrap_or_default().metadata;
        match self.old_object.as_ref().or(self.object.as_ref()) {
            Some(Object::ConfigMap(object)) => Identity::of(&object.metadata),
            Some(Object::Raw(json)) => read(json),
            None => Identity::default(),
        }
    }

    /// What is asked for, in words: `Deployment prod/api`.
    pub(crate) fn subject(&self) -> String {
        let name = if self.name.is_empty() { "(unnamed)" } else { &self.name };
        format!("{} {}/{name}", self.kind.kind, self.namespace)
    }

    /// A change of a ConfigMap, whether a model ConfigMap or not.
    fn catalog_change(&mut self, caller: Caller) -> Result<CatalogChange<'a>, Unreadable> {
        let operation = self.operation;
        let read = |field, object: Option<Object<'a>>| match object {
            Some(Object::ConfigMap(object)) => Ok(*object),
            Some(Object::Raw(json)) => {
                ConfigMap::parse(json.get()).map_err(|source| Unreadable::Object { field, source })
            }
            None => Err(Unreadable::Missing { field, operation }),
        };
        let old = match operation {
            Operation::Create => None,
            Operation::Connect | Operation::Delete | Operation::Update => {
                Some(read("oldObject", self.old_object.take())?)
            }
        };
        let new = match operation {
            Operation::Delete => None,
            Operation::Connect | Operation::Create | Operation::Update => Some(read("object", self.object.take())?),
        };
        let named = old.as_ref().or(new.as_ref()).map_or("", |object| &*object.metadata.name);
        let name = if self.name.is_empty() { named } else { &*self.name };
        Ok(CatalogChange::new(CatalogKey::new(&self.namespace, name), old, new, caller))
    }

    fn workload_change(&self, kind: HolderKind, caller: Caller, guard: Guard) -> Result<WorkloadChange, Unreadable> {
        let old = match self.operation {
            Operation::Update => Some(self.workload("oldObject", self.stored()?)?),
            Operation::Connect | Operation::Create | Operation::Delete => None,
        };
        let new = self.workload("object", self.wanted()?)?;
        Ok(WorkloadChange::new(self.object_id(kind), old.as_ref(), &new, caller, guard))
    }

    fn workload_removal(&self, kind: HolderKind, caller: Caller) -> Result<WorkloadChange, Unreadable> {
        let stored = self.workload("oldObject", self.stored()?)?;
        let mut id = self.object_id(kind);
        // Items of a deletecollection are named by their object alone.
        if id.name.is_empty() {
            id.name = stored.metadata.name.as_str().into();
        }
        Ok(WorkloadChange::removed(id, &stored, caller))
    }

    fn workload(&self, field: &'static str, json: &RawValue) -> Result<Workload, Unreadable> {
        let read = Workload::parse(json.get());
        let mut object = read.map_err(|source| Unreadable::Object { field, source })?;
        // References that name no namespace mean the one that the request is about.
        object.metadata.namespace = self.namespace.to_string();
        Ok(object)
    }

    /// What becomes of a guarded namespace; `None` of one that is not.
    fn namespace_change(&self, caller: Caller) -> Result<Option<NamespaceChange>, Unreadable> {
        let read = |field, json: &'a RawValue| -> Result<Namespace<'a>, Unreadable> {
            serde_json::from_str(json.get()).map_err(|source| Unreadable::Object { field, source })
        };
        let old = read("oldObject", self.stored()?)?.metadata;
        let new = match self.operation {
            Operation::Update => Some(read("object", self.wanted()?)?.metadata),
            Operation::Connect | Operation::Create | Operation::Delete => None,
        };
        let is_guarded = |it: &Metadata<'_>| it.labels.get(names::GUARD_LABEL) == Some(names::GUARD_ENABLED);
        let said = |it: &'_ Metadata<'_>| it.annotations.get(names::BREAK_GLASS).map(str::to_owned);
        let stored = said(&old);
        let (departure, break_glass) = match &new {
            _ if !is_guarded(&old) => return Ok(None),
            None => (Some(Departure::Deletion), BreakGlass::stored(stored.as_deref())),
            Some(new) => {
                let departure = (!is_guarded(new)).then_some(Departure::OptOut);
                (departure, BreakGlass::wanted(stored.as_deref(), said(new).as_deref()))
            }
        };
        let going = old.deletion_timestamp.is_some();
        Ok(Some(NamespaceChange { name: (&*old.name).into(), departure, going, break_glass, caller }))
    }

    fn object_id(&self, kind: HolderKind) -> ObjectId {
        ObjectId { kind, namespace: (&*self.namespace).into(), name: (&*self.name).into() }
    }

    fn stored(&self) -> Result<&'a RawValue, Unreadable> {
        self.raw("oldObject", self.old_object.as_ref())
    }

    fn wanted(&self) -> Result<&'a RawValue, Unreadable> {
        self.raw("object", self.object.as_ref())
    }

    fn raw(&self, field: &'static str, object: Option<&Object<'a>>) -> Result<&'a RawValue, Unreadable> {
        object.and_then(Object::raw).ok_or(Unreadable::Missing { field, operation: self.operation })
    }

    /// What was not meant for us.
    pub(crate) fn stranger(&self) -> Unreadable {
        let slash = if self.sub_resource.is_empty() { "" } else { "/" };
        let (kind, resource) = (&self.kind, &self.resource);
        let what = format!(
            "{} {}/{} ({}{slash}{})",
            kind.kind, kind.group, kind.version, resource.resource, self.sub_resource
        );
        Unreadable::Stranger { operation: self.operation, what: printable(&what) }
    }
}

impl UserInfo<'_> {
    /// Who asks, as permissions are looked up by.
    pub(crate) fn requester(&self) -> Requester {
        Requester {
            username: self.username.to_string(),
            uid: self.uid.clone(),
            groups: self.groups.clone(),
            extra: self.extra.clone(),
        }
    }
}

/// Of a namespace, what says whether it is guarded.
#[derive(Deserialize)]
struct Namespace<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

/// What a Scale asks for; absent is zero, as the API server leaves a zero out.
fn replicas(field: &'static str, json: &RawValue) -> Result<i64, Unreadable> {
    #[derive(Deserialize)]
    struct Scale {
        #[serde(default)]
        spec: Option<ScaleSpec>,
    }
    #[derive(Deserialize)]
    struct ScaleSpec {
        #[serde(default)]
        replicas: Option<i64>,
    }
    let scale: Scale = serde_json::from_str(json.get()).map_err(|source| Unreadable::Object { field, source })?;
    Ok(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0))
}

//! The fields of Kubernetes objects that decisions rest on, and nothing else.
//!
//! ```text
//! review's raw JSON ──▶ ConfigMap<'a>  borrowed: a review is read once and dropped
//! watch, LIST, GET  ──▶ Workload       owned: dropped once its references are extracted
//! ```
//! Unknown fields are skipped, `null` means absent (as for the API server), a field of the wrong type or a
//! duplicate key is an error: what cannot be read must never count as absent.

mod kind;
mod pod;
mod seek;
mod workload;

pub use kind::HolderKind;
pub use pod::{
    ConfigMapKey, ConfigMapSource, Container, EnvFrom, EnvVar, EnvVarSource, KeyToPath, Projected, Projection, Spec,
    Template, Volume, WorkloadRef,
};
pub(crate) use seek::seek;
pub use workload::{
    Condition, NEWEST_REPLICA_SET, NoTemplate, Owner, PodTemplate, RevisionData, RollbackTarget, Workload,
    WorkloadMetadata, WorkloadStatus,
};

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// A map of strings that borrows from the text it was read from.
///
/// A list that is sorted by key: the API server sends it so, and a tree would be built, and taken apart, for each review.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StringMap<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// What a ConfigMap stores: the part of it that a revision keeps and that a catalog is read from.
#[derive(Clone, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Content<'a> {
    /// `data`, as it is.
    #[serde(borrow, default)]
    pub data: StringMap<'a>,
    /// `binaryData`, still in base64 (the API server writes it in one canonical form).
    #[serde(borrow, default)]
    pub binary_data: StringMap<'a>,
    /// `immutable`; absent and `false` are kept apart, so that a restore is exact.
    #[serde(default)]
    pub immutable: Option<bool>,
}

/// The fields of `metadata` that decisions rest on.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata<'a> {
    /// Name; empty on a CREATE with `generateName`.
    #[serde(borrow, default, deserialize_with = "text")]
    pub name: Cow<'a, str>,
    /// Namespace; empty for cluster-scoped objects.
    #[serde(borrow, default, deserialize_with = "text")]
    pub namespace: Cow<'a, str>,
    /// UID, once the API server has given one.
    #[serde(borrow, default, deserialize_with = "text")]
    pub uid: Cow<'a, str>,
    /// The revision that the next compare-and-swap compares.
    #[serde(borrow, default, deserialize_with = "text")]
    pub resource_version: Cow<'a, str>,
    /// RFC 3339.
    #[serde(borrow, default)]
    pub creation_timestamp: Option<Cow<'a, str>>,
    /// Set once the object is being deleted; never unset.
    #[serde(borrow, default)]
    pub deletion_timestamp: Option<Cow<'a, str>>,
    /// Labels.
    #[serde(borrow, default)]
    pub labels: StringMap<'a>,
    /// Annotations.
    #[serde(borrow, default)]
    pub annotations: StringMap<'a>,
    /// Who manages which fields since when, unparsed: only a revision looks into it.
    #[serde(borrow, default)]
    pub managed_fields: Option<&'a serde_json::value::RawValue>,
}

/// A ConfigMap as an admission review carries it.
#[derive(Clone, Debug)]
pub struct ConfigMap<'a> {
    /// Its metadata.
    pub metadata: Metadata<'a>,
    /// Its content.
    pub content: Content<'a>,
}

// === impl StringMap ===

impl<'a> StringMap<'a> {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.place(key).ok().map(|at| &*self.0[at].1)
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value.as_ref()))
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets the value of `key`.
    pub fn insert(&mut self, key: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        let (key, value) = (key.into(), value.into());
        match self.place(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    /// Takes `key` away, if it is there.
    pub fn remove(&mut self, key: &str) {
        if let Ok(at) = self.place(key) {
            self.0.remove(at);
        }
    }

    /// Copies what is borrowed.
    pub fn into_owned(self) -> StringMap<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        StringMap(self.0.into_iter().map(|(key, value)| (own(key), own(value))).collect())
    }

    /// Where `key` is, or would be.
    fn place(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(key))
    }
}

impl<'a, K: Into<Cow<'a, str>>, V: Into<Cow<'a, str>>> FromIterator<(K, V)> for StringMap<'a> {
    /// Of the values of one key the last one counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut map = Self::default();
        pairs.into_iter().for_each(|(key, value)| map.insert(key, value));
        map
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for StringMap<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = StringMap<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(StringMap::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Text(key), Text(value))) = access.next_entry()? {
                    pairs.push((key, value));
                }
                if pairs.is_sorted_by(|(a, _), (b, _)| a < b) {
                    return Ok(StringMap(pairs));
                }
                pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
                match pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                    Some(twice) => Err(de::Error::custom(format_args!("duplicate key {:?}", twice[0].0))),
                    None => Ok(StringMap(pairs)),
                }
            }
        }
        deserializer.deserialize_any(Pairs)
    }
}

impl Content<'_> {
    /// Copies what is borrowed.
    pub fn into_owned(self) -> Content<'static> {
        let Self { data, binary_data, immutable } = self;
        Content { data: data.into_owned(), binary_data: binary_data.into_owned(), immutable }
    }
}

/// A string that borrows where it has no escapes (serde borrows a `Cow` only when told so field by field).
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A struct that is read from a JSON object only. What serde derives would take the fields from a list, too, and
/// take an empty list for a struct whose fields are all absent.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

// === impl ConfigMap ===

impl<'de: 'a, 'a> Deserialize<'de> for ConfigMap<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire<'a> {
            #[serde(borrow)]
            metadata: Object<Metadata<'a>>,
            #[serde(borrow, default)]
            data: StringMap<'a>,
            #[serde(borrow, default)]
            binary_data: StringMap<'a>,
            #[serde(default)]
            immutable: Option<bool>,
        }
        let Object(wire) = Object::<Wire<'_>>::deserialize(deserializer)?;
        for (key, value) in wire.binary_data.iter() {
            base64_is_valid(value)
                .map_err(|error| de::Error::custom(format_args!("binaryData[{key:?}] is not base64: {error}")))?;
        }
        Ok(Self {
            metadata: wire.metadata.0,
            content: Content { data: wire.data, binary_data: wire.binary_data, immutable: wire.immutable },
        })
    }
}

impl<'a> ConfigMap<'a> {
    /// Reads a ConfigMap from its JSON.
    ///
    /// # Errors
    /// What could not be read, with line and column.
    pub fn parse(json: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

// === helpers ===

/// Reads `null` as the default, as the API server does.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads a struct from an [`Object`], and `null` as none.
fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let read: Option<Object<T>> = Option::deserialize(deserializer)?;
    Ok(read.map(|Object(value)| value))
}

/// Reads structs from a list of [`Object`]s, and `null` as an empty list.
fn objects<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let read: Vec<Object<T>> = nullable(deserializer)?;
    Ok(read.into_iter().map(|Object(value)| value).collect())
}

/// As [`nullable`], and borrows where it can.
fn text<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'a, str>, D::Error> {
    Option::deserialize(deserializer).map(|text| text.map_or(Cow::Borrowed(""), |Text(text)| text))
}

fn base64_is_valid(text: &str) -> Result<(), base64::DecodeError> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).map(drop)
}

#[cfg(test)]
mod tests;

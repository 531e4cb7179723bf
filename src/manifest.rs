//! Manifests: Kubernetes objects as people keep them in files, before any API server has seen them.
//!
//! ```text
//! text of a file ──read(Notation)──▶ Manifest, Manifest, …   documents in order, lists taken apart
//!                                       { place, group, kind, namespace, name, json }
//! ```
//! Each object is handed on as JSON text, so that it is read by the very code that reads what the API server
//! sends. What kubectl would refuse to apply is an error here: a text that is skipped would count as absent.

mod yaml;

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use thiserror::Error;

/// The namespace of what names none.
const DEFAULT_NAMESPACE: &str = "default";

/// How a file is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notation {
    /// One JSON value, or several after one another.
    Json,
    /// YAML 1.2, of any number of documents.
    Yaml,
}

/// One object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    /// Where it stands in its file.
    pub place: Place,
    /// Its API group, `""` for core.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; `default` where it names none.
    pub namespace: String,
    /// Its name; empty where it has none.
    pub name: String,
    /// All of it.
    pub json: String,
}

/// Where an object begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// The line of its document, from 1.
    pub line: usize,
    /// Which one of a list it is, from 1.
    pub item: Option<usize>,
}

/// Why a text is no manifest, and where.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("line {line}, column {column}: expected {expected}")]
pub struct ManifestError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What should have stood there, and what stood there instead.
    pub expected: String,
}

/// One document, as JSON.
struct Document {
    line: usize,
    json: String,
}

/// What every object says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    #[serde(borrow, default)]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    metadata: Option<HeadMetadata<'a>>,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
struct HeadMetadata<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    namespace: Option<Cow<'a, str>>,
}

/// Reads the objects of one file.
///
/// # Errors
/// [`ManifestError`] says where, and what was expected there.
pub fn read(notation: Notation, text: &str) -> Result<Vec<Manifest>, ManifestError> {
    let documents = match notation {
        Notation::Json => json(text)?,
        Notation::Yaml => yaml::read(text)?,
    };
    let mut manifests = Vec::new();
    for Document { line, json } in documents.iter().filter(|document| document.json != "null") {
        take_apart(json, Place { line: *line, item: None }, ("", ""), &mut manifests)?;
    }
    Ok(manifests)
}

// === impl Notation ===

impl Notation {
    /// The notation of a file whose name ends so, without the dot; `None` is no manifest.
    pub fn of_extension(extension: &str) -> Option<Self> {
        match extension {
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        self.item.map_or(Ok(()), |item| write!(f, ", item {item}"))
    }
}

// === impl Manifest ===

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

// === helpers ===

/// Adds the object, or the objects of the list, that `json` is. An item of a typed list, such as a PodList from
/// the API, leaves out `inherited`: apiVersion and kind.
fn take_apart(
    json: &str,
    place: Place,
    inherited: (&str, &str),
    manifests: &mut Vec<Manifest>,
) -> Result<(), ManifestError> {
    let fault = |expected: String| {
        let item = place.item.map_or_else(String::new, |item| format!(" in item {item} of the list"));
        ManifestError { line: place.line, column: 1, expected: format!("{expected}{item}") }
    };
    let head: Head<'_> = serde_json::from_str(json)
        .map_err(|error| fault(format!("a Kubernetes object ({})", without_place(&error))))?;
    let said = |said: Option<Cow<'_, str>>, inherited: &str| {
        said.map(Cow::into_owned).or_else(|| Some(inherited.to_owned())).filter(|text| !text.is_empty())
    };
    let api_version = said(head.api_version, inherited.0);
    let kind = said(head.kind, inherited.1);
    let (Some(api_version), Some(kind)) = (api_version, kind) else {
        return Err(fault("a Kubernetes object with apiVersion and kind (found none)".to_owned()));
    };
    if let (Some(of), Some(items)) = (kind.strip_suffix("List"), &head.items) {
        let inherited = if of.is_empty() { ("", "") } else { (&*api_version, of) };
        return items.iter().zip(1..).try_for_each(|(item, number)| {
            take_apart(item.get(), Place { item: Some(number), ..place }, inherited, manifests)
        });
    }
    let metadata = head.metadata.unwrap_or_default();
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    manifests.push(Manifest {
        place,
        group: group.to_owned(),
        kind,
        namespace: said(metadata.namespace, DEFAULT_NAMESPACE).unwrap_or_default(),
        name: metadata.name.unwrap_or_default().into_owned(),
        json: json.to_owned(),
    });
    Ok(())
}

fn json(text: &str) -> Result<Vec<Document>, ManifestError> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let mut documents = Vec::new();
    loop {
        let rest = &text[values.byte_offset()..];
        let start = text.len() - rest.trim_start().len();
        match values.next() {
            None => return Ok(documents),
            Some(Ok(value)) => {
                let line = 1 + text[..start].matches('\n').count();
                documents.push(Document { line, json: value.get().to_owned() });
            }
            Some(Err(error)) => {
                let expected = format!("valid JSON ({})", without_place(&error));
                return Err(ManifestError { line: error.line(), column: error.column(), expected });
            }
        }
    }
}

/// What serde_json says, without the place that it puts at the end: ours is that of the file.
pub(crate) fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests;

//! The AdmissionReview on the wire, `admission.k8s.io/v1`: our own types, for kube's lose what we must keep.
//!
//! ```text
//! bytes ──Review::parse──▶ Review<'a> ──convert──▶ policy::Request     a ConfigMap is read with the review,
//!   │                                                                  any other object stays borrowed raw JSON
//!   └─────salvage_uid────▶ uid, of a body that is broken further in
//! Answer ──encode──▶ bytes
//! ```
//! Whatever cannot be read is answered, never guessed: a body without a uid gets an HTTP error, one with a uid
//! gets a denial that says what was expected.

use super::depth;
use crate::object::{ConfigMap, seek};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use memchr::memmem;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use thiserror::Error;

/// The one version that is spoken.
const API_VERSION: &str = "admission.k8s.io/v1";
/// The one kind that is spoken.
const KIND: &str = "AdmissionReview";

/// The deepest nesting that is read, serde_json's own limit: what no rule looks into is skipped without one.
const DEEPEST: usize = 128;

/// So far into a review, in bytes, it is looked for what kind its objects are.
const HEAD: usize = 512;

/// The longest uid that is echoed; the API server's have 36 characters.
const LONGEST_UID: usize = 128;

/// What the API server sends, with the request read as `R`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a, R> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(default = "Option::default")]
    request: Option<R>,
}

/// What somebody asks the API server for, as the API server puts it; its objects are read as `O`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Review<'a, O = Object<'a>> {
    /// Names this review; the answer repeats it.
    #[serde(borrow, default)]
    pub(crate) uid: Cow<'a, str>,
    /// What `object` and `oldObject` are.
    #[serde(borrow)]
    pub(crate) kind: Kind<'a>,
    /// What the request addresses.
    #[serde(borrow)]
    pub(crate) resource: Resource<'a>,
    /// `scale`, `ephemeralcontainers`; empty for the object itself.
    #[serde(borrow, default)]
    pub(crate) sub_resource: Cow<'a, str>,
    /// Empty on a CREATE with `generateName` and on the items of a deletecollection.
    #[serde(borrow, default)]
    pub(crate) name: Cow<'a, str>,
    /// Empty for cluster-scoped objects.
    #[serde(borrow, default)]
    pub(crate) namespace: Cow<'a, str>,
    /// What is to be done.
    pub(crate) operation: Operation,
    /// Who asks.
    #[serde(borrow, default)]
    pub(crate) user_info: UserInfo<'a>,
    /// The new version; `None` on DELETE.
    #[serde(default = "Option::default")]
    pub(crate) object: Option<O>,
    /// The stored version; `None` on CREATE.
    #[serde(default = "Option::default")]
    pub(crate) old_object: Option<O>,
    /// Whether nothing will be written.
    #[serde(default)]
    pub(crate) dry_run: Option<bool>,
    /// How it is to be done.
    #[serde(borrow, default)]
    pub(crate) options: Option<Options<'a>>,
}

/// An object of a review.
#[derive(Debug)]
pub(crate) enum Object<'a> {
    /// A ConfigMap. Most of a review is in its objects, and to find where one ends takes as long as to read it.
    ConfigMap(Box<ConfigMap<'a>>),
    /// Any other, or a ConfigMap that cannot be read: an error for who asks for it.
    Raw(&'a RawValue),
}

/// The kind of a request's options tells a PUT from a PATCH.
#[derive(Debug, Deserialize)]
pub(crate) struct Options<'a> {
    /// `CreateOptions`, `UpdateOptions` (PUT), `PatchOptions` or `DeleteOptions`.
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
}

/// Group, version and kind.
#[derive(Debug, Deserialize)]
pub(crate) struct Kind<'a> {
    /// `""` for core.
    #[serde(borrow, default)]
    pub(crate) group: Cow<'a, str>,
    /// Such as `v1`.
    #[serde(borrow)]
    pub(crate) version: Cow<'a, str>,
    /// Such as `ConfigMap`.
    #[serde(borrow)]
    pub(crate) kind: Cow<'a, str>,
}

/// Group and plural.
#[derive(Debug, Deserialize)]
pub(crate) struct Resource<'a> {
    /// `""` for core.
    #[serde(borrow, default)]
    pub(crate) group: Cow<'a, str>,
    /// The plural, such as `configmaps`.
    #[serde(borrow)]
    pub(crate) resource: Cow<'a, str>,
}

/// Who asks.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct UserInfo<'a> {
    /// Such as `system:serviceaccount:prod:deployer`.
    #[serde(borrow, default)]
    pub(crate) username: Cow<'a, str>,
    /// Of the account, where it has one.
    #[serde(default)]
    pub(crate) uid: String,
    /// Such as `system:masters`.
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    /// What the authenticator adds.
    #[serde(default)]
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq)]
pub(crate) enum Operation {
    #[serde(rename = "CONNECT")]
    Connect,
    #[serde(rename = "CREATE")]
    Create,
    #[serde(rename = "DELETE")]
    Delete,
    #[serde(rename = "UPDATE")]
    Update,
}

/// Why a body is no review that can be judged.
#[derive(Debug, Error)]
pub(crate) enum Unreadable {
    #[error("the connection broke before the body was complete: {0}")]
    Broken(String),
    #[error("the content type is {0:?}, expected application/json")]
    ContentType(String),
    #[error("the body is nested deeper than {DEEPEST} levels")]
    Deep,
    #[error("the body is not an {KIND}: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the body was not complete when the time for an answer was up")]
    Late,
    #[error("request.{field} is missing, and {operation} needs it")]
    Missing { field: &'static str, operation: Operation },
    #[error("the {KIND} has no request")]
    NoRequest,
    #[error("request.uid is missing")]
    NoUid,
    #[error("request.uid is longer than {LONGEST_UID} bytes")]
    LongUid,
    #[error("request.{field} cannot be read: {source}")]
    Object { field: &'static str, source: serde_json::Error },
    #[error("{operation} of {what} is nothing that modelguard judges")]
    Stranger { operation: Operation, what: String },
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body is not UTF-8: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    #[error("found {0}, expected {API_VERSION} {KIND}")]
    Version(String),
}

/// What the API server is told.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer<'a> {
    pub(crate) uid: &'a str,
    pub(crate) allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) audit_annotations: BTreeMap<&'static str, String>,
    #[serde(skip)]
    pub(crate) patch: Option<&'a Patch>,
}

/// A Kubernetes `Status`, the part of it that a client sees.
#[derive(Debug, Serialize)]
pub(crate) struct Status<'a> {
    pub(crate) status: &'static str,
    pub(crate) code: u16,
    pub(crate) message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
    pub(crate) details: Details<'a>,
}

/// What a program reads.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Details<'a> {
    pub(crate) causes: Vec<StatusCause<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_seconds: Option<u64>,
}

/// One cause.
#[derive(Debug, Serialize)]
pub(crate) struct StatusCause<'a> {
    pub(crate) reason: &'static str,
    pub(crate) field: &'a str,
    pub(crate) message: &'a str,
}

// === impl Review ===

impl<'a> Review<'a> {
    /// Reads a body.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Unreadable> {
        let text = std::str::from_utf8(body)?;
        if depth::is_deeper_than(body, DEEPEST) {
            return Err(Unreadable::Deep);
        }
        // The API server writes the kind before the objects. Whether it is the review's own is seen once it has been read.
        let head = &body[..body.len().min(HEAD)];
        let is_hinted = memmem::find(head, br#""kind":"ConfigMap""#).is_some();
        let read = is_hinted.then(|| Review::<'a, ConfigMap<'a>>::read(text).ok()).flatten();
        let review = match read.filter(|review| review.kind.kind == "ConfigMap") {
            Some(review) => review.map(|object| Object::ConfigMap(object.into())),
            None => Review::read(text)?.map(Object::Raw),
        };
        match review.uid.len() {
            0 => Err(Unreadable::NoUid),
            1..=LONGEST_UID => Ok(review),
            _ => Err(Unreadable::LongUid),
        }
    }

    /// Whether nothing will be written.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run.unwrap_or_default()
    }

    /// Whether it is a PUT: of a whole object, and usually of one revision of it.
    pub(crate) fn is_put(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.kind == "UpdateOptions")
    }
}

impl<'a, O: Deserialize<'a>> Review<'a, O> {
    fn read(text: &'a str) -> Result<Self, Unreadable> {
        match serde_json::from_str::<Envelope<'a, Self>>(text) {
            Ok(envelope) => envelope.request(),
            // The request of another version may have another shape, and then the version is what is wrong.
            Err(error) => {
                serde_json::from_str::<Envelope<'a, IgnoredAny>>(text)?.request()?;
                Err(error.into())
            }
        }
    }

    /// The same with other objects.
    fn map<P>(self, object: impl Fn(O) -> P) -> Review<'a, P> {
        Review {
            object: self.object.map(&object),
            old_object: self.old_object.map(&object),
            uid: self.uid,
            kind: self.kind,
            resource: self.resource,
            sub_resource: self.sub_resource,
            name: self.name,
            namespace: self.namespace,
            operation: self.operation,
            user_info: self.user_info,
            dry_run: self.dry_run,
            options: self.options,
        }
    }
}

// === impl Object ===

impl<'a> Object<'a> {
    /// What has not been read yet.
    pub(crate) fn raw(&self) -> Option<&'a RawValue> {
        match self {
            Self::ConfigMap(_) => None,
            Self::Raw(json) => Some(json),
        }
    }
}

// === impl Envelope ===

impl<R> Envelope<'_, R> {
    /// The request, if it is of the version that is spoken.
    fn request(self) -> Result<R, Unreadable> {
        if self.api_version != API_VERSION || self.kind != KIND {
            return Err(Unreadable::Version(printable(&format!("{} {}", self.api_version, self.kind))));
        }
        self.request.ok_or(Unreadable::NoRequest)
    }
}

// === impl Operation ===

impl Operation {
    /// As the API server writes it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Create => "CREATE",
            Self::Delete => "DELETE",
            Self::Update => "UPDATE",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Unreadable ===

impl Unreadable {
    /// The HTTP status of the answer, or of the verdict in it.
    pub(crate) const fn status(&self) -> u16 {
        match self {
            Self::ContentType(_) => 415,
            Self::Late => 408,
            Self::TooLarge(_) => 413,
            Self::Broken(_)
            | Self::Deep
            | Self::Json(_)
            | Self::LongUid
            | Self::Missing { .. }
            | Self::NoRequest
            | Self::NoUid
            | Self::Object { .. }
            | Self::Stranger { .. }
            | Self::Utf8(_)
            | Self::Version(_) => 400,
        }
    }
}

// === impl Answer ===

impl Answer<'_> {
    /// The AdmissionReview that carries it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Envelope<'a> {
            api_version: &'static str,
            kind: &'static str,
            response: &'a Answer<'a>,
        }
        let envelope = Envelope { api_version: API_VERSION, kind: KIND, response: self };
        let always = "strings and numbers under string keys are always JSON";
        let mut json = serde_json::to_string(&envelope).expect(always);
        if let Some(patch) = self.patch {
            // serde_json would look at each character of the base64, which is the largest part by far.
            json.truncate(json.len() - "}}".len());
            json.push_str(r#","patchType":"JSONPatch","patch":""#);
            STANDARD.encode_string(serde_json::to_vec(patch).expect(always), &mut json);
            json.push_str(r#""}}"#);
        }
        json.into()
    }
}

// === salvage ===

/// The `request.uid` of a body that may break anywhere after it.
///
/// Only that one: the uid of a nested object would make the API server reject the answer, and tell the user
/// nothing.
pub(crate) fn salvage_uid(body: &[u8]) -> Option<String> {
    let uid = seek(body, &["request", "uid"]);
    uid.filter(|uid| !uid.is_empty() && uid.len() <= LONGEST_UID && !uid.chars().any(char::is_control))
}

// === helpers ===

/// What a stranger wrote, fit for a message: short, and without control characters.
pub(crate) fn printable(text: &str) -> String {
    let text = text.trim();
    let clean = text.chars().take(100).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    if clean.is_empty() { "nothing".to_owned() } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_salvaged_from_whatever_breaks_after_it() {
        for (body, uid) in [
            (r#"{"request":{"uid":"a","object":{"#, Some("a")),
            (r#"{"request":{"uid":"a""#, Some("a")),
            (r#"{"kind":"AdmissionReview","request":{"object":{"metadata":{"uid":"no"}},"uid":"a","#, Some("a")),
            (r#"{"request":{"uid":"\u0061b","kind":!"#, Some("ab")),
            (r#"{"request":{"object":{"request":{"uid":"no"}},"#, None),
            (r#"{"uid":"no","request":{"object":{"uid":"no"}}}"#, None),
            (r#"{"request":{"uid":"a"#, None),
            (r#"{"request":{"uid":7}}"#, None),
            (r#"{"request":{"uid":""}}"#, None),
            (r#"{"request":{"uid":"a\nb"}}"#, None),
            (r#"{"request":["uid"]}"#, None),
            (r#"[{"request":{"uid":"no"}}]"#, None),
            ("", None),
        ] {
            assert_eq!(salvage_uid(body.as_bytes()).as_deref(), uid, "{body}");
        }
    }

    #[test]
    fn a_uid_is_salvaged_before_what_is_not_text() {
        assert_eq!(salvage_uid(b"{\"request\":{\"uid\":\"a\",\"name\":\"\xff\"}}").as_deref(), Some("a"));
        assert_eq!(salvage_uid(b"{\"request\":{\"name\":\"\xff\",\"uid\":\"a\"}}").as_deref(), Some("a"));
        assert_eq!(salvage_uid(b"{\"request\":{\"uid\":\"\xff\"}}"), None);
    }

    #[test]
    fn a_config_map_is_read_at_once_and_left_raw_where_it_cannot_be() {
        for (kind, object, is_read) in [
            ("ConfigMap", r#"{"metadata":{"name":"models"}}"#, Some(true)),
            ("ConfigMap", r#"{"metadata":7}"#, Some(false)),
            ("ConfigMap", "null", None),
            ("Pod", r#"{"metadata":{"name":"models"}}"#, Some(false)),
            ("Pod", r#"{"kind":"ConfigMap","metadata":{"name":"models"}}"#, Some(false)),
        ] {
            let request = format!(
                r#"{{"uid":"a","object":{object},"kind":{{"version":"v1","kind":"{kind}"}},"resource":{{"resource":"configmaps"}},"operation":"CREATE"}}"#
            );
            let body = format!(r#"{{"apiVersion":"{API_VERSION}","kind":"{KIND}","request":{request}}}"#);
            let review = Review::parse(body.as_bytes()).unwrap();
            let found = review.object.map(|object| matches!(object, Object::ConfigMap(_)));
            assert_eq!(found, is_read, "{body}");
        }
    }

    #[test]
    fn a_uid_is_no_longer_than_any_that_an_api_server_sends() {
        for (length, is_read) in [(1, true), (LONGEST_UID, true), (LONGEST_UID + 1, false)] {
            let uid = "u".repeat(length);
            let request = format!(
                r#"{{"uid":"{uid}","kind":{{"version":"v1","kind":"Pod"}},"resource":{{"resource":"pods"}},"operation":"DELETE"}}"#
            );
            let body = format!(r#"{{"apiVersion":"{API_VERSION}","kind":"{KIND}","request":{request}}}"#);
            let read = Review::parse(body.as_bytes());
            assert_eq!(read.is_ok(), is_read, "{length}");
            assert!(is_read || matches!(read, Err(Unreadable::LongUid)), "{read:?}");
        }
    }

    #[test]
    fn a_million_levels_overflow_no_stack() {
        let deep = "[".repeat(1_000_000);
        let body = format!(r#"{{"request":{{"object":{deep},"uid":"a"}}}}"#);
        assert_eq!(salvage_uid(body.as_bytes()), None);
        assert!(matches!(Review::parse(body.as_bytes()), Err(Unreadable::Deep)));
        let closed = format!(r#"{{"request":{{"object":{deep}{},"uid":"a"}}}}"#, "]".repeat(1_000_000));
        assert_eq!(salvage_uid(closed.as_bytes()).as_deref(), Some("a"));
    }
}

//! From a decision to the answer on the wire.

use super::review::{Answer, Details, Status, StatusCause, Unreadable};
use crate::object::{Content, StringMap};
use crate::policy::{self, CatalogChange, Decision, Denial, Mutation};
use crate::record::{self, Digests};
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation};
use serde_json::Value;

/// Beyond this the API server cuts a warning off, once all of them together are too long.
const LONGEST_WARNING: usize = 256;
/// What the API server passes on of all warnings together, in characters.
const LONGEST_WARNINGS: usize = 4096;

// === denials of the transport's own ===

/// The denial of what could not be read.
pub(super) fn unreadable(why: &Unreadable) -> Denial {
    let next = match why {
        Unreadable::Stranger { .. } => {
            "Restore the webhook configurations from the chart: they send what they should not."
        }
        Unreadable::Late => policy::REPEAT,
        _ => "Nothing was changed. An API server does not send this: see what stands between it and modelguard.",
    };
    Denial {
        status: why.status(),
        retry_after: matches!(why, Unreadable::Late).then_some(policy::RETRY_AFTER),
        ..policy::not_verified("the admission review cannot be judged", &format!("{why}."), next, Vec::new())
    }
}

// === the answer ===

/// The answer that says `decision` about contents with these digests, with the patch that the mutating webhook adds.
pub(super) fn answer<'a>(
    uid: &'a str,
    decision: &'a Decision,
    digests: &Digests,
    patch: Option<&'a Patch>,
) -> Answer<'a> {
    Answer {
        uid,
        allowed: decision.allowed(),
        status: decision.denial.as_ref().map(status),
        warnings: warnings(&decision.warnings),
        audit_annotations: record::audit_annotations(uid, decision, digests),
        patch,
    }
}

fn status(denial: &Denial) -> Status<'_> {
    let reason = denial.code.name();
    // The rules put code and next step first: of a 422 kubectl shows nothing else.
    let causes = denial.causes.iter().map(|cause| StatusCause { reason, field: &cause.field, message: &cause.message });
    Status {
        status: "Failure",
        code: denial.status,
        message: &denial.message,
        reason: status_reason(denial.status),
        details: Details {
            causes: causes.collect(),
            retry_after_seconds: denial.retry_after.map(record::whole_seconds),
        },
    }
}

/// The `metav1.StatusReason` of an HTTP status; none for 422, for with one kubectl hides the message.
const fn status_reason(status: u16) -> Option<&'static str> {
    match status {
        400 => Some("BadRequest"),
        403 => Some("Forbidden"),
        408 | 504 => Some("Timeout"),
        409 => Some("Conflict"),
        413 => Some("RequestEntityTooLarge"),
        415 => Some("UnsupportedMediaType"),
        429 => Some("TooManyRequests"),
        500 => Some("InternalError"),
        503 => Some("ServiceUnavailable"),
        _ => None,
    }
}

/// Fit for HTTP headers, and so short that the API server passes them on whole.
fn warnings(warnings: &[String]) -> Vec<String> {
    let mut left = LONGEST_WARNINGS;
    let mut kept = Vec::new();
    for warning in warnings {
        let clean = header_safe(warning);
        let length = clean.chars().count();
        if length > left {
            break;
        }
        left -= length;
        kept.push(clean);
    }
    kept
}

fn header_safe(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    if text.chars().count() <= LONGEST_WARNING {
        return clean.collect();
    }
    clean.take(LONGEST_WARNING - 1).chain(['…']).collect()
}

// === the patch ===

/// The RFC 6902 patch that makes `mutation` of the new version; `None` if nothing is to do.
pub(super) fn patch(change: &CatalogChange<'_>, mutation: &Mutation<'_>) -> Option<Patch> {
    let new = &change.new.as_ref()?.object;
    let mut operations = annotation_operations(&new.metadata.annotations, &mutation.annotations);
    operations.extend(mutation.content.iter().flat_map(|content| content_operations(&new.content, content)));
    (!operations.is_empty()).then_some(Patch(operations))
}

fn annotation_operations(
    annotations: &StringMap<'_>,
    changes: &[(&'static str, Option<String>)],
) -> Vec<PatchOperation> {
    let mut operations = Vec::new();
    // Only then it may be missing, and nothing can be added to what is not there.
    if annotations.is_empty() && changes.iter().any(|(_, value)| value.is_some()) {
        operations.push(add(annotation_path(&[]), empty()));
    }
    for (name, value) in changes {
        match value {
            Some(value) => operations.push(add(annotation_path(&[*name]), value.as_str().into())),
            None if annotations.get(name).is_some() => {
                operations.push(remove(annotation_path(&[*name])));
            }
            None => {}
        }
    }
    operations
}

/// What makes `content` of `sent`, key by key.
fn content_operations(sent: &Content<'_>, content: &Content<'_>) -> Vec<PatchOperation> {
    let mut operations = Vec::new();
    for (name, sent, wanted) in
        [("data", &sent.data, &content.data), ("binaryData", &sent.binary_data, &content.binary_data)]
    {
        let path = |key: &str| PointerBuf::from_tokens([name, key]);
        if sent.is_empty() && !wanted.is_empty() {
            operations.push(add(PointerBuf::from_tokens([name]), empty()));
        }
        let gone = sent.iter().filter(|(key, _)| wanted.get(key).is_none());
        operations.extend(gone.map(|(key, _)| remove(path(key))));
        let other = wanted.iter().filter(|(key, value)| sent.get(key) != Some(value));
        operations.extend(other.map(|(key, value)| add(path(key), value.into())));
    }
    let immutable = || PointerBuf::from_tokens(["immutable"]);
    match (sent.immutable, content.immutable) {
        (sent, wanted) if sent == wanted => {}
        (_, Some(wanted)) => operations.push(add(immutable(), wanted.into())),
        (_, None) => operations.push(remove(immutable())),
    }
    operations
}

fn remove(path: PointerBuf) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path })
}

fn add(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path, value })
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

/// The pointer to all annotations, or to one; `/` in a name becomes `~1`.
fn annotation_path(tokens: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(["metadata", "annotations"].iter().chain(tokens).copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ConfigMap;
    use crate::policy::{Caller, Cause, Code};
    use crate::reference::CatalogKey;
    use std::time::Duration;

    fn change(json: &str) -> CatalogChange<'_> {
        let object = ConfigMap::parse(json).unwrap();
        CatalogChange::new(CatalogKey::new("prod", "models"), None, Some(object), Caller::default())
    }

    fn of(annotations: &[(&'static str, Option<String>)]) -> Mutation<'static> {
        Mutation { annotations: annotations.to_vec(), ..Mutation::default() }
    }

    /// Applies the patch as the API server does, and gives the annotations.
    fn patched(json: &str, changes: &[(&'static str, Option<String>)]) -> Value {
        let changes = &of(changes);
        let mut object: Value = serde_json::from_str(json).unwrap();
        let patch = patch(&change(json), changes).unwrap();
        json_patch::patch(&mut object, &patch).unwrap();
        object["metadata"]["annotations"].take()
    }

    #[test]
    fn annotations_are_created_where_there_are_none() {
        let set = [("modelguard.dev/revision", Some("1".to_owned()))];
        for json in [
            r#"{"metadata":{"name":"models"}}"#,
            r#"{"metadata":{"name":"models","annotations":null}}"#,
            r#"{"metadata":{"name":"models","annotations":{}}}"#,
        ] {
            assert_eq!(patched(json, &set), serde_json::json!({"modelguard.dev/revision": "1"}), "{json}");
        }
    }

    #[test]
    fn annotations_of_others_stay() {
        let json = r#"{"metadata":{"name":"models","annotations":{"a/b":"x","modelguard.dev/usage":"forged"}}}"#;
        let changes = [("modelguard.dev/revision", Some("2".to_owned())), ("modelguard.dev/usage", None)];
        let expected = serde_json::json!({"a/b": "x", "modelguard.dev/revision": "2"});
        assert_eq!(patched(json, &changes), expected);
    }

    #[test]
    fn what_is_not_there_is_not_removed() {
        let json = r#"{"metadata":{"name":"models","annotations":{"a/b":"x"}}}"#;
        assert_eq!(patch(&change(json), &of(&[("modelguard.dev/usage", None)])), None);
        assert_eq!(patch(&change(json), &Mutation::default()), None);
    }

    #[test]
    fn slashes_are_escaped() {
        let json = r#"{"metadata":{"name":"models","annotations":{"a/b":"x"}}}"#;
        let patch = patch(&change(json), &of(&[("modelguard.dev/revision", Some("2".to_owned()))])).unwrap();
        let expected = r#"[{"op":"add","path":"/metadata/annotations/modelguard.dev~1revision","value":"2"}]"#;
        assert_eq!(patch.to_string(), expected);
    }

    #[test]
    fn content_is_changed_key_by_key() {
        let content = Content {
            data: [("v1", "a"), ("v3", "c")].into_iter().collect(),
            binary_data: [("a/b~c", "AA==")].into_iter().collect(),
            immutable: None,
        };
        let mutation = Mutation { content: Some(content), ..Mutation::default() };
        let json = r#"{"metadata":{"name":"models"},"data":{"v2":"b","v3":"c"},"immutable":false}"#;
        let mut object: Value = serde_json::from_str(json).unwrap();
        let patch = patch(&change(json), &mutation).unwrap();
        assert_eq!(patch.0.len(), 5, "{patch}");
        json_patch::patch(&mut object, &patch).unwrap();
        assert_eq!(object["data"], serde_json::json!({"v1": "a", "v3": "c"}));
        assert_eq!(object["binaryData"], serde_json::json!({"a/b~c": "AA=="}));
        assert_eq!(object["immutable"], Value::Null);
    }

    #[test]
    fn only_422_has_no_reason() {
        for (status, reason) in [(403, Some("Forbidden")), (429, Some("TooManyRequests")), (422, None)] {
            assert_eq!(status_reason(status), reason, "{status}");
        }
        assert_eq!(status_reason(Code::NotVerified.status()), Some("ServiceUnavailable"));
    }

    #[test]
    fn a_denial_becomes_a_status() {
        let denial = Denial {
            code: Code::CatalogInvalid,
            status: 422,
            message: "[MG104] models: fix it".to_owned(),
            causes: vec![Cause { field: "models.yaml".to_owned(), message: "line 3".to_owned() }],
            retry_after: Some(Duration::from_millis(1200)),
        };
        let status = serde_json::to_value(status(&denial)).unwrap();
        let expected = serde_json::json!({
            "status": "Failure", "code": 422, "message": "[MG104] models: fix it",
            "details": {
                "causes": [
                    {"reason": "CatalogInvalid", "field": "models.yaml", "message": "line 3"},
                ],
                "retryAfterSeconds": 2,
            },
        });
        assert_eq!(status, expected);
    }

    #[test]
    fn warnings_fit_into_headers() {
        let long = "ä".repeat(300);
        let kept = warnings(&["a\r\nb".to_owned(), long]);
        assert_eq!(kept[0], "a  b");
        assert_eq!((kept[1].chars().count(), kept[1].chars().last()), (256, Some('…')));
    }

    #[test]
    fn warnings_stop_where_the_api_server_would_cut_them() {
        let many = vec!["x".repeat(256); 20];
        assert_eq!(warnings(&many).len(), 16);
    }
}

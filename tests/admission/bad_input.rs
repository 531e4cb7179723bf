//! What nobody should send: each gets its reason and, where one can be found, its uid; nothing is allowed.

use crate::{Bare, changed, denial, recorded};
use serde_json::{Value, json};

const LIMIT: usize = 16 << 20;

/// A body, and what is answered.
struct Case {
    name: &'static str,
    path: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
    /// Whether the answer is a review with the uid; else it is an HTTP error.
    uid: bool,
    status: u16,
    /// What the reason says.
    says: &'static str,
}

const UID: &str = "0b9f0a52-6c5e-4c38-9d2c-3f2f2a5f0001";

fn case(name: &'static str, body: impl Into<Vec<u8>>, uid: bool, status: u16, says: &'static str) -> Case {
    Case { name, path: "/validate", content_type: "application/json", body: body.into(), uid, status, says }
}

fn create() -> String {
    recorded("config-map-create").to_string()
}

/// A review with one part of its text replaced, which must be there.
fn edited(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in {text}");
    text.replacen(from, to, 1)
}

/// A recorded review under the uid that every case has.
fn with_uid(mut review: Value) -> String {
    review["request"]["uid"] = UID.into();
    review.to_string()
}

/// A catalog's creation whose `object` is this.
fn object(json: Value) -> String {
    changed("config-map-create", "/object", json).to_string()
}

fn envelopes() -> Vec<Case> {
    let create = create();
    let mut no_uid = recorded("config-map-create");
    no_uid["request"].as_object_mut().unwrap().remove("uid");
    let mut v1beta1 = recorded("config-map-create");
    v1beta1["apiVersion"] = "admission.k8s.io/v1beta1".into();
    let mut pod = recorded("config-map-create");
    pod["kind"] = "Pod".into();
    let twice = format!(r#"{{"request":{{"uid":"{UID}"}},{}"#, &create[1..]);
    vec![
        case("nothing", "", false, 400, "not an AdmissionReview"),
        case("not JSON", "hello", false, 400, "not an AdmissionReview"),
        case("an array", "[]", false, 400, "found nothing, expected admission.k8s.io/v1 AdmissionReview"),
        case("another object", r#"{"a":1}"#, false, 400, "found nothing, expected admission.k8s.io/v1 AdmissionReview"),
        case("v1beta1", v1beta1.to_string(), true, 400, "found admission.k8s.io/v1beta1 AdmissionReview, expected"),
        case("another kind", pod.to_string(), true, 400, "found admission.k8s.io/v1 Pod, expected"),
        case(
            "no request",
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
            false,
            400,
            "has no request",
        ),
        case("no uid", no_uid.to_string(), false, 400, "request.uid is missing"),
        case(
            "an empty uid",
            changed("config-map-create", "/uid", "").to_string(),
            false,
            400,
            "request.uid is missing",
        ),
        case("request twice", twice, true, 400, "duplicate field `request`"),
        case(
            "uid twice",
            edited(&create, r#""uid":"0b9"#, &format!(r#""uid":"{UID}","uid":"0b9"#)),
            true,
            400,
            "duplicate field `uid`",
        ),
        case(
            "operation twice",
            edited(&create, r#""operation":"CREATE""#, r#""operation":"UPDATE","operation":"CREATE""#),
            true,
            400,
            "duplicate field `operation`",
        ),
        case(
            "an unknown operation",
            changed("config-map-create", "/operation", "PATCH").to_string(),
            true,
            400,
            "PATCH",
        ),
        case(
            "CONNECT",
            changed("config-map-create", "/operation", "CONNECT").to_string(),
            true,
            400,
            "CONNECT of ConfigMap",
        ),
    ]
}

fn broken_bodies() -> Vec<Case> {
    // With the uid in front, as the API server writes it.
    let mut request = recorded("config-map-create")["request"].take();
    request.as_object_mut().unwrap().remove("uid");
    let envelope = |uid: &str| {
        let rest = &request.to_string()[1..];
        format!(r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{{uid}{rest}}}"#)
    };
    let create = envelope(&format!(r#""uid":"{UID}","#));
    let at = |needle: &str| create.find(needle).unwrap();
    let not_text = |before: &str| {
        let mut bytes = create.clone().into_bytes();
        let at = at(before);
        bytes[at] = 0xff;
        bytes
    };
    let nested = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let padding = |size: usize, text: &str| format!("{text}{}", " ".repeat(size - text.len()));
    let uidless = envelope("");
    vec![
        case("cut off within the object", &create[..at("s3://")], true, 400, "EOF while parsing"),
        case("cut off before the uid", &create[..at(UID)], false, 400, "EOF while parsing"),
        case("something after it", format!("{create} x"), true, 400, "trailing characters"),
        case(
            "a million levels",
            edited(&create, r#""v1":""#, &format!(r#""v0":{nested},"v1":""#)),
            true,
            400,
            "nested deeper",
        ),
        case(
            "a million levels, never closed",
            edited(&create, r#""v1":""#, &"[".repeat(1_000_000)),
            true,
            400,
            "nested deeper",
        ),
        case("not UTF-8 in the data", not_text("s3://"), true, 400, "not UTF-8"),
        case("not UTF-8 in a key", not_text("v1\""), true, 400, "not UTF-8"),
        case("not UTF-8 in the uid", not_text(UID), false, 400, "not UTF-8"),
        case("too large", padding(LIMIT + 1, &create), true, 413, "larger than 16777216 bytes"),
        case("17 MiB", padding(17 << 20, &create), true, 413, "larger than 16777216 bytes"),
        case("too large and no uid", padding(LIMIT + 1, &uidless), false, 413, "larger than 16777216 bytes"),
        Case { content_type: "text/plain", ..case("plain text", create.clone(), true, 415, "\"text/plain\"") },
        Case { content_type: "text/plain", ..case("plain text, no uid", "hello", false, 415, "\"text/plain\"") },
    ]
}

fn objects() -> Vec<Case> {
    let metadata = json!({"name": "extraction-models", "labels": {"modelguard.dev/catalog": "keys"}});
    let create = create();
    let remove = |pointer: &str| with_uid(changed("config-map-remove", pointer, Value::Null));
    let mut delete = changed("config-map-remove", "/operation", "DELETE");
    delete["request"]["object"] = Value::Null;
    delete["request"]["oldObject"] = Value::Null;
    vec![
        case(
            "no metadata",
            object(json!({"data": {}})),
            true,
            400,
            "request.object cannot be read: missing field `metadata`",
        ),
        case("a text as metadata", object(json!({"metadata": "x"})), true, 400, "request.object cannot be read"),
        case("a text as object", object("x".into()), true, 400, "request.object cannot be read"),
        case(
            "a number as data",
            object(json!({"metadata": metadata, "data": {"v1": 1}})),
            true,
            400,
            "request.object cannot be read",
        ),
        case(
            "binaryData that is no base64",
            object(json!({"metadata": metadata, "binaryData": {"v1": "!"}})),
            true,
            400,
            "not base64",
        ),
        case("a data key twice", edited(&create, r#""data":{"#, r#""data":{"v1":"","#), true, 400, "duplicate key"),
        case(
            "data twice",
            edited(&create, r#""data":{"#, r#""data":{},"data":{"#),
            true,
            400,
            "duplicate field `data`",
        ),
        case(
            "a label twice",
            edited(&create, r#""labels":{"#, r#""labels":{"modelguard.dev/catalog":"yaml","#),
            true,
            400,
            "duplicate key",
        ),
        case("no object to create", object(Value::Null), true, 400, "request.object is missing, and CREATE needs it"),
        case("no object to update to", remove("/object"), true, 400, "request.object is missing, and UPDATE needs it"),
        case(
            "no object to update",
            remove("/oldObject"),
            true,
            400,
            "request.oldObject is missing, and UPDATE needs it",
        ),
        case("no object to delete", with_uid(delete), true, 400, "request.oldObject is missing, and DELETE needs it"),
        case(
            "an old object that cannot be read",
            with_uid(changed("config-map-remove", "/oldObject", json!({"metadata": []}))),
            true,
            400,
            "request.oldObject cannot be read",
        ),
    ]
}

fn workloads() -> Vec<Case> {
    let deployment = |pointer: &str, value: Value| with_uid(changed("deployment-create", pointer, value));
    let mut update = changed("deployment-create", "/operation", "UPDATE");
    update["request"]["oldObject"] = Value::Null;
    let scale = |pointer: &str, value: Value| with_uid(changed("replica-set-scale", pointer, value));
    vec![
        case(
            "a template that cannot be decoded",
            deployment("/object/spec/template", "x".into()),
            true,
            400,
            "request.object cannot be read",
        ),
        case(
            "containers that cannot be decoded",
            deployment("/object/spec/template/spec/containers", "x".into()),
            true,
            400,
            "request.object cannot be read",
        ),
        case("no workload to create", deployment("/object", Value::Null), true, 400, "request.object is missing"),
        case("no workload to update", with_uid(update), true, 400, "request.oldObject is missing, and UPDATE needs it"),
        case(
            "a scale without its old one",
            scale("/oldObject", Value::Null),
            true,
            400,
            "request.oldObject is missing",
        ),
        case(
            "replicas that are no number",
            scale("/object/spec/replicas", "two".into()),
            true,
            400,
            "request.object cannot be read",
        ),
        case(
            "a kind that nobody judges",
            deployment("/kind/kind", "Secret".into()),
            true,
            400,
            "CREATE of Secret apps/v1",
        ),
        case(
            "a version that nobody judges",
            deployment("/kind/version", "v1beta1".into()),
            true,
            400,
            "CREATE of Deployment apps/v1beta1",
        ),
        case(
            "a Rollout of a version that nobody judges",
            deployment("/kind", json!({"group": "argoproj.io", "version": "v1", "kind": "Rollout"})),
            true,
            400,
            "CREATE of Rollout argoproj.io/v1",
        ),
        case(
            "a subresource that nobody judges",
            scale("/subResource", "status".into()),
            true,
            400,
            "(replicasets/status)",
        ),
        case(
            "a scale that nobody judges",
            scale("/resource/resource", "replicationcontrollers".into()),
            true,
            400,
            "(replicationcontrollers/scale)",
        ),
        case("a scale that is created", scale("/operation", "CREATE".into()), true, 400, "CREATE of Scale"),
        Case {
            path: "/mutate",
            ..case("a workload to mutate", deployment("/name", "x".into()), true, 400, "CREATE of Deployment")
        },
    ]
}

async fn check(cases: Vec<Case>) {
    let bare = Bare::new();
    for Case { name, path, content_type, body, uid, status, says } in cases {
        let (http, text) = bare.post(path, content_type, body).await;
        if !uid {
            assert_eq!(http, status, "{name}: {text}");
            assert!(text.contains(says), "{name}: {text}");
            continue;
        }
        assert_eq!(http, 200, "{name}: {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let response = &answer["response"];
        assert_eq!(response["uid"], UID, "{name}: {text}");
        assert_eq!(denial(response), ("MG501", status.into()), "{name}: {text}");
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{name}: {message}");
        assert!(response["status"]["reason"].is_string(), "{name}: {message}");
        assert_eq!(response["status"]["details"]["causes"][0]["field"], "MG501", "{name}");
        assert!(response["patch"].is_null(), "{name}");
    }
}

/// The same bodies, to the other webhook.
fn mutating(cases: Vec<Case>) -> Vec<Case> {
    cases.into_iter().map(|case| Case { path: "/mutate", ..case }).collect()
}

#[tokio::test]
async fn envelopes_that_cannot_be_read_are_denied() {
    check(envelopes()).await;
    check(mutating(envelopes())).await;
}

#[tokio::test]
async fn bodies_that_break_are_denied() {
    check(broken_bodies()).await;
    check(mutating(broken_bodies())).await;
}

#[tokio::test]
async fn objects_that_cannot_be_read_are_denied() {
    check(objects()).await;
    check(mutating(objects())).await;
}

#[tokio::test]
async fn workloads_that_cannot_be_judged_are_denied() {
    check(workloads()).await;
}

#[tokio::test]
async fn a_body_in_another_encoding_is_denied() {
    let bare = Bare::new();
    let request = axum::http::Request::post("/validate")
        .header("content-type", "application/json; charset=utf-8")
        .header("content-encoding", "gzip")
        .body(axum::body::Body::from(&b"\x1f\x8b"[..]));
    let response = bare.send(request.unwrap()).await;
    assert_eq!(response.status(), 415);
}

#[tokio::test]
async fn other_paths_and_methods_are_named() {
    let bare = Bare::new();
    let (status, text) = bare.post("/", "application/json", "").await;
    assert_eq!((status, &*text), (404, "expected POST /validate or POST /mutate\n"));
    let request = axum::http::Request::get("/validate").body(axum::body::Body::empty()).unwrap();
    assert_eq!(bare.send(request).await.status(), 405);
}

#[tokio::test]
async fn what_cannot_be_read_is_counted_and_recorded() {
    let bare = Bare::new();
    bare.post("/validate", "application/json", format!(r#"{{"request":{{"uid":"{UID}","#)).await;
    assert!(bare.has_metric("modelguard_admission_denials_total{reason=\"MG501\"} 1"));
    assert!(bare.has_metric(
        "modelguard_admission_requests_total{webhook=\"other\",operation=\"other\",kind=\"other\",decision=\"error\",\
         dry_run=\"false\"} 1"
    ));
    let records = bare.records().await;
    assert_eq!(records.len(), 1);
    assert_eq!(
        (&records[0]["id"], &records[0]["status"], &records[0]["object"]),
        (&UID.into(), &400.into(), &Value::Null)
    );
}

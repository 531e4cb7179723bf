//! The webhook as the API server meets it: over TLS on loopback where the wire matters, else the router alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and helpers are tests too")]

#[path = "support/server.rs"]
mod server;
#[path = "support/world.rs"]
mod world;

#[path = "admission/abuse.rs"]
mod abuse;
#[path = "admission/bad_input.rs"]
mod bad_input;
#[path = "admission/limits.rs"]
mod limits;
#[path = "admission/process.rs"]
mod process;
#[path = "admission/verdict.rs"]
mod verdict;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response};
use modelguard::admission::{App, Limits};
use modelguard::metrics::{self, Metrics, Registry};
use modelguard::record::{Log, Writer};
use modelguard::shutdown::{self, Trigger};
use parking_lot::Mutex;
use serde_json::Value;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use tower::ServiceExt;
use world::Fake;

/// modelguard's own username in these tests.
const OWN: &str = "system:serviceaccount:modelguard:modelguard";

/// A recorded review of our own writing.
fn recorded(name: &str) -> Value {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/data/reviews", &format!("{name}.json")].iter().collect();
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

/// A recorded review, with the value at a JSON pointer below `/request` replaced.
fn changed(name: &str, pointer: &str, value: impl Into<Value>) -> Value {
    let mut review = recorded(name);
    *review.pointer_mut(&format!("/request{pointer}")).unwrap() = value.into();
    review
}

fn uid(review: &Value) -> &str {
    review["request"]["uid"].as_str().unwrap()
}

/// The webhook without a server.
struct Bare {
    router: Router,
    world: Arc<Fake>,
    registry: Registry,
    log: Lines,
    writer: Writer,
    _trigger: Trigger,
}

impl Bare {
    fn new() -> Self {
        Self::limited(Limits::default())
    }

    fn limited(limits: Limits) -> Self {
        let world = Arc::new(Fake::new());
        let (trigger, shutdown) = shutdown::channel();
        let mut registry = metrics::registry();
        let metrics = Metrics::register(&mut registry);
        let lines = Lines::default();
        let (log, writer) = Log::start(lines.clone(), &metrics).unwrap();
        let app = App::new(world.clone(), Some(OWN.into()), limits, metrics, log, shutdown);
        Self { router: Arc::new(app).router(), world, registry, log: lines, writer, _trigger: trigger }
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Status and text of the answer to any body.
    async fn post(&self, path: &str, content_type: &str, body: impl Into<Body>) -> (u16, String) {
        let request = Request::post(path).header("content-type", content_type).body(body.into()).unwrap();
        let response = self.send(request).await;
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The `response` of the answer to a review.
    async fn ask(&self, path: &str, review: &Value) -> Value {
        let (status, text) = self.post(path, "application/json", review.to_string()).await;
        assert_eq!(status, 200, "{text}");
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        answer["response"].take()
    }

    fn has_metric(&self, line: &str) -> bool {
        metrics::render(&self.registry, "").1.lines().any(|found| found == line)
    }

    /// Every decision record, once nothing can be decided any more.
    async fn records(self) -> Vec<Value> {
        drop(self.router);
        self.writer.run().await.unwrap();
        let text = String::from_utf8(self.log.0.lock().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What was written to the log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A denial's code, as messages begin with it, and its HTTP status.
fn denial(response: &Value) -> (&str, u64) {
    assert_eq!(response["allowed"], false, "{response}");
    assert_eq!(response["status"]["status"], "Failure", "{response}");
    let message = response["status"]["message"].as_str().unwrap();
    let code = message.strip_prefix('[').and_then(|rest| rest.split_once(']')).unwrap().0;
    (code, response["status"]["code"].as_u64().unwrap())
}

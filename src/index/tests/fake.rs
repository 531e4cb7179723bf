//! An API server that is a function, for tests of what is asked of one.

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use futures::StreamExt;
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// A GET: the path, such as `/api/v1/pods`, and what follows the `?`.
#[derive(Clone, Debug)]
pub(in crate::index) struct Asked {
    pub(in crate::index) path: String,
    query: String,
}

/// The requests that a server was asked, in order.
#[derive(Clone, Debug, Default)]
pub(in crate::index) struct Asking(Arc<Mutex<Vec<Asked>>>);

/// A client of a server that answers with `answer`.
pub(in crate::index) fn client(answer: impl Fn(&Asked) -> Response<Body> + Send + Sync + 'static) -> (Client, Asking) {
    let asking = Asking::default();
    let (log, answer) = (asking.clone(), Arc::new(answer));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let asked = Asked {
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
        };
        log.0.lock().push(asked.clone());
        let response = answer(&asked);
        async move { Ok::<_, Infallible>(response) }
    });
    (Client::new(service, "default"), asking)
}

/// The last page of a list.
pub(in crate::index) fn list(items: &[Value]) -> Response<Body> {
    page(items, "")
}

/// A page of a list; `token` asks for the next one.
pub(in crate::index) fn page(items: &[Value], token: &str) -> Response<Body> {
    let metadata = json!({"resourceVersion": "10", "continue": token});
    respond(200, &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
}

/// A failure, as the API server words it.
pub(in crate::index) fn failure(code: u16, reason: &str) -> Response<Body> {
    respond(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
            "reason": reason, "message": format!("the server says {reason}")}),
    )
}

/// A failure of a path that leads nowhere, such as that of a kind which is not installed.
pub(in crate::index) fn no_such_page() -> Response<Body> {
    let mut response = Response::new(Body::from("404 page not found\n"));
    *response.status_mut() = axum::http::StatusCode::NOT_FOUND;
    response
}

/// A watch that shows these events, and then goes on in silence.
pub(in crate::index) fn events(events: &[Value]) -> Response<Body> {
    let lines: Vec<_> = events.iter().map(|event| Ok::<_, Infallible>(line(event))).collect();
    let body = futures::stream::iter(lines).chain(futures::stream::pending());
    Response::new(Body::from_stream(body))
}

/// A watch that shows these events and ends.
pub(in crate::index) fn ending(events: &[Value]) -> Response<Body> {
    Response::new(Body::from(events.iter().map(line).collect::<Vec<_>>().concat()))
}

/// A watch that shows these events, goes on in silence for so long, and ends.
pub(in crate::index) fn ending_after(silence: Duration, events: &[Value]) -> Response<Body> {
    let lines: Vec<_> = events.iter().map(|event| Ok::<_, Infallible>(line(event))).collect();
    let end = futures::stream::once(async move {
        tokio::time::sleep(silence).await;
        Ok(Bytes::new())
    });
    Response::new(Body::from_stream(futures::stream::iter(lines).chain(end)))
}

/// One event of a watch.
pub(in crate::index) fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

/// The event that ends a streamed list.
pub(in crate::index) fn end_of_list() -> Value {
    let annotations = json!({"k8s.io/initial-events-end": "true"});
    let metadata = json!({"resourceVersion": "10", "annotations": annotations});
    event("BOOKMARK", &json!({"kind": "Bookmark", "apiVersion": "v1", "metadata": metadata}))
}

fn respond(code: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = code.try_into().unwrap();
    response
}

fn line(event: &Value) -> Bytes {
    // As the API server writes it, the type stands before the object.
    let line = match event.get("object") {
        Some(object) => format!("{{\"type\":{},\"object\":{object}}}\n", event["type"]),
        None => format!("{event}\n"),
    };
    line.into()
}

// === impl Asked ===

impl Asked {
    /// The value of a parameter, still escaped.
    pub(in crate::index) fn parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }

    pub(in crate::index) fn is_watch(&self) -> bool {
        self.parameter("watch").is_some()
    }

    /// Whether a streamed list is asked for.
    pub(in crate::index) fn is_streaming(&self) -> bool {
        self.parameter("sendInitialEvents").is_some()
    }
}

// === impl Asking ===

impl Asking {
    /// The requests whose path ends so.
    pub(in crate::index) fn of(&self, path: &str) -> Vec<Asked> {
        let all = self.0.lock();
        all.iter().filter(|it| it.path.ends_with(path)).cloned().collect()
    }
}

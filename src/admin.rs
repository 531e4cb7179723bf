//! What operators ask of a running process, over plain HTTP on a port of its own.
//!
//! `/livez`: it runs. `/readyz`: every named condition holds, else 503 and what is missing. `/metrics`.

use crate::connections::Gate;
use crate::metrics::{self, Metrics, Registry};
use crate::shutdown::Shutdown;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum_server::Handle;
use parking_lot::RwLock;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long connections may linger once all else has stopped.
const LINGER: Duration = Duration::from_secs(1);

/// Connections of kubelets and scrapers; they come one by one. Were there more without an end, as others can open them,
/// they would take the files and the memory of the webhook.
const CONNECTIONS: usize = 64;

type Probe = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The conditions for being ready; clones share them.
#[derive(Clone, Default)]
pub struct Readiness {
    conditions: Arc<RwLock<Vec<(&'static str, Probe)>>>,
}

/// A condition that somebody says is met.
#[derive(Clone, Debug)]
pub struct Condition(Arc<AtomicBool>);

/// The admin server, listening but not yet answering.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    gate: Gate,
    readiness: Readiness,
    registry: Arc<Registry>,
}

// === impl Readiness ===

impl Readiness {
    /// Adds a condition that holds while `probe` says so; it is asked at each probe, and must not block.
    pub fn require(&self, name: &'static str, probe: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.conditions.write().push((name, Box::new(probe)));
    }

    /// Adds a condition that does not hold yet.
    pub fn condition(&self, name: &'static str) -> Condition {
        let met = Arc::new(AtomicBool::new(false));
        let probe = met.clone();
        self.require(name, move || if probe.load(Ordering::Acquire) { Ok(()) } else { Err("not yet".to_owned()) });
        Condition(met)
    }

    /// What is missing, one condition a line; empty when ready.
    pub fn missing(&self) -> Vec<String> {
        let conditions = self.conditions.read();
        let missing = conditions.iter().filter_map(|(name, probe)| Some(format!("{name}: {}", probe().err()?)));
        missing.collect()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("missing", &self.missing()).finish()
    }
}

// === impl Condition ===

impl Condition {
    /// Says whether it is met.
    pub fn set(&self, met: bool) {
        self.0.store(met, Ordering::Release);
    }
}

// === impl Admin ===

impl Admin {
    /// Listens.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn bind(
        address: SocketAddr,
        readiness: Readiness,
        registry: Arc<Registry>,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let gate = Gate::new(CONNECTIONS, metrics.clone());
        Ok(Self { listener, address, gate, readiness, registry })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stopped`, which comes after all else has stopped: probes and scrapes go on meanwhile.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, stopped: Shutdown) -> io::Result<()> {
        let app = router(self.readiness, self.registry);
        let handle = Handle::new();
        let server = axum_server::from_tcp(self.listener)?.acceptor(self.gate).handle(handle.clone()).http1_only();
        let mut server = pin!(server.serve(app.into_make_service()));
        tokio::select! {
            result = &mut server => result,
            () = stopped.leaving() => {
                handle.graceful_shutdown(Some(LINGER));
                server.await
            }
        }
    }
}

/// The routes.
pub(crate) fn router(readiness: Readiness, registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(scrape).with_state(registry))
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    let missing = readiness.missing();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", missing.join("\n"))).into_response()
}

async fn scrape(State(registry): State<Arc<Registry>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (media_type, text) = metrics::render(&registry, accept);
    ([(header::CONTENT_TYPE, media_type)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    async fn get(readiness: &Readiness, path: &str) -> (u16, String) {
        let app = router(readiness.clone(), Arc::new(metrics::registry()));
        let response = app.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing() {
        let readiness = Readiness::default();
        let listener = readiness.condition("listener");
        readiness.require("guards", || Err("the watch is stale".to_owned()));
        let expected = "not ready\nlistener: not yet\nguards: the watch is stale\n";
        assert_eq!(get(&readiness, "/readyz").await, (503, expected.to_owned()));
        listener.set(true);
        let expected = "not ready\nguards: the watch is stale\n";
        assert_eq!(get(&readiness, "/readyz").await, (503, expected.to_owned()));
    }

    #[tokio::test]
    async fn ready_once_every_condition_holds() {
        let readiness = Readiness::default();
        readiness.condition("listener").set(true);
        assert_eq!(get(&readiness, "/readyz").await, (200, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn alive_while_not_ready() {
        let readiness = Readiness::default();
        readiness.condition("listener");
        assert_eq!(get(&readiness, "/livez").await.0, 200);
    }

    #[tokio::test]
    async fn metrics_are_served() {
        let (status, text) = get(&Readiness::default(), "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("modelguard_build_info{"), "{text}");
    }
}

//! Another webhook, somebody else's, that takes its time: what makes requests long between our verdict and the commit.
//!
//! ```text
//! kube-apiserver ──in parallel──▶ modelguard ──▶ verdict        at once
//!                └──────────────▶ slow       ──▶ yes            after what the object's annotation DELAY says, in ms
//! ```

use super::control_plane::ControlPlane;
use super::wait::{LONG, poll};
use anyhow::{Context as _, Result, bail};
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use axum_server::tls_rustls::{RustlsConfig, from_tcp_rustls};
use bytes::Bytes;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How many milliseconds its request takes; only the administrator's requests do.
pub(crate) const DELAY: &str = "tests.modelguard.dev/delay";

/// Serves it on the runtime that this is called in, and registers it for the ConfigMaps, workloads and pods of `namespace`.
/// Returns once the API server asks it.
pub(crate) async fn start(cluster: &ControlPlane, namespace: &str) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?.self_signed(&key)?;
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let tls = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let asked = Arc::new(AtomicUsize::new(0));
    let app = axum::Router::new().route("/", post(review)).with_state(asked.clone());
    tokio::spawn(from_tcp_rustls(listener, RustlsConfig::from_config(tls.into()))?.serve(app.into_make_service()));

    let bundle = base64(certificate.pem().as_bytes());
    cluster.kubectl(["create", "-f-"]).stdin(registration(namespace, port, &bundle).to_string()).succeed()?;
    let probe = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}}).to_string();
    poll("the slow webhook is asked", LONG, || {
        cluster.kubectl(["create", "-n", namespace, "--dry-run=server", "-f-"]).stdin(probe.as_str()).succeed()?;
        if asked.load(Ordering::Relaxed) > 0 { Ok(()) } else { bail!("not yet") }
    })
    .context("the slow webhook")
}

async fn review(State(asked): State<Arc<AtomicUsize>>, body: Bytes) -> ([(HeaderName, &'static str); 1], String) {
    asked.fetch_add(1, Ordering::Relaxed);
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let request = &review["request"];
    let delay = request["object"]["metadata"]["annotations"][DELAY].as_str().unwrap_or_default();
    if request["userInfo"]["username"] == "admin" {
        tokio::time::sleep(Duration::from_millis(delay.parse().unwrap_or(0))).await;
    }
    let response = json!({"uid": request["uid"], "allowed": true});
    let answer = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
    ([(CONTENT_TYPE, "application/json")], answer.to_string())
}

fn registration(namespace: &str, port: u16, bundle: &str) -> Value {
    let rule = |group, resource| json!({"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource], "operations": ["CREATE", "UPDATE"]});
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "slow"},
        "webhooks": [{
            "name": "slow.tests.modelguard.dev",
            "clientConfig": {"url": format!("https://127.0.0.1:{port}/"), "caBundle": bundle},
            "rules": [rule("", "configmaps"), rule("", "pods"), rule("apps", "*"), rule("batch", "jobs")],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail", "timeoutSeconds": 30,
        }],
    })
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

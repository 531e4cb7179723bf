//! The whole webhook beside a bare server: CPU time a request, in one run.
//!
//! ```text
//! this process: HTTP/1.1 over TLS, kept alive, as the API server speaks to a Service
//!      │ the same bytes, in turns
//!      ├──▶ ours   this program once more, serving what `modelguard serve` does in a cluster
//!      └──▶ bare   this program once more: axum and rustls as ours has them, and an answer that echoes the uid
//! ```
//! CPU time is what the kernel counted for all threads of a server. Each round measures every server once, so that what
//! else the machine does meets all of them; a ratio is the median of the rounds' own. As in production, decision
//! records go to a pipe that is read, and the log says what is worth `info`. The change adds an entry, so there is
//! nothing that the rules would read in the cluster.

#[path = "support/review.rs"]
mod review;

use anyhow::{Context, bail, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::header::CONTENT_TYPE;
use axum::http::{self, Request, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use futures::StreamExt as _;
use futures::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use modelguard::admin::Readiness;
use modelguard::admission::{Config, Parts, Server};
use modelguard::clock::Clock;
use modelguard::controller::{Leadership, Progress};
use modelguard::guard::{Guard, RollbackTargets};
use modelguard::metrics::{self, Metrics};
use modelguard::names;
use modelguard::object::ConfigMap;
use modelguard::policy::Version;
use modelguard::revision::Keep;
use modelguard::world::cluster::{Cluster, history};
use modelguard::{record, shutdown, telemetry};
use review::{Release, Size};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::json;
use std::borrow::Cow;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, io, thread};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;

/// Which server a process is, and where its certificate lies.
const SERVE: &str = "MODELGUARD_BENCH_SERVE";
const TLS_DIR: &str = "MODELGUARD_BENCH_TLS_DIR";

/// How often everything is measured.
const ROUNDS: usize = 15;

/// What a round sends for one figure: two tenths of a second of CPU time, against 0.05 ms that a wakeup is late.
const REQUESTS: usize = 960;

/// The largest body, as modelguard has it.
const LARGEST_BODY: usize = 16 << 20;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// What is measured, and how many times the bare server's CPU time it may take.
const CASES: [Case; 4] = [
    Case { path: "/validate", in_flight: 1, limit: 1.5 },
    Case { path: "/validate", in_flight: 16, limit: 2.0 },
    Case { path: "/mutate", in_flight: 1, limit: 2.0 },
    Case { path: "/mutate", in_flight: 16, limit: 2.0 },
];

#[derive(Clone, Copy)]
struct Case {
    path: &'static str,
    in_flight: usize,
    limit: f64,
}

/// One of the two servers, running.
struct Running {
    child: Child,
    address: SocketAddr,
}

fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let workers = thread::available_parallelism().map_or(1, NonZero::get).min(4);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    match env::var(SERVE).as_deref() {
        Ok("ours") => runtime.block_on(ours(env::var(TLS_DIR)?.as_ref())),
        Ok("bare") => runtime.block_on(bare(env::var(TLS_DIR)?.as_ref())),
        Ok(other) => bail!("{SERVE}={other}: expected ours or bare"),
        Err(_) => runtime.block_on(compare()),
    }
}

// === the servers ===

/// A cluster in which the revisions that are asked about are kept already, as they are a moment after they were written.
async fn api_server(request: Request<kube::client::Body>) -> anyhow::Result<http::Response<kube::client::Body>> {
    if request.uri().query().is_some_and(|query| query.contains("watch=")) {
        return std::future::pending().await;
    }
    let kept = Size::ALL.map(|size| {
        let Release { old, .. } = Release::new(size);
        let version = Version::stored(ConfigMap::parse(&old).expect("a ConfigMap"));
        let keep = Keep { config_map: &review::key(), version: &version, is_needed: false };
        let written = serde_json::to_string(&keep.kept().written).expect("JSON");
        let metadata = json!({"name": keep.name(), "namespace": "prod", "annotations": {names::REVISIONS: written}});
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata})
    });
    let list = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "1"},
        "items": kept,
    });
    Ok(http::Response::new(kube::client::Body::from(list.to_string().into_bytes())))
}

/// What `modelguard serve` serves, in a cluster of which nothing must be read.
async fn ours(tls_dir: &Path) -> anyhow::Result<()> {
    let _log = telemetry::init(telemetry::Format::Text)?;
    let (_trigger, shutdown) = shutdown::channel();
    let mut registry = metrics::registry();
    let metrics = Metrics::register(&mut registry);
    let (log, writer) = record::Log::start(io::stdout(), &metrics)?;
    let (_told, leadership) = watch::channel(Leadership::default());
    let (refused, _on_refused) = mpsc::channel(1);
    let (events, _on_events) = mpsc::channel(1);
    let client = kube::Client::new(tower::service_fn(api_server), "default");
    let (history, watched) = history::watch(&client);
    tokio::spawn(watched.for_each(|()| std::future::ready(())));
    history.listed().await;
    let world = Arc::new(Cluster {
        client,
        history,
        guard: Guard::default(),
        index: Arc::default(),
        progress: Progress::new(Clock::start(), Duration::from_secs(60), RollbackTargets::default(), leadership),
        refused,
        events,
        metrics: metrics.clone(),
    });
    let config = Config { listen: ANY, admin_listen: ANY, tls_dir: tls_dir.to_owned(), ..Config::default() };
    let parts = Parts { world, registry, metrics, log, writer, readiness: Readiness::default(), shutdown };
    let server = Server::bind(config, parts).await?;
    println!("{}", server.address());
    Ok(server.serve().await?)
}

/// Reads the body, parses it with the uid as the one field that is read (what else is in it is skipped, and must be JSON),
/// and allows. It has no limits but those of axum, no log and no metrics.
async fn bare(tls_dir: &Path) -> anyhow::Result<()> {
    let listener = TcpListener::bind(ANY)?;
    listener.set_nonblocking(true)?;
    let tls = RustlsConfig::from_pem_file(tls_dir.join("tls.crt"), tls_dir.join("tls.key")).await?;
    let acceptor = RustlsAcceptor::new(tls).acceptor(NoDelayAcceptor::new());
    let routes = Router::new().route("/validate", post(echo)).route("/mutate", post(echo));
    let routes = routes.layer(DefaultBodyLimit::max(LARGEST_BODY));
    println!("{}", listener.local_addr()?);
    let mut server = axum_server::from_tcp(listener)?.acceptor(acceptor);
    server.http_builder().http1().header_read_timeout(Duration::from_secs(120));
    Ok(server.serve(routes.into_make_service()).await?)
}

async fn echo(body: Bytes) -> impl IntoResponse {
    #[derive(Deserialize)]
    struct Review<'a> {
        #[serde(borrow)]
        request: Asked<'a>,
    }
    #[derive(Deserialize)]
    struct Asked<'a> {
        #[serde(borrow)]
        uid: Cow<'a, str>,
    }
    let Ok(Review { request }) = serde_json::from_slice::<Review<'_>>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let response = json!({"uid": request.uid, "allowed": true});
    let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    ([(CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}

// === the comparison ===

async fn compare() -> anyhow::Result<()> {
    let tls_dir = tempfile::tempdir()?;
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    fs::write(tls_dir.path().join("tls.crt"), certified.cert.pem())?;
    fs::write(tls_dir.path().join("tls.key"), certified.signing_key.serialize_pem())?;
    let servers = [Running::start("ours", tls_dir.path())?, Running::start("bare", tls_dir.path())?];

    println!("each of {ROUNDS} rounds sends a review {REQUESTS} times");
    for (size, case) in Size::ALL.into_iter().flat_map(|size| CASES.map(|case| (size, case))) {
        let Release { old, asked, new, .. } = Release::new(size);
        let body = &review(&old, if case.path == "/mutate" { &asked } else { &new });
        let mut connections = Vec::new();
        for server in &servers {
            let connect = (0..case.in_flight).map(|_| connect(server.address, certified.cert.der()));
            connections.push(try_join_all(connect).await?);
        }
        let mut rounds = Vec::new();
        // The first round warms up.
        for _ in 0..=ROUNDS {
            let mut round = [0.0; 2];
            for ((server, connections), micros) in servers.iter().zip(&mut connections).zip(&mut round) {
                let before = server.cpu_time()?;
                send(connections, case.path, body).await?;
                *micros = (server.cpu_time()? - before).as_secs_f64() * 1e6 / REQUESTS as f64;
            }
            rounds.push(round);
        }
        print!("{}, a review of {} bytes, ", size.name(), body.len());
        report(case, &rounds[1..]);
    }
    Ok(())
}

fn report(case: Case, rounds: &[[f64; 2]]) {
    let [ours, bare] = [0, 1].map(|server| median(rounds.iter().map(|round| round[server])));
    let ratio = median(rounds.iter().map(|[ours, bare]| ours / bare));
    let Case { path, in_flight, limit } = case;
    let over = if ratio > limit { ", OVER" } else { "" };
    println!(
        "{path}, {in_flight} in flight: ours {ours:.0} µs, bare {bare:.0} µs, ratio {ratio:.2} (limit {limit}{over})"
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Running {
    fn start(which: &str, tls_dir: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        let command = command.env(SERVE, which).env(TLS_DIR, tls_dir).env_remove("RUST_LOG").stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut address = String::new();
        stdout.read_line(&mut address)?;
        thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
        let address = address.trim().parse().with_context(|| format!("{which} does not say where it listens"))?;
        Ok(Self { child, address })
    }

    /// What its threads have run so far. None of them ends meanwhile.
    fn cpu_time(&self) -> anyhow::Result<Duration> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
            nanos += schedstat.split(' ').next().context("a number")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === the API server's part ===

/// The review that the API server sends of an UPDATE.
fn review(old: &str, new: &str) -> Bytes {
    let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    let resource = json!({"group": "", "version": "v1", "resource": "configmaps"});
    let user = json!({"username": "system:serviceaccount:ci:deployer", "uid": "6f5ab0d3-4be2-4dd5-9a09-3d2f6f1f4b53",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:ci", "system:authenticated"]});
    let options = json!({"kind": "PatchOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "kubectl"});
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"705ab4f5-6393-11e8-b7cc-42010a800002","kind":{kind},"resource":{resource},"requestKind":{kind},"requestResource":{resource},"name":"models","namespace":"prod","operation":"UPDATE","userInfo":{user},"object":{new},"oldObject":{old},"dryRun":false,"options":{options}}}}}"#
    )
    .into()
}

async fn connect(address: SocketAddr, trusted: &CertificateDer<'static>) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone())?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost")?, tcp).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends all requests of a round, each connection its share, one after the other.
async fn send(connections: &mut [SendRequest<Full<Bytes>>], path: &str, body: &Bytes) -> anyhow::Result<()> {
    let share = REQUESTS / connections.len();
    try_join_all(connections.iter_mut().map(async |connection| {
        for _ in 0..share {
            connection.ready().await?;
            let request = Request::post(format!("{path}?timeout=5s")).header("host", "localhost");
            let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(body.clone()))?;
            let response = connection.send_request(request).await?;
            ensure!(response.status() == StatusCode::OK, "answered {}", response.status());
            let answer = response.into_body().collect().await?.to_bytes();
            ensure!(memchr::memmem::find(&answer, br#""allowed":true"#).is_some(), "{answer:?}");
        }
        Ok(())
    }))
    .await
    .map(drop)
}

//! What others can do to the webhook, at full size, and what the API server notices of it.
//!
//! ```text
//! 127.0.0.1  the API server: a review every 20 ms, by turns in a connection that it has and in a new one ─┐
//! 127.0.0.66 the enemy: one abuse after the other, for some seconds each                                 ─┴▶ modelguard
//! ```
//! A call's time counts from when it should have begun. Client and server share the machine, and so its cores.

#![allow(missing_docs, clippy::unwrap_used, reason = "a program that measures, and fails by panicking")]

use axum::http::Request;
use bytes::Bytes;
use futures::future::{BoxFuture, join_all, select_all};
use futures::{FutureExt as _, StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::{interval, sleep, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long each abuse goes on once it has begun.
const LASTS: Duration = Duration::from_secs(5);

/// What the API server waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the chart gives a pod, in MiB (`resources.limits.memory`).
const MOST_MEMORY: u64 = 512;

/// Our ends of 5,000 connections and theirs, and room.
const FILES: u64 = 6_000;

const SERVER: [u8; 4] = [127, 0, 0, 1];
const ENEMY: [u8; 4] = [127, 0, 0, 66];

const MODELS: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: extraction-models, namespace: prod, \
    labels: {modelguard.dev/catalog: keys}}, data: {v1: s3://models/extraction/1, v2: s3://models/extraction/2}}";

const HEAD: &str = "POST /validate?timeout=5s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

type Abuse = fn(Target) -> BoxFuture<'static, ()>;

/// The real program.
struct Server {
    process: Child,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    _dirs: [TempDir; 2],
}

/// Where to connect to, and from where.
#[derive(Clone)]
struct Target {
    address: SocketAddr,
    from: [u8; 4],
    tls: Arc<ClientConfig>,
    /// What waits for it knows that all is in place.
    begun: Arc<Notify>,
}

/// What became of the API server's calls.
#[derive(Default)]
struct Calls {
    times: Vec<Duration>,
    late: usize,
    refused: usize,
}

type Sender = http1::SendRequest<Full<Bytes>>;

fn main() -> ExitCode {
    // `cargo test --benches` only wants to know that it can be built.
    if !std::env::args().any(|arg| arg == "--bench") {
        return ExitCode::SUCCESS;
    }
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if files < FILES {
        eprintln!("5,000 connections need {FILES} open files, and `ulimit -Hn` allows {files}");
        return ExitCode::FAILURE;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Apart from the abuse, which has a runtime of its own: only the server's delays are to count.
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run())
}

async fn run() -> ExitCode {
    let abuses: [(&str, [u8; 4], Abuse); 12] = [
        ("nothing", ENEMY, |target| async move { target.begun.notify_one() }.boxed()),
        ("5,000 connections without a handshake", ENEMY, |target| silent(target).boxed()),
        ("5,000 idle connections", ENEMY, |target| idle(target, false).boxed()),
        ("5,000 that asked once, of the same address", SERVER, |target| idle(target, true).boxed()),
        ("1,000 headers, a byte a second", ENEMY, |target| slow(target, HEAD).boxed()),
        ("1,000 bodies, a byte a second", ENEMY, |target| slow(target, "").boxed()),
        ("64 bodies of 16 MiB at once", ENEMY, |target| flood(target, Arc::new([large()]), 64, 0).boxed()),
        ("reviews, 64 connections of each protocol", ENEMY, |target| flood(target, small(), 64, 64).boxed()),
        ("the same, of the same address", SERVER, |target| flood(target, small(), 64, 64).boxed()),
        ("reviews of catalogs of 1 MiB, 64 connections", ENEMY, |target| flood(target, catalog(), 64, 0).boxed()),
        ("streams reset at once, 16 connections", ENEMY, |target| resets(target).boxed()),
        ("nothing, afterwards", ENEMY, |target| async move { target.begun.notify_one() }.boxed()),
    ];
    let server = Server::start();
    println!("{:<46} {:>6} {:>8} {:>9} {:>9} {:>9} {:>9}", "", "calls", "in time", "p50", "p99", "max", "memory");
    let (mut failed, mut most) = (0, 0);
    for (name, from, abuse) in abuses {
        let calls = server.measure(from, abuse).await;
        // Behind its own address the API server shares its slots.
        failed += if from == SERVER { 0 } else { calls.late + calls.refused };
        let peak = server.peak();
        most = most.max(peak);
        println!("{name:<46} {}", calls.row(&format!("{peak} MiB")));
    }
    if failed > 0 {
        eprintln!("{failed} calls of the API server were late or refused");
    }
    if most > MOST_MEMORY {
        eprintln!("{most} MiB were resident, more than the chart gives it: {MOST_MEMORY} MiB");
    }
    if failed > 0 || most > MOST_MEMORY { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

// === impl Server ===

impl Server {
    fn start() -> Self {
        let [tls, world] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(tls.path().join("tls.crt"), certified.cert.pem()).unwrap();
        fs::write(tls.path().join("tls.key"), certified.signing_key.serialize_pem()).unwrap();
        fs::write(world.path().join("models.yaml"), MODELS).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_modelguard"));
        command.env_clear().args(["serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--log-format=json"]);
        command.arg("--standalone").arg(world.path()).arg("--tls-dir").arg(tls.path());
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines().map(|line| line.unwrap());
        let address = log.by_ref().find_map(|line| {
            let line: Value = serde_json::from_str(&line).unwrap();
            (line["message"] == "serving").then(|| line["address"].as_str().unwrap().parse().unwrap())
        });
        std::thread::spawn(move || log.for_each(drop));
        let mut roots = RootCertStore::empty();
        roots.add(certified.cert.der().clone()).unwrap();
        let tls_client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { process, address: address.expect("it serves"), tls: tls_client.into(), _dirs: [tls, world] }
    }

    fn target(&self, from: [u8; 4]) -> Target {
        Target { address: self.address, from, tls: self.tls.clone(), begun: Arc::default() }
    }

    /// The API server's calls, from when the abuse begins.
    async fn measure(&self, from: [u8; 4], abuse: Abuse) -> Calls {
        fs::write(self.proc("clear_refs"), "5").unwrap();
        let target = self.target(from);
        let begun = target.begun.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.spawn(abuse(target));
        let calls = calls(&self.target(SERVER), &begun).await;
        runtime.shutdown_background();
        calls
    }

    /// The most memory since it was asked last, in MiB.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib >> 10
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.process.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// === the API server ===

/// Asks until the abuse has gone on for long enough, and at least for as long.
async fn calls(target: &Target, begun: &Notify) -> Calls {
    let review = Bytes::from(recorded("deployment-create").to_string());
    let mut calls = Calls::default();
    let mut kept = None;
    let mut ticks = interval(Duration::from_millis(20));
    let begun = begun.notified().then(|()| sleep(LASTS));
    let mut over = std::pin::pin!(begun);
    for turn in 0.. {
        let scheduled = tokio::select! {
            () = &mut over => break,
            scheduled = ticks.tick() => scheduled,
        };
        let answer = async {
            if turn % 2 == 0 {
                let mut new = target.http1().await?;
                return post(&mut new, review.clone()).await;
            }
            let mut sender = match kept.take() {
                Some(sender) => sender,
                None => target.http1().await?,
            };
            let answer = post(&mut sender, review.clone()).await?;
            kept = Some(sender);
            Ok(answer)
        };
        match timeout_at(scheduled + PATIENCE, answer).await {
            Err(_elapsed) => calls.late += 1,
            Ok(answer) => {
                let judged = answer.ok().and_then(|(_, body)| serde_json::from_slice::<Value>(&body).ok());
                let allowed = judged.is_some_and(|judged| judged["response"]["allowed"] == true);
                calls.refused += usize::from(!allowed);
            }
        }
        calls.times.push(scheduled.elapsed());
    }
    calls
}

impl Calls {
    fn row(mut self, memory: &str) -> String {
        self.times.sort();
        let all = self.times.len();
        let at = |share: usize| format!("{:.1} ms", self.times[(all * share / 100).min(all - 1)].as_secs_f64() * 1e3);
        let in_time = all - self.late - self.refused;
        format!("{all:>6} {in_time:>8} {:>9} {:>9} {:>9} {memory:>9}", at(50), at(99), at(100))
    }
}

// === connections ===

impl Target {
    async fn tcp(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((self.from, 0)))?;
        socket.connect(self.address).await
    }

    async fn connect(&self, protocol: &[u8]) -> io::Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::clone(&self.tls);
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.tcp().await?).await
    }

    async fn http1(&self) -> io::Result<Sender> {
        let stream = TokioIo::new(self.connect(b"http/1.1").await?);
        let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn http2(&self) -> Result<h2::client::SendRequest<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
        let (sender, connection) = h2::client::handshake(self.connect(b"h2").await?).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

async fn post(sender: &mut Sender, body: Bytes) -> io::Result<(u16, Bytes)> {
    sender.ready().await.map_err(io::Error::other)?;
    let request = Request::post("/validate?timeout=5s").header("host", "localhost");
    let request = request.header("content-type", "application/json").body(Full::new(body)).unwrap();
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await.map_err(io::Error::other)?.to_bytes()))
}

// === abuses ===

/// Opens connections, a few at a time, then holds them for ever.
async fn hold<T, F: Future<Output = io::Result<T>>>(target: Target, open: impl Fn(Target) -> F) {
    let held: Vec<_> = stream::iter(0..5000).map(|_| open(target.clone())).buffer_unordered(16).collect().await;
    target.begun.notify_one();
    std::future::pending::<()>().await;
    drop(held);
}

async fn silent(target: Target) {
    hold(target, |target| async move { target.tcp().await }).await;
}

async fn idle(target: Target, asked: bool) {
    hold(target, move |target| async move {
        let mut sender = target.http1().await?;
        if asked {
            post(&mut sender, small()[0].clone()).await?;
        }
        Ok(sender)
    })
    .await;
}

/// A thousand requests of which a byte comes each second, for ever: `head`, or a body where that is empty.
async fn slow(target: Target, head: &'static str) {
    let one = async || {
        let Ok(mut stream) = target.connect(b"http/1.1").await else { return };
        let body = format!("{HEAD}content-length: 1000\r\n\r\n");
        let (first, rest) = if head.is_empty() { (&*body, " ".repeat(1000)) } else { ("", head.to_owned()) };
        let mut sent = stream.write_all(first.as_bytes()).await;
        for byte in rest.bytes() {
            if sent.is_err() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
            sent = stream.write_all(&[byte]).await;
        }
    };
    let again = async || loop {
        one().await;
    };
    target.begun.notify_one();
    join_all((0..1000).map(|_| again())).await;
}

/// Asks as fast as it goes, over so many connections of each protocol.
async fn flood(target: Target, reviews: Arc<[Bytes]>, http1: usize, http2: usize) {
    target.begun.notify_one();
    let one = async |at: usize| loop {
        let Ok(mut sender) = target.http1().await else { continue };
        while post(&mut sender, reviews[at % reviews.len()].clone()).await.is_ok() {}
    };
    let other = async |at: usize| loop {
        let Ok(sender) = target.http2().await else { continue };
        let streams = (0..16).map(|_| stream_of(sender.clone(), &reviews[at % reviews.len()]).boxed());
        select_all(streams).await;
    };
    futures::join!(join_all((0..http1).map(one)), join_all((0..http2).map(other)));
}

/// Asks over HTTP/2, one request after the other, until the connection ends.
async fn stream_of(mut sender: h2::client::SendRequest<Bytes>, review: &Bytes) -> Option<()> {
    loop {
        sender = sender.ready().await.ok()?;
        let request = Request::post("https://localhost/validate").header("content-type", "application/json");
        let (answer, mut body) = sender.send_request(request.body(()).unwrap(), false).ok()?;
        body.send_data(review.clone(), true).ok()?;
        let mut body = answer.await.ok()?.into_body();
        while let Some(chunk) = body.data().await {
            body.flow_control().release_capacity(chunk.ok()?.len()).ok()?;
        }
    }
}

/// Opens streams and resets them, in connections that are opened anew when the server has had enough.
async fn resets(target: Target) {
    target.begun.notify_one();
    let one = async || loop {
        let Ok(mut sender) = target.http2().await else { continue };
        while let Ok(ready) = sender.ready().await {
            sender = ready;
            let request = Request::post("https://localhost/validate").body(()).unwrap();
            let Ok((_, mut body)) = sender.send_request(request, false) else { break };
            body.send_reset(h2::Reason::CANCEL);
            // Nothing here waits by itself, and what is queued must be sent.
            tokio::task::yield_now().await;
        }
    };
    join_all((0..16).map(|_| one())).await;
}

// === reviews ===

fn recorded(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/reviews").join(format!("{name}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn small() -> Arc<[Bytes]> {
    Arc::new(["deployment-create", "config-map-create"].map(|name| recorded(name).to_string().into()))
}

/// The largest that is read, blanks for the most part.
fn large() -> Bytes {
    let review = recorded("deployment-create").to_string();
    format!("{review}{}", " ".repeat((16 << 20) - review.len())).into()
}

/// A catalog of small models in YAML, as large as a ConfigMap can be.
fn catalog() -> Arc<[Bytes]> {
    let mut review = recorded("config-map-create");
    let models: String = (0..9000)
        .map(|at| format!("- {{name: model-{at:05}, version: v1, uri: 's3://models/model-{at:05}/v1/{at:040}'}}\n"))
        .collect();
    let object = &mut review["request"]["object"];
    object["metadata"]["labels"] = json!({"modelguard.dev/catalog": "yaml"});
    object["data"] = json!({"models.yaml": models});
    Arc::new([review.to_string().into()])
}

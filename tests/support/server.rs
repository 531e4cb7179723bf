//! The real server on loopback, its certificates, and clients that see what is on the wire.

use crate::world::Fake;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use modelguard::admin::Readiness;
use modelguard::admission::{Config, Error, Limits, Parts, Server};
use modelguard::metrics::{self, Metrics};
use modelguard::record::Log;
use modelguard::shutdown::{self, Trigger};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What no condition may take longer to come true, on however slow a machine; less than the 30 s after which a
/// certificate is read again, watched or not.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fails the test when `future` is not done in time.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("this should have happened long ago")
}

/// Asks again and again until the answer is yes.
pub(crate) async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    soon(async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A certificate authority that clients trust.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate and its key, in PEM.
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn issue(&self) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Leaf { certificate, key: key.serialize_pem() }
    }
}

/// Replaces the content of `dir` as kubelet does: a new folder, and the symlink `..data` renamed over the old
/// one. `tls.crt` and `tls.key` are symlinks through it that never change.
pub(crate) fn mount(dir: &Path, version: &str, certificate: &str, key: &str) {
    let folder = dir.join(format!("..{version}"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("tls.crt"), certificate).unwrap();
    fs::write(folder.join("tls.key"), key).unwrap();
    let fresh = dir.join("..data_tmp");
    symlink(format!("..{version}"), &fresh).unwrap();
    fs::rename(fresh, dir.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        if !dir.join(name).is_symlink() {
            symlink(Path::new("..data").join(name), dir.join(name)).unwrap();
        }
    }
}

/// A server, served.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) world: Arc<Fake>,
    pub(crate) authority: Authority,
    pub(crate) tls: TempDir,
    pub(crate) trigger: Trigger,
    pub(crate) task: JoinHandle<Result<(), Error>>,
}

/// A configuration for tests: any port, little patience.
pub(crate) fn config(limits: Limits) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        listen: any,
        admin_listen: any,
        own_username: Some("system:serviceaccount:modelguard:modelguard".into()),
        limits,
        shutdown_delay: Duration::from_secs(3600),
        drain: Duration::from_secs(3600),
        ..Config::default()
    }
}

impl Running {
    pub(crate) async fn new() -> Self {
        Self::start(config(Limits::default())).await
    }

    pub(crate) async fn start(config: Config) -> Self {
        Self::start_with_log(config, io::sink()).await
    }

    pub(crate) async fn start_with_log(config: Config, out: impl io::Write + Send + 'static) -> Self {
        let authority = Authority::new();
        let tls = TempDir::new().unwrap();
        let leaf = authority.issue();
        mount(tls.path(), "1", &leaf.certificate, &leaf.key);
        let config = Config { tls_dir: tls.path().to_owned(), ..config };
        let (server, world, trigger) = bind_with_log(config, out).await.unwrap();
        let (address, admin) = (server.address(), server.admin_address());
        let task = tokio::spawn(server.serve());
        Self { address, admin, world, authority, tls, trigger, task }
    }

    fn client_config(&self, protocol: &[u8]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate.clone()).unwrap();
        let provider = rustls::crypto::ring::default_provider();
        let builder = ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        config.into()
    }

    /// A TCP connection from this address of loopback.
    pub(crate) async fn tcp(&self, from: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// A TLS connection from this address that has agreed on `protocol`, or why there is none.
    pub(crate) async fn try_connect(&self, from: [u8; 4], protocol: &[u8]) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.client_config(protocol));
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), self.tcp(from).await).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        Ok(stream)
    }

    /// A TLS connection that has agreed on `protocol`.
    pub(crate) async fn connect(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        self.try_connect([127, 0, 0, 1], protocol).await.unwrap()
    }

    /// The certificate that a new connection is shown.
    pub(crate) async fn certificate(&self) -> CertificateDer<'static> {
        let stream = self.connect(b"http/1.1").await;
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// An HTTP/1.1 connection.
    pub(crate) async fn http1(&self) -> Http1 {
        self.http1_from([127, 0, 0, 1]).await
    }

    /// An HTTP/1.1 connection from this address.
    pub(crate) async fn http1_from(&self, from: [u8; 4]) -> Http1 {
        let stream = TokioIo::new(self.try_connect(from, b"http/1.1").await.unwrap());
        let (sender, connection) = http1::handshake(stream).await.unwrap();
        Http1 { sender, connection: tokio::spawn(connection) }
    }

    /// An HTTP/2 connection.
    pub(crate) async fn http2(&self) -> Http2 {
        let stream = self.connect(b"h2").await;
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        Http2 { sender, connection: tokio::spawn(connection) }
    }

    /// Sends these bytes in a connection of their own, and reads until the server closes it.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect(b"http/1.1").await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer).await {
            Ok(_) => {}
            // Closed without the TLS goodbye.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => panic!("{error}"),
        }
        String::from_utf8(answer).unwrap()
    }

    /// What the admin port says.
    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        let stream = TokioIo::new(TcpStream::connect(self.admin).await.unwrap());
        let (mut sender, connection) = http1::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::get(path).header("host", "localhost").body(Full::<Bytes>::default()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        connection.abort();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Whether a metric has this value.
    pub(crate) async fn has_metric(&self, line: &str) -> bool {
        self.admin("/metrics").await.1.lines().any(|found| found == line)
    }

    /// Ends it, and says how it ended.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        self.trigger.pull();
        self.trigger.pull();
        soon(self.task).await.unwrap()
    }
}

/// A server that listens and is not yet served.
pub(crate) async fn bind(config: Config) -> Result<(Server<Fake>, Arc<Fake>, Trigger), Error> {
    bind_with_log(config, io::sink()).await
}

/// Such a server whose decision records go to `out`.
pub(crate) async fn bind_with_log(
    config: Config,
    out: impl io::Write + Send + 'static,
) -> Result<(Server<Fake>, Arc<Fake>, Trigger), Error> {
    let world = Arc::new(Fake::new());
    let (trigger, shutdown) = shutdown::channel();
    let mut registry = metrics::registry();
    let metrics = Metrics::register(&mut registry);
    let (log, writer) = Log::start(out, &metrics).unwrap();
    let readiness = Readiness::default();
    let informed = world.clone();
    readiness.require("configurations", move || {
        let stale = informed.with(|state| state.stale.clone());
        stale.map_or(Ok(()), |unread| Err(unread.to_string()))
    });
    let parts = Parts { world: world.clone(), registry, metrics, log, writer, readiness, shutdown };
    Ok((Server::bind(config, parts).await?, world, trigger))
}

/// An HTTP/1.1 connection.
pub(crate) struct Http1 {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Ends when the connection does.
    pub(crate) connection: JoinHandle<hyper::Result<()>>,
}

impl Http1 {
    pub(crate) async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> (StatusCode, HeaderMap, Bytes) {
        self.sender.ready().await.unwrap();
        let request = Request::post(path).header("host", "localhost").header("content-type", "application/json");
        let request = request.body(Full::new(body.into())).unwrap();
        let response = soon(self.sender.send_request(request)).await.unwrap();
        let (head, body) = response.into_parts();
        (head.status, head.headers, soon(body.collect()).await.unwrap().to_bytes())
    }

    /// Asks, and reads the answer.
    pub(crate) async fn review(&mut self, path: &str, review: &Value) -> Value {
        let (status, _, body) = self.post(path, review.to_string()).await;
        assert_eq!(status, 200, "{body:?}");
        serde_json::from_slice(&body).unwrap()
    }
}

/// An HTTP/2 connection.
pub(crate) struct Http2 {
    pub(crate) sender: h2::client::SendRequest<Bytes>,
    /// Ends when the connection does.
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

impl Http2 {
    pub(crate) async fn post(
        &mut self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), h2::Error> {
        let uri = format!("https://localhost{path}");
        let request = Request::post(uri).header("content-type", "application/json").body(()).unwrap();
        self.sender = self.sender.clone().ready().await?;
        let (response, mut sending) = self.sender.send_request(request, false)?;
        sending.send_data(body.into(), true)?;
        let (head, mut body) = soon(response).await?.into_parts();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok((head.status, head.headers, bytes))
    }

    /// Asks, and reads the answer.
    pub(crate) async fn review(&mut self, path: &str, review: &Value) -> Result<Value, h2::Error> {
        let (status, _, body) = self.post(path, review.to_string()).await?;
        assert_eq!(status, 200, "{body:?}");
        Ok(serde_json::from_slice(&body).unwrap())
    }
}

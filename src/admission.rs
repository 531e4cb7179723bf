//! The webhook: HTTPS in, reviews judged, answers out.
//!
//! ```text
//!            ┌ body: at most 16 MiB, 64 MiB in all  ┐  ┌ slots ┐
//! request ──▶│ review.rs: the wire                  │─▶│ a path │─▶ judge.rs ──▶ answer.rs ──▶ answer
//!            │ convert.rs: what it asks             │  └───────┘       ▲              └─▶ record, metrics, settle
//!            └──────────────────────────────────────┘                World
//! ```
//! Everything between the first byte and the answer happens within the deadline that the API server gives. A
//! request that cannot be read, judged or fitted in gets a denial with its reason: never a cut connection, and
//! never the benefit of the doubt. What there is little of (connections, slots, memory for bodies) is shared fairly among
//! the addresses that ask: `shares.rs`, `connections.rs`.

mod answer;
mod body;
mod convert;
mod depth;
mod handler;
mod judge;
mod limits;
mod review;
mod shares;
mod tls;

pub use handler::App;
pub use limits::Limits;
pub use tls::TlsError;

use crate::admin::{Admin, Condition, Readiness};
use crate::connections::Gate;
use crate::metrics::{Metrics, Registry};
use crate::record;
use crate::shutdown::{self, Shutdown, TaskEnded, Tasks};
use crate::world::World;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// How long a connection may be idle, or take over the header of a request. Longer than the 90 s after which
/// the API server closes idle connections itself: were we first, a request might meet a closing connection.
const IDLE: Duration = Duration::from_secs(120);

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What one connection may have under way over HTTP/2: clients that want more open another, which can be shed alone.
const STREAMS: u32 = 16;

/// What may be received of a connection before it is asked for: the review of two ConfigMaps of 8 KiB, in one piece. Each
/// further piece wakes the connection's own task, and whatever core is idle goes on with it: that took 30 µs of CPU time.
/// It is the default window of HTTP/2, too.
const UNREAD: u32 = 64 << 10;

/// The largest header of a request over HTTP/2: with a token of a few KiB. Over HTTP/1.1 it must fit in what is unread.
const HEADER: u32 = 16 << 10;

/// How often HTTP/2 connections are asked whether the other end still lives.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How far apart the beats of [`beat`] are: less than the shortest timeout that a webhook is usually given.
const BEAT: Duration = Duration::from_secs(1);

/// How long the last decision records may take to be written.
const LINGER: Duration = Duration::from_secs(1);

/// How the servers are set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the webhook listens; port 0 takes any that is free.
    pub listen: SocketAddr,
    /// Where probes and metrics are served.
    pub admin_listen: SocketAddr,
    /// The folder of `tls.crt` and `tls.key`.
    pub tls_dir: PathBuf,
    /// modelguard's own username, if it is known: its requests bypass the limit of concurrency.
    pub own_username: Option<Box<str>>,
    /// What is too much.
    pub limits: Limits,
    /// How long to go on serving after being told to stop, while load balancers hear of it.
    pub shutdown_delay: Duration,
    /// How long requests may then take to finish.
    pub drain: Duration,
}

/// What the servers work with.
#[derive(Debug)]
pub struct Parts<W> {
    /// What decisions are made about.
    pub world: Arc<W>,
    /// All metrics, those of others included.
    pub registry: Registry,
    /// The transport's own.
    pub metrics: Metrics,
    /// Where decision records go.
    pub log: record::Log,
    /// Writes them; the last ones once everything else has stopped.
    pub writer: record::Writer,
    /// Conditions for being ready beside the servers' own.
    pub readiness: Readiness,
    /// Says when to stop.
    pub shutdown: Shutdown,
}

/// Both servers: bound, so that their addresses are known, and not yet answering.
#[derive(Debug)]
pub struct Server<W> {
    config: Config,
    app: Arc<App<W>>,
    admin: Admin,
    listener: TcpListener,
    address: SocketAddr,
    listening: Condition,
    pair: tls::Pair,
    tls: RustlsConfig,
    metrics: Metrics,
    writer: record::Writer,
    shutdown: Shutdown,
}

/// Why nothing is served.
#[derive(Debug, Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Decisions cannot be recorded any more.
    #[error("the decision log ended")]
    Record(#[source] io::Error),
    /// The listener failed.
    #[error("the webhook's listener ended")]
    Serve(#[source] io::Error),
    /// A background task is gone.
    #[error(transparent)]
    Task(#[from] TaskEnded),
    /// There is no certificate to serve.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            admin_listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            tls_dir: PathBuf::from("/etc/modelguard/tls"),
            own_username: None,
            limits: Limits::default(),
            // Endpoints are withdrawn within seconds; the API server's open connections learn by `Connection: close`.
            shutdown_delay: Duration::from_secs(10),
            // The longest timeout that a webhook may have.
            drain: Duration::from_secs(30),
        }
    }
}

impl<W: World> Server<W> {
    /// Reads the certificate, then listens: a port that is open is one that will be answered.
    ///
    /// # Errors
    /// When there is no certificate to serve, or an address cannot be listened on.
    pub async fn bind(config: Config, parts: Parts<W>) -> Result<Self, Error> {
        let Parts { world, registry, metrics, log, writer, readiness, shutdown } = parts;
        let pair = tls::Pair::load(&config.tls_dir).await?;
        let tls = pair.serve(&metrics);
        let listening = require(&readiness, &shutdown);

        let failed = |address| move |source| Error::Listen { address, source };
        let listener = TcpListener::bind(config.listen).map_err(failed(config.listen))?;
        let address = listener.local_addr().map_err(failed(config.listen))?;
        let admin = Admin::bind(config.admin_listen, readiness, registry.into(), &metrics);
        let admin = admin.map_err(failed(config.admin_listen))?;

        let own = config.own_username.clone();
        let app = App::new(world, own, config.limits, metrics.clone(), log, shutdown.clone());
        Ok(Self { config, app: app.into(), admin, listener, address, listening, pair, tls, metrics, writer, shutdown })
    }

    /// Where the webhook listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where probes and metrics are served.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Serves until told to stop, and until what was under way then is done or [`Config::drain`] is over.
    ///
    /// # Errors
    /// When a listener or a background task ends before that.
    pub async fn serve(self) -> Result<(), Error> {
        let Self { config, app, admin, listener, address, listening, pair, tls, metrics, writer, shutdown } = self;
        let (stop, stopped) = shutdown::channel();
        let mut tasks = Tasks::new();
        tasks.spawn("admin server", admin.serve(stopped));
        tasks.spawn("beat", beat());
        tasks.spawn("certificate reload", tls::watch(config.tls_dir, pair, tls.clone(), metrics.clone()));

        let handle = Handle::new();
        let gate = Gate::new(config.limits.connections, metrics.clone());
        let server = listen(listener, tls, gate, &handle).map_err(Error::Serve)?;
        let mut server = pin!(server.serve(app.router().into_make_service()));
        let mut records = pin!(writer.run());
        listening.set(true);
        tracing::info!(%address, "serving");

        let unasked = || io::Error::other("it stopped unasked");
        tokio::select! {
            served = &mut server => return Err(Error::Serve(served.err().unwrap_or_else(unasked))),
            written = &mut records => return Err(Error::Record(written.err().unwrap_or_else(unasked))),
            ended = tasks.ended() => return Err(ended.into()),
            () = left(&shutdown, config.shutdown_delay) => {}
        }
        tracing::info!(connections = handle.connection_count(), "draining");
        handle.graceful_shutdown(Some(config.drain));
        let served = server.await.map_err(Error::Serve);
        // The log ends with those who write to it; a request that was cut off may be a little late.
        drop(app);
        let _ = tokio::time::timeout(LINGER, records).await;
        stop.pull();
        served
    }
}

/// Our own conditions for being ready; the one that is returned is for the listener.
fn require(readiness: &Readiness, shutdown: &Shutdown) -> Condition {
    readiness.condition("certificate").set(true);
    let listening = readiness.condition("listener");
    let shutdown = shutdown.clone();
    readiness.require("running", move || if shutdown.is_leaving() { Err("shutting down".to_owned()) } else { Ok(()) });
    listening
}

type Listener = axum_server::Server<SocketAddr, RustlsAcceptor<Gate>>;

fn listen(listener: TcpListener, tls: RustlsConfig, gate: Gate, handle: &Handle<SocketAddr>) -> io::Result<Listener> {
    let acceptor = RustlsAcceptor::new(tls).handshake_timeout(HANDSHAKE).acceptor(gate);
    let server = axum_server::from_tcp(listener)?.acceptor(acceptor).handle(handle.clone());
    let mut server = server.first_request_timeout(IDLE).accept_error_handler(|peer, error| {
        // Port scanners and probes make these all day.
        tracing::debug!(?peer, %error, "connection not accepted");
    });
    let http = server.http_builder();
    http.http1().header_read_timeout(IDLE).max_buf_size(UNREAD as usize);
    http.http2()
        .keep_alive_interval(KEEP_ALIVE)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER)
        .initial_stream_window_size(UNREAD)
        .initial_connection_window_size(UNREAD);
    Ok(server)
}

/// Keeps a timer that is due before the deadlines of requests. A timer that is due before all others makes tokio wake the
/// thread that waits for the first one: without this one, every request did.
async fn beat() -> Result<(), Infallible> {
    loop {
        tokio::time::sleep(BEAT).await;
    }
}

/// Waits until it is time to drain: `delay` after the process is told to leave, sooner if it is told to hurry.
async fn left(shutdown: &Shutdown, delay: Duration) {
    shutdown.leaving().await;
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = shutdown.hurried() => {}
    }
}

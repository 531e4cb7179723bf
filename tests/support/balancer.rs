//! What a Service is to its pods: connections in turn to those that are ready, and to nobody else.
//!
//! ```text
//! kube-apiserver ──connection──▶ port ──▶ replica 0 ◀─┐
//!                                    └──▶ replica 1 ◀─┴─ /readyz, ten times a second
//! ```
//! A connection once made is kept, whatever becomes of the readiness, as kube-proxy does.

use super::net::get;
use anyhow::Result;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// How often readiness is asked for.
const PERIOD: Duration = Duration::from_millis(100);

/// A port that leads to several replicas.
pub(crate) struct Balancer {
    backends: Arc<Vec<Backend>>,
    /// Its end is that of every connection.
    runtime: Option<Runtime>,
}

struct Backend {
    listen: SocketAddr,
    admin: SocketAddr,
    ready: AtomicBool,
}

impl Balancer {
    /// Listens on `port` for replicas, each with where it listens and where it says whether it is ready.
    pub(crate) fn start(port: u16, replicas: impl IntoIterator<Item = (SocketAddr, SocketAddr)>) -> Result<Self> {
        let backend = |(listen, admin)| Backend { listen, admin, ready: AtomicBool::new(false) };
        let backends = Arc::new(replicas.into_iter().map(backend).collect::<Vec<_>>());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port)))?;
        runtime.spawn(accept(listener, Arc::clone(&backends)));
        let probed = Arc::downgrade(&backends);
        thread::spawn(move || {
            while probe(&probed) {
                thread::sleep(PERIOD);
            }
        });
        Ok(Self { backends, runtime: Some(runtime) })
    }

    /// How many replicas get new connections now.
    pub(crate) fn ready(&self) -> usize {
        self.backends.iter().filter(|backend| backend.is_ready()).count()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Backend {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

/// Asks each once; false once there is nobody left to ask for.
fn probe(backends: &Weak<Vec<Backend>>) -> bool {
    let Some(backends) = backends.upgrade() else { return false };
    for backend in backends.iter() {
        let ready = get(backend.admin, "/readyz").is_ok_and(|(status, _)| status == 200);
        backend.ready.store(ready, Ordering::Relaxed);
    }
    true
}

async fn accept(listener: TcpListener, backends: Arc<Vec<Backend>>) {
    let turn = AtomicUsize::new(0);
    while let Ok((stream, _)) = listener.accept().await {
        let ready: Vec<_> =
            backends.iter().filter(|backend| backend.is_ready()).map(|backend| backend.listen).collect();
        // With nobody ready the connection ends at once.
        if let Some(backend) = ready.get(turn.fetch_add(1, Ordering::Relaxed) % ready.len().max(1)) {
            tokio::spawn(pass(stream, *backend));
        }
    }
}

async fn pass(mut stream: TcpStream, backend: SocketAddr) -> std::io::Result<()> {
    let mut replica = TcpStream::connect(backend).await?;
    stream.set_nodelay(true)?;
    replica.set_nodelay(true)?;
    copy_bidirectional(&mut stream, &mut replica).await.map(drop)
}

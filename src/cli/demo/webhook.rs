//! The real server on loopback, and a client that trusts nothing but its certificate.

use crate::admin::Readiness;
use crate::admission::{self, Config, Parts, Server};
use crate::metrics::{self, Metrics};
use crate::record::Log;
use crate::shutdown::{self, Trigger};
use crate::world::standalone::Standalone;
use anyhow::Context as _;
use axum::http::Request;
use serde_json::Value;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// The webhook, serving.
pub(super) struct Webhook {
    address: SocketAddr,
    client: kube::Client,
    trigger: Trigger,
    served: JoinHandle<Result<(), admission::Error>>,
    _tls: TempDir,
}

impl Webhook {
    /// Makes a certificate, listens on any free port of 127.0.0.1, and serves.
    pub(super) async fn start(world: Arc<Standalone>) -> anyhow::Result<Self> {
        let certified =
            rcgen::generate_simple_self_signed([Ipv4Addr::LOCALHOST.to_string()]).context("make a certificate")?;
        // Readable by its owner only, the key with it.
        let tls =
            tempfile::Builder::new().prefix("modelguard-demo-tls-").tempdir().context("make a temporary folder")?;
        fs::write(tls.path().join("tls.crt"), certified.cert.pem()).context("write the certificate")?;
        fs::write(tls.path().join("tls.key"), certified.signing_key.serialize_pem()).context("write the key")?;

        let mut registry = metrics::registry();
        let metrics = Metrics::register(&mut registry);
        let (log, writer) = Log::start(io::sink(), &metrics).context("start the decision log")?;
        let (trigger, shutdown) = shutdown::channel();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = Config {
            listen: any,
            admin_listen: any,
            tls_dir: tls.path().to_owned(),
            shutdown_delay: Duration::ZERO,
            drain: Duration::ZERO,
            ..Config::default()
        };
        let readiness = Readiness::default();
        let server = Server::bind(config, Parts { world, registry, metrics, log, writer, readiness, shutdown }).await?;
        let address = server.address();
        let client = client(address, certified.cert.der().to_vec())?;
        Ok(Self { address, client, trigger, served: tokio::spawn(server.serve()), _tls: tls })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a review, as an API server does, and gives the answer.
    pub(super) async fn post(&self, path: &str, review: Vec<u8>) -> anyhow::Result<Value> {
        let request =
            Request::post(format!("{path}?timeout=5s")).header("content-type", "application/json").body(review)?;
        self.client.request(request).await.with_context(|| format!("ask https://{}{path}", self.address))
    }

    /// Stops it, and says if it had failed.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        drop(self.client);
        self.trigger.pull();
        self.served.await??;
        Ok(())
    }
}

/// kube's client speaks to an API server, and as well to anything else that speaks HTTPS and JSON.
fn client(address: SocketAddr, certificate: Vec<u8>) -> anyhow::Result<kube::Client> {
    let url = format!("https://{address}").parse().context("make a URL")?;
    let mut config = kube::Config::new(url);
    config.root_cert = Some(vec![certificate]);
    config.default_retry = false;
    kube::Client::try_from(config).context("make a client")
}

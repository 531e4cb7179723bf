//! The certificate that is served, and its replacement while serving.
//!
//! ```text
//! DIR/tls.crt, DIR/tls.key ──Pair::load──▶ Pair ──▶ every handshake from then on
//!        ▲ folder watched, and read again every 30 s        a pair that cannot be used changes nothing
//! ```
//! The *folder* is watched: kubelet replaces a mounted Secret by renaming the symlink `..data`, after which a
//! watch on a file is deaf for ever.

use crate::metrics::Metrics;
use axum_server::tls_rustls::RustlsConfig;
use jiff::Timestamp;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, pki_types};
use sha2::{Digest as _, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::timeout;

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// How long a change may go unnoticed where the folder cannot be watched, as on some network file systems.
const REREAD: Duration = Duration::from_secs(30);

/// How long the folder must be quiet before it is read: `cp` writes one file after the other.
const QUIET: Duration = Duration::from_millis(50);

/// The protocols that are spoken, the API server's choice first: HTTP/2 to a `url`, HTTP/1.1 to a Service.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a folder has no certificate that can be served. Each names the file, and what was expected in it.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path:?}: expected {expected}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What is wrong.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Certificate and key do not belong together.
    #[error("the key in {key:?} does not belong to the first certificate in {certificate:?}")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The folder cannot be watched.
    #[error("cannot watch {path:?}")]
    Watch {
        /// Which folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: notify::Error,
    },
}

/// A certificate with its chain and key, ready to be served.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    config: Arc<ServerConfig>,
    /// When the certificate expires.
    expires: Timestamp,
    content: Content,
}

/// Tells one content of both files from another.
type Content = [u8; 32];

/// What both files hold.
struct Files {
    certificate: (PathBuf, Vec<u8>),
    key: (PathBuf, Vec<u8>),
}

// === impl Files ===

impl Files {
    async fn read(dir: &Path) -> Result<Self, TlsError> {
        let read = async |name| {
            let path = dir.join(name);
            match tokio::fs::read(&path).await {
                Ok(bytes) => Ok((path, bytes)),
                Err(source) => Err(TlsError::Read { path, source }),
            }
        };
        Ok(Self { certificate: read(CERTIFICATE).await?, key: read(KEY).await? })
    }

    fn content(&self) -> Content {
        let mut hash = Sha256::new();
        for (_, bytes) in [&self.certificate, &self.key] {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
        hash.finalize().into()
    }
}

// === impl Pair ===

impl Pair {
    /// Reads the pair in `dir`.
    pub(super) async fn load(dir: &Path) -> Result<Self, TlsError> {
        Self::parse(&Files::read(dir).await?)
    }

    fn parse(files: &Files) -> Result<Self, TlsError> {
        let (path, pem) = &files.certificate;
        let fail = |source| TlsError::Content {
            path: path.clone(),
            expected: "certificates in PEM, the server's own first",
            source,
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = chain.map_err(|error| fail(Some(error.into())))?;
        let leaf = chain.first().ok_or_else(|| fail(None))?;
        let expires = not_after(leaf).ok_or_else(|| fail(Some("its validity cannot be read".into())))?;
        let key = private_key(&files.key)?;

        let provider = ring::default_provider();
        let (key_path, _) = &files.key;
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { certificate: path.clone(), key: key_path.clone() }
            }
            rustls::Error::InvalidCertificate(_) => fail(Some(error.into())),
            other => key_error(key_path, Some(other.into())),
        })?;
        let builder = ServerConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
        let builder = builder.expect("ring has the cipher suites of TLS 1.2 and 1.3");
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
        Ok(Self { config: config.into(), expires, content: files.content() })
    }

    /// What the listener takes handshakes with; [`watch`] replaces what is in it.
    pub(super) fn serve(&self, metrics: &Metrics) -> RustlsConfig {
        self.announce(metrics);
        RustlsConfig::from_config(self.config.clone())
    }

    fn announce(&self, metrics: &Metrics) {
        metrics.certificate_expires(self.expires.as_second());
        let expires = self.expires;
        if expires <= Timestamp::now() {
            // Clients will refuse it, but this process not running would help nobody.
            tracing::warn!(%expires, "serving a certificate that has expired");
        } else {
            tracing::info!(%expires, "serving a certificate");
        }
    }
}

fn private_key((path, pem): &(PathBuf, Vec<u8>)) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pki_types::pem::Error::NoItemsFound => key_error(path, None),
        other => key_error(path, Some(other.into())),
    })
}

fn key_error(path: &Path, source: Option<Box<dyn std::error::Error + Send + Sync>>) -> TlsError {
    TlsError::Content {
        path: path.to_owned(),
        expected: "one private key in PEM: PKCS #8, SEC 1 or RSA, not encrypted",
        source,
    }
}

// === reload ===

/// Serves what `dir` comes to hold, for as long as it is polled. What cannot be used is reported once, and the
/// pair that is served stays.
pub(super) async fn watch(dir: PathBuf, first: Pair, serving: RustlsConfig, metrics: Metrics) -> Result<(), TlsError> {
    let (changed, mut changes) = mpsc::channel(1);
    let _watcher = watcher(&dir, changed)?;
    let mut seen = Seen::Content(first.content);
    loop {
        // The first turn reads at once: the folder may have changed before it was watched.
        seen = reload(&dir, seen, &serving, &metrics).await;
        if timeout(REREAD, changes.recv()).await.is_ok() {
            while timeout(QUIET, changes.recv()).await.is_ok() {}
        }
    }
}

/// What was read last, usable or not: it need not be judged, nor reported, again.
#[derive(Debug, Eq, PartialEq)]
enum Seen {
    Content(Content),
    Unreadable(String),
}

async fn reload(dir: &Path, last: Seen, serving: &RustlsConfig, metrics: &Metrics) -> Seen {
    let files = Files::read(dir).await;
    let seen = match &files {
        Ok(files) => Seen::Content(files.content()),
        Err(error) => Seen::Unreadable(error.to_string()),
    };
    if seen == last {
        return last;
    }
    match files.and_then(|files| Pair::parse(&files)) {
        Ok(pair) => {
            serving.reload_from_config(pair.config.clone());
            pair.announce(metrics);
            metrics.reloaded(true);
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "the changed certificate cannot be used, the one before is served on");
            metrics.reloaded(false);
        }
    }
    seen
}

fn watcher(dir: &Path, changed: mpsc::Sender<()>) -> Result<RecommendedWatcher, TlsError> {
    let fail = |source| TlsError::Watch { path: dir.to_owned(), source };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // What we read ourselves must not make us read again. An error may mean lost events.
        let is_change = event.is_ok_and(|event| match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            EventKind::Access(_) => false,
            EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other | EventKind::Remove(_) => {
                true
            }
        });
        if is_change {
            // Full means that a change is waiting to be noticed already.
            let _ = changed.try_send(());
        }
    })
    .map_err(fail)?;
    watcher.watch(dir, RecursiveMode::NonRecursive).map_err(fail)?;
    Ok(watcher)
}

// === when a certificate expires ===

/// `notAfter` of a certificate. rustls keeps it to itself, and a crate that reads X.509 is a large thing for
/// one date: RFC 5280, section 4.1.
fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;

    let (certificate, _) = der(certificate, SEQUENCE)?;
    let (mut rest, _) = der(certificate, SEQUENCE)?;
    if let Some((_, after)) = der(rest, VERSION) {
        rest = after;
    }
    // Serial number, signature algorithm, issuer.
    for tag in [0x02, SEQUENCE, SEQUENCE] {
        (_, rest) = der(rest, tag)?;
    }
    let (validity, _) = der(rest, SEQUENCE)?;
    let (_, not_after) = der(validity, UTC_TIME).or_else(|| der(validity, GENERALIZED_TIME))?;
    let text = if let Some((text, _)) = der(not_after, UTC_TIME) {
        let text = std::str::from_utf8(text).ok()?;
        // Two digits of a year: from 1950 to 2049.
        let century = if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
        format!("{century}{text}")
    } else {
        std::str::from_utf8(der(not_after, GENERALIZED_TIME)?.0).ok()?.to_owned()
    };
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%SZ", &text).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

/// Splits off one DER value with this tag: its content, and what follows it.
fn der(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, bytes) = bytes.split_first()?;
    let (&length, bytes) = bytes.split_first()?;
    let (length, bytes) = if length < 0x80 {
        (usize::from(length), bytes)
    } else {
        let (digits, bytes) = bytes.split_at_checked(usize::from(length & 0x7f))?;
        let length =
            digits.iter().try_fold(0_usize, |sum, digit| sum.checked_mul(256)?.checked_add(usize::from(*digit)))?;
        (length, bytes)
    };
    if found == tag { bytes.split_at_checked(length) } else { None }
}

#[cfg(test)]
mod tests;

//! Starting, reloading and stopping: what a rollout and a new certificate do to those who ask meanwhile.

use crate::server::{Running, bind, config, eventually, mount, soon};
use crate::world::EPOCH;
use crate::{Lines, denial, recorded};
use modelguard::admission::{Config, Limits};
use modelguard::policy::Unread;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::error::Error as _;
use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;

// === serving ===

#[tokio::test]
async fn both_protocols_are_served() {
    let running = Running::new().await;
    let review = recorded("deployment-create");
    let answer = running.http1().await.review("/validate?timeout=5s", &review).await;
    assert_eq!(answer["response"]["allowed"], true);
    let answer = running.http2().await.review("/validate?timeout=5s", &review).await.unwrap();
    assert_eq!(answer["response"]["allowed"], true);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn ready_while_every_condition_holds() {
    let running = Running::new().await;
    eventually(async || running.admin("/readyz").await.0 == 200).await;
    let stale = Unread::new("the webhook configurations", format!("their watch is stale, epoch {EPOCH}"));
    running.world.with(|state| state.stale = Some(stale.clone()));
    assert_eq!(running.admin("/readyz").await, (503, format!("not ready\nconfigurations: {stale}\n")));
    assert_eq!(running.admin("/livez").await.0, 200);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let leaf = crate::server::Authority::new().issue();
    let dir = TempDir::new().unwrap();
    mount(dir.path(), "1", &leaf.certificate, &leaf.key);
    let address = taken.local_addr().unwrap();
    let config = config(Limits::default());
    let error = bind(Config { listen: address, tls_dir: dir.path().to_owned(), ..config }).await.err().unwrap();
    assert_eq!(error.to_string(), format!("cannot listen on {address}"));
}

#[tokio::test]
async fn without_a_certificate_nothing_listens() {
    let dir = TempDir::new().unwrap();
    let config = Config { tls_dir: dir.path().to_owned(), ..config(Limits::default()) };
    let error = bind(config).await.err().unwrap();
    assert_eq!(error.to_string(), format!("cannot read {:?}", dir.path().join("tls.crt")));
}

#[tokio::test]
async fn a_dead_background_task_ends_the_server() {
    let leaf = crate::server::Authority::new().issue();
    let dir = TempDir::new().unwrap();
    mount(dir.path(), "1", &leaf.certificate, &leaf.key);
    let config = Config { tls_dir: dir.path().to_owned(), ..config(Limits::default()) };
    let (server, _, _trigger) = bind(config).await.unwrap();
    let path = dir.path().to_owned();
    dir.close().unwrap();
    let error = soon(server.serve()).await.unwrap_err();
    assert_eq!(error.to_string(), "the certificate reload task ended");
    assert_eq!(error.source().unwrap().to_string(), format!("cannot watch {path:?}"));
}

#[tokio::test]
async fn a_log_that_cannot_be_written_ends_the_server() {
    let running = Running::start_with_log(config(Limits::default()), Closed).await;
    let answer = running.http1().await.review("/validate", &recorded("deployment-create")).await;
    assert_eq!(answer["response"]["allowed"], true);
    let error = soon(running.task).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the decision log ended");
    assert_eq!(error.source().unwrap().to_string(), "broken pipe");
}

/// A log whose reader is gone.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === certificates ===

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_certificate_that_kubelet_swaps_is_served() {
    let running = Running::new().await;
    let mut open = running.http1().await;
    // Three times: a watch on a file would have been deaf after the first.
    for version in ["2", "3", "4"] {
        let leaf = running.authority.issue();
        mount(running.tls.path(), version, &leaf.certificate, &leaf.key);
        eventually(async || running.certificate().await == der(&leaf.certificate)).await;
        fs::remove_dir_all(running.tls.path().join(format!("..{}", version.parse::<u32>().unwrap() - 1))).unwrap();
    }
    let answer = open.review("/validate", &recorded("deployment-create")).await;
    assert_eq!(answer["response"]["allowed"], true, "open connections go on");
    assert!(running.has_metric("modelguard_certificate_reloads_total{result=\"ok\"} 3").await);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_written_in_place_is_served() {
    let running = Running::new().await;
    let leaf = running.authority.issue();
    for (name, content) in [("tls.crt", &leaf.certificate), ("tls.key", &leaf.key)] {
        fs::remove_file(running.tls.path().join(name)).unwrap();
        fs::write(running.tls.path().join(name), content).unwrap();
    }
    eventually(async || running.certificate().await == der(&leaf.certificate)).await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_changes_nothing() {
    let running = Running::new().await;
    let served = running.certificate().await;
    let (leaf, other) = (running.authority.issue(), running.authority.issue());
    let errors = |count| format!("modelguard_certificate_reloads_total{{result=\"error\"}} {count}");
    mount(running.tls.path(), "2", &leaf.certificate, &other.key);
    eventually(async || running.has_metric(&errors(1)).await).await;
    assert_eq!(running.certificate().await, served);
    mount(running.tls.path(), "3", "", &other.key);
    eventually(async || running.has_metric(&errors(2)).await).await;
    assert_eq!(running.certificate().await, served);
    mount(running.tls.path(), "4", &leaf.certificate, &leaf.key);
    eventually(async || running.certificate().await == der(&leaf.certificate)).await;
    assert!(running.has_metric(&errors(2)).await, "each content is reported once");
    running.stop().await.unwrap();
}

// === stopping ===

#[tokio::test]
async fn while_leaving_it_serves_on_and_says_goodbye() {
    let running = Running::new().await;
    let review = recorded("deployment-create").to_string();
    let (mut first, mut second) = (running.http1().await, running.http2().await);
    assert!(!first.post("/validate", review.clone()).await.1.contains_key("connection"));
    running.trigger.pull();
    eventually(async || running.admin("/readyz").await == (503, "not ready\nrunning: shutting down\n".to_owned()))
        .await;

    let (status, headers, _) = first.post("/validate", review.clone()).await;
    assert_eq!((status.as_u16(), headers.get("connection").unwrap().to_str().unwrap()), (200, "close"));
    soon(first.connection).await.unwrap().unwrap();
    // HTTP/2 has no such header, and its connections go on until the drain.
    let (status, headers, _) = second.post("/validate", review.clone()).await.unwrap();
    assert_eq!((status.as_u16(), headers.contains_key("connection")), (200, false));
    // Those who do not know yet still get in.
    assert_eq!(running.http1().await.post("/validate", review).await.0, 200);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn requests_under_way_finish_over_http1() {
    let running = Running::new().await;
    let (mut busy, mut idle) = (running.http1().await, running.http1().await);
    idle.review("/mutate", &recorded("config-map-create")).await;
    running.world.hang(true);
    let asked =
        tokio::spawn(
            async move { busy.post("/validate?timeout=30s", recorded("deployment-create").to_string()).await },
        );
    soon(running.world.hanging(1)).await;
    running.trigger.pull();
    running.trigger.pull();
    // An idle connection is closed, and no new one is taken, while the request is under way.
    soon(idle.connection).await.unwrap().unwrap();
    eventually(async || TcpStream::connect(running.address).await.is_err()).await;
    assert!(!running.task.is_finished());
    assert_eq!(running.admin("/livez").await.0, 200);
    running.world.hang(false);
    let (status, headers, _) = soon(asked).await.unwrap();
    assert_eq!((status.as_u16(), headers.get("connection").unwrap().to_str().unwrap()), (200, "close"));
    soon(running.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn http2_gets_goaway_and_what_is_under_way_finishes() {
    let running = Running::new().await;
    running.world.hang(true);
    let mut busy = running.http2().await;
    let mut sender = busy.sender.clone();
    let connection = std::mem::replace(&mut busy.connection, tokio::spawn(async { Ok(()) }));
    let asked = tokio::spawn(async move { busy.review("/validate?timeout=30s", &recorded("deployment-create")).await });
    soon(running.world.hanging(1)).await;
    running.trigger.pull();
    running.trigger.pull();
    // Once GOAWAY is there, no further request can be sent in this connection.
    let error = soon(async {
        loop {
            match sender.clone().ready().await {
                Ok(ready) => sender = ready,
                Err(error) => break error,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(error.is_go_away() && error.is_remote(), "{error:?}");
    assert_eq!(error.reason(), Some(h2::Reason::NO_ERROR));
    assert!(!running.task.is_finished());
    running.world.hang(false);
    assert_eq!(soon(asked).await.unwrap().unwrap()["response"]["allowed"], true);
    drop(sender);
    soon(connection).await.unwrap().unwrap();
    soon(running.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_drain_does_not_wait_for_ever() {
    let running = Running::start(Config { drain: Duration::from_millis(200), ..config(Limits::default()) }).await;
    running.world.hang(true);
    let mut busy = running.http1().await;
    let asked = tokio::spawn(async move { busy.review("/validate?timeout=30s", &recorded("deployment-create")).await });
    soon(running.world.hanging(1)).await;
    running.trigger.pull();
    running.trigger.pull();
    soon(running.task).await.unwrap().unwrap();
    assert!(soon(asked).await.is_err(), "the connection was cut");
}

#[tokio::test]
async fn the_delay_passes_before_the_drain() {
    let delayed = Config { shutdown_delay: Duration::from_millis(300), ..config(Limits::default()) };
    let lines = Lines::default();
    let running = Running::start_with_log(delayed, lines.clone()).await;
    let mut connection = running.http2().await;
    // Not while the delay passes, which a slow machine may miss; that such a request is served stands above.
    let answer = connection.review("/validate", &recorded("config-map-remove")).await.unwrap();
    assert_eq!(denial(&answer["response"]).0, "MG103");
    let started = std::time::Instant::now();
    running.trigger.pull();
    soon(running.task).await.unwrap().unwrap();
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
    assert_eq!(lines.0.lock().iter().filter(|byte| **byte == b'\n').count(), 1, "recorded before the end");
}

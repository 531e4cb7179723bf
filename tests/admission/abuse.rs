//! What a pod that reaches the port can do to it, and what the API server notices of that: nothing.

use crate::server::{Http1, Running, config, eventually, soon};
use crate::{changed, denial, recorded};
use modelguard::admission::Limits;
use serde_json::Value;
use std::future::Future;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

/// Where the API server is, and where its enemies are.
const SERVER: [u8; 4] = [127, 0, 0, 1];
const ENEMY: [u8; 4] = [127, 0, 0, 66];

const HEAD: &str = "POST /validate?timeout=30s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

/// A server that keeps few connections.
async fn small(connections: usize) -> Running {
    Running::start(config(Limits { connections, ..Limits::default() })).await
}

/// A review that needs no read.
fn deletion() -> Value {
    let mut review = changed("deployment-create", "/operation", "DELETE");
    review["request"]["oldObject"] = review["request"]["object"].take();
    review
}

fn padded(size: usize) -> String {
    let text = deletion().to_string();
    format!("{text}{}", " ".repeat(size - text.len()))
}

/// The API server: asks in a connection that it has, and in a new one.
async fn served(running: &Running, kept: &mut Http1) {
    for connection in [kept, &mut running.http1_from(SERVER).await] {
        let answer = connection.review("/validate?timeout=5s", &deletion()).await;
        assert_eq!(answer["response"]["allowed"], true);
    }
}

/// The value of a metric without labels.
async fn metric(running: &Running, name: &str) -> usize {
    let text = running.admin("/metrics").await.1;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap().parse().unwrap()
}

// === connections ===

/// Opens five times as many connections as are kept, by fours, all of which stay open as far as it is up to the enemy;
/// the API server asks meanwhile, and everything is as before once they are gone.
async fn hold_on<T, F: Future<Output = T>>(from: [u8; 4], abuse: impl Fn(&'static Running) -> F) {
    const MOST: usize = 16;
    // Lives as long as the test process: what borrows it can be held in one place.
    let running: &'static Running = Box::leak(Box::new(small(MOST).await));
    let mut kept = running.http1_from(SERVER).await;
    let mut held = Vec::new();
    for _ in 0..5 * MOST / 4 {
        for _ in 0..4 {
            held.push(abuse(running).await);
        }
        soon(served(running, &mut kept)).await;
        // With the one that asks for it.
        assert!(metric(running, "modelguard_connections").await <= MOST + 8, "those that are shed are closed at once");
    }
    assert!(metric(running, "modelguard_connections_shed_total").await >= 3 * MOST, "from {from:?}");
    drop(held);
    eventually(async || metric(running, "modelguard_connections").await == 2).await;
    soon(served(running, &mut kept)).await;
    running.trigger.pull();
    running.trigger.pull();
}

#[tokio::test]
async fn handshakes_that_never_end_are_shed() {
    for from in [ENEMY, SERVER] {
        hold_on(from, |running| running.tcp(from)).await;
    }
}

#[tokio::test]
async fn connections_that_never_ask_are_shed() {
    for from in [ENEMY, SERVER] {
        hold_on(from, |running| running.try_connect(from, b"http/1.1")).await;
    }
}

#[tokio::test]
async fn connections_that_asked_once_are_shed() {
    for from in [ENEMY, SERVER] {
        hold_on(from, |running| async move {
            let mut connection = running.http1_from(from).await;
            connection.review("/validate", &deletion()).await;
            connection
        })
        .await;
    }
}

/// A connection in which this much was sent.
async fn sent(running: &Running, from: [u8; 4], protocol: &[u8], bytes: &[u8]) -> impl Sized + use<> {
    let mut stream = running.try_connect(from, protocol).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

#[tokio::test]
async fn headers_and_bodies_that_never_end_are_shed() {
    let body = format!("{HEAD}content-length: 100000\r\n\r\n{{");
    let chunked = format!("{HEAD}transfer-encoding: chunked\r\n\r\n1\r\n{{");
    for part in [&HEAD[..20], HEAD, &body, &chunked] {
        for from in [ENEMY, SERVER] {
            hold_on(from, |running| sent(running, from, b"http/1.1", part.as_bytes())).await;
        }
    }
}

#[tokio::test]
async fn streams_of_http2_that_never_end_are_shed() {
    for from in [ENEMY, SERVER] {
        hold_on(from, |running| async move {
            let stream = running.try_connect(from, b"h2").await.unwrap();
            let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
            let connection = AbortOnDrop(tokio::spawn(async { drop(connection.await) }));
            let mut open = Vec::new();
            for _ in 0..8 {
                sender = sender.ready().await.unwrap();
                let request = axum::http::Request::post("https://localhost/validate").body(()).unwrap();
                let (answer, mut body) = sender.send_request(request, false).unwrap();
                body.send_data("{".into(), false).unwrap();
                open.push((answer, body));
            }
            (sender, open, connection)
        })
        .await;
    }
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test]
async fn the_admin_port_answers_beside_any_number_of_connections() {
    let running = Running::new().await;
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = tokio::net::TcpStream::connect(running.admin).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
        held.push(stream);
    }
    assert_eq!(soon(running.admin("/livez")).await.0, 200);
    eventually(async || metric(&running, "modelguard_connections").await <= 65).await;
    running.stop().await.unwrap();
}

// === HTTP/2 ===

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Sends frames until the server closes the connection, and answers the API server meanwhile.
async fn ends(frames: impl Iterator<Item = Vec<u8>>) {
    let running = Running::new().await;
    let mut kept = running.http1_from(SERVER).await;
    let (mut reading, mut writing) = tokio::io::split(running.try_connect(ENEMY, b"h2").await.unwrap());
    let closed = tokio::spawn(async move {
        let mut sink = vec![0; 16 << 10];
        while matches!(reading.read(&mut sink).await, Ok(1..)) {}
    });
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
    writing.write_all(&preface).await.unwrap();
    for bytes in frames {
        if soon(writing.write_all(&bytes)).await.is_err() {
            break;
        }
    }
    // An error says that it is closed already.
    let _ = writing.flush().await;
    soon(served(&running, &mut kept)).await;
    soon(closed).await.unwrap();
    soon(served(&running, &mut kept)).await;
    eventually(async || running.has_metric("modelguard_admission_in_flight 0").await).await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn headers_that_are_continued_for_ever_end_the_connection() {
    let first = std::iter::once(frame(1, 0, 1, &[]));
    ends(first.chain((0..10_000).map(|_| frame(9, 0, 1, &[0; 64])))).await;
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_the_connection() {
    // :method POST, :scheme https, :path and :authority as HPACK's static table and literals.
    let head = [&[0x83, 0x87, 0x04, 9][..], b"/validate", &[0x01, 9], b"localhost"].concat();
    let turns = (0..50_000_u32).map(move |turn| {
        let stream = 2 * turn + 1;
        [frame(1, 4, stream, &head), frame(3, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    // Many in one write, so that they come together.
    let turns: Vec<Vec<u8>> = turns.collect();
    ends(turns.chunks(500).map(<[Vec<u8>]>::concat).collect::<Vec<_>>().into_iter()).await;
}

// === requests ===

#[tokio::test]
async fn one_address_cannot_take_the_slots_of_another() {
    let limits = Limits { validate: 20, ..Limits::default() };
    let running = Running::start(config(limits)).await;
    running.world.hang(true);
    let mut asked = Vec::new();
    let review = recorded("deployment-create");
    // 9 of 20: with one more, it would have as much as is left, less its own.
    for judged in 1..=9 {
        let (mut connection, review) = (running.http1_from(ENEMY).await, review.clone());
        asked.push(tokio::spawn(async move { connection.review("/validate?timeout=30s", &review).await }));
        soon(running.world.hanging(judged)).await;
    }
    let answer = running.http1_from(ENEMY).await.review("/validate?timeout=1s", &review).await;
    assert_eq!(denial(&answer["response"]), ("MG501", 503));

    for judged in 10..=12 {
        let (mut connection, review) = (running.http1_from(SERVER).await, review.clone());
        asked.push(tokio::spawn(async move { connection.review("/validate?timeout=30s", &review).await }));
        soon(running.world.hanging(judged)).await;
    }
    running.world.hang(false);
    for answer in asked {
        assert_eq!(soon(answer).await.unwrap()["response"]["allowed"], true);
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn who_says_to_be_modelguard_is_bounded_as_well() {
    let limits = Limits { validate: 3, ..Limits::default() };
    let running = Running::start(config(limits)).await;
    running.world.hang(true);
    let mut review = recorded("deployment-create");
    review["request"]["userInfo"]["username"] = crate::OWN.into();
    let (mut first, body) = (running.http1_from(ENEMY).await, review.clone());
    let asked = tokio::spawn(async move { first.review("/validate?timeout=30s", &body).await });
    soon(running.world.hanging(1)).await;
    let answer = running.http1_from(ENEMY).await.review("/validate?timeout=1s", &review).await;
    assert_eq!(denial(&answer["response"]), ("MG501", 503));
    running.world.hang(false);
    assert_eq!(soon(asked).await.unwrap()["response"]["allowed"], true);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn bodies_that_never_end_leave_memory_for_others() {
    let limits = Limits { bodies: 1 << 20, ..Limits::default() };
    for from in [ENEMY, SERVER] {
        let running = Running::start(config(limits)).await;
        let part = format!("{HEAD}content-length: 300000\r\n\r\n{}", " ".repeat(200_000));
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(sent(&running, from, b"http/1.1", part.as_bytes()).await);
        }
        // Those of one address have by now all that they can get.
        let mut enemy = running.http1_from(from).await;
        eventually(async || enemy.post("/validate", padded(250 << 10)).await.0 == 429).await;
        let mut kept = running.http1_from(SERVER).await;
        soon(served(&running, &mut kept)).await;
        if from == ENEMY {
            // What is left when one address has all that it can get is half; a third of that is for one request.
            assert_eq!(kept.post("/validate", padded(150 << 10)).await.0, 200);
        }
        drop(held);
        eventually(async || enemy.post("/validate", padded(250 << 10)).await.0 == 200).await;
        running.stop().await.unwrap();
    }
}

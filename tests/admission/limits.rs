//! Too much, too long, too many: each is answered, and in time.

use crate::server::{Running, config, eventually, soon};
use crate::{Bare, OWN, changed, denial, recorded, uid};
use modelguard::admission::Limits;
use serde_json::Value;
use std::time::{Duration, Instant};

/// A review, padded with blanks.
fn padded(review: &Value, size: usize) -> String {
    let text = review.to_string();
    format!("{text}{}", " ".repeat(size - text.len()))
}

fn deletion() -> Value {
    let mut review = changed("deployment-create", "/operation", "DELETE");
    review["request"]["oldObject"] = review["request"]["object"].take();
    review
}

#[tokio::test]
async fn a_body_of_16_mib_is_read_and_one_byte_more_is_not() {
    let running = Running::new().await;
    let review = deletion();
    for (size, allowed) in [(16 << 20, true), ((16 << 20) + 1, false), (17 << 20, false)] {
        let (status, _, body) = running.http1().await.post("/validate", padded(&review, size)).await;
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status.as_u16(), &answer["response"]["uid"]), (200, &uid(&review).into()), "{size}");
        assert_eq!(answer["response"]["allowed"], allowed, "{size}");
        if !allowed {
            assert_eq!(denial(&answer["response"]), ("MG501", 413));
        }
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn bodies_share_their_memory_and_give_it_back() {
    let limits = Limits { bodies: 192 << 10, ..Limits::default() };
    let running = Running::start(config(limits)).await;
    let review = deletion();
    let mut connection = running.http1().await;
    let (status, headers, body) = connection.post("/validate", padded(&review, 128 << 10)).await;
    assert_eq!((status.as_u16(), headers.get("retry-after").unwrap().to_str().unwrap()), (429, "2"), "{body:?}");
    assert_eq!(connection.review("/validate", &review).await["response"]["allowed"], true);
    assert_eq!(connection.post("/validate", padded(&review, 60 << 10)).await.0, 200);
    assert!(running.has_metric("modelguard_admission_shed_total{limit=\"memory\"} 1").await);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn what_there_is_no_memory_for_is_recorded_too() {
    let bare = Bare::limited(Limits { bodies: 1 << 10, ..Limits::default() });
    let (status, text) = bare.post("/validate", "application/json", padded(&deletion(), 2 << 10)).await;
    assert_eq!((status, &*text), (429, "too many large requests at once\n"));
    let records = bare.records().await;
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(
        (&record["code"], &record["status"], &record["retry_after_s"]),
        (&"MG501".into(), &429.into(), &2.into())
    );
    assert_eq!((&record["operation"], &record["object"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn an_answer_comes_before_the_client_gives_up() {
    let running = Running::new().await;
    running.world.hang(true);
    let review = recorded("deployment-create");
    let started = Instant::now();
    let answer = running.http1().await.review("/validate?timeout=1s", &review).await;
    assert!(started.elapsed() >= Duration::from_millis(750), "{:?}", started.elapsed());
    let response = &answer["response"];
    assert_eq!((denial(response), response["uid"].as_str()), (("MG501", 503), Some(uid(&review))));
    assert_eq!(response["status"]["details"]["retryAfterSeconds"], 2);
    running.world.hanging(0).await;
    assert!(running.has_metric("modelguard_admission_deadline_exceeded_total 1").await);
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_say_how_long_it_waits_gets_ten_seconds() {
    let bare = Bare::new();
    bare.world.hang(true);
    for (query, millis) in [("", 9750), ("?timeout=5s", 4750), ("?timeout=soon", 9750)] {
        let started = tokio::time::Instant::now();
        let response = bare.ask(&format!("/validate{query}"), &recorded("deployment-create")).await;
        assert_eq!(denial(&response), ("MG501", 503));
        assert_eq!(started.elapsed().as_millis(), millis, "{query}");
    }
}

#[tokio::test]
async fn a_client_that_never_finishes_its_body_is_answered_and_closed() {
    let running = Running::new().await;
    let head = "POST /validate?timeout=1s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
    let answer = soon(running.raw(format!(r#"{head}{{"request":{{"uid":"u1","object":{{"#).as_bytes())).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&answer["response"]["uid"], denial(&answer["response"])), (&"u1".into(), ("MG501", 408)));

    let answer = soon(running.raw(format!("{head}{{").as_bytes())).await;
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_and_are_turned_away_with_their_uid_in_time() {
    let limits = Limits { validate: 3, ..Limits::default() };
    let running = Running::start(config(limits)).await;
    running.world.hang(true);
    let (mut first, mut second) = (running.http1().await, running.http1().await);
    let judged =
        tokio::spawn(async move { first.review("/validate?timeout=30s", &recorded("deployment-create")).await });
    soon(running.world.hanging(1)).await;

    let other = changed("deployment-create", "/uid", "another");
    let answer = second.review("/validate?timeout=1s", &other).await;
    let response = &answer["response"];
    assert_eq!((denial(response), &response["uid"]), (("MG501", 503), &"another".into()));
    assert_eq!(response["status"]["details"]["retryAfterSeconds"], 2);
    assert!(running.has_metric("modelguard_admission_shed_total{limit=\"concurrency\"} 1").await);
    assert!(running.has_metric("modelguard_admission_in_flight 1").await);

    // The other path has slots of its own.
    assert_eq!(second.review("/mutate", &recorded("config-map-create")).await["response"]["allowed"], true);
    // Our own write, on which the first may wait, goes past.
    let mut own = deletion();
    own["request"]["userInfo"]["username"] = OWN.into();
    assert_eq!(second.review("/validate", &own).await["response"]["allowed"], true);

    let mut third = running.http1().await;
    let review = other.clone();
    let waits = tokio::spawn(async move { third.review("/validate?timeout=30s", &review).await });
    eventually(async || running.has_metric("modelguard_admission_in_flight 2").await).await;
    running.world.hang(false);
    assert_eq!(soon(judged).await.unwrap()["response"]["allowed"], true);
    assert_eq!(soon(waits).await.unwrap()["response"]["allowed"], true, "its turn came");
    assert_eq!(second.review("/validate", &other).await["response"]["allowed"], true, "the slot is free again");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let limits = Limits { validate: 3, ..Limits::default() };
    let running = Running::start(config(limits)).await;
    running.world.hang(true);
    let mut gone = running.http1().await;
    let asked = tokio::spawn(async move { gone.review("/validate?timeout=30s", &recorded("deployment-create")).await });
    soon(running.world.hanging(1)).await;
    asked.abort();
    soon(running.world.hanging(0)).await;
    running.world.hang(false);
    let answer = running.http1().await.review("/validate", &recorded("deployment-create")).await;
    assert_eq!(answer["response"]["allowed"], true);
    running.stop().await.unwrap();
}

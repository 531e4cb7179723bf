//! Two replicas behind the Service, and what goes wrong around them, under fifty writes a second.
//!
//! ```text
//! Writes ──50/s──▶ kube-apiserver ──▶ balancer ──▶ replica 0 │ replica 1      killed, restarted, one after the other
//!   │                   └── etcd                                              restarted as well
//!   └─▶ each answer: as it must be │ wrong │ failed           at the end: what was acknowledged is stored
//! ```
//! A wrong answer is never allowed: what must not pass passed, or what may pass was called wrong. A call that failed
//! says that nobody could be asked.

use crate::scene::{Scene, Setup, Test, own};
use crate::support::builders::{deployment, keys};
use crate::support::client::{client, code};
use crate::support::control_plane::Shape;
use crate::support::wait::until;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Fifty a second.
const PERIOD: Duration = Duration::from_millis(20);

/// The most that wait for an answer: a machine that is too slow for fifty a second gets fewer, not more at a time.
const AT_A_TIME: usize = 25;

/// So many that they seldom meet in one.
const CATALOGS: usize = 20;

/// Δ where a proof outlives its leader: longer than the lease, which lasts 15 s.
const SETTLE: Duration = Duration::from_secs(20);

pub(crate) fn tests() -> Vec<Test> {
    let mut two = Setup { shape: Shape::Store, ..Setup::default() };
    two.options.replicas = 2;
    two.options.shutdown_delay = "3s".to_owned();
    let mut slow = two.clone();
    slow.options.settle = format!("{}s", SETTLE.as_secs());
    vec![
        own("replicas::a_rolling_restart_fails_no_call", two.clone(), a_rolling_restart_fails_no_call),
        own("replicas::either_may_be_killed", slow, either_may_be_killed),
        own("replicas::the_api_server_and_etcd_may_restart", two, the_api_server_and_etcd_may_restart),
    ]
}

fn a_rolling_restart_fails_no_call(scene: &Scene<'_>) {
    let written = Writes::during(scene, |writes| {
        for replica in &scene.at.modelguard.replicas {
            writes.some_more();
            let status = replica.stop().expect("it ends");
            assert!(status.success(), "{status}");
            writes.some_more();
            replica.restart().expect("it starts");
            scene.at.modelguard.wait_until_ready(2).expect("both are ready");
        }
        writes.some_more();
    });
    println!("replicas, rolling restart: {written}");
    written.check(scene);
    assert!(written.failed().next().is_none(), "calls failed: {written}");
    // Of the one that was restarted last it is not certain: the API server keeps the connections that it has.
    assert!(scene.at.modelguard.replicas[0].metrics().expect("metrics").requests() > 0.0, "never asked again");
    scene.at.modelguard.wait_until_ready(2).expect("both are ready");
}

fn either_may_be_killed(scene: &Scene<'_>) {
    let modelguard = &scene.at.modelguard;
    scene.create_object(keys("proof", &["v1", "v2"]).to_string()).ok();
    let mut noticed = Vec::new();
    let mut kill = |number: usize| {
        let killed = Instant::now();
        modelguard.replicas[number].kill();
        modelguard.wait_until_ready(1).expect("it is noticed");
        noticed.push((killed, Instant::now()));
    };
    let written = Writes::during(scene, |writes| {
        writes.some_more();
        let leader = scene.leader().name();
        let number = modelguard.replicas.iter().position(|replica| replica.name() == leader).expect("one of two");
        kill(1 - number);
        writes.some_more();
        modelguard.replicas[1 - number].restart().expect("it starts");
        modelguard.wait_until_ready(2).expect("both are ready");
        writes.some_more();

        let refused = Instant::now();
        writes.refused("proof", "v1");
        until("v1 is settling", || usage(scene, |usage| usage["settling"]["v1"].is_string()));
        kill(number);
        // When it did not lead yet: whatever began with it began later.
        let mut earlier = Instant::now();
        until("the other one leads", || {
            let asked = Instant::now();
            let now = scene.leader().name();
            if now != leader {
                return Ok(());
            }
            earlier = asked;
            Err(now.to_owned())
        });
        until("v1 may go", || usage(scene, |usage| usage["idle"] == json!(["v1"])));
        let (waited, led) = (refused.elapsed(), earlier.elapsed());
        println!(
            "replicas, leader killed: Idle {waited:.1?} after it was refused, {led:.1?} after the other one leads"
        );
        assert!(waited > SETTLE, "{waited:?}: sooner than Δ");
        // Had the wait begun anew with the other one, it would have taken all of Δ, however fast the machine is.
        assert!(led < SETTLE, "{led:?}: the wait began anew");
        let removal = ["patch", "configmap", "proof", "--type=merge", r#"-p={"data":{"v1":null}}"#];
        scene.kubectl(removal).run().ok();
        modelguard.replicas[number].restart().expect("it starts");
        modelguard.wait_until_ready(2).expect("both are ready");
        writes.some_more();
    });
    println!("replicas, killed: {written}");
    written.check(scene);
    let explained = |answer: &&Answer| noticed.iter().any(|(from, to)| answer.began <= *to && answer.ended >= *from);
    let odd: Vec<_> = written.failed().filter(|answer| !explained(answer)).collect();
    assert!(odd.is_empty(), "failed though nobody had just been killed: {odd:?}");
}

fn the_api_server_and_etcd_may_restart(scene: &Scene<'_>) {
    let cluster = &scene.at.cluster;
    scene.armed();
    let written = Writes::during(scene, |writes| {
        writes.some_more();
        cluster.restart_api_server().expect("the API server starts");
        writes.some_more();
        cluster.restart_etcd().expect("etcd starts");
        writes.some_more();
        scene.at.modelguard.wait_until_ready(2).expect("both are ready");
    });
    println!("replicas, API server and etcd restarted: {written}");
    written.check(scene);
    scene.create_object(keys("after", &["v1", "v2"]).to_string()).ok();
    let removal = ["patch", "configmap", "after", "--type=merge", r#"-p={"data":{"v1":null}}"#];
    until("what nobody needs can be removed", || scene.kubectl(removal).run().passed());
    for replica in &scene.at.modelguard.replicas {
        replica.check().expect("it runs since the beginning");
    }
}

// === writes ===

/// Fifty writes of model ConfigMaps a second, however long each takes: of five, four add an entry and one removes one
/// that is held. With every tenth, somebody else wants to use what does not exist.
struct Writes {
    runtime: Handle,
    passed: AtomicUsize,
    ended: AtomicBool,
    answers: Mutex<Vec<Answer>>,
    catalogs: Api<ConfigMap>,
    apps: Api<Deployment>,
}

/// What came of them.
struct Written {
    answers: Vec<Answer>,
    took: Duration,
}

#[derive(Clone, Debug)]
struct Answer {
    what: What,
    began: Instant,
    ended: Instant,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum What {
    /// Adds the entry of this number.
    Add(usize),
    /// Removes an entry that is held.
    Remove(usize),
    /// Refers to an entry that there never was.
    Refer(usize),
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Outcome {
    AsItMustBe,
    Wrong(String),
    Failed(String),
}

impl Writes {
    /// Writes while `body` runs.
    fn during(scene: &Scene<'_>, body: impl FnOnce(&Self)) -> Written {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        for number in 0..CATALOGS {
            scene.create_object(keys(&catalog(number), &["held"]).to_string()).ok();
        }
        let uses: Vec<_> = (0..CATALOGS).map(|number| format!("{}:held", catalog(number))).collect();
        scene.create_object(deployment("holder", 1, &uses.join(", ")).to_string()).ok();

        let client = runtime.block_on(client(&scene.at.cluster)).expect("a client");
        let writes = Arc::new(Self {
            runtime: runtime.handle().clone(),
            passed: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            answers: Mutex::default(),
            catalogs: Api::namespaced(client.clone(), &scene.namespace.name),
            apps: Api::namespaced(client, &scene.namespace.name),
        });
        let began = Instant::now();
        let running = runtime.spawn(Arc::clone(&writes).run());
        body(&writes);
        writes.ended.store(true, Ordering::Relaxed);
        let took = began.elapsed();
        runtime.block_on(running).expect("no write panics");
        let answers = writes.answers.lock().expect("nobody panics with it").clone();
        Written { answers, took }
    }

    async fn run(self: Arc<Self>) {
        let mut ticks = interval(PERIOD);
        // Fifty a second on average, whatever holds us up.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut running = JoinSet::new();
        for number in 0.. {
            ticks.tick().await;
            while running.len() >= AT_A_TIME {
                running.join_next().await.expect("one of them").expect("no write panics");
            }
            if self.ended.load(Ordering::Relaxed) {
                break;
            }
            let write = if number % 5 == 4 { What::Remove(number) } else { What::Add(number) };
            let other = (number % 10 == 0).then_some(What::Refer(number));
            for what in [Some(write), other].into_iter().flatten() {
                running.spawn(Arc::clone(&self).ask(what));
            }
        }
        while let Some(ended) = running.join_next().await {
            ended.expect("no write panics");
        }
    }

    async fn ask(self: Arc<Self>, what: What) {
        let began = Instant::now();
        let params = PatchParams::default();
        let answer = match what {
            What::Add(number) => {
                let patch = Patch::Merge(json!({"data": {entry(number): "weights"}}));
                self.catalogs.patch(&catalog(number), &params, &patch).await.map(drop)
            }
            What::Remove(number) => {
                let patch = Patch::Merge(json!({"data": {"held": null}}));
                self.catalogs.patch(&catalog(number), &params, &patch).await.map(drop)
            }
            What::Refer(number) => {
                let app = deployment(&format!("stray-{number}"), 1, &format!("{}:never", catalog(number)));
                let app = serde_json::from_value(app).expect("a Deployment");
                self.apps.create(&PostParams::default(), &app).await.map(drop)
            }
        };
        let ended = Instant::now();
        let outcome = Outcome::of(what, answer);
        if outcome == Outcome::AsItMustBe {
            self.passed.fetch_add(1, Ordering::Relaxed);
        }
        self.answers.lock().expect("nobody panics with it").push(Answer { what, began, ended, outcome });
    }

    /// Asks once to remove an entry that nobody needs and nobody has proven so: it begins to settle.
    fn refused(&self, catalog: &str, entry: &str) {
        let patch = Patch::Merge(json!({"data": {entry: null}}));
        let answer = self.runtime.block_on(self.catalogs.patch(catalog, &PatchParams::default(), &patch));
        assert_eq!(answer.map(drop).map_err(|error| code(&error)), Err("MG103".to_owned()));
    }

    /// Waits for the right answers of one more second.
    fn some_more(&self) {
        let enough = self.passed.load(Ordering::Relaxed) + 50;
        until("more was written", || match self.passed.load(Ordering::Relaxed) {
            passed if passed >= enough => Ok(()),
            passed => Err(format!("{passed} of {enough}")),
        });
    }
}

fn catalog(number: usize) -> String {
    format!("models-{}", number % CATALOGS)
}

fn entry(number: usize) -> String {
    format!("e{number}")
}

impl Outcome {
    fn of(what: What, answer: Result<(), kube::Error>) -> Self {
        let expected = match what {
            What::Add(_) => None,
            What::Remove(_) => Some("MG101"),
            What::Refer(_) => Some("MG201"),
        };
        match (answer, expected) {
            (Ok(()), None) => Self::AsItMustBe,
            (Ok(()), Some(_)) => Self::Wrong("it passed".to_owned()),
            (Err(error), Some(expected)) if code(&error) == expected => Self::AsItMustBe,
            // The mutating webhook may fail open: it did, when the replica that it had asked was killed. The validating
            // one refused what it should have set, and says to repeat it.
            (Err(error), None) if code(&error) == "MG107" => Self::Failed(error.to_string()),
            (Err(kube::Error::Api(status)), _) if (400..500).contains(&status.code) && status.code != 429 => {
                Self::Wrong(format!("{}: {}", status.code, status.message))
            }
            (Err(error), _) => Self::Failed(error.to_string()),
        }
    }
}

impl Written {
    fn failed(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter().filter(|answer| matches!(answer.outcome, Outcome::Failed(_)))
    }

    /// Writes of model ConfigMaps a second.
    fn rate(&self) -> f64 {
        let writes = self.answers.iter().filter(|answer| !matches!(answer.what, What::Refer(_)));
        f64::from(u32::try_from(writes.count()).expect("a number")) / self.took.as_secs_f64()
    }

    /// No answer was wrong, and what was acknowledged is stored.
    fn check(&self, scene: &Scene<'_>) {
        let wrong: Vec<_> = self.answers.iter().filter(|answer| matches!(answer.outcome, Outcome::Wrong(_))).collect();
        assert!(wrong.is_empty(), "wrong answers: {wrong:#?}");
        let stored = scene.kubectl(["get", "configmaps,deployments", "-o", "json"]).run().json();
        let mut entries: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for object in stored["items"].as_array().expect("a list") {
            let name = object["metadata"]["name"].as_str().expect("a name");
            assert!(!name.starts_with("stray-"), "{name} uses what there never was");
            entries
                .insert(name, object["data"].as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect());
        }
        for number in 0..CATALOGS {
            assert!(entries[catalog(number).as_str()].contains("held"), "{} lost what is held", catalog(number));
        }
        for answer in self.answers.iter().filter(|answer| answer.outcome == Outcome::AsItMustBe) {
            if let What::Add(number) = answer.what {
                let there = entries[catalog(number).as_str()].contains(entry(number).as_str());
                assert!(there, "{answer:?} was acknowledged, and is not there");
            }
        }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for answer in &self.answers {
            if let Outcome::Wrong(why) | Outcome::Failed(why) = &answer.outcome {
                *reasons.entry(why).or_default() += 1;
            }
        }
        let wrong = self.answers.iter().filter(|answer| matches!(answer.outcome, Outcome::Wrong(_))).count();
        let (all, failed) = (self.answers.len(), self.failed().count());
        let rate = self.rate();
        write!(f, "{all} answers in {:.1?}, {rate:.0} writes a second; {wrong} wrong, {failed} failed", self.took)?;
        reasons.iter().try_for_each(|(why, count)| write!(f, "\n  {count} × {why}"))
    }
}

// === steps ===

fn usage(scene: &Scene<'_>, holds: impl Fn(&Value) -> bool) -> Result<(), String> {
    let usage = scene.get("configmap", "proof")["metadata"]["annotations"]["modelguard.dev/usage"].take();
    let text = usage.as_str().unwrap_or("{}");
    if serde_json::from_str(text).is_ok_and(|usage: Value| holds(&usage)) { Ok(()) } else { Err(text.to_owned()) }
}

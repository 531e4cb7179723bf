//! A start among 10,000 real pods, and memory while 10,000 more come and go: `just startup`, ten to twenty minutes.
//!
//! ```text
//! ControlPlane (pods that kwok runs) ◀──watches── modelguard ──/readyz, /metrics, /proc/PID──▶ one line a moment
//! ```
//! What comes references versions that nobody else does, so each time it goes there are proofs to make as well.

#[path = "../tests/support/mod.rs"]
mod support;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::assets::Assets;
use support::builders::{deployment, extraction_models};
use support::client::client;
use support::control_plane::{ControlPlane, Shape};
use support::leftovers;
use support::modelguard::{Modelguard, Options, Replica, Route};
use support::namespace::Namespace;
use support::wait::{LONG, poll};

const NAMESPACES: usize = 10;
const DEPLOYMENTS: usize = 100;
const PODS: u32 = 10_000;

/// How often more pods come and go: memory that one time leaves behind shows as more each time.
const ROUNDS: usize = 2;

/// How much more than before memory may be once they are gone.
const FLAT: f64 = 1.1;

/// How long so many pods may take to come or go.
const PATIENCE: Duration = Duration::from_secs(600);

/// The kernel counts processor time in hundredths of a second.
const TICK: f64 = 0.01;

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
struct Used {
    processor: f64,
    /// MiB, now and at most.
    memory: f64,
    peak: f64,
}

/// A cluster with modelguard in it.
struct Scene<'a> {
    namespaces: Vec<Namespace<'a>>,
    client: Client,
    replica: &'a Replica,
    binary: PathBuf,
}

fn main() -> Result<()> {
    let binary = std::env::args_os().nth(1).map(PathBuf::from);
    let binary = binary.context("usage: startup PATH_OF_MODELGUARD (`just startup` builds it)")?;
    let binary = binary.canonicalize().with_context(|| format!("no program at {}", binary.display()))?;
    leftovers::watch_for_signals()?;
    let cluster = ControlPlane::start(&Assets::find()?, Shape::Full)?;
    let options = Options {
        binary: binary.clone(),
        settle: "2s".to_owned(),
        shutdown_delay: "1s".to_owned(),
        replicas: 1,
        route: Route::Service,
        args: Vec::new(),
    };
    let modelguard = Modelguard::install(&cluster, &options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let scene = Scene {
            namespaces: (0..NAMESPACES).map(|_| Namespace::create(&cluster, "startup", true)).collect(),
            client: client(&cluster).await?,
            replica: modelguard.first(),
            binary,
        };
        measure(&scene).await.map_err(|error| error.context(cluster.log_tails()).context(modelguard.log_tails()))
    })
}

async fn measure(scene: &Scene<'_>) -> Result<()> {
    for namespace in &scene.namespaces {
        namespace.wait_for_account();
        namespace.apply(extraction_models(&["v1", "v2"]).to_string()).ok();
    }
    scene.start("without pods")?;
    scene.come("app", "v1", PODS).await?;
    scene.start(&format!("among {PODS} pods"))?;
    let before = scene.settled("settled").await?;
    for round in 1..=ROUNDS {
        scene.come("more", "v2", 2 * PODS).await?;
        scene.settled(&format!("{PODS} more, time {round}")).await?;
        scene.go("more").await?;
        let after = scene.settled(&format!("gone, time {round}")).await?;
        println!("  {:.2} times the memory of before (limit {FLAT})", after.memory / before.memory);
    }
    Ok(())
}

// === impl Scene ===

impl Scene<'_> {
    /// Starts the program anew, and says how long that took.
    fn start(&self, when: &str) -> Result<()> {
        self.replica.kill();
        let start = Instant::now();
        self.replica.restart()?;
        let ready = start.elapsed();
        poll("the index is synced", LONG, || {
            ensure!(self.replica.metrics()?.sum("modelguard_index_synced", &[]) > 0.0, "it is not");
            Ok::<_, anyhow::Error>(())
        })?;
        println!("start {when}: ready after {:.2?}, index synced after {:.2?}", ready, start.elapsed());
        self.used()?.print("then");
        Ok(())
    }

    /// Makes Deployments of that many pods in all, and waits until `total` are ready.
    async fn come(&self, name: &str, version: &str, total: u32) -> Result<()> {
        let start = Instant::now();
        for number in 0..DEPLOYMENTS {
            let namespace = &self.namespaces[number % NAMESPACES].name;
            let uses = format!("extraction-models:extraction@{version}");
            let mut object = deployment(&format!("{name}-{number}"), PODS / DEPLOYMENTS as u32, &uses);
            object["metadata"]["labels"] = json!({"batch": name});
            // The scheduler would take minutes: it is held to fifty pods a second.
            object["spec"]["template"]["spec"]["nodeName"] = ["node-a", "node-b"][number % 2].into();
            let api = Api::<Deployment>::namespaced(self.client.clone(), namespace);
            api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        }
        self.wait("pods are ready", || self.ready(), total).await?;
        println!("  ({PODS} pods came within {:.0?})", start.elapsed());
        Ok(())
    }

    /// Deletes them, and waits until their pods are gone.
    async fn go(&self, name: &str) -> Result<()> {
        let start = Instant::now();
        let params = ListParams::default().labels(&format!("batch={name}"));
        for namespace in &self.namespaces {
            let api = Api::<Deployment>::namespaced(self.client.clone(), &namespace.name);
            api.delete_collection(&DeleteParams::background(), &params).await?;
        }
        self.wait("pods are there", || self.there(), PODS).await?;
        println!("  ({PODS} pods went within {:.0?})", start.elapsed());
        Ok(())
    }

    /// Waits until `count` says `wanted`.
    async fn wait<F: Future<Output = Result<u32>>>(
        &self,
        what: &str,
        count: impl Fn() -> F,
        wanted: u32,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            let counted = count().await?;
            if counted == wanted {
                return Ok(());
            }
            self.replica.check()?;
            if start.elapsed() > PATIENCE {
                bail!("after {PATIENCE:?}, {counted} of {wanted} {what}");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn ready(&self) -> Result<u32> {
        let all = Api::<Deployment>::all(self.client.clone()).list(&ListParams::default()).await?;
        let ready = |it: Deployment| it.status.and_then(|status| status.ready_replicas).unwrap_or_default();
        let ready: i32 = all.into_iter().map(ready).sum();
        Ok(ready.try_into()?)
    }

    async fn there(&self) -> Result<u32> {
        let one = Api::<Pod>::all(self.client.clone()).list_metadata(&ListParams::default().limit(1)).await?;
        let others = one.metadata.remaining_item_count.unwrap_or_default();
        Ok(u32::try_from(others)? + u32::try_from(one.items.len())?)
    }

    /// What the program has used once it has nothing more to do.
    async fn settled(&self, when: &str) -> Result<Used> {
        let start = Instant::now();
        let mut quiet = 0;
        let mut last = self.used()?;
        // Longer than Δ, after which proofs are made.
        while quiet < 5 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = self.used()?;
            quiet = if now.processor - last.processor < 3.0 * TICK { quiet + 1 } else { 0 };
            last = now;
            ensure!(start.elapsed() < PATIENCE, "it is busy for {PATIENCE:?} already");
        }
        last.print(when);
        Ok(last)
    }

    fn used(&self) -> Result<Used> {
        Used::by(&self.binary, &format!("--listen={}", self.replica.listen()))
    }
}

// === impl Used ===

impl Used {
    /// By the process of that program and with that argument.
    fn by(program: &Path, argument: &str) -> Result<Self> {
        let mut processes = fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path()));
        let process = processes.find(|process| {
            let args = fs::read(process.join("cmdline")).unwrap_or_default();
            fs::read_link(process.join("exe")).is_ok_and(|exe| exe == program)
                && args.split(|byte| *byte == 0).any(|arg| arg == argument.as_bytes())
        });
        let process = process.with_context(|| format!("no process runs with {argument}"))?;
        let status = fs::read_to_string(process.join("status"))?;
        let stat = fs::read_to_string(process.join("stat"))?;
        // After the program's name, which may hold spaces, utime and stime are the 12th and the 13th.
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(11).take(2));
        let ticks: u32 =
            fields.context("/proc/PID/stat has no name")?.filter_map(|field| field.parse::<u32>().ok()).sum();
        Ok(Self {
            processor: f64::from(ticks) * TICK,
            memory: mebibytes(&status, "VmRSS:")?,
            peak: mebibytes(&status, "VmHWM:")?,
        })
    }

    fn print(&self, when: &str) {
        let Self { processor, memory, peak } = self;
        println!("  {when:<24}{memory:>7.1} MiB resident, {peak:>6.1} at most, {processor:>6.2} s of a processor");
    }
}

fn mebibytes(status: &str, field: &str) -> Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")).context("/proc/PID/status says no size")?;
    Ok(kibibytes.parse::<f64>()? / 1024.0)
}

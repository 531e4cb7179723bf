//! `modelguard serve`: brings the transport, the cluster and the controller together.

use crate::admission::{self, Limits};
use crate::cli::{Exit, block_on, connect};
use crate::clock::Clock;
use crate::controller::{self, Election, Leadership, Progress};
use crate::guard::{Guard, RollbackTargets, WhileInUse};
use crate::index::watch::Watches;
use crate::index::{self, Index};
use crate::metrics::{self, Metrics, Registry};
use crate::shutdown::{self, Shutdown, Tasks};
use crate::telemetry;
use crate::world::World;
use crate::world::cluster::{Cluster, history};
use crate::world::standalone::{CarriedUsage, Standalone};
use crate::{admin, record};
use anyhow::Context as _;
use futures::StreamExt as _;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Api, PostParams};
use parking_lot::RwLock;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Removals that wait for their Settling to be written; a client whose removal does not fit asks again.
const REFUSED: usize = 256;

/// Events that wait to be written, at 1 kB each; what does not fit is counted.
const EVENTS: usize = 256;

/// How long the API server may take to say who we are.
const HELLO: Duration = Duration::from_secs(10);

/// How long it is asked again before the process gives up: a control plane that restarts is back by then, and a crash
/// would be followed by a pause that grows to five minutes.
const HELLOS: Duration = Duration::from_secs(60);

/// What `serve` was typed with; each flag has an environment variable.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Kubeconfig file [default: the usual rules, then in cluster]
    #[arg(long, value_name = "FILE", env = "MODELGUARD_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// No cluster: judge by the manifests in this folder, read again when they change
    #[arg(long, value_name = "DIR", env = "MODELGUARD_STANDALONE", conflicts_with = "kubeconfig")]
    standalone: Option<PathBuf>,
    /// Where the webhook listens
    #[arg(long, value_name = "ADDRESS", env = "MODELGUARD_LISTEN", default_value = "[::]:10250")]
    listen: SocketAddr,
    /// Where /livez, /readyz and /metrics are served
    #[arg(long, value_name = "ADDRESS", env = "MODELGUARD_ADMIN_LISTEN", default_value = "[::]:9090")]
    admin_listen: SocketAddr,
    /// Folder with tls.crt and tls.key, read again when it changes
    #[arg(long, value_name = "DIR", env = "MODELGUARD_TLS_DIR", default_value = "/etc/modelguard/tls")]
    tls_dir: PathBuf,
    /// Δ: the longest that a request may take between its admission and its commit; under 60s only for tests
    #[arg(long, value_name = "DURATION", env = "MODELGUARD_SETTLE", default_value = "60s", value_parser = duration)]
    settle: Duration,
    /// What becomes of a change that takes away an entry in use: deny, wait, defer, warn or audit
    #[arg(long, value_name = "MODE", env = "MODELGUARD_WHILE_IN_USE", default_value = "deny")]
    while_in_use: WhileInUse,
    /// What becomes of a removal of what only a rollback to an old ReplicaSet would need: warn, hold (it is in use) or
    /// ignore
    #[arg(long, value_name = "MODE", env = "MODELGUARD_ROLLBACK_TARGETS", default_value = "warn")]
    rollback_targets: RollbackTargets,
    /// Whether a reference is allowed only where a ready server serves its entry
    #[arg(long, value_name = "BOOL", env = "MODELGUARD_REQUIRE_SERVED", default_value_t = false)]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    require_served: bool,
    /// Whether an entry that workloads need and that is gone is put back from the prior revision
    #[arg(long, value_name = "BOOL", env = "MODELGUARD_HEAL", default_value_t = false)]
    #[arg(action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    heal: bool,
    /// How many revisions of a model ConfigMap are kept beside it, the current one not counted
    #[arg(long, value_name = "NUMBER", env = "MODELGUARD_REVISION_HISTORY_LIMIT", default_value_t = 10)]
    revision_history_limit: u32,
    /// How long to go on serving after SIGTERM, while others learn that this replica leaves
    #[arg(long, value_name = "DURATION", env = "MODELGUARD_SHUTDOWN_DELAY", default_value = "10s", value_parser = duration)]
    shutdown_delay: Duration,
    /// Name of the Mutating- and the ValidatingWebhookConfiguration that call this webhook
    #[arg(long, value_name = "NAME", env = "MODELGUARD_WEBHOOK_CONFIGURATION", default_value = "modelguard")]
    webhook_configuration: String,
    /// Name of the Lease by which the replicas elect the one that acts
    #[arg(long, value_name = "NAME", env = "MODELGUARD_LEASE", default_value = "modelguard")]
    lease: String,
    /// Namespace of that Lease
    #[arg(long, value_name = "NAME", env = "MODELGUARD_NAMESPACE", default_value = "modelguard-system")]
    namespace: String,
    /// How logs are written to stderr
    #[arg(long, value_name = "FORMAT", env = "MODELGUARD_LOG_FORMAT", default_value = "text")]
    log_format: telemetry::Format,
}

/// Files that are open beside the connections of others: the listeners, what is watched and read, the log.
const FILES: usize = 256;

impl Args {
    /// The built-in guard.
    fn guard(&self) -> Guard {
        let Self { while_in_use, rollback_targets, require_served, heal, .. } = *self;
        Guard { while_in_use, rollback_targets, require_served, heal }
    }
}

/// Serves until told to stop.
pub(super) fn run(args: Args) -> anyhow::Result<Exit> {
    let _log = telemetry::init(args.log_format)?;
    block_on(serve(args))??;
    Ok(Exit::Fine)
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let (trigger, shutdown) = shutdown::channel();
    let mut tasks = Tasks::new();
    tasks.spawn("signals", shutdown::on_signals(trigger));

    let readiness = admin::Readiness::default();
    let mut registry = metrics::registry();
    let metrics = Metrics::register(&mut registry);
    let counted = (registry, metrics.clone());
    if let Some(dir) = &args.standalone {
        let world = Standalone::open(dir, args.guard(), CarriedUsage::Ignored).await?;
        return answer(&args, world, None, counted, readiness, shutdown, tasks).await;
    }
    let client = connect::cluster(args.kubeconfig.as_deref(), None).await?.client;
    let own_username = hello(&client).await?;
    tracing::info!(username = own_username, version = env!("CARGO_PKG_VERSION"), "connected to the API server");
    let cluster = spawn_cluster(client, &args, &metrics, &shutdown, &mut tasks);
    informed(&readiness, &cluster);
    answer(&args, cluster, Some(own_username.into()), counted, readiness, shutdown, tasks).await
}

/// Answers reviews in `world` until told to stop.
async fn answer<W: World>(
    args: &Args,
    world: W,
    own_username: Option<Box<str>>,
    (registry, metrics): (Registry, Metrics),
    readiness: admin::Readiness,
    shutdown: Shutdown,
    mut tasks: Tasks,
) -> anyhow::Result<()> {
    let (log, writer) = record::Log::start(std::io::stdout(), &metrics).context("start the decision log")?;
    let config = admission::Config {
        listen: args.listen,
        admin_listen: args.admin_listen,
        tls_dir: args.tls_dir.clone(),
        own_username,
        limits: limits(),
        shutdown_delay: args.shutdown_delay,
        ..admission::Config::default()
    };
    let parts = admission::Parts { world: Arc::new(world), registry, metrics, log, writer, readiness, shutdown };
    let server = admission::Server::bind(config, parts).await?;
    tokio::select! {
        served = server.serve() => served?,
        ended = tasks.ended() => return Err(ended.into()),
    }
    Ok(())
}

/// Starts everything that watches the cluster or acts on it.
fn spawn_cluster(
    client: kube::Client,
    args: &Args,
    metrics: &Metrics,
    shutdown: &Shutdown,
    tasks: &mut Tasks,
) -> Cluster {
    let index = Arc::new(RwLock::new(Index::new(args.rollback_targets)));
    let (armed, on_armed) = watch::channel(());
    let (told, leadership) = watch::channel(Leadership::default());
    let (refused, on_refused) = mpsc::channel(REFUSED);
    let (events, on_event) = mpsc::channel(EVENTS);
    let progress = Progress::new(Clock::start(), args.settle, args.rollback_targets, leadership);
    let (history, watched) = history::watch(&client);
    tasks.spawn("kept revisions", never_ends(watched.for_each(|()| std::future::ready(()))));
    let cluster = Cluster {
        client: client.clone(),
        history,
        guard: args.guard(),
        index: index.clone(),
        progress: progress.clone(),
        refused,
        events,
        metrics: metrics.clone(),
    };

    let Watches { tasks: mut watches, changes } = index::watch::spawn(&client, &index);
    tasks.spawn("watches", async move { watches.join_next().await.map_or(Ok(()), |ended| ended.map(drop)) });
    let namespaces = controller::follow_namespaces(index, changes.clone(), progress.clone(), armed.clone());
    tasks.spawn("guarded namespaces", never_ends(namespaces));
    let configuration = args.webhook_configuration.clone();
    let configurations = controller::watch_configurations(client.clone(), configuration.clone(), progress, armed);
    tasks.spawn("webhook configurations", never_ends(configurations));

    let identity = identity();
    let mut election = Election::new(client, &args.namespace, &args.lease, identity.clone(), told);
    let stop = shutdown.clone();
    tasks.spawn("election", async move {
        election.run(stop.leaving()).await;
        // Stepping down at the end is no failure; the process ends by its server.
        std::future::pending::<Result<(), Infallible>>().await
    });
    tasks.spawn(
        "history",
        never_ends(controller::keep_history(cluster.clone(), changes.clone(), args.revision_history_limit.into())),
    );
    tasks.spawn("proofs", never_ends(controller::prove(cluster.clone(), changes, on_armed)));
    tasks.spawn("refused removals", never_ends(controller::settle_refused(cluster.clone(), on_refused)));
    tasks.spawn("audit", never_ends(controller::audit(cluster.clone(), configuration)));
    tasks.spawn("events", never_ends(controller::announce(cluster.clone(), identity, on_event)));
    cluster
}

/// What the API server calls us: its requests on our behalf must never wait for the others.
async fn hello(client: &kube::Client) -> anyhow::Result<String> {
    let until = Instant::now() + HELLOS;
    loop {
        match username(client).await {
            Ok(username) => return Ok(username),
            Err(error) if Instant::now() > until => return Err(error),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "no API server yet; trying again"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn username(client: &kube::Client) -> anyhow::Result<String> {
    const ASKING: &str = "ask the API server who we are";
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let (params, review) = (PostParams::default(), SelfSubjectReview::default());
    let answer = tokio::time::timeout(HELLO, api.create(&params, &review)).await.context(ASKING)?.context(ASKING)?;
    let user = answer.status.and_then(|status| status.user_info);
    user.and_then(|user| user.username).context("the API server does not say who we are")
}

/// A replica is ready once it has read what proofs rest on, and stays so: without it, removals are refused, with their
/// reason, and everything else is judged as ever.
fn informed(readiness: &admin::Readiness, cluster: &Cluster) {
    let (progress, once) = (cluster.progress.clone(), AtomicBool::new(false));
    readiness.require("configurations", move || {
        if once.load(Ordering::Relaxed) || progress.is_informed() {
            once.store(true, Ordering::Relaxed);
            return Ok(());
        }
        Err("the webhook configurations and the guarded namespaces have not been read yet".to_owned())
    });
}

/// What is too much, in view of the files that this process may open: as many as it can have, for where a system lets
/// processes begin with 1,024 it lets them ask for more.
fn limits() -> Limits {
    let limits = Limits::default();
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = if raised.is_ok() { maximum } else { current };
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    let connections = limits.connections.min(files.saturating_sub(FILES)).max(1);
    if connections < limits.connections {
        tracing::warn!(files, connections, "few files may be open, so few connections");
    }
    Limits { connections, ..limits }
}

/// A name that no other replica has: the pod's, where there is one, and something random.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "modelguard".to_owned());
    let random: String = std::iter::repeat_with(fastrand::alphanumeric).take(6).collect();
    format!("{host}_{random}")
}

/// Turns what runs for ever into a task: should it end, the process does.
async fn never_ends(task: impl Future<Output = ()>) -> Result<(), Infallible> {
    task.await;
    Ok(())
}

/// Reads a duration as `60s`, `1m30s` or `500ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "expected a duration such as 60s or 1m30s".to_owned())?;
    Duration::try_from(span).map_err(|_| "expected a duration that is not negative".to_owned())
}

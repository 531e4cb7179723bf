//! The command line: what was typed. What it means and doing it is each subcommand's `run`.

mod admit;
mod audit;
mod connect;
mod demo;
mod diff;
mod exit;
mod history;
mod output;
mod review;
mod rollback;
mod serve;
mod status;
mod stored;

pub use exit::Exit;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use std::num::NonZero;
use std::path::Path;

/// Release guardrails for ML models on Kubernetes.
#[derive(Debug, Parser)]
// A later flag overrides an earlier one, so that a chart's `extraArgs` can change what the chart sets.
#[command(name = "modelguard", version, about, max_term_width = 100, args_override_self = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run the admission webhook and its controller
    Serve(serve::Args),
    /// Show model ConfigMaps: who uses each entry, and whether it may be removed
    Status(status::Args),
    /// List the revisions of a model ConfigMap that are kept
    History(history::Args),
    /// Show what tells two revisions of a model ConfigMap apart
    Diff(diff::Args),
    /// Look for what should not be there in a cluster; ends with 1 if there is anything
    Audit(audit::Args),
    /// Replay an incident over HTTPS, without and with modelguard; needs no cluster
    Demo(demo::Args),
    /// Restore a model ConfigMap, and the app with it; ends with 1 if that is denied
    Rollback(rollback::Args),
    /// Judge a saved AdmissionReview by a folder of manifests; ends with 1 if it is denied
    Review(review::Args),
}

// === impl Cli ===

impl Cli {
    /// What was typed.
    ///
    /// # Errors
    /// When it is none of ours, or asks for help; the error knows what to print.
    pub fn read() -> Result<Self, clap::Error> {
        let mut command = Self::command().bin_name(name());
        let typed = command.try_get_matches_from_mut(std::env::args_os())?;
        Self::from_arg_matches(&typed).map_err(|error| error.format(&mut command))
    }
}

/// What the user calls this program: as `kubectl-modelguard` it is a plugin of kubectl.
fn name() -> &'static str {
    let called = std::env::args_os().next().unwrap_or_default();
    let is_plugin = Path::new(&called).file_stem().is_some_and(|stem| stem == "kubectl-modelguard");
    if is_plugin { "kubectl modelguard" } else { "modelguard" }
}

/// Does what was typed.
///
/// # Errors
/// When it cannot be done; the error says what was tried and why it failed.
pub fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Status(args) => status::run(&args),
        Command::History(args) => history::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Review(args) => review::run(&args),
        Command::Rollback(args) => rollback::run(&args),
    }
}

/// Threads that judge, at most. One 1 MiB catalog takes some 30 MB while it is read, so their number bounds the memory
/// on a large node; a decision takes microseconds.
const WORKERS: usize = 4;

/// Of every thread: what reads manifests recurses as deep as they nest, which takes up to 2 MiB in a debug build.
const STACK: usize = 4 << 20;

/// Runs what is asynchronous.
fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    // ring is what kube uses; without a default, rustls would panic at the first handshake.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(WORKERS);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(workers).thread_stack_size(STACK).enable_all();
    let runtime = builder.build().context("start the runtime")?;
    Ok(runtime.block_on(work))
}

//! `modelguard rollback`: a model ConfigMap, and the app that uses it, back to what they were.
//!
//! ```text
//! History ──choose──▶ revision ──rollback-to──▶ the mutating webhook restores it          step 1
//!                        ▲                        with --with: the app's former template   step 2
//!            needs of the app's former template       until nobody needs what came since   step 3
//! ```
//! What is under way with an app stands in an annotation of the ConfigMap, written with the first step: whoever asks
//! again goes on where it stopped.

mod app;
mod together;

use crate::cli::connect::{Cluster, Namespaced};
use crate::cli::output::{self, Paint};
use crate::cli::stored::{self, Stored};
use crate::cli::{Exit, block_on, history};
use crate::history::{History, Past, Place};
use crate::names;
use crate::policy;
use crate::reference::CatalogKey;
use crate::revision::restore::Target;
use anyhow::{Context as _, bail};
use app::AppRef;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::Status;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::sleep;

/// How often a 429 is waited for, as client-go does it.
const ATTEMPTS: usize = 10;

/// The most entries that a line names.
const ENTRIES: usize = 5;

/// What `rollback` was typed with.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Name of the model ConfigMap; one that was deleted less than 30 days ago is made anew
    #[arg(value_name = "CONFIGMAP")]
    config_map: String,
    /// Number of the revision, or `prior` [default: prior; with --with the newest that lists what the app needs]
    #[arg(long, value_name = "REVISION", value_parser = history::target)]
    to: Option<Target>,
    /// The app, deployment/NAME or rollout/NAME, which goes back to what it was before, in the safe order; asked again
    /// after an interruption, it goes on
    #[arg(long, value_name = "APP")]
    with: Option<AppRef>,
    /// Say what would be done, by a rehearsal of the API server's, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait, with --with, for the app and until nobody needs what came since
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = super::serve::duration)]
    timeout: Duration,
    #[command(flatten)]
    cluster: Namespaced,
}

/// What somebody was told instead of an answer.
enum Refusal {
    /// By the API server, or a webhook of it.
    Denied(String),
    Failed(anyhow::Error),
}

/// Goes back, and says what it does.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    match block_on(roll_back(args))? {
        Ok(()) => Ok(Exit::Fine),
        Err(Refusal::Denied(message)) => {
            output::print(&format!("{}\n", Paint::stdout().bad(&message)))?;
            Ok(Exit::Findings)
        }
        Err(Refusal::Failed(error)) => Err(error),
    }
}

async fn roll_back(args: &Args) -> Result<(), Refusal> {
    let cluster = args.cluster.connect().await?;
    let key = CatalogKey::new(&cluster.namespace, &args.config_map);
    if let Some(app) = &args.with {
        return together::roll_back(args, &cluster, &key, app).await;
    }
    let stored = Stored::read(&cluster, &key).await?;
    let history = history::read(&cluster, &key, stored.as_ref()).await?;
    let past = choose(&history, args.to)?;
    say(&describe(&history, past))?;
    let Some(stored) = stored else { return recreate(args, &cluster, &key, past).await };
    let after = restore(&cluster, &key, &stored, past.number, None, args.dry_run).await?;
    say(&outcome(&after, past, args.dry_run, &stored))
}

// === what there is ===

/// The revision that is meant.
fn choose(history: &History, to: Option<Target>) -> anyhow::Result<&Past> {
    let (key, kept) = (&history.config_map, history::kept(history));
    let (asked, past) = match to {
        Some(Target::Number(number)) => (format!("revision {number}"), history.get(number)),
        None | Some(Target::Prior) => ("a prior revision".to_owned(), history.earlier().next_back()),
    };
    let past = past.with_context(|| format!("{asked} of {key} is not kept; {kept}"))?;
    if past.place == Place::Current {
        bail!("{key} is at revision {} already; {kept}", past.number);
    }
    if let Err(damage) = &past.content {
        bail!("revision {} of {key} cannot be restored: {} {damage}", past.number, past.place.name());
    }
    Ok(past)
}

// === what is done ===

/// Makes a ConfigMap anew that was deleted.
async fn recreate(args: &Args, cluster: &Cluster, key: &CatalogKey, past: &Past) -> Result<(), Refusal> {
    let Ok((_, content)) = &past.content else { return Ok(()) };
    let map = |map: &crate::object::StringMap<'_>| -> Value {
        map.iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect()
    };
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": key.name, "labels": {names::CATALOG_LABEL: past.catalog}},
        "data": map(&content.data),
        "binaryData": map(&content.binary_data),
        "immutable": content.immutable,
    });
    let object: DynamicObject = serde_json::from_value(object).context("make a ConfigMap")?;
    let params = PostParams { dry_run: args.dry_run, ..PostParams::default() };
    let api = stored::config_maps(cluster);
    patient(async || api.create(&params, &object).await).await?;
    let (made, label) = (if args.dry_run { "would be made" } else { "is made" }, names::CATALOG_LABEL);
    say(&format!("{key} {made} anew, with the label {label} and no other; what else it had is not kept."))
}

/// Asks for a revision, and writes down with it what is under way. Where nobody answers, what asks for it would be stored and
/// nothing else would happen: then it is taken off again.
async fn restore(
    cluster: &Cluster,
    key: &CatalogKey,
    stored: &Stored,
    number: u64,
    plan: Option<&str>,
    dry_run: bool,
) -> Result<Stored, Refusal> {
    let CatalogKey { name, namespace } = key;
    if stored.annotation(names::ROLLBACK_TO)?.is_some() {
        let (asked, take_off) = (names::ROLLBACK_TO, format!("kubectl annotate configmap {name} -n {namespace}"));
        let why =
            format!("{key} carries {asked} already, which nobody answered; take it off first: {take_off} {asked}-");
        return Err(Refusal::Denied(why));
    }
    let asks = [(names::ROLLBACK_TO, Some(number.to_string())), (names::ROLLING_BACK, plan.map(str::to_owned))];
    let asks: BTreeMap<_, _> = asks.into_iter().filter(|(_, value)| value.is_some()).collect();
    let after = write(cluster, key, &json!({"metadata": {"annotations": asks}}), dry_run).await?;
    if after.annotation(names::ROLLBACK_TO)?.is_none() {
        return Ok(after);
    }
    if !dry_run {
        let nothing: BTreeMap<_, _> = asks.keys().map(|annotation| (annotation, Value::Null)).collect();
        write(cluster, key, &json!({"metadata": {"annotations": nothing}}), false).await?;
    }
    Err(Refusal::Denied(format!(
        "nothing is restored: the mutating webhook, which would do it, was not asked. It is down, or its configuration is gone: \
         `modelguard audit` says so. Until it is back, apply what `modelguard history {name} -n {namespace} -o yaml` shows"
    )))
}

/// Patches the ConfigMap as its user, and waits where that is what the answer asks for.
async fn write(cluster: &Cluster, key: &CatalogKey, patch: &Value, dry_run: bool) -> Result<Stored, Refusal> {
    let params = PatchParams { dry_run, ..PatchParams::default() };
    let api = stored::config_maps(cluster);
    let written = patient(async || api.patch(&key.name, &params, &Patch::Merge(patch)).await).await?;
    Ok(Stored::of(&written)?)
}

/// Asks again where the answer is 429, as kubectl does.
async fn patient<T>(ask: impl AsyncFn() -> Result<T, kube::Error>) -> Result<T, Refusal> {
    for attempt in 0.. {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(kube::Error::Api(status)) => match retry_after(&status).filter(|_| attempt < ATTEMPTS) {
                Some(pause) => sleep(pause).await,
                None => return Err(Refusal::Denied(plain(&status.message))),
            },
            Err(error) => return Err(Refusal::Failed(error.into())),
        }
    }
    Err(Refusal::Denied("it was asked for too often".to_owned()))
}

fn retry_after(status: &Status) -> Option<Duration> {
    let seconds = status.details.as_ref()?.retry_after_seconds;
    (status.code == 429 && seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

/// A denial without what the API server puts before it.
fn plain(message: &str) -> String {
    message.split_once("denied the request: ").map_or(message, |(_, rest)| rest).to_owned()
}

// === what is said ===

fn say(line: &str) -> Result<(), Refusal> {
    Ok(output::print(&format!("{line}\n"))?)
}

/// From where to where, and what that does to the entries.
fn describe(history: &History, past: &Past) -> String {
    let by = past.manager.as_ref().map(|manager| format!(" by {manager}")).unwrap_or_default();
    let written = past.time.as_ref().map(|time| format!(", written {time}{by}")).unwrap_or_default();
    let key = &history.config_map;
    let Some(current) = history.current() else {
        return format!("{key} is gone, and comes back as revision {} was{written}", past.number);
    };
    let mut text = format!("{key} goes back from revision {} to revision {}{written}", current.number, past.number);
    if let (Some(is), Some(was)) = (current.catalog(), past.catalog()) {
        let diff = is.diff(&was);
        for (mark, entries) in [("+", &diff.added), ("-", &diff.removed), ("~", &diff.replaced)] {
            if !entries.is_empty() {
                text += &format!("\n  {mark} {}", policy::list(entries, ENTRIES));
            }
        }
    }
    text
}

/// What is stored afterwards.
fn outcome(after: &Stored, past: &Past, dry_run: bool, before: &Stored) -> String {
    let (Ok(number), Ok(was), Ok(retained)) = (after.number(), before.number(), after.retained()) else {
        return "what is stored now cannot be read".to_owned();
    };
    let name = after.object().map(|object| object.metadata.name.to_string()).unwrap_or_default();
    if number == was {
        return format!("{name} stores what revision {} stored already; nothing changes", past.number);
    }
    let would = if dry_run { "would store" } else { "stores" };
    let mut text = format!("{name} {would} revision {} again, as its revision {number}", past.number);
    if !retained.is_empty() {
        let (stays, needs) = if retained.len() == 1 { ("stays", "it") } else { ("stay", "them") };
        let entries = policy::list(&retained, ENTRIES);
        text += &format!("; {entries} {stays} beside it until nobody needs {needs}");
    }
    text
}

// === impl Refusal ===

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

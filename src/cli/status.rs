//! `modelguard status`: how the model ConfigMaps and their entries stand, as it is now.
//!
//! ```text
//! connect ──▶ look: webhook configurations, holders, model ConfigMaps, servers ──▶ Vec<Status> ──view──▶ text
//!              ▲                                                                                          │
//!              └──────────────── `--watch`: every 2 s; printed where it is another text ──────────────────┘
//! ```

mod view;

use crate::cli::connect::{self, Cluster};
use crate::cli::output::{self, Format, Paint};
use crate::cli::{Exit, block_on, exit};
use crate::controller;
use crate::guard::RollbackTargets;
use crate::index::{self, Index};
use crate::names;
use crate::policy;
use crate::reference::CatalogKey;
use crate::status::{Look, Status};
use crate::world::cluster::answered;
use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use std::io::{self, IsTerminal as _};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(2);

/// A look lists all pods of a cluster: where that takes long, the pause is so many times that.
const PAUSE: u32 = 4;

/// Begins an empty screen.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// The most names that are spelled out in a row.
const NAMES: usize = 3;

/// What `status` was typed with.
#[derive(clap::Args, Debug)]
#[command(after_help = connect::RIGHTS)]
pub(super) struct Args {
    /// Name of a model ConfigMap [default: all of the namespace]
    #[arg(value_name = "CONFIGMAP")]
    name: Option<String>,
    /// The model ConfigMaps of all namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["name", "namespace"])]
    all_namespaces: bool,
    /// Go on, and print it again whenever it has changed
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    at: connect::Namespaced,
    #[command(flatten)]
    webhooks: connect::Webhooks,
    #[command(flatten)]
    output: output::Args,
}

/// Looks, and prints what is there.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    block_on(async {
        let cluster = args.at.connect().await?;
        let first = look(args, &cluster).await?;
        output::print(&frame(args, &first, true))?;
        if !args.watch {
            return Ok(Exit::Fine);
        }
        // Also where SIGINT is ignored, as it is in what a script has put into the background.
        tokio::select! {
            end = watch(args, &cluster, first) => end.map(|()| Exit::Fine),
            interrupt = tokio::signal::ctrl_c() => interrupt.map(|()| Exit::Fine).context("listen to SIGINT"),
        }
    })?
}

/// Looks again and again, until nobody reads on. That it cannot is only said: the API server may be back soon.
async fn watch(args: &Args, cluster: &Cluster, first: String) -> anyhow::Result<()> {
    let mut last = Ok(first);
    let mut took = Duration::ZERO;
    loop {
        sleep(EVERY.max(took * PAUSE)).await;
        let started = Instant::now();
        let seen = look(args, cluster).await.map_err(|error| (format!("{error:#}"), error));
        took = started.elapsed();
        match seen {
            Ok(text) if last.as_ref() == Ok(&text) => {}
            Ok(text) => {
                if !output::print_on(&frame(args, &text, false))? {
                    return Ok(());
                }
                last = Ok(text);
            }
            Err((problem, error)) => {
                if last.as_ref() != Err(&problem) {
                    exit::report(&error);
                }
                last = Err(problem);
            }
        }
    }
}

/// What one look has found, as it is to be printed.
async fn look(args: &Args, cluster: &Cluster) -> anyhow::Result<String> {
    let found = found(args, cluster).await?;
    Ok(match args.output.output {
        Format::Json => format!("{}\n", view::value(&found)),
        Format::Yaml => output::yaml(&view::value(&found))?,
        Format::Table if found.is_empty() => format!("no model ConfigMaps in {}\n", place(args, cluster)),
        Format::Table => view::table(&found, Paint::stdout()),
    })
}

async fn found(args: &Args, cluster: &Cluster) -> anyhow::Result<Vec<Status>> {
    let Cluster { client, namespace } = cluster;
    let arming = controller::read_configurations(client, &args.webhooks.configuration).await;
    let arming = arming.context("list the webhook configurations")?;
    let index = index::everything(client, RollbackTargets::Warn).await?;
    let is_meant = |key: &&CatalogKey| args.all_namespaces || *key.namespace == **namespace;
    let keys: Vec<_> = match &args.name {
        None => index.catalogs().map(|(key, _)| key).filter(is_meant).cloned().collect(),
        Some(name) => vec![CatalogKey::new(namespace, name)],
    };
    let sharings: Vec<_> = keys.iter().filter_map(|key| Some(index.catalog(key)?.sharing(key))).collect();
    let servers = match &sharings[..] {
        [] => Vec::new(),
        some => index::servers(client, &some.iter().collect::<Vec<_>>()).await?,
    };
    let look = Look { index: &index, arming: &arming, servers: &servers, now: Timestamp::now() };
    let found: Vec<_> = keys.iter().filter_map(|key| look.of(key)).collect();
    match &keys[..] {
        [key] if found.is_empty() => Err(absent(client, &index, key).await),
        _ => Ok(found),
    }
}

/// Why there is nothing to say of the ConfigMap that was named.
async fn absent(client: &kube::Client, index: &Index, key: &CatalogKey) -> anyhow::Error {
    let config_maps = Api::<ConfigMap>::namespaced(client.clone(), &key.namespace);
    let known = answered(|| format!("ConfigMap {key}"), config_maps.get_metadata_opt(&key.name)).await;
    match known {
        Err(unread) => unread.into(),
        Ok(Some(_)) => anyhow!("ConfigMap {key} is not labelled {}, so it is no model ConfigMap", names::CATALOG_LABEL),
        Ok(None) => anyhow!("there is no model ConfigMap {key}: {}", others(index, key)),
    }
}

/// The model ConfigMap that was probably meant, or else those that are there.
fn others(index: &Index, key: &CatalogKey) -> String {
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        index.catalogs().map(|(key, _)| key).partition(|other| other.namespace == key.namespace);
    if let Some(name) = policy::nearest(&key.name, here.iter().map(|other| &*other.name)) {
        return format!("perhaps {name} is meant");
    }
    let mut same = elsewhere.iter().filter(|other| other.name == key.name).map(|other| &other.namespace).peekable();
    if same.peek().is_some() {
        return format!("there is one in namespace {}", policy::list(same, NAMES));
    }
    match here.is_empty() {
        true => format!("namespace {} has none", key.namespace),
        false => {
            let names = policy::list(here.iter().map(|other| &other.name), NAMES);
            format!("namespace {} has {names}", key.namespace)
        }
    }
}

fn place(args: &Args, cluster: &Cluster) -> String {
    if args.all_namespaces { "any namespace".to_owned() } else { format!("namespace {}", cluster.namespace) }
}

/// A text as it follows what was printed before it.
fn frame(args: &Args, text: &str, is_first: bool) -> String {
    let before = match args.output.output {
        Format::Table if args.watch && io::stdout().is_terminal() => CLEAR,
        Format::Table if !is_first => "\n",
        Format::Yaml if !is_first => "---\n",
        Format::Table | Format::Json | Format::Yaml => "",
    };
    format!("{before}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::CatalogFacts;

    fn index(keys: &[&str]) -> Index {
        let mut index = Index::default();
        for key in keys {
            index.apply_catalog(self::key(key), CatalogFacts::unreadable("1", "anything"));
        }
        index
    }

    fn key(text: &str) -> CatalogKey {
        let (namespace, name) = text.split_once('/').unwrap();
        CatalogKey::new(namespace, name)
    }

    #[test]
    fn a_name_that_is_not_there_is_answered_with_one_that_is() {
        let all = ["prod/extraction-models", "prod/ranking", "staging/models"];
        for (there, asked, expected) in [
            (&all[..], "prod/extraction-model", "perhaps extraction-models is meant"),
            (&all, "prod/models", "there is one in namespace staging"),
            (&all, "prod/other", "namespace prod has extraction-models, ranking"),
            (&all, "test/other", "namespace test has none"),
        ] {
            assert_eq!(others(&index(there), &key(asked)), expected, "{asked}");
        }
    }
}

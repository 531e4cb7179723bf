//! The way to a cluster, and the flags that say which one.

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::path::{Path, PathBuf};

/// What is said at the end of a command's help that looks at everything that may hold an entry.
pub(super) const RIGHTS: &str = "Whoever the kubeconfig names must be allowed to list ConfigMaps, workloads, pods, \
                                 ControllerRevisions, namespaces and modelguard's webhook configurations in the whole \
                                 cluster: the chart's ClusterRole modelguard-view allows it.";

/// The flags of every command that talks to a cluster as its user does.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub(super) struct Args {
    /// Kubeconfig file [default: the usual rules, then in cluster]
    #[arg(long, value_name = "FILE", env = "MODELGUARD_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// The same of one that is about objects of one namespace.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub(super) struct Namespaced {
    /// Namespace [default: that of the context]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    cluster: Args,
}

/// The flag of those that ask whether what proofs rest on is as it should be.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub(super) struct Webhooks {
    /// Name of the Mutating- and the ValidatingWebhookConfiguration that call the webhook
    #[arg(long = "webhook-configuration", value_name = "NAME")]
    #[arg(env = "MODELGUARD_WEBHOOK_CONFIGURATION", default_value = "modelguard")]
    pub(super) configuration: String,
}

/// A cluster, as one context of a kubeconfig leads there.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) client: kube::Client,
    /// Where objects are that say no namespace.
    pub(super) namespace: String,
}

// === impl Args ===

impl Args {
    pub(super) async fn connect(&self) -> anyhow::Result<Cluster> {
        cluster(self.kubeconfig.as_deref(), self.context.as_deref()).await
    }
}

// === impl Namespaced ===

impl Namespaced {
    pub(super) async fn connect(&self) -> anyhow::Result<Cluster> {
        let cluster = self.cluster.connect().await?;
        let namespace = self.namespace.clone().unwrap_or(cluster.namespace);
        Ok(Cluster { namespace, ..cluster })
    }
}

/// The cluster that `kubeconfig` names, or this process runs in.
pub(super) async fn cluster(kubeconfig: Option<&Path>, context: Option<&str>) -> anyhow::Result<Cluster> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let mut config = match (kubeconfig, context) {
        (None, None) => kube::Config::infer().await.context("find a cluster")?,
        (None, Some(name)) => {
            let config = kube::Config::from_kubeconfig(&options).await;
            config.with_context(|| format!("use context {name:?}"))?
        }
        (Some(file), _) => {
            let kubeconfig = Kubeconfig::read_from(file).with_context(|| format!("read {}", file.display()))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .with_context(|| format!("use {}", file.display()))?
        }
    };
    // kube 5 repeats 429, 503 and 504 fifteen times by itself; a decision has a deadline and says why it failed.
    config.default_retry = false;
    let namespace = config.default_namespace.clone();
    Ok(Cluster { client: kube::Client::try_from(config).context("make a client")?, namespace })
}

//! The way to a cluster.

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::path::Path;

/// A client for the cluster that `kubeconfig` names, or this process runs in.
pub(super) async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<kube::Client> {
    let mut config = match kubeconfig {
        None => kube::Config::infer().await.context("find a cluster")?,
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).with_context(|| format!("read {}", file.display()))?;
            let options = KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .with_context(|| format!("use {}", file.display()))?
        }
    };
    // kube 5 repeats 429, 503 and 504 fifteen times by itself; a decision has a deadline and says why it failed.
    config.default_retry = false;
    kube::Client::try_from(config).context("make a client")
}

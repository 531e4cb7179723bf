//! The administrator's connections to the API server, for what kubectl is too slow for.

use super::control_plane::ControlPlane;
use anyhow::Result;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A client to which a 429 is an answer, as every other status is.
pub(crate) async fn client(cluster: &ControlPlane) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// modelguard's code in a message, such as `MG101`; the whole message where there is none.
pub(crate) fn code(error: &kube::Error) -> String {
    let message = error.to_string();
    let code = message.split_once("[MG").and_then(|(_, rest)| rest.split_once(']'));
    code.map_or_else(|| message.clone(), |(number, _)| format!("MG{number}"))
}

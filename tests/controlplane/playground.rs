//! A cluster to play in: a real control plane with two nodes, modelguard installed by Helm, and this checkout's
//! program running beside it. See `playground.sh`.
//!
//! stdout says `export KUBECONFIG=…` and then `ready`; Ctrl-C or SIGTERM takes everything down.

#[path = "../support/mod.rs"]
mod support;

use anyhow::{Context as _, Result};
use std::env;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use support::assets::Assets;
use support::control_plane::{ControlPlane, Shape};
use support::leftovers;
use support::modelguard::{Modelguard, NAMESPACE, Options, Route};

fn main() -> Result<()> {
    let binary = env::args_os().nth(1).map(PathBuf::from);
    let binary = binary.context("usage: playground PATH_OF_MODELGUARD (tests/controlplane/playground.sh builds it)")?;
    let options = Options {
        binary: binary.canonicalize().with_context(|| format!("no program at {}", binary.display()))?,
        settle: env::var("MODELGUARD_SETTLE").unwrap_or_else(|_| "60s".to_owned()),
        args: Vec::new(),
        shutdown_delay: "1s".to_owned(),
        replicas: 1,
        route: Route::Service,
    };
    let assets = Assets::find()?;
    leftovers::watch_for_signals()?;
    let cluster = ControlPlane::start(&assets, Shape::Full)?;
    let modelguard = Modelguard::install(&cluster, &options)?;
    announce(&cluster, &modelguard, &options)?;
    // Until a signal ends it, or something else does.
    loop {
        std::thread::sleep(Duration::from_secs(1));
        cluster.check()?;
        modelguard.first().check()?;
    }
}

fn announce(cluster: &ControlPlane, modelguard: &Modelguard, options: &Options) -> Result<()> {
    let assets = cluster.assets().folder().display();
    eprintln!("playground: etcd, kube-apiserver, controllers, scheduler; pods run on node-a and node-b (kwok)");
    eprintln!(
        "playground: modelguard in {NAMESPACE}, Δ = {}, log {}",
        options.settle,
        modelguard.first().log().display()
    );
    eprintln!("playground: kubectl, helm and helm3 of these versions:");
    eprintln!("export PATH={assets}:$PATH");
    eprintln!("playground: opt in: kubectl label namespace default modelguard.dev/guard=enabled");
    eprintln!("playground: opt in: kubectl label configmap NAME modelguard.dev/catalog=yaml");
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "export KUBECONFIG={}", cluster.kubeconfig().display())?;
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    Ok(())
}

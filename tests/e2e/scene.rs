//! What a test is, and what it is given.

use crate::support::control_plane::{ControlPlane, Shape};
use crate::support::kubectl::Tool;
use crate::support::modelguard::{Modelguard, NAMESPACE, Options, RELEASE, Replica, Route};
use crate::support::namespace::Namespace;
use crate::support::{builders, wait};
use anyhow::Result;
use std::ops::Deref;
use std::path::Path;
use std::sync::OnceLock;

/// A test.
pub(crate) struct Test {
    /// Its file and what it proves.
    pub(crate) name: String,
    pub(crate) body: Box<dyn Fn(&Scene<'_>) + Send + Sync>,
    /// `None`: it shares.
    pub(crate) own: Option<Setup>,
    /// Whether what it shares must have Argo Rollouts.
    needs_rollouts: bool,
}

/// What a test that shares needs before anything runs: its name, and what is there.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) name: String,
    pub(crate) alone: bool,
    pub(crate) needs_rollouts: bool,
}

/// A control plane and a modelguard in it.
pub(crate) struct Installation {
    /// Dropped first.
    pub(crate) modelguard: Modelguard,
    pub(crate) cluster: ControlPlane,
    armed: OnceLock<()>,
}

/// What one is made like.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) shape: Shape,
    pub(crate) options: Options,
    /// Whether modelguard is the weakened one, which breaks its promises.
    pub(crate) is_unsound: bool,
}

/// Where a test plays: a guarded namespace, and what is around it.
pub(crate) struct Scene<'a> {
    pub(crate) at: &'a Installation,
    pub(crate) namespace: Namespace<'a>,
}

/// A test that disturbs nobody.
pub(crate) fn shared(name: &str, body: impl Fn(&Scene<'_>) + Send + Sync + 'static) -> Test {
    Test { name: name.to_owned(), body: Box::new(body), own: None, needs_rollouts: false }
}

/// The same, with the kinds and the controller of Argo Rollouts: all that share have these as soon as one wants them.
pub(crate) fn shared_with_rollouts(name: &str, body: impl Fn(&Scene<'_>) + Send + Sync + 'static) -> Test {
    Test { needs_rollouts: true, ..shared(name, body) }
}

/// A test that disrupts, or that counts what everybody does: it gets a control plane of its own.
pub(crate) fn own(name: &str, setup: Setup, body: impl Fn(&Scene<'_>) + Send + Sync + 'static) -> Test {
    Test { own: Some(setup), ..shared(name, body) }
}

// === impl Test ===

impl Test {
    /// What must be known of it before it runs.
    pub(crate) fn seat(&self) -> Seat {
        Seat { name: self.name.clone(), alone: self.is_alone(), needs_rollouts: self.needs_rollouts }
    }

    /// Whether modelguard is the weakened one.
    pub(crate) fn is_unsound(&self) -> bool {
        self.own.as_ref().is_some_and(|setup| setup.is_unsound)
    }

    /// Whether it has a control plane of its own.
    pub(crate) fn is_alone(&self) -> bool {
        self.own.is_some()
    }
}

// === impl Setup ===

impl Default for Setup {
    /// Pods run, the API server calls a Service, and Δ is short.
    fn default() -> Self {
        let options = Options {
            binary: Path::new(env!("CARGO_BIN_EXE_modelguard")).to_owned(),
            settle: "2s".to_owned(),
            args: Vec::new(),
            shutdown_delay: "1s".to_owned(),
            replicas: 1,
            route: Route::Service,
        };
        Self { shape: Shape::Full, options, is_unsound: false }
    }
}

impl Setup {
    /// The same with one more argument of `serve`.
    pub(crate) fn with(mut self, arg: &str) -> Self {
        self.options.args.push(arg.to_owned());
        self
    }

    /// The same with nothing but an API server and its store.
    pub(crate) fn without_controllers(self) -> Self {
        Self { shape: Shape::Store, ..self }
    }
}

// === impl Installation ===

impl Installation {
    /// Makes it, in a cluster that runs.
    pub(crate) fn make(cluster: ControlPlane, options: &Options) -> Result<Self> {
        let modelguard = Modelguard::install(&cluster, options)?;
        Ok(Self { modelguard, cluster, armed: OnceLock::new() })
    }
}

// === impl Scene ===

impl<'a> Deref for Scene<'a> {
    type Target = Namespace<'a>;

    fn deref(&self) -> &Namespace<'a> {
        &self.namespace
    }
}

impl Scene<'_> {
    /// `modelguard …`, as the administrator; unlike kubectl it is told no namespace.
    pub(crate) fn modelguard<S: Into<String>>(&self, args: impl IntoIterator<Item = S>) -> Tool {
        let kubeconfig = self.at.cluster.kubeconfig().into_os_string();
        Tool::new(env!("CARGO_BIN_EXE_modelguard").into(), vec![("KUBECONFIG".to_owned(), kubeconfig)]).args(args)
    }

    /// Waits until entries can become Idle at all: the configurations must have been seen unchanged for longer than Δ,
    /// and the guarded namespaces must have been armed. Tells by removing an entry that nobody ever used.
    pub(crate) fn armed(&self) {
        self.at.armed.get_or_init(|| {
            self.create_object(builders::keys("armed", &["kept", "removed"]).to_string()).ok();
            let removal = ["patch", "configmap", "armed", "--type=merge", r#"-p={"data":{"removed":null}}"#];
            wait::until("an unused entry can be removed", || self.kubectl(removal).succeed().map(drop));
        });
    }

    /// The replica that leads.
    pub(crate) fn leader(&self) -> &Replica {
        let replicas = &self.at.modelguard.replicas;
        wait::until("one of ours leads", || {
            let lease = self.at.cluster.kubectl(["get", "lease", RELEASE, "-n", NAMESPACE, "-o", "json"]).run().json();
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            replicas.iter().find(|replica| holder.starts_with(replica.name())).ok_or_else(|| lease.to_string())
        })
    }
}

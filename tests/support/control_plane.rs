//! etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok and, where asked for, Argo Rollouts, of one run.
//!
//! ```text
//! etcd ◀─unix socket─ kube-apiserver ◀─127.0.0.1:P─ controllers, scheduler, kwok (fake kubelets), kubectl, helm
//!                          └──▶ audit.log
//! ```
//! P is the only port that is opened, but for two of any number where Argo Rollouts wants to be looked at. Everything
//! lies in one folder, and goes with it.

use super::assets::Assets;
use super::kubectl::Tool;
use super::leftovers::Dir;
use super::net::{free_port, random};
use super::process::{Launch, Process};
use super::wait::{LONG, poll};
use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Metadata of every request, once it is answered: enough to see who got which status, and our annotations.
const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
"omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}"#;

/// The identities that start with the cluster: name of the kubeconfig, user, groups.
const IDENTITIES: [(&str, &str, &str); 5] = [
    ("admin", "admin", "system:masters"),
    ("kcm", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("kwok", "kwok", "system:masters"),
    ("rollouts", "system:serviceaccount:argo-rollouts:argo-rollouts", "system:masters"),
];

/// How much of a cluster is needed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shape {
    /// Two nodes, and pods that run on them.
    Full,
    /// The same, and the kinds of Argo Rollouts with their controller.
    Rollouts,
    /// Only the API server and its store: no controller, so no pods and no ServiceAccounts that appear by themselves.
    Store,
}

/// A running control plane.
pub(crate) struct ControlPlane {
    /// In the order of their start; before the folder, so that they end before it goes.
    processes: Processes,
    assets: Assets,
    dir: Dir,
}

/// Dropped from the back: the API server before its store, and whoever watches it before either.
struct Processes(Vec<Process>);

// === impl ControlPlane ===

impl ControlPlane {
    /// Starts one, and waits until it serves.
    pub(crate) fn start(assets: &Assets, shape: Shape) -> Result<Self> {
        let dir = Dir::new()?;
        let port = free_port()?;
        write_files(&dir, port)?;
        let mut processes = Processes(Vec::new());
        for line in [etcd(&dir), api_server(&dir, port)] {
            processes.start(&dir, assets, line)?;
        }
        let mut cluster = Self { processes, assets: assets.clone(), dir };
        cluster.wait_until_ready()?;
        if shape != Shape::Store {
            // Not before: kube-controller-manager gives up after ten seconds without an API server that knows its roles.
            let dir = &cluster.dir;
            for line in [controller_manager(dir), scheduler(dir), kwok(dir, assets)] {
                cluster.processes.start(dir, assets, line)?;
            }
            cluster.add_nodes()?;
        }
        if shape == Shape::Rollouts {
            cluster.add_rollout_kinds()?;
            cluster.processes.start(&cluster.dir, assets, rollouts_controller(&cluster.dir))?;
        }
        Ok(cluster)
    }

    /// Makes the kinds of Argo Rollouts known, and waits until the API server serves them.
    fn add_rollout_kinds(&self) -> Result<()> {
        let file = self.assets.path("rollouts-crds.yaml").display().to_string();
        self.kubectl(["create", "-f", &file]).succeed()?;
        // It fails at once where there is no condition yet.
        let established = ["wait", "--for=condition=Established", "-f", &file, "--timeout=60s"];
        poll("the kinds of Argo Rollouts are served", LONG, || self.kubectl(established).succeed().map(drop))
    }

    /// Kills the API server, starts it anew and waits until it serves; etcd keeps everything.
    pub(crate) fn restart_api_server(&self) -> Result<()> {
        self.restart("kube-apiserver")
    }

    /// Kills etcd, starts it anew with what it kept, and waits until the API server serves again.
    pub(crate) fn restart_etcd(&self) -> Result<()> {
        self.restart("etcd")
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// A kubeconfig for somebody's token.
    pub(crate) fn kubeconfig_for(&self, name: &str, token: &str) -> Result<PathBuf> {
        let mut config: Value = serde_json::from_str(&fs::read_to_string(self.kubeconfig())?)?;
        config["users"][0]["user"] = json!({"token": token});
        self.dir.write(&format!("{name}.kubeconfig"), &config.to_string())
    }

    /// Where the binaries are.
    pub(crate) fn assets(&self) -> &Assets {
        &self.assets
    }

    /// Where everything of this run is.
    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// `kubectl …`, as the administrator.
    pub(crate) fn kubectl<S: Into<String>>(&self, args: impl IntoIterator<Item = S>) -> Tool {
        self.tool("kubectl").args(args)
    }

    /// `helm …` (version 4), as the administrator.
    pub(crate) fn helm<S: Into<String>>(&self, args: impl IntoIterator<Item = S>) -> Tool {
        self.tool("helm").args(args)
    }

    /// Any of the tools, as the administrator, with nothing of the user's own configuration.
    pub(crate) fn tool(&self, name: &str) -> Tool {
        let home = |folder: &str| self.dir.join("home").join(folder).into_os_string();
        let env = vec![
            ("KUBECONFIG".to_owned(), self.kubeconfig().into_os_string()),
            // Both keep what they discovered there; edited files go to TMPDIR.
            ("HOME".to_owned(), home("")),
            ("TMPDIR".to_owned(), home("")),
            ("HELM_CACHE_HOME".to_owned(), home("helm/cache")),
            ("HELM_CONFIG_HOME".to_owned(), home("helm/config")),
            ("HELM_DATA_HOME".to_owned(), home("helm/data")),
            ("HELM_NO_PLUGINS".to_owned(), "1".into()),
        ];
        Tool::new(self.assets.path(name), env)
    }

    /// What the API server answered so far, oldest first: audit events that contain `filter` as they are written.
    pub(crate) fn audit_events(&self, filter: &str) -> Vec<Value> {
        let log = fs::read_to_string(self.dir.join("audit.log")).unwrap_or_default();
        let complete = log.rfind('\n').map_or("", |end| &log[..end]);
        complete
            .lines()
            .filter(|line| line.contains(filter))
            .map(|line| serde_json::from_str(line).expect("an audit event a line"))
            .collect()
    }

    /// The end of every log.
    pub(crate) fn log_tails(&self) -> String {
        self.processes.0.iter().map(Process::log_tail).collect::<Vec<_>>().join("\n")
    }

    /// An error with the end of its log, if any process ended.
    pub(crate) fn check(&self) -> Result<()> {
        self.processes.0.iter().try_for_each(Process::check)
    }

    /// Creates these objects. The schemas that kubectl would ask for first may take a busy API server longer than kubectl waits.
    pub(crate) fn create(&self, objects: impl IntoIterator<Item = Value>) -> Result<()> {
        let items: Vec<_> = objects.into_iter().collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        self.kubectl(["create", "--validate=false", "-f-"]).stdin(list.to_string()).succeed().map(drop)
    }

    fn restart(&self, name: &str) -> Result<()> {
        let process = self.processes.0.iter().find(|process| process.name() == name);
        process.with_context(|| format!("there is no {name}"))?.restart()?;
        self.wait_until_ready()
    }

    fn wait_until_ready(&self) -> Result<()> {
        let waited = poll("the API server is ready", LONG, || {
            if self.check().is_err() {
                return Ok(());
            }
            self.kubectl(["get", "--raw=/readyz"]).succeed().map(drop)
        });
        self.check()?;
        waited.map_err(|error| error.context(self.log_tails()))
    }

    fn add_nodes(&self) -> Result<()> {
        let node = |name| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        self.create([node("node-a"), node("node-b")])?;
        let timeout = format!("--timeout={}s", LONG.as_secs());
        self.kubectl(["wait", "--for=condition=Ready", "node", "--all", &timeout])
            .succeed()
            .with_context(|| self.log_tails())?;
        // Its first one tells that kube-controller-manager is at work.
        let account = poll("the default ServiceAccount is there", LONG, || {
            self.kubectl(["get", "serviceaccount", "default"]).succeed().map(drop)
        });
        account.map_err(|error| error.context(self.log_tails()))
    }
}

// === impl Processes ===

impl Processes {
    fn start(&mut self, dir: &Dir, assets: &Assets, (name, args): Line) -> Result<()> {
        let log = dir.join(format!("{name}.log"));
        let launch = Launch { name: name.to_owned(), program: assets.path(name), args, env: Vec::new(), log };
        self.0.push(Process::start(launch)?);
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

// === files ===

fn write_files(dir: &Dir, port: u16) -> Result<()> {
    // etcd warns of anything more open.
    fs::create_dir(dir.join("data"))?;
    fs::set_permissions(dir.join("data"), Permissions::from_mode(0o700))?;
    fs::create_dir(dir.join("home"))?;
    dir.write("audit.yaml", AUDIT_POLICY)?;
    write_certificates(dir)?;
    let mut tokens = String::new();
    for (name, user, groups) in IDENTITIES {
        let token = format!("{name}-{:016x}{:016x}", random(), random());
        tokens += &format!("{token},{user},{name},\"{groups}\"\n");
        dir.write(&format!("{name}.kubeconfig"), &kubeconfig(dir.path(), port, &token))?;
    }
    dir.write("tokens.csv", &tokens)?;
    Ok(())
}

fn write_certificates(dir: &Dir) -> Result<()> {
    let mut ca = CertificateParams::new([])?;
    ca.distinguished_name.push(DnType::CommonName, "control plane of a test");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = ["127.0.0.1", "10.0.0.1", "localhost", "kubernetes.default.svc"].map(str::to_owned);
    let certificate = CertificateParams::new(names)?.signed_by(&key, &ca)?;
    let accounts = KeyPair::generate()?;
    dir.write("ca.crt", &ca.pem())?;
    dir.write("apiserver.crt", &certificate.pem())?;
    dir.write("apiserver.key", &key.serialize_pem())?;
    dir.write("sa.key", &accounts.serialize_pem())?;
    dir.write("sa.pub", &accounts.public_key_pem())?;
    Ok(())
}

/// JSON is YAML.
fn kubeconfig(dir: &Path, port: u16, token: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority": dir.join("ca.crt"),
        }}],
        "users": [{"name": "test", "user": {"token": token}}],
    });
    config.to_string()
}

// === command lines ===

type Line = (&'static str, Vec<String>);

fn etcd(dir: &Dir) -> Line {
    let (client, peer) = (socket(dir, "etcd.sock"), socket(dir, "peer.sock"));
    let args = [
        file("data-dir", dir, "data"),
        // Nobody needs what it keeps after a crash of this machine.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ];
    ("etcd", args.into())
}

fn api_server(dir: &Dir, port: u16) -> Line {
    let args = [
        format!("--etcd-servers={}", socket(dir, "etcd.sock")),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        // Endpoints refuse a loopback address.
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--secure-port={port}"),
        file("tls-cert-file", dir, "apiserver.crt"),
        file("tls-private-key-file", dir, "apiserver.key"),
        file("client-ca-file", dir, "ca.crt"),
        file("token-auth-file", dir, "tokens.csv"),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        file("service-account-key-file", dir, "sa.pub"),
        file("service-account-signing-key-file", dir, "sa.key"),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        file("audit-policy-file", dir, "audit.yaml"),
        file("audit-log-path", dir, "audit.log"),
        // Written before the client has its answer, so that a test can look at it at once.
        "--audit-log-mode=blocking".to_owned(),
    ];
    ("kube-apiserver", args.into())
}

fn controller_manager(dir: &Dir) -> Line {
    let args = [
        file("kubeconfig", dir, "kcm.kubeconfig"),
        "--secure-port=0".to_owned(),
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        file("service-account-private-key-file", dir, "sa.key"),
        file("root-ca-file", dir, "ca.crt"),
        // Its default is 20 requests a second, which all tests would share.
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
    ];
    ("kube-controller-manager", args.into())
}

fn scheduler(dir: &Dir) -> Line {
    let args = [
        file("kubeconfig", dir, "scheduler.kubeconfig"),
        "--secure-port=0".to_owned(),
        "--leader-elect=false".to_owned(),
    ];
    ("kube-scheduler", args.into())
}

fn kwok(dir: &Dir, assets: &Assets) -> Line {
    let args = [
        file("kubeconfig", dir, "kwok.kubeconfig"),
        format!("--config={}", assets.path("kwok-stages.yaml").display()),
        "--manage-all-nodes".to_owned(),
        "--node-lease-duration-seconds=40".to_owned(),
        "--cidr=10.1.0.0/16".to_owned(),
    ];
    ("kwok", args.into())
}

fn rollouts_controller(dir: &Dir) -> Line {
    let args = [
        file("kubeconfig", dir, "rollouts.kubeconfig"),
        "--leader-elect=false".to_owned(),
        // Any that are free: they cannot be left out.
        "--metricsPort=0".to_owned(),
        "--healthzPort=0".to_owned(),
        "--qps=500".to_owned(),
        "--burst=1000".to_owned(),
    ];
    ("rollouts-controller", args.into())
}

fn file(flag: &str, dir: &Dir, name: &str) -> String {
    format!("--{flag}={}", dir.join(name).display())
}

fn socket(dir: &Dir, name: &str) -> String {
    format!("unix://{}", dir.join(name).display())
}

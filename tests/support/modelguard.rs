//! modelguard in a control plane: the chart as Helm installs it, and the program beside it.
//!
//! ```text
//! kube-apiserver ──Service (ExternalName localhost:P), or url──▶ replica, or Balancer ──▶ replica 0, 1, …
//!        ▲                            chart's CA                                              │
//!        └────────────────────── token of the chart's ServiceAccount ─────────────────────────┘
//! ```
//! Never the administrator: what the chart's RBAC does not allow fails here as it would in production.

use super::assets::root;
use super::balancer::Balancer;
use super::control_plane::ControlPlane;
use super::kubectl::Tool;
use super::net::{free_port, get};
use super::process::{Launch, Process};
use super::wait::{LONG, poll};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// Where the chart is installed.
pub(crate) const NAMESPACE: &str = "modelguard-system";
/// The release, and so the name of the Service, the ServiceAccount and the webhook configurations.
pub(crate) const RELEASE: &str = "modelguard";
/// Who modelguard is to the API server.
pub(crate) const IDENTITY: &str = "system:serviceaccount:modelguard-system:modelguard";

/// The counter of the reviews that were answered.
const REQUESTS: &str = "modelguard_admission_requests_total";

/// How the API server reaches it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Route {
    /// Through a Service, as in production: HTTP/1.1.
    Service,
    /// At a URL: HTTP/2.
    Url,
}

/// What to install.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The program.
    pub(crate) binary: PathBuf,
    /// Δ, such as `2s`.
    pub(crate) settle: String,
    /// More arguments of `serve`.
    pub(crate) args: Vec<String>,
    /// How long a stopping replica goes on serving.
    pub(crate) shutdown_delay: String,
    /// How many there are; several stand behind a balancer.
    pub(crate) replicas: usize,
    /// How the API server reaches them.
    pub(crate) route: Route,
}

/// An installation.
pub(crate) struct Modelguard {
    pub(crate) replicas: Vec<Replica>,
    balancer: Option<Balancer>,
    tls: Certificates,
}

/// One process.
pub(crate) struct Replica {
    process: Process,
    listen: SocketAddr,
    admin: SocketAddr,
}

/// A folder as the kubelet mounts a Secret: `tls.crt` → `..data/tls.crt`, `..data` → the current version.
pub(crate) struct Certificates {
    folder: PathBuf,
    authority: PathBuf,
}

/// What `/metrics` said: the value of each sample, by its name with its labels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

// === impl Modelguard ===

impl Modelguard {
    /// Installs the chart, starts the replicas and waits until they are ready.
    pub(crate) fn install(cluster: &ControlPlane, options: &Options) -> Result<Self> {
        let tls = Certificates::make(&cluster.dir().join("certificates"))?;
        let ports = (0..options.replicas).map(|_| free_port()).collect::<Result<Vec<_>>>()?;
        let port =
            if options.replicas > 1 { free_port()? } else { *ports.first().context("no replica was asked for")? };
        install_chart(cluster, &tls.authority, options.route, port)?;
        let account = ["create", "token", RELEASE, "-n", NAMESPACE, "--duration=24h"];
        let token = cluster.kubectl(account).succeed()?.stdout;
        let kubeconfig = cluster.kubeconfig_for("modelguard", token.trim())?;
        let start = |(number, port)| Replica::start(cluster, options, &kubeconfig, &tls.folder, number, port);
        let replicas = ports.into_iter().enumerate().map(start).collect::<Result<Vec<_>>>()?;
        replicas.iter().try_for_each(Replica::wait_until_ready)?;
        let backends = replicas.iter().map(|replica| (replica.listen, replica.admin));
        let balancer = (replicas.len() > 1).then(|| Balancer::start(port, backends)).transpose()?;
        let modelguard = Self { replicas, balancer, tls };
        modelguard.wait_until_ready(options.replicas)?;
        Ok(modelguard)
    }

    /// The only replica, where there is one.
    pub(crate) fn first(&self) -> &Replica {
        &self.replicas[0]
    }

    /// Waits until so many replicas, no more and no less, get new connections.
    pub(crate) fn wait_until_ready(&self, count: usize) -> Result<()> {
        let Some(balancer) = &self.balancer else { return Ok(()) };
        poll("the balancer knows who is ready", LONG, || match balancer.ready() {
            ready if ready == count => Ok(()),
            ready => bail!("{ready} of {count}"),
        })
    }

    /// Its certificates.
    pub(crate) fn certificates(&self) -> &Certificates {
        &self.tls
    }

    /// Everything that was logged.
    pub(crate) fn logs(&self) -> String {
        let read = |replica: &Replica| fs::read_to_string(replica.process.log()).unwrap_or_default();
        self.replicas.iter().map(read).collect()
    }

    /// The end of every log.
    pub(crate) fn log_tails(&self) -> String {
        self.replicas.iter().map(|replica| replica.process.log_tail()).collect::<Vec<_>>().join("\n")
    }
}

fn install_chart(cluster: &ControlPlane, authority: &Path, route: Route, port: u16) -> Result<()> {
    let chart = root().join("charts/modelguard");
    let mut args = vec!["install".to_owned(), RELEASE.to_owned(), chart.display().to_string()];
    args.extend(["-n", NAMESPACE, "--create-namespace"].map(str::to_owned));
    args.push(format!("--set-file=certificates.caBundle={}", authority.display()));
    match route {
        Route::Service => args.push(format!("--set=service.externalName=localhost,service.port={port}")),
        Route::Url => args.push(format!("--set=webhooks.url=https://127.0.0.1:{port}")),
    }
    cluster.helm(args).succeed().context("the chart was not installed").map(drop)
}

// === impl Replica ===

impl Replica {
    fn start(
        cluster: &ControlPlane,
        options: &Options,
        kubeconfig: &Path,
        tls: &Path,
        number: usize,
        port: u16,
    ) -> Result<Self> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (listen, admin) = (local(port), local(free_port()?));
        let args = [
            "serve".to_owned(),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--listen={listen}"),
            format!("--admin-listen={admin}"),
            format!("--tls-dir={}", tls.display()),
            format!("--settle={}", options.settle),
            format!("--shutdown-delay={}", options.shutdown_delay),
            format!("--webhook-configuration={RELEASE}"),
            format!("--lease={RELEASE}"),
            format!("--namespace={NAMESPACE}"),
        ];
        let name = format!("modelguard-{number}");
        let env = [("HOSTNAME", name.as_str()), ("RUST_LOG", "info,modelguard=debug"), ("RUST_BACKTRACE", "1")];
        let process = Process::start(Launch {
            log: cluster.dir().join(format!("{name}.log")),
            program: options.binary.clone(),
            args: args.into_iter().chain(options.args.iter().cloned()).collect(),
            env: env.map(|(name, value)| (name.to_owned(), OsString::from(value))).into(),
            name,
        })?;
        Ok(Self { process, listen, admin })
    }

    /// `modelguard-0` and so on: what its pod would be called.
    pub(crate) fn name(&self) -> &str {
        self.process.name()
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    /// Asks it to stop, as the kubelet does.
    pub(crate) fn terminate(&self) -> Result<()> {
        self.process.signal("TERM")
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(&self) -> Result<ExitStatus> {
        self.terminate()?;
        self.process.wait(LONG)
    }

    /// Kills it if it runs, starts it anew and waits until it is ready.
    pub(crate) fn restart(&self) -> Result<()> {
        self.process.restart()?;
        self.wait_until_ready()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Waits for its end.
    pub(crate) fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        self.process.wait(timeout)
    }

    /// An error with the end of its log, if it ended.
    pub(crate) fn check(&self) -> Result<()> {
        self.process.check()
    }

    /// Where it logs.
    pub(crate) fn log(&self) -> &Path {
        self.process.log()
    }

    /// Where the API server reaches it, if it is the first one.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Whether it calls itself ready; an error while nobody answers.
    pub(crate) fn ready(&self) -> Result<bool> {
        Ok(get(self.admin, "/readyz")?.0 == 200)
    }

    /// What it counted so far.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::parse(&self.metrics_page()?))
    }

    /// The same, as a scraper gets it.
    pub(crate) fn metrics_page(&self) -> Result<String> {
        let (status, text) = get(self.admin, "/metrics")?;
        ensure!(status == 200, "/metrics answered {status}");
        Ok(text)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let waited = poll("modelguard is ready", LONG, || {
            if self.check().is_err() {
                return Ok(());
            }
            let (status, body) = get(self.admin, "/readyz")?;
            if status == 200 { Ok(()) } else { bail!("/readyz answered {status}: {body}") }
        });
        self.check()?;
        waited.map_err(|error| error.context(self.process.log_tail()))
    }
}

// === impl Metrics ===

impl Metrics {
    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            // A label's value may hold spaces; what follows the labels may be a time or an exemplar too.
            let end = line.rfind('}').map_or_else(|| line.find(' '), |brace| Some(brace + 1))?;
            let (name, rest) = line.split_at(end);
            Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// The sum of the samples of this name that have all of these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let is_asked_for = |sample: &str| {
            let (bare, rest) = sample.split_once('{').unwrap_or((sample, ""));
            bare == name && labels.iter().all(|label| rest.contains(label.as_str()))
        };
        self.0.iter().filter(|(sample, _)| is_asked_for(sample)).map(|(_, value)| value).sum()
    }

    /// The reviews that were answered.
    pub(crate) fn requests(&self) -> f64 {
        self.sum(REQUESTS, &[])
    }
}

// === impl Certificates ===

impl Certificates {
    /// Makes a CA that is kept, and the first certificate.
    fn make(folder: &Path) -> Result<Self> {
        let made = folder.join("first");
        generate(&made, &["--keep-ca-key"])?;
        let mounted = folder.join("mounted");
        fs::create_dir(&mounted)?;
        let certificates = Self { folder: mounted, authority: made.join("ca.crt") };
        certificates.publish(&made)?;
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), certificates.folder.join(name))?;
        }
        Ok(certificates)
    }

    /// Signs another certificate and swaps it in as the kubelet does; gives the new certificate's file.
    pub(crate) fn rotate(&self, name: &str) -> Result<PathBuf> {
        let base = self.authority.parent().and_then(Path::parent).context("the CA is in no folder")?;
        let made = base.join(name);
        generate(&made, &["--ca", &self.authority.parent().context("the CA is in no folder")?.display().to_string()])?;
        self.publish(&made)?;
        Ok(made.join("tls.crt"))
    }

    /// The CA that signs.
    pub(crate) fn authority(&self) -> &Path {
        &self.authority
    }

    fn publish(&self, made: &Path) -> Result<()> {
        let version = format!("..{}", made.file_name().context("it has no name")?.to_string_lossy());
        fs::create_dir(self.folder.join(&version))?;
        for name in ["tls.crt", "tls.key"] {
            fs::copy(made.join(name), self.folder.join(&version).join(name))?;
        }
        symlink(&version, self.folder.join("..data_tmp"))?;
        fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data"))?;
        Ok(())
    }
}

fn generate(out: &Path, args: &[&str]) -> Result<()> {
    let script = Tool::new(root().join("certs/generate.sh"), Vec::new());
    let names = ["--service", RELEASE, "--namespace", NAMESPACE];
    script.args([out.display().to_string()]).args(names).args(args.iter().copied()).succeed().map(drop)
}

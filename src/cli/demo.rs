//! `modelguard demo`: an incident, replayed over real HTTPS, without modelguard and with it.
//!
//! ```text
//! STORY ─Step─▶ Cluster::change ─AdmissionReview─▶ Webhook (scene `with` only) ──HTTPS──▶ the real server
//!                  │ allowed: written to a temporary DIR ◀──────────── its standalone world
//!                  ▼
//!               Told { allowed, code, message, dangling } ──view──▶ table, JSON or YAML
//! ```
//! Simulated are the API server, which writes what is allowed, and the controllers, which make pods follow their
//! Deployment. Verdicts and messages are the webhook's own, and dangling pods are counted in the manifests.

mod cluster;
mod view;
mod webhook;

use crate::cli::output::{self, Format};
use crate::cli::{Exit, block_on};
use cluster::Cluster;
use serde::Serialize;
use std::time::Instant;
use view::View;
use webhook::Webhook;

/// What `demo` was typed with.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    output: output::Args,
}

/// One of the two ways in which the same release goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Scene {
    /// Nobody is asked.
    Without,
    /// modelguard is asked.
    With,
}

/// A change that somebody asks for.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// Which step of a safe release it is: 1 add, 2 roll out, 3 remove.
    number: u8,
    title: &'static str,
    change: Change,
    /// What it meant to those who were there.
    remark: &'static str,
}

/// What is changed.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// The versions that the model ConfigMap lists.
    Models(&'static [&'static str]),
    /// The version that the app's template references, and how many pods follow.
    App(&'static str, usize),
}

/// What came of a step: one line of `-o json`.
#[derive(Clone, Debug, Serialize)]
struct Told {
    scene: Scene,
    step: u8,
    operation: &'static str,
    object: String,
    allowed: bool,
    code: Option<String>,
    message: Option<String>,
    /// How many pods reference an entry that is not there.
    dangling: usize,
}

/// The release as it went.
const WITHOUT: &[Step] = &[
    Step {
        number: 3,
        title: "The release replaces v2 by v3 in the ConfigMap, at once",
        change: Change::Models(&["v3"]),
        remark: "",
    },
    Step {
        number: 2,
        title: "Its canary moves the first 3 pods to v3, and goes on slowly",
        change: Change::App("v3", 3),
        remark: "The incident: twelve minutes with about 70 % errors.",
    },
    Step {
        number: 2,
        title: "The app is rolled back by hand; the ConfigMap is not restored",
        change: Change::App("v2", cluster::PODS),
        remark: "The rollback made it worse: what it goes back to is gone.",
    },
];

/// The same release, and then the safe one.
const WITH: &[Step] = &[
    Step {
        number: 3,
        title: "The same release replaces v2 by v3 in the ConfigMap",
        change: Change::Models(&["v3"]),
        remark: "",
    },
    Step {
        number: 1,
        title: "Step 1, add: the ConfigMap lists v3 beside v2",
        change: Change::Models(&["v2", "v3"]),
        remark: "",
    },
    Step {
        number: 2,
        title: "Step 2, roll out: the app moves to v3",
        change: Change::App("v3", cluster::PODS),
        remark: "",
    },
    Step {
        number: 3,
        title: "Step 3, remove: the ConfigMap lists v3 alone",
        change: Change::Models(&["v3"]),
        remark: "",
    },
];

/// Plays both scenes. That a request is denied is the point, so all is fine.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    block_on(play(args.output.output))?.map(|()| Exit::Fine)
}

async fn play(format: Format) -> anyhow::Result<()> {
    let started = Instant::now();
    let view = View::new();
    let say = |text: String| output::print(&text);
    let table = |text: &dyn Fn() -> String| if format == Format::Table { say(text()) } else { Ok(()) };
    table(&|| view.opening())?;
    let mut address = None;
    for (scene, steps) in [(Scene::Without, WITHOUT), (Scene::With, WITH)] {
        table(&|| view.scene(scene))?;
        let mut cluster = Cluster::start().await?;
        let webhook = match scene {
            Scene::Without => None,
            Scene::With => Some(Webhook::start(cluster.world()).await?),
        };
        for step in steps {
            let told = cluster.take(scene, step, webhook.as_ref()).await?;
            match format {
                Format::Table => say(view.step(step, &told))?,
                Format::Json => say(serde_json::to_string(&told)? + "\n")?,
                Format::Yaml => say(output::yaml(&[told])?)?,
            }
        }
        if let Some(webhook) = webhook {
            address = Some(webhook.address());
            webhook.stop().await?;
        }
    }
    table(&|| view.closing(address, started.elapsed()))
}

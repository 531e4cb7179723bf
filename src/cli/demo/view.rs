//! The demo as people see it in a terminal.

use super::cluster::PODS;
use super::{Scene, Step, Told};
use crate::cli::output::{Paint, WIDTH, wrap};
use std::net::SocketAddr;
use std::time::Duration;

/// What every line begins with.
const MARGIN: &str = "  ";

/// Makes text of it.
pub(super) struct View {
    paint: Paint,
}

impl View {
    /// For stdout.
    pub(super) fn new() -> Self {
        Self { paint: Paint::stdout() }
    }

    /// What one has to know.
    pub(super) fn opening(&self) -> String {
        let title = self.paint.bold("modelguard demo");
        let story = "ConfigMap prod/extraction-models lists extraction@v2, and the 10 pods of Deployment \
                     prod/extraction-api ask for it. A release brings a new model, v3, and the app that uses it.";
        format!("\n{MARGIN}{title}\n\n{}", self.paragraph(story, |line| line.to_owned()))
    }

    /// The heading of a scene.
    pub(super) fn scene(&self, scene: Scene) -> String {
        let title = match scene {
            Scene::Without => "WITHOUT MODELGUARD",
            Scene::With => "WITH MODELGUARD",
        };
        let rule = "─".repeat(WIDTH - MARGIN.len() - title.len() - 1);
        format!("\n{MARGIN}{} {}\n", self.paint.bold(title), self.paint.dim(&rule))
    }

    /// A step, its verdict, and what became of the pods.
    pub(super) fn step(&self, step: &Step, told: &Told) -> String {
        let verdict = match (told.scene, &told.code) {
            (Scene::Without, _) => "nobody asked".to_owned(),
            (Scene::With, None) => "allowed".to_owned(),
            (Scene::With, Some(code)) => format!("denied {code}"),
        };
        let gap = WIDTH.saturating_sub(MARGIN.len() + step.title.chars().count() + verdict.chars().count());
        let verdict = match (told.scene, told.allowed) {
            (Scene::Without, _) => self.paint.dim(&verdict),
            (Scene::With, true) => self.paint.good(&verdict),
            (Scene::With, false) => self.paint.bad(&verdict),
        };
        let mut text = format!("\n{MARGIN}{}{}{verdict}\n", step.title, " ".repeat(gap));
        if let Some(message) = &told.message {
            text += &self.paragraph(message, |line| format!("{} {line}", self.paint.bad("│")));
        }
        text += &self.pods(told.dangling);
        if !step.remark.is_empty() {
            text += &self.paragraph(step.remark, |line| self.paint.dim(line));
        }
        text
    }

    /// What was real, and what to do next.
    pub(super) fn closing(&self, address: Option<SocketAddr>, took: Duration) -> String {
        let address = address.map_or_else(String::new, |address| format!(" at {address}"));
        let real = format!("Asked over HTTPS{address}, answered by the real webhook, in {:.1} s.", took.as_secs_f32());
        let next = "Next: the tour of a real cluster in README.md.";
        let rule = "─".repeat(WIDTH - MARGIN.len());
        let lines = [rule, real, next.to_owned()].map(|line| format!("{MARGIN}{}\n", self.paint.dim(&line)));
        format!("\n{}\n", lines.concat())
    }

    /// One sign a pod: those on the new version come first.
    fn pods(&self, dangling: usize) -> String {
        let well = PODS - dangling.min(PODS);
        let row = format!("{}{}", self.paint.good(&"●".repeat(well)), self.paint.bad(&"✗".repeat(dangling)));
        let says = match dangling {
            0 => format!("all {PODS} pods find their version"),
            _ => format!("{dangling} of {PODS} pods reference a version that is not there"),
        };
        format!("{MARGIN}{row}  {says}\n")
    }

    fn paragraph(&self, text: &str, line: impl Fn(&str) -> String) -> String {
        wrap(text, WIDTH - 2 * MARGIN.len()).iter().map(|text| format!("{MARGIN}{}\n", line(text))).collect()
    }
}

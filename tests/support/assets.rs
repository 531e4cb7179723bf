//! The real servers and tools.

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder that holds them.
#[derive(Clone, Debug)]
pub(crate) struct Assets(PathBuf);

impl Assets {
    /// Finds them, or has them built; that takes twenty minutes once.
    pub(crate) fn find() -> Result<Self> {
        let script = root().join("tests/controlplane/assets.sh");
        let run = Command::new("bash").arg(&script).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = run.with_context(|| format!("bash {} did not start", script.display()))?;
        let folder = String::from_utf8(output.stdout)?;
        match folder.trim() {
            folder if output.status.success() && !folder.is_empty() => Ok(Self(folder.into())),
            _ => bail!("{} found no control plane ({}); what it lacks stands above", script.display(), output.status),
        }
    }

    /// One of them.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// All of them, for `PATH`.
    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }
}

/// The checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

//! Builds modelguard as the feature `unsound` weakens it.

use crate::support::assets::root;
use anyhow::{Context as _, Result, ensure};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The weakened program. It is an example, so that it takes the place of nothing that runs, and so that its
/// dependencies are those that were built for the tests.
pub(crate) fn build() -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("no target folder")?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "--quiet", "--example=unsound", "--features=unsound", "--target-dir"]).arg(target);
    // What cargo says to tests about this package would look like another environment to build scripts.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|own| name.starts_with(own))) {
            cargo.env_remove(name);
        }
    }
    let output = cargo.current_dir(root()).output().context("cargo did not run")?;
    ensure!(output.status.success(), "the weakened build failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(target.join("debug/examples/unsound"))
}

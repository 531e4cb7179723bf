//! What must not outlive us: processes and folders, also when a signal ends us.

use anyhow::Result;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, Weak};
use std::{env, fs, process, thread};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// Something that can be stopped from outside.
pub(crate) trait Stop: Send + Sync {
    /// Stops it and waits for its end; nothing happens the second time.
    fn stop(&self);
}

/// In the order of their start.
static PROCESSES: Mutex<Vec<Weak<dyn Stop>>> = Mutex::new(Vec::new());
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A short temporary folder, removed when dropped unless `MODELGUARD_E2E_KEEP` is set.
#[derive(Debug)]
pub(crate) struct Dir(TempDir);

impl Dir {
    /// Makes one. Short, because the path of a unix socket may have 107 bytes.
    pub(crate) fn new() -> Result<Self> {
        let ours_alone = fs::Permissions::from_mode(0o700);
        let mut dir = tempfile::Builder::new().prefix("mg-").permissions(ours_alone).tempdir()?;
        dir.disable_cleanup(env::var_os("MODELGUARD_E2E_KEEP").is_some());
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).push(dir.path().to_owned());
        Ok(Self(dir))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where `name` is in it.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.join(name);
        fs::write(&path, content)?;
        Ok(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| path != self.0.path());
    }
}

/// Has a process stopped if a signal ends us.
pub(crate) fn register(process: Weak<dyn Stop>) {
    let mut processes = PROCESSES.lock().unwrap_or_else(PoisonError::into_inner);
    processes.retain(|process| process.strong_count() > 0);
    processes.push(process);
}

/// From now on SIGINT and SIGTERM end this program in order: the youngest process first, then the folders.
#[expect(clippy::exit, reason = "the other threads are in the middle of something that is over now")]
pub(crate) fn watch_for_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let enter = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    drop(enter);
    thread::spawn(move || {
        let code = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            }
        });
        stop_all();
        process::exit(code);
    });
    Ok(())
}

fn stop_all() {
    // Held to the end: whoever starts something now waits until there is nobody left to start it.
    let processes = PROCESSES.lock().unwrap_or_else(PoisonError::into_inner);
    for process in processes.iter().rev().filter_map(Weak::upgrade) {
        process.stop();
    }
    let folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    if env::var_os("MODELGUARD_E2E_KEEP").is_none() {
        for folder in folders.iter() {
            // Best effort: whatever fails to go is under the system's temporary folder.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

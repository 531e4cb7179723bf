//! A child process that dies with us, even if we are killed.
//!
//! ```text
//! we ──stdin──▶ sh ──▶ the program        a line is a signal to pass on, the end of the pipe is SIGKILL
//! ```
//! The kernel closes the pipe whatever ends us, and no program of ours reads its own stdin.

use super::leftovers::{self, Stop};
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Ends with the program, and with its exit code (128 + the number of the signal that ended it).
const KEEPER: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- &
program=$!
{ while read -r signal; do kill -"$signal" $program; done; kill -KILL $program; } <&3 3<&- 2>/dev/null &
keeper=$!
exec 3<&- </dev/null
wait $program
status=$?
kill $keeper
exit $status
"#;

/// How much of a log an error shows.
const TAIL: usize = 25;

/// A running program.
pub(crate) struct Process {
    launch: Launch,
    running: Arc<Mutex<Running>>,
}

/// How a program is started.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// What errors call it.
    pub(crate) name: String,
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Variables beside ours.
    pub(crate) env: Vec<(String, OsString)>,
    /// Where both of its outputs go, at the end.
    pub(crate) log: PathBuf,
}

struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
}

// === impl Process ===

impl Process {
    /// Starts it.
    pub(crate) fn start(launch: Launch) -> Result<Self> {
        let running: Arc<Mutex<Running>> = Arc::new(Mutex::new(launch.spawn()?));
        let stop: Arc<dyn Stop> = Arc::<Mutex<Running>>::clone(&running);
        leftovers::register(Arc::downgrade(&stop));
        Ok(Self { launch, running })
    }

    /// What errors call it.
    pub(crate) fn name(&self) -> &str {
        &self.launch.name
    }

    /// Kills it and starts it anew, with the same arguments.
    pub(crate) fn restart(&self) -> Result<()> {
        self.kill();
        *self.lock() = self.launch.spawn()?;
        Ok(())
    }

    /// Ends it at once, and waits for that.
    pub(crate) fn kill(&self) {
        self.running.stop();
    }

    /// Sends it a signal, such as `TERM`.
    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let mut running = self.lock();
        let stdin = running.stdin.as_mut().context("it was stopped")?;
        writeln!(stdin, "{signal}").with_context(|| format!("{} is gone", self.name()))
    }

    /// How it ended, if it did; code 128 + n means signal n.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.lock().child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub(crate) fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if start.elapsed() > timeout {
                bail!("{} did not end within {} s\n{}", self.name(), timeout.as_secs(), self.log_tail());
            }
            thread::sleep(Duration::from_millis(25));
        }
    }

    /// An error with the end of its log, if it ended.
    pub(crate) fn check(&self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status})\n{}", self.name(), self.log_tail()),
        }
    }

    /// Where it writes.
    pub(crate) fn log(&self) -> &Path {
        &self.launch.log
    }

    /// The last lines of what it wrote, with a heading.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        format!("--- end of the log of {}\n{}", self.name(), tail.join("\n"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

// === impl Launch ===

impl Launch {
    fn spawn(&self) -> Result<Running> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).arg(&self.program).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        // In a group of its own, or Ctrl-C would end all of them at once, in no order.
        command.process_group(0);
        let mut child = command.spawn().with_context(|| format!("{} did not start", self.name))?;
        let stdin = child.stdin.take();
        Ok(Running { child, stdin })
    }
}

// === impl Running ===

impl Stop for Mutex<Running> {
    fn stop(&self) {
        let mut running = self.lock().unwrap_or_else(PoisonError::into_inner);
        running.stdin = None;
        // An error means that it was waited for before.
        let _ = running.child.wait();
    }
}

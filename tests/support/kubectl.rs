//! kubectl and helm, as people run them: arguments and stdin in, exit code and text out.

use anyhow::{Result, bail};
use serde_json::Value;
use std::ffi::OsString;
use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A command line that is being put together.
#[derive(Clone, Debug)]
#[must_use = "it runs when asked to"]
pub(crate) struct Tool {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, OsString)>,
    stdin: String,
}

/// What came of it. Its `Display` shows everything.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    command: String,
    stdin: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) elapsed: Duration,
}

// === impl Tool ===

impl Tool {
    /// Runs `program` with these variables beside ours.
    pub(crate) fn new(program: PathBuf, env: Vec<(String, OsString)>) -> Self {
        Self { program, args: Vec::new(), env, stdin: String::new() }
    }

    /// Appends arguments.
    pub(crate) fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// What it reads.
    pub(crate) fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = text.into();
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn run(&self) -> Output {
        match self.try_run() {
            Ok(output) => output,
            Err(error) => panic!("{} did not run: {error:#}", self.program.display()),
        }
    }

    /// Runs it, and takes anything but exit code 0 for an error.
    pub(crate) fn succeed(&self) -> Result<Output> {
        match self.try_run()? {
            output if output.status.success() => Ok(output),
            output => bail!("{output}"),
        }
    }

    fn try_run(&self) -> Result<Output> {
        let start = Instant::now();
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let pipe = child.stdin.take();
        let output = thread::scope(|scope| {
            // A program that ends without reading all of it is judged by its exit code.
            scope.spawn(|| pipe.map(|mut pipe| pipe.write_all(self.stdin.as_bytes())));
            child.wait_with_output()
        })?;
        let program = self.program.file_name().unwrap_or_default().to_string_lossy();
        Ok(Output {
            command: [program.as_ref()]
                .into_iter()
                .chain(self.args.iter().map(String::as_str))
                .collect::<Vec<_>>()
                .join(" "),
            stdin: self.stdin.clone(),
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            elapsed: start.elapsed(),
        })
    }
}

// === impl Output ===

impl Output {
    /// It succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!(self.status.success(), "expected success:\n{self}");
        self
    }

    /// Whether it succeeded, for conditions.
    pub(crate) fn passed(self) -> std::result::Result<Self, Self> {
        if self.status.success() { Ok(self) } else { Err(self) }
    }

    /// Whether it was denied with this code, for conditions.
    pub(crate) fn denies(self, code: &str) -> std::result::Result<(), Self> {
        if !self.status.success() && self.stderr.contains(&format!("[{code}]")) { Ok(()) } else { Err(self) }
    }

    /// It failed, by a denial of modelguard's with this code.
    #[track_caller]
    pub(crate) fn denied(self, code: &str) -> Self {
        self.failed(&format!("[{code}]"))
    }

    /// It failed, and says `text` on stderr.
    #[track_caller]
    pub(crate) fn failed(self, text: &str) -> Self {
        assert!(!self.status.success(), "expected a failure with {text:?}:\n{self}");
        self.says(text)
    }

    /// It says `text` on stderr.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "expected {text:?} on stderr:\n{self}");
        self
    }

    /// It does not say `text` on stderr.
    #[track_caller]
    pub(crate) fn silent_on(self, text: &str) -> Self {
        assert!(!self.stderr.contains(text), "expected no {text:?} on stderr:\n{self}");
        self
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let output = self.ok();
        match serde_json::from_str(&output.stdout) {
            Ok(value) => value,
            Err(error) => panic!("expected JSON on stdout ({error}):\n{output}"),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}    # {}, {:.1} s", self.command, self.status, self.elapsed.as_secs_f32())?;
        for (name, text) in [("stdin", &self.stdin), ("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                writeln!(f, "--- {name}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

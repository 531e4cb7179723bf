//! Exit codes, and the one place where an error is printed.

use crate::cli;
use std::io::Write as _;
use std::process::ExitCode;

/// How the process ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// All is fine: 0.
    Fine,
    /// There is a violation, or a denied request: 1.
    Findings,
    /// It was typed wrongly, or the environment does not allow it: 2.
    Unable,
}

impl Exit {
    /// Prints help to stdout, or what was typed wrongly to stderr.
    pub fn of_usage(error: &clap::Error) -> Self {
        // With no one to read it there is nobody to tell.
        let _ = error.print();
        if error.use_stderr() { Self::Unable } else { Self::Fine }
    }

    /// Prints why it could not be done.
    pub fn of_error(error: &anyhow::Error) -> Self {
        report(error);
        Self::Unable
    }
}

/// Prints an error with all its causes on one line; a cause that the text before it repeats is said once.
pub(super) fn report(error: &anyhow::Error) {
    let mut text = cli::name().to_owned();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    // With no one to read it there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Fine => Self::SUCCESS,
            Exit::Findings => Self::from(1),
            Exit::Unable => Self::from(2),
        }
    }
}

//! The `modelguard` binary: parse, run, exit code.

use modelguard::cli::{self, Cli, Exit};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => return Exit::of_usage(&error).into(),
    };
    match cli::run(cli) {
        Ok(exit) => exit.into(),
        Err(error) => Exit::of_error(&error).into(),
    }
}

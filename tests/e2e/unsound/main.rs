//! modelguard as the feature `unsound` weakens it: the same few lines as `src/main.rs`.

use clap::Parser as _;
use modelguard::cli::{self, Cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(error) => panic!("{error:#}"),
    }
}

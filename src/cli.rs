//! The command line: what was typed. What it means and doing it is each subcommand's `run`.

mod exit;
mod serve;

pub use exit::Exit;

use clap::{Parser, Subcommand};

/// Release guardrails for ML models on Kubernetes.
#[derive(Debug, Parser)]
// A later flag overrides an earlier one, so that a chart's `extraArgs` can change what the chart sets.
#[command(name = "modelguard", version, about, max_term_width = 100, args_override_self = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run the admission webhook and its controller
    Serve(serve::Args),
}

/// Does what was typed.
///
/// # Errors
/// When it cannot be done; the error says what was tried and why it failed.
pub fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command {
        Command::Serve(args) => serve::run(args),
    }
}

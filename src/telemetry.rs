//! Logs, on stderr: stdout belongs to the decision record and to what commands print.

use std::env;
use std::io;
use thiserror::Error;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged unless `RUST_LOG` says otherwise. kube-runtime warns of each failed watch; the index says it once.
const DEFAULT: &str = "info,kube_runtime=error";

/// How many lines wait for the thread that writes them. What a reader of stderr does not keep up with is lost: a log must never
/// make an admission request wait.
const MOST_WAITING: usize = 4096;

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    #[default]
    Text,
}

/// Why there is no log.
#[derive(Debug, Error)]
pub enum Error {
    /// `RUST_LOG` cannot be read.
    #[error("RUST_LOG={value:?} is no filter such as info or modelguard=debug,kube=warn")]
    Filter {
        /// What it is.
        value: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is one already.
    #[error("a log was set up before")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Starts logging, filtered by the environment variable `RUST_LOG`. The last lines are written when what it returns is dropped.
///
/// # Errors
/// If `RUST_LOG` cannot be read, or logging was started before.
pub fn init(format: Format) -> Result<WorkerGuard, Error> {
    let value = env::var("RUST_LOG").ok().filter(|value| !value.is_empty()).unwrap_or_else(|| DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&value).map_err(|source| Error::Filter { value, source })?;
    let thread = NonBlockingBuilder::default().buffered_lines_limit(MOST_WAITING).lossy(true).thread_name("log");
    let (writer, guard) = thread.finish(io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        Format::Json => builder.json().flatten_event(true).finish().try_init(),
        Format::Text => builder.finish().try_init(),
    }
    .map_err(Error::Twice)?;
    Ok(guard)
}

//! Stopping, and what must not stop before that.
//!
//! ```text
//! SIGTERM ──▶ leaving: readiness off, `Connection: close` ──delay──▶ no new connections, GOAWAY ──drain──▶ end
//! SIGTERM again ──▶ hurried: the delay is cut short
//! ```
//! Every background task is in a [`Tasks`]; the end of one, for whatever reason, ends the process.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};

/// How far stopping has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Phase {
    Running,
    Leaving,
    Hurried,
}

/// Says that the process is to stop.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Phase>);

/// Knows whether the process is to stop.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Phase>);

/// Background tasks that run as long as the process; dropping this stops them.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<Result<(), Box<dyn StdError + Send + Sync>>>,
    names: HashMap<Id, &'static str>,
}

/// A background task ended.
#[derive(Debug, Error)]
#[error("the {name} task ended")]
pub struct TaskEnded {
    name: &'static str,
    #[source]
    why: Option<Box<dyn StdError + Send + Sync>>,
}

/// Both ends of the signal to stop.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (Trigger(sender), Shutdown(receiver))
}

/// Pulls `trigger` when the process is told to stop, by SIGTERM or SIGINT. Runs until it is dropped.
///
/// # Errors
/// When the signals cannot be listened to.
pub async fn on_signals(trigger: Trigger) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
        trigger.pull();
    }
}

// === impl Trigger ===

impl Trigger {
    /// The first call makes the process leave, the second one makes it hurry.
    pub fn pull(&self) {
        self.0.send_modify(|phase| {
            *phase = match phase {
                Phase::Running => Phase::Leaving,
                Phase::Leaving | Phase::Hurried => Phase::Hurried,
            };
        });
    }
}

// === impl Shutdown ===

impl Shutdown {
    /// Whether the process is to stop.
    pub fn is_leaving(&self) -> bool {
        *self.0.borrow() > Phase::Running || self.0.has_changed().is_err()
    }

    /// Waits until the process is to stop.
    pub async fn leaving(&self) {
        self.reached(Phase::Leaving).await;
    }

    /// Waits until the process is to stop without delay.
    pub async fn hurried(&self) {
        self.reached(Phase::Hurried).await;
    }

    async fn reached(&self, phase: Phase) {
        // That nobody can pull the trigger any more means that its owner is gone: time to go, too.
        let _ = self.0.clone().wait_for(|now| *now >= phase).await;
    }
}

// === impl Tasks ===

impl Tasks {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task`, which is not expected to end.
    pub fn spawn<T, E>(&mut self, name: &'static str, task: T)
    where
        T: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let handle = self.set.spawn(async { task.await.map_err(Into::into) });
        self.names.insert(handle.id(), name);
    }

    /// Waits until one of the tasks ends, and says which; for ever if there is none.
    pub async fn ended(&mut self) -> TaskEnded {
        let Some(joined) = self.set.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let (id, why) = match joined {
            Ok((id, result)) => (id, result.err()),
            Err(error) => (error.id(), Some(error.into())),
        };
        TaskEnded { name: self.names.remove(&id).unwrap_or("unnamed"), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_pull_hurries() {
        let (trigger, shutdown) = channel();
        assert!(!shutdown.is_leaving());
        trigger.pull();
        shutdown.leaving().await;
        assert!(shutdown.is_leaving());
        trigger.pull();
        shutdown.hurried().await;
    }

    #[tokio::test]
    async fn a_lost_trigger_counts_as_pulled() {
        let (trigger, shutdown) = channel();
        drop(trigger);
        shutdown.leaving().await;
        assert!(shutdown.is_leaving());
    }

    #[tokio::test]
    async fn a_task_that_ends_is_named_with_its_error() {
        let mut tasks = Tasks::new();
        tasks.spawn("idle", std::future::pending::<Result<(), io::Error>>());
        tasks.spawn("watch", async { Err(io::Error::other("gone")) });
        let ended = tasks.ended().await;
        assert_eq!(ended.to_string(), "the watch task ended");
        assert_eq!(ended.source().unwrap().to_string(), "gone");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_named() {
        let mut tasks = Tasks::new();
        tasks.spawn("watch", async { if true { panic!("on purpose") } else { Ok::<_, io::Error>(()) } });
        let ended = tasks.ended().await;
        assert_eq!(ended.to_string(), "the watch task ended");
        assert!(ended.source().unwrap().to_string().contains("on purpose"));
    }
}

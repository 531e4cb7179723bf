//! Reading a body: bounded in size, in time, and, over all bodies at once, in memory.

use super::review::Unreadable;
use axum::body::{Body, BodyDataStream, HttpBody};
use futures::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::{Instant, timeout_at};

/// How much of a body that is too large is read and thrown away: a client that is still sending when the
/// connection closes sees a reset, and not the answer.
const MOST_DISCARDED: usize = 64 << 20;

/// How much room a body gets before it comes, if its length says that it needs it: a review of two ConfigMaps of 8 KiB
/// takes some 40 KiB, and a buffer that grows is copied time and again. It is not counted, being little.
const FORESEEN: usize = 64 << 10;

/// Memory for bodies, shared by all requests.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    free: Arc<AtomicUsize>,
}

/// What one request has taken of a [`Budget`]; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Budget,
    taken: usize,
}

/// A body, or as much of it as came.
#[derive(Debug)]
pub(super) struct Received {
    /// What came.
    pub(super) bytes: Vec<u8>,
    /// Why it is not all, if it is not.
    pub(super) problem: Option<Unreadable>,
    _share: Share,
}

/// All memory for bodies is taken.
#[derive(Debug)]
pub(super) struct NoRoom;

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { free: Arc::new(AtomicUsize::new(bytes)) }
    }

    fn share(&self) -> Share {
        Share { budget: self.clone(), taken: 0 }
    }
}

impl Share {
    fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let take = |free: usize| free.checked_sub(bytes);
        match self.budget.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => {
                self.taken += bytes;
                Ok(())
            }
            Err(_) => Err(NoRoom),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.free.fetch_add(self.taken, Ordering::Relaxed);
    }
}

/// Reads a body of at most `limit` bytes until `deadline`.
pub(super) async fn read(body: Body, limit: usize, budget: &Budget, deadline: Instant) -> Result<Received, NoRoom> {
    let foreseen = usize::try_from(body.size_hint().lower()).unwrap_or(FORESEEN).min(FORESEEN);
    let mut stream = body.into_data_stream();
    let mut share = budget.share();
    let mut bytes = Vec::with_capacity(foreseen);
    let problem = loop {
        match timeout_at(deadline, stream.next()).await {
            Err(_elapsed) => break Some(Unreadable::Late),
            Ok(None) => break None,
            Ok(Some(Err(error))) => break Some(Unreadable::Broken(error.to_string())),
            Ok(Some(Ok(chunk))) => {
                let fits = chunk.len().min(limit - bytes.len());
                if share.grow(fits).is_err() {
                    discard(&mut stream, deadline).await;
                    return Err(NoRoom);
                }
                // What fits of a body that is too large is where its uid is.
                bytes.extend_from_slice(&chunk[..fits]);
                if fits < chunk.len() {
                    discard(&mut stream, deadline).await;
                    break Some(Unreadable::TooLarge(limit));
                }
            }
        }
    };
    Ok(Received { bytes, problem, _share: share })
}

async fn discard(stream: &mut BodyDataStream, deadline: Instant) {
    let mut discarded = 0;
    while let Ok(Some(Ok(chunk))) = timeout_at(deadline, stream.next()).await {
        discarded += chunk.len();
        if discarded > MOST_DISCARDED {
            return;
        }
    }
}

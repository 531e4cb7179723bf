//! Reading a body: bounded in size, in time, and, over all bodies at once, in memory.

use super::review::Unreadable;
use super::shares::{Full, Share};
use axum::body::{Body, BodyDataStream, HttpBody};
use futures::StreamExt;
use std::pin::pin;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How much of a body that is too large is read and thrown away: a client that is still sending when the
/// connection closes sees a reset, and not the answer.
const MOST_DISCARDED: usize = 64 << 20;

/// How much room a body gets when its first bytes come, if its length says that it needs it: a review of two ConfigMaps
/// of 8 KiB takes some 40 KiB, and a buffer that grows is copied time and again.
const FORESEEN: usize = 64 << 10;

/// A body, or as much of it as came.
#[derive(Debug)]
pub(super) struct Received {
    /// What came.
    pub(super) bytes: Vec<u8>,
    /// Why it is not all, if it is not.
    pub(super) problem: Option<Unreadable>,
    _share: Share,
}

/// Reads a body of at most `limit` bytes until `deadline`, as far as there is memory for it in `share`.
pub(super) async fn read(body: Body, limit: usize, mut share: Share, deadline: Instant) -> Result<Received, Full> {
    let foreseen = usize::try_from(body.size_hint().lower()).map_or(FORESEEN, |length| length.min(FORESEEN));
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    // One for all chunks: to set a timer takes longer than to copy a chunk.
    let mut late = pin!(sleep_until(deadline));
    let problem = loop {
        let next = tokio::select! {
            biased;
            next = stream.next() => next,
            () = &mut late => break Some(Unreadable::Late),
        };
        match next {
            None => break None,
            Some(Err(error)) => break Some(Unreadable::Broken(error.to_string())),
            Some(Ok(chunk)) => {
                let fits = chunk.len().min(limit - bytes.len());
                if let Err(full) = share.grow(fits) {
                    discard(&mut stream, deadline).await;
                    return Err(full);
                }
                if bytes.is_empty() {
                    bytes.reserve(foreseen.max(fits));
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

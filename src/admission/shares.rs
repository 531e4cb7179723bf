//! What all requests share, and how much of it one of them, or one peer, may have.
//!
//! ```text
//! Pool ─ 256 slots, 64 MiB ─┬─▶ Share (a request of 10.0.0.7)  ┐ together at most what
//!                           ├─▶ Share (a request of 10.0.0.7)  ┘ is left for all others
//!                           └─▶ Share (a request of 10.0.0.9)
//! ```
//! Whoever reaches the Service can send reviews: the API server presents no certificate unless its administrator writes
//! a file for it on the control plane, so it cannot be told from a pod that floods us, except by its address. Hence one
//! rule for everything that is scarce: **what a request has, and what all requests of its address have, must together
//! fit into what is left free.** One request gets a third at most, and one address less than half. `n` addresses that
//! take all they can leave one part in `n + 1` free, of which the next address gets up to half again, and the next
//! request a third. No address is configured, and nothing is reserved for anybody: behind one address (a proxy of the
//! control plane) everybody shares what that address gets.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Something of which there is so much; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    free: usize,
    /// By those who have any.
    peers: HashMap<IpAddr, usize>,
}

/// What one request has taken of a [`Pool`]; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    pool: Pool,
    peer: IpAddr,
    taken: usize,
}

/// There is not enough left.
#[derive(Debug)]
pub(super) struct Full;

// === impl Pool ===

impl Pool {
    pub(super) fn new(all: usize) -> Self {
        Self(Arc::new(Mutex::new(Taken { free: all, peers: HashMap::new() })))
    }

    /// A share of `peer`, with nothing in it yet.
    pub(super) fn share(&self, peer: IpAddr) -> Share {
        Share { pool: self.clone(), peer, taken: 0 }
    }

    /// One of what is counted, such as a slot.
    pub(super) fn one(&self, peer: IpAddr) -> Result<Share, Full> {
        let mut share = self.share(peer);
        share.grow(1)?;
        Ok(share)
    }
}

// === impl Share ===

impl Share {
    /// Takes this much more, or nothing.
    pub(super) fn grow(&mut self, more: usize) -> Result<(), Full> {
        let mut pool = self.pool.0.lock();
        let own = self.taken.checked_add(more).ok_or(Full)?;
        let peer = pool.peers.get(&self.peer).copied().unwrap_or_default().checked_add(more).ok_or(Full)?;
        let free = pool.free.checked_sub(more).ok_or(Full)?;
        if free < own.saturating_add(peer) {
            return Err(Full);
        }
        pool.free = free;
        pool.peers.insert(self.peer, peer);
        self.taken = own;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut pool = self.pool.0.lock();
        pool.free += self.taken;
        if let Some(taken) = pool.peers.get_mut(&self.peer) {
            *taken -= self.taken;
            if *taken == 0 {
                pool.peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Takes one after the other until no more is to be had.
    fn greedy(pool: &Pool, last: u8) -> Vec<Share> {
        std::iter::from_fn(|| pool.one(peer(last)).ok()).collect()
    }

    #[test]
    fn one_request_gets_a_third_and_one_address_less_than_half() {
        let pool = Pool::new(90);
        let mut one = pool.share(peer(1));
        one.grow(30).unwrap();
        assert!(one.grow(1).is_err());
        drop(one);
        let all = greedy(&pool, 1);
        assert_eq!(all.len(), 44);
    }

    #[test]
    fn greedy_addresses_leave_as_much_as_each_of_them_has() {
        let pool = Pool::new(1000);
        let mut greedy_ones: Vec<Vec<Share>> = (1..=3).map(|last| greedy(&pool, last)).collect();
        // The first give back what the later ones would have had, had they come at once.
        for _ in 0..20 {
            for (last, shares) in (1..).zip(&mut greedy_ones) {
                shares.clear();
                *shares = greedy(&pool, last);
            }
        }
        let late = greedy(&pool, 9);
        assert!(late.len() > 100, "{}", late.len());
    }

    #[test]
    fn small_requests_fit_beside_large_ones_of_the_same_address() {
        let pool = Pool::new(64 << 20);
        let mut large: Vec<Share> = (0..64).map(|_| pool.share(peer(1))).collect();
        // All of them grow by turns, as bodies do that are received at once.
        while large.iter_mut().filter_map(|share| share.grow(16 << 10).ok()).count() > 0 {}
        // What is left to it is a third of what each of them has.
        assert!(pool.share(peer(1)).grow(128 << 10).is_ok());
    }

    #[test]
    fn what_is_dropped_is_free_again() {
        let pool = Pool::new(3);
        let one = pool.one(peer(1)).unwrap();
        assert!(pool.one(peer(1)).is_err());
        drop(one);
        assert!(pool.0.lock().peers.is_empty());
        assert!(pool.one(peer(1)).is_ok());
        assert!(pool.share(peer(2)).grow(usize::MAX).is_err());
    }
}

//! What all requests share, and how much of it one of them, or one peer, may have.
//!
//! ```text
//! Pool ─ 128 slots, 64 MiB ─┬─▶ Share (a request of 10.0.0.7)  ┐ together at most what
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
//!
//! Memory is refused, for a body that waits holds some. A slot is waited for: a flood that is refused at once comes again
//! at once, and refusing it took more of the processor than judging the API server's reviews. A free slot goes to the
//! address that has the fewest, and there to the request that waits for the longest time.

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Something of which there is so much; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    free: usize,
    /// By those who have any.
    peers: HashMap<IpAddr, usize>,
    /// Requests that wait for so much, those of an address in the order in which they came. Some may have given up.
    waiting: HashMap<IpAddr, VecDeque<(usize, oneshot::Sender<Share>)>>,
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
        Self(Arc::new(Mutex::new(Taken { free: all, peers: HashMap::new(), waiting: HashMap::new() })))
    }

    /// A share of `peer`, with nothing in it yet.
    pub(super) fn share(&self, peer: IpAddr) -> Share {
        Share { pool: self.clone(), peer, taken: 0 }
    }

    /// This much, once it is this request's turn.
    pub(super) async fn turn(&self, peer: IpAddr, much: usize) -> Result<Share, Full> {
        let turn = {
            let mut pool = self.0.lock();
            // Nobody overtakes those who wait.
            if !pool.waiting.contains_key(&peer) && pool.take(peer, 0, much).is_ok() {
                return Ok(Share { pool: self.clone(), peer, taken: much });
            }
            let (sender, turn) = oneshot::channel();
            pool.waiting.entry(peer).or_default().push_back((much, sender));
            turn
        };
        turn.await.map_err(|_gone| Full)
    }
}

// === impl Taken ===

impl Taken {
    /// Takes `more` for a request of `peer` that has `own` already.
    fn take(&mut self, peer: IpAddr, own: usize, more: usize) -> Result<(), Full> {
        let own = own.checked_add(more).ok_or(Full)?;
        let all = self.of(peer).checked_add(more).ok_or(Full)?;
        let free = self.free.checked_sub(more).ok_or(Full)?;
        if free < own.saturating_add(all) {
            return Err(Full);
        }
        self.free = free;
        self.peers.insert(peer, all);
        Ok(())
    }

    fn give_back(&mut self, peer: IpAddr, taken: usize) {
        self.free += taken;
        let left = self.of(peer) - taken;
        if left == 0 {
            self.peers.remove(&peer);
        } else {
            self.peers.insert(peer, left);
        }
    }

    fn of(&self, peer: IpAddr) -> usize {
        self.peers.get(&peer).copied().unwrap_or_default()
    }

    /// Takes what is waited for by whose turn it is, if there is so much to be had.
    fn next(&mut self) -> Option<(IpAddr, usize, oneshot::Sender<Share>)> {
        self.waiting.retain(|_, queue| {
            while queue.front().is_some_and(|(_, sender)| sender.is_closed()) {
                queue.pop_front();
            }
            !queue.is_empty()
        });
        let first = |(peer, queue): (&IpAddr, &VecDeque<(usize, _)>)| Some((self.of(*peer), *peer, queue.front()?.0));
        let mut firsts: Vec<_> = self.waiting.iter().filter_map(first).collect();
        firsts.sort_unstable();
        let (_, peer, _) = firsts.into_iter().find(|(_, peer, much)| self.take(*peer, 0, *much).is_ok())?;
        let (much, sender) = self.waiting.get_mut(&peer)?.pop_front()?;
        Some((peer, much, sender))
    }
}

// === impl Share ===

impl Share {
    /// Takes this much more, or nothing.
    pub(super) fn grow(&mut self, more: usize) -> Result<(), Full> {
        self.pool.0.lock().take(self.peer, self.taken, more)?;
        self.taken += more;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.pool.0.lock().give_back(self.peer, self.taken);
        loop {
            let Some((peer, taken, turn)) = self.pool.0.lock().next() else { break };
            // Who gave up meanwhile drops it, and that makes the next one's turn: not under the lock.
            drop(turn.send(Self { pool: self.pool.clone(), peer, taken }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// One, if there is no need to wait.
    fn one(pool: &Pool, last: u8) -> Option<Share> {
        pool.turn(peer(last), 1).now_or_never()?.ok()
    }

    /// Takes one after the other until no more is to be had.
    fn greedy(pool: &Pool, last: u8) -> Vec<Share> {
        std::iter::from_fn(|| one(pool, last)).collect()
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

    #[tokio::test]
    async fn the_address_with_the_fewest_is_next_and_there_who_waits_longest() {
        let pool = Pool::new(30);
        let mut third: Vec<_> = (0..10).filter_map(|_| one(&pool, 3)).collect();
        let (flood, others) = (greedy(&pool, 1), greedy(&pool, 2));
        assert_eq!((third.len(), flood.len(), others.len()), (10, 9, 5));
        let (order, mut served) = tokio::sync::mpsc::unbounded_channel();
        let wait = |name: &'static str, last: u8| {
            let (pool, order) = (pool.clone(), order.clone());
            tokio::spawn(async move { order.send((name, pool.turn(peer(last), 1).await.unwrap())).unwrap() })
        };
        for (name, last) in [("flood 1", 1), ("flood 2", 1), ("another", 2)] {
            wait(name, last);
            tokio::task::yield_now().await;
        }
        let mut names = Vec::new();
        let mut held = Vec::new();
        while names.len() < 3 {
            drop(third.pop().unwrap());
            tokio::task::yield_now().await;
            while let Ok((name, share)) = served.try_recv() {
                names.push(name);
                held.push(share);
            }
        }
        assert_eq!(names, ["another", "flood 1", "flood 2"]);
    }

    #[test]
    fn what_is_dropped_is_free_again() {
        let pool = Pool::new(3);
        let first = one(&pool, 1).unwrap();
        assert!(one(&pool, 1).is_none());
        drop(first);
        assert!(pool.0.lock().peers.is_empty());
        assert!(pool.0.lock().waiting.is_empty(), "who gave up does not wait");
        assert!(one(&pool, 1).is_some());
        assert!(pool.share(peer(2)).grow(usize::MAX).is_err());
    }
}

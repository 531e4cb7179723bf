//! Open connections: bounded, and shed fairly.
//!
//! ```text
//! accept ──▶ Gate::admit ──▶ Watched ──▶ TLS ──▶ HTTP ──▶ handlers, which know the Connection by its extension
//!               │               ▲                               │
//!               └─▶ Open ───────┘ closes it                     └─▶ Connection::busy: not to be closed now
//!                   peer ─▶ turn ─▶ Entry                           and, once done, the last to be closed
//! ```
//! Whoever reaches a port can open connections to it. Were new ones refused above the limit, those of the API server
//! would be, too. So a new one is let in, and the one that is closed for it belongs to the address that has the most:
//! the one that was of no use for the longest time. It never asked, or asked long ago, or is still sending: those of a
//! flood. That holds behind one address as well, and it is why thousands of idle connections, unfinished handshakes and
//! headers that come byte by byte need no timeouts that would hurt a slow network.

use crate::metrics::Metrics;
use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tower::Layer;

/// Lets connections in.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    open: Arc<Mutex<Open>>,
    most: usize,
    metrics: Metrics,
}

/// All connections of one port.
#[derive(Debug, Default)]
struct Open {
    /// Counts up; later is more recent.
    turn: u64,
    /// Who has any, and each by when it was last of use.
    peers: HashMap<IpAddr, BTreeMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// Closes the connection when it is dropped.
    _closer: oneshot::Sender<()>,
    /// Requests that came whole and are not answered yet.
    busy: usize,
}

/// A connection, as its requests know it.
#[derive(Clone, Debug)]
pub(crate) struct Connection(Arc<Registered>);

/// Takes it from the list when it ends.
#[derive(Debug)]
struct Registered {
    gate: Gate,
    peer: IpAddr,
    /// Where it is in the list; changed under the list's lock.
    turn: Mutex<u64>,
}

/// Keeps a connection from being closed.
#[derive(Debug)]
pub(crate) struct Busy(Connection);

/// A stream that can be closed from outside.
#[derive(Debug)]
pub(crate) struct Watched {
    stream: TcpStream,
    /// `None` once it is closed.
    closer: Option<oneshot::Receiver<()>>,
    _connection: Connection,
}

// === impl Gate ===

impl Gate {
    /// Keeps at most this many connections open.
    pub(crate) fn new(most: usize, metrics: Metrics) -> Self {
        Self { open: Arc::default(), most, metrics }
    }

    fn admit(&self, stream: TcpStream) -> io::Result<(Watched, Connection)> {
        // Without it, small HTTP/2 answers wait 40 ms for an acknowledgement of the one before.
        stream.set_nodelay(true)?;
        // An IPv4 peer of a socket for both is one peer.
        let peer = stream.peer_addr()?.ip().to_canonical();
        let (connection, closer) = self.register(peer);
        Ok((Watched { stream, closer: Some(closer), _connection: connection.clone() }, connection))
    }

    fn register(&self, peer: IpAddr) -> (Connection, oneshot::Receiver<()>) {
        let (closer, closed) = oneshot::channel();
        let mut open = self.open.lock();
        let turn = open.put(peer, Entry { _closer: closer, busy: 0 });
        while open.count() > self.most && open.shed() {
            self.metrics.connection_shed();
        }
        drop(open);
        self.metrics.connection_opened();
        (Connection(Arc::new(Registered { gate: self.clone(), peer, turn: Mutex::new(turn) })), closed)
    }
}

impl<S> Accept<TcpStream, S> for Gate {
    type Stream = Watched;
    type Service = AddExtension<S, Connection>;
    type Future = std::future::Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let admitted = self.admit(stream);
        std::future::ready(admitted.map(|(stream, connection)| (stream, Extension(connection).layer(service))))
    }
}

// === impl Open ===

impl Open {
    fn count(&self) -> usize {
        self.peers.values().map(BTreeMap::len).sum()
    }

    /// Puts it in as the most recent one.
    fn put(&mut self, peer: IpAddr, entry: Entry) -> u64 {
        self.turn += 1;
        self.peers.entry(peer).or_default().insert(self.turn, entry);
        self.turn
    }

    fn take(&mut self, peer: IpAddr, turn: u64) -> Option<Entry> {
        let turns = self.peers.get_mut(&peer)?;
        let entry = turns.remove(&turn);
        if turns.is_empty() {
            self.peers.remove(&peer);
        }
        entry
    }

    /// Closes one of those that have the most, if any of theirs is not busy.
    fn shed(&mut self) -> bool {
        let Some((&peer, turns)) = self.peers.iter().max_by_key(|(_, turns)| turns.len()) else { return false };
        let idle = turns.iter().find(|(_, entry)| entry.busy == 0).map(|(turn, _)| *turn);
        idle.is_some_and(|turn| self.take(peer, turn).is_some())
    }
}

// === impl Connection ===

impl Connection {
    /// Whose it is.
    pub(crate) fn peer(&self) -> IpAddr {
        self.0.peer
    }

    /// Says that a request came whole: it is answered before the connection may be closed.
    pub(crate) fn busy(&self) -> Busy {
        self.touch(|busy| busy + 1);
        Busy(self.clone())
    }

    /// Makes it the most recent one, if it is not closed by now.
    fn touch(&self, change: impl FnOnce(usize) -> usize) {
        let Registered { gate, peer, turn } = &*self.0;
        let mut open = gate.open.lock();
        let mut turn = turn.lock();
        if let Some(entry) = open.take(*peer, *turn) {
            *turn = open.put(*peer, Entry { busy: change(entry.busy), ..entry });
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        drop(self.gate.open.lock().take(self.peer, *self.turn.get_mut()));
        self.gate.metrics.connection_closed();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch(|busy| busy - 1);
    }
}

// === impl Watched ===

impl Watched {
    /// The stream, unless it is closed; `context` hears of its being closed.
    fn open(&mut self, context: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        if self.closer.as_mut().is_some_and(|closer| Pin::new(closer).poll(context).is_ready()) {
            self.closer = None;
        }
        match self.closer {
            Some(_) => Ok(Pin::new(&mut self.stream)),
            None => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed in favor of another connection")),
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().open(cx)?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().open(cx)?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().open(cx)?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().open(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics;

    fn gate(most: usize) -> Gate {
        Gate::new(most, Metrics::register(&mut metrics::registry()))
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn is_closed(closer: &mut oneshot::Receiver<()>) -> bool {
        closer.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn the_address_with_the_most_loses_the_one_that_was_of_no_use_for_the_longest_time() {
        let gate = gate(4);
        let (_server, mut server) = gate.register(peer(1));
        let mut flood: Vec<_> = (0..3).map(|_| gate.register(peer(2))).collect();
        // The first of them asks, and is answered.
        drop(flood[0].0.busy());
        let (_late, mut late) = gate.register(peer(3));
        let closed: Vec<_> = flood.iter_mut().map(|(_, closer)| is_closed(closer)).collect();
        assert_eq!(closed, [false, true, false]);
        assert!(!is_closed(&mut server) && !is_closed(&mut late));
        assert_eq!(gate.open.lock().count(), 4);
    }

    #[test]
    fn behind_one_address_those_that_ask_stay() {
        let gate = gate(4);
        let (good, mut closer) = gate.register(peer(1));
        let mut flood = Vec::new();
        for _ in 0..100 {
            flood.push(gate.register(peer(1)));
            drop(good.busy());
        }
        assert!(!is_closed(&mut closer));
        assert_eq!(gate.open.lock().count(), 4);
    }

    #[test]
    fn a_request_that_came_whole_is_never_cut_off() {
        let gate = gate(1);
        let (one, mut closer) = gate.register(peer(1));
        let busy = one.busy();
        let (_other, mut other) = gate.register(peer(1));
        assert!(!is_closed(&mut closer));
        assert!(is_closed(&mut other), "there is nobody else to close");
        drop(busy);
        drop(gate.register(peer(1)));
        assert!(is_closed(&mut closer));
    }

    #[test]
    fn nothing_is_left_of_closed_connections() {
        let gate = gate(2);
        let all: Vec<_> = (0..5).map(|last| gate.register(peer(last))).collect();
        let busy: Vec<_> = all.iter().map(|(connection, _)| connection.busy()).collect();
        drop((busy, all));
        assert!(gate.open.lock().peers.is_empty());
    }
}

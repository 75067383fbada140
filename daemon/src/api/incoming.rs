//! Connections with their peers: those of the socket, each with the user id that the kernel vouches for, and those
//! that TLS made.
//!
//! In: the listener, or one stream. Out: connections. Invariant: the stream of connections never ends and never
//! fails; one peer's connections cannot use up what another needs.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::Peer;
use crate::smgw;

/// Most connections of one peer at a time.
const PER_PEER: usize = 32;
/// Wait after a failed accept, e.g. without free file descriptors.
const RETRY: Duration = Duration::from_millis(200);

/// How many connections each peer has.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<Mutex<HashMap<String, usize>>>);

/// Gives the place back when the connection ends.
#[derive(Debug)]
pub struct Place {
    places: Places,
    key: String,
}

impl Places {
    /// A place for one more connection of this peer, if it has not too many.
    #[must_use]
    pub fn take(&self, peer: &Peer) -> Option<Place> {
        let key = peer.key();
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = taken.entry(key.clone()).or_default();
        if *mine >= PER_PEER {
            tracing::warn!(
                peer = key,
                most = PER_PEER,
                "a peer has too many connections; one more is closed"
            );
            return None;
        }
        *mine += 1;
        Some(Place { places: self.clone(), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = taken.get_mut(&self.key) {
            *mine -= 1;
            if *mine == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

/// What is known of one connection from outside.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// It is over.
    pub(super) ended: CancellationToken,
    /// The peer has said something.
    pub(super) heard: CancellationToken,
    /// To break it.
    pub(super) cut: CancellationToken,
    why: Arc<Mutex<Option<String>>>,
}

impl Line {
    /// Why it ended, as far as the stream showed it.
    pub(super) fn why(&self) -> Option<String> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, why: impl FnOnce() -> String) {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(why);
    }
}

struct Watched {
    line: Line,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _ended: DropGuard,
}

/// One connection.
pub(super) struct Connection<S> {
    stream: S,
    peer: Peer,
    watched: Option<Watched>,
    _place: Option<Place>,
}

impl<S> Connection<S> {
    /// A connection that TLS made.
    pub(super) fn new(stream: S, peer: Peer, line: Line) -> Self {
        let cut = Box::pin(line.cut.clone().cancelled_owned());
        let ended = line.ended.clone().drop_guard();
        Self { stream, peer, watched: Some(Watched { line, cut, _ended: ended }), _place: None }
    }
}

/// Every connection that has a place.
pub(super) fn connections(
    listener: UnixListener,
) -> impl Stream<Item = io::Result<Connection<UnixStream>>> + Send {
    stream::unfold((listener, Places::default()), |(listener, places)| async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let peer = Peer::User(stream.peer_cred().ok().map(|peer| peer.uid()));
            if let Some(place) = places.take(&peer) {
                let connection = Connection { stream, peer, watched: None, _place: Some(place) };
                return Some((Ok(connection), (listener, places)));
            }
        }
    })
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let Some(watched) = &mut self.watched else {
            return read;
        };
        match &read {
            Poll::Pending if watched.cut.as_mut().poll(cx).is_ready() => {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            Poll::Pending => {}
            Poll::Ready(Ok(())) if buf.filled().len() > before => watched.line.heard.cancel(),
            Poll::Ready(Ok(())) => watched.line.note(|| "the other side closed it".to_owned()),
            Poll::Ready(Err(error)) => watched.line.note(|| smgw::io_reason(error)),
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

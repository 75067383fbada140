//! Accepts connections, each with the user id that the kernel vouches for, and no user too many of them.
//!
//! In: the listener. Out: connections. Invariant: the stream never ends and never fails; one user's connections
//! cannot use up what another needs.

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
use tonic::transport::server::Connected;

/// Most connections of one user at a time.
const PER_USER: usize = 32;
/// Wait after a failed accept, e.g. without free file descriptors.
const RETRY: Duration = Duration::from_millis(200);

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// Absent if the system would not tell.
    pub(super) uid: Option<u32>,
}

/// How many connections each user has.
type Count = Arc<Mutex<HashMap<Option<u32>, usize>>>;

/// Gives the place back when the connection ends.
#[derive(Debug)]
struct Place {
    count: Count,
    uid: Option<u32>,
}

impl Place {
    fn take(count: &Count, uid: Option<u32>) -> Option<Self> {
        let mut taken = count.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = taken.entry(uid).or_default();
        if *mine >= PER_USER {
            return None;
        }
        *mine += 1;
        Some(Self { count: Arc::clone(count), uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = taken.get_mut(&self.uid) {
            *mine -= 1;
            if *mine == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

/// One accepted connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    peer: Peer,
    _place: Place,
}

/// Every connection that has a place.
pub(super) fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<Connection>> + Send {
    let count = Count::default();
    stream::unfold((listener, count), |(listener, count)| async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let uid = stream.peer_cred().ok().map(|peer| peer.uid());
            match Place::take(&count, uid) {
                Some(place) => {
                    let connection = Connection { stream, peer: Peer { uid }, _place: place };
                    return Some((Ok(connection), (listener, count)));
                }
                None => tracing::warn!(
                    ?uid,
                    most = PER_USER,
                    "a user has too many connections; one more was closed"
                ),
            }
        }
    })
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
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

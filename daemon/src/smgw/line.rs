//! A TCP connection as the uplink gives it up.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A TCP connection that is aborted when it is dropped, unless it was shut down before or the peer has ended it.
///
/// A connection is given up because nothing comes back. What was written to it and never acknowledged is sent again on
/// the next one; without the abort the kernel would deliver it on the old one, too, once the cable is back.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    ended: bool,
}

impl Line {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, ended: false }
    }

    /// Both ends, for who wants to see them.
    pub(super) fn ends(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.stream.local_addr()?, self.stream.peer_addr()?))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.ended {
            // An error means that there is nothing left to abort.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if result.is_ok() && buf.filled().len() == before && buf.capacity() > before {
            self.ended = true;
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// What a peer reads that begins to read after our end is gone.
    async fn left(shut_down: bool) -> io::Result<usize> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut line = Line::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        let (mut peer, _) = listener.accept().await.unwrap();
        line.write_all(b"StartTransaction").await.unwrap();
        if shut_down {
            line.shutdown().await.unwrap();
        }
        drop(line);
        peer.read_to_end(&mut Vec::new()).await
    }

    #[tokio::test]
    async fn a_line_that_is_dropped_is_aborted_and_one_that_is_shut_down_is_not() {
        assert_eq!(left(true).await.unwrap(), 16);
        assert_eq!(left(false).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

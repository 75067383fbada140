//! TCP to the gateway or, without one, to the target.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};

use super::attempt::Failure;

/// Quiet time before the kernel asks whether the peer is still there, and between its questions.
const KEEPALIVE_AFTER_S: u32 = 60;
const KEEPALIVE_EVERY_S: u32 = 15;
const KEEPALIVE_TIMES: u32 = 3;

/// How long sent data may stay unacknowledged: ends a connection over a dead cable (RFC 5482).
const UNACKNOWLEDGED_MS: u32 = 30_000;

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;

/// `host:port` with the brackets of an IPv6 literal.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Splits `host:port`; brackets are dropped.
pub(super) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?))
}

/// Connects to the first address of the name that answers; the time is shared among them.
pub(super) async fn connect(
    host: &str,
    port: u16,
    interface: Option<&str>,
    time: Duration,
) -> Result<Line, Failure> {
    let resolving = |reason: &str| Failure::new(format!("resolving {host}: {reason}"));
    let addresses: Vec<SocketAddr> = match timeout(time, lookup_host((host, port))).await {
        Err(_) => return Err(resolving(&format!("no answer within {time:?}"))),
        Ok(Err(error)) => return Err(resolving(&io_reason(&error))),
        Ok(Ok(found)) => found.take(MOST_ADDRESSES).collect(),
    };
    let share = time / u32::try_from(addresses.len().max(1)).unwrap_or(1);
    let mut last = resolving("it has no address");
    for address in addresses {
        let reason = match timeout(share, one(address, interface)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(reason)) => reason,
            Err(_) => format!("no answer within {share:?}"),
        };
        last = Failure::new(format!("TCP connect to {address}: {reason}"));
    }
    Err(last)
}

async fn one(address: SocketAddr, interface: Option<&str>) -> Result<Line, String> {
    let reason = |error: io::Error| io_reason(&error);
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(reason)?;
    if let Some(interface) = interface {
        socket
            .bind_device(Some(interface.as_bytes()))
            .map_err(|e| format!("cannot bind to interface {interface}: {}", io_reason(&e)))?;
    }
    let stream = socket.connect(address).await.map_err(reason)?;
    stream.set_nodelay(true).map_err(reason)?;
    let option = |result: nix::Result<()>| result.map_err(|errno| io_reason(&errno.into()));
    option(setsockopt(&stream, sockopt::KeepAlive, &true))?;
    option(setsockopt(&stream, sockopt::TcpKeepIdle, &KEEPALIVE_AFTER_S))?;
    option(setsockopt(&stream, sockopt::TcpKeepInterval, &KEEPALIVE_EVERY_S))?;
    option(setsockopt(&stream, sockopt::TcpKeepCount, &KEEPALIVE_TIMES))?;
    option(setsockopt(&stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS))?;
    Ok(Line { stream, ended: false })
}

/// A TCP connection that is aborted when it is dropped, unless it was shut down before or the peer has ended it.
///
/// A connection is given up because nothing comes back. What was written to it and never acknowledged is sent again on
/// the next one; without the abort the kernel would deliver it on the old one, too, once the cable is back.
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    ended: bool,
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

/// An I/O error without the number of the operating system: `connection refused`.
pub(crate) fn io_reason(error: &io::Error) -> String {
    let Some(number) = error.raw_os_error() else {
        return error.to_string();
    };
    let text = Errno::from_raw(number).desc();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if !text.starts_with("I/O") => first.to_lowercase().chain(letters).collect(),
        _ => text.to_owned(),
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
        let mut line = connect("127.0.0.1", port, None, Duration::from_secs(5)).await.unwrap();
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

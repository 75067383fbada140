//! TCP to the gateway or, without one, to the target.

use std::{io, net::SocketAddr, time::Duration};

use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};
use tokio::{
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
) -> Result<TcpStream, Failure> {
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

async fn one(address: SocketAddr, interface: Option<&str>) -> Result<TcpStream, String> {
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
    Ok(stream)
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

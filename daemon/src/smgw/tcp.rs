//! TCP to the gateway or, without one, to the target.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sys::socket::{setsockopt, sockopt},
};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};

use super::{
    line::Line,
    mdns,
    step::{Cause, Failure, Step},
};

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

/// The zone of a link-local address: `fe80::1%han0`.
fn zone(host: &str) -> (&str, Option<&str>) {
    host.split_once('%').map_or((host, None), |(address, zone)| (address, Some(zone)))
}

/// What a certificate or a handshake could call the host: without a zone, which only this device knows.
pub(super) fn without_zone(host: &str) -> &str {
    zone(host).0
}

/// `fe80::/10`: means something on one link alone (RFC 4291 §2.5.6).
fn is_link_local(address: &Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// On which link an address lies, if that must be said.
fn with_link(address: IpAddr, port: u16, link: Option<&str>) -> Result<SocketAddr, String> {
    let IpAddr::V6(v6) = address else {
        return Ok(SocketAddr::new(address, port));
    };
    if !is_link_local(&v6) {
        return Ok(SocketAddr::new(address, port));
    }
    let Some(link) = link else {
        return Err(format!("{v6} is link-local; write the interface behind it: \"[{v6}%han0]:{port}\""));
    };
    let scope = if_nametoindex(link).map_err(|_| format!("there is no interface {link}"))?;
    Ok(SocketAddr::V6(SocketAddrV6::new(v6, port, 0, scope)))
}

/// The addresses of a host: a literal, a name below `.local` by mDNS, any other by the system.
pub(super) async fn resolve(
    host: &str,
    port: u16,
    interface: Option<&str>,
    time: Duration,
) -> Result<Vec<SocketAddr>, Failure> {
    let resolving =
        |cause, reason: &str| Failure::new(Step::Address, cause, format!("resolving {host}: {reason}"));
    let (literal, zone) = zone(host);
    if let Ok(address) = literal.parse::<IpAddr>() {
        let address = with_link(address, port, zone.or(interface));
        return address.map(|address| vec![address]).map_err(|reason| resolving(Cause::Other, &reason));
    }
    if mdns::is_local(host)
        && let Ok(found) = mdns::resolve(host, interface, time / 2).await
    {
        let found = found.into_iter().take(MOST_ADDRESSES);
        let found: Vec<_> = found.filter_map(|address| with_link(address, port, interface).ok()).collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    match timeout(time, lookup_host((host, port))).await {
        Err(_) => Err(resolving(Cause::Silent, &format!("no answer within {time:?}"))),
        Ok(Err(error)) => Err(resolving(Cause::Nobody, &io_reason(&error))),
        Ok(Ok(found)) => {
            let found: Vec<_> = found.take(MOST_ADDRESSES).collect();
            if found.is_empty() { Err(resolving(Cause::Nobody, "it has no address")) } else { Ok(found) }
        }
    }
}

/// Connects to the first of the addresses that answers; the time is shared among them.
pub(super) async fn connect(
    addresses: &[SocketAddr],
    interface: Option<&str>,
    time: Duration,
) -> Result<Line, Failure> {
    let share = time / u32::try_from(addresses.len().max(1)).unwrap_or(1);
    let mut last = Failure::new(Step::Tcp, Cause::Nobody, "there is no address to connect to".to_owned());
    for address in addresses {
        let (cause, reason) = match timeout(share, one(*address, interface)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(failed)) => failed,
            Err(_) => (Cause::Silent, format!("no answer within {share:?}")),
        };
        last = Failure::new(Step::Tcp, cause, format!("TCP connect to {address}: {reason}"));
    }
    Err(last)
}

async fn one(address: SocketAddr, interface: Option<&str>) -> Result<Line, (Cause, String)> {
    let other = |error: io::Error| (Cause::Other, io_reason(&error));
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(other)?;
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes())).map_err(|e| {
            (Cause::Ground, format!("cannot bind to interface {interface}: {}", io_reason(&e)))
        })?;
    }
    let stream = socket.connect(address).await.map_err(|error| {
        let cause = match error.kind() {
            io::ErrorKind::ConnectionRefused => Cause::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Cause::Nobody,
            io::ErrorKind::TimedOut => Cause::Silent,
            _ => Cause::Other,
        };
        (cause, io_reason(&error))
    })?;
    prepare(&stream).map_err(other)?;
    Ok(Line::new(stream))
}

/// What every connection on the HAN has: no delay, and an end when the other side is gone.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_AFTER_S)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_EVERY_S)?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_TIMES)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS)?;
    Ok(())
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
    use nix::sys::socket::getsockopt;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_link_local_address_needs_its_link() {
        let found = resolve("fe80::1%lo", 8443, None, S).await.unwrap();
        assert!(matches!(found[..], [SocketAddr::V6(address)] if address.scope_id() == 1), "{found:?}");
        let found = resolve("fe80::1", 8443, Some("lo"), S).await.unwrap();
        assert!(matches!(found[..], [SocketAddr::V6(address)] if address.scope_id() == 1), "{found:?}");
        let error = resolve("fe80::1", 8443, None, S).await.unwrap_err().text;
        assert_eq!(
            error,
            "resolving fe80::1: fe80::1 is link-local; write the interface behind it: \"[fe80::1%han0]:8443\""
        );
        let error = resolve("fe80::1%gone0", 8443, None, S).await.unwrap_err().text;
        assert_eq!(error, "resolving fe80::1%gone0: there is no interface gone0");
        let found = resolve("2001:db8::1", 1, None, S).await.unwrap();
        assert_eq!(found, ["[2001:db8::1]:1".parse().unwrap()]);
    }

    #[tokio::test]
    async fn a_connection_over_a_dead_cable_has_an_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        prepare(&stream).unwrap();
        assert_eq!(getsockopt(&stream, sockopt::TcpUserTimeout), Ok(UNACKNOWLEDGED_MS));
        assert_eq!(getsockopt(&stream, sockopt::KeepAlive), Ok(true));
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepIdle), Ok(KEEPALIVE_AFTER_S));
        assert!(stream.nodelay().unwrap());
    }

    #[test]
    fn a_zone_is_no_part_of_a_name() {
        assert_eq!(without_zone("fe80::1%han0"), "fe80::1");
        assert_eq!(without_zone("smgw.local"), "smgw.local");
    }
}

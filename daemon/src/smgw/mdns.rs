//! Asks for `smgw.local` (multicast DNS, RFC 6762 §5.1: a one-shot query; the answer comes to our own port).
//!
//! In: a name below `.local`. Out: its addresses. Invariant: no answer, however malformed, reads beyond its bytes
//! or loops.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use tokio::{net::UdpSocket, time::timeout};

const PORT: u16 = 5353;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

const A: u16 = 1;
const AAAA: u16 = 28;
const INTERNET: u16 = 1;
/// "An answer to me alone will do" (RFC 6762 §5.4); in an answer: "forget what you knew" (§10.2).
const TOP_BIT: u16 = 0x8000;

/// Longest answer (RFC 6762 §17).
const LONGEST: usize = 9000;

/// Times that the question is asked.
const TIMES: u32 = 3;

/// Whether a name is to be asked for here.
pub(super) fn is_local(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.len() > 6 && host.to_ascii_lowercase().ends_with(".local")
}

/// Asks on the interface, by IPv4 and IPv6; without one on the system's choice, by IPv4.
pub(super) async fn resolve(host: &str, interface: Option<&str>, time: Duration) -> io::Result<Vec<IpAddr>> {
    let v4 = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        if let Some(interface) = interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        ask(&socket, SocketAddr::from((GROUP_V4, PORT)), host, time).await
    };
    let v6 = async {
        let Some(interface) = interface else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let scope = nix::net::if_::if_nametoindex(interface)?;
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await?;
        socket.bind_device(Some(interface.as_bytes()))?;
        let group = SocketAddrV6::new(GROUP_V6, PORT, 0, scope);
        ask(&socket, SocketAddr::V6(group), host, time).await
    };
    tokio::pin!(v4, v6);
    tokio::select! {
        found = &mut v4 => match found { Ok(found) => Ok(found), Err(error) => v6.await.map_err(|_| error) },
        found = &mut v6 => match found { Ok(found) => Ok(found), Err(_) => v4.await },
    }
}

/// Asks whoever hears it there; the first answer that names an address counts.
async fn ask(socket: &UdpSocket, to: SocketAddr, host: &str, time: Duration) -> io::Result<Vec<IpAddr>> {
    let query = query(host).ok_or(io::ErrorKind::InvalidInput)?;
    let mut piece = vec![0; LONGEST];
    for _ in 0..TIMES {
        socket.send_to(&query, to).await?;
        let listen = async {
            loop {
                let (n, _) = socket.recv_from(&mut piece).await?;
                let found = addresses(&piece[..n], host);
                if !found.is_empty() {
                    return Ok::<_, io::Error>(found);
                }
            }
        };
        if let Ok(found) = timeout(time / TIMES, listen).await {
            return found;
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("nobody on the network answers for {host}")))
}

/// One question for each kind of address; `None` if the name cannot be asked for.
fn query(host: &str) -> Option<Vec<u8>> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let mut name = Vec::new();
    for label in host.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n))?;
        name.push(length);
        name.extend(label.bytes());
    }
    name.push(0);
    // ID 0, no flags, two questions.
    let mut query = vec![0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0];
    for kind in [A, AAAA] {
        query.extend(&name);
        query.extend(kind.to_be_bytes());
        query.extend((INTERNET | TOP_BIT).to_be_bytes());
    }
    (name.len() <= 255).then_some(query)
}

/// The addresses that a response gives for the name.
#[must_use]
pub fn addresses(response: &[u8], host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    // What is cut off or malformed ends the reading; what came before counts.
    let _ = read(response, host, &mut found);
    found
}

fn read(response: &[u8], host: &str, found: &mut Vec<IpAddr>) -> Option<()> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let count = |at| word(response, at).map(usize::from);
    let is_response = response.get(2)? & 0x80 != 0;
    if !is_response {
        return None;
    }
    let mut at = 12;
    for _ in 0..count(4)? {
        at = name(response, at)?.1 + 4;
    }
    for _ in 0..count(6)? + count(8)? + count(10)? {
        let (owner, next) = name(response, at)?;
        let (kind, class) = (word(response, next)?, word(response, next + 2)? & !TOP_BIT);
        let length = usize::from(word(response, next + 8)?);
        let data = response.get(next + 10..next + 10 + length)?;
        at = next + 10 + length;
        if class != INTERNET || !owner.eq_ignore_ascii_case(host) {
            continue;
        }
        match kind {
            A => found.push(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            AAAA => found.push(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => {}
        }
    }
    Some(())
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// A name (RFC 1035 §4.1.4) and where the bytes behind it begin. A pointer leads backwards only, so there is an end.
fn name(bytes: &[u8], from: usize) -> Option<(String, usize)> {
    let (mut at, mut lowest, mut behind) = (from, from, None);
    let mut text = String::new();
    loop {
        let length = usize::from(*bytes.get(at)?);
        if length & 0xc0 == 0xc0 {
            let to = (length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
            behind = behind.or(Some(at + 2));
            if to >= lowest {
                return None;
            }
            (at, lowest) = (to, to);
            continue;
        }
        if length & 0xc0 != 0 {
            return None;
        }
        if length == 0 {
            return Some((text, behind.unwrap_or(at + 1)));
        }
        let label = bytes.get(at + 1..at + 1 + length)?;
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(std::str::from_utf8(label).ok()?);
        at += 1 + length;
        if text.len() > 255 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer as responders write it: the name once, pointers to it.
    fn answer() -> Vec<u8> {
        let mut bytes = vec![0, 0, 0x84, 0, 0, 0, 0, 2, 0, 0, 0, 1];
        bytes.extend(b"\x04smgw\x05local\x00");
        bytes.extend([0, 1, 0x80, 1, 0, 0, 0, 120, 0, 4, 192, 0, 2, 1]);
        bytes.extend([0xc0, 12, 0, 28, 0x80, 1, 0, 0, 0, 120, 0, 16]);
        bytes.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        bytes.extend(b"\x05other\xc0\x11");
        bytes.extend([0, 1, 0x80, 1, 0, 0, 0, 120, 0, 4, 192, 0, 2, 9]);
        bytes
    }

    #[test]
    fn both_kinds_of_address_are_read_and_no_one_elses() {
        let found = addresses(&answer(), "SMGW.local");
        assert_eq!(found, [IpAddr::from([192, 0, 2, 1]), "fe80::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(addresses(&answer(), "other.local"), [IpAddr::from([192, 0, 2, 9])]);
        assert_eq!(addresses(&answer(), "smgw.example"), [] as [IpAddr; 0]);
    }

    #[test]
    fn a_question_is_no_answer_and_a_loop_has_an_end() {
        assert!(addresses(&query("smgw.local").unwrap(), "smgw.local").is_empty());
        let mut looping = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        looping.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]);
        assert!(addresses(&looping, "smgw.local").is_empty());
    }

    #[test]
    fn names_that_mdns_serves() {
        assert!(is_local("smgw.local") && is_local("SMGW.Local."));
        assert!(!is_local("local") && !is_local(".local") && !is_local("smgw.localdomain"));
        assert_eq!(query("a..local"), None);
        assert_eq!(query(&format!("{}.local", "a".repeat(64))), None);
    }

    #[tokio::test]
    async fn an_answer_that_comes_to_the_second_question_counts() {
        let responder = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = responder.local_addr().unwrap();
        let play = async {
            let mut piece = [0; 512];
            let (n, from) = responder.recv_from(&mut piece).await.unwrap();
            assert_eq!(piece[..n], query("smgw.local").unwrap());
            responder.send_to(b"nonsense", from).await.unwrap();
            let (_, from) = responder.recv_from(&mut piece).await.unwrap();
            responder.send_to(&answer(), from).await.unwrap();
        };
        let (found, ()) = tokio::join!(ask(&socket, to, "smgw.local", Duration::from_secs(1)), play);
        assert_eq!(found.unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn no_answer_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..300), flips in prop::collection::vec((0..100_usize, any::<u8>()), 0..6)) {
            let _ = addresses(&bytes, "smgw.local");
            let mut nearly = answer();
            for (at, value) in flips {
                let at = at % nearly.len();
                nearly[at] = value;
            }
            let _ = addresses(&nearly, "smgw.local");
        }
    }
}

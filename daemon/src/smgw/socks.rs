//! SOCKS5 (RFC 1928) as the gateway's proxy speaks it: no authentication, CONNECT.
//!
//! In: the target and the proxy's bytes, in any pieces. Out: bytes to send, then an open way or the reason.
//! Invariants: the outcome does not depend on how the bytes are cut; nothing is consumed beyond the reply, what
//! follows belongs to the application.
//!
//! ```text
//! greeting sent → Method ──05 00──▶ request to send → Reply ──05 00 …──▶ Open
//!                   └──anything else──▶ error           └──anything else──▶ error
//! ```
//!
//! The request waits for the method reply: a proxy may drop a greeting and a request that come together.

use std::{fmt, net::IpAddr};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// What is sent first: one method, no authentication (RFC 1928 §3).
pub const GREETING: [u8; 3] = [VERSION, 1, NO_AUTHENTICATION];

/// REP of a reply (RFC 1928 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply(pub u8);

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "succeeded",
            1 => "general failure",
            2 => "not allowed by ruleset",
            3 => "network unreachable",
            4 => "host unreachable",
            5 => "connection refused",
            6 => "TTL expired",
            7 => "command not supported",
            8 => "address type not supported",
            _ => "unassigned",
        };
        write!(f, "{:02x} {name}", self.0)
    }
}

/// Why the proxy opens no way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SocksError {
    /// It said no.
    #[error("reply {0}")]
    Refused(Reply),
    /// It demands authentication, which the CLS channel does not have.
    #[error("accepts no client without authentication (method {0:02x})")]
    Method(u8),
    /// It speaks something else.
    #[error("answers with version {0:02x} instead of 05; is this a SOCKS5 proxy?")]
    Version(u8),
    /// Its success names an address type that does not exist.
    #[error("its reply has the unknown address type {0:02x}")]
    AddressType(u8),
    /// It sent more than a method reply before it was asked for anything.
    #[error("sent {0} bytes more than a method reply before the request")]
    Early(usize),
}

/// A target that cannot be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a target name has 1 to 255 bytes, this one {0}")]
pub struct NameLength(usize);

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Feed more bytes.
    More,
    /// Send these bytes, then feed more.
    Send(Vec<u8>),
    /// The way is open.
    Open,
}

/// One CONNECT.
#[derive(Debug)]
pub struct Connect {
    request: Vec<u8>,
    expected: Expected,
}

/// The byte that comes next.
#[derive(Debug, Clone, Copy)]
enum Expected {
    MethodVersion,
    Method,
    ReplyVersion,
    Code,
    Reserved,
    AddressType,
    NameLength,
    /// This many bytes of BND.ADDR and BND.PORT, which nothing here needs.
    Skipped(usize),
    /// Nothing: the reply is whole.
    Application,
}

const PORT: usize = 2;

impl Connect {
    /// Prepares a CONNECT to a host, an address literal or a name that the proxy resolves. [`GREETING`] goes first.
    pub fn new(host: &str, port: u16) -> Result<Self, NameLength> {
        let mut request = vec![VERSION, CONNECT, 0];
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => {
                request.push(IPV4);
                request.extend(address.octets());
            }
            Ok(IpAddr::V6(address)) => {
                request.push(IPV6);
                request.extend(address.octets());
            }
            Err(_) => {
                let length =
                    u8::try_from(host.len()).ok().filter(|n| *n > 0).ok_or(NameLength(host.len()))?;
                request.extend([NAME, length]);
                request.extend(host.bytes());
            }
        }
        request.extend(port.to_be_bytes());
        Ok(Self { request, expected: Expected::MethodVersion })
    }

    /// Takes bytes of the proxy: how many were used, and what to do next. Stops behind each message, so what
    /// follows the last one stays with the caller.
    pub fn feed(&mut self, input: &[u8]) -> Result<(usize, Step), SocksError> {
        for (i, byte) in input.iter().enumerate() {
            self.expected = match (self.expected, *byte) {
                (Expected::MethodVersion, VERSION) => Expected::Method,
                (Expected::Method, NO_AUTHENTICATION) => {
                    self.expected = Expected::ReplyVersion;
                    return Ok((i + 1, Step::Send(std::mem::take(&mut self.request))));
                }
                (Expected::Method, other) => return Err(SocksError::Method(other)),
                (Expected::ReplyVersion, VERSION) => Expected::Code,
                (Expected::MethodVersion | Expected::ReplyVersion, other) => {
                    return Err(SocksError::Version(other));
                }
                (Expected::Code, 0) => Expected::Reserved,
                // The rest of a refusal tells nothing, and some proxies leave it out.
                (Expected::Code, code) => return Err(SocksError::Refused(Reply(code))),
                (Expected::Reserved, _) => Expected::AddressType,
                (Expected::AddressType, IPV4) => Expected::Skipped(4 + PORT),
                (Expected::AddressType, IPV6) => Expected::Skipped(16 + PORT),
                (Expected::AddressType, NAME) => Expected::NameLength,
                (Expected::AddressType, other) => return Err(SocksError::AddressType(other)),
                (Expected::NameLength, length) => Expected::Skipped(usize::from(length) + PORT),
                (Expected::Skipped(left), _) if left > 1 => Expected::Skipped(left - 1),
                (Expected::Skipped(_), _) => {
                    self.expected = Expected::Application;
                    return Ok((i + 1, Step::Open));
                }
                (Expected::Application, _) => return Ok((i, Step::Open)),
            };
        }
        Ok((
            input.len(),
            if matches!(self.expected, Expected::Application) { Step::Open } else { Step::More },
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds pieces as a client does; what is left behind the reply, and what was sent.
    fn run(host: &str, pieces: &[&[u8]]) -> Result<Option<Vec<u8>>, SocksError> {
        let mut connect = Connect::new(host, 9000).unwrap();
        let mut open = false;
        let mut rest = Vec::new();
        for piece in pieces {
            let mut piece = *piece;
            while !open && !piece.is_empty() {
                let (used, step) = connect.feed(piece)?;
                piece = &piece[used..];
                open = step == Step::Open;
            }
            rest.extend(piece);
        }
        Ok(open.then_some(rest))
    }

    fn refused(bytes: &[u8]) -> String {
        run("emt.example", &[bytes]).unwrap_err().to_string()
    }

    #[test]
    fn the_request_follows_the_method_reply() {
        let mut connect = Connect::new("emt.example", 9000).unwrap();
        assert_eq!(connect.feed(&[5]), Ok((1, Step::More)));
        let request = [&[5, 1, 0, 3, 11][..], b"emt.example", &[0x23, 0x28]].concat();
        assert_eq!(connect.feed(&[0]), Ok((1, Step::Send(request))));
    }

    #[test]
    fn literal_addresses_go_as_addresses() {
        let request = |host| match Connect::new(host, 443).unwrap().feed(&[5, 0]).unwrap() {
            (2, Step::Send(request)) => request,
            other => panic!("{other:?}"),
        };
        assert_eq!(request("192.0.2.7"), [5, 1, 0, 1, 192, 0, 2, 7, 1, 187]);
        assert_eq!(request("2001:db8::1")[..6], [5, 1, 0, 4, 0x20, 0x01]);
        assert_eq!(request("2001:db8::1").len(), 4 + 16 + 2);
    }

    #[test]
    fn names_beyond_the_format_are_refused() {
        assert!(Connect::new(&"a".repeat(255), 1).is_ok());
        assert_eq!(Connect::new(&"a".repeat(256), 1).unwrap_err(), NameLength(256));
        assert_eq!(Connect::new("", 1).unwrap_err(), NameLength(0));
    }

    #[test]
    fn each_address_type_ends_where_it_ends() {
        let v4 = [5, 0, 5, 0, 0, 1, 127, 0, 0, 1, 35, 40, b'H', b'i'];
        assert_eq!(run("e", &[&v4]), Ok(Some(b"Hi".to_vec())));
        let v6 = [&[5, 0, 5, 0, 0, 4][..], &[0; 18], b"Hi"].concat();
        assert_eq!(run("e", &[&v6]), Ok(Some(b"Hi".to_vec())));
        let name = [&[5, 0, 5, 0, 0, 3, 11][..], b"emt.example", &[35, 40], b"Hi"].concat();
        assert_eq!(run("e", &[&name]), Ok(Some(b"Hi".to_vec())));
        assert_eq!(run("e", &[&name[..name.len() - 3]]), Ok(None), "the port is not whole yet");
    }

    #[test]
    fn refusals_are_named() {
        assert_eq!(refused(&[5, 0, 5, 2, 0, 3, 11]), "reply 02 not allowed by ruleset");
        assert_eq!(refused(&[5, 0, 5, 5]), "reply 05 connection refused");
        assert_eq!(refused(&[5, 0, 5, 8]), "reply 08 address type not supported");
        assert_eq!(refused(&[5, 0, 5, 0x5b]), "reply 5b unassigned");
        assert_eq!(refused(&[5, 0xff]), "accepts no client without authentication (method ff)");
        assert!(refused(b"HTTP/1.1 400 Bad Request").starts_with("answers with version 48"));
        assert!(refused(&[5, 0, 4, 0x5a]).starts_with("answers with version 04"));
        assert!(
            refused(&[5, 0, 0, 0]).starts_with("answers with version 00"),
            "a method reply that is too long"
        );
        assert_eq!(refused(&[5, 0, 5, 0, 0, 2]), "its reply has the unknown address type 02");
    }

    /// Mostly right answers, so that cuts fall into every part of them.
    fn answer() -> impl Strategy<Value = Vec<u8>> {
        let address = prop_oneof![
            Just(vec![1, 10, 0, 0, 1]),
            Just([vec![4], vec![0; 16]].concat()),
            prop::collection::vec(any::<u8>(), 0..=255).prop_map(|name| [
                vec![3, u8::try_from(name.len()).unwrap()],
                name
            ]
            .concat()),
            any::<u8>().prop_map(|kind| vec![kind]),
        ];
        let code = prop_oneof![4 => Just(0_u8), 1 => any::<u8>()];
        let valid = (code, address, any::<[u8; 2]>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(
            |(code, address, port, tail)| [&[5, 0, 5, code, 0][..], &address, &port, &tail].concat(),
        );
        prop_oneof![3 => valid, 1 => prop::collection::vec(any::<u8>(), 0..300)]
    }

    proptest! {
        #[test]
        fn the_outcome_does_not_depend_on_the_cuts(bytes in answer(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            let whole = run("emt.example", &[&bytes]);
            prop_assert_eq!(&run("emt.example", &pieces), &whole);
            prop_assert_eq!(&run("emt.example", &single), &whole);
        }
    }
}

//! The opening handshake of a WebSocket (RFC 6455 §4), on both sides.
//!
//! In: a byte stream. Out: what the peer asked for, or a WebSocket. Invariant: an EVSE's request is answered only once
//! it is decided what becomes of it; a head is never longer than [`MAX_HEAD`]. Lenient where the field needs it
//! (rule G-3): no `Connection` header, paths with doubled slashes, backends that do not repeat the subprotocol.

use std::{fmt::Write as _, io};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    Version,
    access::{self, Shown},
    deflate::{self, Deflated},
};
use crate::smgw::BoxedIo;

/// Longest request or response head.
const MAX_HEAD: usize = 16 * 1024;
/// tungstenite's default of 128 KiB each would be most of what a connection costs.
const BUFFER: usize = 4 * 1024;

/// A WebSocket over anything.
pub(super) type Socket = WebSocketStream<BoxedIo>;

/// Why there is no WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The peer answered with this HTTP status.
    Status(u16),
    /// Anything else, in words.
    Broken(String),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(code) => write!(f, "the backend refuses the connection with HTTP {code}"),
            Self::Broken(why) => write!(f, "the backend's WebSocket cannot be opened: {why}"),
        }
    }
}

fn config(max_frame: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(Some(max_frame))
        .max_frame_size(Some(max_frame))
}

/// Reads up to the empty line; returns the head and what came behind it.
async fn head<S: AsyncRead + Unpin>(io: &mut S) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((bytes, rest));
        }
        if bytes.len() >= MAX_HEAD {
            return Err(Refusal::Broken(format!("its HTTP head is longer than {MAX_HEAD} bytes")));
        }
        if io.read_buf(&mut bytes).await? == 0 {
            return Err(Refusal::Broken("it closed the connection before its HTTP head was complete".into()));
        }
    }
}

fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok().map(str::trim)
}

/// An EVSE's request that waits for its answer.
pub(super) struct Request {
    io: BoxedIo,
    rest: Vec<u8>,
    /// As it came, with the empty line.
    head: Vec<u8>,
    key: String,
    /// The extensions on offer.
    extensions: Option<String>,
    /// What it shows of itself.
    pub(super) shown: Shown,
    /// As requested.
    pub(super) path: String,
    /// Subprotocols on offer; `None` without the header.
    pub(super) protocols: Option<Vec<String>>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("path", &self.path)
            .field("protocols", &self.protocols)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Reads a request. What is no upgrade is answered with 400 and reported.
    /// `tls` and `names` are what was shown before.
    pub(super) async fn read(
        mut io: BoxedIo,
        tls: bool,
        names: Option<Vec<String>>,
    ) -> Result<Self, Refusal> {
        let (bytes, rest) = head(&mut io).await?;
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        let complete = matches!(parsed.parse(&bytes), Ok(httparse::Status::Complete(_)));
        let key = complete
            .then(|| header(parsed.headers, "sec-websocket-key"))
            .flatten()
            .unwrap_or_default()
            .to_owned();
        let protocols = header(parsed.headers, "sec-websocket-protocol")
            .map(|list| list.split(',').map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect());
        let path = parsed.path.unwrap_or_default().to_owned();
        let extensions = header(parsed.headers, "sec-websocket-extensions").map(str::to_owned);
        let basic = header(parsed.headers, "authorization").and_then(access::unbasic);
        let shown = Shown { tls, names, basic };
        let request = Self { io, rest, head: bytes, key, extensions, shown, path, protocols };
        if request.key.is_empty() {
            request.refuse(400).await;
            return Err(Refusal::Broken("the request is no WebSocket upgrade".into()));
        }
        Ok(request)
    }

    /// The identity: the last segment of the path, percent-decoded (OCPP-J 1.6 §3.1.1).
    pub(super) fn identity(&self) -> Option<String> {
        let path = self.path.split(['?', '#']).next()?;
        decode(path.split('/').rfind(|segment| !segment.is_empty())?)
    }

    /// The versions on offer, in the EVSE's order, of those that are `allowed`; without the header the `assumed` one.
    pub(super) fn versions(&self, allowed: &[Version], assumed: Version) -> Vec<Version> {
        let Some(offered) = &self.protocols else {
            return vec![assumed];
        };
        offered.iter().filter_map(|p| Version::of(p)).filter(|v| allowed.contains(v)).collect()
    }

    /// Opens the WebSocket. The version is told if the EVSE asked.
    pub(super) async fn accept(
        mut self,
        version: Version,
        max_frame: usize,
        compression: bool,
    ) -> io::Result<Socket> {
        let compressed = compression && self.extensions.as_deref().is_some_and(deflate::acceptable);
        let extension = if compressed {
            format!("Sec-WebSocket-Extensions: {}\r\n", deflate::OFFER)
        } else {
            String::new()
        };
        let accept = derive_accept_key(self.key.as_bytes());
        let chosen = self.protocols.as_ref().map(|_| version.subprotocol());
        let protocol = chosen.map(|p| format!("Sec-WebSocket-Protocol: {p}\r\n")).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{protocol}{extension}\r\n"
        );
        self.io.write_all(head.as_bytes()).await?;
        self.io.flush().await?;
        Ok(socket(self.io, self.rest, Role::Server, max_frame, compressed).await)
    }

    /// The stream, and the request as another place shall see it, with what came behind it.
    pub(super) fn forwarded(self, path: &str, host: &str) -> (BoxedIo, Vec<u8>) {
        let text = String::from_utf8_lossy(&self.head);
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n");
        for line in text.lines().skip(1).filter(|l| !l.is_empty()) {
            let name = line.split(':').next().unwrap_or_default();
            if !name.trim().eq_ignore_ascii_case("host") {
                head.push_str(line);
                head.push_str("\r\n");
            }
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(self.rest);
        (self.io, bytes)
    }

    /// Answers with an HTTP status and closes.
    pub(super) async fn refuse(mut self, status: u16) {
        let reason =
            http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Refused");
        let challenge = if status == 401 { "WWW-Authenticate: Basic realm=\"ocpp\"\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\n{challenge}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        // The peer may be gone already; there is nobody left to tell.
        let _ = self.io.write_all(head.as_bytes()).await;
        let _ = self.io.shutdown().await;
    }
}

/// A WebSocket over a stream whose handshake is done.
async fn socket(io: BoxedIo, rest: Vec<u8>, role: Role, max_frame: usize, compressed: bool) -> Socket {
    let config = Some(config(max_frame));
    if compressed {
        let io: BoxedIo = Box::new(Deflated::new(io, rest, max_frame));
        return WebSocketStream::from_raw_socket(io, role, config).await;
    }
    WebSocketStream::from_partially_read(io, rest, role, config).await
}

/// What a client asks for.
pub(super) struct Offer<'a> {
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) versions: &'a [Version],
    /// The header's value.
    pub(super) authorization: Option<String>,
    /// Whether to ask for permessage-deflate.
    pub(super) compression: bool,
}

/// Opens a WebSocket as a client.
pub(super) async fn connect(
    mut io: BoxedIo,
    offer: &Offer<'_>,
    max_frame: usize,
) -> Result<(Socket, Version), Refusal> {
    let Offer { host, path, versions, .. } = offer;
    let key = generate_key();
    let protocols = versions.iter().map(|v| v.subprotocol()).collect::<Vec<_>>().join(", ");
    let mut more = String::new();
    if let Some(authorization) = &offer.authorization {
        let _ = write!(more, "Authorization: {authorization}\r\n");
    }
    if offer.compression {
        let _ = write!(more, "Sec-WebSocket-Extensions: {}\r\n", deflate::OFFER);
    }
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {protocols}\r\n{more}\r\n"
    );
    io.write_all(request.as_bytes()).await?;
    io.flush().await?;
    let (bytes, rest) = head(&mut io).await?;
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let code = match response.parse(&bytes) {
        Ok(httparse::Status::Complete(_)) => response.code.unwrap_or_default(),
        _ => return Err(Refusal::Broken("its answer is not HTTP".into())),
    };
    if code != 101 {
        return Err(Refusal::Status(code));
    }
    if header(response.headers, "sec-websocket-accept") != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(Refusal::Broken("its Sec-WebSocket-Accept does not fit".into()));
    }
    let version = chosen(header(response.headers, "sec-websocket-protocol"), versions, &protocols)?;
    let extension = header(response.headers, "sec-websocket-extensions");
    let compressed = match deflate::agreed(extension) {
        Ok(compressed) if offer.compression || !compressed => compressed,
        Ok(_) => return Err(Refusal::Broken("it compresses although nobody asked".into())),
        Err(why) => return Err(Refusal::Broken(why)),
    };
    Ok((socket(io, rest, Role::Client, max_frame, compressed).await, version))
}

/// What the backend chose. One that chooses nothing is from the time when there was 1.6 alone.
fn chosen(answer: Option<&str>, versions: &[Version], offer: &str) -> Result<Version, Refusal> {
    let Some(answer) = answer else {
        let oldest = versions.iter().min().copied();
        return oldest.ok_or_else(|| Refusal::Broken("no version is left to offer".into()));
    };
    let chosen = Version::of(answer).filter(|v| versions.contains(v));
    chosen.ok_or_else(|| Refusal::Broken(format!("it chose the subprotocol {answer:?}; {offer} was offered")))
}

fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

/// A segment of a path (RFC 3986 §3.3).
pub(super) fn encode(segment: &str) -> String {
    let mut text = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~*@=".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
            text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn request(text: &'static str) -> Result<Request, Refusal> {
        let (mut peer, io) = tokio::io::duplex(64 * 1024);
        peer.write_all(text.as_bytes()).await.unwrap();
        Request::read(Box::new(io), false, None).await
    }

    #[tokio::test]
    async fn odd_requests_are_understood() {
        for (text, identity) in [
            ("GET /ocpp/CP1 HTTP/1.1\r\nhost: x\r\nsec-websocket-key: k\r\n\r\n", Some("CP1")),
            (
                "GET //a//b//CP%7C1/ HTTP/1.1\r\nSEC-WEBSOCKET-KEY: k\r\nConnection: close\r\n\r\n",
                Some("CP|1"),
            ),
            ("GET /CP16_SP1?x=/y HTTP/1.1\r\nSec-WebSocket-Key: k\r\n\r\n", Some("CP16_SP1")),
            ("GET / HTTP/1.1\r\nSec-WebSocket-Key: k\r\n\r\n", None),
            ("GET /%zz HTTP/1.1\r\nSec-WebSocket-Key: k\r\n\r\n", None),
            ("GET /%f HTTP/1.1\r\nSec-WebSocket-Key: k\r\n\r\n", None),
            ("GET /%ff HTTP/1.1\r\nSec-WebSocket-Key: k\r\n\r\n", None),
        ] {
            assert_eq!(request(text).await.unwrap().identity().as_deref(), identity, "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_no_upgrade_is_refused() {
        for text in ["GET /CP1 HTTP/1.1\r\n\r\n", "hello\r\n\r\n", "\u{16}\u{3}\u{1}\r\n\r\n"] {
            assert!(request(text).await.is_err(), "{text:?}");
        }
        let long = format!("GET /CP1 HTTP/1.1\r\nX: {}", "x".repeat(20_000));
        assert!(request(Box::leak(long.into_boxed_str())).await.is_err());
    }

    #[test]
    fn identities_survive_the_path() {
        for identity in ["CP1", "DE*ABC*E1", "a|b", "x@y=z", "ä b/c"] {
            assert_eq!(decode(&encode(identity)).as_deref(), Some(identity));
        }
        assert_eq!(encode("a|b c"), "a%7Cb%20c");
    }
}

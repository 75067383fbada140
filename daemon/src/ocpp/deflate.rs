//! permessage-deflate (RFC 7692) as a layer of bytes: below it frames are compressed, above it they are not.
//!
//! In: the stream of an open WebSocket. Out: the same stream without compression. Invariant: what is compressed leaves
//! here as one whole frame; everything else passes as it is, and is judged above. No context is carried from message to
//! message in either direction: both sides agreed on that, so that an idle connection costs nothing.
//!
//! ```text
//!   io ⇄ [collect, inflate │ deflate] ⇄ tungstenite, which knows nothing of it
//! ```

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::smgw::BoxedIo;

/// What we offer as a client.
pub(super) const OFFER: &str = "permessage-deflate; client_no_context_takeover; server_no_context_takeover";
/// Shorter messages are not worth it.
const LEAST: usize = 64;
/// What may wait for the peer before more is taken.
const BACKLOG: usize = 64 * 1024;
/// What a sync flush ends in, and what is left away on the wire (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const MASK: u8 = 0x80;

/// Whether an offer of a client can be taken up; the answer is then [`OFFER`] again. One that wants a smaller window of
/// us is passed over: ours is always the largest.
pub(super) fn acceptable(header: &str) -> bool {
    header.split(',').any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        parts.next() == Some("permessage-deflate")
            && parts.all(|p| {
                let name = p.split('=').next().unwrap_or_default().trim();
                matches!(
                    name,
                    "client_no_context_takeover" | "server_no_context_takeover" | "client_max_window_bits"
                )
            })
    })
}

/// What a server answered to [`OFFER`]: `Ok(true)` if it compresses, an error if it wants what was not offered.
pub(super) fn agreed(header: Option<&str>) -> Result<bool, String> {
    let Some(answer) = header else { return Ok(false) };
    let mut parts = answer.split(';').map(str::trim);
    let known = parts.next() == Some("permessage-deflate");
    let rest: Vec<_> = parts.collect();
    let fits = known
        && rest.contains(&"server_no_context_takeover")
        && rest.iter().all(|p| {
            let name = p.split('=').next().unwrap_or_default().trim();
            matches!(
                name,
                "client_no_context_takeover" | "server_no_context_takeover" | "server_max_window_bits"
            )
        });
    if fits { Ok(true) } else { Err(format!("it chose the extension {answer:?}, which was not offered so")) }
}

/// The layer.
pub(super) struct Deflated {
    io: BoxedIo,
    max_frame: usize,
    /// Read, not looked at yet.
    raw: Vec<u8>,
    /// For the reader above.
    plain: Vec<u8>,
    taken: usize,
    /// The compressed message that is being collected: its first byte and its payload.
    message: Option<(u8, Vec<u8>)>,
    /// From here on everything passes: it will be refused above.
    given_up: bool,
    /// From above, not a whole frame yet.
    own: Vec<u8>,
    /// For the peer.
    out: Vec<u8>,
}

/// A frame's head: length of the head, length of the payload, masking key.
fn head(bytes: &[u8]) -> Option<(usize, u64, Option<[u8; 4]>)> {
    let (first, second) = (bytes.first()?, bytes.get(1)?);
    let _ = first;
    let (mut at, length) = match second & !MASK {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    let key = if second & MASK != 0 {
        let key = bytes.get(at..at + 4)?.try_into().ok()?;
        at += 4;
        Some(key)
    } else {
        None
    };
    Some((at, length, key))
}

fn masked(payload: &mut [u8], key: Option<[u8; 4]>) {
    if let Some(key) = key {
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, k)| *byte ^= k);
    }
}

fn put_head(to: &mut Vec<u8>, first: u8, length: u64, key: Option<[u8; 4]>) {
    let mask = if key.is_some() { MASK } else { 0 };
    to.push(first);
    #[expect(clippy::cast_possible_truncation, reason = "compared before")]
    match length {
        0..=125 => to.push(mask | length as u8),
        126..=0xffff => {
            to.push(mask | 0x7e);
            to.extend((length as u16).to_be_bytes());
        }
        _ => {
            to.push(mask | 0x7f);
            to.extend(length.to_be_bytes());
        }
    }
    to.extend(key.into_iter().flatten());
}

/// At most `most` bytes and one more, which tells that it was too much; `None` if it is no deflate stream.
pub(super) fn inflate(mut bytes: Vec<u8>, most: usize) -> Option<Vec<u8>> {
    bytes.extend(TAIL);
    let mut inflater = Decompress::new(false);
    let mut out = Vec::with_capacity(bytes.len().saturating_mul(3).clamp(256, most + 1));
    loop {
        let taken = usize::try_from(inflater.total_in()).ok()?;
        let before = (taken, out.len());
        let status = inflater.decompress_vec(bytes.get(taken..)?, &mut out, FlushDecompress::Sync).ok()?;
        let done = usize::try_from(inflater.total_in()).ok()? >= bytes.len();
        if out.len() > most || status == Status::StreamEnd || done && out.len() < out.capacity() {
            return Some(out);
        }
        if out.len() == out.capacity() {
            out.reserve((out.len()).min(most + 1 - out.len()).max(1));
        } else if before == (usize::try_from(inflater.total_in()).ok()?, out.len()) {
            return None;
        }
    }
}

fn deflate(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut deflater = Compress::new(Compression::fast(), false);
    let mut out = Vec::with_capacity(bytes.len() / 2 + 64);
    loop {
        let taken = usize::try_from(deflater.total_in()).ok()?;
        deflater.compress_vec(bytes.get(taken..)?, &mut out, FlushCompress::Sync).ok()?;
        if usize::try_from(deflater.total_in()).ok()? >= bytes.len() && out.len() < out.capacity() {
            break;
        }
        out.reserve(out.len().max(64));
    }
    out.ends_with(&TAIL).then(|| out.truncate(out.len() - TAIL.len()))?;
    Some(out)
}

impl Deflated {
    /// Around a stream whose handshake is done; `rest` came behind the handshake.
    pub(super) fn new(io: BoxedIo, rest: Vec<u8>, max_frame: usize) -> Self {
        let mut layer = Self {
            io,
            max_frame,
            raw: rest,
            plain: Vec::new(),
            taken: 0,
            message: None,
            given_up: false,
            own: Vec::new(),
            out: Vec::new(),
        };
        layer.look();
        layer
    }

    /// Moves whole frames from what was read to what can be read above.
    fn look(&mut self) {
        let mut at = 0;
        while !self.given_up {
            let rest = &self.raw[at..];
            let Some((head, length, key)) = head(rest) else { break };
            let first = rest[0];
            let data = first & 0x0f <= 2;
            let collects = data && (self.message.is_some() || first & RSV1 != 0);
            if length > self.max_frame as u64 || first & 0x08 != 0 && first & RSV1 != 0 {
                self.given_up = true;
                break;
            }
            let Some(end) = usize::try_from(length).ok().map(|l| head + l).filter(|end| *end <= rest.len())
            else {
                break;
            };
            if !collects {
                self.plain.extend(&rest[..end]);
                at += end;
                continue;
            }
            let begins = first & 0x0f != 0;
            if begins == self.message.is_some() || !begins && first & RSV1 != 0 {
                self.given_up = true;
                break;
            }
            let mut payload = rest[head..end].to_vec();
            masked(&mut payload, key);
            at += end;
            let (opcode, mut message) = self.message.take().unwrap_or((first & 0x0f, Vec::new()));
            message.append(&mut payload);
            if message.len() > self.max_frame {
                // Above, a frame of that length is too large.
                put_head(&mut self.plain, FIN | opcode, message.len() as u64, key.map(|_| [0; 4]));
                self.given_up = true;
            } else if first & FIN == 0 {
                self.message = Some((opcode, message));
            } else if let Some(text) = inflate(message, self.max_frame) {
                put_head(&mut self.plain, FIN | opcode, text.len() as u64, key.map(|_| [0; 4]));
                self.plain.extend(text);
            } else {
                // Above, RSV1 is an error of the protocol.
                put_head(&mut self.plain, FIN | RSV1 | opcode, 0, key.map(|_| [0; 4]));
                self.given_up = true;
            }
        }
        self.raw.drain(..at);
        if self.given_up {
            self.plain.append(&mut self.raw);
        }
    }

    /// Moves whole frames from above to what goes to the peer.
    fn pack(&mut self) {
        let mut at = 0;
        loop {
            let rest = &self.own[at..];
            let Some((head, length, key)) = head(rest) else { break };
            let Some(end) = usize::try_from(length).ok().map(|l| head + l).filter(|end| *end <= rest.len())
            else {
                break;
            };
            let first = rest[0];
            let whole = first & FIN != 0 && matches!(first & 0x0f, 1 | 2) && end - head >= LEAST;
            let smaller = whole.then(|| {
                let mut payload = rest[head..end].to_vec();
                masked(&mut payload, key);
                deflate(&payload).filter(|packed| packed.len() < payload.len())
            });
            if let Some(mut packed) = smaller.flatten() {
                masked(&mut packed, key);
                put_head(&mut self.out, first | RSV1, packed.len() as u64, key);
                self.out.extend(packed);
            } else {
                self.out.extend(&rest[..end]);
            }
            at += end;
        }
        self.own.drain(..at);
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.drain(..n);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Deflated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let waiting = self.plain.len() - self.taken;
            if waiting > 0 {
                let n = waiting.min(buf.remaining());
                buf.put_slice(&self.plain[self.taken..self.taken + n]);
                self.taken += n;
                if self.taken == self.plain.len() {
                    self.plain.clear();
                    self.taken = 0;
                }
                return Poll::Ready(Ok(()));
            }
            let mut chunk = [0; 4096];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.raw.extend(read.filled());
            self.look();
        }
    }
}

impl AsyncWrite for Deflated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.out.len() >= BACKLOG {
            ready!(self.poll_out(cx))?;
        }
        self.own.extend(buf);
        self.pack();
        // What the peer does not take now goes with the flush.
        if let Poll::Ready(Err(error)) = self.poll_out(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::{
        WebSocketStream,
        tungstenite::{Message, protocol::Role},
    };

    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        for text in ["", "a", &"x".repeat(100_000), r#"[2,"1","Heartbeat",{}]"#] {
            let packed = deflate(text.as_bytes()).unwrap();
            assert_eq!(inflate(packed, 200_000).unwrap(), text.as_bytes());
        }
        let bomb = deflate(&vec![0; 10_000_000]).unwrap();
        assert!(bomb.len() < 100_000);
        let out = inflate(bomb, 65_536).unwrap();
        assert!(
            out.len() > 65_536 && out.capacity() < 300_000,
            "it stops behind the limit: {}",
            out.capacity()
        );
        assert_eq!(inflate(vec![0xff; 20], 1000), None);
    }

    #[test]
    fn offers_and_answers() {
        assert!(acceptable("permessage-deflate; client_max_window_bits"));
        assert!(acceptable("x-webkit, permessage-deflate"));
        assert!(!acceptable("permessage-deflate; server_max_window_bits=10"));
        assert!(!acceptable("permessage-bzip2"));
        assert_eq!(agreed(None), Ok(false));
        assert_eq!(agreed(Some(OFFER)), Ok(true));
        assert!(agreed(Some("permessage-deflate")).is_err(), "it would carry its context on");
        assert!(
            agreed(Some("permessage-deflate; server_no_context_takeover; client_max_window_bits=9")).is_err()
        );
    }

    async fn pair() -> (WebSocketStream<Deflated>, WebSocketStream<Deflated>) {
        let (a, b) = tokio::io::duplex(1000);
        let layer = |io| Deflated::new(Box::new(io), Vec::new(), 1 << 20);
        (
            WebSocketStream::from_raw_socket(layer(a), Role::Client, None).await,
            WebSocketStream::from_raw_socket(layer(b), Role::Server, None).await,
        )
    }

    #[tokio::test]
    async fn messages_pass_both_ways() {
        let (mut client, mut server) = pair().await;
        for text in ["short", &"a long one ".repeat(1000), &"é✓".repeat(500)] {
            let (sent, heard) = tokio::join!(client.send(Message::text(text.to_owned())), server.next());
            sent.unwrap();
            assert_eq!(heard.unwrap().unwrap(), Message::text(text.to_owned()));
            let (sent, heard) = tokio::join!(server.send(Message::text(text.to_owned())), client.next());
            sent.unwrap();
            assert_eq!(heard.unwrap().unwrap(), Message::text(text.to_owned()));
        }
        let (sent, heard) = tokio::join!(client.send(Message::Ping(vec![1].into())), server.next());
        sent.unwrap();
        assert_eq!(heard.unwrap().unwrap(), Message::Ping(vec![1].into()));
    }

    #[tokio::test]
    async fn rubbish_is_refused_above() {
        for bytes in [
            vec![FIN | RSV1 | 1, 4, 0xff, 0xff, 0xff, 0xff],
            vec![FIN | RSV1 | 9, 0],
            vec![RSV1 | 1, 1, 0, FIN | RSV1, 1, 0],
            vec![FIN | RSV1 | 1, 127, 0, 0, 0, 0, 0xff, 0, 0, 0],
        ] {
            let (mut peer, io) = tokio::io::duplex(1000);
            let layer = Deflated::new(Box::new(io), Vec::new(), 1 << 20);
            let mut socket = WebSocketStream::from_raw_socket(layer, Role::Client, None).await;
            tokio::io::AsyncWriteExt::write_all(&mut peer, &bytes).await.unwrap();
            drop(peer);
            assert!(socket.next().await.unwrap().is_err(), "{bytes:?}");
        }
    }
}

//! The stream under a session whose ClientHello leaves the SCSV out.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::without;

/// Type, version and length of a record.
const HEAD: usize = 5;

/// Longest record that rustls writes in the clear.
const LONGEST: usize = HEAD + (1 << 14);

/// Changes the first record that is written, nothing that follows and nothing that is read.
#[derive(Debug)]
pub struct Line<S> {
    inner: S,
    first: First,
}

#[derive(Debug)]
enum First {
    /// Off: everything passes.
    Passed,
    /// Not whole yet.
    Gathered(Vec<u8>),
    /// Whole and changed, written up to here.
    Leaving(Vec<u8>, usize),
}

impl<S> Line<S> {
    /// Passes everything as it is.
    pub fn through(inner: S) -> Self {
        Self { inner, first: First::Passed }
    }

    /// Leaves the SCSV out of the ClientHello.
    pub fn shorter(inner: S) -> Self {
        Self { inner, first: First::Gathered(Vec::new()) }
    }

    /// What is under it.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

/// Takes bytes for the first record until it is whole: how many of `bytes` belong to it, and whether it is.
fn gather(record: &mut Vec<u8>, bytes: &[u8]) -> (usize, bool) {
    let wanted = |record: &[u8]| match *record {
        [_, _, _, a, b, ..] => (HEAD + usize::from(u16::from_be_bytes([a, b]))).min(LONGEST),
        _ => HEAD,
    };
    let mut taken = 0;
    loop {
        let missing = wanted(record) - record.len();
        if missing == 0 {
            return (taken, true);
        }
        let piece = &bytes[taken..(taken + missing).min(bytes.len())];
        if piece.is_empty() {
            return (taken, false);
        }
        record.extend_from_slice(piece);
        taken += piece.len();
    }
}

/// The record with a ClientHello without the SCSV; any other as it is.
fn changed(record: Vec<u8>) -> Vec<u8> {
    let shorter = match record.first() {
        Some(22) => record.get(HEAD..).and_then(without),
        _ => None,
    };
    match shorter {
        Some(shorter) => {
            // It is shorter than what had a length of two bytes.
            let length = u16::try_from(shorter.len()).unwrap_or(u16::MAX).to_be_bytes();
            [&record[..3], &length, &shorter].concat()
        }
        None => record,
    }
}

impl<S: AsyncWrite + Unpin> Line<S> {
    /// Writes what is left of the first record.
    fn leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let First::Leaving(record, at) = &mut self.first {
            if *at == record.len() {
                self.first = First::Passed;
                break;
            }
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &record[*at..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *at += n;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.leave(cx))?;
        let First::Gathered(record) = &mut self.first else {
            return Pin::new(&mut self.inner).poll_write(cx, buf);
        };
        let (taken, whole) = gather(record, buf);
        if whole {
            self.first = First::Leaving(changed(std::mem::take(record)), 0);
            // These bytes are taken, whether the line takes more now or when it is flushed.
            if let Poll::Ready(Err(error)) = self.leave(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if matches!(self.first, First::Passed) {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &**buf);
        self.poll_write(cx, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.leave(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.leave(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// For the fuzzer: what a line that writes these pieces puts out.
#[doc(hidden)]
#[must_use]
pub fn written(pieces: &[&[u8]]) -> Vec<u8> {
    let mut line = Line::shorter(Vec::new());
    let mut cx = Context::from_waker(std::task::Waker::noop());
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            match Pin::new(&mut line).poll_write(&mut cx, rest) {
                Poll::Ready(Ok(n)) => rest = &rest[n..],
                // A vector takes everything at once.
                _ => break,
            }
        }
    }
    let _ = Pin::new(&mut line).poll_flush(&mut cx);
    line.inner
}

#[cfg(test)]
mod tests {
    use super::{super::tests::hello, *};

    fn record(handshake: &[u8]) -> Vec<u8> {
        let length = u16::try_from(handshake.len()).unwrap().to_be_bytes();
        [&[22, 3, 1], &length[..], handshake].concat()
    }

    #[test]
    fn only_the_first_record_is_changed_however_it_is_cut() {
        let hello = hello(&[[0xc0, 0x2b], [0x00, 0xff]]);
        let sent = [record(&hello), record(&hello), b"application".to_vec()].concat();
        let expected = [record(&without(&hello).unwrap()), record(&hello), b"application".to_vec()].concat();
        for size in [1, 2, 5, 6, 50, sent.len()] {
            let pieces: Vec<_> = sent.chunks(size).collect();
            assert_eq!(written(&pieces), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_client_hello_passes() {
        let alert = [21, 3, 3, 0, 2, 2, 47];
        assert_eq!(written(&[&alert, b"more"]), [&alert[..], b"more"].concat());
        let other = record(&hello(&[[0xc0, 0x2b]]));
        assert_eq!(written(&[&other]), other);
        // A record longer than any: what is gathered is bounded and let go.
        let long = [&[22, 3, 1, 0xff, 0xff][..], &vec![7; 70_000]].concat();
        assert_eq!(written(&[&long]), long);
    }

    #[tokio::test]
    async fn a_line_that_takes_a_byte_at_a_time_gets_everything() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let hello = record(&hello(&[[0x00, 0xff], [0xc0, 0x2c]]));
        let (near, mut far) = tokio::io::duplex(1);
        let sending = async move {
            let mut line = Line::shorter(near);
            line.write_all(&hello).await.unwrap();
            line.write_all(b"then").await.unwrap();
            line.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (read, ()) = tokio::join!(far.read_to_end(&mut got), sending);
        read.unwrap();
        assert!(got.ends_with(b"then"));
        assert!(!got.windows(2).any(|two| two == [0x00, 0xff]));
    }
}

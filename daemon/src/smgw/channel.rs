//! A connection to a target behind the uplink.
//!
//! Invariant: the first application byte decides its attempt as a success, an end before as a failure; from the
//! first byte to its drop it is counted in the status. It ends with its session's life.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    attempt::{Attempt, Open},
    dial::{BoxedIo, Io},
    life::End,
    step::{Cause, Failure, Step},
};
use crate::time::Mono;

/// See the module.
#[must_use]
pub struct Channel {
    io: BoxedIo,
    attempt: Option<Attempt>,
    open: Option<Open>,
    /// The right to the one connection of its target, if there is but one.
    slot: Option<OwnedSemaphorePermit>,
    end: End,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("confirmed", &self.open.is_some()).finish_non_exhaustive()
    }
}

impl Channel {
    pub(super) fn new(io: impl Io + 'static, mut attempt: Attempt, now: Mono) -> Self {
        attempt.connected();
        let end = attempt.life.clone().end(now);
        Self { io: Box::new(io), attempt: Some(attempt), open: None, slot: None, end }
    }

    /// A connection that the gateway opened: nothing was attempted.
    pub(super) fn accepted(io: impl Io + 'static, open: Open, end: End) -> Self {
        Self { io: Box::new(io), attempt: None, open: Some(open), slot: None, end }
    }

    /// Whether the peer is still there, as far as can be said without waiting. What it sent is kept for the reader.
    pub(super) fn still_stands(&mut self) -> bool {
        let mut early = [0; 256];
        let mut buf = ReadBuf::new(&mut early);
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut *self).poll_read(&mut cx, &mut buf) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                let io = std::mem::replace(&mut self.io, Box::new(tokio::io::empty()));
                self.io = Box::new(Preceded::new(buf.filled().to_vec(), io));
                true
            }
            Poll::Ready(_) => false,
        }
    }

    /// The connection ended before its first byte: the attempt failed.
    fn ended(&mut self, reason: Option<&io::Error>) -> io::Error {
        let Some(attempt) = self.attempt.take() else {
            return io::ErrorKind::UnexpectedEof.into();
        };
        let failure = match reason {
            Some(error) => {
                let before = format!("{}, before its first byte", attempt.reached());
                Failure::of_stream(Step::Target, &before, error)
            }
            None => {
                let text = format!("{}, then it closed before its first byte", attempt.reached());
                Failure::new(Step::Target, Cause::Closed, text)
            }
        };
        let kind = reason.map_or(io::ErrorKind::UnexpectedEof, io::Error::kind);
        io::Error::new(kind, attempt.fail(failure))
    }

    /// Over: what stands is counted no longer.
    fn over(&mut self, reason: io::Error) -> io::Error {
        self.attempt = None;
        self.open = None;
        self.slot = None;
        reason
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(reason) = self.end.poll(cx) {
            return Poll::Ready(Err(self.over(reason)));
        }
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        if let Some(open) = &self.open {
            return Poll::Ready(result.map_err(|error| open.broken(&error)));
        }
        if self.attempt.is_none() || buf.capacity() == before {
            return Poll::Ready(result);
        }
        Poll::Ready(match result {
            Ok(()) if buf.filled().len() > before => {
                if let Some((open, slot)) = self.attempt.take().map(Attempt::succeed) {
                    self.open = Some(open);
                    self.slot = slot;
                }
                Ok(())
            }
            Ok(()) => Err(self.ended(None)),
            Err(error) => Err(self.ended(Some(&error))),
        })
    }
}

impl AsyncWrite for Channel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(reason) = self.end.poll(cx) {
            return Poll::Ready(Err(self.over(reason)));
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(reason) = self.end.poll(cx) {
            return Poll::Ready(Err(self.over(reason)));
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A stream of which some bytes have been read already.
pub(super) struct Preceded<S> {
    rest: Vec<u8>,
    at: usize,
    io: S,
}

impl<S> Preceded<S> {
    pub(super) fn new(rest: Vec<u8>, io: S) -> Self {
        Self { rest, at: 0, io }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Preceded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at < self.rest.len() {
            let n = buf.remaining().min(self.rest.len() - self.at);
            buf.put_slice(&self.rest[self.at..self.at + n]);
            self.at += n;
            if self.at == self.rest.len() {
                self.rest = Vec::new();
                self.at = 0;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Preceded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

//! The seam between the uplink and what runs inside it.

use std::{future::Future, pin::Pin, time::Duration};

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to a target behind the uplink, TLS inside included.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// An owned [`Io`].
pub type BoxedIo = Box<dyn Io>;

/// Why there is no stream.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    /// The way failed at a step; a later attempt may succeed. The text names the step and the reason.
    #[error("{0}")]
    Failed(String),
    /// The configuration cannot work; trying again is useless until it changes.
    #[error("{0}")]
    Hopeless(String),
}

/// When a stream is to be replaced. A gateway cuts every session at 48 h (TR-03116-3); who replaces it before does
/// so at a moment of its own choice. A stream that is not replaced ends a little later by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// Time from the dial; differs from stream to stream, so that they are not all replaced at once.
    pub after: Duration,
    /// Whether the new stream can be opened while the old one stands (make before break).
    pub overlap: bool,
}

/// Something that opens streams to one target.
pub trait Dial: Send + Sync + 'static {
    /// Waits for its turn (backoff and rate are kept inside), makes one attempt, returns its outcome. Cancel safe.
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<BoxedIo, DialError>> + Send + '_>>;

    /// Whether an attempt would be made now: no backoff runs.
    fn ready(&self) -> bool;

    /// When a stream that is dialed now is to be replaced; `None` if it may stay.
    fn renewal(&self) -> Option<Renewal> {
        None
    }
}

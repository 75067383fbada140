//! The seam between the uplink and what runs inside it.

use std::{future::Future, pin::Pin};

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

/// Something that opens streams to one target.
pub trait Dial: Send + Sync + 'static {
    /// Waits for its turn (backoff and rate are kept inside), makes one attempt, returns its outcome. Cancel safe.
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<BoxedIo, DialError>> + Send + '_>>;

    /// Whether an attempt would be made now: no backoff runs.
    fn ready(&self) -> bool;
}

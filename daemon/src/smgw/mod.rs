//! The uplink: the transparent CLS channel through the Smart Meter Gateway (BSI TR-03109-1, HAF3).
//!
//! In: a target (host and port as the gateway's proxy shall resolve it). Out: a byte stream to it, and what can be
//! shown of the way. Invariants: one gate holds all attempts of an uplink back to what a gateway bears; the status
//! tells the last attempt's truth.
//!
//! ```text
//! gate (may we?) → link: resolve → TCP → TLS → SOCKS5 → Channel → (backend: TLS inside) → application
//! ```

mod attempt;
mod backend;
mod channel;
mod dial;
mod gate;
mod link;
mod socks;
mod status;
mod tcp;

#[cfg(test)]
mod peers;
#[cfg(test)]
mod tests;

pub(crate) use self::tcp::io_reason;
pub use self::{
    backend::BackendDialer,
    channel::Channel,
    dial::{BoxedIo, Dial, DialError, Io},
    link::{SetupError, Uplink},
    socks::{Connect, GREETING, NameLength, Reply, SocksError, Step},
    status::{CertificateStatus, State, Status},
};

//! The uplink: the transparent CLS channel through the Smart Meter Gateway (BSI TR-03109-1, HAF3).
//!
//! In: a target (host and port as the gateway's proxy shall resolve it). Out: a byte stream to it, and what can be
//! shown of the way. Invariants: one gate holds all attempts of an uplink back to what a gateway bears; the status
//! tells the last attempt's truth.
//!
//! ```text
//! gate (may we?) → link: ground → address → TCP → TLS → proxy → Channel → (backend: TLS inside) → application
//! ```
//!
//! * `link` is the uplink itself, `target` somebody behind it; `gate` and `attempt` hold attempts back and count them.
//! * `gateway` makes the steps we make, `listen` serves a gateway that connects to us.
//! * `han` judges the ground, `netlink` tells of its changes, `life` ends sessions in time.
//! * `probe` walks the way once and says what to do next.

mod attempt;
mod backend;
mod channel;
mod dial;
mod gate;
mod gateway;
mod han;
mod life;
mod line;
mod link;
mod listen;
mod mdns;
mod netlink;
mod probe;
mod socks;
mod status;
mod step;
mod target;
mod tcp;

#[cfg(test)]
mod peers;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_han;
#[cfg(test)]
mod tests_listen;
#[cfg(test)]
mod tests_probe;
#[cfg(test)]
mod tests_scsv;
#[cfg(test)]
mod tests_targets;

#[doc(hidden)]
pub use self::mdns::addresses as mdns_addresses;
pub(crate) use self::tcp::io_reason;
pub use self::{
    backend::BackendDialer,
    channel::Channel,
    dial::{BoxedIo, Dial, DialError, Io, Renewal},
    life::IDLE_CUT,
    link::{SetupError, Uplink},
    listen::Accepted,
    probe::Report,
    socks::{Connect, GREETING, NameLength, Reply, SocksError, Step as ConnectStep},
    status::{CertificateStatus, State, Status, TargetStatus},
    step::Step,
    target::Target,
};

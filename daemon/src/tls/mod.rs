//! TLS of the uplink: what we offer, whom we trust, and what went wrong in words.
//!
//! In: an identity, a trust, the clock. Out: rustls client configurations and sentences. Invariant: a handshake
//! with the gateway offers only what BSI TR-03116-3 allows on the HAN side, always shows our certificate and
//! never resumes a session.
//!
//! * `brainpool` computes on the curves that ring lacks; why with these crates stands in its `README.md`.
//! * `cbc` is the suite for gateways without GCM; `scsv` what a gateway needs that refuses RFC 5746.
//! * `profile` is the one place that says which groups, suites and signatures a side may use.
//! * `trust` judges a peer's certificate: by pin or by anchors.
//! * `client` puts both together, `server` does so where the gateway opens the session.
//! * `fault` turns an error of the handshake into a sentence and an alert's name.

mod brainpool;
#[doc(hidden)]
pub mod cbc;
mod client;
mod fault;
mod profile;
#[doc(hidden)]
pub mod scsv;
mod server;
mod trust;

pub(crate) use self::client::OurTime;
pub use self::{
    brainpool::generate,
    client::{HanClient, HanStream, backend_client, server_name, session},
    fault::{Alert, Direction, Fault},
    profile::{Offer, Profile, group_name, provider},
    server::{Shown, evse_server, han_server},
    trust::{Judge, anchors},
};

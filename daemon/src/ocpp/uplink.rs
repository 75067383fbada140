//! The way to the backend: one connection per station under its own identity, and when to try again.
//!
//! In: a [`Dial`] and the outcome of the attempts. Out: a WebSocket or the reason why not. Invariant: at most one
//! attempt of a station at a time; after a refusal the wait doubles from 1 s to 5 min, with jitter, and starts again
//! once a connection has lasted or carried an answer. What lies below the WebSocket (gateway, proxy, TLS) has its own
//! wait inside [`Dial::dial`].

use std::{sync::Arc, time::Duration};

use super::{
    Version,
    access::{self, Secret},
    handshake::{self, Refusal, Socket, encode},
};
use crate::{
    config,
    ids::Identity,
    smgw::{BoxedIo, Dial, DialError},
};

const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(300);
/// A connection that lasted this long was a success.
const LASTED: Duration = Duration::from_secs(5);
/// For the WebSocket handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// Why there is no connection.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// Below the WebSocket.
    Way(DialError),
    /// By the backend.
    Refused(Refusal),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Way(error) => write!(f, "the backend cannot be reached: {error}"),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

/// Makes one attempt.
pub(super) async fn open(
    dial: Arc<dyn Dial>,
    backend: config::Backend,
    identity: Identity,
    versions: Vec<Version>,
    password: Option<Secret>,
    max_frame: usize,
) -> Result<(Socket, Version), Failure> {
    let io = dial.dial().await.map_err(Failure::Way)?;
    upgrade(io, backend, identity, versions, password, max_frame).await
}

/// The WebSocket on a way that stands.
pub(super) async fn upgrade(
    io: BoxedIo,
    backend: config::Backend,
    identity: Identity,
    versions: Vec<Version>,
    password: Option<Secret>,
    max_frame: usize,
) -> Result<(Socket, Version), Failure> {
    let identity = backend.identity.as_ref().unwrap_or(&identity).as_str();
    let path = format!("{}{}", backend.path, encode(identity));
    let offer = handshake::Offer {
        host: &host(&backend),
        path: &path,
        versions: &versions,
        // What the backend gave goes before what the configuration says.
        authorization: password.or(backend.password.clone()).map(|secret| access::basic(identity, &secret)),
        compression: backend.compression,
    };
    let upgrade = handshake::connect(io, &offer, max_frame);
    match tokio::time::timeout(HANDSHAKE, upgrade).await {
        Ok(outcome) => outcome.map_err(Failure::Refused),
        Err(_) => Err(Failure::Refused(Refusal::Broken("it does not answer the handshake".into()))),
    }
}

/// The backend as a Host header names it.
pub(super) fn host(backend: &config::Backend) -> String {
    match (backend.port, &backend.tls) {
        (80, None) | (443, Some(_)) => backend.host.clone(),
        (port, _) => format!("{}:{port}", backend.host),
    }
}

/// How long to wait between attempts.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after a failed attempt.
    pub(super) fn after(&mut self, failure: &Failure) -> Duration {
        match failure {
            // The dialer waits by itself; this only keeps one that does not from spinning.
            Failure::Way(DialError::Failed(_)) => jitter(FIRST),
            Failure::Way(DialError::Hopeless(_)) => LAST,
            Failure::Refused(_) => self.next(),
        }
    }

    /// The wait after a connection that lasted so long, and over which the backend has answered or not.
    pub(super) fn after_end(&mut self, lasted: Duration, answered: bool) -> Duration {
        if lasted >= LASTED || answered {
            self.failures = 0;
        }
        self.next()
    }

    fn next(&mut self) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(16)).min(LAST);
        self.failures += 1;
        jitter(wait)
    }
}

/// Between half of it and all of it: stations that lost the same channel do not come back in step.
fn jitter(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_waited_out_longer_each_time_until_a_connection_lasts() {
        let mut backoff = Backoff::default();
        let refused = Failure::Refused(Refusal::Status(404));
        let mut bound = FIRST;
        for _ in 0..20 {
            let wait = backoff.after(&refused);
            assert!(wait <= bound && wait >= bound / 2, "{wait:?} {bound:?}");
            bound = (bound * 2).min(LAST);
        }
        assert!(
            backoff.after_end(Duration::from_secs(1), false) >= LAST / 2,
            "it ended at once: that was no success"
        );
        assert!(backoff.after_end(LASTED, false) <= FIRST);
        backoff.after(&refused);
        assert!(backoff.after_end(Duration::from_secs(1), true) <= FIRST, "it was of use, short as it was");
    }
}

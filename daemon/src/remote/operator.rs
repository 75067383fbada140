//! The loop of one operator: dial, TLS, serve, again.
//!
//! A connection is replaced before the gateway ends it (BSI TR-03116-3: a session lasts 48 h at the most): the next
//! one stands before the old one is told to take no more calls.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{SetupError, identity, session::Served, tls, trusted};
use crate::{
    api::Presented,
    clock::Clock,
    config::{self, OperatorTrust, Role},
    smgw::{Channel, DialError, Uplink},
    tls::{Fault, server_name},
};

/// Age at which a connection is replaced; up to an hour is taken off at random, so that sites do not come in step.
const RENEW: Duration = Duration::from_secs(46 * 3600);
/// A connection that lasted so long was a good one: the next wait is a short one again.
const STEADY: Duration = Duration::from_secs(60);
/// Least time between two attempts.
const APART: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Operator {
    name: String,
    host: String,
    port: u16,
    tls: Arc<ClientConfig>,
    server: ServerName<'static>,
    pinned: bool,
    roles: Vec<Role>,
    pub(super) times: Times,
}

/// How long things take.
#[derive(Debug, Clone)]
pub(super) struct Times {
    pub(super) backoff: (Duration, Duration),
    pub(super) step: Duration,
    pub(super) renew: Duration,
}

/// Waits between attempts: doubled from the least to the most, with jitter over the upper half.
#[derive(Debug)]
struct Waits {
    least: Duration,
    most: Duration,
    in_row: u32,
}

impl Waits {
    fn next(&mut self) -> Duration {
        let doubled = self.least.saturating_mul(1_u32.checked_shl(self.in_row).unwrap_or(u32::MAX));
        self.in_row = self.in_row.saturating_add(1);
        doubled.min(self.most).mul_f64(0.5 + 0.5 * fastrand::f64()).max(APART)
    }
}

type Stream = TlsStream<Channel>;

impl Operator {
    pub(super) fn new(
        table: &str,
        config: &config::Operator,
        (host, port): (&str, u16),
        way: &config::Uplink,
        clock: Clock,
    ) -> Result<Self, SetupError> {
        let wrong = |name: &str, problem| SetupError { field: format!("{table}.{name}"), problem };
        let own = identity(table, &config.certificate, &config.key)?;
        let (expected, field, pinned) = match &config.trust {
            OperatorTrust::Pin(_) => (host, "address", true),
            OperatorTrust::Ca { name, .. } if *name == *host => (host, "address", false),
            OperatorTrust::Ca { name, .. } => (name.as_str(), "server_name", false),
        };
        let server = server_name(expected).map_err(|problem| wrong(field, problem))?;
        let anchor = trusted(&config.trust, &server).map_err(|problem| wrong("ca", problem))?;
        Ok(Self {
            name: config.name.clone(),
            host: host.to_owned(),
            port,
            server,
            tls: tls::client(&own, anchor, clock).map_err(|problem| wrong("ca", problem))?,
            pinned,
            roles: config.roles.clone(),
            times: Times {
                backoff: (way.backoff_min, way.backoff_max),
                step: way.step_timeout,
                renew: RENEW.saturating_sub(Duration::from_secs(fastrand::u64(0..3600))),
            },
        })
    }

    /// Keeps one connection, and a second one for the moment of replacement, until the stop.
    pub(super) async fn run(self, uplink: Uplink, served: Served, stop: CancellationToken) {
        let this = Arc::new(self);
        let (least, most) = this.times.backoff;
        let mut waits = Waits { least, most, in_row: 0 };
        let mut sessions: JoinSet<String> = JoinSet::new();
        let mut current: Option<CancellationToken> = None;
        let mut told = String::new();
        loop {
            let dialed = tokio::select! {
                dialed = this.dial(&uplink) => dialed,
                () = stop.cancelled() => break,
            };
            match dialed {
                Ok((stream, shown)) => {
                    told.clear();
                    let begun = served.clock.now().mono;
                    let retire = CancellationToken::new();
                    let task = {
                        let (this, served, retire) = (this.clone(), served.clone(), retire.clone());
                        let serve = async move { served.operator(&this.name, stream, shown, retire).await };
                        sessions.spawn(serve).id()
                    };
                    if let Some(old) = current.replace(retire) {
                        old.cancel();
                    }
                    let renew = sleep(this.times.renew);
                    tokio::pin!(renew);
                    loop {
                        tokio::select! {
                            ended = sessions.join_next_with_id() => match ended {
                                Some(Ok((id, _))) if id != task => continue,
                                Some(Err(error)) if error.is_panic() => {
                                    std::panic::resume_unwind(error.into_panic())
                                }
                                _ => current = None,
                            },
                            () = &mut renew => {}
                            () = stop.cancelled() => {}
                        }
                        break;
                    }
                    if served.clock.now().mono.since(begun) >= STEADY.min(this.times.renew) {
                        waits.in_row = 0;
                    }
                    if current.is_some() && !stop.is_cancelled() {
                        // It stands: the next one is dialed without a wait.
                        continue;
                    }
                }
                Err(DialError::Hopeless(reason)) => {
                    tracing::error!(operator = this.name, "the operator cannot be reached: {reason}");
                    stop.cancelled().await;
                }
                Err(DialError::Failed(reason)) => {
                    if told == reason {
                        tracing::debug!(operator = this.name, "the operator cannot be reached: {reason}");
                    } else {
                        tracing::warn!(operator = this.name, "the operator cannot be reached: {reason}");
                        told = reason;
                    }
                }
            }
            tokio::select! {
                () = sleep(waits.next()) => {}
                () = stop.cancelled() => break,
            }
        }
        // The interface ends what it serves at the stop.
        while sessions.join_next().await.is_some() {}
    }

    async fn dial(&self, uplink: &Uplink) -> Result<(Stream, Presented), DialError> {
        let failed = |reason: String| {
            DialError::Failed(format!("TLS with the operator {}:{}: {reason}", self.host, self.port))
        };
        let channel = uplink.connect(&self.host, self.port).await?;
        let time = self.times.step;
        let handshake = TlsConnector::from(self.tls.clone()).connect(self.server.clone(), channel);
        let stream = match timeout(time, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(failed(Fault::new(&error).to_string())),
            Err(_) => return Err(failed(format!("no handshake within {time:?}"))),
        };
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let shown = leaf.and_then(Presented::read);
        let shown = shown.ok_or_else(|| failed("its certificate cannot be read".to_owned()))?;
        let shown = shown.at_most(self.roles.clone());
        Ok((stream, if self.pinned { shown.undated() } else { shown }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_the_least_to_the_most_and_never_fall_below_a_second() {
        let s = Duration::from_secs;
        let mut waits = Waits { least: s(1), most: s(300), in_row: 0 };
        let all: Vec<_> = (0..40).map(|_| waits.next()).collect();
        assert!(all.iter().all(|w| (s(1)..=s(300)).contains(w)), "{all:?}");
        assert!(all[20..].iter().all(|w| *w >= s(150)), "{all:?}");
        assert!(all[20..].iter().any(|w| *w != all[20]), "there is jitter: {all:?}");
    }
}

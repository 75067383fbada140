//! Administration from outside this machine: over connections that we open to operators through the uplink, or that
//! they open to us where the gateway is the one who connects, and, where it is switched on, over TCP on the site's
//! own network.
//!
//! In: `[[operator]]` and `[api.lan]`. Out: authenticated streams, on which [`api`](crate::api) serves the same
//! services as on its socket, to the same table of roles. Invariants: TLS with both certificates stands before the
//! first byte reaches the interface; each operator has its own loop and its own backoff, so none waits for another;
//! what an operator does ends no task.
//!
//! ```text
//!          ┌─────────────────── wait, twice as long each time ◀──────────────┐
//!          ▼                                                                 │ failed, ended
//! dial through the uplink → TLS, we are the client → HTTP/2, we are the server ──old──▶ dial the next, then retire
//! ```
//!
//! * `operator` is the loop of one operator.
//! * `inbound` is the other direction: mutual TLS on a stream that was opened towards us, from the site's network or,
//!   in mode `listen`, from behind the gateway.
//! * `door` bounds how many of those there are.
//! * `lan` listens on the site's network.
//! * `session` serves one connection and leaves its begin and end in the journal.

mod door;
mod inbound;
mod lan;
mod operator;
mod session;
mod tls;

#[cfg(test)]
mod tests;

use rustls::pki_types::ServerName;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::lan::Lan;
use self::{inbound::Inbound, operator::Operator};
use crate::{
    api::Interface,
    clock::Clock,
    config::{self, Config, OperatorPlace},
    identity::{Identity, IdentityError},
    journal::Journal,
    smgw::{Target, Uplink},
    tls::{Profile, anchors},
};

/// A configuration that reads well and cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct SetupError {
    /// The configuration field to change: `operator[0].key`.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub problem: String,
}

/// Certificate and key of a table of the configuration.
fn identity(
    table: &str,
    certificate: &std::path::Path,
    key: &std::path::Path,
) -> Result<Identity, SetupError> {
    let wrong = |name: &str, problem| SetupError { field: format!("{table}.{name}"), problem };
    Identity::load(certificate, key, Profile::Inner).map_err(|error| match error {
        IdentityError::Certificate(problem) => wrong("certificate", problem),
        IdentityError::Key(problem) => wrong("key", problem),
    })
}

/// Everybody who administers the site from behind the gateway.
#[derive(Debug)]
pub struct Operators {
    dialed: Vec<Operator>,
    coming: Vec<(Inbound, Target)>,
    uplink: Uplink,
}

impl Operators {
    /// Reads the files that the configuration names; `None` if it names no operator. Opens no connection.
    pub fn new(config: &Config, uplink: Option<&Uplink>, clock: Clock) -> Result<Option<Self>, SetupError> {
        let (Some(way), Some(uplink)) = (&config.uplink, uplink) else {
            return Ok(None);
        };
        let (mut dialed, mut coming) = (Vec::new(), Vec::new());
        for (i, operator) in config.operators.iter().enumerate() {
            let table = format!("operator[{i}]");
            match &operator.place {
                OperatorPlace::Dialed { host, port } => {
                    dialed.push(Operator::new(&table, operator, (host, *port), way, clock)?);
                }
                OperatorPlace::Coming { target } => {
                    let target = uplink.target(target).ok_or_else(|| SetupError {
                        field: format!("{table}.target"),
                        problem: format!("there is no target {target:?} under [[uplink.target]]"),
                    })?;
                    coming.push((Inbound::new(&table, operator, clock)?, target));
                }
            }
        }
        Ok((!config.operators.is_empty()).then(|| Self { dialed, coming, uplink: uplink.clone() }))
    }

    /// Keeps a connection to each operator, and serves those who come, until the stop.
    pub async fn run(self, interface: Interface, journal: Journal, clock: Clock, stop: CancellationToken) {
        let mut loops = JoinSet::new();
        let served = session::Served { interface, journal, clock };
        for operator in self.dialed {
            loops.spawn(operator.run(self.uplink.clone(), served.clone(), stop.clone()));
        }
        for (inbound, target) in self.coming {
            loops.spawn(inbound.run(target, served.clone(), stop.clone()));
        }
        while let Some(ended) = loops.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

/// What an operator of this name is judged by.
fn trusted(trust: &config::OperatorTrust, name: &ServerName<'static>) -> Result<tls::Anchor, String> {
    match trust {
        config::OperatorTrust::Pin(pin) => Ok(tls::Anchor::Pin(*pin)),
        config::OperatorTrust::Ca { file, .. } => {
            anchors(file).map(|roots| tls::Anchor::Roots(roots, name.clone()))
        }
    }
}

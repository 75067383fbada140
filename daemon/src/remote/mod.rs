//! Administration from outside this machine: over connections that we open to operators through the uplink, and,
//! where it is switched on, over TCP on the site's own network.
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
//! * `inbound` is the other direction: mutual TLS on a stream that was opened towards us, from the site's network or
//!   from the gateway.
//! * `lan` listens on the site's network.
//! * `session` serves one connection and leaves its begin and end in the journal.

mod inbound;
mod lan;
mod operator;
mod session;
mod tls;

#[cfg(test)]
mod tests;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::operator::Operator;
pub use self::{inbound::Inbound, lan::Lan};
use crate::{
    api::Interface,
    clock::Clock,
    config::{self, Config},
    identity::{Identity, IdentityError},
    journal::Journal,
    smgw::Uplink,
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
    operators: Vec<Operator>,
    uplink: Uplink,
}

impl Operators {
    /// Reads the files that the configuration names; `None` if it names no operator. Opens no connection.
    pub fn new(config: &Config, uplink: Option<&Uplink>, clock: Clock) -> Result<Option<Self>, SetupError> {
        let (Some(way), Some(uplink)) = (&config.uplink, uplink) else {
            return Ok(None);
        };
        let mut operators = Vec::with_capacity(config.operators.len());
        for (i, operator) in config.operators.iter().enumerate() {
            operators.push(Operator::new(&format!("operator[{i}]"), operator, way, clock)?);
        }
        Ok((!operators.is_empty()).then(|| Self { operators, uplink: uplink.clone() }))
    }

    /// Keeps a connection to each operator until the stop.
    pub async fn run(self, interface: Interface, journal: Journal, clock: Clock, stop: CancellationToken) {
        let mut loops = JoinSet::new();
        for operator in self.operators {
            let served = session::Served { interface: interface.clone(), journal: journal.clone(), clock };
            loops.spawn(operator.run(self.uplink.clone(), served, stop.clone()));
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

fn trusted(trust: &config::OperatorTrust) -> Result<tls::Anchor, String> {
    match trust {
        config::OperatorTrust::Pin(pin) => Ok(tls::Anchor::Pin(*pin)),
        config::OperatorTrust::Ca { file, .. } => anchors(file).map(tls::Anchor::Roots),
    }
}

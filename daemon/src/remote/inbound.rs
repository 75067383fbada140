//! Mutual TLS on a stream that was opened towards us: from the site's network, and in mode `listen` from behind the
//! gateway.
//!
//! In mode `listen` the gateway connects to the port of a target and hands through whom it lets in; its own
//! certificate is judged before (see [`smgw`](crate::smgw)). In: those streams. Out: operators with a certificate of
//! their issuer, served. Invariant: who has not shown such a certificate reaches nothing, and is counted at the
//! uplink.

use std::{sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{SetupError, door::Door, identity, session::Served, tls};
use crate::{
    api::Presented,
    clock::Clock,
    config::{self, OperatorTrust, Role},
    smgw::{Channel, Target},
    tls::{Fault, anchors},
};

/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// An operator who comes in.
#[derive(Debug, Clone)]
pub(super) struct Inbound {
    name: String,
    tls: Arc<ServerConfig>,
    most: Vec<Role>,
}

impl Inbound {
    /// Reads the files that the operator's table names; `table` is its name in the configuration.
    pub(super) fn new(table: &str, operator: &config::Operator, clock: Clock) -> Result<Self, SetupError> {
        let wrong = |name: &str, problem| SetupError { field: format!("{table}.{name}"), problem };
        let OperatorTrust::Ca { file, .. } = &operator.trust else {
            let problem = "cannot be used where the operator connects to us; give ca = \"operator-ca.pem\"";
            return Err(wrong("pin", problem.to_owned()));
        };
        let own = identity(table, &operator.certificate, &operator.key)?;
        let roots = anchors(file).map_err(|problem| wrong("ca", problem))?;
        let tls = tls::server(&own, roots, clock).map_err(|problem| wrong("ca", problem))?;
        Ok(Self { name: operator.name.clone(), tls, most: operator.roles.clone() })
    }

    /// Serves whoever the gateway hands through for this target, until the stop.
    pub(super) async fn run(self, target: Target, served: Served, stop: CancellationToken) {
        let mut door: Door<(TlsStream<Channel>, Presented)> = Door::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = target.accept() => match accepted {
                    Ok(accepted) => door.greet(self.clone().greet(target.clone(), accepted.channel)),
                    Err(error) => {
                        tracing::error!(operator = self.name, "the operator cannot come: {error}");
                        stop.cancelled().await;
                    }
                },
                (stream, shown) = door.passed() => {
                    let (this, served) = (self.clone(), served.clone());
                    door.serve(async move {
                        drop(served.operator(&this.name, stream, shown, CancellationToken::new()).await);
                    });
                }
            }
        }
        // The interface ends what it serves at the stop.
        door.drain().await;
    }

    async fn greet(self, target: Target, channel: Channel) -> Option<(TlsStream<Channel>, Presented)> {
        match handshake(&self.tls, channel).await {
            Ok((stream, shown)) => Some((stream, shown.at_most(self.most))),
            Err(reason) => {
                target.turned_away(&format!("operator {}: {reason}", self.name));
                None
            }
        }
    }
}

/// The stream with the certificate that its opener has shown, or why there is none.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &Arc<ServerConfig>,
    io: S,
) -> Result<(TlsStream<S>, Presented), String> {
    let stream = match timeout(HANDSHAKE, TlsAcceptor::from(tls.clone()).accept(io)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("TLS: {}", Fault::new(&error))),
        Err(_) => return Err(format!("TLS: no handshake within {HANDSHAKE:?}")),
    };
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let shown = leaf.and_then(Presented::read);
    Ok((stream, shown.ok_or("TLS: the certificate cannot be read")?))
}

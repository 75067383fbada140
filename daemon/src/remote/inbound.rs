//! Mutual TLS on a stream that was opened towards us.

use std::{sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{SetupError, identity, session::Served, tls};
use crate::{
    api::{Interface, Presented},
    clock::Clock,
    config::{self, OperatorTrust, Role},
    journal::Journal,
    tls::{Fault, anchors},
};

/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves the interface to operators who come in: in mode `listen` from the gateway's side.
#[derive(Debug, Clone)]
pub struct Inbound {
    name: String,
    tls: Arc<ServerConfig>,
    most: Vec<Role>,
    served: Served,
}

impl Inbound {
    /// Reads the files that the operator's table names; `table` is its name in the configuration.
    pub fn new(
        table: &str,
        operator: &config::Operator,
        interface: Interface,
        journal: Journal,
        clock: Clock,
    ) -> Result<Self, SetupError> {
        let wrong = |name: &str, problem| SetupError { field: format!("{table}.{name}"), problem };
        let OperatorTrust::Ca { file, .. } = &operator.trust else {
            let problem = "cannot be used where the operator connects to us; give ca = \"operator-ca.pem\"";
            return Err(wrong("pin", problem.to_owned()));
        };
        let own = identity(table, &operator.certificate, &operator.key)?;
        let roots = anchors(file).map_err(|problem| wrong("ca", problem))?;
        let tls = tls::server(&own, roots, clock).map_err(|problem| wrong("ca", problem))?;
        let served = Served { interface, journal, clock };
        Ok(Self { name: operator.name.clone(), tls, most: operator.roles.clone(), served })
    }

    /// Handshake and service on one stream, until it ends or the daemon stops. Gives the reason of its end, in words.
    pub async fn serve(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> String {
        match handshake(&self.tls, io).await {
            Ok((stream, shown)) => {
                let shown = shown.at_most(self.most.clone());
                self.served.operator(&self.name, stream, shown, CancellationToken::new()).await
            }
            Err(reason) => reason,
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

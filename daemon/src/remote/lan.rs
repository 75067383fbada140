//! The interface on the site's own network: TCP, mutual TLS, off unless `[api.lan]` switches it on.
//!
//! In: connections from anybody. Out: those with a certificate of a trusted issuer, served. Invariant: of one
//! certificate as many connections are held as of one user on the socket; all together are bounded by their [`Door`].

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{SetupError, door::Door, identity, inbound::handshake, tls};
use crate::{
    api::{Interface, Peer, Places, Presented},
    clock::Clock,
    config,
    tls::anchors,
};

/// Wait after a failed accept, e.g. without free file descriptors.
const RETRY: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug)]
pub struct Lan {
    tls: Arc<ServerConfig>,
    address: SocketAddr,
}

impl Lan {
    /// Reads the files that the configuration names. Opens no port.
    pub fn new(config: &config::Lan, clock: Clock) -> Result<Self, SetupError> {
        let wrong = |name: &str, problem| SetupError { field: format!("api.lan.{name}"), problem };
        let own = identity("api.lan", &config.certificate, &config.key)?;
        let roots = anchors(&config.ca).map_err(|problem| wrong("ca", problem))?;
        let tls = tls::server(&own, roots, clock).map_err(|problem| wrong("ca", problem))?;
        Ok(Self { tls, address: config.listen })
    }

    /// Opens the port.
    pub async fn bind(&self) -> io::Result<TcpListener> {
        let listener = TcpListener::bind(self.address).await?;
        tracing::info!(address = %listener.local_addr()?, "the interface is open on the network, with mutual TLS");
        Ok(listener)
    }

    /// Serves until the stop.
    pub async fn run(self, listener: TcpListener, interface: Interface, stop: CancellationToken) {
        let mut door: Door<(TlsStream<TcpStream>, Presented)> = Door::default();
        let places = Places::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((tcp, from)) => door.greet(greet(self.tls.clone(), tcp, from)),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(RETRY).await;
                    }
                },
                (stream, shown) = door.passed() => {
                    let peer = Peer::Certificate(shown.into());
                    if let Some(place) = places.take(&peer) {
                        let interface = interface.clone();
                        door.serve(async move {
                            let _place = place;
                            match interface.serve_stream(stream, peer, CancellationToken::new()).await {
                                Ok(why) => tracing::debug!("a connection from the network ended: {why}"),
                                Err(error) => tracing::warn!(%error, "a connection from the network ended"),
                            }
                        });
                    }
                }
            }
        }
        // The interface ends what it serves at the stop.
        door.drain().await;
    }
}

async fn greet(
    tls: Arc<ServerConfig>,
    tcp: TcpStream,
    from: SocketAddr,
) -> Option<(TlsStream<TcpStream>, Presented)> {
    // Headers and data of a call are two records: without this the second waits for the first one's acknowledgement.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%from, %error, "a connection from the network broke");
        return None;
    }
    match handshake(&tls, tcp).await {
        Ok(accepted) => Some(accepted),
        Err(reason) => {
            tracing::debug!(%from, "a connection from the network was refused: {reason}");
            None
        }
    }
}

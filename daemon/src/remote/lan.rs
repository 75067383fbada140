//! The interface on the site's own network: TCP, mutual TLS, off unless `[api.lan]` switches it on.
//!
//! In: connections from anybody. Out: those with a certificate of a trusted issuer, served. Invariants: at most
//! [`HANDSHAKES`] unfinished and [`SESSIONS`] finished connections are held, of one certificate as many as of one
//! user on the socket. When all places for handshakes are taken, the oldest makes room: who stalls keeps nobody out.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{SetupError, identity, inbound::handshake, tls};
use crate::{
    api::{Interface, Peer, Places, Presented},
    clock::Clock,
    config,
    tls::anchors,
};

/// Handshakes under way.
const HANDSHAKES: usize = 32;
/// Connections that are served.
const SESSIONS: usize = 128;
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
        let mut handshakes: JoinSet<Option<(TlsStream<TcpStream>, Presented)>> = JoinSet::new();
        let mut order: VecDeque<AbortHandle> = VecDeque::new();
        let mut sessions: JoinSet<()> = JoinSet::new();
        let places = Places::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((tcp, from)) => {
                        order.retain(|handshake| !handshake.is_finished());
                        if order.len() >= HANDSHAKES && let Some(oldest) = order.pop_front() {
                            oldest.abort();
                        }
                        order.push_back(handshakes.spawn(greet(self.tls.clone(), tcp, from)));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(RETRY).await;
                    }
                },
                Some(ended) = handshakes.join_next() => match ended {
                    Ok(Some((stream, shown))) => {
                        let peer = Peer::Certificate(shown.into());
                        if sessions.len() >= SESSIONS {
                            tracing::warn!(most = SESSIONS, "too many connections from the network; one more is closed");
                        } else if let Some(place) = places.take(&peer) {
                            let interface = interface.clone();
                            sessions.spawn(async move {
                                let _place = place;
                                match interface.serve_stream(stream, peer, CancellationToken::new()).await {
                                    Ok(why) => tracing::debug!("a connection from the network ended: {why}"),
                                    Err(error) => tracing::warn!(%error, "a connection from the network ended"),
                                }
                            });
                        }
                    }
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Ok(None) | Err(_) => {}
                },
                Some(ended) = sessions.join_next() => if let Err(error) = ended && error.is_panic() {
                    std::panic::resume_unwind(error.into_panic());
                },
            }
        }
        // The interface ends what it serves at the stop.
        while sessions.join_next().await.is_some() {}
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

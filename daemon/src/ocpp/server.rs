//! The door for EVSEs.
//!
//! In: TCP connections. Out: each to the station it names, before it is answered. Invariant: a connection that says
//! nothing, or nonsense, costs a bounded time and nobody else's.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    access::{self, Access},
    handshake::{Refusal, Request},
};

/// For a peer to say what it wants.
const GREETING: Duration = Duration::from_secs(10);
/// Peers that have not said it yet.
const MOST_STRANGERS: usize = 256;
/// Causes that are remembered as logged.
const MOST_LOGGED: usize = 1000;

/// The way to one station.
pub(super) struct Door {
    /// What it must show.
    pub(super) access: Access,
    pub(super) requests: mpsc::Sender<Request>,
}

/// Where the stations are, by identity.
pub(super) type Doors = HashMap<String, Door>;

struct Hall {
    doors: Doors,
    tls: Option<TlsAcceptor>,
    logged: Mutex<HashSet<String>>,
}

impl Hall {
    /// Whether this cause is new.
    fn is_new(&self, cause: &str) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        logged.len() < MOST_LOGGED && logged.insert(cause.to_owned())
    }
}

/// Accepts until stopped.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    doors: Doors,
    stop: CancellationToken,
) -> Result<(), Error> {
    let hall = Arc::new(Hall { doors, tls: tls.map(TlsAcceptor::from), logged: Mutex::default() });
    let mut strangers = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(end) = strangers.join_next() => {
                if let Err(error) = end {
                    tracing::error!(%error, "a handshake ended abnormally");
                }
            }
            accepted = listener.accept(), if strangers.len() < MOST_STRANGERS => match accepted {
                Ok((stream, peer)) => {
                    strangers.spawn(greet(stream, peer, Arc::clone(&hall)));
                }
                Err(error) => {
                    // Out of file descriptors, or a peer that was gone at once: both pass.
                    tracing::warn!(%error, "a connection of an EVSE could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn greet(stream: TcpStream, peer: SocketAddr, hall: Arc<Hall>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY is not set");
    }
    let request = match tokio::time::timeout(GREETING, listen(stream, hall.tls.as_ref())).await {
        Ok(Ok(request)) => request,
        Ok(Err(refusal)) => {
            if hall.is_new(&peer.ip().to_string()) {
                tracing::warn!(%peer, ?refusal, "a peer on the EVSE port does not speak WebSocket");
            }
            return;
        }
        Err(_) => return tracing::debug!(%peer, "a peer on the EVSE port says nothing"),
    };
    let identity = request.identity();
    let Some(door) = identity.as_ref().and_then(|i| hall.doors.get(i)) else {
        let path: String = request.path.chars().take(200).collect();
        if hall.is_new(&path) {
            tracing::warn!(%peer, path, "an EVSE with an unknown identity was refused; name it in the configuration");
        }
        return request.refuse(404).await;
    };
    if let Err(why) = door.access.admits(&request.shown) {
        let identity = identity.unwrap_or_default();
        if hall.is_new(&format!("{identity} {why}")) {
            tracing::warn!(%peer, identity, "an EVSE was refused: {why}");
        }
        return request.refuse(401).await;
    }
    if let Err(mpsc::error::SendError(request)) = door.requests.send(request).await {
        request.refuse(503).await;
    }
}

/// The first byte of a TLS record that begins a handshake (RFC 8446 §5.1); no HTTP request begins so.
const TLS_HANDSHAKE: u8 = 0x16;

/// Hears the request, inside TLS if the peer begins so.
async fn listen(stream: TcpStream, tls: Option<&TlsAcceptor>) -> Result<Request, Refusal> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 || first[0] != TLS_HANDSHAKE {
        return Request::read(Box::new(stream), false, None).await;
    }
    let Some(tls) = tls else {
        return Err(Refusal::Broken("it begins with TLS; [ocpp] has no certificate".into()));
    };
    let stream = tls.accept(stream).await?;
    let names = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).map(|c| access::names(c));
    Request::read(Box::new(stream), true, names).await
}

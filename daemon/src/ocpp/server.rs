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

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{Error, handshake::Request};

/// For a peer to say what it wants.
const GREETING: Duration = Duration::from_secs(10);
/// Peers that have not said it yet.
const MOST_STRANGERS: usize = 256;
/// Causes that are remembered as logged.
const MOST_LOGGED: usize = 1000;

/// Where the stations are, by identity.
pub(super) type Doors = HashMap<String, mpsc::Sender<Request>>;

struct Hall {
    doors: Doors,
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
pub(super) async fn serve(listener: TcpListener, doors: Doors, stop: CancellationToken) -> Result<(), Error> {
    let hall = Arc::new(Hall { doors, logged: Mutex::default() });
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
    let request = match tokio::time::timeout(GREETING, Request::read(Box::new(stream))).await {
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
    if let Err(mpsc::error::SendError(request)) = door.send(request).await {
        request.refuse(503).await;
    }
}

//! An EVSE on its own: its bytes go through our uplink to its backend and back, unread.
//!
//! In: its upgrade requests. Out: the same requests to the backend, then bytes both ways. Invariants: of a request only
//! what names the place is another one (path and Host); nothing of the rest is looked at or kept; a newer connection
//! takes the place of an older one. There is no limit of ours on such an EVSE: it counts with what it is rated for.

use std::sync::Arc;

use tokio::{io::AsyncWriteExt as _, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    handshake::{Request, encode},
    station::Station,
    uplink,
};
use crate::{config, smgw::Dial};

/// Serves one EVSE until stopped.
pub(super) async fn serve(mut station: Station, stop: CancellationToken) -> Result<(), Error> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(request) = station.requests.recv() => {
                connections.abort_all();
                let Some((backend, dial)) = station.backend.clone() else {
                    request.refuse(503).await;
                    continue;
                };
                let identity = backend.identity.clone().unwrap_or_else(|| station.identity.clone());
                connections.spawn(pass(request, dial, backend, identity.to_string()));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn pass(request: Request, dial: Arc<dyn Dial>, backend: config::Backend, identity: String) {
    let mut north = match dial.dial().await {
        Ok(io) => io,
        Err(error) => {
            tracing::debug!(%error, "an EVSE on its own finds no way to its backend");
            return request.refuse(503).await;
        }
    };
    let path = format!("{}{}", backend.path, encode(&identity));
    let (mut south, head) = request.forwarded(&path, &uplink::host(&backend));
    if let Err(error) = north.write_all(&head).await {
        return tracing::debug!(%error, "the backend of an EVSE on its own is gone");
    }
    match tokio::io::copy_bidirectional(&mut south, &mut north).await {
        Ok((up, down)) => tracing::info!(up, down, "the connection of an EVSE on its own has ended"),
        Err(error) => tracing::info!(%error, "the connection of an EVSE on its own has ended"),
    }
}

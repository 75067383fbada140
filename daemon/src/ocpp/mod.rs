//! The OCPP gateway, a Local Controller in the sense of OCPP 2.0.1 Part 4 chapter 6, for OCPP 1.6J, 2.0.1 and 2.1.
//!
//! EVSEs connect to us and find what looks like their backend; the backend finds one connection per EVSE under its
//! own identity and in its own version. Calls pass both ways byte for byte (`routing.md`). While the backend is away the EVSE is answered here (`resident`
//! mode), and what is billed is kept durably and delivered in order afterwards. The site's limit is set at the EVSE in
//! between.
//!
//! In: connections, setpoints (`watch`). Out: facts about EVSEs ([`crate::control::Events`]). Invariant: see `route`.
//!
//! ```text
//!   EVSE ⇄ server → station(socket ⇄ route ⇄ socket) ⇄ uplink ⇄ backend
//!                              ⇅ queue (store)
//! ```

mod access;
mod deflate;
mod dialect;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod handshake;
pub mod ledger;
pub mod local;
pub mod orders;
mod profile;
mod queue;
mod route;
mod schema;
mod server;
mod socket;
mod station;
mod table;
mod tunnel;
mod uplink;
mod v16;
mod v2;
mod version;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use self::{
    access::{Access, Secret},
    local::Local,
    orders::Orders,
    queue::MIGRATIONS,
    schema::Schemas,
    version::Version,
};
use crate::{
    clock::Clock,
    config, control,
    ids::{EvseId, Identity},
    plan::Setpoint,
    smgw::Dial,
    store::{Store, StoreError},
};

/// A charging point.
pub struct Station {
    /// Name on the site.
    pub evse: EvseId,
    /// OCPP identity, towards both sides.
    pub identity: Identity,
    /// What the configuration says of it.
    pub settings: config::Evse,
    /// The way to its own backend, if it has one.
    pub way: Option<Arc<dyn Dial>>,
    /// What the site wants it to keep to.
    pub setpoint: watch::Receiver<Option<Setpoint>>,
    /// What people want of it.
    pub inbox: orders::Inbox,
}

/// What the gateway is made of.
pub struct Parts {
    /// The side towards the EVSEs.
    pub config: config::Ocpp,
    /// The backend and the way there; without it everything is answered here and nothing is kept for later.
    pub backend: Option<(config::Backend, Arc<dyn Dial>)>,
    /// Every charging point that may connect.
    pub stations: Vec<Station>,
    /// Every charge point that is played here.
    pub locals: Vec<Local>,
    /// Where facts go.
    pub events: control::Events,
    /// Where the backend's tariffs go.
    pub site: control::Handle,
    /// Opened with [`MIGRATIONS`].
    pub store: Store,
    /// The present.
    pub clock: Clock,
    /// Where EVSEs connect.
    pub listener: tokio::net::TcpListener,
    /// TLS on the same port, for those that want it.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The official schemas, if payloads are checked.
    pub schemas: Option<Arc<Schemas>>,
}

impl std::fmt::Debug for Station {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Station")
            .field("evse", &self.evse)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("config", &self.config)
            .field("stations", &self.stations)
            .finish_non_exhaustive()
    }
}

/// Why the gateway does not run (any longer).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is kept of a station cannot be read; without it messages could be lost or sent twice.
    #[error("the stored messages of {identity} cannot be read")]
    Store {
        /// The station.
        identity: Identity,
        /// The reason.
        #[source]
        source: StoreError,
    },
    /// A task ended that must not.
    #[error("{0} ended unexpectedly")]
    Ended(String),
}

type Tasks = JoinSet<(String, Result<(), Error>)>;

/// What every station shares.
struct House {
    config: config::Ocpp,
    backend: Option<(config::Backend, Arc<dyn Dial>)>,
    schemas: Option<Arc<Schemas>>,
    events: control::Events,
    site: control::Handle,
    store: Store,
    clock: Clock,
    stop: CancellationToken,
}

impl House {
    /// Starts a station; gives its door.
    fn station(&self, tasks: &mut Tasks, station: Station, local: bool) -> server::Door {
        let Station { evse, identity, settings, way, setpoint, inbox } = station;
        let (door, requests) = mpsc::channel(4);
        let access = Access::new(settings.ocpp.security, identity.as_str(), settings.ocpp.password.clone());
        let own = settings.ocpp.backend.clone().zip(way);
        let backend = own.or_else(|| self.backend.clone());
        let span = tracing::info_span!("evse", %evse);
        let station = station::Station {
            evse,
            identity: identity.clone(),
            settings,
            schemas: self.schemas.clone(),
            setpoint,
            requests,
            inbox,
            local,
            config: self.config.clone(),
            backend,
            events: self.events.clone(),
            site: self.site.clone(),
            store: self.store.clone(),
            clock: self.clock,
        };
        let stop = self.stop.clone();
        if station.settings.ocpp.pass_through {
            let tunnel = tunnel::serve(station, stop);
            tasks.spawn(async move { (format!("the way of {identity}"), tunnel.await) }.instrument(span));
            return server::Door { access, requests: door };
        }
        tasks.spawn(
            async move { (format!("the station {identity}"), station.run(stop).await) }.instrument(span),
        );
        server::Door { access, requests: door }
    }

    /// Starts a charge point that is played here, and its station.
    fn local(&self, tasks: &mut Tasks, local: Local) {
        let Local { settings, way, stands, view, inbox } = local;
        let (identity, evse) = (settings.identity.clone(), settings.id.clone());
        // The site's setpoint goes to the device itself; the charge point knows the backend's profiles alone.
        let (_, setpoint) = watch::channel(None);
        let (span, station) = (
            tracing::info_span!("evse", %evse),
            Station { evse, identity: identity.clone(), settings, way, setpoint, inbox },
        );
        let door = self.station(tasks, station, true).requests;
        let player = local::Player {
            identity: identity.clone(),
            stands,
            view,
            door,
            events: self.events.clone(),
            store: self.store.clone(),
            clock: self.clock,
            broken: false,
        };
        let stop = self.stop.clone();
        let name = format!("the charge point {identity} that is played here");
        tasks.spawn(async move { (name, player.run(stop).await) }.instrument(span));
    }
}

/// Runs until stopped, or until a part fails.
pub async fn run(parts: Parts, stop: CancellationToken) -> Result<(), Error> {
    let mut tasks: Tasks = JoinSet::new();
    let mut doors = server::Doors::new();
    let stations = parts.stations;
    let locals = parts.locals;
    let house = House {
        config: parts.config,
        backend: parts.backend,
        schemas: parts.schemas,
        events: parts.events,
        site: parts.site,
        store: parts.store,
        clock: parts.clock,
        stop: stop.clone(),
    };
    for station in stations {
        let identity = station.identity.as_str().to_owned();
        doors.insert(identity, house.station(&mut tasks, station, false));
    }
    for local in locals {
        house.local(&mut tasks, local);
    }
    drop(house);
    let serve = server::serve(parts.listener, parts.tls, doors, stop.clone());
    tasks.spawn(async move { ("the EVSE port".to_owned(), serve.await) });
    while let Some(end) = tasks.join_next().await {
        match end {
            Ok((_, Ok(()))) if stop.is_cancelled() => {}
            Ok((name, Ok(()))) => return Err(Error::Ended(name)),
            Ok((_, Err(error))) => return Err(error),
            Err(error) => return Err(Error::Ended(format!("a task of the OCPP gateway ({error})"))),
        }
    }
    Ok(())
}

//! gRPC on a Unix socket: shows the site, steers it, hands out the evidence.
//!
//! In: calls, each from a socket peer whose user id the kernel vouches for. Out: commands to the site's owner,
//! pictures of the site, pages of the journal.
//!
//! Invariant: no call reaches a service before [`authz`] has found its method in the table and the caller's role
//! in the method's row. A slow reader holds up nobody but itself: streams take the latest picture when their
//! reader is ready, and nothing is queued for them.
//!
//! ```text
//! accept (bounded per user) → authz → service → response, cut off when the daemon stops
//! ```

mod authz;
mod convert;
mod drain;
mod evse;
mod grid;
mod identity;
mod incoming;
mod journal;
mod meter;
mod site;
mod socket;
mod system;
mod uplink;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use ladewart_proto::v1::{
    evse_service_server::EvseServiceServer, grid_service_server::GridServiceServer,
    identity_service_server::IdentityServiceServer, journal_service_server::JournalServiceServer,
    meter_service_server::MeterServiceServer, site_service_server::SiteServiceServer,
    system_service_server::SystemServiceServer, uplink_service_server::UplinkServiceServer,
};
use tokio::{net::UnixListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::{Status, server::NamedService, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};

pub use self::{authz::Caller, socket::bind};
use crate::{
    clock::Clock,
    config, control,
    journal::{Entry, Journal},
    smgw,
    time::{Now, Wall},
};

/// Why the interface is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process answers there.
    #[error("{} is in use: another ladewartd is running", .0.display())]
    InUse(PathBuf),
    /// There is something that is not ours to replace.
    #[error("{} is there already and is no socket; remove it or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("the socket {} cannot be made", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The descriptors that were compiled in are wrong: a defect of this program.
    #[error("the interface cannot describe itself")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server ended by itself.
    #[error("the interface ended")]
    Serve(#[from] tonic::transport::Error),
}

/// What the interface needs of the others.
#[derive(Debug)]
pub struct Parts {
    /// The socket's path and its users.
    pub config: config::Api,
    /// The way to the site.
    pub site: control::Handle,
    /// The uplink's state; there may be no uplink.
    pub uplink: Option<watch::Receiver<smgw::Status>>,
    /// The uplink itself, for who tests it.
    pub way: Option<Way>,
    /// The device's own keys and certificates.
    pub identities: Option<crate::identity::Store>,
    /// The evidence.
    pub journal: Journal,
    /// The clocks.
    pub clock: Clock,
    /// From [`bind`].
    pub listener: UnixListener,
}

/// The uplink and the backend behind it.
#[derive(Debug, Clone)]
pub struct Way {
    /// The uplink.
    pub uplink: smgw::Uplink,
    /// The backend, if there is one.
    pub backend: Option<smgw::BackendDialer>,
}

/// Largest request in bytes.
const MAX_MESSAGE: usize = 1 << 20;
/// Most calls of one connection at a time.
const MAX_STREAMS: u32 = 64;
/// A peer that is asked whether it is there answers within this time, or its connection ends.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long calls that run may take to end when the daemon stops.
const DRAIN: Duration = Duration::from_secs(2);

/// What every service holds.
#[derive(Debug, Clone)]
struct Context {
    site: control::Handle,
    uplink: Option<watch::Receiver<smgw::Status>>,
    way: Option<Way>,
    identities: Option<crate::identity::Store>,
    journal: Journal,
    clock: Clock,
    started: Wall,
}

impl Context {
    fn now(&self) -> Now {
        self.clock.now()
    }

    fn view(&self) -> Arc<crate::site::View> {
        self.site.view().borrow().clone()
    }

    /// Keeps who changed what; an error says that it holds but is not recorded.
    async fn record(
        &self,
        kind: &str,
        subject: &str,
        actor: String,
        body: serde_json::Value,
    ) -> Result<(), Status> {
        let entry =
            Entry { at: self.now().wall, kind: kind.to_owned(), subject: subject.to_owned(), actor, body };
        match self.journal.append(vec![entry]).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(convert::storage(&error)),
            Err(_) => Err(Status::unavailable("done, but not recorded: the journal is closed")),
        }
    }

    fn uplink(&self) -> Option<smgw::Status> {
        self.uplink.as_ref().map(|status| status.borrow().clone())
    }
}

async fn serving<S: NamedService>(health: &HealthReporter, service: S) -> S {
    health.set_service_status(S::NAME, ServingStatus::Serving).await;
    service
}

/// Serves until `stop`. Calls that run then get a short time to end; streams end with UNAVAILABLE.
pub async fn run(parts: Parts, stop: CancellationToken) -> Result<(), Error> {
    let Parts { config, site, uplink, way, identities, journal, clock, listener } = parts;
    let context = Context { site, uplink, way, identities, journal, clock, started: clock.now().wall };
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(ladewart_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let (health, health_service) = tonic_health::server::health_reporter();

    let of = || context.clone();
    let services = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(16 << 10)
        .layer(drain::layer(stop.clone()))
        .layer(authz::Gate::new(&config.users))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(
            serving(
                &health,
                SiteServiceServer::new(site::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        )
        .add_service(
            serving(
                &health,
                GridServiceServer::new(grid::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        )
        .add_service(
            serving(
                &health,
                EvseServiceServer::new(evse::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        )
        .add_service(
            serving(
                &health,
                MeterServiceServer::new(meter::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        )
        .add_service(
            serving(
                &health,
                UplinkServiceServer::new(uplink::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        )
        .add_service(
            serving(
                &health,
                IdentityServiceServer::new(identity::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        )
        .add_service(
            serving(
                &health,
                JournalServiceServer::new(journal::Service::new(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        )
        .add_service(
            serving(
                &health,
                SystemServiceServer::new(system::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        );

    tracing::info!(socket = %config.socket.display(), "the interface is open");
    let serve = services
        .serve_with_incoming_shutdown(incoming::connections(listener), stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    let result = tokio::select! {
        result = serve => result.map_err(Error::from),
        () = overdue => {
            tracing::warn!("some callers did not take the end of their answers");
            Ok(())
        }
    };
    // The next start would replace the file anyway; without it a client learns at once that nobody is there.
    let _ = std::fs::remove_file(&config.socket);
    result
}

#[cfg(test)]
mod tests;

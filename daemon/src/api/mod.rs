//! gRPC, on a Unix socket and on every authenticated stream: shows the site, steers it, hands out the evidence.
//!
//! In: calls, each from a [`Peer`] whom the transport vouches for. Out: commands to the site's owner, pictures of the
//! site, pages of the journal.
//!
//! Invariant: no call reaches a service before [`authz`] has found its method in the table and the caller's role
//! in the method's row. A slow reader holds up nobody but itself: streams take the latest picture when their
//! reader is ready, and nothing is queued for them.
//!
//! ```text
//! accept (bounded per peer) → authz → service → response, cut off when the daemon stops
//! ```

pub(crate) mod authz;
mod caller;
mod convert;
mod device;
mod drain;
mod evse;
mod grid;
mod identity;
mod incoming;
mod journal;
mod meter;
mod refusals;
mod site;
mod socket;
mod system;
mod tariff;
mod transaction;
mod update;
mod uplink;
mod variable;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use ladewart_proto::v1::{
    device_service_server::DeviceServiceServer, evse_service_server::EvseServiceServer,
    grid_service_server::GridServiceServer, identity_service_server::IdentityServiceServer,
    journal_service_server::JournalServiceServer, meter_service_server::MeterServiceServer,
    site_service_server::SiteServiceServer, system_service_server::SystemServiceServer,
    tariff_service_server::TariffServiceServer, transaction_service_server::TransactionServiceServer,
    update_service_server::UpdateServiceServer, uplink_service_server::UplinkServiceServer,
    variable_service_server::VariableServiceServer,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, server::NamedService, service::Routes, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};

pub use self::{
    caller::{Caller, Peer, Presented},
    incoming::{Place, Places},
    socket::bind,
};
use crate::{
    clock::Clock,
    config, control,
    device::desk::Desk,
    journal::{Entry, Journal},
    ocpp, smgw,
    time::{Now, Wall},
    update::Updates,
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
#[derive(Debug, Clone)]
pub struct Parts {
    /// Who is who.
    pub config: config::Api,
    /// The way to the site.
    pub site: control::Handle,
    /// The uplink's state; there may be no uplink.
    pub uplink: Option<watch::Receiver<smgw::Status>>,
    /// The uplink itself, for who tests it.
    pub way: Option<Way>,
    /// The device's own keys and certificates.
    pub identities: Option<crate::identity::Store>,
    /// The device's own software, if it is updated through this interface.
    pub updates: Option<Updates>,
    /// What hangs on the site's wires.
    pub desk: Option<Desk>,
    /// The way to every EVSE.
    pub orders: ocpp::Orders,
    /// What is billed.
    pub ledger: ocpp::ledger::Ledger,
    /// The evidence.
    pub journal: Journal,
    /// The clocks.
    pub clock: Clock,
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
/// On the socket.
const SOCKET_PULSE: Pulse = (Duration::from_secs(30), Duration::from_secs(30));
/// Over a network, where a dead peer does not show by itself.
const STREAM_PULSE: Pulse = (Duration::from_secs(20), Duration::from_secs(10));
/// A peer begins to speak within this time.
const FIRST_BYTE: Duration = Duration::from_secs(10);
const STOPPING: &str = "the daemon is stopping";
const RETIRED: &str = "this connection is given up; call again over the next one";
/// How long calls that run may take to end when the daemon stops.
const DRAIN: Duration = Duration::from_secs(2);

/// What every service holds.
#[derive(Debug, Clone)]
struct Context {
    site: control::Handle,
    uplink: Option<watch::Receiver<smgw::Status>>,
    way: Option<Way>,
    identities: Option<crate::identity::Store>,
    updates: Option<Updates>,
    desk: Option<Desk>,
    orders: ocpp::Orders,
    ledger: ocpp::ledger::Ledger,
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

/// The interface, ready to be served on whatever carries bytes. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Interface {
    routes: Routes,
    gate: authz::Gate,
    stop: CancellationToken,
}

impl std::fmt::Debug for Interface {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interface").finish_non_exhaustive()
    }
}

/// When a peer that says nothing is asked whether it is there, and how long it has to answer.
type Pulse = (Duration, Duration);

impl Interface {
    /// Everything is served until `stop`.
    #[expect(clippy::too_many_lines, reason = "one line for each service, in the order of the interface")]
    pub async fn new(parts: Parts, stop: CancellationToken) -> Result<Self, Error> {
        let Parts { config, site, uplink, way, identities, updates, desk, orders, ledger, journal, clock } =
            parts;
        let refusals = refusals::Refusals::new(journal.clone());
        let gate = authz::Gate::new(authz::Access::new(&config), refusals, clock);
        let started = clock.now().wall;
        let context =
            Context { site, uplink, way, identities, updates, desk, orders, ledger, journal, clock, started };
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(ladewart_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let (health, health_service) = tonic_health::server::health_reporter();

        let of = || context.clone();
        let mut routes = Routes::builder();
        routes.add_service(health_service);
        routes.add_service(reflection);
        routes.add_service(
            serving(
                &health,
                SiteServiceServer::new(site::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        );
        routes.add_service(
            serving(
                &health,
                GridServiceServer::new(grid::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        );
        routes.add_service(
            serving(
                &health,
                EvseServiceServer::new(evse::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        );
        routes.add_service(
            serving(
                &health,
                TransactionServiceServer::new(transaction::Service(of()))
                    .max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        );
        routes.add_service(
            serving(
                &health,
                MeterServiceServer::new(meter::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        );
        routes.add_service(
            serving(
                &health,
                UplinkServiceServer::new(uplink::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        );
        routes.add_service(
            serving(
                &health,
                IdentityServiceServer::new(identity::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        );
        routes.add_service(
            serving(
                &health,
                JournalServiceServer::new(journal::Service::new(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        );
        routes.add_service(
            serving(
                &health,
                SystemServiceServer::new(system::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        );
        routes.add_service(
            serving(
                &health,
                UpdateServiceServer::new(update::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        );
        routes.add_service(
            serving(
                &health,
                TariffServiceServer::new(tariff::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        );
        routes.add_service(
            serving(
                &health,
                VariableServiceServer::new(variable::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        );
        routes.add_service(
            serving(
                &health,
                DeviceServiceServer::new(device::Service(of())).max_decoding_message_size(MAX_MESSAGE),
            )
            .await,
        );
        Ok(Self { routes: routes.routes(), gate, stop })
    }

    /// Serves the Unix socket from [`bind`] until the stop. Calls that run then get a short time to end; streams end
    /// with UNAVAILABLE.
    pub async fn serve_socket(self, listener: UnixListener, socket: &Path) -> Result<(), Error> {
        tracing::info!(socket = %socket.display(), "the interface is open");
        let (stop, never) = (self.stop.clone(), CancellationToken::new());
        let serve =
            self.serve(incoming::connections(listener), SOCKET_PULSE, &never, stop.clone().cancelled_owned());
        let result = tokio::select! {
            result = serve => result,
            () = overdue(&stop) => {
                tracing::warn!("some callers did not take the end of their answers");
                Ok(())
            }
        };
        // The next start would replace the file anyway; without it a client learns at once that nobody is there.
        let _ = std::fs::remove_file(socket);
        result
    }

    /// Serves one connection, whose peer the caller has authenticated, until it ends, `retire` or the stop. With
    /// `retire` it takes no new calls, its streams end with UNAVAILABLE, and calls that run get a short time. Gives
    /// the reason of its end, in words.
    pub async fn serve_stream(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        retire: CancellationToken,
    ) -> Result<String, Error> {
        let line = incoming::Line::default();
        let connection = incoming::Connection::new(io, peer, line.clone());
        // The connection lives on when tonic has accepted it: its end shows in its being dropped.
        let one = stream::once(async { Ok(connection) }).chain(stream::pending());
        let over = async {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = retire.cancelled() => {}
                () = line.ended.cancelled() => {}
            }
        };
        let overdue = async {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = retire.cancelled() => {}
            }
            tokio::time::sleep(DRAIN).await;
        };
        let silence = async {
            if tokio::time::timeout(FIRST_BYTE, line.heard.cancelled()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        // On the heap: it holds the whole stack of services.
        let serve = Box::pin(self.serve(one, STREAM_PULSE, &retire, over));
        let (why, result) = tokio::select! {
            result = serve => (None, result),
            () = silence => (Some(format!("no call of HTTP/2 within {FIRST_BYTE:?}")), Ok(())),
            () = overdue => (None, Ok(())),
        };
        // What tonic has accepted does not end with its future.
        line.cut.cancel();
        result?;
        let ours = || {
            if self.stop.is_cancelled() {
                STOPPING.to_owned()
            } else if retire.is_cancelled() {
                RETIRED.to_owned()
            } else {
                "the other side did not answer any more".to_owned()
            }
        };
        Ok(why.or_else(|| line.why()).unwrap_or_else(ours))
    }

    /// Who a peer is at this moment, or why it is nobody, in a sentence.
    pub fn caller(&self, peer: &Peer) -> Result<Caller, String> {
        self.gate.caller(peer)
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        incoming: impl Stream<Item = io::Result<incoming::Connection<S>>>,
        (every, within): Pulse,
        retire: &CancellationToken,
        over: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(every))
            .http2_keepalive_timeout(Some(within))
            .http2_max_header_list_size(16 << 10)
            .layer(drain::layer(self.stop.clone(), STOPPING))
            .layer(drain::layer(retire.clone(), RETIRED))
            .layer(self.gate.clone())
            .add_routes(self.routes.clone())
            .serve_with_incoming_shutdown(incoming, over)
            .await
            .map_err(Error::from)
    }
}

/// The time for the end has passed.
async fn overdue(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(DRAIN).await;
}

#[cfg(test)]
pub(crate) mod tests;

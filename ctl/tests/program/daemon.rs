//! The daemon as the program sees it: the services on a socket, with answers made here.

use std::{path::PathBuf, pin::Pin};

use ladewart_proto::v1::{
    self,
    evse_service_server::EvseServiceServer,
    grid_service_server::{GridService, GridServiceServer},
    journal_service_server::{JournalService, JournalServiceServer},
    meter_service_server::{MeterService, MeterServiceServer},
    site_service_server::{SiteService, SiteServiceServer},
    system_service_server::{SystemService, SystemServiceServer},
    transaction_service_server::TransactionServiceServer,
    uplink_service_server::{UplinkService, UplinkServiceServer},
};
use prost_types::Timestamp;
use tokio::{net::UnixListener, sync::watch, task::JoinSet};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{UnixListenerStream, WatchStream},
};
use tonic::{Request, Response, Status, transport::Server};

pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What changes while a test runs.
#[derive(Debug, Clone)]
struct State {
    milliamps: i64,
    journal_intact: bool,
    stopping: bool,
}

pub(crate) struct Daemon {
    pub(crate) socket: PathBuf,
    state: watch::Sender<State>,
    _server: JoinSet<Result<(), tonic::transport::Error>>,
    _dir: tempfile::TempDir,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("l.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (state, shown) =
            watch::channel(State { milliamps: 16_000, journal_intact: true, stopping: false });
        let services = Services(shown);
        let server = Server::builder()
            .add_service(SiteServiceServer::new(services.clone()))
            .add_service(GridServiceServer::new(services.clone()))
            .add_service(EvseServiceServer::new(services.clone()))
            .add_service(TransactionServiceServer::new(services.clone()))
            .add_service(MeterServiceServer::new(services.clone()))
            .add_service(UplinkServiceServer::new(services.clone()))
            .add_service(JournalServiceServer::new(services.clone()))
            .add_service(SystemServiceServer::new(services))
            .serve_with_incoming(UnixListenerStream::new(listener));
        let mut tasks = JoinSet::new();
        tasks.spawn(server);
        Self { socket, state, _server: tasks, _dir: dir }
    }

    pub(crate) fn setpoint(&self, milliamps: i64) {
        self.state.send_modify(|state| state.milliamps = milliamps);
    }

    pub(crate) fn break_journal(&self) {
        self.state.send_modify(|state| state.journal_intact = false);
    }

    pub(crate) fn stop(&self) {
        self.state.send_modify(|state| state.stopping = true);
    }
}

pub(super) const NOON: Timestamp = Timestamp { seconds: 1_795_431_600, nanos: 0 };

#[derive(Clone)]
pub(super) struct Services(watch::Receiver<State>);

pub(super) fn evse(milliamps: i64) -> v1::Evse {
    v1::Evse {
        id: "wb1".into(),
        connected: true,
        status: v1::ConnectorStatus::Charging.into(),
        setpoint: Some(v1::Setpoint { milliamps, confirmed: true, ..Default::default() }),
        ..Default::default()
    }
}

fn site(milliamps: i64) -> v1::Site {
    v1::Site { name: "Depot".into(), at: Some(NOON), evses: vec![evse(milliamps)], ..Default::default() }
}

#[tonic::async_trait]
impl SiteService for Services {
    async fn get_site(
        &self,
        _: Request<v1::GetSiteRequest>,
    ) -> Result<Response<v1::GetSiteResponse>, Status> {
        let site = site(self.0.borrow().milliamps);
        Ok(Response::new(v1::GetSiteResponse { site: Some(site) }))
    }

    async fn explain_evse(
        &self,
        request: Request<v1::ExplainEvseRequest>,
    ) -> Result<Response<v1::ExplainEvseResponse>, Status> {
        let answer = v1::ExplainEvseResponse { evse: request.into_inner().evse, ..Default::default() };
        Ok(Response::new(answer))
    }

    type WatchSiteStream = Answers<v1::WatchSiteResponse>;

    async fn watch_site(
        &self,
        _: Request<v1::WatchSiteRequest>,
    ) -> Result<Response<Self::WatchSiteStream>, Status> {
        let changes = WatchStream::new(self.0.clone()).map(|state| {
            if state.stopping {
                return Err(Status::unavailable("the daemon is stopping"));
            }
            Ok(v1::WatchSiteResponse { site: Some(site(state.milliamps)) })
        });
        // More than a pipe holds, so that a reader that went away is noticed.
        let pictures = changes.map(|change| tokio_stream::iter(vec![change; 500]));
        Ok(Response::new(Box::pin(Flat { outer: Box::pin(pictures), inner: None })))
    }
}

/// Streams of streams, one after the other.
struct Flat<I, T> {
    outer: Pin<Box<dyn Stream<Item = I> + Send>>,
    inner: Option<Pin<Box<dyn Stream<Item = T> + Send>>>,
}

impl<I: Stream<Item = T> + Send + 'static, T> Stream for Flat<I, T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<T>> {
        use std::task::Poll;
        loop {
            if let Some(inner) = &mut self.inner {
                match inner.as_mut().poll_next(cx) {
                    Poll::Ready(None) => self.inner = None,
                    other => return other,
                }
            }
            match self.outer.as_mut().poll_next(cx) {
                Poll::Ready(Some(inner)) => self.inner = Some(Box::pin(inner)),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[tonic::async_trait]
impl GridService for Services {
    async fn set_limit(
        &self,
        request: Request<v1::SetLimitRequest>,
    ) -> Result<Response<v1::SetLimitResponse>, Status> {
        let request = request.into_inner();
        match request.id.as_str() {
            "full" => {
                return Err(Status::resource_exhausted("in force, but not recorded: the storage is full"));
            }
            "denied" => return Err(Status::permission_denied("user 7 has no role here")),
            _ => {}
        }
        let limit = v1::Limit {
            id: request.id,
            watts: request.watts,
            steps: request.steps,
            valid_from: request.valid_from,
            valid_until: request.valid_until,
            ..Default::default()
        };
        Ok(Response::new(v1::SetLimitResponse { limit: Some(limit), change: v1::Change::Created.into() }))
    }

    async fn clear_limit(
        &self,
        request: Request<v1::ClearLimitRequest>,
    ) -> Result<Response<v1::ClearLimitResponse>, Status> {
        let known = request.into_inner().id != "unknown";
        let change = if known { v1::Change::Removed } else { v1::Change::None };
        Ok(Response::new(v1::ClearLimitResponse { change: change.into() }))
    }

    async fn list_limits(
        &self,
        _: Request<v1::ListLimitsRequest>,
    ) -> Result<Response<v1::ListLimitsResponse>, Status> {
        Ok(Response::new(v1::ListLimitsResponse::default()))
    }

    async fn heartbeat(
        &self,
        _: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        Err(Status::failed_precondition(
            "uid:0 has no entry in [[grid.source]], so no heartbeat is expected of it",
        ))
    }

    async fn set_failsafe(
        &self,
        _: Request<v1::SetFailsafeRequest>,
    ) -> Result<Response<v1::SetFailsafeResponse>, Status> {
        Ok(Response::new(v1::SetFailsafeResponse { change: v1::Change::Replaced.into() }))
    }

    async fn list_sources(
        &self,
        _: Request<v1::ListSourcesRequest>,
    ) -> Result<Response<v1::ListSourcesResponse>, Status> {
        Ok(Response::new(v1::ListSourcesResponse::default()))
    }

    async fn get_minimum_power(
        &self,
        _: Request<v1::GetMinimumPowerRequest>,
    ) -> Result<Response<v1::GetMinimumPowerResponse>, Status> {
        Ok(Response::new(v1::GetMinimumPowerResponse { watts: 4_200, ..Default::default() }))
    }

    type WatchLimitsStream = Answers<v1::WatchLimitsResponse>;

    async fn watch_limits(
        &self,
        _: Request<v1::WatchLimitsRequest>,
    ) -> Result<Response<Self::WatchLimitsStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }
}

#[tonic::async_trait]
impl MeterService for Services {
    async fn list_meters(
        &self,
        _: Request<v1::ListMetersRequest>,
    ) -> Result<Response<v1::ListMetersResponse>, Status> {
        Ok(Response::new(v1::ListMetersResponse::default()))
    }
}

#[tonic::async_trait]
impl UplinkService for Services {
    async fn get_uplink_status(
        &self,
        _: Request<v1::GetUplinkStatusRequest>,
    ) -> Result<Response<v1::GetUplinkStatusResponse>, Status> {
        Ok(Response::new(v1::GetUplinkStatusResponse::default()))
    }

    type TestUplinkStream = Answers<v1::TestUplinkResponse>;

    /// The target "emt" is refused by the proxy; every other is reached.
    async fn test_uplink(
        &self,
        request: Request<v1::TestUplinkRequest>,
    ) -> Result<Response<Self::TestUplinkStream>, Status> {
        let good = request.into_inner().target != "emt";
        let link = v1::TestUplinkResponse {
            step: v1::UplinkStep::Link.into(),
            ok: true,
            detail: "han0 is up, and separated from other networks".into(),
            ..Default::default()
        };
        let proxy = v1::TestUplinkResponse {
            step: v1::UplinkStep::Proxy.into(),
            ok: good,
            detail: if good { "SOCKS5 reply 00 succeeded" } else { "proxy reply 02 not allowed by ruleset" }
                .into(),
            advice: if good { "" } else { "Ask the gateway administrator." }.into(),
        };
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(link), Ok(proxy)]))))
    }

    async fn trust_gateway(
        &self,
        request: Request<v1::TrustGatewayRequest>,
    ) -> Result<Response<v1::TrustGatewayResponse>, Status> {
        let within = request.into_inner().within.unwrap_or_default().seconds;
        let until = Timestamp { seconds: NOON.seconds + within, ..NOON };
        Ok(Response::new(v1::TrustGatewayResponse { until: Some(until) }))
    }
}

#[tonic::async_trait]
impl JournalService for Services {
    type ExportJournalStream = Answers<v1::ExportJournalResponse>;

    async fn export_journal(
        &self,
        request: Request<v1::ExportJournalRequest>,
    ) -> Result<Response<Self::ExportJournalStream>, Status> {
        let request = request.into_inner();
        let last = if request.to_sequence == 0 { 100_000 } else { request.to_sequence };
        let entries = (request.from_sequence.max(1)..=last).map(|sequence| {
            let entry = v1::JournalEntry {
                sequence,
                at: Some(NOON),
                kind: "limit.accepted".into(),
                body: "{}".into(),
                ..Default::default()
            };
            Ok(v1::ExportJournalResponse { entry: Some(entry) })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(entries))))
    }

    async fn verify_journal(
        &self,
        _: Request<v1::VerifyJournalRequest>,
    ) -> Result<Response<v1::VerifyJournalResponse>, Status> {
        Ok(Response::new(if self.0.borrow().journal_intact {
            v1::VerifyJournalResponse { intact: true, entries: 9, head: "ab".into(), ..Default::default() }
        } else {
            v1::VerifyJournalResponse {
                entries: 4,
                broken_at: 5,
                problem: "entry 5 is missing".into(),
                ..Default::default()
            }
        }))
    }
}

#[tonic::async_trait]
impl SystemService for Services {
    async fn get_version(
        &self,
        _: Request<v1::GetVersionRequest>,
    ) -> Result<Response<v1::GetVersionResponse>, Status> {
        Ok(Response::new(v1::GetVersionResponse { version: "0.1.0".into(), ..Default::default() }))
    }
}

//! The grid operator and everybody else who speaks gRPC over the daemon's Unix socket.
//!
//! In: the wishes of a test or a story. Out: the daemon's answers, as `ladewart.v1` messages.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use ladewart_proto::v1::{
    ClearLimitRequest, ExplainEvseRequest, ExplainEvseResponse, ExportJournalRequest, GetSiteRequest,
    GetUplinkStatusRequest, GetVersionRequest, JournalEntry, Limit, ListLimitsRequest, SetLimitRequest,
    SetLimitResponse, Site, UplinkStatus, VerifyJournalRequest, VerifyJournalResponse,
    grid_service_client::GridServiceClient, journal_service_client::JournalServiceClient,
    site_service_client::SiteServiceClient, system_service_client::SystemServiceClient,
    uplink_service_client::UplinkServiceClient,
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// A caller on the Unix socket.
#[derive(Debug, Clone)]
pub struct Operator {
    channel: Channel,
}

impl Operator {
    /// Connects when first used; connects again after the daemon was restarted.
    pub fn new(socket: &Path) -> anyhow::Result<Self> {
        let socket: PathBuf = socket.to_owned();
        // The address is not used; the connector knows the socket.
        let channel = Endpoint::try_from("http://ladewart.invalid")?
            .timeout(Duration::from_secs(10))
            .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            }));
        Ok(Self { channel })
    }

    /// The site as one picture.
    pub async fn site(&self) -> anyhow::Result<Site> {
        let mut client = SiteServiceClient::new(self.channel.clone());
        client.get_site(GetSiteRequest {}).await?.into_inner().site.context("the answer holds no site")
    }

    /// Why an EVSE gets what it gets.
    pub async fn explain(&self, evse: &str) -> anyhow::Result<ExplainEvseResponse> {
        let mut client = SiteServiceClient::new(self.channel.clone());
        Ok(client.explain_evse(ExplainEvseRequest { evse: evse.to_owned() }).await?.into_inner())
    }

    /// The uplink.
    pub async fn uplink(&self) -> anyhow::Result<UplinkStatus> {
        let mut client = UplinkServiceClient::new(self.channel.clone());
        let answer = client.get_uplink_status(GetUplinkStatusRequest {}).await?.into_inner();
        answer.uplink.context("the answer holds no uplink")
    }

    /// Sets a limit as it is given.
    pub async fn set_limit(&self, request: SetLimitRequest) -> Result<SetLimitResponse, tonic::Status> {
        GridServiceClient::new(self.channel.clone()).set_limit(request).await.map(tonic::Response::into_inner)
    }

    /// Limits the grid connection's controllable devices until cleared.
    pub async fn limit(&self, id: &str, watts: i64) -> anyhow::Result<Limit> {
        let request = SetLimitRequest {
            id: id.to_owned(),
            watts,
            reason: "lab".to_owned(),
            ..SetLimitRequest::default()
        };
        self.set_limit(request).await?.limit.context("the answer holds no limit")
    }

    /// Ends a limit.
    pub async fn clear(&self, id: &str) -> anyhow::Result<()> {
        let mut client = GridServiceClient::new(self.channel.clone());
        client.clear_limit(ClearLimitRequest { id: id.to_owned() }).await?;
        Ok(())
    }

    /// One limit with its life so far, ended or not.
    pub async fn limit_record(&self, id: &str) -> anyhow::Result<Option<Limit>> {
        let mut client = GridServiceClient::new(self.channel.clone());
        let answer = client.list_limits(ListLimitsRequest { include_ended: true }).await?.into_inner();
        Ok(answer.limits.into_iter().rfind(|l| l.id == id))
    }

    /// All journal entries.
    pub async fn journal(&self) -> anyhow::Result<Vec<JournalEntry>> {
        let mut client = JournalServiceClient::new(self.channel.clone());
        let mut stream = client.export_journal(ExportJournalRequest::default()).await?.into_inner();
        let mut entries = Vec::new();
        while let Some(answer) = stream.message().await? {
            entries.extend(answer.entry);
        }
        Ok(entries)
    }

    /// The daemon's own check of its journal.
    pub async fn verify(&self) -> anyhow::Result<VerifyJournalResponse> {
        let mut client = JournalServiceClient::new(self.channel.clone());
        Ok(client.verify_journal(VerifyJournalRequest {}).await?.into_inner())
    }

    /// Version of daemon and interface.
    pub async fn version(&self) -> anyhow::Result<(String, String)> {
        let answer = SystemServiceClient::new(self.channel.clone()).get_version(GetVersionRequest {}).await?;
        let answer = answer.into_inner();
        Ok((answer.version, answer.api))
    }
}

/// Protobuf time → instant.
#[must_use]
pub fn instant(at: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    at.and_then(|t| Timestamp::new(t.seconds, t.nanos).ok())
}

/// Instant → protobuf time.
#[must_use]
pub fn stamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

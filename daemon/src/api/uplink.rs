//! `UplinkService`.

use std::{pin::Pin, time::Duration};

use futures_util::{FutureExt, Stream, StreamExt, future, stream};
use ladewart_proto::v1::{
    GetUplinkStatusRequest, GetUplinkStatusResponse, TestUplinkRequest, TestUplinkResponse,
    TrustGatewayRequest, TrustGatewayResponse, uplink_service_server::UplinkService,
};
use serde_json::json;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Caller, Context, Way, convert};
use crate::smgw::{Target, Uplink};

/// How long a first certificate is waited for, unless the caller says otherwise.
const WITHIN: Duration = Duration::from_secs(600);

pub(super) struct Service(pub(super) Context);

impl Service {
    fn way(&self) -> Result<&Way, Status> {
        self.0.way.as_ref().ok_or_else(|| Status::failed_precondition("this site has no uplink"))
    }
}

impl Way {
    /// The target of that name; without a name the backend's, or the only one there is.
    fn target(&self, name: &str) -> Result<Target, Status> {
        let all = self.uplink.targets();
        let names: Vec<_> = all.iter().map(Target::name).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        if !name.is_empty() {
            let found = self.uplink.target(name);
            return found.ok_or_else(|| {
                convert::invalid("target", format!("there is no target {name:?}; there are {there}"))
            });
        }
        match (&self.backend, &all[..]) {
            (Some(backend), _) => Ok(backend.target().clone()),
            (None, [only]) => Ok(only.clone()),
            _ => Err(Status::failed_precondition(format!("name a target to test; there are {there}"))),
        }
    }
}

#[tonic::async_trait]
impl UplinkService for Service {
    /// A site without an uplink answers without a status.
    async fn get_uplink_status(
        &self,
        _: Request<GetUplinkStatusRequest>,
    ) -> Result<Response<GetUplinkStatusResponse>, Status> {
        let uplink = self.0.uplink().map(|status| convert::uplink(&status, &self.0.view()));
        Ok(Response::new(GetUplinkStatusResponse { uplink }))
    }

    type TestUplinkStream = Pin<Box<dyn Stream<Item = Result<TestUplinkResponse, Status>> + Send>>;

    async fn test_uplink(
        &self,
        request: Request<TestUplinkRequest>,
    ) -> Result<Response<Self::TestUplinkStream>, Status> {
        let way = self.way()?.clone();
        let target = way.target(&request.into_inner().target)?;
        let (sender, reports) = Uplink::reports();
        // The stream itself carries the test: when its reader is gone, so is the test.
        let test = async move { way.uplink.test(&target, way.backend.as_ref(), sender).await };
        let test = test.into_stream().filter_map(|()| future::ready(None));
        let reports = ReceiverStream::new(reports).map(|report| Ok(convert::report(report)));
        Ok(Response::new(Box::pin(stream::select(reports, test))))
    }

    async fn trust_gateway(
        &self,
        request: Request<TrustGatewayRequest>,
    ) -> Result<Response<TrustGatewayResponse>, Status> {
        let caller = Caller::of(&request)?;
        let within = match request.into_inner().within {
            None => WITHIN,
            Some(span) => match Duration::try_from(span) {
                Ok(span) if !span.is_zero() => span,
                _ => return Err(convert::invalid("within", "is no time; 1 s to 1 h would be right")),
            },
        };
        let within = self.way()?.uplink.trust_next(within).map_err(Status::failed_precondition)?;
        let until = self.0.now().wall + within;
        self.0.record("uplink.trust_armed", "gateway", caller.issuer, json!({ "until": until })).await?;
        Ok(Response::new(TrustGatewayResponse { until: Some(convert::timestamp(until)) }))
    }
}

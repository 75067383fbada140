//! `UplinkService`.

use ladewart_proto::v1::{
    GetUplinkStatusRequest, GetUplinkStatusResponse, uplink_service_server::UplinkService,
};
use tonic::{Request, Response, Status};

use super::{Context, convert};

pub(super) struct Service(pub(super) Context);

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
}

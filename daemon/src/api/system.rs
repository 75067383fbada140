//! `SystemService`.

use ladewart_proto::v1::{GetVersionRequest, GetVersionResponse, system_service_server::SystemService};
use tonic::{Request, Response, Status};

use super::{Context, convert};

pub(super) struct Service(pub(super) Context);

#[tonic::async_trait]
impl SystemService for Service {
    async fn get_version(
        &self,
        _: Request<GetVersionRequest>,
    ) -> Result<Response<GetVersionResponse>, Status> {
        Ok(Response::new(GetVersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: "ladewart.v1".to_owned(),
            started: Some(convert::timestamp(self.0.started)),
        }))
    }
}

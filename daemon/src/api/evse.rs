//! `EvseService`.

use ladewart_proto::v1::{ListEvsesRequest, ListEvsesResponse, evse_service_server::EvseService};
use tonic::{Request, Response, Status};

use super::{Context, convert};

pub(super) struct Service(pub(super) Context);

#[tonic::async_trait]
impl EvseService for Service {
    async fn list_evses(&self, _: Request<ListEvsesRequest>) -> Result<Response<ListEvsesResponse>, Status> {
        let evses = self.0.view().evses.iter().map(convert::evse).collect();
        Ok(Response::new(ListEvsesResponse { evses }))
    }
}

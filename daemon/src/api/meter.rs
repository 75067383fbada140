//! `MeterService`.

use ladewart_proto::v1::{ListMetersRequest, ListMetersResponse, meter_service_server::MeterService};
use tonic::{Request, Response, Status};

use super::{Context, convert};

pub(super) struct Service(pub(super) Context);

#[tonic::async_trait]
impl MeterService for Service {
    async fn list_meters(
        &self,
        _: Request<ListMetersRequest>,
    ) -> Result<Response<ListMetersResponse>, Status> {
        let now = self.0.now();
        let meters = self.0.view().meters.iter().map(|meter| convert::meter(meter, now)).collect();
        Ok(Response::new(ListMetersResponse { meters }))
    }
}

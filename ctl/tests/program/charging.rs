//! Charging points and transactions of the daemon that is played.

use ladewart_proto::v1::{
    self, evse_service_server::EvseService, transaction_service_server::TransactionService,
};
use tonic::{Request, Response, Status};

use super::daemon::{Answers, NOON, Services, evse};

fn status(id: &str) -> Result<String, Status> {
    match id {
        "away" => Err(Status::failed_precondition("the EVSE is not connected")),
        _ => Ok("Accepted".to_owned()),
    }
}

#[tonic::async_trait]
impl EvseService for Services {
    async fn list_evses(
        &self,
        _: Request<v1::ListEvsesRequest>,
    ) -> Result<Response<v1::ListEvsesResponse>, Status> {
        Ok(Response::new(v1::ListEvsesResponse { evses: vec![evse(16_000)] }))
    }

    type WatchEvsesStream = Answers<v1::WatchEvsesResponse>;

    async fn watch_evses(
        &self,
        _: Request<v1::WatchEvsesRequest>,
    ) -> Result<Response<Self::WatchEvsesStream>, Status> {
        let change = |milliamps| Ok(v1::WatchEvsesResponse { evse: Some(evse(milliamps)) });
        Ok(Response::new(Box::pin(tokio_stream::iter([change(16_000), change(6_000)]))))
    }

    async fn authorize_evse(
        &self,
        request: Request<v1::AuthorizeEvseRequest>,
    ) -> Result<Response<v1::AuthorizeEvseResponse>, Status> {
        Ok(Response::new(v1::AuthorizeEvseResponse { status: status(&request.into_inner().id)? }))
    }

    async fn start_charge(
        &self,
        request: Request<v1::StartChargeRequest>,
    ) -> Result<Response<v1::StartChargeResponse>, Status> {
        Ok(Response::new(v1::StartChargeResponse { status: status(&request.into_inner().id)? }))
    }

    async fn stop_charge(
        &self,
        request: Request<v1::StopChargeRequest>,
    ) -> Result<Response<v1::StopChargeResponse>, Status> {
        Ok(Response::new(v1::StopChargeResponse { status: status(&request.into_inner().id)? }))
    }

    async fn unlock_connector(
        &self,
        request: Request<v1::UnlockConnectorRequest>,
    ) -> Result<Response<v1::UnlockConnectorResponse>, Status> {
        Ok(Response::new(v1::UnlockConnectorResponse { status: status(&request.into_inner().id)? }))
    }

    async fn reset_evse(
        &self,
        request: Request<v1::ResetEvseRequest>,
    ) -> Result<Response<v1::ResetEvseResponse>, Status> {
        Ok(Response::new(v1::ResetEvseResponse { status: status(&request.into_inner().id)? }))
    }

    async fn set_availability(
        &self,
        request: Request<v1::SetAvailabilityRequest>,
    ) -> Result<Response<v1::SetAvailabilityResponse>, Status> {
        Ok(Response::new(v1::SetAvailabilityResponse { status: status(&request.into_inner().id)? }))
    }
}

#[tonic::async_trait]
impl TransactionService for Services {
    async fn list_transactions(
        &self,
        _: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsResponse>, Status> {
        Ok(Response::new(v1::ListTransactionsResponse::default()))
    }

    type ExportTransactionsStream = Answers<v1::ExportTransactionsResponse>;

    async fn export_transactions(
        &self,
        _: Request<v1::ExportTransactionsRequest>,
    ) -> Result<Response<Self::ExportTransactionsStream>, Status> {
        let transaction = v1::TransactionRecord { number: 1, started: Some(NOON), ..Default::default() };
        let answer = v1::ExportTransactionsResponse { transaction: Some(transaction) };
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(answer)]))))
    }

    async fn list_dead_letters(
        &self,
        _: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        Ok(Response::new(v1::ListDeadLettersResponse::default()))
    }

    async fn retry_dead_letters(
        &self,
        _: Request<v1::RetryDeadLettersRequest>,
    ) -> Result<Response<v1::RetryDeadLettersResponse>, Status> {
        Ok(Response::new(v1::RetryDeadLettersResponse { count: 2 }))
    }

    async fn discard_dead_letters(
        &self,
        _: Request<v1::DiscardDeadLettersRequest>,
    ) -> Result<Response<v1::DiscardDeadLettersResponse>, Status> {
        Ok(Response::new(v1::DiscardDeadLettersResponse { count: 1 }))
    }
}

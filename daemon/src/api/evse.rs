//! `EvseService`.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
};

use futures_util::{Stream, stream};
use ladewart_proto::v1::{
    AuthorizeEvseRequest, AuthorizeEvseResponse, ListEvsesRequest, ListEvsesResponse, ResetEvseRequest,
    ResetEvseResponse, SetAvailabilityRequest, SetAvailabilityResponse, StartChargeRequest,
    StartChargeResponse, StopChargeRequest, StopChargeResponse, UnlockConnectorRequest,
    UnlockConnectorResponse, WatchEvsesRequest, WatchEvsesResponse, evse_service_server::EvseService,
};
use serde_json::json;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{Caller, Context, convert};
use crate::{
    ids::EvseId,
    ocpp::orders::Action,
    site::{View, view::EvseView},
};

pub(super) struct Service(pub(super) Context);

impl Service {
    /// Has an EVSE do something, on record whatever comes of it.
    async fn order(
        &self,
        caller: Caller,
        id: &str,
        kind: &str,
        body: serde_json::Value,
        action: Action,
    ) -> Result<String, Status> {
        let evse = EvseId::new(id);
        let outcome = self.0.orders.order(&evse, action).await;
        if let Err(crate::ocpp::orders::Failed::Unknown(_)) = &outcome {
            return outcome.map_err(|why| convert::failed(&why));
        }
        let mut body = body;
        body["answer"] = match &outcome {
            Ok(status) => json!(status),
            Err(why) => json!(why.to_string()),
        };
        self.0.record(kind, id, caller.issuer, body).await?;
        outcome.map_err(|why| convert::failed(&why))
    }
}

#[tonic::async_trait]
impl EvseService for Service {
    async fn list_evses(&self, _: Request<ListEvsesRequest>) -> Result<Response<ListEvsesResponse>, Status> {
        let evses = self.0.view().evses.iter().map(convert::evse).collect();
        Ok(Response::new(ListEvsesResponse { evses }))
    }

    type WatchEvsesStream = Pin<Box<dyn Stream<Item = Result<WatchEvsesResponse, Status>> + Send>>;

    async fn watch_evses(
        &self,
        request: Request<WatchEvsesRequest>,
    ) -> Result<Response<Self::WatchEvsesStream>, Status> {
        let only = request.into_inner().id;
        if !only.is_empty() && !self.0.view().evses.iter().any(|evse| evse.id.as_str() == only) {
            return Err(Status::not_found(format!("id: there is no EVSE {only:?}")));
        }
        let mut watch =
            Watch { view: self.0.site.view(), told: HashMap::new(), ready: VecDeque::new(), only };
        watch.look();
        let changes = stream::unfold(watch, |mut watch| async move {
            let evse = watch.next().await?;
            Some((Ok(WatchEvsesResponse { evse: Some(convert::evse(&evse)) }), watch))
        });
        Ok(Response::new(Box::pin(changes)))
    }

    async fn authorize_evse(
        &self,
        request: Request<AuthorizeEvseRequest>,
    ) -> Result<Response<AuthorizeEvseResponse>, Status> {
        let caller = Caller::of(&request)?;
        let AuthorizeEvseRequest { id, id_tag } = request.into_inner();
        let action = Action::Authorize { id_tag: convert::id_tag(id_tag)? };
        // The card is a person's: it is in the transaction, not in the evidence.
        let status = self.order(caller, &id, "evse.authorize", json!({}), action).await?;
        Ok(Response::new(AuthorizeEvseResponse { status }))
    }

    async fn start_charge(
        &self,
        request: Request<StartChargeRequest>,
    ) -> Result<Response<StartChargeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let StartChargeRequest { id, id_tag } = request.into_inner();
        let action = Action::Start { id_tag: convert::id_tag(id_tag)? };
        let status = self.order(caller, &id, "evse.remote-start", json!({}), action).await?;
        Ok(Response::new(StartChargeResponse { status }))
    }

    async fn stop_charge(
        &self,
        request: Request<StopChargeRequest>,
    ) -> Result<Response<StopChargeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let id = request.into_inner().id;
        let status = self.order(caller, &id, "evse.remote-stop", json!({}), Action::Stop).await?;
        Ok(Response::new(StopChargeResponse { status }))
    }

    async fn unlock_connector(
        &self,
        request: Request<UnlockConnectorRequest>,
    ) -> Result<Response<UnlockConnectorResponse>, Status> {
        let caller = Caller::of(&request)?;
        let id = request.into_inner().id;
        let status = self.order(caller, &id, "evse.unlock", json!({}), Action::Unlock).await?;
        Ok(Response::new(UnlockConnectorResponse { status }))
    }

    async fn reset_evse(
        &self,
        request: Request<ResetEvseRequest>,
    ) -> Result<Response<ResetEvseResponse>, Status> {
        let caller = Caller::of(&request)?;
        let ResetEvseRequest { id, hard } = request.into_inner();
        let (body, action) = (json!({ "hard": hard }), Action::Reset { hard });
        let status = self.order(caller, &id, "evse.reset", body, action).await?;
        Ok(Response::new(ResetEvseResponse { status }))
    }

    async fn set_availability(
        &self,
        request: Request<SetAvailabilityRequest>,
    ) -> Result<Response<SetAvailabilityResponse>, Status> {
        let caller = Caller::of(&request)?;
        let SetAvailabilityRequest { id, operative } = request.into_inner();
        let (body, action) = (json!({ "operative": operative }), Action::Availability { operative });
        let status = self.order(caller, &id, "evse.availability", body, action).await?;
        Ok(Response::new(SetAvailabilityResponse { status }))
    }
}

/// What one reader has seen of each EVSE. A slow one sees the latest state, not every step.
struct Watch {
    view: watch::Receiver<Arc<View>>,
    told: HashMap<EvseId, EvseView>,
    ready: VecDeque<EvseView>,
    only: String,
}

impl Watch {
    fn look(&mut self) {
        let view = self.view.borrow_and_update().clone();
        for evse in view.evses.iter().filter(|e| self.only.is_empty() || e.id.as_str() == self.only) {
            if self.told.get(&evse.id) != Some(evse) {
                self.told.insert(evse.id.clone(), evse.clone());
                self.ready.push_back(evse.clone());
            }
        }
    }

    async fn next(&mut self) -> Option<EvseView> {
        loop {
            if let Some(evse) = self.ready.pop_front() {
                return Some(evse);
            }
            self.view.changed().await.ok()?;
            self.look();
        }
    }
}

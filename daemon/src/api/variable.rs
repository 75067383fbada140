//! `VariableService`.

use ladewart_proto::v1::{
    ClearVariableRequest, ClearVariableResponse, ListVariablesRequest, ListVariablesResponse,
    SetVariableRequest, SetVariableResponse, variable_service_server::VariableService,
};
use tonic::{Request, Response, Status};

use super::{Caller, Context, convert};
use crate::variable::Wish;

pub(super) struct Service(pub(super) Context);

#[tonic::async_trait]
impl VariableService for Service {
    async fn set_variable(
        &self,
        request: Request<SetVariableRequest>,
    ) -> Result<Response<SetVariableResponse>, Status> {
        let Caller { issuer, role } = Caller::of(&request)?;
        let SetVariableRequest { name, value, valid_until } = request.into_inner();
        let valid_until = valid_until.map(|at| convert::moment("valid_until", at)).transpose()?;
        let wish = Wish { name, value: Some(value), issuer, role, valid_until };
        let change = self.0.site.set_variable(wish).await.map_err(convert::command)?;
        Ok(Response::new(SetVariableResponse { change: convert::variable_change(change).into() }))
    }

    async fn clear_variable(
        &self,
        request: Request<ClearVariableRequest>,
    ) -> Result<Response<ClearVariableResponse>, Status> {
        let Caller { issuer, role } = Caller::of(&request)?;
        let wish = Wish { name: request.into_inner().name, value: None, issuer, role, valid_until: None };
        let change = self.0.site.set_variable(wish).await.map_err(convert::command)?;
        Ok(Response::new(ClearVariableResponse { change: convert::variable_change(change).into() }))
    }

    async fn list_variables(
        &self,
        _: Request<ListVariablesRequest>,
    ) -> Result<Response<ListVariablesResponse>, Status> {
        let now = self.0.now().wall;
        let offers = self.0.site.offers();
        let variables = convert::variables(&offers.variables, now);
        Ok(Response::new(ListVariablesResponse { variables }))
    }
}

//! `TariffService`.

use std::time::Duration;

use ladewart_proto::v1::{
    AnnounceTariffRequest, AnnounceTariffResponse, ListRatesRequest, ListRatesResponse, ListTariffsRequest,
    ListTariffsResponse, WithdrawTariffRequest, WithdrawTariffResponse, tariff_service_server::TariffService,
};
use tonic::{Request, Response, Status};

use super::{Caller, Context, convert};

/// What is shown without an end.
const DAY: Duration = Duration::from_secs(86_400);
/// Most that is shown at once.
const MOST: Duration = Duration::from_secs(62 * 86_400);

pub(super) struct Service(pub(super) Context);

#[tonic::async_trait]
impl TariffService for Service {
    async fn announce_tariff(
        &self,
        request: Request<AnnounceTariffRequest>,
    ) -> Result<Response<AnnounceTariffResponse>, Status> {
        let caller = Caller::of(&request)?;
        let new = convert::announcement(request.into_inner().announcement, caller.issuer)?;
        let change = self.0.site.announce(new).await.map_err(convert::command)?;
        Ok(Response::new(AnnounceTariffResponse { change: convert::tariff_change(change).into() }))
    }

    async fn withdraw_tariff(
        &self,
        request: Request<WithdrawTariffRequest>,
    ) -> Result<Response<WithdrawTariffResponse>, Status> {
        let caller = Caller::of(&request)?;
        let id = request.into_inner().id;
        let change = self.0.site.withdraw(caller.issuer, id).await.map_err(convert::command)?;
        Ok(Response::new(WithdrawTariffResponse { change: convert::tariff_change(change).into() }))
    }

    async fn list_tariffs(
        &self,
        _: Request<ListTariffsRequest>,
    ) -> Result<Response<ListTariffsResponse>, Status> {
        let offers = self.0.site.offers();
        let announcements = offers.book.by_priority().map(convert::announced).collect();
        Ok(Response::new(ListTariffsResponse { announcements }))
    }

    async fn list_rates(
        &self,
        request: Request<ListRatesRequest>,
    ) -> Result<Response<ListRatesResponse>, Status> {
        let request = request.into_inner();
        let now = self.0.now().wall;
        let offers = self.0.site.offers();
        let evses = offers.evses();
        let evse = match evses.iter().find(|evse| request.evse.is_empty() || evse.as_str() == request.evse) {
            Some(evse) => evse.clone(),
            None => {
                let known: Vec<_> = evses.iter().map(crate::ids::EvseId::as_str).collect();
                let problem =
                    format!("there is no EVSE \"{}\"; there are {}", request.evse, known.join(", "));
                return Err(convert::invalid("evse", problem));
            }
        };
        let from = request.from.map_or(Ok(now), |at| convert::moment("from", at))?;
        let until = request.until.map_or(Ok(from + DAY), |at| convert::moment("until", at))?;
        if until <= from || until > from + MOST {
            return Err(convert::invalid("until", format!("{until} is not within 62 days after {from}")));
        }
        let rates = offers.tariffs(now).rates(&evse, from, until);
        Ok(Response::new(ListRatesResponse { rates: rates.iter().map(convert::rate).collect() }))
    }
}

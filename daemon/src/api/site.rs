//! `SiteService`.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use ladewart_proto::v1::{
    self, GetSiteRequest, GetSiteResponse, WatchSiteRequest, WatchSiteResponse,
    site_service_server::SiteService,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{Context, convert};
use crate::{site::View, smgw};

/// Least time between two pictures if the caller does not say.
const INTERVAL: Duration = Duration::from_millis(200);
/// Least time between two pictures whatever the caller says.
const SHORTEST: Duration = Duration::from_millis(10);

pub(super) struct Service(pub(super) Context);

fn picture(context: &Context) -> v1::Site {
    convert::site(&context.view(), context.uplink().as_ref(), context.now())
}

/// The pictures of one reader. Nothing is kept for it: each picture is taken when it asks.
struct Pictures {
    context: Context,
    view: watch::Receiver<Arc<View>>,
    uplink: Option<watch::Receiver<smgw::Status>>,
    interval: Duration,
    first: bool,
}

impl Pictures {
    async fn next(&mut self) -> Option<v1::Site> {
        if !std::mem::take(&mut self.first) {
            tokio::time::sleep(self.interval).await;
            tokio::select! {
                changed = self.view.changed() => changed.ok()?,
                () = news(&mut self.uplink) => {}
            }
        }
        self.view.borrow_and_update();
        if let Some(status) = &mut self.uplink {
            status.borrow_and_update();
        }
        Some(picture(&self.context))
    }
}

/// Waits for news of the uplink; for ever without one.
async fn news(uplink: &mut Option<watch::Receiver<smgw::Status>>) {
    if let Some(status) = uplink {
        if status.changed().await.is_ok() {
            return;
        }
        *uplink = None;
    }
    std::future::pending::<()>().await;
}

#[tonic::async_trait]
impl SiteService for Service {
    async fn get_site(&self, _: Request<GetSiteRequest>) -> Result<Response<GetSiteResponse>, Status> {
        Ok(Response::new(GetSiteResponse { site: Some(picture(&self.0)) }))
    }

    async fn explain_evse(
        &self,
        request: Request<v1::ExplainEvseRequest>,
    ) -> Result<Response<v1::ExplainEvseResponse>, Status> {
        let evse = request.into_inner().evse;
        let explained =
            self.0.site.explain(crate::ids::EvseId::new(&evse)).await.map_err(convert::command)?;
        let Some(explained) = explained else {
            let known: Vec<_> = self.0.view().evses.iter().map(|e| e.id.to_string()).collect();
            let text = format!("evse: there is no EVSE \"{evse}\"; there are {}", known.join(", "));
            return Err(Status::not_found(text));
        };
        let lines = explained.lines.into_iter();
        Ok(Response::new(v1::ExplainEvseResponse {
            evse: explained.evse,
            granted_milliamps: u32::try_from(explained.granted.0).unwrap_or(0),
            because: explained.because,
            lines: lines.map(|line| v1::ExplanationLine { about: line.about, says: line.says }).collect(),
            changes: explained.changes,
        }))
    }

    type WatchSiteStream = Pin<Box<dyn Stream<Item = Result<WatchSiteResponse, Status>> + Send>>;

    async fn watch_site(
        &self,
        request: Request<WatchSiteRequest>,
    ) -> Result<Response<Self::WatchSiteStream>, Status> {
        let interval = match request.into_inner().min_interval_ms {
            0 => INTERVAL,
            given => Duration::from_millis(given.into()).max(SHORTEST),
        };
        let context = self.0.clone();
        let (view, uplink) = (context.site.view(), context.uplink.clone());
        let pictures = Pictures { context, view, uplink, interval, first: true };
        let answers = stream::unfold(pictures, |mut pictures| async move {
            let site = Some(pictures.next().await?);
            Some((Ok(WatchSiteResponse { site }), pictures))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

//! `GridService`.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, stream};
use ladewart_proto::v1::{
    self, ClearLimitRequest, ClearLimitResponse, GetMinimumPowerRequest, GetMinimumPowerResponse,
    HeartbeatRequest, HeartbeatResponse, ListLimitsRequest, ListLimitsResponse, ListSourcesRequest,
    ListSourcesResponse, SetFailsafeRequest, SetFailsafeResponse, SetLimitRequest, SetLimitResponse,
    WatchLimitsRequest, WatchLimitsResponse, grid_service_server::GridService,
};
use tokio::sync::{broadcast, watch};
use tonic::{Request, Response, Status};

use super::{Caller, Context, convert};
use crate::{
    grid::{Failsafe, Limit, Record, Stage},
    ids::{LimitId, NodeId},
    site::View,
    time::Wall,
    units::Watts,
};

/// How long an answer waits for the picture that shows its limit accepted.
const PICTURE: Duration = Duration::from_millis(200);

pub(super) struct Service(pub(super) Context);

impl Service {
    /// The life so far of a limit that is known to be accepted. The picture may lag behind the command; without
    /// it the answer tells the stage and leaves out the times it does not know.
    async fn accepted(&self, limit: &Limit) -> v1::Limit {
        let find = |view: &View, least| {
            let mut newest_first = view.limits.iter().rev();
            newest_first.find(|record| record.limit == *limit && record.stage >= least).map(convert::limit)
        };
        let mut view = self.0.site.view();
        let shown = view.wait_for(|view| find(view, Stage::Accepted).is_some());
        // Whether it came or not is seen in what the picture holds then.
        let _ = tokio::time::timeout(PICTURE, shown).await.map(|shown| shown.map(drop));
        let view = self.0.view();
        find(&view, Stage::Accepted).unwrap_or_else(|| {
            let mut known = find(&view, Stage::Received).unwrap_or_else(|| convert::command_only(limit));
            known.stage = v1::LimitStage::Accepted.into();
            known
        })
    }
}

#[tonic::async_trait]
impl GridService for Service {
    async fn set_limit(
        &self,
        request: Request<SetLimitRequest>,
    ) -> Result<Response<SetLimitResponse>, Status> {
        let caller = Caller::of(&request)?;
        let wish = convert::set_limit(request.into_inner(), caller, &self.0.view(), self.0.now().wall)?;
        let (limit, change) = self.0.site.set_limit(wish).await.map_err(convert::command)?;
        let record = self.accepted(&limit).await;
        Ok(Response::new(SetLimitResponse { limit: Some(record), change: convert::change(change).into() }))
    }

    async fn clear_limit(
        &self,
        request: Request<ClearLimitRequest>,
    ) -> Result<Response<ClearLimitResponse>, Status> {
        let Caller { issuer, role } = Caller::of(&request)?;
        let id = convert::limit_id(&request.into_inner().id)?;
        let change = self.0.site.clear_limit(id, issuer, role).await.map_err(convert::command)?;
        Ok(Response::new(ClearLimitResponse { change: convert::change(change).into() }))
    }

    async fn list_limits(
        &self,
        request: Request<ListLimitsRequest>,
    ) -> Result<Response<ListLimitsResponse>, Status> {
        let ended_too = request.into_inner().include_ended;
        let view = self.0.view();
        let wanted = view.limits.iter().filter(|record| ended_too || record.ended.is_none());
        Ok(Response::new(ListLimitsResponse { limits: wanted.map(convert::limit).collect() }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let issuer = Caller::of(&request)?.issuer;
        let source = self.0.site.heartbeat(issuer).await.map_err(convert::command)?;
        Ok(Response::new(HeartbeatResponse { source: Some(convert::source(&source)) }))
    }

    async fn set_failsafe(
        &self,
        request: Request<SetFailsafeRequest>,
    ) -> Result<Response<SetFailsafeResponse>, Status> {
        let issuer = Caller::of(&request)?.issuer;
        let SetFailsafeRequest { watts, duration_seconds } = request.into_inner();
        let lasting = Duration::from_secs(duration_seconds.into());
        let chosen = Failsafe { issuer, watts: Watts(watts), lasting };
        let change = self.0.site.set_failsafe(chosen).await.map_err(convert::command)?;
        Ok(Response::new(SetFailsafeResponse { change: convert::change(change).into() }))
    }

    async fn list_sources(
        &self,
        _: Request<ListSourcesRequest>,
    ) -> Result<Response<ListSourcesResponse>, Status> {
        let sources = self.0.view().sources.iter().map(convert::source).collect();
        Ok(Response::new(ListSourcesResponse { sources }))
    }

    async fn get_minimum_power(
        &self,
        _: Request<GetMinimumPowerRequest>,
    ) -> Result<Response<GetMinimumPowerResponse>, Status> {
        Ok(Response::new(convert::minimum(&self.0.view().minimum)))
    }

    type WatchLimitsStream = Pin<Box<dyn Stream<Item = Result<WatchLimitsResponse, Status>> + Send>>;

    async fn watch_limits(
        &self,
        _: Request<WatchLimitsRequest>,
    ) -> Result<Response<Self::WatchLimitsStream>, Status> {
        // Listening begins before the picture is taken, so that nothing falls between the two.
        let changes = self.0.site.limits();
        let view = self.0.site.view();
        let watch = stream::unfold(Watch::new(changes, view), |mut watch| async move {
            let record = watch.next().await?;
            Some((Ok(WatchLimitsResponse { limit: Some(convert::limit(&record)) }), watch))
        });
        Ok(Response::new(Box::pin(watch)))
    }
}

/// One command, over all stages of its life.
type Key = (LimitId, NodeId, Watts, Wall, Option<Wall>, Wall);

fn key(record: &Record) -> Key {
    let limit = &record.limit;
    (limit.id.clone(), limit.node.clone(), limit.watts, limit.valid_from, limit.valid_until, record.received)
}

/// Tells each change once. The broadcast brings every stage to a reader that keeps up; the picture fills in what
/// a reader missed that did not.
struct Watch {
    changes: Option<broadcast::Receiver<Record>>,
    view: watch::Receiver<Arc<View>>,
    told: HashMap<Key, Stage>,
    ready: VecDeque<Record>,
}

impl Watch {
    fn new(changes: broadcast::Receiver<Record>, mut view: watch::Receiver<Arc<View>>) -> Self {
        let present = view.borrow_and_update().clone();
        let told = present.limits.iter().map(|record| (key(record), record.stage)).collect();
        let ready = present.limits.iter().filter(|record| record.ended.is_none()).cloned().collect();
        Self { changes: Some(changes), view, told, ready }
    }

    async fn next(&mut self) -> Option<Record> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(record);
            }
            let change = async {
                match &mut self.changes {
                    Some(changes) => changes.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                change = change => match change {
                    Ok(record) => self.hear(record),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::debug!(missed, "a reader of limits is slow");
                        self.look();
                    }
                    Err(broadcast::error::RecvError::Closed) => self.changes = None,
                },
                changed = self.view.changed() => {
                    changed.ok()?;
                    self.look();
                }
            }
        }
    }

    fn hear(&mut self, record: Record) {
        let told = self.told.entry(key(&record));
        let news = match &told {
            std::collections::hash_map::Entry::Occupied(before) => record.stage > *before.get(),
            std::collections::hash_map::Entry::Vacant(_) => true,
        };
        if news {
            told.insert_entry(record.stage);
            self.ready.push_back(record);
        }
    }

    fn look(&mut self) {
        let present = self.view.borrow_and_update().clone();
        for record in &present.limits {
            self.hear(record.clone());
        }
        // What the site has forgotten needs no memory here.
        if self.told.len() > 2 * present.limits.len() + 64 {
            let known: std::collections::HashSet<_> = present.limits.iter().map(key).collect();
            self.told.retain(|key, _| known.contains(key));
        }
    }
}

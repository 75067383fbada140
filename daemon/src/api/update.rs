//! `UpdateService`: a bundle comes in as a stream, what becomes of it goes out as one.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, stream};
use ladewart_proto::v1::{
    ConfirmUpdateRequest, ConfirmUpdateResponse, GetUpdateStatusRequest, GetUpdateStatusResponse,
    InstallUpdateRequest, InstallUpdateResponse, RollbackUpdateRequest, RollbackUpdateResponse,
    install_update_request::{Begin, Part},
    update_service_server::UpdateService,
};
use tonic::{Request, Response, Status, Streaming};

use super::{Caller, Context, convert};
use crate::update::{Announced, Installation, State, UpdateError, Updates, Upload};

/// The next part of a bundle comes within this time.
const NEXT_PART: Duration = Duration::from_secs(60);

pub(super) struct Service(pub(super) Context);

impl Service {
    fn updates(&self) -> Result<&Updates, Status> {
        self.0.updates.as_ref().ok_or_else(|| {
            Status::failed_precondition(
                "this device is not updated through this interface: its configuration has no table [update]",
            )
        })
    }
}

async fn part(parts: &mut Streaming<InstallUpdateRequest>) -> Result<Option<Part>, Status> {
    let next = tokio::time::timeout(NEXT_PART, parts.message()).await;
    let next = next.map_err(|_| {
        Status::deadline_exceeded(format!("no further part of the bundle within {NEXT_PART:?}"))
    })??;
    next.map(|request| request.part.ok_or_else(|| convert::invalid("part", "is empty"))).transpose()
}

fn announced(begin: &Begin) -> Result<Announced, Status> {
    let sha256 = <[u8; 32]>::try_from(&begin.sha256[..]).map_err(|_| {
        convert::invalid("begin.sha256", format!("has {} bytes; SHA-256 has 32", begin.sha256.len()))
    })?;
    Ok(Announced { size: begin.size, sha256 })
}

/// Works where waiting for a disk holds up nobody.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UpdateError> + Send + 'static,
) -> Result<T, Status> {
    let result = tokio::task::spawn_blocking(work).await;
    result
        .map_err(|_| Status::internal("taking the bundle broke"))?
        .map_err(|error| convert::update_error(&error))
}

/// The bundle's bytes, up to the end of the caller's stream.
async fn receive(mut upload: Upload, parts: &mut Streaming<InstallUpdateRequest>) -> Result<Upload, Status> {
    while let Some(next) = part(parts).await? {
        let Part::Chunk(chunk) = next else {
            return Err(convert::invalid("begin", "came twice; one bundle a call"));
        };
        upload = aside(move || upload.write(&chunk).map(|()| upload)).await?;
    }
    Ok(upload)
}

#[tonic::async_trait]
impl UpdateService for Service {
    async fn get_update_status(
        &self,
        _: Request<GetUpdateStatusRequest>,
    ) -> Result<Response<GetUpdateStatusResponse>, Status> {
        let updates = self.updates()?;
        let status = updates.status().await.map_err(|error| convert::update_error(&error))?;
        let installation = convert::installation(&updates.installation().borrow());
        Ok(Response::new(GetUpdateStatusResponse {
            compatible: status.compatible,
            slots: status.slots.into_iter().map(convert::slot).collect(),
            confirmed: status.confirmed,
            installation: Some(installation),
        }))
    }

    type InstallUpdateStream = Pin<Box<dyn Stream<Item = Result<InstallUpdateResponse, Status>> + Send>>;

    async fn install_update(
        &self,
        request: Request<Streaming<InstallUpdateRequest>>,
    ) -> Result<Response<Self::InstallUpdateStream>, Status> {
        let caller = Caller::of(&request)?;
        let updates = self.updates()?.clone();
        let mut parts = request.into_inner();
        let Some(Part::Begin(begin)) = part(&mut parts).await? else {
            return Err(convert::invalid("part", "the first is to be `begin`"));
        };
        let announced = announced(&begin)?;
        let takes = updates.clone();
        let upload = aside(move || takes.upload(announced)).await?;
        let upload = receive(upload, &mut parts).await?;
        let bundle = aside(move || upload.finish()).await?;
        let progress = updates.installation();
        let number = updates.install(bundle, caller.issuer, begin.restart).await;
        let number = number.map_err(|error| convert::update_error(&error))?;
        let answers = stream::unfold(Some((progress, None)), move |state| async move {
            let (mut progress, shown) = state?;
            // The one before may still be there.
            let news = |i: &Installation| i.number >= number && shown.as_ref() != Some(i);
            let now = progress.wait_for(news).await.ok()?.clone();
            match now.state {
                State::Failed if now.number == number => {
                    Some((Err(Status::invalid_argument(now.message)), None))
                }
                State::Running if now.number == number => {
                    let answer = InstallUpdateResponse { installation: Some(convert::installation(&now)) };
                    Some((Ok(answer), Some((progress, Some(now)))))
                }
                _ => Some((
                    Ok(InstallUpdateResponse { installation: Some(convert::installation(&now)) }),
                    None,
                )),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn confirm_update(
        &self,
        request: Request<ConfirmUpdateRequest>,
    ) -> Result<Response<ConfirmUpdateResponse>, Status> {
        let caller = Caller::of(&request)?;
        let slot = self.updates()?.confirm(&caller.issuer).await;
        let slot = slot.map_err(|error| convert::update_error(&error))?;
        Ok(Response::new(ConfirmUpdateResponse { slot }))
    }

    async fn rollback_update(
        &self,
        request: Request<RollbackUpdateRequest>,
    ) -> Result<Response<RollbackUpdateResponse>, Status> {
        let caller = Caller::of(&request)?;
        let slot = self.updates()?.rollback(&caller.issuer, request.into_inner().restart).await;
        let slot = slot.map_err(|error| convert::update_error(&error))?;
        Ok(Response::new(RollbackUpdateResponse { slot }))
    }
}

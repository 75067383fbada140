//! `TransactionService`.

use std::{collections::HashMap, pin::Pin, vec};

use futures_util::{Stream, stream};
use ladewart_proto::v1::{
    self, DiscardDeadLettersRequest, DiscardDeadLettersResponse, ExportTransactionsRequest,
    ExportTransactionsResponse, ListDeadLettersRequest, ListDeadLettersResponse, ListTransactionsRequest,
    ListTransactionsResponse, RetryDeadLettersRequest, RetryDeadLettersResponse,
    transaction_service_server::TransactionService,
};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{Caller, Context, convert};
use crate::{
    ids::EvseId,
    ocpp::ledger::{Filter, Ledger, Session},
};

const PAGE: usize = 100;
const MOST: usize = 1000;
/// Entries read at once for an export.
const CHUNK: usize = 256;
const MOST_LETTERS: usize = 10_000;

pub(super) struct Service(pub(super) Context);

/// EVSE by identity, as the site is now.
type Names = HashMap<String, String>;

impl Service {
    fn names(&self) -> Names {
        self.0.view().evses.iter().map(|e| (e.identity.to_string(), e.id.to_string())).collect()
    }

    fn identity(&self, evse: &str) -> Result<Option<String>, Status> {
        if evse.is_empty() {
            return Ok(None);
        }
        let found = self.names().into_iter().find(|(_, id)| id == evse);
        found
            .map(|(identity, _)| Some(identity))
            .ok_or_else(|| Status::not_found(format!("evse_id: there is no EVSE {evse:?}")))
    }

    fn filter(&self, filter: Option<v1::TransactionFilter>) -> Result<Filter, Status> {
        let v1::TransactionFilter { evse_id, from, to, running } = filter.unwrap_or_default();
        Ok(Filter {
            identity: self.identity(&evse_id)?,
            from: convert::wall("filter.from", from)?,
            to: convert::wall("filter.to", to)?,
            running,
        })
    }
}

/// An export under way. Holds one page and nothing of the storage.
struct Export {
    ledger: Ledger,
    filter: Filter,
    names: Names,
    page: vec::IntoIter<Session>,
    last: Option<i64>,
    ended: bool,
}

impl Export {
    async fn next(&mut self) -> Result<Option<Session>, Status> {
        loop {
            if let Some(session) = self.page.next() {
                return Ok(Some(session));
            }
            if self.ended {
                return Ok(None);
            }
            let page = self.ledger.sessions(self.filter.clone(), self.last, false, CHUNK).await;
            let page = page.map_err(|error| convert::storage(&error))?;
            self.ended = page.len() < CHUNK;
            self.last = page.last().map(|last| last.number).or(self.last);
            self.page = page.into_iter();
        }
    }
}

#[tonic::async_trait]
impl TransactionService for Service {
    async fn list_transactions(
        &self,
        request: Request<ListTransactionsRequest>,
    ) -> Result<Response<ListTransactionsResponse>, Status> {
        let ListTransactionsRequest { filter, page_size, page } = request.into_inner();
        let most = match page_size {
            0 => PAGE,
            n => usize::try_from(n).unwrap_or(MOST).min(MOST),
        };
        let filter = self.filter(filter)?;
        let after = (page > 0).then_some(page);
        let sessions = self.0.ledger.sessions(filter, after, true, most).await;
        let sessions = sessions.map_err(|error| convert::storage(&error))?;
        let next = sessions.last().filter(|_| sessions.len() == most).map_or(0, |last| last.number);
        let names = self.names();
        let transactions = sessions.into_iter().map(|s| convert::transaction(s, &names)).collect();
        Ok(Response::new(ListTransactionsResponse { transactions, next }))
    }

    type ExportTransactionsStream =
        Pin<Box<dyn Stream<Item = Result<ExportTransactionsResponse, Status>> + Send>>;

    async fn export_transactions(
        &self,
        request: Request<ExportTransactionsRequest>,
    ) -> Result<Response<Self::ExportTransactionsStream>, Status> {
        let export = Export {
            ledger: self.0.ledger.clone(),
            filter: self.filter(request.into_inner().filter)?,
            names: self.names(),
            page: Vec::new().into_iter(),
            last: None,
            ended: false,
        };
        let sessions = stream::try_unfold(export, |mut export| async move {
            let session = export.next().await?;
            Ok(session.map(|session| {
                let transaction = Some(convert::transaction(session, &export.names));
                (ExportTransactionsResponse { transaction }, export)
            }))
        });
        Ok(Response::new(Box::pin(sessions)))
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let identity = self.identity(&request.into_inner().evse_id)?;
        let letters = self.0.ledger.dead_letters(identity, MOST_LETTERS).await;
        let names = self.names();
        let letters = letters.map_err(|error| convert::storage(&error))?;
        let letters = letters.into_iter().map(|letter| convert::dead_letter(letter, &names)).collect();
        Ok(Response::new(ListDeadLettersResponse { letters }))
    }

    async fn retry_dead_letters(
        &self,
        request: Request<RetryDeadLettersRequest>,
    ) -> Result<Response<RetryDeadLettersResponse>, Status> {
        let caller = Caller::of(&request)?;
        let RetryDeadLettersRequest { evse_id, sequence } = request.into_inner();
        let (evse, only) = (EvseId::new(&evse_id), (sequence != 0).then_some(sequence));
        let revived = self.0.orders.revive(&evse, only).await.map_err(|why| convert::failed(&why))?;
        let count = convert::count(revived.map_err(|error| convert::storage(&error))?);
        let body = json!({ "count": count, "sequence": only });
        self.0.record("backend.retry", &evse_id, caller.issuer, body).await?;
        Ok(Response::new(RetryDeadLettersResponse { count }))
    }

    async fn discard_dead_letters(
        &self,
        request: Request<DiscardDeadLettersRequest>,
    ) -> Result<Response<DiscardDeadLettersResponse>, Status> {
        let caller = Caller::of(&request)?;
        let DiscardDeadLettersRequest { evse_id, sequence } = request.into_inner();
        let (evse, only) = (EvseId::new(&evse_id), (sequence != 0).then_some(sequence));
        let discarded = self.0.orders.discard(&evse, only).await.map_err(|why| convert::failed(&why))?;
        let count = convert::count(discarded.map_err(|error| convert::storage(&error))?);
        let body = json!({ "count": count, "sequence": only });
        self.0.record("backend.discard", &evse_id, caller.issuer, body).await?;
        Ok(Response::new(DiscardDeadLettersResponse { count }))
    }
}

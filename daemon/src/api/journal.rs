//! `JournalService`.

use std::{pin::Pin, vec};

use futures_util::{Stream, stream};
use ladewart_proto::v1::{
    ExportJournalRequest, ExportJournalResponse, VerifyJournalRequest, VerifyJournalResponse,
    journal_service_server::JournalService,
};
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

use super::{Context, convert};
use crate::journal::{Journal, Stored};

/// Entries read at once for an export.
const PAGE: usize = 256;

pub(super) struct Service {
    context: Context,
    /// Recomputing a long chain takes a core: one at a time.
    verifying: Mutex<()>,
}

impl Service {
    pub(super) fn new(context: Context) -> Self {
        Self { context, verifying: Mutex::new(()) }
    }
}

/// An export under way. Holds one page and nothing of the storage, so that a slow reader costs nobody else.
struct Export {
    journal: Journal,
    page: vec::IntoIter<Stored>,
    next: u64,
    to: u64,
    kind: String,
    subject: String,
    ended: bool,
}

impl Export {
    async fn entry(&mut self) -> Result<Option<Stored>, Status> {
        loop {
            if let Some(stored) = self.page.next() {
                return Ok(Some(stored));
            }
            if self.ended {
                return Ok(None);
            }
            let page = self.journal.page_of(self.next, self.to, &self.kind, &self.subject, PAGE).await;
            let page = page.map_err(|error| convert::storage(&error))?;
            self.ended = page.len() < PAGE;
            self.next = page.last().map_or(self.next, |last| last.sequence + 1);
            self.page = page.into_iter();
        }
    }
}

#[tonic::async_trait]
impl JournalService for Service {
    type ExportJournalStream = Pin<Box<dyn Stream<Item = Result<ExportJournalResponse, Status>> + Send>>;

    async fn export_journal(
        &self,
        request: Request<ExportJournalRequest>,
    ) -> Result<Response<Self::ExportJournalStream>, Status> {
        let ExportJournalRequest { from_sequence, to_sequence, kind, subject } = request.into_inner();
        if to_sequence != 0 && to_sequence < from_sequence {
            let problem = format!("{to_sequence} lies before from_sequence, {from_sequence}");
            return Err(convert::invalid("to_sequence", problem));
        }
        let export = Export {
            journal: self.context.journal.clone(),
            page: Vec::new().into_iter(),
            next: from_sequence,
            to: to_sequence,
            kind: convert::kind(kind)?,
            subject,
            ended: false,
        };
        let entries = stream::try_unfold(export, |mut export| async move {
            let stored = export.entry().await?;
            Ok(stored.map(|stored| (ExportJournalResponse { entry: Some(convert::entry(stored)) }, export)))
        });
        Ok(Response::new(Box::pin(entries)))
    }

    async fn verify_journal(
        &self,
        _: Request<VerifyJournalRequest>,
    ) -> Result<Response<VerifyJournalResponse>, Status> {
        let _turn = self.verifying.lock().await;
        let verdict = self.context.journal.verify().await.map_err(|error| convert::storage(&error))?;
        Ok(Response::new(VerifyJournalResponse {
            intact: verdict.intact,
            entries: verdict.entries,
            head: convert::hex(&verdict.head),
            broken_at: verdict.broken_at,
            problem: verdict.problem,
            from_sequence: verdict.from,
            signed_sequence: verdict.signed,
            keys: verdict.keys,
        }))
    }
}

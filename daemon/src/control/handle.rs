//! The way to the site for everybody else.

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::{
    config::Role,
    grid::{Change, Failsafe, Limit, Record, Refusal, Wish},
    ids::LimitId,
    site::{View, view::SourceView},
    store::StoreError,
};

/// Why a command was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    /// The wish itself is wrong, or not the caller's to make.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is in force, but the evidence is not stored.
    #[error("in force, but not recorded: {0}")]
    NotRecorded(#[from] StoreError),
    /// The caller is none of those that must be heard from.
    #[error("{0} has no entry in [[grid.source]], so no heartbeat is expected of it")]
    NoSource(String),
    /// The daemon is going down.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Commands to the owner of the site.
#[derive(Debug)]
pub(crate) enum Command {
    /// Set a limit.
    SetLimit(Wish, oneshot::Sender<Result<Synced<(Limit, Change)>, CommandError>>),
    /// End a limit.
    ClearLimit {
        id: LimitId,
        issuer: String,
        role: Role,
        reply: oneshot::Sender<Result<Synced<Change>, CommandError>>,
    },
    /// A source is alive.
    Heartbeat { issuer: String, reply: oneshot::Sender<Result<SourceView, CommandError>> },
    /// A source chooses what holds in its absence.
    SetFailsafe { chosen: Failsafe, reply: oneshot::Sender<Result<Synced<Change>, CommandError>> },
}

/// A result that may be told once the journal is synced.
#[derive(Debug)]
pub(crate) struct Synced<T> {
    pub(crate) value: T,
    pub(crate) stored: oneshot::Receiver<Result<(), StoreError>>,
}

impl<T> Synced<T> {
    async fn wait(self) -> Result<T, CommandError> {
        match self.stored.await {
            Ok(Ok(())) => Ok(self.value),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(CommandError::Stopping),
        }
    }
}

/// The way to the site. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) limits: broadcast::Sender<Record>,
}

impl Handle {
    /// The latest picture; changes are signalled.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Each change of a limit's life from now on. A slow reader is told how many it missed.
    #[must_use]
    pub fn limits(&self) -> broadcast::Receiver<Record> {
        self.limits.subscribe()
    }

    /// Puts a limit in force at once; returns after the evidence is synced.
    pub async fn set_limit(&self, wish: Wish) -> Result<(Limit, Change), CommandError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::SetLimit(wish, reply)).await.map_err(|_| CommandError::Stopping)?;
        answer.await.map_err(|_| CommandError::Stopping)??.wait().await
    }

    /// Ends a limit; returns after the evidence is synced. Issuers end their own limits, `admin` every one.
    pub async fn clear_limit(&self, id: LimitId, issuer: String, role: Role) -> Result<Change, CommandError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::ClearLimit { id, issuer, role, reply };
        self.commands.send(command).await.map_err(|_| CommandError::Stopping)?;
        answer.await.map_err(|_| CommandError::Stopping)??.wait().await
    }

    /// A source is alive; returns where it stands.
    pub async fn heartbeat(&self, issuer: String) -> Result<SourceView, CommandError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Heartbeat { issuer, reply };
        self.commands.send(command).await.map_err(|_| CommandError::Stopping)?;
        answer.await.map_err(|_| CommandError::Stopping)?
    }

    /// What shall hold in a source's absence; returns after it is on the disk.
    pub async fn set_failsafe(&self, chosen: Failsafe) -> Result<Change, CommandError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::SetFailsafe { chosen, reply };
        self.commands.send(command).await.map_err(|_| CommandError::Stopping)?;
        answer.await.map_err(|_| CommandError::Stopping)??.wait().await
    }
}

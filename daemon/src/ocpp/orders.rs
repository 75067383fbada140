//! What people want of an EVSE, whatever protocol it speaks: start, stop, unlock, reset; and of its dead letters.
//!
//! In: [`Action`]s for an EVSE. Out: what the EVSE answered, or why there is no answer. Invariant: an order waits for
//! its turn in the route of its EVSE, and every order has exactly one outcome.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::{
    Version,
    route::{NoAnswer, Order},
    v2, v16,
};
use crate::{ids::EvseId, store::StoreError};

/// Something that an EVSE can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin a charge for a card, unless it is known not to be welcome.
    Authorize {
        /// The card.
        id_tag: String,
    },
    /// Begin a charge.
    Start {
        /// For whom.
        id_tag: String,
    },
    /// End the running charge.
    Stop,
    /// Let go of the plug.
    Unlock,
    /// Start again.
    Reset {
        /// Without ending the charge in an orderly way.
        hard: bool,
    },
    /// In or out of service.
    Availability {
        /// In service.
        operative: bool,
    },
}

/// Why an EVSE did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// There is no such EVSE.
    #[error("there is no EVSE \"{0}\"")]
    Unknown(EvseId),
    /// It is not there.
    #[error("the EVSE is not connected")]
    Away,
    /// It was asked in vain.
    #[error("the EVSE did not answer")]
    Silent,
    /// It does not want to.
    #[error("the EVSE answered {0}")]
    Refused(String),
    /// It cannot.
    #[error("the EVSE does not know how: {0}")]
    Unsupported(String),
    /// There is nothing to do it to.
    #[error("{0}")]
    Nothing(String),
    /// The daemon is going down.
    #[error("the daemon is stopping")]
    Stopping,
}

impl From<NoAnswer> for Failed {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Away => Self::Away,
            NoAnswer::Silent => Self::Silent,
            NoAnswer::Error(code) if code == "NotImplemented" || code == "NotSupported" => {
                Self::Unsupported(code)
            }
            NoAnswer::Error(code) => Self::Refused(code),
        }
    }
}

type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// To the task of a station.
#[derive(Debug)]
pub(super) enum Command {
    Order(Action, Reply<String, Failed>),
    Revive(Option<i64>, Reply<usize, StoreError>),
    Discard(Option<i64>, Reply<usize, StoreError>),
}

/// Where a station finds what is wanted of it.
#[derive(Debug)]
pub struct Inbox(pub(super) mpsc::Receiver<Command>);

/// The way to every station. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Orders(Arc<HashMap<EvseId, mpsc::Sender<Command>>>);

impl Orders {
    /// The way to these EVSEs, and their ends of it in the same order.
    pub fn new<'a>(evses: impl IntoIterator<Item = &'a EvseId>) -> (Self, Vec<Inbox>) {
        let mut ways = HashMap::new();
        let mut inboxes = Vec::new();
        for evse in evses {
            let (way, inbox) = mpsc::channel(16);
            ways.insert(evse.clone(), way);
            inboxes.push(Inbox(inbox));
        }
        (Self(Arc::new(ways)), inboxes)
    }

    async fn ask<T, E>(
        &self,
        evse: &EvseId,
        command: impl FnOnce(Reply<T, E>) -> Command,
    ) -> Result<Result<T, E>, Failed> {
        let way = self.0.get(evse).ok_or_else(|| Failed::Unknown(evse.clone()))?;
        let (reply, answer) = oneshot::channel();
        // Whoever is let through to its backend takes no orders from here.
        way.send(command(reply)).await.map_err(|_| Failed::Away)?;
        answer.await.map_err(|_| Failed::Stopping)
    }

    /// Has an EVSE do something; gives its consent in its own word.
    pub async fn order(&self, evse: &EvseId, action: Action) -> Result<String, Failed> {
        self.ask(evse, |reply| Command::Order(action, reply)).await?
    }

    /// Lets dead letters of an EVSE wait for the backend again: the one with this number, or all. Gives their count.
    pub async fn revive(&self, evse: &EvseId, seq: Option<i64>) -> Result<Result<usize, StoreError>, Failed> {
        self.ask(evse, |reply| Command::Revive(seq, reply)).await
    }

    /// Drops dead letters for good: the one with this number, or all. Gives their count.
    pub async fn discard(
        &self,
        evse: &EvseId,
        seq: Option<i64>,
    ) -> Result<Result<usize, StoreError>, Failed> {
        self.ask(evse, |reply| Command::Discard(seq, reply)).await
    }
}

/// The orders of one station that are under way.
#[derive(Debug, Default)]
pub(super) struct Desk {
    tickets: u64,
    waiting: HashMap<u64, Reply<String, Failed>>,
}

impl Desk {
    /// What is to be sent for an action; `None` if it has its answer already.
    pub(super) fn take(
        &mut self,
        action: &Action,
        version: Version,
        running: Option<(i64, &str)>,
        reply: Reply<String, Failed>,
    ) -> Option<Order> {
        let order = if version.is_2() {
            v2::order::order(action, running.map(|(_, name)| name), self.tickets + 1)
        } else {
            v16::order::order(action, running.map(|(id, _)| id))
        };
        match order {
            Ok((action, payload)) => {
                self.tickets += 1;
                self.waiting.insert(self.tickets, reply);
                Some(Order { ticket: self.tickets, action, payload })
            }
            Err(why) => {
                // The caller may have gone, here and below.
                let _ = reply.send(Err(why));
                None
            }
        }
    }

    pub(super) fn answered(&mut self, ticket: u64, outcome: Result<String, NoAnswer>) {
        if let Some(reply) = self.waiting.remove(&ticket) {
            let _ = reply.send(outcome.map_err(Failed::from).and_then(|text| v16::order::outcome(&text)));
        }
    }
}

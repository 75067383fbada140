//! `TransactionEvent`, the one transaction message of 2.x (E01 to E14).
//!
//! The transaction id is the EVSE's and stays. It is a text; where a number stands for it, it is made of that text, so
//! that one transaction has one number for ever.

use super::{
    super::{
        frame,
        queue::{End, Op, Transaction, digest},
        table::Kind,
        v2::message::{self, TransactionEvent},
        v16::{draw::draw, message::read},
    },
    After, Asked, Route,
    transactions::FIRST_ID,
};
use crate::{
    site::event::{ConnectorStatus, EvseEvent},
    time::{Now, Wall},
};

impl Route {
    /// An event of a transaction; `signed` if its payload is a JWS.
    pub(super) fn event(&mut self, now: Now, asked: Asked, payload: &str, signed: bool, text: String) {
        let event: TransactionEvent = if signed { read(&message::signed(payload)) } else { read(payload) };
        if let Some(draw) = draw(&event.meter_values(), now) {
            self.tell(EvseEvent::Draw(draw));
        }
        if let Some(status) = event.status() {
            self.finishing = status == ConnectorStatus::Finishing;
            self.tell(EvseEvent::Status { status, error: String::new() });
        }
        let (tx, mut ops) = self.follow(now, &event);
        ops.extend(self.forget_old());
        self.tell_transaction();
        let card = event.id_token.as_ref().map(|t| t.card().to_owned()).unwrap_or_default();
        if self.rules.backend.is_some() {
            self.keep(now, asked, Kind::Event, text, tx, ops);
        } else {
            let payload = self.event_answer(&card, now.wall);
            let answer = frame::result(&asked.id, &payload);
            self.store(ops, After::Alone(asked, answer));
        }
    }

    /// The answer in the backend's place: a verdict only where a card was shown.
    pub(super) fn event_answer(&self, card: &str, now: Wall) -> String {
        if card.is_empty() {
            return "{}".to_owned();
        }
        message::verdict_answer(&self.verdict(card, now))
    }

    /// Keeps track of which transaction runs.
    fn follow(&mut self, now: Now, event: &TransactionEvent) -> (Option<i64>, Vec<Op>) {
        let name = event.transaction();
        if name.is_empty() {
            return (None, vec![]);
        }
        let id = number_of(name);
        let ended = event.event_type == "Ended";
        let end = ended.then(|| End {
            at: Wall::parse(&event.timestamp).unwrap_or(now.wall),
            meter: event.last_energy(),
            reason: event.stopped_reason(),
        });
        let known = self.transactions.iter_mut().rev().find(|t| t.id == id);
        let changed = match known {
            Some(known) => {
                let changed = known.ended != ended && ended;
                known.ended |= ended;
                if changed {
                    known.end = end;
                }
                changed.then(|| known.clone())
            }
            None => {
                let card = event.id_token.as_ref().map(|t| t.card().to_owned()).unwrap_or_default();
                let transaction = Transaction {
                    id,
                    backend_id: None,
                    told: true,
                    dead: false,
                    ended,
                    connector: event.evse.as_ref().and_then(|e| e.id).unwrap_or(1),
                    id_tag: card,
                    started: Wall::parse(&event.timestamp).unwrap_or(now.wall),
                    meter_start: event.energy().unwrap_or_default(),
                    sameness: name.to_owned(),
                    message_id: String::new(),
                    local: self.rules.backend.is_none(),
                    end,
                };
                self.transactions.push(transaction.clone());
                Some(transaction)
            }
        };
        (Some(id), changed.into_iter().map(|t| Op::Transaction(Box::new(t))).collect())
    }

    /// Whether an event of this transaction, or of any, waits here.
    pub(super) fn events_wait(&self, transaction: Option<&str>) -> bool {
        let id = transaction.map(number_of);
        self.queue.iter().any(|e| e.message.kind == Kind::Event && (id.is_none() || e.message.tx == id))
    }
}

/// The number that stands for a transaction's name: from the range of our own ids.
pub(super) fn number_of(name: &str) -> i64 {
    FIRST_ID | (digest(name) & (FIRST_ID - 1))
}

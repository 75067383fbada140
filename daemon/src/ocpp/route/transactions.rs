//! Which transactions there are, and by which id each side knows them (G-23, G-26).
//!
//! ```text
//!   StartTransaction ─→ provisional id, known to the EVSE ──┬─ answered in time: the EVSE has the backend's id
//!                                                           ├─ answered later:   translated both ways
//!                                                           └─ dead:             -1 towards the backend
//! ```

use super::{
    super::{
        frame,
        queue::{End, Message, Op, Transaction},
        table::Kind,
        v16::message::{self, IdTagInfo, StartTransaction, StopTransaction, Verdict},
    },
    After, Asked, Route,
};
use crate::{
    site::event::{self, EvseEvent},
    time::{Now, Wall},
    units::WattHours,
};

/// First of our own transaction ids; backends count from 1. The last is `i32::MAX`, which every box can hold.
pub(super) const FIRST_ID: i64 = 1 << 30;
/// How many ended transactions are remembered, for closing values and repeated stops.
const ENDED: usize = 16;
/// How many open ones: a box that never stops any shall not fill the memory.
const OPEN: usize = 64;

impl Route {
    /// The transaction that the EVSE or the backend calls so: the EVSE's name counts first, the newest first.
    fn transaction(&mut self, id: i64) -> Option<&mut Transaction> {
        let at = self.transactions.iter().rposition(|t| t.known_as() == id);
        let at = at.or_else(|| self.transactions.iter().rposition(|t| t.is(id)))?;
        self.transactions.get_mut(at)
    }

    /// `StartTransaction`.
    pub(super) fn start(&mut self, now: Now, asked: Asked, payload: &str, text: String) {
        let message: StartTransaction = message::read(payload);
        let sameness = message.sameness();
        let key = asked.id.key().to_owned();
        let again = |t: &&Transaction| t.sameness == sameness && (!t.ended || t.message_id == key);
        if let Some(id) = self.transactions.iter().rev().find(again).map(|t| t.id) {
            return self.start_again(now, asked, id);
        }
        let id = loop {
            let id = self.rng.i64(FIRST_ID..=i64::from(i32::MAX));
            if self.transactions.iter().all(|t| !t.is(id)) {
                break id;
            }
        };
        let transaction = Transaction {
            id,
            backend_id: None,
            told: true,
            dead: false,
            ended: false,
            connector: message.connector_id.unwrap_or(1),
            id_tag: message.id_tag.clone(),
            started: Wall::parse(&message.timestamp).unwrap_or(now.wall),
            meter_start: message.energy().0,
            sameness,
            message_id: key,
            local: self.rules.backend.is_none(),
            end: None,
        };
        let mut ops = vec![Op::Transaction(Box::new(transaction.clone()))];
        self.transactions.push(transaction);
        ops.extend(self.forget_old());
        if self.rules.backend.is_some() {
            self.keep(now, asked, Kind::Start, text, Some(id), ops);
        } else {
            self.tell_transaction();
            let payload = message::start_answer(id, &self.verdict(&message.id_tag, now.wall));
            let answer = frame::result(&asked.id, &payload);
            self.store(ops, After::Alone(asked, answer));
        }
    }

    /// The EVSE did not get the answer to its StartTransaction and sends it again.
    fn start_again(&mut self, now: Now, asked: Asked, id: i64) {
        let until = now.mono + self.patience();
        let north = self.is_served();
        let mut waiting = self.queue.iter_mut().rev();
        if let Some(entry) = waiting.find(|e| e.message.kind == Kind::Start && e.message.tx == Some(id)) {
            entry.asked = Some((asked, until));
            let (seq, stored, answered) = (entry.message.seq, entry.stored, entry.answered);
            if stored && (answered || !north) {
                self.answer_kept(now, seq);
            }
        } else if let Some(t) = self.transactions.iter().rev().find(|t| t.id == id) {
            let payload = message::start_answer(t.known_as(), &self.verdict(&t.id_tag, now.wall));
            let answer = frame::result(&asked.id, &payload);
            // The id may be on its way to the disk still: the answer goes behind it.
            self.store(Vec::new(), After::Answer(asked, answer));
        }
    }

    /// `StopTransaction`.
    pub(super) fn stop(&mut self, now: Now, asked: Asked, payload: &str, text: String) {
        let message: StopTransaction = message::read(payload);
        let id = message.transaction_id.unwrap_or(-1);
        let mut tx = None;
        let mut ops = Vec::new();
        if id > 0 {
            if self.transaction(id).is_none() {
                self.adopt(now, id);
            }
            let Some(transaction) = self.transaction(id) else {
                return;
            };
            tx = Some(transaction.id);
            if transaction.ended {
                let id = transaction.id;
                return self.stop_again(now, asked, id);
            }
            transaction.ended = true;
            transaction.end = Some(End {
                at: Wall::parse(&message.timestamp).unwrap_or(now.wall),
                meter: message.meter_stop,
                reason: message.reason(),
            });
            ops.push(Op::Transaction(Box::new(transaction.clone())));
            ops.extend(self.forget_old());
            self.tell_transaction();
        }
        if self.rules.backend.is_some() {
            self.keep(now, asked, Kind::Stop, text, tx, ops);
        } else {
            let answer = frame::result(&asked.id, "{}");
            self.store(ops, After::Alone(asked, answer));
        }
    }

    fn stop_again(&mut self, now: Now, asked: Asked, id: i64) {
        let until = now.mono + self.patience();
        let north = self.is_served();
        let mut waiting = self.queue.iter_mut().rev();
        if let Some(entry) = waiting.find(|e| e.message.kind == Kind::Stop && e.message.tx == Some(id)) {
            entry.asked = Some((asked, until));
            let (seq, stored, answered) = (entry.message.seq, entry.stored, entry.answered);
            if stored && (answered || !north) {
                self.answer_kept(now, seq);
            }
        } else {
            self.reply_empty(&asked);
        }
    }

    /// `MeterValues` that are kept.
    pub(super) fn meter(&mut self, now: Now, asked: Asked, id: Option<i64>, text: String) {
        let mut ops = Vec::new();
        let tx = id.filter(|id| *id > 0).map(|id| match self.transaction(id) {
            Some(transaction) => transaction.id,
            None => {
                let transaction = self.adopt(now, id).clone();
                ops.push(Op::Transaction(Box::new(transaction)));
                ops.extend(self.forget_old());
                self.tell_transaction();
                id
            }
        });
        self.keep(now, asked, Kind::Meter, text, tx, ops);
    }

    /// A transaction that began where we were not in between (G-26).
    fn adopt(&mut self, now: Now, id: i64) -> &mut Transaction {
        let transaction = Transaction {
            id,
            backend_id: Some(id),
            told: false,
            dead: false,
            ended: false,
            connector: 1,
            id_tag: String::new(),
            started: now.wall,
            meter_start: 0,
            sameness: String::new(),
            message_id: String::new(),
            local: self.rules.backend.is_none(),
            end: None,
        };
        self.transactions.push(transaction);
        let last = self.transactions.len() - 1;
        &mut self.transactions[last]
    }

    /// Drops what nobody will ask for any more: the oldest without a waiting message.
    pub(super) fn forget_old(&mut self) -> Vec<Op> {
        let waits =
            |id: i64| self.queue.iter().any(|e| e.message.tx == Some(id)) || self.dead_of.contains(&id);
        let mut gone = Vec::new();
        for (ended, keep) in [(true, ENDED), (false, OPEN)] {
            let old = self.transactions.iter().rev().filter(|t| t.ended == ended).skip(keep);
            gone.extend(old.map(|t| t.id).filter(|id| !waits(*id)));
        }
        self.transactions.retain(|t| !gone.contains(&t.id));
        gone.into_iter().map(Op::Forget).collect()
    }

    /// Tells the site whether a transaction runs: the newest, unless it has ended. An older one that never ended is
    /// one whose StopTransaction the box has lost.
    pub(super) fn tell_transaction(&mut self) {
        self.end_tx_profiles();
        let running = self.transactions.last().filter(|t| !t.ended);
        let fact = running.map_or(EvseEvent::TransactionEnded, |t| {
            EvseEvent::Transaction(event::Transaction {
                id: t.known_as(),
                name: if t.is_2() { t.sameness.clone() } else { t.known_as().to_string() },
                backend_id: t.backend_id,
                started: t.started,
                meter_start: WattHours(t.meter_start),
            })
        });
        // Whose rules hold is known before the transaction runs.
        if let Some(card) = running.map(|t| t.id_tag.clone()).filter(|card| !card.is_empty()) {
            self.tell(EvseEvent::Card(card));
        }
        if fact != EvseEvent::TransactionEnded || !self.transactions.is_empty() {
            self.tell(fact);
        }
    }

    /// What the backend says of the card of a charge that began by our word (G-24). An EVSE that had heard it in time
    /// would have ended the charge itself (1.6 `StopTransactionOnInvalidId`, 2.x `StopTxOnInvalidId`).
    pub(super) fn hear_verdict(&mut self, tx: Option<i64>, verdict: Option<&IdTagInfo>) {
        let status = verdict.map_or("", |verdict| verdict.status.as_str());
        // §7.2: ConcurrentTx speaks of a moment that is long over.
        if matches!(status, "" | "Accepted" | "ConcurrentTx") {
            return;
        }
        let runs = self.transactions.iter().any(|t| Some(t.id) == tx && !t.ended);
        if let Some(id) = tx.filter(|id| runs && !self.refused.contains(id)) {
            tracing::warn!(
                status,
                "the backend refuses the card of a charge that began without it; it is ended"
            );
            self.refused.push_back(id);
        }
    }

    /// The next charge to be ended because the backend refuses it, if it runs still, and the CALL for it.
    pub(super) fn next_refused(&mut self) -> Option<(i64, &'static str, String)> {
        while let Some(id) = self.refused.pop_front() {
            if let Some(t) = self.transactions.iter().find(|t| t.id == id && !t.ended) {
                let (action, payload) = self.version.stop(t.known_as(), &t.sameness);
                return Some((id, action, payload));
            }
        }
        None
    }

    /// Takes the backend's id for a transaction. Returns the card, and an answer of our own if the backend's cannot
    /// be passed on because the EVSE has, or must have, another id.
    pub(super) fn started(
        &mut self,
        message: &Message,
        verdict: &Verdict,
        fresh: bool,
        ops: &mut Vec<Op>,
    ) -> (String, Option<String>) {
        let real = verdict.transaction_id;
        let taken = self.transactions.iter().any(|t| Some(t.id) != message.tx && Some(t.known_as()) == real);
        let Some(t) = self.transactions.iter_mut().rev().find(|t| Some(t.id) == message.tx) else {
            return (String::new(), None);
        };
        t.backend_id = real;
        t.dead = false;
        t.told = !fresh || taken;
        ops.push(Op::Transaction(Box::new(t.clone())));
        let info = verdict.id_tag_info.clone().unwrap_or_default();
        (t.id_tag.clone(), t.told.then(|| message::start_answer(t.id, &info)))
    }
}

//! Transaction messages: kept, delivered in order, counted once (G-20 to G-25).
//!
//! A message that is kept while the backend is there waits a little for the backend's own answer; otherwise, and
//! when nothing comes in time, the EVSE is answered here, and what the backend says later is for us.

use std::time::Duration;

use super::{
    super::{
        Version,
        frame::{self, Frame, Number},
        queue::{self, Message, Op, Transaction, fingerprint},
        table::{Kind, SIGNED},
        v2::message::TransactionEvent,
        v16::message::{self, StopTransaction, Verdict},
    },
    After, Asked, Route,
};
use crate::time::{Mono, Now};

/// Behind more messages than this nobody waits for the backend's own answer.
const NEAR: usize = 4;
/// Wait after the store refused.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// Whether it is on record that the backend may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    No,
    Asked,
    Yes,
}

/// A message in the queue.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: Message,
    pub(super) stored: bool,
    mark: Mark,
    not_before: Option<Mono>,
    /// The EVSE waits for the answer until then.
    pub(super) asked: Option<(Asked, Mono)>,
    /// The EVSE can have had an answer from here.
    pub(super) answered: bool,
    /// Sendings without an answer.
    silent: u32,
    /// The backend has answered something else since.
    backend_lives: bool,
}

impl Entry {
    /// One from the last process: whether the EVSE was answered is not known.
    pub(super) fn loaded(message: Message) -> Self {
        let mark = if message.sent { Mark::Yes } else { Mark::No };
        Self {
            message,
            stored: true,
            mark,
            not_before: None,
            asked: None,
            answered: true,
            silent: 0,
            backend_lives: false,
        }
    }
}

/// An event that happened without the backend says so (E04.FR.03), unless it is signed: then every byte counts.
fn as_offline(text: String) -> String {
    match frame::peek(&text) {
        Ok(Frame::Call { action, .. }) if action.ends_with(SIGNED) => text,
        _ => frame::with_member(&text, "offline", "true").unwrap_or(text),
    }
}

/// The card in an event; empty if none was shown.
fn event_card(text: &str) -> String {
    match frame::peek(text) {
        Ok(Frame::Call { payload, .. }) => {
            let event: TransactionEvent = message::read(payload);
            event.id_token.as_ref().map(|t| t.card().to_owned()).unwrap_or_default()
        }
        _ => String::new(),
    }
}

impl Route {
    fn entry(&mut self, seq: i64) -> Option<&mut Entry> {
        let at = self.queue.binary_search_by_key(&seq, |e| e.message.seq).ok()?;
        self.queue.get_mut(at)
    }

    fn transaction_of(&self, entry: &Message) -> Option<&Transaction> {
        let id = entry.tx?;
        self.transactions.iter().rev().find(|t| t.id == id)
    }

    /// Keeps a message; `ops` belong to it. What follows is in [`Route::kept`].
    pub(super) fn keep(
        &mut self,
        now: Now,
        asked: Asked,
        kind: Kind,
        text: String,
        tx: Option<i64>,
        ops: Vec<Op>,
    ) {
        let digest = fingerprint(kind, &text);
        let until = now.mono + self.patience();
        if kind != Kind::Other {
            if let Some(entry) = self.queue.iter_mut().rev().find(|e| e.message.digest == digest) {
                let (seq, done) = (entry.message.seq, entry.stored && entry.answered);
                entry.asked = Some((asked, until));
                if done || !self.is_served() {
                    self.answer_kept(now, seq);
                }
                return;
            }
            if kind != Kind::Start && self.recent.contains(&digest) {
                return self.reply_empty(&asked);
            }
        }
        let sent = self.queue.is_empty() && self.north_is_free();
        let frame = if kind == Kind::Event && !self.is_served() { as_offline(text) } else { text };
        let version = self.version;
        let message = Message { seq: self.next_seq, kind, version, frame, tx, sent, attempts: 0, digest };
        self.next_seq += 1;
        let all = std::iter::once(Op::Append(message.clone())).chain(ops).collect();
        self.store(all, After::Kept(message.seq));
        self.queue.push_back(Entry {
            mark: if sent { Mark::Asked } else { Mark::No },
            stored: false,
            asked: Some((asked, until)),
            answered: false,
            ..Entry::loaded(message)
        });
    }

    /// How long the EVSE may wait for the backend's own answer: less than it would wait itself.
    pub(super) fn patience(&self) -> Duration {
        self.rules.backend.as_ref().map_or(Duration::ZERO, |b| b.call_timeout * 4 / 5)
    }

    /// The store has a message, or not.
    pub(super) fn kept(&mut self, now: Now, seq: i64, stored: bool) {
        let Ok(at) = self.queue.binary_search_by_key(&seq, |e| e.message.seq) else {
            return;
        };
        if !stored {
            return self.not_kept(at);
        }
        let north = self.is_served();
        if let Some(entry) = self.queue.get_mut(at) {
            entry.stored = true;
            if entry.mark == Mark::Asked {
                entry.mark = Mark::Yes;
            }
            if !north || at >= NEAR || entry.message.kind == Kind::Other {
                self.answer_kept(now, seq);
            }
        }
    }

    /// As if it had never come: the EVSE tries again.
    fn not_kept(&mut self, at: usize) {
        let Some(entry) = self.queue.remove(at) else {
            return;
        };
        match (entry.message.kind, entry.message.tx) {
            (Kind::Start, Some(id)) => {
                self.transactions.retain(|t| t.id != id);
                self.tell_transaction();
            }
            (Kind::Stop, Some(id)) => {
                if let Some(t) = self.transactions.iter_mut().rev().find(|t| t.id == id) {
                    t.ended = false;
                    t.end = None;
                    self.tell_transaction();
                }
            }
            _ => {}
        }
        if let Some((asked, _)) = entry.asked {
            self.refuse(&asked, "InternalError", "not stored, try again");
        }
    }

    pub(super) fn reply_empty(&mut self, asked: &Asked) {
        self.reply(asked, frame::result(&asked.id, "{}"));
    }

    /// Answers here whoever waits for this message.
    pub(super) fn answer_kept(&mut self, now: Now, seq: i64) {
        let Some(entry) = self.entry(seq) else { return };
        if !entry.stored {
            return;
        }
        entry.answered = true;
        let Some((asked, _)) = entry.asked.take() else {
            return;
        };
        let (kind, text) = (entry.message.kind, entry.message.frame.clone());
        let tx = entry.message.tx;
        let payload = match kind {
            Kind::Start => {
                let Some(t) = self.transactions.iter().rev().find(|t| Some(t.id) == tx) else {
                    return;
                };
                message::start_answer(t.known_as(), &self.verdict(&t.id_tag, now.wall))
            }
            Kind::Stop => match frame::peek(&text) {
                Ok(Frame::Call { payload, .. }) => {
                    let id_tag = message::read::<StopTransaction>(payload).id_tag;
                    let known = self.knows(&id_tag).then(|| self.verdict(&id_tag, now.wall));
                    known.map_or_else(|| "{}".to_owned(), |verdict| message::verdict_answer(&verdict))
                }
                _ => "{}".to_owned(),
            },
            Kind::Event => self.event_answer(&event_card(&text), now.wall),
            Kind::Meter | Kind::Other => "{}".to_owned(),
        };
        self.reply(&asked, frame::result(&asked.id, &payload));
        if kind == Kind::Start {
            self.tell_transaction();
        }
    }

    /// The backend is gone: nobody waits for it any longer.
    pub(super) fn answer_all_kept(&mut self, now: Now) {
        let waiting: Vec<_> =
            self.queue.iter().filter(|e| e.asked.is_some()).map(|e| e.message.seq).collect();
        for seq in waiting {
            self.answer_kept(now, seq);
        }
    }

    /// The backend is there again: what waited for its absence to pass waits no more.
    pub(super) fn retry_now(&mut self) {
        if let Some(head) = self.queue.front_mut().filter(|e| e.message.attempts == 0) {
            head.not_before = None;
        }
    }

    /// The backend has answered something.
    pub(super) fn backend_lives(&mut self) {
        if let Some(head) = self.queue.front_mut() {
            head.backend_lives = true;
        }
    }

    /// The head of the queue as it shall be sent, if it may be. If it is not on record as sent, that comes first.
    pub(super) fn next_queued(&mut self, now: Now) -> Option<(i64, String)> {
        let version = self.north.as_ref()?.version;
        let head = self.queue.front_mut()?;
        if !head.stored || head.message.version != version || head.not_before.is_some_and(|at| at > now.mono)
        {
            return None;
        }
        let seq = head.message.seq;
        match head.mark {
            Mark::Asked => None,
            Mark::No => {
                head.mark = Mark::Asked;
                self.store(vec![Op::Sent(seq)], After::Marked(seq));
                None
            }
            Mark::Yes => {
                let head = self.queue.front()?;
                Some((seq, self.in_backend_terms(&head.message)))
            }
        }
    }

    /// The frame with the backend's transaction id in it. The StartTransaction is through: it went before.
    fn in_backend_terms(&self, message: &Message) -> String {
        let rewritten = || {
            let transaction = self.transaction_of(message)?;
            let Ok(Frame::Call { payload, .. }) = frame::peek(&message.frame) else {
                return None;
            };
            let number = Number::find(&message.frame, payload, &["transactionId"])?;
            // 1.6 errata 3.18: without a transaction at the backend the rest is told under -1.
            let id = if transaction.dead { -1 } else { transaction.backend_id? };
            (number.value != id).then(|| number.put(&message.frame, id))
        };
        let has_id = matches!(message.kind, Kind::Stop | Kind::Meter);
        has_id.then(rewritten).flatten().unwrap_or_else(|| message.frame.clone())
    }

    /// It is on record that the backend may have a message.
    pub(super) fn marked(&mut self, now: Now, seq: i64, stored: bool) {
        if let Some(entry) = self.entry(seq) {
            entry.mark = if stored { Mark::Yes } else { Mark::No };
            if !stored {
                entry.not_before = Some(now.mono + STORE_RETRY);
            }
        }
    }

    /// The backend has taken the head.
    pub(super) fn delivered(&mut self, now: Now, seq: i64, payload: &str, text: String) {
        let verdict: Verdict = message::read(payload);
        let Some(at) = self.queue.front().map(|e| (e.message.kind, e.message.seq)).filter(|(_, s)| *s == seq)
        else {
            return;
        };
        if at.0 == Kind::Start && verdict.transaction_id.is_none() {
            return self.failed(now, seq, "an answer without transactionId");
        }
        let Some(Entry { message, asked, answered, .. }) = self.queue.pop_front() else {
            return;
        };
        self.recent.push_back(message.digest);
        if self.recent.len() > queue::RECENT {
            self.recent.pop_front();
        }
        let mut ops = vec![Op::Done(seq)];
        let asked = asked.map(|(asked, _)| asked);
        let same_id = |asked: &Asked| matches!(frame::peek(&message.frame), Ok(Frame::Call { id, .. }) if id == asked.id);
        // The EVSE may have asked again under another id than the one that went north.
        let relayed = asked.as_ref().map(|a| if same_id(a) { text } else { frame::result(&a.id, payload) });
        match message.kind {
            Kind::Start => {
                let (id_tag, answer) =
                    self.started(&message, &verdict, asked.is_some() && !answered, &mut ops);
                if answered {
                    self.hear_verdict(message.tx, verdict.id_tag_info.as_ref());
                }
                ops.extend(self.learn(&id_tag, verdict.id_tag_info, now.wall));
                let answer = asked.zip(relayed).map(|(asked, relayed)| {
                    let own = answer.map(|payload| frame::result(&asked.id, &payload));
                    (asked, own.unwrap_or(relayed))
                });
                self.store(ops, answer.map_or(After::Nothing, |(asked, text)| After::Answer(asked, text)));
                self.tell_transaction();
            }
            Kind::Event => {
                let card = event_card(&message.frame);
                let verdict = message.version.verdict(payload);
                if answered {
                    self.hear_verdict(message.tx, verdict.as_ref());
                }
                ops.extend(self.learn(&card, verdict, now.wall));
                self.store(ops, After::Nothing);
                if let Some((asked, text)) = asked.zip(relayed) {
                    self.reply(&asked, text);
                }
            }
            Kind::Stop | Kind::Meter | Kind::Other => {
                if message.kind == Kind::Stop
                    && let Ok(Frame::Call { payload, .. }) = frame::peek(&message.frame)
                {
                    let id_tag = message::read::<StopTransaction>(payload).id_tag;
                    ops.extend(self.learn(&id_tag, verdict.id_tag_info, now.wall));
                }
                self.store(ops, After::Nothing);
                if let Some((asked, text)) = asked.zip(relayed) {
                    self.reply(&asked, text);
                }
            }
        }
    }

    /// The backend has refused the head.
    pub(super) fn failed(&mut self, now: Now, seq: i64, why: &str) {
        let Some(rules) = self.rules.backend.clone() else {
            return;
        };
        let Some(entry) = self.entry(seq) else { return };
        entry.message.attempts += 1;
        let attempts = entry.message.attempts;
        self.answer_kept(now, seq);
        if attempts < rules.attempts {
            // 1.6 §3.7.1: the interval times the number of transmissions so far.
            if let Some(entry) = self.entry(seq) {
                entry.not_before = Some(now.mono + rules.retry_interval * attempts);
            }
            return self.store(vec![Op::Attempts(seq, attempts)], After::Nothing);
        }
        let Ok(at) = self.queue.binary_search_by_key(&seq, |e| e.message.seq) else {
            return;
        };
        let Some(Entry { message, .. }) = self.queue.remove(at) else {
            return;
        };
        tracing::error!(kind = ?message.kind, attempts, why, "the backend refuses a message for good; it is kept");
        self.dead += 1;
        self.dead_of.extend(message.tx.filter(|tx| !self.dead_of.contains(tx)));
        let mut ops = vec![Op::Dead(seq, why.to_owned(), now.wall)];
        if message.kind == Kind::Start
            && let Some(t) = self.transactions.iter_mut().rev().find(|t| Some(t.id) == message.tx)
        {
            t.dead = true;
            ops.push(Op::Transaction(Box::new(t.clone())));
        }
        self.store(ops, After::Nothing);
    }

    /// Lets messages that were given up wait again, behind all others. A StartTransaction that comes through this time
    /// gives its transaction an id after all.
    pub(crate) fn revive(&mut self, now: Now, messages: Vec<Message>) {
        for message in messages {
            let (old, seq) = (message.seq, self.next_seq);
            if self.reviving.contains(&old) {
                continue;
            }
            self.reviving.push(old);
            self.next_seq += 1;
            self.dead = self.dead.saturating_sub(1);
            self.queue.push_back(Entry {
                stored: false,
                ..Entry::loaded(Message { seq, sent: false, attempts: 0, ..message })
            });
            self.store(vec![Op::Revive(old, seq)], After::Revived(old, seq));
        }
        self.go_on(now);
    }

    /// The store has made a dead message wait, or not.
    pub(super) fn revived(&mut self, old: i64, seq: i64, stored: bool) {
        self.reviving.retain(|other| *other != old);
        let Ok(at) = self.queue.binary_search_by_key(&seq, |e| e.message.seq) else {
            return;
        };
        if stored {
            self.queue[at].stored = true;
        } else {
            self.queue.remove(at);
            self.dead += 1;
        }
    }

    /// Drops messages that were given up, for good.
    pub(crate) fn discard(&mut self, now: Now, seqs: Vec<i64>) {
        self.dead = self.dead.saturating_sub(u64::try_from(seqs.len()).unwrap_or(u64::MAX));
        self.store(seqs.into_iter().map(Op::Discard).collect(), After::Nothing);
        self.go_on(now);
    }

    /// The backend does not speak this version any more: what waits in it is laid aside for a person.
    pub(crate) fn bury(&mut self, now: Now, version: Version) {
        let why = format!("the backend does not speak OCPP {version}");
        while let Some(head) = self.queue.pop_front_if(|e| e.message.version == version) {
            self.dead += 1;
            self.store(vec![Op::Dead(head.message.seq, why.clone(), now.wall)], After::Nothing);
        }
        self.go_on(now);
    }

    /// The backend has not answered the head. That counts as a refusal only if it answered something else since:
    /// being away must not cost a message.
    pub(super) fn silent(&mut self, now: Now, seq: i64) {
        let Some(wait) = self.rules.backend.as_ref().map(|b| b.retry_interval) else {
            return;
        };
        let Some(entry) = self.entry(seq) else { return };
        entry.silent += 1;
        if std::mem::take(&mut entry.backend_lives) && entry.silent > 1 {
            return self.failed(now, seq, "no answer");
        }
        entry.not_before = Some(now.mono + wait * entry.silent.min(10));
        self.answer_kept(now, seq);
    }

    pub(super) fn queue_timeouts(&self, free: bool) -> impl Iterator<Item = (Mono, &'static str)> {
        let near = self.queue.iter().take(NEAR).filter(|e| e.stored);
        let asked = near.filter_map(|e| Some((e.asked.as_ref()?.1, "the EVSE has waited for the backend")));
        let head = self.queue.front().filter(|_| free);
        asked.chain(head.and_then(|e| Some((e.not_before?, "a message is sent again"))))
    }

    pub(super) fn queue_timeout(&mut self, now: Now) {
        let late = |e: &&Entry| e.asked.as_ref().is_some_and(|(_, until)| *until <= now.mono);
        let late: Vec<_> = self.queue.iter().take(NEAR).filter(late).map(|e| e.message.seq).collect();
        for seq in late {
            self.answer_kept(now, seq);
        }
        if let Some(head) = self.queue.front_mut() {
            head.not_before = head.not_before.filter(|at| *at > now.mono);
        }
    }
}

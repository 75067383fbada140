//! One station between its EVSE and the backend: who answers whom. Sans-IO.
//!
//! In: frames from both sides, connections that come and go, the site's wish for a limit, the store's
//! acknowledgements, the passing of time. Out: [`Out`]: frames to either side, changes to store, facts for the site.
//! Invariants:
//! - at most one CALL of ours or relayed by us is unanswered per direction (1.6-J §4.1.1, G-14);
//! - a transaction message is stored before it is sent or answered, leaves the store only after the backend's
//!   CALLRESULT, and goes north in the order in which it came;
//! - the answer to a CALL of our own never goes north; an answer that nobody waits for goes nowhere.
//!
//! ```text
//!                    EVSE                                              backend
//!   CALL ──→ table::up ─ Live ───────────────→ live ──┐
//!                      ─ Durable → store → queue ─────┴→ [outstanding] ──→
//!        ←── answer: the backend's, or ours when it is away or slow ←──── answer
//!
//!        ←── [outstanding] ←┬─ 1 our limit
//!                           ├─ 2 calls ←──────────────── table::down ←── CALL
//!                           └─ 3 orders, TriggerMessage
//!   answer ──→ to the call it belongs to ──────────────────────────────→
//!
//!   a queued message:  kept ─stored→ waiting ─marked sent→ sent ─CALLRESULT→ done
//!                                       ↑  └── CALLERROR, attempts left ─┘ └─ none left → dead
//! ```

mod durable;
mod events;
mod guard;
pub(super) mod list;
mod north;
mod offline;
mod order;
mod profiles;
mod south;
mod transactions;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_guard;
#[cfg(test)]
mod tests_profiles;
#[cfg(test)]
mod tests_v2;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

pub(crate) use self::order::{NoAnswer, Order};
use self::{
    durable::Entry,
    list::List,
    north::{Live, North},
    profiles::Kept,
    south::{South, Wish},
};
use super::{
    Schemas, Secret, Version,
    frame::{self, Frame, Id},
    queue::{Card, Op, Saved, Transaction},
    schema::Violation,
    table::SIGNED,
    v16::message,
};
use crate::{
    plan::Setpoint,
    site::event::EvseEvent,
    store::StoreError,
    time::{Mono, Now},
    units::Milliamps,
};

/// How long the backend's connection outlives the EVSE's: a reboot shall not look like a new charge point.
const AWAY: Duration = Duration::from_secs(60);
/// Violations of schemas that are logged one by one.
const MOST_VIOLATIONS: usize = 200;
/// How long a bad frame is shown.
const TROUBLE_SHOWN: Duration = Duration::from_secs(60);
/// Most CALLs of the EVSE that wait for an answer; 1.6 allows one.
const MOST_UNANSWERED: usize = 64;

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule of its own")]
pub(crate) struct Rules {
    /// `None`: the site has no backend; everything is answered here, nothing is kept for it.
    pub(crate) backend: Option<BackendRules>,
    /// For an answer to a CALL of our own.
    pub(crate) own_timeout: Duration,
    /// The verdict on a card that nothing is known about.
    pub(crate) accept_unknown: bool,
    /// The charge point is played here: every purpose of a profile is its own business.
    pub(crate) local: bool,
    /// Cards of the site's own users, in lower case.
    pub(crate) users: Arc<HashSet<String>>,
    /// What the EVSE may draw at most, per phase.
    pub(crate) rated: Milliamps,
    /// On how many phases.
    pub(crate) phases: usize,
    /// The EVSE gets one profile that holds all; else it is found out.
    pub(crate) merged: bool,
    /// What payloads are checked against.
    pub(crate) schemas: Option<Arc<Schemas>>,
    /// What they do not allow is refused; else it is logged once.
    pub(crate) refuses: bool,
}

/// What concerns the backend.
#[derive(Debug, Clone)]
pub(crate) struct BackendRules {
    /// For an answer to a CALL.
    pub(crate) call_timeout: Duration,
    /// After this many CALLERRORs a transaction message is dead.
    pub(crate) attempts: u32,
    /// Wait before the second attempt; grows by itself with each one.
    pub(crate) retry_interval: Duration,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Out {
    /// Send to the EVSE.
    South(String),
    /// Send to the backend.
    North(String),
    /// Store together; then call [`Route::stored`].
    Store { ticket: u64, ops: Vec<Op> },
    /// Tell the site.
    Tell(EvseEvent),
    /// What became of an order.
    Answered { ticket: u64, outcome: Result<String, NoAnswer> },
    /// The backend gave a password for its leg; it counts from the next connection on.
    Password(Secret),
    /// The backend stays silent: close its connection and make a new one.
    CloseNorth(&'static str),
}

/// A CALL of the EVSE that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    id: Id,
    /// The connection it came over.
    south: u64,
}

/// What follows the store's acknowledgement.
#[derive(Debug)]
enum After {
    Nothing,
    /// The message is kept.
    Kept(i64),
    /// The dead message with the first number waits again under the second.
    Revived(i64, i64),
    /// It may be sent.
    Marked(i64),
    /// The answer may be given.
    Answer(Asked, String),
    /// The same to the backend, over this connection.
    North(u64, String),
    /// The same, and then the password is taken into use.
    Password(u64, String, Secret),
    /// A transaction without a backend is kept.
    Alone(Asked, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Frame,
    Station,
    Storage,
    Backend,
}

/// A BootNotification that the backend has not heard.
#[derive(Debug)]
struct Boot {
    frame: String,
    not_before: Mono,
}

/// The state of one station. After every input, take everything from [`Route::output`].
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Route {
    rules: Rules,
    rng: fastrand::Rng,
    out: VecDeque<Out>,
    tickets: u64,
    acks: VecDeque<(u64, After)>,
    connections: u64,

    /// Spoken with the EVSE, now or last.
    version: Version,
    south: Option<South>,
    away_since: Option<Mono>,
    wish: Wish,

    north: Option<North>,
    live: VecDeque<Live>,
    /// The backend has accepted this identity at some time.
    accepted: bool,
    /// Its last word on the boot was not Accepted: nothing is delivered (1.6 §4.2).
    gate_closed: bool,
    boot: Option<Boot>,

    queue: VecDeque<Entry>,
    next_seq: i64,
    recent: VecDeque<i64>,
    dead: u64,
    /// Transactions that dead messages belong to: they are not forgotten, the messages may be sent again.
    dead_of: Vec<i64>,
    /// Dead messages that are on their way back.
    reviving: Vec<i64>,
    transactions: Vec<Transaction>,
    cards: HashMap<String, Card>,
    list: List,
    /// The backend's charging profiles.
    profiles: Vec<Kept>,
    /// The EVSE gets one profile that holds all.
    merged: bool,
    /// CALLs of our own to the backend, in the EVSE's place.
    own_north: VecDeque<String>,
    /// Transactions that the backend refuses, and the EVSE began by our word.
    refused: VecDeque<i64>,
    /// 2.x does not tell it: the transaction is over, the car still plugged.
    finishing: bool,

    troubles: Vec<(Trouble, String, Option<Mono>)>,
    told_queue: (usize, u64),
    noted: HashSet<&'static str>,
    /// What the schemas do not allow, by action.
    violations: HashSet<String>,
}

impl Route {
    /// Takes up where the last process ended.
    pub(crate) fn new(now: Mono, rules: Rules, saved: Saved, seed: u64) -> Self {
        let boot = saved.boot.map(|frame| Boot { frame, not_before: Mono::default() });
        let merged = rules.merged || saved.merged;
        let mut route = Self {
            rules,
            rng: fastrand::Rng::with_seed(seed),
            out: VecDeque::new(),
            tickets: 0,
            acks: VecDeque::new(),
            connections: 0,
            version: saved.version,
            south: None,
            // With something to deliver the backend is connected at once; the EVSE is on its way, too.
            away_since: (!saved.messages.is_empty()).then_some(now),
            wish: Wish::default(),
            north: None,
            live: VecDeque::new(),
            accepted: saved.accepted,
            gate_closed: false,
            boot,
            queue: saved.messages.into_iter().map(Entry::loaded).collect(),
            next_seq: saved.next_seq.max(1),
            recent: saved.recent.into(),
            dead: saved.dead,
            dead_of: saved.dead_of,
            reviving: Vec::new(),
            transactions: saved.transactions,
            cards: saved.cards.into_iter().map(|c| (c.id_tag.clone(), c)).collect(),
            list: saved.list,
            profiles: saved.profiles.into_iter().filter_map(|p| Kept::loaded(p, merged)).collect(),
            merged,
            own_north: VecDeque::new(),
            refused: VecDeque::new(),
            finishing: false,
            troubles: Vec::new(),
            told_queue: (0, 0),
            noted: HashSet::new(),
            violations: HashSet::new(),
        };
        route.tell_transaction();
        route.tell_queue();
        route
    }

    /// The next thing to do.
    pub(crate) fn output(&mut self) -> Option<Out> {
        self.out.pop_front()
    }

    /// Whether a connection to the backend is of use: the EVSE is there or will soon be again, or something waits.
    pub(crate) fn wants_north(&self, now: Mono) -> bool {
        let away = self.away_since.is_some_and(|since| now.since(since) < AWAY);
        let waits = !self.queue.is_empty() || self.boot.is_some();
        self.rules.backend.is_some() && (self.south.is_some() || away || waits)
    }

    /// The version to speak with the backend: what waits first, waits in its own.
    pub(crate) fn wants_version(&self) -> Version {
        self.queue.front().map_or(self.version, |head| head.message.version)
    }

    /// The version spoken with the EVSE, now or last.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Whether the backend is there and can hear the EVSE: both speak the same version.
    fn is_served(&self) -> bool {
        self.north.as_ref().is_some_and(|n| n.version == self.version)
    }

    /// The site wishes another limit, or the same for longer.
    pub(crate) fn setpoint(&mut self, now: Now, setpoint: Option<Setpoint>) {
        self.wish.want(setpoint);
        self.go_on(now);
    }

    /// The store has carried out a ticket, or not. Tickets come back in their order.
    pub(crate) fn stored(&mut self, now: Now, ticket: u64, outcome: &Result<(), StoreError>) {
        let Some((expected, after)) = self.acks.pop_front() else {
            return;
        };
        debug_assert_eq!(expected, ticket);
        match outcome {
            Ok(()) => self.trouble(Trouble::Storage, None),
            Err(error) => {
                tracing::error!(%error, "a message of the EVSE is not stored");
                self.trouble(Trouble::Storage, Some((error.to_string(), None)));
            }
        }
        match after {
            After::Nothing => {}
            After::Kept(seq) => self.kept(now, seq, outcome.is_ok()),
            After::Revived(old, seq) => self.revived(old, seq, outcome.is_ok()),
            After::Marked(seq) => self.marked(now, seq, outcome.is_ok()),
            After::Answer(asked, text) => self.reply(&asked, text),
            After::North(connection, text) => self.answer_north(connection, text),
            After::Password(connection, text, password) if outcome.is_ok() => {
                self.answer_north(connection, text);
                self.out.push_back(Out::Password(password));
            }
            After::Password(..) => self.note("a password of the backend is not stored"),
            After::Alone(asked, text) if outcome.is_ok() => self.reply(&asked, text),
            After::Alone(asked, _) => self.refuse(&asked, "InternalError", "not stored, try again"),
        }
        self.go_on(now);
    }

    /// When to call [`Route::timeout`], and what for.
    pub(crate) fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let away = self.away_since.map(|since| (since + AWAY, "the EVSE stays away"));
        let trouble =
            self.troubles.iter().filter_map(|(_, _, until)| Some(((*until)?, "a bad frame is history")));
        let all = away.into_iter().chain(trouble).chain(self.south_timeouts()).chain(self.north_timeouts());
        all.min_by_key(|(at, _)| *at)
    }

    /// Time has passed.
    pub(crate) fn timeout(&mut self, now: Now) {
        if self.away_since.is_some_and(|since| now.mono.since(since) >= AWAY) {
            self.away_since = None;
        }
        let over: Vec<_> =
            self.troubles.iter().filter(|t| t.2.is_some_and(|at| at <= now.mono)).map(|t| t.0).collect();
        for trouble in over {
            self.trouble(trouble, None);
        }
        self.south_timeout(now);
        self.north_timeout(now);
        self.go_on(now);
    }

    /// The EVSE did something at the level of the connection that a person should see.
    pub(crate) fn south_trouble(&mut self, now: Now, what: &str) {
        self.trouble(Trouble::Frame, Some((what.to_owned(), Some(now.mono + TROUBLE_SHOWN))));
    }

    /// The backend cannot be reached for a reason that a person should see.
    pub(crate) fn north_trouble(&mut self, what: &str) {
        self.trouble(Trouble::Backend, Some((what.to_owned(), None)));
    }

    /// Sends what may be sent now; the end of every input.
    fn go_on(&mut self, now: Now) {
        self.send_south(now);
        self.send_north(now);
        self.tell_queue();
    }

    fn store(&mut self, ops: Vec<Op>, after: After) {
        self.tickets += 1;
        self.acks.push_back((self.tickets, after));
        self.out.push_back(Out::Store { ticket: self.tickets, ops });
    }

    fn tell(&mut self, event: EvseEvent) {
        self.out.push_back(Out::Tell(event));
    }

    fn tell_queue(&mut self) {
        let queue = (self.queue.len(), self.dead);
        if queue != self.told_queue {
            self.told_queue = queue;
            let waiting = u64::try_from(queue.0).unwrap_or(u64::MAX);
            self.tell(EvseEvent::Queue { waiting, dead: queue.1 });
        }
    }

    /// Begins, changes or ends a trouble; the site sees all of them as one text.
    fn trouble(&mut self, which: Trouble, what: Option<(String, Option<Mono>)>) {
        if self.troubles.is_empty() && what.is_none() {
            return;
        }
        let before = self.trouble_text();
        self.troubles.retain(|(trouble, ..)| *trouble != which);
        if let Some((text, until)) = what {
            self.troubles.push((which, text, until));
        }
        let after = self.trouble_text();
        if before != after {
            self.tell(EvseEvent::Problem(after));
        }
    }

    fn trouble_text(&self) -> String {
        self.troubles.iter().map(|(_, text, _)| text.as_str()).collect::<Vec<_>>().join("; ")
    }

    /// Checks a CALL against the official schemas, if that is wanted: the error to refuse it with.
    fn violation(&mut self, version: Version, action: &str, payload: &str) -> Option<(&'static str, String)> {
        let schemas = self.rules.schemas.as_ref()?;
        if action.ends_with(SIGNED) {
            return None;
        }
        let found = schemas.call(version, action, payload).err()?;
        self.violates(version, action, &found)
    }

    /// The same for the answer to a CALL.
    fn answer_violation(
        &mut self,
        version: Version,
        call: &str,
        payload: &str,
    ) -> Option<(&'static str, String)> {
        let schemas = self.rules.schemas.as_ref()?;
        let Ok(Frame::Call { action, .. }) = frame::peek(call) else { return None };
        if action.ends_with(SIGNED) {
            return None;
        }
        let found = schemas.answer(version, &action, payload).err()?;
        self.violates(version, &format!("the answer to {action}"), &found)
    }

    fn violates(
        &mut self,
        version: Version,
        what: &str,
        found: &Violation,
    ) -> Option<(&'static str, String)> {
        let sentence = format!("{what}: {} {}", found.place, found.what);
        if self.violations.len() < MOST_VIOLATIONS && self.violations.insert(sentence.clone()) {
            tracing::warn!(%version, "the official schema does not allow a payload: {sentence}");
        }
        // A description must need no escapes.
        let plain =
            sentence.chars().filter(|c| c.is_ascii_alphanumeric() || " :.[]_-".contains(*c)).take(200);
        self.rules.refuses.then(|| (found.code(version), plain.collect()))
    }

    /// Logs a cause once per connection of the EVSE.
    fn note(&mut self, cause: &'static str) {
        if self.noted.insert(cause) {
            tracing::warn!("{cause}");
        }
    }

    /// Answers a CALL of the EVSE if its connection still stands.
    fn reply(&mut self, asked: &Asked, text: String) {
        if self.south.as_ref().is_some_and(|s| s.connection == asked.south) {
            self.out.push_back(Out::South(text));
        }
    }

    fn refuse(&mut self, asked: &Asked, code: &str, why: &str) {
        self.reply(asked, frame::error(&asked.id, code, why));
    }

    fn uuid(&mut self) -> String {
        uuid::Builder::from_random_bytes(self.rng.u128(..).to_be_bytes()).into_uuid().to_string()
    }
}

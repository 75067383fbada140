//! Random histories of one station against a small model of its EVSE, its backend and the disk.
//!
//! The EVSE sends transactions and repeats what was not answered; the backend answers, refuses, vanishes; the disk
//! loses what it has not acknowledged when the process dies. Whatever happens, once everybody is back the backend has
//! every transaction message, in order, with consistent ids, and none again after its answer was on disk.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use proptest::{collection::vec, prelude::*};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{
    super::queue::{self, MIGRATIONS},
    *,
};
use crate::{ids::Identity, time::Wall, units::Milliamps};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Start,
    Meter,
    Stop,
    Status,
    Heartbeat,
    EvseAnswers,
    SouthUp,
    SouthDown,
    NorthUp,
    NorthDown,
    NorthHeld(bool),
    NorthReplaced,
    BackendAnswers,
    BackendRefuses,
    BackendRepeats,
    RemoteStop,
    Clear,
    Disk,
    Crash,
    Time(u64),
    Wish(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Start),
        8 => Just(Step::Meter),
        6 => Just(Step::Stop),
        2 => Just(Step::Status),
        2 => Just(Step::Heartbeat),
        4 => Just(Step::EvseAnswers),
        4 => Just(Step::SouthUp),
        2 => Just(Step::SouthDown),
        5 => Just(Step::NorthUp),
        2 => Just(Step::NorthDown),
        2 => prop_oneof![2 => Just(true), 1 => Just(false)].prop_map(Step::NorthHeld),
        2 => Just(Step::NorthReplaced),
        12 => Just(Step::BackendAnswers),
        2 => Just(Step::BackendRefuses),
        1 => Just(Step::BackendRepeats),
        2 => Just(Step::RemoteStop),
        1 => Just(Step::Clear),
        16 => Just(Step::Disk),
        2 => Just(Step::Crash),
        4 => prop_oneof![Just(1), Just(5), Just(25), Just(31), Just(130)].prop_map(Step::Time),
        2 => (6..32_i64).prop_map(Step::Wish),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intent {
    Start(usize),
    Meter(usize),
    Stop(usize),
    Status,
    Heartbeat,
}

#[derive(Default)]
struct Evse {
    up: bool,
    outbox: VecDeque<(String, Intent)>,
    /// The text of the first in the outbox, once it was sent.
    asked: Option<String>,
    running: Option<usize>,
    transactions: usize,
    known: HashMap<usize, i64>,
    order: Vec<String>,
    call: Option<(String, String, Duration)>,
}

#[derive(Default)]
struct Backend {
    up: bool,
    held: bool,
    outstanding: Option<(String, Value, Duration)>,
    got: Vec<String>,
    texts: HashMap<String, String>,
    ids: HashMap<usize, i64>,
    starts: HashMap<usize, String>,
    next_id: i64,
    calls: BTreeSet<String>,
    calls_made: usize,
    answered: Vec<String>,
}

struct World {
    db: Connection,
    route: Route,
    now: Now,
    disk: VecDeque<(u64, Vec<Op>)>,
    /// Message ids by place in the queue, as far as they are on disk.
    kept: BTreeMap<i64, String>,
    done: BTreeSet<String>,
    dead: BTreeSet<String>,
    evse: Evse,
    backend: Backend,
    serial: usize,
    own: BTreeSet<String>,
    seed: u64,
}

fn me() -> Identity {
    Identity::new("CP")
}

fn rules() -> Rules {
    Rules {
        backend: Some(BackendRules {
            call_timeout: Duration::from_secs(30),
            attempts: 2,
            retry_interval: Duration::from_secs(60),
        }),
        own_timeout: Duration::from_secs(10),
        accept_unknown: true,
        users: Arc::default(),
        local: false,
        rated: Milliamps::amps(32),
        phases: 3,
        merged: false,
        schemas: None,
        refuses: false,
    }
}

fn parse(text: &str) -> (i64, String, Value) {
    let frame: Value = serde_json::from_str(text).unwrap();
    (frame[0].as_i64().unwrap(), frame[1].as_str().unwrap().to_owned(), frame)
}

/// The transaction behind a message of the EVSE: its timestamp is the number.
fn number(frame: &Value) -> Option<usize> {
    frame[3]["timestamp"].as_str()?.strip_prefix("T")?.parse().ok()
}

fn is_kept(frame: &Value) -> bool {
    matches!(frame[2].as_str(), Some("StartTransaction" | "StopTransaction" | "MeterValues"))
}

impl World {
    fn new() -> Self {
        let db = Connection::open_in_memory().unwrap();
        for step in MIGRATIONS {
            db.execute_batch(step.sql).unwrap();
        }
        let now = Now { mono: Mono::default(), wall: Wall(1_800_000_000_000) };
        Self {
            route: Route::new(now.mono, rules(), queue::load(&db, &me()).unwrap(), 1),
            db,
            now,
            disk: VecDeque::new(),
            kept: BTreeMap::new(),
            done: BTreeSet::new(),
            dead: BTreeSet::new(),
            evse: Evse::default(),
            backend: Backend::default(),
            serial: 0,
            own: BTreeSet::new(),
            seed: 1,
        }
    }

    fn intend(&mut self, intent: Intent) {
        self.serial += 1;
        self.evse.outbox.push_back((format!("m{}", self.serial), intent));
    }

    /// The EVSE sends what is next, if it waits for nothing.
    fn evse_sends(&mut self) {
        if !self.evse.up || self.evse.asked.is_some() {
            return;
        }
        let Some((id, intent)) = self.evse.outbox.front().cloned() else {
            return;
        };
        let known = |t: usize| self.evse.known[&t];
        let time = |t: usize| format!("T{t}");
        let (action, payload) = match intent {
            Intent::Start(t) => {
                ("StartTransaction", json!({"connectorId":1,"idTag":"C","meterStart":0,"timestamp":time(t)}))
            }
            Intent::Meter(t) => (
                "MeterValues",
                json!({"connectorId":1,"transactionId":known(t),"meterValue":[{"timestamp":id}],"timestamp":time(t)}),
            ),
            Intent::Stop(t) => {
                ("StopTransaction", json!({"transactionId":known(t),"meterStop":1,"timestamp":time(t)}))
            }
            Intent::Status => {
                ("StatusNotification", json!({"connectorId":1,"status":"Available","errorCode":"NoError"}))
            }
            Intent::Heartbeat => ("Heartbeat", json!({})),
        };
        let text = json!([2, id, action, payload]).to_string();
        if !matches!(intent, Intent::Status | Intent::Heartbeat) && !self.evse.order.contains(&id) {
            self.evse.order.push(id);
        }
        self.evse.asked = Some(text.clone());
        self.route.south_frame(self.now, text);
    }

    fn evse_hears(&mut self, text: &str) {
        assert!(self.evse.up, "sent to an EVSE that is not there: {text}");
        let (kind, id, frame) = parse(text);
        if kind == 2 {
            if let Some((_, _, until)) = &self.evse.call {
                // A limit waits for the backend's CALL no longer than for one of ours (G-15).
                let is_limit = frame[2] == "SetChargingProfile" && !self.backend.calls.contains(&id);
                let sooner = Duration::from_secs(if is_limit { 20 } else { 0 });
                assert!(self.now.mono.0 + sooner >= *until, "two calls are unanswered at the EVSE: {text}");
            }
            let wait = if self.backend.calls.contains(&id) { 30 } else { 10 };
            if wait == 10 {
                self.own.insert(id.clone());
            }
            if frame[2] == "RemoteStopTransaction" {
                let t = id.strip_prefix('r').and_then(|n| n.split('.').next()?.parse().ok()).unwrap();
                if let Some(known) = self.evse.known.get(&t) {
                    assert_eq!(frame[3]["transactionId"], *known, "the EVSE does not know this transaction");
                }
            }
            let action = frame[2].as_str().unwrap().to_owned();
            self.evse.call = Some((id, action, self.now.mono.0 + Duration::from_secs(wait)));
            return;
        }
        assert_eq!(kind, 3, "the EVSE got an error for {:?}: {text}", self.evse.asked);
        let (waits_for, intent) = self.evse.outbox.pop_front().expect("an answer without a question");
        assert!(self.evse.asked.take().is_some(), "an answer without a question: {text}");
        assert_eq!(id, waits_for, "the answer to another question");
        if !matches!(intent, Intent::Status | Intent::Heartbeat) {
            assert!(self.kept.values().any(|k| *k == id), "answered before it was on disk: {id}");
        }
        if let Intent::Start(t) = intent {
            self.evse.known.insert(t, frame[2]["transactionId"].as_i64().unwrap());
        }
    }

    fn backend_hears(&mut self, text: &str) {
        assert!(self.backend.up, "sent to a backend that is not there: {text}");
        let (kind, id, frame) = parse(text);
        if kind != 2 {
            assert!(!self.own.contains(&id), "the answer to our own call went north: {text}");
            assert!(self.backend.calls.remove(&id), "the backend did not ask: {text}");
            return;
        }
        assert!(!self.backend.held, "a call over a connection that is to be replaced: {text}");
        if let Some((other, _, until)) = &self.backend.outstanding {
            assert!(self.now.mono.0 >= *until, "two calls are unanswered at the backend: {other} and {text}");
        }
        if is_kept(&frame) {
            assert!(self.kept.values().any(|k| *k == id), "sent before it was on disk: {id}");
            assert!(!self.done.contains(&id), "sent again although the backend has answered: {id}");
            assert!(!self.dead.contains(&id), "sent again although it is dead: {id}");
            let first = self.backend.texts.entry(id.clone()).or_insert_with(|| text.to_owned());
            assert_eq!(first, text, "a retry differs");
            if frame[2] != "StartTransaction" {
                let t = number(&frame).unwrap();
                let expected = self.backend.ids.get(&t).copied().unwrap_or(-1);
                assert_eq!(frame[3]["transactionId"], expected, "the backend does not know this transaction");
            }
            if !self.backend.got.contains(&id) {
                self.backend.got.push(id.clone());
            }
        }
        self.backend.outstanding = Some((id, frame, self.now.mono.0 + Duration::from_secs(30)));
    }

    fn backend_answers(&mut self) {
        let Some((id, frame, until)) = self.backend.outstanding.take() else {
            return;
        };
        // Nobody waits for a late answer: the id in it is known to the backend alone.
        let late = self.now.mono.0 >= until;
        let payload = match frame[2].as_str() {
            Some("StartTransaction") => {
                self.backend.next_id += 1;
                if !late {
                    self.backend.ids.insert(number(&frame).unwrap(), self.backend.next_id);
                    self.backend.starts.insert(number(&frame).unwrap(), id.clone());
                }
                json!({"transactionId": self.backend.next_id, "idTagInfo": {"status": "Accepted"}})
            }
            Some("Heartbeat") => json!({"currentTime": "2026-11-23T12:00:00Z"}),
            _ => json!({}),
        };
        self.backend.answered.push(id.clone());
        self.route.north_frame(self.now, json!([3, id, payload]).to_string());
    }

    /// The oldest thing that waits for the disk is on it.
    fn disk(&mut self) {
        let Some((ticket, ops)) = self.disk.pop_front() else {
            return;
        };
        for op in &ops {
            queue::apply(&self.db, &me(), op).unwrap();
            match op {
                Op::Append(message) => {
                    self.kept.insert(message.seq, parse(&message.frame).1);
                }
                Op::Done(seq) => {
                    let id = self.kept[seq].clone();
                    assert!(self.backend.answered.contains(&id), "gone from the disk without an answer");
                    self.done.insert(id);
                }
                Op::Dead(seq, ..) => {
                    self.dead.insert(self.kept[seq].clone());
                }
                _ => {}
            }
        }
        self.route.stored(self.now, ticket, &Ok(()));
    }

    fn settle(&mut self) {
        loop {
            while let Some(out) = self.route.output() {
                match out {
                    Out::South(text) => self.evse_hears(&text),
                    Out::North(text) => self.backend_hears(&text),
                    Out::Store { ticket, ops } => self.disk.push_back((ticket, ops)),
                    Out::Tell(_) | Out::Password(_) | Out::Tariff { .. } => {}
                    Out::Answered { .. } => unreachable!("nobody orders anything here"),
                    Out::CloseNorth(_) => self.north(false),
                }
            }
            let before = self.evse.asked.clone();
            self.evse_sends();
            if before == self.evse.asked {
                return;
            }
        }
    }

    fn north(&mut self, up: bool) {
        if self.backend.up != up {
            self.backend.up = up;
            self.backend.held = false;
            self.backend.outstanding = None;
            self.backend.calls.clear();
            if up {
                self.route.north_up(self.now, Version::V16);
            } else {
                self.route.north_down(self.now);
            }
        }
    }

    /// Another connection takes the place of the one that stands. Who calls that quiet lets nobody wait.
    fn replace(&mut self) {
        if self.route.north_is_quiet() {
            let late = |(_, _, until): &(_, _, Duration)| self.now.mono.0 >= *until;
            assert!(self.backend.outstanding.as_ref().is_none_or(late), "the backend was about to answer");
            assert!(self.backend.calls.is_empty(), "the backend waits for {:?}", self.backend.calls);
        }
        self.backend.outstanding = None;
        self.backend.calls.clear();
        self.backend.held = false;
        self.route.north_replaced(self.now);
    }

    fn south(&mut self, up: bool) {
        if self.evse.up != up {
            self.evse.up = up;
            self.evse.asked = None;
            self.evse.call = None;
            if up {
                self.route.south_up(self.now, Version::V16);
            } else {
                self.route.south_down(self.now);
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Start if self.evse.running.is_none() => {
                self.evse.transactions += 1;
                self.evse.running = Some(self.evse.transactions);
                self.intend(Intent::Start(self.evse.transactions));
            }
            Step::Meter => {
                if let Some(t) = self.evse.running {
                    self.intend(Intent::Meter(t));
                }
            }
            Step::Stop => {
                if let Some(t) = self.evse.running.take() {
                    self.intend(Intent::Stop(t));
                }
            }
            Step::Status => self.intend(Intent::Status),
            Step::Heartbeat => self.intend(Intent::Heartbeat),
            Step::EvseAnswers => {
                if let Some((id, ..)) = self.evse.call.take() {
                    self.route.south_frame(self.now, json!([3, id, {"status": "Accepted"}]).to_string());
                }
            }
            Step::SouthUp => self.south(true),
            Step::SouthDown => self.south(false),
            Step::NorthUp => self.north(true),
            Step::NorthDown => self.north(false),
            Step::NorthHeld(held) => {
                self.backend.held = held && self.backend.up;
                self.route.hold_north(self.now, held);
            }
            Step::NorthReplaced if self.backend.up => self.replace(),
            Step::BackendAnswers => self.backend_answers(),
            Step::BackendRefuses => {
                if let Some((id, frame, _)) = self.backend.outstanding.take_if(|(_, f, _)| is_kept(f)) {
                    if frame[2] == "StartTransaction" {
                        self.backend.ids.remove(&number(&frame).unwrap());
                    }
                    self.route.north_frame(self.now, json!([4, id, "InternalError", "", {}]).to_string());
                }
            }
            Step::BackendRepeats => {
                let current = self.backend.outstanding.as_ref().map(|(id, ..)| id.clone());
                let old = self.backend.answered.last().cloned().filter(|id| Some(id) != current.as_ref());
                if let Some(id) = old.filter(|_| self.backend.up) {
                    self.route.north_frame(self.now, json!([3, id, {"transactionId": 77}]).to_string());
                }
            }
            Step::RemoteStop => {
                // An id that died with the process before it was on disk is nobody's: the Start is sent again.
                let on_disk = |t: &usize| self.done.contains(&self.backend.starts[t]);
                let newest =
                    self.backend.ids.iter().max().map(|(t, id)| (*t, *id)).filter(|(t, _)| on_disk(t));
                if let Some((t, real)) = newest.filter(|_| self.backend.up) {
                    self.backend_calls(
                        &format!("r{t}"),
                        "RemoteStopTransaction",
                        &json!({"transactionId": real}),
                    );
                }
            }
            Step::Clear if self.backend.up => self.backend_calls("c", "ClearChargingProfile", &json!({})),
            Step::Start | Step::Clear | Step::NorthReplaced => {}
            Step::Disk => self.disk(),
            Step::Crash => {
                self.disk.clear();
                self.south(false);
                self.north(false);
                while self.route.output().is_some() {}
                self.seed += 1;
                let saved = queue::load(&self.db, &me()).unwrap();
                self.route = Route::new(self.now.mono, rules(), saved, self.seed);
            }
            Step::Time(seconds) => self.wait(Duration::from_secs(seconds)),
            Step::Wish(amps) => {
                self.serial += 1;
                let setpoint = Setpoint {
                    sequence: self.serial as u64,
                    limit: Milliamps::amps(amps),
                    failsafe: Milliamps::amps(6),
                    lease: Duration::from_secs(60),
                    one_phase: false,
                    reason: String::new(),
                };
                self.route.setpoint(self.now, Some(setpoint));
            }
        }
        self.settle();
    }

    fn backend_calls(&mut self, prefix: &str, action: &str, payload: &Value) {
        self.backend.calls_made += 1;
        let id = format!("{prefix}.{}", self.backend.calls_made);
        self.backend.calls.insert(id.clone());
        self.route.north_frame(self.now, json!([2, id, action, payload]).to_string());
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now.plus(time);
        for _ in 0..1000 {
            match self.route.poll_timeout() {
                Some((at, _)) if at <= end.mono => {
                    self.now = self.now.plus(at.since(self.now.mono));
                    self.route.timeout(self.now);
                    self.settle();
                }
                _ => {
                    self.now = end;
                    return self.settle();
                }
            }
        }
        panic!("the route wakes without end: {:?}", self.route.poll_timeout());
    }

    /// Everybody comes back and does what he should.
    fn end_well(&mut self) {
        self.take(Step::NorthHeld(false));
        for _ in 0..3000 {
            for step in [Step::SouthUp, Step::NorthUp, Step::Disk, Step::EvseAnswers, Step::BackendAnswers] {
                self.take(step);
            }
            let saved = queue::load(&self.db, &me()).unwrap();
            if self.evse.outbox.is_empty() && saved.messages.is_empty() && self.disk.is_empty() {
                return self.check();
            }
            if self.disk.is_empty() && self.backend.outstanding.is_none() && self.evse.call.is_none() {
                self.take(Step::Time(1));
            }
        }
        panic!("it does not come to an end: {:?} {:?}", self.evse.outbox, self.route);
    }

    fn check(&self) {
        let expected: Vec<_> = self.evse.order.iter().filter(|id| !self.dead.contains(*id)).collect();
        let got: Vec<_> = self.backend.got.iter().filter(|id| !self.dead.contains(*id)).collect();
        assert_eq!(expected, got, "lost or out of order");
        let (mut rows, mut told) = (0, BTreeSet::new());
        for id in self.evse.known.values() {
            rows += 1;
            told.insert(*id);
        }
        assert_eq!(told.len(), rows, "two transactions have one id");
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(steps in vec(step(), 1..120)) {
        let mut world = World::new();
        world.take(Step::SouthUp);
        for step in steps {
            world.take(step);
        }
        world.end_well();
    }
}

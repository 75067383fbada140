//! The side of the backend: its frames, and the EVSE's CALLs on their way to it.
//!
//! Order on the way north (G-14): a BootNotification, then what is live, then the durable queue.

use super::{
    super::{
        Secret, Version,
        frame::{self, Frame, Id, Number},
        queue::Op,
        table::{self, Down, Offline, Up},
        v16::message::{self, StatusAnswer},
    },
    After, Asked, Out, Route, Trouble,
    guard::{self, Guarded},
    list,
    south::{BackendCall, Then},
};
use crate::{
    site::event::EvseEvent,
    time::{Mono, Now},
};
use std::time::Duration;

/// After this many CALLs without an answer in between the connection is made anew.
const MOST_SILENT: u32 = 2;

/// The connection to the backend.
#[derive(Debug)]
pub(super) struct North {
    /// Which one; rises.
    connection: u64,
    pub(super) version: Version,
    outstanding: Option<Outstanding>,
    silent: u32,
    /// It is about to be replaced: no CALL goes over it any more.
    held: bool,
    /// The backend has answered over it.
    answered: bool,
}

#[derive(Debug)]
struct Outstanding {
    key: String,
    until: Mono,
    what: What,
}

#[derive(Debug)]
enum What {
    Live(Live),
    /// A boot that was answered here.
    Boot,
    /// A CALL of our own in the EVSE's place.
    Own,
    Queued(i64),
}

/// A CALL of the EVSE that waits for the backend.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) asked: Asked,
    pub(super) way: Up,
    pub(super) frame: String,
    /// For `Authorize`.
    pub(super) id_tag: String,
    pub(super) until: Mono,
}

impl Live {
    fn is_boot(&self) -> bool {
        self.way == Up::Live(Offline::Boot)
    }
}

impl North {
    fn new(connection: u64, version: Version) -> Self {
        Self { connection, version, outstanding: None, silent: 0, held: false, answered: false }
    }

    /// Whether a CALL may go over it.
    fn is_free(&self) -> bool {
        // A connection that is being closed for its silence carries nothing more.
        self.outstanding.is_none() && self.silent < MOST_SILENT && !self.held
    }
}

impl Route {
    /// The backend is connected and speaks this version.
    pub(crate) fn north_up(&mut self, now: Now, version: Version) {
        self.connections += 1;
        self.north = Some(North::new(self.connections, version));
        self.trouble(Trouble::Backend, None);
        if let Some(boot) = &mut self.boot {
            boot.not_before = now.mono;
        }
        self.tell(EvseEvent::Backend(true));
        self.retry_now();
        self.go_on(now);
    }

    /// The backend is gone. Whoever waits for it is answered here.
    pub(crate) fn north_down(&mut self, now: Now) {
        let Some(north) = self.north.take() else { return };
        let outstanding = north.outstanding.and_then(|o| match o.what {
            What::Live(live) => Some(live),
            What::Boot | What::Own | What::Queued(_) => None,
        });
        self.own_north.clear();
        let waiting: Vec<_> = outstanding.into_iter().chain(std::mem::take(&mut self.live)).collect();
        for live in waiting {
            self.answer_here(now, live);
        }
        self.answer_all_kept(now);
        self.tell(EvseEvent::Backend(false));
        self.go_on(now);
    }

    /// Whether the backend's connection is about to be replaced: CALLs wait for the next one.
    pub(crate) fn hold_north(&mut self, now: Now, held: bool) {
        if let Some(north) = &mut self.north {
            north.held = held;
        }
        self.go_on(now);
    }

    /// Whether nobody on either side waits for an answer over the backend's connection.
    pub(crate) fn north_is_quiet(&self) -> bool {
        self.north.as_ref().is_none_or(|north| north.outstanding.is_none()) && !self.backend_waits()
    }

    /// Whether the backend has answered over the connection that stands.
    pub(crate) fn north_has_answered(&self) -> bool {
        self.north.as_ref().is_some_and(|north| north.answered)
    }

    pub(super) fn north_connection(&self) -> Option<u64> {
        self.north.as_ref().map(|north| north.connection)
    }

    /// Another connection stands in the place of the one that stood. What waits for the backend goes on waiting.
    pub(crate) fn north_replaced(&mut self, now: Now) {
        let Some(north) = &self.north else { return };
        let version = north.version;
        if north.outstanding.is_some() {
            // The answer can no longer come: the same as an end.
            self.north_down(now);
            return self.north_up(now, version);
        }
        self.connections += 1;
        self.north = Some(North::new(self.connections, version));
        self.go_on(now);
    }

    /// The backend sent a text.
    pub(crate) fn north_frame(&mut self, now: Now, text: String) {
        let Some(north) = &self.north else { return };
        let (connection, version) = (north.connection, north.version);
        match frame::peek(&text) {
            Ok(Frame::Call { id, .. }) if !self.is_served() => self.gone(connection, &id),
            Ok(Frame::Call { id, action, payload }) => {
                let call = self.arbitrate(now, connection, id, &action, payload, &text);
                if let Some(call) = call {
                    self.call_south(call);
                }
            }
            Ok(Frame::Answer { id, payload }) => {
                let payload = payload.to_owned();
                self.north_answer(now, &id, Ok(&payload), text);
            }
            Ok(Frame::Error { id, code }) => self.north_answer(now, &id, Err(&code), text),
            Ok(Frame::Send { action, .. }) => {
                if self.is_served()
                    && self.version.has_send()
                    && table::down(self.version, &action) == Down::Send
                {
                    self.pass_south(text);
                } else {
                    self.note("the backend sends a SEND that has no place here");
                }
            }
            Ok(Frame::AnswerError { id, code }) => {
                tracing::debug!(id = id.key(), code, "the backend could not read an answer");
                if self.is_served() && self.version.has_send() {
                    self.pass_south(text);
                }
            }
            Ok(Frame::Unknown) => self.note("the backend sends message types that OCPP does not know"),
            Err(bad) => {
                self.note("the backend sends malformed frames");
                if let Some(id) = bad.id {
                    let code = version.format_violation();
                    self.answer_north(connection, frame::error(&id, code, bad.why));
                }
            }
        }
        self.go_on(now);
    }

    /// What becomes of a CALL of the backend on its way south; `None` if it is answered here.
    fn arbitrate(
        &mut self,
        now: Now,
        north: u64,
        id: Id,
        action: &str,
        payload: &str,
        text: &str,
    ) -> Option<BackendCall> {
        if let Some((code, why)) = self.violation(self.version, action, payload) {
            self.answer_north(north, frame::error(&id, code, &why));
            return None;
        }
        let mut then = Then::Relay;
        let path: &[&str] = match table::down(self.version, action) {
            // It is the site that plays it: the backend's profiles and settings are its own business.
            Down::SetProfile(path) if self.rules.local => path,
            Down::Settings | Down::ClearProfile | Down::Composite | Down::Profiles | Down::Levels
                if self.rules.local =>
            {
                &[]
            }
            Down::Certificate if guard::brings_backends_root(payload) => {
                self.note("the backend wants to set whom the EVSE trusts as its backend; that is the site's");
                self.answer_north(north, frame::result(&id, r#"{"status":"Rejected"}"#));
                return None;
            }
            Down::Pass | Down::Certificate => &[],
            Down::Settings => return self.guarded(north, id, payload, text),
            Down::Network => {
                self.note("the backend wants to set where the EVSE connects; that is the site's");
                let refusal = guard::network_profile_refused(self.version);
                self.answer_north(north, frame::result(&id, &refusal));
                return None;
            }
            Down::Levels => {
                then = Then::Levels;
                &[]
            }
            Down::Translate(path) => path,
            Down::SetProfile(path) => {
                let frame = self.translated(path, payload, text);
                return self.set_profile(now, north, id, payload, frame);
            }
            Down::ClearProfile => return self.clear_profiles(north, id, payload, text.to_owned()),
            Down::Composite => {
                self.answer_north(north, frame::result(&id, &self.composite(now, payload)));
                return None;
            }
            Down::Profiles => {
                self.tell_profiles(north, &id, payload);
                return None;
            }
            Down::TransactionStatus => {
                let named: message::TransactionName = message::read(payload);
                then = Then::Waiting(Some(named.transaction_id).filter(|t| !t.is_empty()));
                &[]
            }
            Down::ClearCache => {
                self.forget_cards();
                then = Then::Stored;
                &[]
            }
            Down::Send => {
                self.note("the backend sends as a CALL what is a SEND");
                &[]
            }
        };
        let list = if action == "SendLocalList" { list::read(payload).map(Box::new) } else { None };
        Some(BackendCall { id, frame: self.translated(path, payload, text), north, then, list })
    }

    /// A setting: passes unless it is about the connection.
    fn guarded(&mut self, north: u64, id: Id, payload: &str, text: &str) -> Option<BackendCall> {
        let pass = |id, then| Some(BackendCall { id, frame: text.to_owned(), north, then, list: None });
        if !self.version.is_2() {
            let (status, password) = match guard::configuration(payload) {
                Guarded::Pass => return pass(id, Then::Relay),
                Guarded::Password(password) => ("Accepted", Some(password)),
                Guarded::Refused => ("Rejected", None),
            };
            let answer = frame::result(&id, &format!(r#"{{"status":"{status}"}}"#));
            self.answer_guarded(north, answer, password);
            return None;
        }
        let Some(sorted) = guard::variables(payload) else {
            return pass(id, Then::Relay);
        };
        let Some(rest) = sorted.rest else {
            let answer = frame::result(&id, &guard::merged("{}", &sorted.own));
            self.answer_guarded(north, answer, sorted.password);
            return None;
        };
        let frame = format!("[2,{},\"SetVariables\",{rest}]", id.token());
        let then = Then::Variables(sorted.own, sorted.password);
        Some(BackendCall { id, frame, north, then, list: None })
    }

    /// The answer to a setting, behind the password if it was one.
    pub(super) fn answer_guarded(&mut self, north: u64, text: String, password: Option<Secret>) {
        match password {
            Some(password) => {
                let op = Op::Password(password.clone());
                self.store(vec![op], After::Password(north, text, password));
            }
            None => self.answer_north(north, text),
        }
    }

    /// The frame with the transaction id behind a path as the EVSE knows it.
    fn translated(&self, path: &[&str], payload: &str, text: &str) -> String {
        let number = if path.is_empty() { None } else { Number::find(text, payload, path) };
        let known = number.and_then(|number| {
            let transaction =
                self.transactions.iter().rev().find(|t| t.backend_id == Some(number.value) && t.told)?;
            Some(number.put(text, transaction.id))
        });
        known.unwrap_or_else(|| text.to_owned())
    }

    fn north_answer(&mut self, now: Now, id: &Id, outcome: Result<&str, &str>, mut text: String) {
        let Some(north) = &mut self.north else { return };
        let version = north.version;
        let Some(outstanding) = north.outstanding.take_if(|o| o.key == id.key()) else {
            return self.note("the backend answers calls that nobody waits for");
        };
        north.silent = 0;
        north.answered = true;
        self.backend_lives();
        if let Ok(payload) = outcome
            && let Some((code, why)) = self.judge_answer(version, &outstanding.what, payload)
        {
            text = frame::error(id, code, &why);
        }
        match outstanding.what {
            What::Live(live) => {
                if live.is_boot() {
                    self.boot_answered(now, outcome, true);
                    self.reply(&live.asked, text);
                    self.booted();
                    return;
                }
                if let Ok(payload) = outcome {
                    let info = self.version.verdict(payload);
                    if let Some(op) = self.learn(&live.id_tag, info, now.wall) {
                        self.store(vec![op], After::Nothing);
                    }
                }
                self.reply(&live.asked, text);
            }
            What::Boot => self.boot_answered(now, outcome, false),
            What::Own => {}
            What::Queued(seq) => match outcome {
                Ok(payload) => self.delivered(now, seq, payload, text),
                Err(code) => self.failed(now, seq, code),
            },
        }
    }

    /// An answer of the backend against the schemas: the error that the EVSE gets in its place. A boot and what is billed
    /// are told of only: the one decides whether the EVSE works at all, the other is not asked for a second time.
    fn judge_answer(
        &mut self,
        version: Version,
        what: &What,
        payload: &str,
    ) -> Option<(&'static str, String)> {
        self.rules.schemas.as_ref()?;
        let (call, may_refuse) = match what {
            What::Live(live) => (live.frame.clone(), !live.is_boot()),
            What::Queued(seq) => {
                let head = self.queue.front().filter(|entry| entry.message.seq == *seq)?;
                (head.message.frame.clone(), false)
            }
            What::Boot | What::Own => return None,
        };
        self.answer_violation(version, &call, payload).filter(|_| may_refuse)
    }

    /// 1.6 §4.2: until the backend accepts, nothing of the queue is sent. `live`: the EVSE hears this answer, too.
    fn boot_answered(&mut self, now: Now, outcome: Result<&str, &str>, live: bool) {
        let answer: StatusAnswer = outcome.map(message::read).unwrap_or_default();
        let accepted = answer.status == "Accepted";
        if !answer.status.is_empty() {
            self.gate_closed = !accepted;
            if accepted != self.accepted {
                self.accepted = accepted;
                self.store(vec![Op::Accepted(accepted)], After::Nothing);
            }
        }
        // A boot that the backend cannot process must not hold up what is billed.
        if self.boot.is_some() && (live || accepted || outcome.is_err()) {
            self.boot = None;
            self.store(vec![Op::Boot(None)], After::Nothing);
        } else if let Some(boot) = &mut self.boot {
            let seconds = answer.interval.and_then(|s| u64::try_from(s).ok()).unwrap_or(60).clamp(10, 3600);
            boot.not_before = now.mono + Duration::from_secs(seconds);
        }
    }

    /// Sends to the backend if it is still the same connection.
    pub(super) fn answer_north(&mut self, connection: u64, text: String) {
        if self.north.as_ref().is_some_and(|n| n.connection == connection) {
            self.out.push_back(Out::North(text));
        }
    }

    /// The EVSE cannot answer.
    pub(super) fn gone(&mut self, connection: u64, id: &Id) {
        self.answer_north(connection, frame::error(id, "GenericError", "the charge point does not answer"));
    }

    /// A CALL of the EVSE that the backend shall answer if it can.
    pub(super) fn live(&mut self, now: Now, asked: Asked, way: Up, frame: String, id_tag: String) {
        let Some(rules) = &self.rules.backend else {
            return self.answer_here(now, Live { asked, way, frame, id_tag, until: now.mono });
        };
        let until = now.mono + rules.call_timeout;
        let call = Live { asked, way, frame, id_tag, until };
        let same = |other: &Live| other.asked == call.asked && other.frame == call.frame;
        let outstanding = self.north.as_ref().and_then(|n| n.outstanding.as_ref());
        if self.live.iter().any(same)
            || outstanding.is_some_and(|o| matches!(&o.what, What::Live(l) if same(l)))
        {
            return self.note("the EVSE repeats a call that is not answered yet");
        }
        if self.is_served() {
            self.live.push_back(call);
        } else {
            self.answer_here(now, call);
        }
    }

    /// How many CALLs of the EVSE wait for their answers.
    pub(super) fn unanswered(&self) -> usize {
        self.live.len()
            + self.queue.iter().rev().take(super::MOST_UNANSWERED).filter(|e| e.asked.is_some()).count()
    }

    /// Sends the next CALL to the backend, if none is unanswered.
    pub(super) fn send_north(&mut self, now: Now) {
        let (Some(north), Some(rules)) = (&mut self.north, &self.rules.backend) else {
            return;
        };
        if !north.is_free() {
            return;
        }
        let until = now.mono + rules.call_timeout;
        let served = north.version == self.version;
        let live = match self.live.iter().position(Live::is_boot) {
            Some(boot) => self.live.remove(boot),
            None if served && self.boot.as_ref().is_some_and(|b| b.not_before <= now.mono) => None,
            None => self.live.pop_front(),
        };
        let (frame, what) = if let Some(live) = live {
            (live.frame.clone(), What::Live(live))
        } else if let Some(boot) = self.boot.as_ref().filter(|b| served && b.not_before <= now.mono) {
            (boot.frame.clone(), What::Boot)
        } else if served && let Some(own) = self.own_north.pop_front() {
            (own, What::Own)
        } else if served && (self.boot.is_some() || self.gate_closed) {
            // In another version the old messages are all there is to say.
            return;
        } else if let Some((seq, frame)) = self.next_queued(now) {
            (frame, What::Queued(seq))
        } else {
            return;
        };
        let key = match frame::peek(&frame) {
            Ok(Frame::Call { id, .. }) => id.key().to_owned(),
            _ => return,
        };
        if let Some(north) = &mut self.north {
            north.outstanding = Some(Outstanding { key, until, what });
            self.out.push_back(Out::North(frame));
        }
    }

    /// Whether the way north is free for a new message.
    pub(super) fn north_is_free(&self) -> bool {
        self.is_served()
            && self.north.as_ref().is_some_and(North::is_free)
            && self.live.is_empty()
            && self.boot.is_none()
            && !self.gate_closed
    }

    pub(super) fn north_timeouts(&self) -> impl Iterator<Item = (Mono, &'static str)> {
        let north = self.north.as_ref();
        let outstanding =
            north.and_then(|n| Some((n.outstanding.as_ref()?.until, "the backend owes an answer")));
        let live = self.live.front().map(|l| (l.until, "a call waits too long for the backend"));
        // What may not be sent is not waited for: a timer that nothing can end would wake without end.
        let free = north.is_some_and(North::is_free);
        let served = self.is_served();
        let boot =
            self.boot.as_ref().filter(|_| free && served).map(|b| (b.not_before, "the boot is sent again"));
        let queue = self.queue_timeouts(free && (!served || self.boot.is_none() && !self.gate_closed));
        outstanding.into_iter().chain(live).chain(boot).chain(queue)
    }

    pub(super) fn north_timeout(&mut self, now: Now) {
        while let Some(live) = self.live.pop_front_if(|l| l.until <= now.mono) {
            self.late(now, live);
        }
        self.queue_timeout(now);
        let Some(north) = &mut self.north else { return };
        let Some(outstanding) = north.outstanding.take_if(|o| o.until <= now.mono) else {
            return;
        };
        north.silent += 1;
        let silent = north.silent;
        match outstanding.what {
            What::Live(live) => self.late(now, live),
            What::Boot => {
                if let Some(boot) = &mut self.boot {
                    boot.not_before = now.mono + Duration::from_secs(60);
                }
            }
            What::Own => {}
            What::Queued(seq) => self.silent(now, seq),
        }
        self.note("the backend does not answer");
        if silent >= MOST_SILENT {
            self.out.push_back(Out::CloseNorth("the backend does not answer"));
        }
    }

    /// The backend is too slow for a live CALL: answered here if that can be done in its sense, else refused.
    fn late(&mut self, now: Now, live: Live) {
        match live.way {
            Up::Live(Offline::Fixed(_) | Offline::Unknown) => {
                self.refuse(&live.asked, "GenericError", "the backend does not answer");
            }
            _ => self.answer_here(now, live),
        }
    }
}

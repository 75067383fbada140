//! The side of the EVSE: its frames, and our own CALLs to it.
//!
//! ```text
//!   our limit:   wanted ─sent→ [outstanding] ─Accepted→ confirmed ─2 s, if the value is new→ TriggerMessage
//!                  ↑                └─ refused, silent → told to the site, tried again with its next wish
//!                  └── connection, accepted boot, backend's ClearChargingProfile
//! ```

use std::{collections::VecDeque, time::Duration};

use super::{
    super::{
        Version,
        dialect::ConnectorState,
        frame::{self, Frame, Id},
        queue::Op,
        table::{self, Kind, Offline, Up},
        v2,
        v16::{
            draw::draw,
            message::{self, StatusAnswer},
        },
    },
    After, Asked, MOST_UNANSWERED, Out, Route,
};
use crate::{
    plan::Setpoint,
    site::event::{ConnectorStatus, EvseEvent},
    time::{Mono, Now},
    units::Milliamps,
};

/// For the EVSE's answer to a CALL of the backend.
const BACKEND_CALL: Duration = Duration::from_secs(30);
/// A box that boots tells so at once; before it is accepted it ignores or refuses profiles (1.6 §4.2).
const BOOT_GRACE: Duration = Duration::from_secs(1);
/// How long an unanswered boot holds our limit back at most.
const BOOT_ANSWER: Duration = Duration::from_secs(30);
/// How long a car takes to follow a new limit, roughly.
const MEASURED_AFTER: Duration = Duration::from_secs(2);
/// Most CALLs of the backend that wait for the EVSE.
const MOST_CALLS: usize = 32;
/// Our chargingProfileId; backends count from 0 or 1.
const PROFILE_ID: i64 = 2_014_140_000;

/// The connection of the EVSE.
#[derive(Debug)]
pub(super) struct South {
    /// Which one; rises.
    pub(super) connection: u64,
    outstanding: Option<Outstanding>,
    calls: VecDeque<BackendCall>,
    /// Answers to `ClearChargingProfile` that wait for our limit to be back; with the backend's connection.
    held: Vec<(u64, String)>,
    hold_until: Option<Mono>,
    can_trigger: bool,
    trigger_at: Option<Mono>,
}

/// A CALL to the EVSE that is unanswered.
#[derive(Debug)]
struct Outstanding {
    key: String,
    until: Mono,
    what: What,
}

#[derive(Debug)]
enum What {
    Limit { setpoint: Setpoint },
    Trigger,
    Backend(BackendCall),
}

/// A CALL of the backend.
#[derive(Debug)]
pub(super) struct BackendCall {
    pub(super) id: Id,
    /// As the EVSE shall see it.
    pub(super) frame: String,
    /// The backend's connection.
    pub(super) north: u64,
    /// What follows the answer.
    pub(super) then: Then,
}

/// What follows the EVSE's answer to a CALL of the backend.
#[derive(Debug)]
pub(super) enum Then {
    /// It goes to the backend.
    Relay,
    /// Our limit can be gone: it is set again before the answer goes to the backend.
    Restore,
    /// Whether messages wait, of one transaction or of any: those that wait here count, too (E14.FR.04, E14.FR.07).
    Waiting(Option<String>),
}

/// The site's wish.
#[derive(Debug)]
pub(super) struct Wish {
    setpoint: Option<Setpoint>,
    /// Not sent yet, or to be sent again.
    due: bool,
    profile_id: i64,
    confirmed: Option<Milliamps>,
}

impl Default for Wish {
    fn default() -> Self {
        Self { setpoint: None, due: false, profile_id: PROFILE_ID, confirmed: None }
    }
}

impl Wish {
    pub(super) fn want(&mut self, setpoint: Option<Setpoint>) {
        self.due = setpoint.is_some();
        self.setpoint = setpoint;
    }

    fn again(&mut self) {
        self.due = self.setpoint.is_some();
    }

    /// The backend uses this id for a profile of its own, so ours takes another.
    pub(super) fn avoid(&mut self, profile_id: i64) -> bool {
        let same = self.profile_id == profile_id;
        if same {
            self.profile_id += 1;
        }
        same
    }

    pub(super) fn is_profile(&self, profile_id: i64) -> bool {
        self.profile_id == profile_id
    }
}

impl Route {
    /// The EVSE is connected and speaks this version; a connection before is gone.
    pub(crate) fn south_up(&mut self, now: Now, version: Version) {
        self.south_down(now);
        if version != self.version {
            self.version = version;
            // The boot of another version can be told to nobody any more.
            self.boot = None;
            self.store(vec![Op::Version(version), Op::Boot(None)], After::Nothing);
        }
        self.connections += 1;
        self.noted.clear();
        self.away_since = None;
        self.south = Some(South {
            connection: self.connections,
            outstanding: None,
            calls: VecDeque::new(),
            held: Vec::new(),
            hold_until: Some(now.mono + BOOT_GRACE),
            can_trigger: true,
            trigger_at: None,
        });
        self.wish.again();
        self.wish.confirmed = None;
        self.tell(EvseEvent::Connected);
        self.go_on(now);
    }

    /// The EVSE is gone.
    pub(crate) fn south_down(&mut self, now: Now) {
        let Some(south) = self.south.take() else { return };
        self.away_since = Some(now.mono);
        for (north, text) in south.held {
            self.answer_north(north, text);
        }
        let outstanding = south.outstanding.and_then(|o| match o.what {
            What::Backend(call) => Some(call),
            What::Limit { .. } | What::Trigger => None,
        });
        for call in outstanding.into_iter().chain(south.calls) {
            self.gone(call.north, &call.id);
        }
        self.live.retain(|call| call.asked.south != south.connection);
        for entry in &mut self.queue {
            entry.asked = None;
        }
        self.tell(EvseEvent::Disconnected);
        self.go_on(now);
    }

    /// The EVSE sent a text.
    pub(crate) fn south_frame(&mut self, now: Now, text: String) {
        let Some(south) = &mut self.south else { return };
        let connection = south.connection;
        match frame::peek(&text) {
            Ok(Frame::Call { id, action, payload }) => {
                if action != "BootNotification"
                    && south.hold_until.is_some_and(|at| at <= now.mono + BOOT_GRACE)
                {
                    south.hold_until = None;
                }
                let asked = Asked { id, south: connection };
                let (action, payload) = (action.into_owned(), payload.to_owned());
                self.south_call(now, asked, &action, &payload, text);
            }
            Ok(Frame::Answer { id, payload }) => {
                let (id, status) = (id, message::read::<StatusAnswer>(payload).status);
                self.south_answer(now, &id, &status, text);
            }
            Ok(Frame::Error { id, code }) => self.south_answer(now, &id, &format!("CALLERROR {code}"), text),
            Ok(Frame::Send { action, .. }) => {
                if self.version.has_send() && table::up(self.version, &action) == Up::Send {
                    self.pass_north(text);
                } else {
                    self.note("the EVSE sends a SEND that has no place here");
                }
            }
            Ok(Frame::AnswerError { id, code }) => {
                tracing::debug!(id = id.key(), code, "the EVSE could not read an answer");
                if self.version.has_send() {
                    self.pass_north(text);
                }
            }
            Ok(Frame::Unknown) => self.note("the EVSE sends message types that OCPP does not know"),
            Err(bad) => {
                self.note("the EVSE sends malformed frames");
                self.south_trouble(now, &format!("the EVSE sent a frame that {}", bad.why));
                if let Some(id) = bad.id {
                    let code = self.version.format_violation();
                    self.refuse(&Asked { id, south: connection }, code, bad.why);
                }
            }
        }
        self.go_on(now);
    }

    fn south_call(&mut self, now: Now, asked: Asked, action: &str, payload: &str, text: String) {
        if self.unanswered() >= MOST_UNANSWERED {
            self.note("the EVSE sends CALLs without waiting for answers");
            return self.refuse(&asked, "GenericError", "too many calls are unanswered");
        }
        match table::up(self.version, action) {
            Up::Durable(Kind::Event) => {
                self.event(now, asked, payload, action.ends_with(table::SIGNED), text);
            }
            Up::Durable(Kind::Start) => self.start(now, asked, payload, text),
            Up::Durable(Kind::Stop) => self.stop(now, asked, payload, text),
            Up::Meter | Up::Durable(_) => {
                let message = self.version.meter_values(payload);
                if let Some(draw) = draw(&message, now) {
                    self.tell(EvseEvent::Draw(draw));
                }
                if message.durable() && self.rules.backend.is_some() {
                    self.meter(now, asked, message.transaction_id, text);
                } else {
                    self.live(now, asked, Up::Live(Offline::Empty), text, String::new());
                }
            }
            Up::Ordered => {
                if action == "StatusNotification"
                    && let Some(state) = self.version.state(payload)
                {
                    self.status(state);
                }
                self.ordered(now, asked, text);
            }
            Up::Event => {
                for state in self.version.states(payload) {
                    self.status(state);
                }
                if message::read::<v2::message::NotifyEvent>(payload).matters() {
                    self.ordered(now, asked, text);
                } else {
                    self.live(now, asked, Up::Live(Offline::Empty), text, String::new());
                }
            }
            Up::Send => {
                self.note("the EVSE sends as a CALL what is a SEND");
                self.live(now, asked, Up::Live(Offline::Unknown), text, String::new());
            }
            Up::Live(Offline::Boot) => {
                let (vendor, model) = self.version.boot(payload);
                let short = |text: &str| text.chars().take(64).collect();
                self.tell(EvseEvent::Boot { vendor: short(&vendor), model: short(&model) });
                if let Some(south) = &mut self.south {
                    south.hold_until = Some(now.mono + BOOT_ANSWER);
                }
                self.live(now, asked, Up::Live(Offline::Boot), text, String::new());
            }
            Up::Live(offline) => {
                let id_tag = match offline {
                    Offline::Card => self.version.card(payload),
                    _ => String::new(),
                };
                self.live(now, asked, Up::Live(offline), text, id_tag);
            }
        }
    }

    fn ordered(&mut self, now: Now, asked: Asked, text: String) {
        if self.is_served() && !self.queue.is_empty() {
            self.keep(now, asked, Kind::Other, text, None, vec![]);
        } else {
            self.live(now, asked, Up::Ordered, text, String::new());
        }
    }

    fn status(&mut self, state: ConnectorState) {
        let ConnectorState { place, mut status, word, error } = state;
        let error: String = error.chars().take(64).collect();
        match place {
            // One connector per identity for now; 0 is the station as a whole (1.6 §7.7).
            1 => {
                if self.version.is_2() && status == ConnectorStatus::Preparing {
                    // `Occupied`: the transaction's events tell more.
                    if self.transactions.last().is_some_and(|t| !t.ended) {
                        return;
                    }
                    if self.finishing {
                        status = ConnectorStatus::Finishing;
                    }
                } else {
                    self.finishing = false;
                }
                self.tell(EvseEvent::Status { status, error });
            }
            0 => {
                let faulted = status == ConnectorStatus::Faulted || !error.is_empty();
                let what = faulted.then(|| (format!("the station reports {word} {error}"), None));
                self.trouble(super::Trouble::Station, what);
            }
            _ => {}
        }
    }

    /// An answer, by its status (empty without one) or its error.
    fn south_answer(&mut self, now: Now, id: &Id, status: &str, text: String) {
        let Some(south) = &mut self.south else { return };
        let Some(Outstanding { what, .. }) = south.outstanding.take_if(|o| o.key == id.key()) else {
            return self.note("the EVSE answers calls that nobody waits for");
        };
        match what {
            What::Limit { setpoint } if status == "Accepted" => self.confirmed(now, &setpoint),
            What::Limit { setpoint } => self.refused(&setpoint, format!("the EVSE answered {status:?}")),
            What::Trigger => {
                // The name is right for old firmware, too: it puts the status into a CALLERROR.
                if status.starts_with("CALLERROR") || status == "NotImplemented" || status == "NotSupported" {
                    south.can_trigger = false;
                }
            }
            What::Backend(call) => match call.then {
                Then::Restore if self.wish.setpoint.is_some() => {
                    south.held.push((call.north, text));
                    self.wish.again();
                }
                Then::Waiting(transaction) if self.events_wait(transaction.as_deref()) => {
                    let text = frame::with_member(&text, "messagesInQueue", "true").unwrap_or(text);
                    self.answer_north(call.north, text);
                }
                _ => self.answer_north(call.north, text),
            },
        }
    }

    fn confirmed(&mut self, now: Now, setpoint: &Setpoint) {
        let changed = self.wish.confirmed.replace(setpoint.limit) != Some(setpoint.limit);
        if let Some(south) = &mut self.south
            && changed
            && south.can_trigger
        {
            south.trigger_at = Some(now.mono + MEASURED_AFTER);
        }
        self.tell(EvseEvent::Confirmed {
            sequence: setpoint.sequence,
            limit: setpoint.limit,
            lease_until: now.mono + setpoint.lease,
        });
        self.release();
    }

    fn refused(&mut self, setpoint: &Setpoint, why: String) {
        self.tell(EvseEvent::Refused { sequence: setpoint.sequence, why });
        self.release();
    }

    /// Gives the backend the answers that waited for our limit.
    pub(super) fn release(&mut self) {
        let held = self.south.as_mut().map(|s| std::mem::take(&mut s.held)).unwrap_or_default();
        for (north, text) in held {
            self.answer_north(north, text);
        }
    }

    /// The EVSE has its answer to a boot; our limit follows.
    pub(super) fn booted(&mut self) {
        if let Some(south) = &mut self.south {
            south.hold_until = None;
        }
        self.wish.again();
    }

    /// A CALL of the backend for the EVSE.
    pub(super) fn call_south(&mut self, call: BackendCall) {
        match &mut self.south {
            Some(south) if south.calls.len() < MOST_CALLS => south.calls.push_back(call),
            _ => self.gone(call.north, &call.id),
        }
    }

    /// A frame that wants no answer, for the EVSE.
    pub(super) fn pass_south(&mut self, text: String) {
        if self.south.is_some() {
            self.out.push_back(Out::South(text));
        }
    }

    /// A frame that wants no answer, for the backend.
    fn pass_north(&mut self, text: String) {
        if self.is_served() {
            self.out.push_back(Out::North(text));
        }
    }

    /// Sends the next CALL to the EVSE, if none is unanswered.
    pub(super) fn send_south(&mut self, now: Now) {
        let Some(south) = &mut self.south else { return };
        if south.outstanding.is_some() {
            return;
        }
        let held_back = south.hold_until.is_some_and(|at| at > now.mono);
        if self.wish.due
            && !held_back
            && let Some(setpoint) = self.wish.setpoint.clone()
        {
            self.wish.due = false;
            let payload = self.version.set_limit(self.wish.profile_id, &setpoint, now.wall);
            return self.send_own(now, "SetChargingProfile", &payload, What::Limit { setpoint });
        }
        if let Some(call) = south.calls.pop_front() {
            let until = now.mono + BACKEND_CALL;
            self.out.push_back(Out::South(call.frame.clone()));
            south.outstanding =
                Some(Outstanding { key: call.id.key().to_owned(), until, what: What::Backend(call) });
        } else if south.trigger_at.is_some_and(|at| at <= now.mono) {
            south.trigger_at = None;
            self.send_own(now, "TriggerMessage", &self.version.trigger_meter_values(), What::Trigger);
        }
    }

    fn send_own(&mut self, now: Now, action: &str, payload: &str, what: What) {
        let key = self.uuid();
        self.out.push_back(Out::South(frame::call(&key, action, payload)));
        let until = now.mono + self.rules.own_timeout;
        if let Some(south) = &mut self.south {
            south.outstanding = Some(Outstanding { key, until, what });
        }
    }

    pub(super) fn south_timeouts(&self) -> impl Iterator<Item = (Mono, &'static str)> {
        let south = self.south.as_ref();
        let outstanding =
            south.and_then(|s| Some((s.outstanding.as_ref()?.until, "the EVSE owes an answer")));
        let idle = south.filter(|s| s.outstanding.is_none());
        let hold = idle
            .and_then(|s| Some((s.hold_until.filter(|_| self.wish.due)?, "the limit waits for the boot")));
        let trigger = idle.and_then(|s| Some((s.trigger_at?, "the limit shall be measured")));
        outstanding.into_iter().chain(hold).chain(trigger)
    }

    pub(super) fn south_timeout(&mut self, now: Now) {
        let Some(south) = &mut self.south else { return };
        south.hold_until = south.hold_until.filter(|at| *at > now.mono);
        let Some(Outstanding { what, .. }) = south.outstanding.take_if(|o| o.until <= now.mono) else {
            return;
        };
        match what {
            What::Limit { setpoint } => self.refused(&setpoint, "the EVSE does not answer".to_owned()),
            What::Trigger => south.can_trigger = false,
            What::Backend(call) => {
                if matches!(call.then, Then::Restore) {
                    self.wish.again();
                }
                self.note("the EVSE does not answer a call of the backend");
                self.gone(call.north, &call.id);
            }
        }
    }
}

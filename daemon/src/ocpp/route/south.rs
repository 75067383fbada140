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
        Secret, Version,
        dialect::ConnectorState,
        frame::{self, Frame, Id},
        profile::{Criteria, Limit},
        queue::Op,
        table::{self, Kind, Offline, Up},
        v2,
        v16::{
            draw::draw,
            message::{self, StatusAnswer},
        },
    },
    After, Asked, MOST_UNANSWERED, Out, Route, guard,
    list::ListUpdate,
    order::{NoAnswer, Order},
    profiles::Kept,
};
use crate::{
    plan::Setpoint,
    site::event::{ConnectorStatus, EvseEvent},
    time::{Mono, Now},
    units::Milliamps,
};
use serde_json::Value;

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
/// How long our profile holds as long as the site wishes nothing.
const STAND_IN: Duration = Duration::from_secs(86_400);
/// Our chargingProfileId; backends count from 0 or 1.
const PROFILE_ID: i64 = 2_014_140_000;

/// The connection of the EVSE.
#[derive(Debug)]
pub(super) struct South {
    /// Which one; rises.
    pub(super) connection: u64,
    outstanding: Option<Outstanding>,
    calls: VecDeque<BackendCall>,
    pub(super) orders: VecDeque<Order>,
    /// Answers to the backend that wait for our limit to be set.
    pub(super) held: Vec<Held>,
    /// What is to be done at the EVSE when nothing else is.
    pub(super) errands: VecDeque<Errand>,
    hold_until: Option<Mono>,
    can_trigger: bool,
    trigger_at: Option<Mono>,
}

/// An answer to the backend that waits for our limit to be set.
#[derive(Debug)]
pub(super) struct Held {
    /// The backend's connection.
    pub(super) north: u64,
    pub(super) text: String,
    /// The answer instead if the EVSE refuses, and the profile that is then forgotten.
    pub(super) otherwise: Option<(String, i64)>,
    /// Our limit went out since.
    pub(super) sent: bool,
}

/// A CALL of our own that can wait.
#[derive(Debug)]
pub(super) enum Errand {
    /// SetChargingProfile of the backend's with this payload, once more.
    Profile(String),
    /// ClearChargingProfile of one.
    Clear(i64),
}

/// A CALL to the EVSE that is unanswered.
#[derive(Debug)]
struct Outstanding {
    key: String,
    until: Mono,
    what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Limit {
        setpoint: Setpoint,
        of_site: bool,
    },
    Trigger,
    Order(u64),
    Errand,
    /// The end of a transaction that the backend refuses.
    Stop(i64),
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
    /// The EVSE's list changes once it is accepted.
    pub(super) list: Option<Box<ListUpdate>>,
}

/// What follows the EVSE's answer to a CALL of the backend.
#[derive(Debug)]
pub(super) enum Then {
    /// It goes to the backend.
    Relay,
    /// It tells of stack levels, perhaps.
    Levels,
    /// The results of `SetVariables` that are ours, by their places.
    Variables(Vec<(usize, Value)>, Option<Secret>),
    /// If it is Accepted, the EVSE has this profile. If the flag is set, our own had its id.
    Profile(Box<Kept>, bool),
    /// If it is Accepted, what is picked is gone; with the flag ours can be gone, too, and is set again before the
    /// answer goes to the backend.
    Clear(Criteria, bool),
    /// Whether messages wait, of one transaction or of any: those that wait here count, too (E14.FR.04, E14.FR.07).
    Waiting(Option<String>),
    /// It is taken in here: if the EVSE does not know such calls, this is the answer.
    Tariff(&'static str),
    /// It goes to the backend behind what is being stored.
    Stored,
}

/// The site's wish.
#[derive(Debug)]
pub(super) struct Wish {
    setpoint: Option<Setpoint>,
    /// In its place as long as there is none, once profiles of the backend are to be merged.
    stand_in: Option<Setpoint>,
    /// Not sent yet, or to be sent again.
    due: bool,
    profile_id: i64,
    confirmed: Option<Milliamps>,
}

impl Default for Wish {
    fn default() -> Self {
        Self { setpoint: None, stand_in: None, due: false, profile_id: PROFILE_ID, confirmed: None }
    }
}

impl Wish {
    pub(super) fn want(&mut self, setpoint: Option<Setpoint>) {
        self.due = setpoint.is_some() || self.stand_in.is_some();
        self.setpoint = setpoint;
    }

    fn again(&mut self) {
        self.due = self.setpoint.is_some() || self.stand_in.is_some();
    }

    /// Our profile is to be set anew. As long as the site wishes nothing, it allows what the EVSE is rated for.
    pub(super) fn want_now(&mut self, rated: Milliamps) {
        self.stand_in = Some(Setpoint {
            sequence: 0,
            limit: rated,
            failsafe: rated,
            lease: STAND_IN,
            one_phase: false,
            reason: String::new(),
        });
        self.due = true;
    }

    /// Whether it waits, and takes from what the EVSE has.
    fn is_urgent(&self) -> bool {
        let limit = self.setpoint.as_ref().map(|setpoint| setpoint.limit);
        self.due && limit.is_some_and(|limit| self.confirmed.is_none_or(|confirmed| limit < confirmed))
    }

    /// The id of our profile.
    #[cfg(test)]
    pub(super) fn id(&self) -> i64 {
        self.profile_id
    }

    /// What the site allows now.
    pub(super) fn limit(&self) -> Option<Milliamps> {
        self.setpoint.as_ref().map(|s| s.limit)
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
            orders: VecDeque::new(),
            held: Vec::new(),
            errands: VecDeque::new(),
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
        for held in south.held {
            // What is kept here holds from the next connection on.
            self.answer_north(held.north, held.text);
        }
        for order in south.orders {
            self.order_ended(order.ticket, Err(NoAnswer::Away));
        }
        let outstanding = south.outstanding.and_then(|o| match o.what {
            What::Backend(call) => Some(call),
            What::Order(ticket) => {
                self.order_ended(ticket, Err(NoAnswer::Away));
                None
            }
            What::Stop(transaction) => {
                self.refused.push_front(transaction);
                None
            }
            What::Limit { .. } | What::Trigger | What::Errand => None,
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

    /// Whether the backend waits for the EVSE's answer on the connection that it has now.
    pub(super) fn backend_waits(&self) -> bool {
        let Some(north) = self.north_connection() else { return false };
        // An answer that waits for the disk is one that the backend waits for.
        let storing = self.acks.iter().any(|(_, after)| {
            matches!(after, After::North(connection, _) | After::Password(connection, ..) if *connection == north)
        });
        let Some(south) = &self.south else { return storing };
        let outstanding = match south.outstanding.as_ref().map(|o| &o.what) {
            Some(What::Backend(call)) => Some(call.north),
            Some(What::Limit { .. } | What::Trigger | What::Errand | What::Stop(_) | What::Order(_))
            | None => None,
        };
        let held = south.held.iter().map(|held| held.north);
        let mut waiting =
            outstanding.into_iter().chain(south.calls.iter().map(|call| call.north)).chain(held);
        storing || waiting.any(|connection| connection == north)
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
                let payload = payload.to_owned();
                self.south_answer(now, &id, &status, &payload, text);
            }
            Ok(Frame::Error { id, code }) => {
                self.south_answer(now, &id, &format!("CALLERROR {code}"), "{}", text);
            }
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
        if let Some((code, why)) = self.violation(self.version, action, payload) {
            return self.refuse(&asked, code, &why);
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
                if let Some(needs) = self.version.needs(action, payload) {
                    self.tell(EvseEvent::Needs(needs));
                }
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
    fn south_answer(&mut self, now: Now, id: &Id, status: &str, payload: &str, mut text: String) {
        let Some(south) = &mut self.south else { return };
        let Some(Outstanding { mut what, .. }) = south.outstanding.take_if(|o| o.key == id.key()) else {
            return self.note("the EVSE answers calls that nobody waits for");
        };
        if let What::Backend(call) = &what
            && !status.starts_with("CALLERROR")
            && self.rules.schemas.is_some()
        {
            let (id, frame) = (call.id.clone(), call.frame.clone());
            if let Some((code, why)) = self.answer_violation(self.version, &frame, payload) {
                text = frame::error(&id, code, &why);
            }
        }
        if let What::Backend(call) = &mut what
            && let Some(update) = call.list.take().filter(|_| status == "Accepted")
        {
            return self.list_taken(*update, what, text);
        }
        self.answered(now, what, status, payload, text);
    }

    fn list_taken(&mut self, update: ListUpdate, what: What, text: String) {
        self.take_list(update);
        if let What::Backend(call) = what {
            self.answer_north(call.north, text);
        }
    }

    fn answered(&mut self, now: Now, what: What, status: &str, payload: &str, text: String) {
        let Some(south) = &mut self.south else { return };
        match what {
            What::Limit { setpoint, of_site } if status == "Accepted" => {
                self.confirmed(now, &setpoint, of_site);
            }
            What::Limit { setpoint, of_site } => {
                self.refused(&setpoint, of_site, format!("the EVSE answered {status:?}"));
            }
            What::Errand => {
                if status != "Accepted" && status != "Unknown" {
                    self.note("the EVSE refuses to take a profile back that it had");
                }
            }
            What::Trigger => {
                // The name is right for old firmware, too: it puts the status into a CALLERROR.
                if status.starts_with("CALLERROR") || status == "NotImplemented" || status == "NotSupported" {
                    south.can_trigger = false;
                }
            }
            What::Order(ticket) => self.order_answered(ticket, &text),
            What::Stop(_) => {
                if status != "Accepted" {
                    self.note("the EVSE does not end a charge that the backend refuses");
                }
            }
            What::Backend(call) => match call.then {
                Then::Profile(kept, restore) => {
                    if status == "Accepted" {
                        self.remember(*kept);
                    }
                    self.answer_behind(call.north, text, restore);
                }
                Then::Clear(criteria, restore) => {
                    let accepted = status == "Accepted";
                    let cleared = (accepted || status == "Unknown") && self.clear(&criteria);
                    let text = if cleared && !accepted {
                        frame::result(&call.id, r#"{"status":"Accepted"}"#)
                    } else {
                        text
                    };
                    self.answer_behind(call.north, text, restore || cleared);
                }
                Then::Variables(own, password) => {
                    let text = if status.starts_with("CALLERROR") {
                        text
                    } else {
                        frame::result(&call.id, &guard::merged(payload, &own))
                    };
                    self.answer_guarded(call.north, text, password);
                }
                Then::Levels => {
                    if let Some(highest) = self.version.levels(payload) {
                        self.learn_levels(highest);
                    }
                    self.answer_north(call.north, text);
                }
                Then::Waiting(transaction) if self.events_wait(transaction.as_deref()) => {
                    let text = frame::with_member(&text, "messagesInQueue", "true").unwrap_or(text);
                    self.answer_north(call.north, text);
                }
                Then::Tariff(accepted) => {
                    let unknown = ["CALLERROR NotImplemented", "CALLERROR NotSupported"].contains(&status);
                    let text = if unknown { frame::result(&call.id, accepted) } else { text };
                    self.answer_north(call.north, text);
                }
                Then::Stored => self.answer_behind(call.north, text, false),
                _ => self.answer_north(call.north, text),
            },
        }
    }

    /// An answer to the backend: behind our limit if that must be set again, else behind what is being stored.
    fn answer_behind(&mut self, north: u64, text: String, restore: bool) {
        if restore && (self.wish.setpoint.is_some() || self.wish.stand_in.is_some()) {
            self.wish.again();
            if let Some(south) = &mut self.south {
                south.held.push(Held { north, text, otherwise: None, sent: false });
            }
        } else {
            self.store(Vec::new(), After::North(north, text));
        }
    }

    fn confirmed(&mut self, now: Now, setpoint: &Setpoint, of_site: bool) {
        if !of_site {
            return self.release(true);
        }
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
        self.release(true);
    }

    fn refused(&mut self, setpoint: &Setpoint, of_site: bool, why: String) {
        if of_site {
            self.tell(EvseEvent::Refused { sequence: setpoint.sequence, why });
        }
        self.release(false);
    }

    /// Gives the backend the answers that waited for our limit, if it went out since they came.
    pub(super) fn release(&mut self, accepted: bool) {
        let Some(south) = &mut self.south else { return };
        let (sent, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut south.held).into_iter().partition(|h| h.sent);
        south.held = waiting;
        for held in sent {
            let text = match held.otherwise {
                Some((refusal, profile)) if !accepted => {
                    self.forget_profile(profile);
                    refusal
                }
                _ => held.text,
            };
            // Behind what is being stored: an answer stands for what survives.
            self.store(Vec::new(), After::North(held.north, text));
        }
    }

    /// The EVSE has its answer to a boot; our limit follows.
    pub(super) fn booted(&mut self) {
        if let Some(south) = &mut self.south {
            south.hold_until = None;
        }
        self.wish.again();
        self.install_again();
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
        let held_back = south.hold_until.is_some_and(|at| at > now.mono);
        if let Some(outstanding) = &mut south.outstanding {
            // G-15: an EVSE that hangs on somebody else's CALL must not hang a limit that takes from it.
            if self.wish.is_urgent() && !held_back {
                outstanding.until = outstanding.until.min(now.mono + self.rules.own_timeout);
            }
            return;
        }
        let of_site = self.wish.setpoint.is_some();
        let wish = self.wish.setpoint.as_ref().or(self.wish.stand_in.as_ref());
        if self.wish.due
            && !held_back
            && let Some(setpoint) = wish.cloned()
        {
            self.wish.due = false;
            south.held.iter_mut().for_each(|h| h.sent = true);
            let (during, after) = self.merged_steps(now.wall, setpoint.lease);
            let limit =
                Limit { profile_id: self.wish.profile_id, setpoint: &setpoint, during: &during, after };
            let payload = self.version.set_limit(&limit, now.wall);
            return self.send_own(now, "SetChargingProfile", &payload, What::Limit { setpoint, of_site });
        }
        if let Some(call) = south.calls.pop_front() {
            let until = now.mono + BACKEND_CALL;
            self.out.push_back(Out::South(call.frame.clone()));
            south.outstanding =
                Some(Outstanding { key: call.id.key().to_owned(), until, what: What::Backend(call) });
        } else if !held_back && let Some((transaction, action, payload)) = self.next_refused() {
            self.send_own(now, action, &payload, What::Stop(transaction));
        } else if self.south.as_ref().is_some_and(|south| !south.orders.is_empty()) {
            self.send_order(now);
        } else {
            self.send_rest(now, held_back);
        }
    }

    /// What can wait.
    fn send_rest(&mut self, now: Now, held_back: bool) {
        let Some(south) = &mut self.south else { return };
        if south.trigger_at.is_some_and(|at| at <= now.mono) {
            south.trigger_at = None;
            self.send_own(now, "TriggerMessage", &self.version.trigger_meter_values(), What::Trigger);
        } else if !held_back && let Some(errand) = south.errands.pop_front() {
            let (action, payload) = match errand {
                Errand::Profile(payload) => ("SetChargingProfile", payload),
                Errand::Clear(id) => ("ClearChargingProfile", self.version.clear_one(id)),
            };
            self.send_own(now, action, &payload, What::Errand);
        }
    }

    pub(super) fn send_own(&mut self, now: Now, action: &str, payload: &str, what: What) {
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
        let hold = idle.and_then(|s| {
            let waits = self.wish.due || !s.errands.is_empty() || !self.refused.is_empty();
            Some((s.hold_until.filter(|_| waits)?, "the limit waits for the boot"))
        });
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
            What::Limit { setpoint, of_site } => {
                self.refused(&setpoint, of_site, "the EVSE does not answer".to_owned());
            }
            What::Trigger => south.can_trigger = false,
            What::Stop(_) => self.note("the EVSE does not end a charge that the backend refuses"),
            What::Order(ticket) => self.order_ended(ticket, Err(NoAnswer::Silent)),
            What::Errand => self.note("the EVSE does not answer a call of ours"),
            What::Backend(call) => {
                if matches!(call.then, Then::Clear(_, true) | Then::Profile(_, true)) {
                    self.wish.again();
                }
                self.note("the EVSE does not answer a call of the backend");
                self.gone(call.north, &call.id);
            }
        }
    }
}

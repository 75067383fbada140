//! The OCPP 1.6J side of a charge point, without I/O: frames in, frames out, time passed in.
//!
//! In: frames, the user's and the car's doings, the passing of time. Out: frames by [`Station::transmit`], what
//! happened by [`Station::events`]. Invariant: at most one own CALL is unanswered; transaction messages keep their
//! order and their message id until they are answered (§3.7).
//!
//! ```text
//! Available → Preparing → Charging ⇄ SuspendedEVSE | SuspendedEV → Finishing → Available
//! ```

use std::{collections::VecDeque, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Event, Session, Settings, State,
    car::{Car, LEAST, Power},
    profile::Profiles,
};
use crate::{clock::Moment, frame::Frame};

/// Attempts of a transaction message that is answered with an error.
const ATTEMPTS: u32 = 5;
/// Wait between them.
const RETRY: Duration = Duration::from_secs(1);

#[expect(clippy::struct_excessive_bools, reason = "independent facts about a device")]
pub(super) struct Station {
    settings: Settings,
    power: Power,
    profiles: Profiles,
    connected: bool,
    booted: bool,
    boot_due: Instant,
    heartbeat: Duration,
    heartbeat_due: Instant,
    meter_due: Instant,
    last_tick: Instant,
    status: &'static str,
    session: Option<Running>,
    finishing: bool,
    sessions: Vec<Session>,
    queue: VecDeque<Outgoing>,
    flight: Option<(Outgoing, Instant)>,
    not_before: Instant,
    answers: VecDeque<String>,
    next_id: u64,
    events: Vec<Event>,
    /// Leaves calls unanswered.
    pub(super) mute: bool,
    /// Answers `Rejected` to every profile.
    pub(super) refuse_profiles: bool,
}

/// A transaction that runs.
struct Running {
    /// Counts the charge point's own transactions.
    local: usize,
    id: Option<i64>,
}

struct Outgoing {
    id: String,
    action: &'static str,
    payload: Value,
    /// The own transaction whose id goes into the payload when it is first sent.
    of: Option<usize>,
    attempts: u32,
}

impl Outgoing {
    fn of_transaction(&self) -> bool {
        self.action == "StartTransaction" || self.of.is_some()
    }
}

impl Station {
    pub(super) fn new(settings: Settings, now: Moment) -> Self {
        let power = Power::new(settings.phases, settings.register_wh);
        Self {
            settings,
            power,
            profiles: Profiles::default(),
            connected: false,
            booted: false,
            boot_due: now.mono,
            heartbeat: Duration::from_secs(300),
            heartbeat_due: now.mono,
            meter_due: now.mono,
            last_tick: now.mono,
            status: "Available",
            session: None,
            finishing: false,
            sessions: Vec::new(),
            queue: VecDeque::new(),
            flight: None,
            not_before: now.mono,
            answers: VecDeque::new(),
            next_id: 1,
            events: Vec::new(),
            mute: false,
            refuse_profiles: false,
        }
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn connected(&mut self, now: Moment) {
        self.connected = true;
        self.boot_due = now.mono;
        self.not_before = now.mono;
        self.events.push(Event::Connected);
    }

    pub(super) fn disconnected(&mut self, why: String) {
        self.connected = false;
        self.answers.clear();
        if let Some((message, _)) = self.flight.take()
            && message.of_transaction()
        {
            self.queue.push_front(message);
        }
        self.queue.retain(Outgoing::of_transaction);
        self.events.push(Event::Disconnected(why));
    }

    /// A restart of the charge point's software: it boots again; the transaction goes on.
    pub(super) fn reboot(&mut self, now: Moment) {
        self.booted = false;
        self.boot_due = now.mono;
    }

    pub(super) fn plug(&mut self, car: Option<Car>, now: Moment) {
        if car.is_none() && self.session.is_some() {
            self.end("EVDisconnected", now);
        }
        self.power.plug(car);
        self.finishing &= car.is_some();
        self.refresh(now);
    }

    /// A card is held to the reader: it begins a transaction, or ends the one that runs.
    pub(super) fn present(&mut self, tag: &str, now: Moment) {
        if self.session.is_some() {
            self.end("Local", now);
        } else if self.power.plugged() {
            self.send("Authorize", json!({ "idTag": tag }), None);
            // Without a connection it trusts the card, as with LocalAuthorizeOffline and a cached card.
            if !self.connected {
                self.queue.pop_back();
                self.begin(tag, now);
            }
        }
    }

    pub(super) fn state(&self, now: Moment) -> State {
        State {
            connected: self.connected,
            booted: self.booted,
            plugged: self.power.plugged(),
            status: self.status,
            limit: self.limit(now),
            car_phases: self.power.car_phases(),
            currents: self.power.currents(),
            watts: self.power.watts(),
            register_wh: whole(self.power.register_wh()),
            transaction: self.session.as_ref().map(|s| s.id),
            sessions: self.sessions.clone(),
            waiting: self.queue.len() + usize::from(self.flight.is_some()),
        }
    }

    fn limit(&self, now: Moment) -> f64 {
        let own = self.settings.max_amps;
        self.profiles.limit(self.transaction_id(), now.wall).map_or(own, |limit| limit.min(own))
    }

    fn transaction_id(&self) -> Option<i64> {
        self.session.as_ref().map(|s| s.id.unwrap_or(-1))
    }

    pub(super) fn tick(&mut self, now: Moment) {
        let offer = self.limit(now);
        self.power.pass(now.mono.duration_since(self.last_tick), self.settings.pace, offer);
        self.last_tick = now.mono;
        self.refresh(now);
        if self.session.is_some() && now.mono >= self.meter_due {
            self.meter_due = now.mono + self.settings.meter_interval;
            self.meter_values(now);
        }
        if !self.connected {
            return;
        }
        if !self.booted && now.mono >= self.boot_due && self.flight.is_none() {
            self.boot_due = now.mono + Duration::from_secs(5);
            let boot = json!({
                "chargePointVendor": self.settings.vendor, "chargePointModel": self.settings.model,
                "chargePointSerialNumber": self.settings.identity, "firmwareVersion": "1.0",
            });
            self.send("BootNotification", boot, None);
            // Nothing goes before it (§4.2).
            if let Some(boot) = self.queue.pop_back() {
                self.queue.push_front(boot);
            }
            self.heartbeat_due = now.mono + self.heartbeat;
        }
        if self.booted && now.mono >= self.heartbeat_due {
            self.heartbeat_due = now.mono + self.heartbeat;
            self.send("Heartbeat", json!({}), None);
        }
        if let Some((_, sent)) = &self.flight
            && now.mono.duration_since(*sent) >= self.settings.call_timeout
            && let Some((message, _)) = self.flight.take()
        {
            self.events.push(Event::Unanswered(message.action));
            if message.of_transaction() {
                self.queue.push_front(message);
            }
        }
    }

    /// The next frame to send.
    pub(super) fn transmit(&mut self, now: Moment) -> Option<String> {
        if !self.connected {
            return None;
        }
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        if self.flight.is_some() || now.mono < self.not_before {
            return None;
        }
        if !self.booted && self.queue.front()?.action != "BootNotification" {
            return None;
        }
        let mut message = self.queue.pop_front()?;
        if let Some(local) = message.of.filter(|_| message.payload.get("transactionId").is_none()) {
            // §4.8 and errata 3.18: -1 when the start was never answered.
            let id = self.sessions.get(local).and_then(|s| s.id).unwrap_or(-1);
            message.payload["transactionId"] = json!(id);
        }
        let frame = Frame::Call {
            id: message.id.clone(),
            action: message.action.to_owned(),
            payload: message.payload.clone(),
        };
        message.attempts += 1;
        self.flight = Some((message, now.mono));
        self.events.push(Event::Sent(frame.clone()));
        Some(frame.write())
    }

    pub(super) fn received(&mut self, text: &str, now: Moment) {
        match Frame::read(text) {
            None => self.events.push(Event::Garbage(text.to_owned())),
            Some(Frame::Call { id, action, payload }) => {
                let answer = self.answer(&action, &payload, now);
                self.events.push(Event::Called(action, payload));
                if self.mute {
                    return;
                }
                let frame = match answer {
                    Ok(payload) => Frame::Result { id, payload },
                    Err(code) => Frame::Error { id, code: code.to_owned(), description: String::new() },
                };
                self.answers.push_back(frame.write());
            }
            Some(Frame::Result { id, payload }) => self.answered(&id, Ok(payload), now),
            Some(Frame::Error { id, code, .. }) => self.answered(&id, Err(code), now),
        }
    }

    fn answered(&mut self, id: &str, answer: Result<Value, String>, now: Moment) {
        let Some((message, _)) = self.flight.take_if(|(m, _)| m.id == id) else {
            self.events.push(Event::Stray(id.to_owned()));
            return;
        };
        let payload = match answer {
            Ok(payload) => payload,
            Err(code) => {
                self.events.push(Event::Failed(message.action, code));
                if message.of_transaction() && message.attempts < ATTEMPTS {
                    self.queue.push_front(message);
                    self.not_before = now.mono + RETRY;
                }
                return;
            }
        };
        let accepted = |info: &Value| info["status"].as_str() == Some("Accepted");
        match message.action {
            "BootNotification" if accepted(&payload) => {
                self.booted = true;
                self.heartbeat = Duration::from_secs(payload["interval"].as_u64().unwrap_or(300).max(1));
                self.notify_status(0, "Available", now);
                self.notify_status(1, self.status, now);
            }
            "Authorize" if accepted(&payload["idTagInfo"]) => {
                let tag = message.payload["idTag"].as_str().unwrap_or_default().to_owned();
                self.begin(&tag, now);
            }
            "StartTransaction" => {
                // The answer belongs to the oldest transaction that has no id yet.
                let Some(local) = self.sessions.iter().position(|s| s.id.is_none() && !s.lost) else {
                    return;
                };
                let id = payload["transactionId"].as_i64();
                self.sessions[local].id = id;
                self.sessions[local].lost = id.is_none();
                if let Some(running) = self.session.as_mut().filter(|s| s.local == local) {
                    running.id = id;
                    if !accepted(&payload["idTagInfo"]) {
                        self.end("DeAuthorized", now);
                    }
                }
            }
            _ => {}
        }
    }

    fn answer(&mut self, action: &str, payload: &Value, now: Moment) -> Result<Value, &'static str> {
        let status = |fits: bool| Ok(json!({ "status": if fits { "Accepted" } else { "Rejected" } }));
        match action {
            "SetChargingProfile" => {
                if payload["csChargingProfiles"].is_null() {
                    return Err("FormationViolation");
                }
                if self.refuse_profiles {
                    return status(false);
                }
                let running = self.transaction_id();
                match self.profiles.set(payload, running, self.settings.phases, now.wall) {
                    Ok(installed) => {
                        self.events.push(Event::Profile(installed));
                        status(true)
                    }
                    Err(why) => {
                        self.events.push(Event::ProfileRejected(why));
                        status(false)
                    }
                }
            }
            "ClearChargingProfile" => {
                let cleared = self.profiles.clear(payload);
                Ok(json!({ "status": if cleared { "Accepted" } else { "Unknown" } }))
            }
            "TriggerMessage" => {
                match payload["requestedMessage"].as_str() {
                    Some("StatusNotification") => self.notify_status(1, self.status, now),
                    Some("MeterValues") => self.meter_values(now),
                    Some("Heartbeat") => self.send("Heartbeat", json!({}), None),
                    Some("BootNotification") => self.reboot(now),
                    _ => return Ok(json!({ "status": "NotImplemented" })),
                }
                status(true)
            }
            "RemoteStartTransaction" => {
                let possible = self.session.is_none() && self.power.plugged();
                if let Some(tag) = payload["idTag"].as_str().filter(|_| possible) {
                    self.begin(tag, now);
                }
                status(possible)
            }
            "RemoteStopTransaction" => {
                let wanted = payload["transactionId"].as_i64();
                let fits = wanted.is_some() && self.session.as_ref().is_some_and(|s| s.id == wanted);
                if fits {
                    self.end("Remote", now);
                }
                status(fits)
            }
            "GetConfiguration" => Ok(json!({
                "configurationKey": [
                    { "key": "NumberOfConnectors", "readonly": true, "value": "1" },
                    { "key": "MeterValueSampleInterval", "readonly": false,
                      "value": self.settings.meter_interval.as_secs().max(1).to_string() },
                    { "key": "ChargeProfileMaxStackLevel", "readonly": true, "value": "8" },
                    { "key": "ChargingScheduleAllowedChargingRateUnit", "readonly": true, "value": "Current" },
                    { "key": "ChargingScheduleMaxPeriods", "readonly": true, "value": "24" },
                    { "key": "MaxChargingProfilesInstalled", "readonly": true, "value": "10" },
                ],
                "unknownKey": [],
            })),
            "ChangeConfiguration" => {
                match (payload["key"].as_str(), payload["value"].as_str().and_then(|v| v.parse().ok())) {
                    (Some("MeterValueSampleInterval"), Some(seconds)) if seconds > 0 => {
                        self.settings.meter_interval = Duration::from_secs(seconds);
                        status(true)
                    }
                    (Some("MeterValueSampleInterval"), _) => status(false),
                    (Some("HeartbeatInterval" | "WebSocketPingInterval"), _) => status(true),
                    _ => Ok(json!({ "status": "NotSupported" })),
                }
            }
            "Reset" => {
                self.reboot(now);
                self.events.push(Event::ResetAsked);
                status(true)
            }
            "DataTransfer" => Ok(json!({ "status": "UnknownVendorId" })),
            _ => Err("NotImplemented"),
        }
    }

    fn begin(&mut self, tag: &str, now: Moment) {
        if self.session.is_some() || !self.power.plugged() {
            return;
        }
        let meter_start = whole(self.power.register_wh());
        let started = now.wall.to_string();
        let local = self.sessions.len();
        self.sessions.push(Session {
            tag: tag.to_owned(),
            id: None,
            lost: false,
            meter_start,
            started: started.clone(),
            meter_stop: None,
        });
        self.session = Some(Running { local, id: None });
        self.power.close(true);
        self.meter_due = now.mono + self.settings.meter_interval;
        let start =
            json!({ "connectorId": 1, "idTag": tag, "meterStart": meter_start, "timestamp": started });
        self.send("StartTransaction", start, None);
        self.refresh(now);
    }

    fn end(&mut self, reason: &str, now: Moment) {
        let Some(running) = self.session.take() else {
            return;
        };
        self.power.close(false);
        self.profiles.forget_transaction();
        self.finishing = true;
        let meter_stop = whole(self.power.register_wh());
        let session = &mut self.sessions[running.local];
        session.meter_stop = Some(meter_stop);
        let stop = json!({
            "meterStop": meter_stop, "timestamp": now.wall.to_string(), "reason": reason, "idTag": session.tag,
        });
        self.send("StopTransaction", stop, Some(running.local));
        self.refresh(now);
    }

    fn refresh(&mut self, now: Moment) {
        let status = match (&self.session, self.power.plugged()) {
            (Some(_), _) if self.power.full() => "SuspendedEV",
            (Some(_), _) if self.limit(now) < LEAST => "SuspendedEVSE",
            (Some(_), _) => "Charging",
            (None, true) if self.finishing => "Finishing",
            (None, true) => "Preparing",
            (None, false) => "Available",
        };
        if status != self.status {
            self.status = status;
            self.events.push(Event::Status(status));
            self.notify_status(1, status, now);
        }
    }

    fn notify_status(&mut self, connector: u8, status: &str, now: Moment) {
        if self.connected {
            let notice = json!({
                "connectorId": connector, "errorCode": "NoError", "status": status, "timestamp": now.wall.to_string(),
            });
            self.send("StatusNotification", notice, None);
        }
    }

    fn meter_values(&mut self, now: Moment) {
        let currents = self.power.currents();
        let mut sampled = vec![
            json!({ "value": whole(self.power.register_wh()).to_string(), "unit": "Wh",
                    "measurand": "Energy.Active.Import.Register" }),
            json!({ "value": format!("{:.1}", self.power.watts()), "unit": "W", "measurand": "Power.Active.Import" }),
        ];
        for (i, amps) in currents.iter().enumerate().take(self.settings.phases) {
            sampled.push(json!({ "value": format!("{amps:.2}"), "unit": "A", "measurand": "Current.Import",
                                 "phase": format!("L{}", i + 1) }));
        }
        let values = json!({
            "connectorId": 1, "meterValue": [{ "timestamp": now.wall.to_string(), "sampledValue": sampled }],
        });
        let of = self.session.as_ref().map(|s| s.local);
        self.send("MeterValues", values, of);
    }

    fn send(&mut self, action: &'static str, payload: Value, of: Option<usize>) {
        let id = format!("{}-{}", self.settings.identity, self.next_id);
        self.next_id += 1;
        self.queue.push_back(Outgoing { id, action, payload, of, attempts: 0 });
    }
}

fn whole(wh: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "registers are far below 2^53")]
    let whole = wh.floor() as i64;
    whole
}

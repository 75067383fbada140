//! A charge point that is played here, in OCPP 1.6J (Core, Smart Charging, Remote Trigger, Local Auth List). Sans-IO.
//!
//! In: frames of the backend, what the device reports, the passing of time. Out: [`Out`]. Invariant: one CALL at a
//! time; a StartTransaction or StopTransaction is on disk before it is sent, and is sent under the same id, byte for
//! byte, until it is answered.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    super::frame::{self, Frame},
    charge::{Charge, Context, Facts, Kept, Reason, Sample, Say, Session},
    keys::{self, Changed},
    profiles::{self, Running},
};
use crate::{
    site::event::ConnectorStatus,
    time::{Mono, Now, Wall},
    units::Milliamps,
};

/// For an answer: longer than the route waits for the backend.
const ANSWER: Duration = Duration::from_secs(150);
/// Before a message that was refused is sent again.
const AGAIN: Duration = Duration::from_secs(2);
/// Messages that may wait; then measurements are dropped.
const MOST_WAITING: usize = 500;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Out {
    /// Keep this before anything that follows.
    Store(String),
    /// To the backend, by way of the route.
    Send(String),
    /// Whether the device may charge.
    Release(bool),
    /// What the backend's profiles allow, and until when; nothing without a limit.
    Limit(Option<Milliamps>, Option<Wall>),
    /// Connect anew.
    Reconnect,
}

impl Out {
    /// Whether it must not happen before everything that was to be stored before it is.
    pub(super) fn waits_for_disk(&self) -> bool {
        match self {
            Self::Release(release) => *release,
            // Answers say what will be; CALLs say what was.
            Self::Send(text) => text.starts_with("[2,"),
            Self::Store(_) | Self::Limit(..) | Self::Reconnect => false,
        }
    }
}

/// A CALL that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Letter {
    id: String,
    action: String,
    payload: Value,
    /// The session whose transaction id belongs into it.
    of: Option<u64>,
}

impl Letter {
    /// What must survive.
    fn lasts(&self) -> bool {
        matches!(self.action.as_str(), "StartTransaction" | "StopTransaction")
    }
}

/// What outlives a restart.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    charge: Kept,
    keys: Changed,
    profiles: Vec<Value>,
    list_version: i64,
    letters: Vec<Letter>,
    /// Transaction ids of sessions whose messages wait.
    ids: BTreeMap<u64, i64>,
}

/// What it tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Make {
    pub(super) vendor: String,
    pub(super) model: String,
    pub(super) serial: String,
    /// Most current per phase.
    pub(super) most: Milliamps,
    /// It stands for the whole site.
    pub(super) whole: bool,
    /// Whoever plugs in charges, under this card.
    pub(super) free: Option<String>,
}

/// The charge point.
#[derive(Debug)]
pub(super) struct Point {
    make: Make,
    state: State,
    charge: Charge,
    rng: fastrand::Rng,
    linked: bool,
    /// Boot accepted.
    booted: bool,
    boot_due: Mono,
    heartbeat_due: Mono,
    queue: VecDeque<Letter>,
    flight: Option<(Letter, Mono)>,
    not_before: Mono,
    limit: Option<(Option<Milliamps>, Option<Wall>)>,
    released: Option<bool>,
    dirty: bool,
    out: Vec<Out>,
}

impl Point {
    /// Takes up where the last process ended.
    pub(super) fn new(make: Make, saved: Option<&str>, seed: u64) -> Self {
        let state: State = saved.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let habits = keys::habits(&state.keys, make.free.clone(), make.whole);
        Self {
            charge: Charge::new(habits, state.charge.clone()),
            queue: state.letters.clone().into(),
            make,
            state,
            rng: fastrand::Rng::with_seed(seed),
            linked: false,
            booted: false,
            boot_due: Mono::default(),
            heartbeat_due: Mono::default(),
            flight: None,
            not_before: Mono::default(),
            limit: None,
            released: None,
            dirty: false,
            out: Vec::new(),
        }
    }

    /// Its connection stands. Every process boots once; a mere reconnect is none (§4.2).
    pub(super) fn link_up(&mut self, now: Now) {
        self.linked = true;
        self.take_back(now);
        self.go_on(now);
    }

    /// What was sent and not answered is to be sent again.
    fn take_back(&mut self, now: Now) {
        match self.flight.take() {
            // Another one is written when its time has come.
            Some((letter, _)) if letter.action == "BootNotification" => self.boot_due = now.mono,
            Some((letter, _)) => self.queue.push_front(letter),
            None => {}
        }
    }

    /// [`Out::Store`] failed, and what waits for it was held back: with the next input it is stored anew, and the rest
    /// follows.
    pub(super) fn not_stored(&mut self, held: &[Out], now: Now) {
        self.dirty = true;
        for out in held {
            match out {
                Out::Release(_) => self.released = None,
                _ => self.take_back(now),
            }
        }
    }

    /// Its connection is gone.
    pub(super) fn link_down(&mut self) {
        self.linked = false;
    }

    /// The device reports.
    pub(super) fn report(&mut self, facts: Facts, vendor: &str, model: &str, now: Now) {
        if !vendor.is_empty() && !self.make.whole {
            vendor.clone_into(&mut self.make.vendor);
            model.clone_into(&mut self.make.model);
        }
        self.charge.report(facts, now);
        self.go_on(now);
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Now) {
        self.charge.go_on(now);
        if self.flight.as_ref().is_some_and(|(_, until)| *until <= now.mono) {
            self.take_back(now);
            self.out.push(Out::Reconnect);
            self.linked = false;
        }
        self.go_on(now);
    }

    /// What is to be done.
    pub(super) fn output(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.out)
    }

    fn running(&self) -> Option<Running> {
        let session = self.charge.kept.session.as_ref()?;
        Some(Running { started: session.started, id: session.transaction })
    }

    /// The end of every input: what was said becomes frames, in an order in which nothing is sent or released
    /// before it is on disk.
    fn go_on(&mut self, now: Now) {
        for say in std::mem::take(&mut self.charge.out) {
            self.say(say, now);
        }
        let released = self.charge.released();
        if self.released == Some(true) && !released {
            // Less needs no evidence first.
            self.released = Some(false);
            self.out.push(Out::Release(false));
        }
        if std::mem::take(&mut self.dirty) | std::mem::take(&mut self.charge.dirty) {
            self.state.charge = self.charge.kept.clone();
            let flight = self.flight.as_ref().map(|(letter, _)| letter);
            self.state.letters =
                flight.into_iter().chain(&self.queue).filter(|l| l.lasts()).cloned().collect();
            let needed: Vec<u64> = flight
                .into_iter()
                .chain(&self.queue)
                .filter_map(|l| l.of)
                .chain(self.charge.kept.session.as_ref().map(|s| s.key))
                .collect();
            self.state.ids.retain(|key, _| needed.contains(key));
            match serde_json::to_string(&self.state) {
                Ok(text) => self.out.push(Out::Store(text)),
                Err(error) => tracing::error!(%error, "the charge point's state cannot be written"),
            }
        }
        if self.released != Some(released) {
            self.released = Some(released);
            self.out.push(Out::Release(released));
        }
        let running = self.running();
        let limit = profiles::limit(&self.state.profiles, now.wall, running);
        let due = self
            .limit
            .is_none_or(|(before, until)| before != limit || until.is_some_and(|until| until <= now.wall));
        if due {
            let until = profiles::until(&self.state.profiles, now.wall, running);
            self.limit = Some((limit, until));
            self.out.push(Out::Limit(limit, until));
        }
        self.transmit(now);
    }

    fn transmit(&mut self, now: Now) {
        if !self.linked || self.flight.is_some() {
            return;
        }
        if !self.booted {
            if self.boot_due <= now.mono {
                let boot = json!({
                    "chargePointVendor": short(&self.make.vendor), "chargePointModel": short(&self.make.model),
                    "chargePointSerialNumber": self.make.serial.chars().take(25).collect::<String>(),
                    "firmwareVersion": env!("CARGO_PKG_VERSION"),
                });
                let letter = self.letter("BootNotification", boot, None);
                self.boot_due = now.mono + ANSWER;
                self.send(letter, now);
            }
            return;
        }
        if self.not_before > now.mono {
            return;
        }
        if let Some(letter) = self.queue.pop_front() {
            self.send(letter, now);
        } else if self.heartbeat_due <= now.mono {
            self.beat(now);
            let letter = self.letter("Heartbeat", json!({}), None);
            self.send(letter, now);
        }
    }

    fn beat(&mut self, now: Now) {
        let every = keys::span(&self.state.keys, "HeartbeatInterval").unwrap_or(Duration::from_secs(300));
        self.heartbeat_due = now.mono + every;
    }

    fn send(&mut self, mut letter: Letter, now: Now) {
        if let Some(id) = letter.of.and_then(|key| self.state.ids.get(&key))
            && letter.action != "StartTransaction"
        {
            letter.payload["transactionId"] = json!(id);
        }
        self.out.push(Out::Send(frame::call(&letter.id, &letter.action, &letter.payload.to_string())));
        self.flight = Some((letter, now.mono + ANSWER));
    }

    fn letter(&mut self, action: &str, payload: Value, of: Option<u64>) -> Letter {
        let id = uuid::Builder::from_random_bytes(self.rng.u128(..).to_be_bytes()).into_uuid().to_string();
        Letter { id, action: action.to_owned(), payload, of }
    }

    fn post(&mut self, action: &str, payload: Value, of: Option<u64>) {
        let letter = self.letter(action, payload, of);
        self.dirty |= letter.lasts();
        if self.queue.len() >= MOST_WAITING {
            let drop = self.queue.iter().position(|l| !l.lasts());
            drop.map(|at| self.queue.remove(at));
        }
        self.queue.push_back(letter);
    }

    fn say(&mut self, say: Say, now: Now) {
        match say {
            Say::Status { connector, status, fault } => {
                let code = match (status, fault.is_empty()) {
                    (ConnectorStatus::Faulted, _) => "OtherError",
                    (_, true) => "NoError",
                    (_, false) => "InternalError",
                };
                let mut notice = json!({
                    "connectorId": connector, "errorCode": code, "status": word(status), "timestamp": now.wall,
                });
                if !fault.is_empty() {
                    notice["info"] = json!(fault.chars().take(50).collect::<String>());
                }
                // Only the latest of a connector matters while nobody listens.
                let stale =
                    |l: &Letter| l.action == "StatusNotification" && l.payload["connectorId"] == connector;
                if !self.linked || !self.booted {
                    self.queue.retain(|l| !stale(l));
                }
                self.post("StatusNotification", notice, None);
            }
            Say::Ask(tag) => self.post("Authorize", json!({ "idTag": tag }), None),
            Say::Begin(Session { key, tag, started, meter_start, .. }) => {
                let start = json!({
                    "connectorId": 1, "idTag": tag, "meterStart": meter_start, "timestamp": started,
                });
                self.post("StartTransaction", start, Some(key));
            }
            Say::End { session, at, meter_stop, reason } => {
                if profiles::forget_transaction(&mut self.state.profiles) {
                    self.dirty = true;
                }
                let stop = json!({
                    "meterStop": meter_stop, "timestamp": at, "transactionId": session.transaction.unwrap_or(-1),
                    "reason": cause(reason),
                });
                self.post("StopTransaction", stop, Some(session.key));
            }
            Say::Measured { context, at, sample, session, whole } => {
                self.measured(context, at, sample, session, whole);
            }
        }
    }

    fn measured(&mut self, context: Context, at: Wall, sample: Sample, session: Option<u64>, whole: bool) {
        let list =
            if context == Context::Clock { "MeterValuesAlignedData" } else { "MeterValuesSampledData" };
        let context = match context {
            Context::Periodic => "Sample.Periodic",
            Context::Clock => "Sample.Clock",
            Context::Trigger => "Trigger",
        };
        let wanted = keys::value(&self.state.keys, list);
        let value = |measurand: &str, value: String, unit: &str| {
            let location = if whole { "Inlet" } else { "Outlet" };
            json!({ "value": value, "measurand": measurand, "unit": unit, "context": context, "location": location })
        };
        let mut values = Vec::new();
        for measurand in wanted.split(',') {
            match (measurand, sample) {
                ("Energy.Active.Import.Register", Sample { energy: Some(wh), .. }) => {
                    values.push(value(measurand, wh.to_string(), "Wh"));
                }
                ("Power.Active.Import", Sample { power: Some(watts), .. }) => {
                    values.push(value(measurand, watts.to_string(), "W"));
                }
                ("Current.Import", Sample { currents: Some(currents), .. }) => {
                    for (phase, ma) in ["L1", "L2", "L3"].into_iter().zip(currents) {
                        let amps = format!(
                            "{}{}.{:02}",
                            if ma < 0 { "-" } else { "" },
                            ma.abs() / 1000,
                            ma.abs() % 1000 / 10
                        );
                        let mut value = value(measurand, amps, "A");
                        value["phase"] = json!(phase);
                        values.push(value);
                    }
                }
                _ => {}
            }
        }
        if values.is_empty() {
            return;
        }
        // §6.31: connector 0 is the main meter.
        let payload = json!({
            "connectorId": i32::from(!whole), "meterValue": [{ "timestamp": at, "sampledValue": values }],
        });
        self.post("MeterValues", payload, session);
    }

    /// A frame of the backend.
    pub(super) fn received(&mut self, text: &str, now: Now) {
        match frame::peek(text) {
            Ok(Frame::Call { id, action, payload }) => {
                let asked: Value = serde_json::from_str(payload).unwrap_or_default();
                let answer = match self.asked(&action, &asked, now) {
                    Ok(answer) => frame::result(&id, &answer.to_string()),
                    Err(code) => frame::error(&id, code, ""),
                };
                self.out.push(Out::Send(answer));
            }
            Ok(Frame::Answer { id, payload }) => {
                if let Some((letter, _)) = self.flight.take_if(|(l, _)| l.id == id.key()) {
                    let answer: Value = serde_json::from_str(payload).unwrap_or_default();
                    self.answered(&letter, &answer, now);
                }
            }
            Ok(Frame::Error { id, code }) => {
                if let Some((letter, _)) = self.flight.take_if(|(l, _)| l.id == id.key()) {
                    self.failed(letter, &code, now);
                }
            }
            Ok(_) => {}
            Err(bad) => {
                tracing::debug!(why = bad.why, "a malformed frame for a charge point that is played here");
            }
        }
        self.go_on(now);
    }

    fn failed(&mut self, letter: Letter, code: &str, now: Now) {
        tracing::debug!(code, action = letter.action, "a CALL was answered with an error");
        match letter.action.as_str() {
            "BootNotification" => self.boot_due = now.mono + Duration::from_secs(30),
            "Authorize" => {
                let tag = letter.payload["idTag"].as_str().unwrap_or_default().to_owned();
                self.charge.judged(&tag, false, now);
            }
            // It was not kept; it must be.
            _ if letter.lasts() => {
                self.not_before = now.mono + AGAIN;
                self.queue.push_front(letter);
            }
            _ => {}
        }
    }

    fn answered(&mut self, letter: &Letter, answer: &Value, now: Now) {
        let welcome = answer["idTagInfo"]["status"] == "Accepted";
        match letter.action.as_str() {
            "BootNotification" => {
                let seconds = answer["interval"].as_u64().filter(|s| *s > 0).unwrap_or(300).clamp(5, 86_400);
                self.booted = answer["status"] == "Accepted";
                if self.booted {
                    if seconds.to_string() != keys::value(&self.state.keys, "HeartbeatInterval") {
                        keys::change(&mut self.state.keys, "HeartbeatInterval", &seconds.max(10).to_string());
                        self.dirty = true;
                    }
                    self.beat(now);
                    self.queue.retain(|l| l.action != "StatusNotification");
                    self.charge.tell_status(0);
                    self.charge.tell_status(1);
                } else {
                    self.boot_due = now.mono + Duration::from_secs(seconds);
                }
            }
            "Authorize" => {
                let tag = letter.payload["idTag"].as_str().unwrap_or_default().to_owned();
                self.charge.judged(&tag, welcome, now);
            }
            "StartTransaction" => {
                let id = answer["transactionId"].as_i64();
                if let (Some(key), Some(id)) = (letter.of, id) {
                    self.state.ids.insert(key, id);
                }
                let strict = keys::value(&self.state.keys, "StopTransactionOnInvalidId") == "true";
                self.dirty = true;
                self.charge.begun(letter.of.unwrap_or_default(), id, welcome || !strict, now);
            }
            "StopTransaction" => self.dirty = true,
            _ => {}
        }
    }

    /// The answer to a CALL of the backend, or the code of an error.
    fn asked(&mut self, action: &str, asked: &Value, now: Now) -> Result<Value, &'static str> {
        let status = |word: &str| Ok(json!({ "status": word }));
        let yes = |fits: bool| status(if fits { "Accepted" } else { "Rejected" });
        let text = |name: &str| asked[name].as_str().unwrap_or_default();
        match action {
            "RemoteStartTransaction" => self.remote_start(asked, now),
            "RemoteStopTransaction" => {
                let id = asked["transactionId"].as_i64().ok_or("FormationViolation")?;
                let fits = self.charge.kept.session.as_ref().is_some_and(|s| s.transaction == Some(id));
                if fits {
                    self.charge.end(Reason::Remote, now);
                    self.charge.go_on(now);
                }
                yes(fits)
            }
            // §5.18: what is driven over a bus has no lock that could be opened from here.
            "UnlockConnector" => status("NotSupported"),
            "Reset" => {
                self.reset(text("type") == "Hard", now);
                status("Accepted")
            }
            "ChangeAvailability" => {
                let waits = self.charge.availability(text("type") != "Inoperative", now);
                status(if waits { "Scheduled" } else { "Accepted" })
            }
            "GetConfiguration" => Ok(keys::answer(&self.state.keys, asked)),
            "ChangeConfiguration" => {
                let verdict = keys::change(&mut self.state.keys, text("key"), text("value"));
                self.charge.habits = keys::habits(&self.state.keys, self.make.free.clone(), self.make.whole);
                self.beat(now);
                self.dirty = true;
                status(verdict)
            }
            "SetChargingProfile" => {
                let taken = profiles::check(asked, self.running(), self.make.whole)
                    .and_then(|()| profiles::set(&mut self.state.profiles, asked.clone()));
                if let Err(why) = taken {
                    tracing::debug!(why, "a charging profile is refused");
                }
                self.dirty = true;
                yes(taken.is_ok())
            }
            "ClearChargingProfile" => {
                let cleared = profiles::clear(&mut self.state.profiles, asked);
                self.dirty = true;
                status(if cleared { "Accepted" } else { "Unknown" })
            }
            "GetCompositeSchedule" => {
                let connector = asked["connectorId"].as_i64().filter(|c| (0..=1).contains(c));
                let duration = asked["duration"].as_i64().ok_or("FormationViolation")?;
                let Some(connector) = connector else { return status("Rejected") };
                let unit = asked["chargingRateUnit"].as_str().unwrap_or("A");
                let (running, most) = (self.running(), self.make.most);
                let schedule =
                    profiles::composite(&self.state.profiles, now.wall, duration, unit, running, most);
                Ok(json!({ "status": "Accepted", "connectorId": connector, "scheduleStart": now.wall,
                    "chargingSchedule": schedule }))
            }
            "TriggerMessage" => Ok(self.trigger(text("requestedMessage"), now)),
            "SendLocalList" => {
                let version = asked["listVersion"].as_i64().ok_or("FormationViolation")?;
                if text("updateType") == "Differential" && version <= self.state.list_version {
                    return status("VersionMismatch");
                }
                // The cards themselves are kept by the route, which is asked while the backend is away.
                self.state.list_version = version;
                self.dirty = true;
                status("Accepted")
            }
            "GetLocalListVersion" => Ok(json!({ "listVersion": self.state.list_version })),
            // The cache is the route's.
            "ClearCache" => status("Rejected"),
            "DataTransfer" => status("UnknownVendorId"),
            "GetDiagnostics" => Ok(json!({})),
            _ => Err("NotImplemented"),
        }
    }

    fn remote_start(&mut self, asked: &Value, now: Now) -> Result<Value, &'static str> {
        let tag = asked["idTag"].as_str().ok_or("FormationViolation")?;
        let connector = asked["connectorId"].as_i64().unwrap_or(1) == 1;
        let ask = keys::value(&self.state.keys, "AuthorizeRemoteTxRequests") == "true";
        let fits = connector && self.charge.remote_start(tag, ask, now);
        if fits && asked["chargingProfile"].is_object() {
            let entry = json!({ "connectorId": 1, "csChargingProfiles": asked["chargingProfile"] });
            let soon = Some(Running { started: now.wall, id: None });
            if profiles::check(&entry, soon, false).is_ok() {
                let _ = profiles::set(&mut self.state.profiles, entry);
                self.dirty = true;
            }
        }
        Ok(json!({ "status": if fits { "Accepted" } else { "Rejected" } }))
    }

    fn reset(&mut self, hard: bool, now: Now) {
        self.charge.end(if hard { Reason::HardReset } else { Reason::SoftReset }, now);
        self.booted = false;
        self.boot_due = now.mono;
        self.charge.go_on(now);
    }

    fn trigger(&mut self, what: &str, now: Now) -> Value {
        match what {
            "BootNotification" => {
                self.booted = false;
                self.boot_due = now.mono;
            }
            "StatusNotification" => self.charge.tell_status(1),
            "MeterValues" => self.charge.measure(Context::Trigger, now.wall),
            "Heartbeat" => self.heartbeat_due = now.mono,
            _ => return json!({ "status": "NotImplemented" }),
        }
        json!({ "status": "Accepted" })
    }
}

/// §7: CiString20.
fn short(text: &str) -> String {
    text.chars().take(20).collect()
}

const fn word(status: ConnectorStatus) -> &'static str {
    match status {
        ConnectorStatus::Available => "Available",
        ConnectorStatus::Preparing => "Preparing",
        ConnectorStatus::Charging => "Charging",
        ConnectorStatus::SuspendedEvse => "SuspendedEVSE",
        ConnectorStatus::SuspendedEv => "SuspendedEV",
        ConnectorStatus::Finishing => "Finishing",
        ConnectorStatus::Reserved => "Reserved",
        ConnectorStatus::Faulted => "Faulted",
        ConnectorStatus::Unavailable | ConnectorStatus::Unknown => "Unavailable",
    }
}

/// §7.36.
const fn cause(reason: Reason) -> &'static str {
    match reason {
        Reason::Remote => "Remote",
        Reason::Unplugged => "EVDisconnected",
        Reason::NotWelcome => "DeAuthorized",
        Reason::SoftReset => "SoftReset",
        Reason::HardReset => "HardReset",
    }
}

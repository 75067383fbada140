//! The site's controller as its backend knows it, under an identity of its own, in OCPP 2.0.1 or 2.1 (Part 1 §8.3: a
//! Local Controller may send messages itself; Part 2 K12–K14). Sans-IO.
//!
//! In: the limits of the grid connection, frames of the backend, the passing of time. Out: [`Out`]. Invariant: what
//! the backend was told last is on disk, so that the end of a limit is told even if it came while nothing ran.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    super::frame::{self, Frame},
    Out,
};
use crate::{
    config::Role,
    grid::{Limit, Record, guard::State as Heard},
    ids::NodeId,
    site::View,
    time::{Mono, Now, Wall},
    units::Watts,
};

/// For an answer: longer than the route waits for the backend.
const ANSWER: Duration = Duration::from_secs(150);
/// Before another boot, and another attempt at what was answered with an error.
const AGAIN: Duration = Duration::from_secs(60);

/// Who limits, by the names of `ChargingLimitSourceEnumType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// The system operator: the grid operator's limit (EnWG §14a).
    So,
    /// The site's own energy management: whoever limits on the spot.
    Ems,
}

impl Source {
    const ALL: [Self; 2] = [Self::So, Self::Ems];

    const fn name(self) -> &'static str {
        match self {
            Self::So => "SO",
            Self::Ems => "EMS",
        }
    }

    /// The supplier's own limits are no news to it.
    const fn of(role: Role) -> Option<Self> {
        match role {
            Role::Grid => Some(Self::So),
            Role::Installer | Role::Admin | Role::Viewer => Some(Self::Ems),
            Role::Supplier => None,
        }
    }
}

/// Powers in their order, each from its time until the next; the last until `until`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Course {
    /// Milliseconds since 1970, watts.
    steps: Vec<(i64, i64)>,
    until: Option<i64>,
}

impl Course {
    /// The smallest of several limits, now and later; nothing if none is in force.
    fn smallest(limits: &[&Limit], now: Wall) -> Option<Self> {
        let at = |time: Wall| {
            let power = |limit: &&Limit| {
                let over = limit.valid_until.is_some_and(|until| until <= time);
                let step = limit.steps.iter().rev().find(|s| s.from <= time);
                (!over).then(|| step.map_or(limit.watts, |s| s.watts))
            };
            limits.iter().filter_map(power).min()
        };
        let begun = |limit: &&Limit| {
            let step = limit.steps.iter().rev().find(|s| s.from <= now);
            step.map_or(limit.valid_from, |s| s.from)
        };
        let first = (limits.iter().map(begun).max()?.min(now), at(now)?);
        let mut times: Vec<Wall> = limits.iter().flat_map(|l| l.steps.iter().map(|s| s.from)).collect();
        times.extend(limits.iter().filter_map(|l| l.valid_until));
        times.retain(|time| *time > now);
        times.sort_unstable();
        times.dedup();
        let mut course = Self { steps: vec![(first.0.0, first.1.0)], until: None };
        for time in times {
            match at(time) {
                Some(Watts(watts)) if course.steps.last().is_some_and(|(_, w)| *w == watts) => {}
                Some(Watts(watts)) => course.steps.push((time.0, watts)),
                None => {
                    course.until = Some(time.0);
                    break;
                }
            }
        }
        Some(course)
    }

    /// Without what is past.
    fn rest(&self, now: Wall) -> &[(i64, i64)] {
        let begun = self.steps.iter().rposition(|(from, _)| *from <= now.0).unwrap_or_default();
        self.steps.get(begun..).unwrap_or_default()
    }

    /// Whether it says of the future what another says. When the present power began does not matter.
    fn says(&self, other: &Self, now: Wall) -> bool {
        let powers = |c: &Self| {
            let steps = c.rest(now).iter().enumerate();
            steps.map(|(n, (from, watts))| (if n == 0 { 0 } else { *from }, *watts)).collect::<Vec<_>>()
        };
        self.until == other.until && powers(self) == powers(other)
    }

    fn schedule(&self, id: i64) -> Value {
        let start = self.steps.first().map_or(0, |(from, _)| *from);
        let seconds = |time: i64| (time - start) / 1000;
        let periods =
            self.steps.iter().map(|(from, watts)| json!({ "startPeriod": seconds(*from), "limit": watts }));
        let mut schedule = json!({
            "id": id, "startSchedule": Wall(start).to_string(), "chargingRateUnit": "W",
            "chargingSchedulePeriod": periods.collect::<Vec<_>>(),
        });
        if let Some(until) = self.until {
            schedule["duration"] = json!(seconds(until));
        }
        schedule
    }
}

/// What the backend was told last, by source; what outlives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Told {
    so: Option<Course>,
    ems: Option<Course>,
}

impl Told {
    fn of(&mut self, source: Source) -> &mut Option<Course> {
        match source {
            Source::So => &mut self.so,
            Source::Ems => &mut self.ems,
        }
    }
}

/// What an answer is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Boot,
    Heartbeat,
    Startup,
    Limit(Source, Option<Course>),
}

/// The controller.
#[derive(Debug)]
pub(super) struct Controller {
    serial: String,
    told: Told,
    /// What is on disk; nothing when that failed.
    kept: Option<Told>,
    limits: Told,
    rng: fastrand::Rng,
    linked: bool,
    booted: bool,
    boot_due: Mono,
    heartbeat_due: Mono,
    interval: Duration,
    not_before: Mono,
    /// Its start is told once.
    startup: bool,
    schedules: i64,
    flight: Option<(String, Asked, Mono)>,
    out: Vec<Out>,
}

impl Controller {
    /// Takes up where the last process ended.
    pub(super) fn new(serial: String, saved: Option<&str>, seed: u64) -> Self {
        let told: Told = saved.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        Self {
            serial,
            kept: Some(told.clone()),
            told,
            limits: Told::default(),
            rng: fastrand::Rng::with_seed(seed),
            linked: false,
            booted: false,
            boot_due: Mono::default(),
            heartbeat_due: Mono::default(),
            interval: AGAIN,
            not_before: Mono::default(),
            startup: true,
            schedules: 0,
            flight: None,
            out: Vec::new(),
        }
    }

    /// The limits of the grid connection, a source's failsafe value included.
    pub(super) fn look(&mut self, view: &View, now: Now) {
        let Some(root) = view.nodes.first().map(|node| &node.id) else { return };
        for source in Source::ALL {
            let lost = (source == Source::So).then(|| failsafe(view, root)).into_iter().flatten();
            let lost: Vec<Limit> = lost.collect();
            let in_force = |r: &&Record| {
                r.limit.node == *root
                    && Source::of(r.limit.role) == Some(source)
                    && r.in_force(now.wall.into())
            };
            let limits: Vec<&Limit> =
                view.limits.iter().filter(in_force).map(|r| &r.limit).chain(&lost).collect();
            *self.limits.of(source) = Course::smallest(&limits, now.wall);
        }
        self.go_on(now);
    }

    pub(super) fn link_up(&mut self, now: Now) {
        self.linked = true;
        self.flight = None;
        self.go_on(now);
    }

    pub(super) fn link_down(&mut self) {
        self.linked = false;
        self.flight = None;
    }

    pub(super) fn tick(&mut self, now: Now) {
        if self.flight.take_if(|(_, _, until)| *until <= now.mono).is_some() {
            self.linked = false;
            self.out.push(Out::Reconnect);
        }
        self.go_on(now);
    }

    /// [`Out::Store`] failed: it comes again with the next input.
    pub(super) fn not_stored(&mut self) {
        self.kept = None;
    }

    /// What is to be done.
    pub(super) fn output(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn received(&mut self, text: &str, now: Now) {
        match frame::peek(text) {
            Ok(Frame::Call { id, action, payload }) => {
                let asked: Value = serde_json::from_str(payload).unwrap_or_default();
                let answer = match self.asked(&action, &asked, now) {
                    Some(answer) => frame::result(&id, &answer.to_string()),
                    None => frame::error(&id, "NotSupported", ""),
                };
                self.out.push(Out::Send(answer));
            }
            Ok(Frame::Answer { id, payload }) => {
                if let Some((_, asked, _)) = self.flight.take_if(|(sent, ..)| *sent == id.key()) {
                    self.answered(asked, &serde_json::from_str(payload).unwrap_or_default(), now);
                }
            }
            Ok(Frame::Error { id, code }) => {
                if let Some((_, asked, _)) = self.flight.take_if(|(sent, ..)| *sent == id.key()) {
                    tracing::warn!(code, ?asked, "the backend refuses what the controller tells");
                    match asked {
                        Asked::Boot => self.boot_due = now.mono + AGAIN,
                        Asked::Startup => self.startup = false,
                        Asked::Heartbeat => {}
                        // A backend that does not know the message will not learn it.
                        Asked::Limit(..) if matches!(code.as_str(), "NotImplemented" | "NotSupported") => {
                            self.answered(asked, &Value::Null, now);
                        }
                        Asked::Limit(..) => self.not_before = now.mono + AGAIN,
                    }
                }
            }
            Ok(_) => {}
            Err(bad) => tracing::debug!(why = bad.why, "a malformed frame for the controller"),
        }
        self.go_on(now);
    }

    fn answered(&mut self, asked: Asked, answer: &Value, now: Now) {
        match asked {
            Asked::Boot => {
                let seconds = answer["interval"].as_u64().filter(|s| *s > 0).unwrap_or(300).clamp(5, 86_400);
                self.interval = Duration::from_secs(seconds);
                self.booted = answer["status"] == "Accepted";
                self.boot_due = now.mono + self.interval;
                self.heartbeat_due = now.mono + self.interval;
            }
            Asked::Startup => self.startup = false,
            Asked::Heartbeat => {}
            Asked::Limit(source, course) => *self.told.of(source) = course,
        }
    }

    /// The end of every input: keeps what was told, and sends what is due, one CALL at a time.
    fn go_on(&mut self, now: Now) {
        if self.kept.as_ref() != Some(&self.told) {
            self.kept = Some(self.told.clone());
            match serde_json::to_string(&self.told) {
                Ok(text) => self.out.push(Out::Store(text)),
                Err(error) => tracing::error!(%error, "the controller's state cannot be written"),
            }
        }
        if !self.linked || self.flight.is_some() {
            return;
        }
        if !self.booted {
            if self.boot_due <= now.mono {
                let station = json!({
                    "model": "Site controller", "vendorName": "Ladewart", "serialNumber": self.serial,
                    "firmwareVersion": env!("CARGO_PKG_VERSION"),
                });
                let boot = json!({ "reason": "PowerUp", "chargingStation": station });
                self.call(Asked::Boot, "BootNotification", &boot, now);
            }
            return;
        }
        if self.not_before <= now.mono {
            for source in Source::ALL {
                let (limit, told) = (self.limits.of(source).clone(), self.told.of(source).clone());
                match (limit, told) {
                    (Some(limit), told) if told.as_ref().is_none_or(|told| !told.says(&limit, now.wall)) => {
                        return self.tell(source, limit, now);
                    }
                    (None, Some(_)) => {
                        let cleared = json!({ "chargingLimitSource": source.name() });
                        return self.call(Asked::Limit(source, None), "ClearedChargingLimit", &cleared, now);
                    }
                    _ => {}
                }
            }
        }
        if self.startup {
            let event = json!({ "type": "StartupOfTheDevice", "timestamp": now.wall.to_string() });
            self.call(Asked::Startup, "SecurityEventNotification", &event, now);
        } else if self.heartbeat_due <= now.mono {
            self.heartbeat_due = now.mono + self.interval;
            self.call(Asked::Heartbeat, "Heartbeat", &json!({}), now);
        }
    }

    fn tell(&mut self, source: Source, limit: Course, now: Now) {
        self.schedules += 1;
        let notice = json!({
            "chargingLimit": { "chargingLimitSource": source.name(), "isGridCritical": source == Source::So },
            "chargingSchedule": [limit.schedule(self.schedules)],
        });
        self.call(Asked::Limit(source, Some(limit)), "NotifyChargingLimit", &notice, now);
    }

    fn call(&mut self, asked: Asked, action: &str, payload: &Value, now: Now) {
        let id = uuid::Builder::from_random_bytes(self.rng.u128(..).to_be_bytes()).into_uuid().to_string();
        self.out.push(Out::Send(json!([2, id, action, payload]).to_string()));
        self.flight = Some((id, asked, now.mono + ANSWER));
    }

    /// It has neither EVSEs nor cards nor files; nothing without a name for it.
    fn asked(&mut self, action: &str, asked: &Value, now: Now) -> Option<Value> {
        let status = |word: &str| Some(json!({ "status": word }));
        match action {
            "TriggerMessage" => match asked["requestedMessage"].as_str() {
                Some("BootNotification") => {
                    (self.booted, self.boot_due) = (false, now.mono);
                    status("Accepted")
                }
                Some("Heartbeat") => {
                    self.heartbeat_due = now.mono;
                    status("Accepted")
                }
                _ => status("NotImplemented"),
            },
            "GetVariables" => Some(unknown(asked, "getVariableData", "getVariableResult")),
            "SetVariables" => Some(unknown(asked, "setVariableData", "setVariableResult")),
            "Reset"
            | "ChangeAvailability"
            | "SetChargingProfile"
            | "GetCompositeSchedule"
            | "ClearCache"
            | "UpdateFirmware"
            | "RequestStartTransaction"
            | "RequestStopTransaction" => status("Rejected"),
            "GetBaseReport" | "GetReport" => status("NotSupported"),
            "ClearChargingProfile" => status("Unknown"),
            "GetChargingProfiles" => status("NoProfiles"),
            "DataTransfer" => status("UnknownVendorId"),
            "SendLocalList" => status("Failed"),
            "GetLocalListVersion" => Some(json!({ "versionNumber": 0 })),
            "GetTransactionStatus" => Some(json!({ "messagesInQueue": false })),
            _ => None,
        }
    }
}

/// A variable that it does not have, for each that was asked for.
fn unknown(asked: &Value, list: &str, result: &str) -> Value {
    let each = asked[list].as_array().into_iter().flatten().map(|item| {
        json!({ "attributeStatus": "UnknownComponent", "component": item["component"], "variable": item["variable"] })
    });
    json!({ result: each.collect::<Vec<_>>() })
}

/// The failsafe values of operators who are not heard.
fn failsafe(view: &View, root: &NodeId) -> Vec<Limit> {
    let silent = |state: Heard| matches!(state, Heard::Init | Heard::Failsafe);
    let gone = view.sources.iter().filter(|s| s.node == *root && silent(s.state));
    gone.map(|s| Limit {
        id: crate::ids::LimitId::new("failsafe"),
        issuer: s.issuer.clone(),
        role: Role::Grid,
        node: s.node.clone(),
        watts: s.failsafe,
        percent: None,
        steps: Vec::new(),
        valid_from: s.since,
        valid_until: None,
        reason: String::new(),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Step;

    const HOUR: i64 = 3_600_000;

    fn limit(watts: i64, until: Option<i64>, steps: &[(i64, i64)]) -> Limit {
        Limit {
            id: crate::ids::LimitId::new("l"),
            issuer: "uid:0".to_owned(),
            role: Role::Grid,
            node: NodeId::new("main"),
            watts: Watts(watts),
            percent: None,
            steps: steps
                .iter()
                .map(|(from, watts)| Step { from: Wall(*from), watts: Watts(*watts) })
                .collect(),
            valid_from: Wall(0),
            valid_until: until.map(Wall),
            reason: String::new(),
        }
    }

    fn now(at: i64) -> Now {
        Now { mono: Mono::default() + Duration::from_millis(at.unsigned_abs()), wall: Wall(at) }
    }

    /// Sets the limits as the site would show them.
    fn set(controller: &mut Controller, limits: &[Limit], at: i64) {
        let limits: Vec<&Limit> = limits.iter().collect();
        controller.limits.so = Course::smallest(&limits, Wall(at));
        controller.tick(now(at));
    }

    /// The CALL that is due: its action and payload. Answers it.
    fn next(controller: &mut Controller, answer: &Value, at: i64) -> Option<(String, Value)> {
        let sent = controller.output().into_iter().find_map(|out| match out {
            Out::Send(text) => Some(text),
            _ => None,
        })?;
        let call: Value = serde_json::from_str(&sent).unwrap();
        controller.received(&json!([3, call[1], answer]).to_string(), now(at));
        Some((call[2].as_str().unwrap().to_owned(), call[3].clone()))
    }

    fn booted() -> Controller {
        let mut controller = Controller::new("S".to_owned(), None, 1);
        controller.link_up(now(0));
        let answer = json!({ "status": "Accepted", "interval": 300, "currentTime": "2026-01-01T00:00:00Z" });
        assert_eq!(next(&mut controller, &answer, 0).unwrap().0, "BootNotification");
        let (action, event) = next(&mut controller, &json!({}), 0).unwrap();
        assert_eq!(
            (action.as_str(), &event["type"]),
            ("SecurityEventNotification", &json!("StartupOfTheDevice"))
        );
        assert_eq!(next(&mut controller, &json!({}), 0), None);
        controller
    }

    #[test]
    fn a_limit_is_told_once_and_its_end_too() {
        let mut controller = booted();
        set(&mut controller, &[limit(10_000, Some(HOUR), &[])], 60_000);
        let (action, notice) = next(&mut controller, &json!({}), 60_000).unwrap();
        assert_eq!(action, "NotifyChargingLimit");
        assert_eq!(notice["chargingLimit"], json!({ "chargingLimitSource": "SO", "isGridCritical": true }));
        let schedule = &notice["chargingSchedule"][0];
        assert_eq!(
            (&schedule["duration"], &schedule["chargingSchedulePeriod"]),
            (&json!(3600), &json!([{ "startPeriod": 0, "limit": 10_000 }]))
        );
        for at in [61_000, 120_000] {
            set(&mut controller, &[limit(10_000, Some(HOUR), &[])], at);
            assert!(!controller.output().iter().any(|o| matches!(o, Out::Send(_))), "told already");
        }
        set(&mut controller, &[], HOUR);
        let sent = loop {
            let (action, payload) = next(&mut controller, &json!({}), HOUR).expect("its end");
            if action != "Heartbeat" {
                break (action, payload);
            }
        };
        assert_eq!(sent, ("ClearedChargingLimit".to_owned(), json!({ "chargingLimitSource": "SO" })));
        set(&mut controller, &[], HOUR + 1);
        assert_eq!(controller.told, Told::default());
    }

    #[test]
    fn the_smallest_of_several_is_told_with_what_follows() {
        let a = limit(10_000, Some(2 * HOUR), &[(HOUR, 3_000)]);
        let b = limit(8_000, Some(3 * HOUR), &[]);
        let course = Course::smallest(&[&a, &b], Wall(0)).unwrap();
        assert_eq!(course.steps, [(0, 8_000), (HOUR, 3_000), (2 * HOUR, 8_000)]);
        assert_eq!(course.until, Some(3 * HOUR));
        // When a step begins that was told, nothing is news.
        let later = Course::smallest(&[&a, &b], Wall(HOUR + 5)).unwrap();
        assert!(course.says(&later, Wall(HOUR + 5)));
        let other = limit(2_000, Some(2 * HOUR), &[]);
        assert!(!course.says(&Course::smallest(&[&other], Wall(0)).unwrap(), Wall(0)));
        assert_eq!(Course::smallest(&[], Wall(0)), None);
    }

    #[test]
    fn a_limit_that_ended_while_nothing_ran_is_cleared() {
        let mut controller = booted();
        set(&mut controller, &[limit(10_000, None, &[])], 1);
        next(&mut controller, &json!({}), 1).unwrap();
        let stored = controller.output().into_iter().find_map(|o| match o {
            Out::Store(text) => Some(text),
            _ => None,
        });
        let mut again = Controller::new("S".to_owned(), stored.as_deref(), 2);
        again.link_up(now(5));
        let answer = json!({ "status": "Accepted", "interval": 300 });
        assert_eq!(next(&mut again, &answer, 5).unwrap().0, "BootNotification");
        assert_eq!(next(&mut again, &json!({}), 5).unwrap().0, "ClearedChargingLimit");
    }

    #[test]
    fn an_error_is_tried_again_later_and_a_lost_answer_at_once() {
        let mut controller = booted();
        set(&mut controller, &[limit(1, None, &[])], 1);
        let sent = |c: &mut Controller| {
            c.output().into_iter().find_map(|o| match o {
                Out::Send(text) => serde_json::from_str::<Value>(&text).ok(),
                _ => None,
            })
        };
        let call = sent(&mut controller).unwrap();
        controller.received(&json!([4, call[1], "InternalError", "", {}]).to_string(), now(2));
        assert_eq!(sent(&mut controller), None);
        controller.tick(now(62_000));
        assert_eq!(sent(&mut controller).unwrap()[2], "NotifyChargingLimit");
        controller.link_down();
        controller.link_up(now(63_000));
        assert_eq!(sent(&mut controller).unwrap()[2], "NotifyChargingLimit");
        controller.tick(now(63_000 + 151_000));
        assert!(controller.output().contains(&Out::Reconnect));
    }

    #[test]
    fn a_backend_that_does_not_know_the_message_is_told_once() {
        let mut controller = booted();
        set(&mut controller, &[limit(1, None, &[])], 1);
        let sent = controller.output().into_iter().find_map(|o| match o {
            Out::Send(text) => serde_json::from_str::<Value>(&text).ok(),
            _ => None,
        });
        let id = sent.unwrap()[1].clone();
        controller.received(&json!([4, id, "NotImplemented", "", {}]).to_string(), now(2));
        let stores = |out: Vec<Out>| out.iter().filter(|o| matches!(o, Out::Store(_))).count();
        assert_eq!(stores(controller.output()), 1);
        controller.not_stored();
        controller.tick(now(62_000));
        let out = controller.output();
        assert!(!out.iter().any(|o| matches!(o, Out::Send(_))), "{out:?}");
        assert_eq!(stores(out), 1, "what was not stored comes again");
    }

    #[test]
    fn what_it_has_not_is_answered_by_name() {
        let mut controller = booted();
        let mut ask = |action: &str, payload: Value| {
            controller.received(&json!([2, "q", action, payload]).to_string(), now(9));
            match controller.output().first() {
                Some(Out::Send(text)) => serde_json::from_str::<Value>(text).unwrap(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(ask("Reset", json!({ "type": "Immediate" }))[2]["status"], "Rejected");
        let variable = json!({ "component": { "name": "X" }, "variable": { "name": "Y" } });
        let answer = ask("GetVariables", json!({ "getVariableData": [variable] }));
        assert_eq!(answer[2]["getVariableResult"][0]["attributeStatus"], "UnknownComponent");
        assert_eq!(ask("CostUpdated", json!({}))[2], "NotSupported");
        assert_eq!(
            ask("TriggerMessage", json!({ "requestedMessage": "BootNotification" }))[2]["status"],
            "Accepted"
        );
    }
}

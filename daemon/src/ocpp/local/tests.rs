//! A charge point that is played here as the backend sees it, and through a crash.

use serde_json::{Value, json};

use super::*;
use crate::time::{Mono, Now};

struct Bench {
    point: Point,
    now: Now,
    stored: Option<String>,
    sent: Vec<Value>,
    /// The disk.
    fails: bool,
    released: bool,
    limit: Option<Milliamps>,
}

fn make(whole: bool) -> Make {
    Make {
        vendor: "Acme".into(),
        model: "W1".into(),
        serial: "CP-1".into(),
        most: Milliamps::amps(32),
        whole,
        free: None,
    }
}

fn facts(status: ConnectorStatus, energy: i64) -> Facts {
    let sample = Sample { energy: Some(energy), power: Some(3680), currents: Some([16_000, 0, 0]) };
    Facts { there: true, status, sample, ..Facts::default() }
}

impl Bench {
    fn new(saved: Option<&str>, now: Now) -> Self {
        Self {
            point: Point::new(make(false), saved, 1),
            now,
            stored: saved.map(str::to_owned),
            sent: vec![],
            fails: false,
            released: false,
            limit: None,
        }
    }

    fn drain(&mut self) {
        let (mut stored, mut held) = (true, Vec::new());
        for out in self.point.output() {
            match out {
                Out::Store(_) if self.fails => stored = false,
                Out::Store(text) => self.stored = Some(text),
                out if !stored && out.waits_for_disk() => held.push(out),
                Out::Send(text) => self.sent.push(serde_json::from_str(&text).unwrap()),
                Out::Release(released) => {
                    if released {
                        let kept: Value = serde_json::from_str(self.stored.as_ref().unwrap()).unwrap();
                        assert!(kept["charge"]["session"].is_object(), "the charge is on disk first");
                    }
                    self.released = released;
                }
                Out::Limit(limit, _) => self.limit = limit,
                Out::Reconnect => {}
            }
        }
        if !stored {
            self.point.not_stored(&held, self.now);
        }
    }

    fn report(&mut self, status: ConnectorStatus, energy: i64) {
        self.point.report(facts(status, energy), "", "", self.now);
        self.drain();
    }

    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now.plus(Duration::from_secs(1));
            self.point.tick(self.now);
            self.drain();
        }
    }

    fn up(&mut self) {
        self.point.link_up(self.now);
        self.drain();
    }

    fn hear(&mut self, frame: &Value) {
        self.point.received(&frame.to_string(), self.now);
        self.drain();
    }

    /// Answers every CALL until none is left; gives them all.
    fn answer(&mut self, transaction: i64) -> Vec<Value> {
        let mut all = Vec::new();
        while !self.sent.is_empty() {
            let frame = self.sent.remove(0);
            if frame[0] != 2 {
                continue;
            }
            let answer = match frame[2].as_str().unwrap() {
                "BootNotification" => {
                    json!({ "status": "Accepted", "interval": 600, "currentTime": "2026-11-24T00:00:00Z" })
                }
                "Authorize" => json!({ "idTagInfo": { "status": "Accepted" } }),
                "StartTransaction" => {
                    json!({ "idTagInfo": { "status": "Accepted" }, "transactionId": transaction })
                }
                _ => json!({}),
            };
            self.hear(&json!([3, frame[1], answer]));
            all.push(frame);
        }
        all
    }

    fn ask(&mut self, action: &str, payload: impl Into<Value>) -> Value {
        let before = self.sent.len();
        self.hear(&json!([2, "q", action, payload.into()]));
        let at = self.sent[before..].iter().position(|f| f[1] == "q").expect("an answer") + before;
        self.sent.remove(at)
    }
}

fn start() -> Now {
    Now { mono: Mono::default(), wall: Wall::parse("2026-11-24T12:00:00Z").unwrap() }
}

fn actions(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|f| f[2].as_str().unwrap()).collect()
}

#[test]
fn a_charge_from_afar_is_told_from_boot_to_stop() {
    let mut b = Bench::new(None, start());
    b.report(ConnectorStatus::Available, 1000);
    b.up();
    let boot = b.answer(0);
    assert_eq!(actions(&boot), ["BootNotification", "StatusNotification", "StatusNotification"]);
    assert_eq!(boot[0][3]["chargePointModel"], "W1");
    let yes = b.ask("RemoteStartTransaction", json!({ "idTag": "Ada", "connectorId": 1 }));
    assert_eq!(yes[2]["status"], "Accepted");
    b.report(ConnectorStatus::Preparing, 1000);
    assert!(b.released);
    let begun = b.answer(41);
    assert_eq!(actions(&begun), ["StatusNotification", "StartTransaction", "StatusNotification"]);
    assert_eq!(begun[1][3]["meterStart"], 1000);
    b.report(ConnectorStatus::Charging, 1500);
    b.wait(61);
    let during = b.answer(0);
    let meter = during.iter().find(|f| f[2] == "MeterValues").expect("a measurement");
    assert_eq!(meter[3]["transactionId"], 41);
    assert_eq!(meter[3]["meterValue"][0]["sampledValue"][0]["value"], "1500");
    assert_eq!(b.ask("RemoteStopTransaction", json!({ "transactionId": 40 }))[2]["status"], "Rejected");
    assert_eq!(b.ask("RemoteStopTransaction", json!({ "transactionId": 41 }))[2]["status"], "Accepted");
    assert!(!b.released);
    let ended = b.answer(0);
    let stop = ended.iter().find(|f| f[2] == "StopTransaction").expect("the end");
    assert_eq!((&stop[3]["meterStop"], &stop[3]["reason"]), (&json!(1500), &json!("Remote")));
    assert_eq!(stop[3]["transactionId"], 41);
    assert!(ended.iter().any(|f| f[3]["status"] == "Finishing"));
}

#[test]
fn after_a_crash_the_same_start_is_sent_under_the_same_id_and_the_charge_goes_on() {
    let mut b = Bench::new(None, start());
    b.report(ConnectorStatus::Preparing, 1000);
    b.up();
    b.answer(0);
    b.ask("RemoteStartTransaction", json!({ "idTag": "Ada" }));
    b.wait(1);
    b.sent.retain(|f| f[2] == "StartTransaction" || f[2] == "StatusNotification");
    // Whatever stood in line before it is answered; the start is not.
    while b.sent.first().is_some_and(|f| f[2] != "StartTransaction") {
        let frame = b.sent.remove(0);
        b.hear(&json!([3, frame[1], {}]));
    }
    let first = b.sent.remove(0);
    let mut after = Bench::new(b.stored.as_deref(), b.now);
    after.report(ConnectorStatus::Charging, 1200);
    assert!(after.released, "the charge goes on");
    after.up();
    let again = after.answer(41);
    let start = again.iter().find(|f| f[2] == "StartTransaction").expect("the start again");
    assert_eq!(*start, first, "byte for byte");
    let mut third = Bench::new(after.stored.as_deref(), after.now);
    third.report(ConnectorStatus::Available, 2000);
    third.up();
    let ended = third.answer(0);
    assert!(!actions(&ended).contains(&"StartTransaction"), "it was answered");
    let stop = ended.iter().find(|f| f[2] == "StopTransaction").expect("the end");
    assert_eq!((&stop[3]["transactionId"], &stop[3]["meterStop"]), (&json!(41), &json!(2000)));
    assert_eq!(stop[3]["reason"], "EVDisconnected");
}

#[test]
fn what_is_not_on_disk_does_not_begin() {
    let mut b = Bench::new(None, start());
    b.report(ConnectorStatus::Available, 1000);
    b.up();
    b.answer(0);
    b.fails = true;
    let yes = b.ask("RemoteStartTransaction", json!({ "idTag": "Ada" }));
    assert_eq!(yes[2]["status"], "Accepted");
    b.answer(0);
    b.report(ConnectorStatus::Preparing, 1000);
    b.wait(30);
    assert!(!b.released, "the store fails");
    assert!(!actions(&b.answer(0)).contains(&"StartTransaction"));
    b.fails = false;
    b.wait(2);
    assert!(b.released);
    assert!(actions(&b.answer(41)).contains(&"StartTransaction"));
    b.fails = true;
    b.ask("ChangeConfiguration", json!({ "key": "MeterValueSampleInterval", "value": "10" }));
    b.wait(5);
    assert!(b.released, "the charge itself is on disk");
    b.report(ConnectorStatus::Available, 1400);
    assert!(!b.released, "less needs no disk");
    b.wait(5);
    assert!(!actions(&b.answer(0)).contains(&"StopTransaction"));
    b.fails = false;
    b.wait(2);
    let ended = b.answer(0);
    assert_eq!(ended.iter().filter(|f| f[2] == "StopTransaction").count(), 1);
}

#[test]
fn a_connection_that_ends_during_the_boot_costs_no_time() {
    let mut b = Bench::new(None, start());
    b.report(ConnectorStatus::Available, 1000);
    b.up();
    assert_eq!(actions(&std::mem::take(&mut b.sent)), ["BootNotification"]);
    b.point.link_down();
    b.wait(2);
    b.up();
    assert_eq!(actions(&b.answer(0)), ["BootNotification", "StatusNotification", "StatusNotification"]);
}

#[test]
fn a_card_that_is_not_welcome_ends_its_charge() {
    let mut b = Bench::new(None, start());
    b.report(ConnectorStatus::Preparing, 0);
    b.up();
    b.answer(0);
    b.ask("RemoteStartTransaction", json!({ "idTag": "Ben" }));
    assert!(b.released);
    for _ in 0..10 {
        b.wait(1);
        for frame in std::mem::take(&mut b.sent) {
            let blocked = json!({ "idTagInfo": { "status": "Blocked" }, "transactionId": 9 });
            let answer = if frame[2] == "StartTransaction" { blocked } else { json!({}) };
            if frame[2] == "StopTransaction" {
                assert_eq!(frame[3]["reason"], "DeAuthorized");
                assert!(!b.released);
                return;
            }
            b.hear(&json!([3, frame[1], answer]));
        }
    }
    panic!("the charge goes on");
}

#[test]
fn profiles_become_a_limit_and_keys_and_availability_are_kept() {
    let mut b = Bench::new(None, start());
    b.report(ConnectorStatus::Available, 0);
    b.up();
    b.answer(0);
    let profile = json!({ "connectorId": 0, "csChargingProfiles": {
        "chargingProfileId": 1, "stackLevel": 0, "chargingProfilePurpose": "ChargePointMaxProfile",
        "chargingProfileKind": "Absolute", "chargingSchedule": { "chargingRateUnit": "A",
            "startSchedule": "2026-11-24T11:00:00Z", "chargingSchedulePeriod": [{ "startPeriod": 0, "limit": 10 }] } } });
    assert_eq!(b.ask("SetChargingProfile", profile)[2]["status"], "Accepted");
    assert_eq!(b.limit, Some(Milliamps::amps(10)));
    let composite = b.ask("GetCompositeSchedule", json!({ "connectorId": 1, "duration": 60 }));
    assert_eq!(composite[2]["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"], 10);
    let set = json!({ "key": "MeterValueSampleInterval", "value": "10" });
    assert_eq!(b.ask("ChangeConfiguration", set)[2]["status"], "Accepted");
    assert_eq!(
        b.ask("ChangeAvailability", json!({ "connectorId": 0, "type": "Inoperative" }))[2]["status"],
        "Accepted"
    );
    assert_eq!(b.ask("UnlockConnector", json!({ "connectorId": 1 }))[2]["status"], "NotSupported");
    assert_eq!(b.ask("Shutdown", json!({}))[2], "NotImplemented");
    let list = json!({ "listVersion": 3, "updateType": "Full" });
    assert_eq!(b.ask("SendLocalList", list)[2]["status"], "Accepted");
    let mut later = Bench::new(b.stored.as_deref(), b.now);
    later.report(ConnectorStatus::Preparing, 0);
    assert_eq!(later.limit, Some(Milliamps::amps(10)));
    assert_eq!(later.ask("GetLocalListVersion", json!({}))[2]["listVersion"], 3);
    assert_eq!(later.ask("RemoteStartTransaction", json!({ "idTag": "A" }))[2]["status"], "Rejected");
    assert_eq!(later.ask("ClearChargingProfile", json!({}))[2]["status"], "Accepted");
    assert_eq!(later.limit, None);
}

#[test]
fn the_site_measures_its_grid_connection_and_starts_nothing() {
    let mut b = Bench::new(None, start());
    b.point = Point::new(make(true), None, 1);
    b.report(ConnectorStatus::Available, 7000);
    b.up();
    b.answer(0);
    assert_eq!(b.ask("RemoteStartTransaction", json!({ "idTag": "A" }))[2]["status"], "Rejected");
    assert_eq!(
        b.ask("TriggerMessage", json!({ "requestedMessage": "MeterValues" }))[2]["status"],
        "Accepted"
    );
    let told = b.answer(0);
    let meter = told.iter().find(|f| f[2] == "MeterValues").expect("a measurement");
    assert_eq!((&meter[3]["connectorId"], &meter[3]["transactionId"]), (&json!(0), &Value::Null));
    assert_eq!(wish(LimitId::new("a"), "i", Milliamps::amps(10), None).watts, Watts(6900));
}
